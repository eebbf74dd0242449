"""The setup cell, unchanged, where Colab puts it: an empty folder, google.colab imported."""

import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

from tools.run_notebooks import execute
from tools.setup_cell import FIRST_NOTEBOOK, SOURCE, source, stamp

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
    """A bare repository of a project that the cell takes for ours, and that is imported at once."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    work = tmp_path / "work"
    (work / "utils").mkdir(parents=True)
    for name in ("__init__.py", "labels.py"):
        (work / "utils" / name).touch()
    (work / "utils" / "plots.py").write_text("def setup_notebook():\n    pass\n")
    shutil.copy(ROOT / "requirements-colab.txt", work)
    git("init", "--quiet", folder=work)
    git("add", "--all", folder=work)
    git("commit", "--quiet", "--no-verify", "--message=all", folder=work)
    return work / ".git"


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


def test_a_notebook_on_its_own_says_what_to_do_without_an_address(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_REPOSITORY", raising=False)
    notebook = new_notebook(cells=[new_code_cell(source(""))])
    with pytest.raises(CellExecutionError, match="open it in a clone of the project, or"):
        execute(notebook, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_address_is_in_the_cell():
    assert '("COURSE_REPOSITORY", "")' in source("")
    assert '("COURSE_REPOSITORY", "https://github.com/a/b.git")' in source("https://github.com/a/b")


def test_one_command_writes_the_address_everywhere(tmp_path):
    names = ("README.md", "tools/repository.txt", "notebooks/01_data_preparation.ipynb")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    stamp("", tmp_path)  # as it is before there is an address
    before = {name: (tmp_path / name).read_bytes() for name in names}
    links = b"".join(before.values()).replace(b"github.com/NAME/PROJECT", b"")  # how to stamp one
    assert b"github.com/" not in links and b"github.io" not in links

    assert len(stamp("https://github.com/Ada/streets.git", tmp_path)) == 3
    assert (tmp_path / "tools/repository.txt").read_text() == "https://github.com/Ada/streets\n"
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert readme.count("(https://ada.github.io/streets/)") == 1, "the page"
    colab = "https://colab.research.google.com/github/Ada/streets/blob/main/"
    notebooks = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    for name in notebooks:
        assert f"](notebooks/{name}) [![open in Colab](" in readme
        assert f"]({colab}notebooks/{name}) |" in readme
    assert FIRST_NOTEBOOK == f"notebooks/{notebooks[0]}"
    assert f"({colab}{FIRST_NOTEBOOK})**" in readme
    notebook = nbformat.read(tmp_path / "notebooks/01_data_preparation.ipynb", as_version=4)
    setup = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert '"https://github.com/Ada/streets.git"' in setup.source
    assert setup.source.startswith("# @title ") and setup.metadata == {"cellView": "form"}

    assert not stamp("https://github.com/Ada/streets", tmp_path)
    assert len(stamp("https://github.com/Grace/roads", tmp_path)) == 3
    moved = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "grace.github.io/roads" in moved and "da/streets" not in moved
    stamp("", tmp_path)
    assert before == {name: (tmp_path / name).read_bytes() for name in names}
    with pytest.raises(ValueError, match="'example.org/x' is no address that Colab opens"):
        stamp("example.org/x", tmp_path)
