"""The two notebook tools: which Python runs a notebook, and what is left of it when written."""

import json
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import run_notebooks, setup_cell


def write(path, *cells):
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


def test_runs_in_this_python_whatever_kernels_are_installed(tmp_path, monkeypatch):
    hijacker = tmp_path / "jupyter" / "kernels" / "python3"
    hijacker.mkdir(parents=True)
    kernel = {"argv": ["/bin/false"], "display_name": "another Python", "language": "python"}
    (hijacker / "kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    source = "import os, sys\nprint(sys.executable)\nprint(os.getcwd())"
    notebook = new_notebook(cells=[new_code_cell(source)])
    run_notebooks.execute(notebook, tmp_path)
    assert notebook.cells[0].outputs[0].text.splitlines() == [sys.executable, str(tmp_path)]


def test_an_interrupted_execution_writes_nothing(tmp_path, capsys):
    """The kernel sends the signal that Ctrl-C sends."""
    source = "import os, signal, time\nos.kill(os.getppid(), signal.SIGINT)\ntime.sleep(60)"
    path = write(tmp_path / "a.ipynb", new_code_cell(source))
    before = path.read_bytes()
    assert run_notebooks.main([str(path)]) == 130
    assert path.read_bytes() == before
    assert capsys.readouterr().err.endswith("interrupted, nothing written\n")


def test_two_executions_are_equal_and_the_original_stays(tmp_path):
    path = write(
        tmp_path / "a.ipynb", new_markdown_cell("# Title"), new_code_cell("print(1)\n2 + 2")
    )
    before = path.read_bytes()
    for folder in ("first", "second"):
        assert run_notebooks.main([str(path), "--out", str(tmp_path / folder)]) == 0
    assert path.read_bytes() == before
    first = (tmp_path / "first" / "a.ipynb").read_bytes()
    assert first == (tmp_path / "second" / "a.ipynb").read_bytes()
    cell = nbformat.reads(first.decode(), as_version=4).cells[1]
    assert cell.execution_count == 1
    assert [o.get("text") or o.data["text/plain"] for o in cell.outputs] == ["1\n", "4"]


def test_clean_only_runs_nothing(tmp_path):
    path = write(tmp_path / "a.ipynb", new_code_cell("1 / 0", metadata={"collapsed": True}))
    assert run_notebooks.main([str(path), "--clean-only"]) == 0
    (cell,) = nbformat.read(path, as_version=4).cells
    assert cell.source == "1 / 0" and not cell.outputs and cell.metadata == {}


def test_what_kernels_see(tmp_path, monkeypatch):
    for name in ("COURSE_PROGRESS", "COURSE_RUNS"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    source = (
        "import os\nprint(os.environ['COURSE_PROGRESS'])\nos.listdir(os.environ['COURSE_RUNS'])"
    )
    notebook = new_notebook(cells=[new_code_cell(source)])
    run_notebooks.execute(notebook, tmp_path)
    printed, listed = notebook.cells[0].outputs
    assert printed.text == "0\n" and listed.data["text/plain"] == "[]"


def test_two_notebooks_never_become_one_file(tmp_path, capsys):
    paths = [write(tmp_path / name, new_code_cell("1")) for name in ("a.ipynb", "b.ipynb")]
    (tmp_path / "solutions").mkdir()
    paths.append(write(tmp_path / "solutions" / "a.ipynb", new_code_cell("2")))
    with pytest.raises(SystemExit):
        run_notebooks.main([*map(str, paths), "--out", str(tmp_path / "out")])
    assert "two notebooks have the same name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_failing_notebook_is_not_written(tmp_path, capsys):
    path = write(tmp_path / "a.ipynb", new_code_cell("1 / 0"))
    before = path.read_bytes()
    assert run_notebooks.main([str(path)]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_clean_drops_what_is_random_or_personal():
    widget = new_output(
        "display_data", {run_notebooks.WIDGET_VIEW: {"model_id": "1f"}, "text/plain": "Slider()"}
    )
    picture = new_output(
        "display_data", {"image/jpeg": "aa", "image/png": "bb"}, metadata={"needs_background": "l"}
    )
    cell = new_code_cell("slider", outputs=[widget, picture], execution_count=1)
    cell.metadata = nbformat.from_dict({"tags": ["parameters"], "execution": {"started": "now"}})
    notebook = new_notebook(cells=[cell], metadata={"widgets": {}, "accelerator": "GPU"})
    run_notebooks.clean(notebook)
    assert cell.id == "cell-00"
    assert cell.metadata == {"tags": ["parameters"]}
    assert [sorted(output.data) for output in cell.outputs] == [["text/plain"], ["image/jpeg"]]
    assert cell.outputs[1].metadata == {}
    assert sorted(notebook.metadata) == ["accelerator", "kernelspec", "language_info"]


def test_setup_cell_is_written_once(tmp_path):
    path = write(
        tmp_path / "a.ipynb", new_markdown_cell("# Title"), new_code_cell("setup_notebook()")
    )
    assert setup_cell.write(path)
    assert not setup_cell.write(path)
    assert nbformat.read(path, as_version=4).cells[1].source == setup_cell.SOURCE


def test_setup_cell_overwrites_no_other_cell(tmp_path):
    path = write(tmp_path / "a.ipynb", new_code_cell("print(1)"))
    with pytest.raises(ValueError, match=r"expected a first code cell that calls setup_notebook"):
        setup_cell.write(path)
