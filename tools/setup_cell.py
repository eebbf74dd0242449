#!/usr/bin/env python3
"""The setup cell, the same first code cell in every notebook, and the links to the repository.

    python tools/setup_cell.py                                  # into all notebooks and README.md
    python tools/setup_cell.py https://github.com/NAME/PROJECT      # after the project has moved

The cell finds the project in a folder above the notebook.  A notebook on its own, as Colab opens
it, gets the project beside it; in Colab the cell also installs the few packages that Colab lacks.
It can be run twice.  The environment variable COURSE_REPOSITORY names another repository to clone,
or a branch's local copy.

tools/repository.txt holds the repository's address, and is empty as long as there is none.  Given
an address, this tool writes it there and into the setup cells, and adds the links that need it to
README.md: the page on GitHub Pages, and each notebook in Colab.  Without an address, README.md has
no such links, and a notebook on its own says what to do.
"""

import argparse
import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = ROOT / "tools" / "repository.txt"
_GITHUB = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+?)(\.git)?/?")
_BADGE = "[![open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
# In README.md: a notebook's link in the table, with its badge or without, and the line of links.
_NOTEBOOK = re.compile(rf"(\[[^]]+\]\((notebooks/\w+\.ipynb)\))(?: {re.escape(_BADGE)}\S+)? \|")
_LINKS = re.compile(r"(<!-- links -->\n).*?(<!-- end of links -->)", re.DOTALL)
FIRST_NOTEBOOK = "notebooks/01_data_preparation.ipynb"


def source(address: str) -> str:
    """The setup cell of a project with this address, https://github.com/NAME/PROJECT or ""."""
    return _SOURCE.replace("REPOSITORY_URL", f"{address}.git" if address else "")


_SOURCE = """\
# @title Setup: find the project, or fetch it
import os
import subprocess
import sys
from pathlib import Path

clone = Path.cwd() / "street-to-map"
folders = [Path.cwd(), *Path.cwd().parents]
ROOT = next((f for f in folders if (f / "utils/labels.py").is_file()), clone)
if not ROOT.exists():  # this notebook is on its own: fetch the project it belongs to
    url = os.environ.get("COURSE_REPOSITORY", "REPOSITORY_URL")
    if not url:
        raise RuntimeError(
            "This notebook needs the files of its project: open it in a clone of the project, or "
            "run a cell with %env COURSE_REPOSITORY=ADDRESS, the address of the project's git "
            "repository, before this one."
        )
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
REPOSITORY = ADDRESS.read_text(encoding="utf-8").strip()
SOURCE = source(REPOSITORY)


def write(path: Path, cell_source: str = SOURCE) -> bool:
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
    form = {"cellView": "form"}  # Colab shows its title and hides its code
    if cell.source == cell_source and cell.metadata == form:
        return False
    cell.source = cell_source
    cell.metadata = nbformat.from_dict(form)
    Path(path).write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return True


def linked(readme: str, address: str) -> str:
    """README.md's text with the links of a project with this address, or without if it is ""."""
    if not address:
        return _NOTEBOOK.sub(r"\1 |", _LINKS.sub(r"\1\2", readme))
    owner, project = address.removeprefix("https://github.com/").split("/")
    colab = f"https://colab.research.google.com/github/{owner}/{project}/blob/main/"
    links = (
        f"**[Paint now](https://{owner.lower()}.github.io/{project}/)** in your browser, or "
        f"**[open the first notebook in Colab]({colab}{FIRST_NOTEBOOK})**.\n"
    )
    readme = _LINKS.sub(rf"\g<1>{links}\g<2>", readme)
    return _NOTEBOOK.sub(rf"\1 {_BADGE}({colab}\2) |", readme)


def stamp(address: str, root: Path = ROOT) -> list[Path]:
    """Write the repository's address wherever it is needed -> the files that changed.

    Args:
        address: https://github.com/NAME/PROJECT, with or without .git, or "" for none.
        root: the project's folder.

    Raises:
        ValueError: Colab can't open notebooks from this address.
    """
    if address:
        match = _GITHUB.fullmatch(address)
        if match is None:
            raise ValueError(
                f"{address!r} is no address that Colab opens notebooks from: expected "
                "https://github.com/NAME/PROJECT"
            )
        address = f"https://github.com/{match[1]}/{match[2]}"
    readme, place = root / "README.md", root / "tools" / "repository.txt"
    texts = {
        place: f"{address}\n" if address else "",
        readme: linked(readme.read_text(encoding="utf-8"), address),
    }
    changed = [path for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
    for path in changed:
        path.write_text(texts[path], encoding="utf-8")
    notebooks = sorted((root / "notebooks").rglob("*.ipynb"))
    return changed + [path for path in notebooks if write(path, source(address))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", nargs="?", default=REPOSITORY, help="of the repository")
    try:
        changed = stamp(parser.parse_args().address)
    except ValueError as error:
        parser.error(str(error))
    for path in changed:
        print(f"{path.relative_to(ROOT)}: written")
    if not changed:
        print("Nothing had to be changed.")


if __name__ == "__main__":
    main()
