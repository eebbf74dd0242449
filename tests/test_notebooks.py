"""What nbval does not look at: order, cleanliness, size and form of the committed notebooks."""

import ast
import re
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import nbformat
import pytest

from tools.run_notebooks import clean
from tools.setup_cell import SOURCE

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb")) + sorted(NOTEBOOKS.glob("solutions/*.ipynb"))
MAX_BYTES, MAX_BYTES_TOGETHER = 1_500_000, 7_000_000
WITH_CLASSES, MAX_CLASS = ("02", "03", "06"), 25  # where writing one is the lesson, in lines
TAGS = {"parameters", "nbval-ignore-output", "nbval-skip", "raises-exception"}
PICTURES = {"image/jpeg", "image/png"}
MIME_TYPES = {"text/plain", "text/html", "text/markdown"} | PICTURES
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:root|home|Users|tmp|content|var)/|[A-Z]:\\")


@pytest.fixture(params=PATHS, ids=lambda path: path.relative_to(NOTEBOOKS).as_posix())
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


def without_magics(source):
    """A cell's source as plain Python: line magics commented out."""
    return re.sub(r"^(\s*)%", r"\1pass  # %", source, flags=re.M)


def test_the_readme_lists_every_notebook_in_order():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[[^]]*\]\(notebooks/(\w+\.ipynb)\)", readme, re.M)
    assert rows == [path.name for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    assert rows == [path.name for path in sorted(NOTEBOOKS.glob("solutions/*.ipynb"))]


def test_written_by_the_tool(path, notebook):
    nbformat.validate(notebook)
    expected = nbformat.writes(clean(notebook)) + "\n"
    assert path.read_text(encoding="utf-8") == expected, (
        "not in its committed form: python tools/run_notebooks.py --clean-only notebooks/*.ipynb"
    )


def test_small(path):
    assert path.stat().st_size <= MAX_BYTES


def test_small_together():
    assert sum(path.stat().st_size for path in PATHS) <= MAX_BYTES_TOGETHER


def test_executed_from_top_to_bottom(notebook):
    # nbval compares nothing in a cell whose execution_count is null
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_outputs_are_clean(notebook):
    for number, cell in enumerate(code_cells(notebook), 1):
        for output in cell.outputs:
            where = f"In [{number}]"
            assert output.output_type != "error" or "raises-exception" in tags(cell), where
            assert output.get("name") != "stderr", f"{where}: {output.get('text', '')[:200]!r}"
            assert set(output.get("data", {})) <= MIME_TYPES, f"{where}: {list(output.data)}"
            data = [v for k, v in output.get("data", {}).items() if k not in PICTURES]
            text = "\n".join([output.get("text", ""), *data, *output.get("traceback", [])])
            assert not re.search(r"\d+%\|", text), f"{where}: a progress bar"
            found = MACHINE_PATH.search(text)
            assert not found, f"{where}: a path of one machine, {found.group()}"


def test_tags_are_known(notebook):
    for cell in notebook.cells:
        assert set(tags(cell)) <= TAGS


def test_outputs_that_are_not_compared_are_asserted(notebook):
    """An assert or a check_value() in the tagged cell, or in the next one, stands in for it."""
    cells = code_cells(notebook)
    for number, cell in enumerate(cells, 1):
        if {"nbval-ignore-output", "nbval-skip"} & set(tags(cell)):
            sources = "\n".join(following.source for following in cells[number - 1 : number + 1])
            assert re.search(r"^\s*(assert\b|check_value\()", sources, re.M), f"In [{number}]"


def test_starts_with_a_title_then_the_setup_cell(notebook):
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    setups = [cell.source == SOURCE for cell in code_cells(notebook)]
    assert setups[0] and sum(setups) == 1, "python tools/setup_cell.py notebooks/*.ipynb"


def test_second_code_cell_holds_the_parameters(notebook):
    assert ["parameters" in tags(cell) for cell in code_cells(notebook)].index(True) == 1
    assert sum("parameters" in tags(cell) for cell in code_cells(notebook)) == 1


def test_tells_a_story(notebook):
    assert median(len(cell.source.splitlines()) for cell in code_cells(notebook)) <= 6
    runs = "".join(cell.cell_type[0] for cell in notebook.cells)  # "mcmccm": m markdown, c code
    assert "ccc" not in runs, "never more than two code cells in a row"


def test_code_lives_in_modules(path, notebook):
    for number, cell in enumerate(code_cells(notebook), 1):
        assert not re.search(r"^\s*!|^%%|^\s*%(run|cd|pip|sx)\b", cell.source, re.M), number
        nodes = ast.walk(ast.parse(without_magics(cell.source)))
        for node in (x for x in nodes if isinstance(x, ast.ClassDef)):
            assert path.name[:2] in WITH_CLASSES, f"In [{number}]"
            assert node.end_lineno - node.lineno < MAX_CLASS, f"In [{number}]"


@pytest.mark.parametrize(
    "processes, chosen, expected", [(2, "no", "loadscope"), (2, "load", "load"), (0, "no", "no")]
)
def test_side_by_side_a_notebooks_cells_stay_together(processes, chosen, expected, request):
    plugins = request.config.pluginmanager.get_plugins()
    path = str(ROOT / "conftest.py")
    (ours,) = (x for x in plugins if getattr(x, "__file__", None) == path)
    config = SimpleNamespace(option=SimpleNamespace(numprocesses=processes, dist=chosen))
    ours.pytest_cmdline_main(config)
    assert config.option.dist == expected
    ours.pytest_cmdline_main(SimpleNamespace(option=SimpleNamespace()))  # without pytest-xdist


def test_machine_paths_are_recognised():
    assert MACHINE_PATH.search("saved to " + "/home" + "/ada/street-to-map/out/a.jpg")
    assert MACHINE_PATH.search("File /tmp/ipykernel_1/2.py")
    assert not MACHINE_PATH.search("saved to out/pictures/a.jpg, 2/3 done")


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_has_questions_to_start_with_and_exercises_of_all_kinds(path):
    texts = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown"]
    start = texts[0].split("**Three questions to start with**")[1]
    assert re.findall(r"^(\d)\. .*\?$", start, re.M) == ["1", "2", "3"]
    exercises = re.findall(r"^\*\*(\d)\. ([A-Z].*?)[.?]\*\*", "\n".join(texts), re.M)
    assert [int(number) for number, _ in exercises] == list(range(1, len(exercises) + 1))
    kinds = [kind for _, kind in exercises]
    assert {"Explain", "Change the network"} <= set(kinds)
    solution = nbformat.read(NOTEBOOKS / "solutions" / path.name, as_version=4)
    answers = "\n".join(c.source for c in solution.cells if c.cell_type == "markdown")
    numbers = re.findall(r"^## (\d)\. ", answers, re.M)
    assert numbers == [number for number, _ in exercises]
    assert "## " + next(n for n, kind in exercises if kind == "Explain") + ". Explain" in answers
    assert "(../docs/course.md)" in texts[-1]
