"""The setup cell, unchanged, where Colab puts it: an empty folder, google.colab imported."""

import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tools.run_notebooks import execute
from tools.setup_cell import REPOSITORY, SOURCE, stamp

ROOT = Path(__file__).resolve().parents[1]
COLAB = 'import sys, types\nsys.modules["google.colab"] = types.ModuleType("google.colab")'
# Other packages of the same name that were imported before: a plain file, and a folder.
OTHER_UTILS = """\
import sys, types
for name in ("utils", "utils.plots", "spade"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["utils"].__file__ = "/elsewhere/utils.py\""""
SHOWN = """\
import utils.plots
print(ROOT, utils.plots.__file__, id(utils.plots), sep="\\n")"""
REPORT = """\
import utils
print(ROOT.relative_to(Path.cwd()), Path(utils.__file__).relative_to(Path.cwd()))
print(sys.path.count(str(ROOT)))"""


def git(*arguments, folder):
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    """A bare repository of the working tree's modules, committed or not."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    work = tmp_path / "work"
    for package in ("utils", "spade"):
        shutil.copytree(
            ROOT / package, work / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "requirements-colab.txt", work)
    git("init", "--quiet", folder=work)
    git("add", "--all", folder=work)
    git("commit", "--quiet", "--no-verify", "--message=all", folder=work)
    git("clone", "--quiet", "--bare", str(work), str(tmp_path / "bare.git"), folder=tmp_path)
    return tmp_path / "bare.git"


def text_outputs(notebook):
    return [out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", [])]


@pytest.mark.parametrize("cells", [[COLAB, SOURCE, SOURCE], [SOURCE]], ids=["colab", "elsewhere"])
def test_a_notebook_on_its_own_fetches_the_project(cells, repository, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_REPOSITORY", repository.as_uri())
    content = tmp_path / "content"
    content.mkdir()
    notebook = new_notebook(cells=[new_code_cell(source) for source in [*cells, REPORT]])
    execute(notebook, content)
    # the clone's package, named once on the path, and nothing else printed
    assert "".join(text_outputs(notebook)) == "street-to-map street-to-map/utils/__init__.py\n1\n"
    assert [entry.name for entry in content.iterdir()] == ["street-to-map"]


def test_a_notebook_in_the_repository_uses_it():
    cells = [OTHER_UTILS, SOURCE, SHOWN, SOURCE, SHOWN]
    notebook = new_notebook(cells=[new_code_cell(source) for source in cells])
    execute(notebook, ROOT / "notebooks")
    first, second = text_outputs(notebook)
    assert first.splitlines()[:2] == [str(ROOT), str(ROOT / "utils" / "plots.py")]
    assert first == second, "our own modules stay when the cell runs again"


def test_the_address_is_in_the_cell():
    assert SOURCE.count(f'"{REPOSITORY}.git"') == 1


def test_one_command_writes_the_address_everywhere(tmp_path):
    for name in ("README.md", "tools/repository.txt", "notebooks/01_data_preparation.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    changed = stamp("https://github.com/ada/streets.git", tmp_path)
    assert len(changed) == 3
    assert (tmp_path / "tools/repository.txt").read_text() == "https://github.com/ada/streets\n"
    readme, old = (tmp_path / "README.md").read_text(), (ROOT / "README.md").read_text()
    owner = REPOSITORY.removeprefix("https://github.com/")
    assert old.count(f"/github/{owner}/blob/") == readme.count("/github/ada/streets/blob/") >= 7
    assert owner not in readme
    notebook = nbformat.read(tmp_path / "notebooks/01_data_preparation.ipynb", as_version=4)
    setup = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert '"https://github.com/ada/streets.git"' in setup.source
    assert not stamp("https://github.com/ada/streets", tmp_path)
    with pytest.raises(ValueError, match="'example.org/x' is no address that Colab opens"):
        stamp("example.org/x", tmp_path)
