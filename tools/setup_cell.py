#!/usr/bin/env python3
"""The setup cell: the same first code cell in every notebook, kept here and copied by this tool.

    python tools/setup_cell.py notebooks/*.ipynb      # write it into their first code cell

It finds the project in a folder above the notebook.  A notebook on its own, as Colab opens it, gets
the project beside it; in Colab it also installs the few packages that Colab lacks.  It can be run
twice.  The environment variable COURSE_REPOSITORY names another repository to clone, or a branch's
local copy.
"""

import sys
from pathlib import Path

import nbformat

REPOSITORY_URL = "https://github.com/OWNER/street-to-map.git"

SOURCE = f"""\
import os
import subprocess
import sys
from pathlib import Path

clone = Path.cwd() / "street-to-map"
folders = [Path.cwd(), *Path.cwd().parents]
ROOT = next((f for f in folders if (f / "utils/labels.py").is_file()), clone)
if not ROOT.exists():  # this notebook is on its own: fetch the project it belongs to
    url = os.environ.get("COURSE_REPOSITORY", "{REPOSITORY_URL}")
    subprocess.run(["git", "clone", "--quiet", "--depth=1", url, str(ROOT)], check=True)
if "google.colab" in sys.modules:  # only what Colab lacks: torch and numpy stay as they are
    requirements = str(ROOT / "requirements-colab.txt")
    subprocess.run([sys.executable, "-m", "pip", "install", "-qr", requirements], check=True)
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from utils.plots import setup_notebook

setup_notebook()"""


def write(path):
    """Put the setup cell into a notebook's first code cell; all else in the file stays.

    Args:
        path: the .ipynb file.

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
    if cell.source == SOURCE:
        return False
    cell.source = SOURCE
    Path(path).write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return True


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}: {'written' if write(name) else 'already there'}")
