#!/usr/bin/env python3
"""The setup cell: the same first code cell in every notebook, kept here and copied by this tool.

    python tools/setup_cell.py                                # into all notebooks
    python tools/setup_cell.py https://github.com/NAME/PROJECT      # after the project has moved

It finds the project in a folder above the notebook.  A notebook on its own, as Colab opens it, gets
the project beside it; in Colab it also installs the few packages that Colab lacks.  It can be run
twice.  The environment variable COURSE_REPOSITORY names another repository to clone, or a branch's
local copy.

The repository's address stands in tools/repository.txt only; with another one this tool writes it
there, into the setup cells, and into the links of README.md that open a notebook in Colab.
"""

import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = ROOT / "tools" / "repository.txt"
_GITHUB = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?")
_COLAB_LINK = re.compile(r"(colab\.research\.google\.com/github/)[\w.-]+/[\w.-]+(/blob/)")


def source(address: str) -> str:
    """The setup cell of a project with this address, https://github.com/NAME/PROJECT."""
    return _SOURCE.replace("REPOSITORY_URL", f"{address}.git")


_SOURCE = """\
import os
import subprocess
import sys
from pathlib import Path

clone = Path.cwd() / "street-to-map"
folders = [Path.cwd(), *Path.cwd().parents]
ROOT = next((f for f in folders if (f / "utils/labels.py").is_file()), clone)
if not ROOT.exists():  # this notebook is on its own: fetch the project it belongs to
    url = os.environ.get("COURSE_REPOSITORY", "REPOSITORY_URL")
    subprocess.run(["git", "clone", "--quiet", "--depth=1", url, str(ROOT)], check=True)
if "google.colab" in sys.modules:  # only what Colab lacks: torch and numpy stay as they are
    requirements = str(ROOT / "requirements-colab.txt")
    subprocess.run([sys.executable, "-m", "pip", "install", "-qr", requirements], check=True)
if sys.path[0] != str(ROOT):
    sys.path.insert(0, str(ROOT))
for name, module in list(sys.modules.items()):  # another package of the same name makes room
    file = Path(getattr(module, "__file__", None) or "/")
    if name.split(".")[0] in ("utils", "spade") and ROOT not in file.parents:
        del sys.modules[name]

from utils.plots import setup_notebook

setup_notebook()"""
REPOSITORY = ADDRESS.read_text().strip()
SOURCE = source(REPOSITORY)


def write(path, cell_source=SOURCE):
    """Put the setup cell into a notebook's first code cell; all else in the file stays.

    Args:
        path: the .ipynb file.
        cell_source: what to put there.

    Returns:
        True if the file was changed.

    Raises:
        ValueError: the first code cell is not a setup cell.
    """
    notebook = nbformat.read(path, as_version=4)
    cell = next((cell for cell in notebook.cells if cell.cell_type == "code"), None)
    if cell is None or "setup_notebook()" not in cell.source:
        raise ValueError(
            f"{path}: expected a first code cell that calls setup_notebook(); "
            "put a code cell with that line there and run this again"
        )
    if cell.source == cell_source:
        return False
    cell.source = cell_source
    Path(path).write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return True


def stamp(address: str, root: Path = ROOT) -> list[Path]:
    """Write the repository's address wherever it is needed -> the files that changed.

    Args:
        address: https://github.com/NAME/PROJECT, with or without .git.
        root: the project's folder.

    Raises ValueError for an address that Colab can't open notebooks from.
    """
    match = _GITHUB.fullmatch(address)
    if match is None:
        raise ValueError(
            f"{address!r} is no address that Colab opens notebooks from: expected "
            "https://github.com/NAME/PROJECT"
        )
    name = match[1]
    address = f"https://github.com/{name}"
    readme, place = root / "README.md", root / "tools" / "repository.txt"
    texts = {
        place: f"{address}\n",
        readme: _COLAB_LINK.sub(rf"\g<1>{name}\g<2>", readme.read_text(encoding="utf-8")),
    }
    changed = [path for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
    for path in changed:
        path.write_text(texts[path], encoding="utf-8")
    notebooks = sorted((root / "notebooks").rglob("*.ipynb"))
    return changed + [path for path in notebooks if write(path, source(address))]


if __name__ == "__main__":
    for path in stamp(*sys.argv[1:2] or [REPOSITORY]):
        print(f"{path.relative_to(ROOT)}: written")
