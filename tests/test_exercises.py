"""The exercises: what a reader is told, and that no answer stands where it is checked."""

import ast
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import spade
from utils.exercises import EXERCISES, FUNCTION, check, check_value, digest
from utils.painter import Painting, empty_street
from utils.segmentation import SegmentationNet
from utils.weights import find_weights

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
FIXED = [name for name, exercise in EXERCISES.items() if isinstance(exercise.right, str)]
# Answers of the right kind that no exercise has.
WRONG = {
    "a number": -1,
    "a list of numbers": [-1],
    "a pair of numbers": (-1, -1),
    "a text": "nothing",
    "a function": lambda *given: torch.zeros(1),
}


def cells(number: str, solutions: bool = False) -> list[str]:
    """The sources of a notebook's code cells, "03" for instance, line magics left out."""
    folder = NOTEBOOKS / "solutions" if solutions else NOTEBOOKS
    (path,) = folder.glob(f"{number}_*.ipynb")
    notebook = json.loads(path.read_text(encoding="utf-8"))
    sources = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    return [re.sub(r"^%.*$", "", source, flags=re.M) for source in sources]


def checks(source: str) -> list[ast.Call]:
    """The calls of check() in a cell."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "check"]


def checked(solutions: bool) -> list[str]:
    """The exercises that the notebooks check, or their solutions, in order."""
    numbers = sorted({name[:2] for name in EXERCISES})
    sources = [source for number in numbers for source in cells(number, solutions)]
    return [call.args[0].value for source in sources for call in checks(source)]


def solution(number: str, names: str, **given) -> list:
    """Functions of a solution by name, with the solution's imports and what else they need."""
    namespace = dict(given)
    for source in cells(number, solutions=True):
        for node in ast.parse(source).body:
            is_wanted = isinstance(node, ast.FunctionDef) and node.name in (*names.split(), "at")
            ours = isinstance(node, ast.Import | ast.ImportFrom) and "setup_notebook" not in source
            if is_wanted or ours:
                exec(compile(ast.Module([node], []), number, "exec"), namespace)
    return [namespace[name] for name in names.split()]


def fixed_answer(exercise: str):
    """What stands in the solution: the last answer = ... before its check."""
    answer = None
    for source in cells(exercise[:2], solutions=True):
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "answer":
                try:
                    answer = ast.literal_eval(node.value)
                except ValueError:
                    continue  # computed
        if exercise in [call.args[0].value for call in checks(source)]:
            return answer
    raise AssertionError(f"{exercise} is not checked in its solution")


@pytest.fixture(scope="module")
def cases():
    """For each exercise whose answer is no hash: the right answer, and what else check() gets."""
    torch.manual_seed(0)
    random = torch.randint(0, 256, (4, 3, 32, 64), dtype=torch.uint8)
    maps = torch.tensor([7, 23, 24, 26])[torch.randint(0, 4, (4, 32, 64))].byte()
    maps[1][maps[1] == 24] = 7
    network = SegmentationNet("resnet18").eval()
    generator = spade.load_generator(find_weights("generator", "toy"))
    width, height = generator.size
    empty_ids = empty_street(generator.size)
    painting = Painting(empty_ids)
    painting.paint([(0, height * 0.15), (0, height * 0.5)], "building", size=height // 2)
    scores = [
        SimpleNamespace(iou={"road": a, "bus": b, "train": torch.nan})
        for a, b in [(0.9, 0.5), (0.8, 0.1)]
    ]
    one = solution("01", "contrast edges_by_hand", photos_u8=random, maps=maps)
    two = solution("02", "iou with_stride balanced", network=network)
    three = solution("03", "block_by_hand with_instance_norm")
    (blind,) = solution("04", "blind", generator=generator)
    shift, look_twice = solution("05", "shift look_twice")
    (evening_in,) = solution("06", "evening_in", bundled=generator)
    (by_table,) = solution("08", "by_table")
    size = {"width": width, "height": height, "generator": generator}
    plant, paint_twice, between = solution("07", "plant paint_twice between", **size)
    return {
        "01.2": (3, maps),
        "01.3": (one[0], random, maps),
        "01.4": (one[1],),
        "02.1": (512 * 2 * 3, network, (96, 64)),
        "02.2": (two[0],),
        "02.3": (two[1], network),
        "02.4": (two[2],),
        "03.3": (three[0],),
        "03.4": (three[1],),
        "04.2": ("bus", scores),
        "04.3": (blind, generator, empty_ids),
        "05.1": ("mirror", torch.tensor([7, 23])[:, None, None].expand(2, 4, 6)),
        "05.2": (shift,),
        "05.3": (look_twice, network, random[:2]),
        "06.2": (evening_in, generator),
        "07.3": (plant, empty_ids),
        "07.4": (paint_twice, empty_ids),
        "07.5": (between, generator, empty_ids, painting.label_ids),
        "08.3": (by_table,),
    }


def told(capsys, *given) -> str:
    check(*given)
    return capsys.readouterr().out


def test_the_notebooks_and_their_solutions_check_every_exercise_once():
    assert checked(solutions=False) == list(EXERCISES) == checked(solutions=True)


@pytest.mark.parametrize("number", sorted({name[:2] for name in EXERCISES}))
def test_no_checking_cell_of_a_notebook_computes_anything(number):
    for source in cells(number):
        if checks(source):
            for node in ast.parse(source).body:
                is_blank = isinstance(node, ast.Assign) and ast.unparse(node.value) == "..."
                is_check = bool(checks(ast.unparse(node)))
                assert is_blank or is_check or isinstance(node, ast.ImportFrom), source
            assert not any(
                isinstance(n, ast.Compare | ast.BinOp) for n in ast.walk(ast.parse(source))
            )


@pytest.mark.parametrize("exercise", FIXED)
def test_a_fixed_answer_is_kept_as_a_hash(exercise):
    assert re.fullmatch("[0-9a-f]{16}", EXERCISES[exercise].right)
    assert digest(exercise, fixed_answer(exercise)) == EXERCISES[exercise].right
    assert str(fixed_answer(exercise)) not in EXERCISES[exercise].hint.split()


@pytest.mark.parametrize("exercise", EXERCISES)
def test_right_wrong_and_unsuitable_answers(exercise, cases, capsys):
    answer, *given = cases.get(exercise) or [fixed_answer(exercise)]
    hint, kind = EXERCISES[exercise].hint, EXERCISES[exercise].kind
    assert told(capsys, exercise, ..., *given).startswith("Not answered yet: replace the three")
    assert told(capsys, exercise, answer, *given) == "Right.\n"
    wrong = not answer if kind == "True or False" else WRONG[kind]
    printed = told(capsys, exercise, wrong, *given)
    assert printed.startswith("Not yet: ") and hint in printed
    other = 3 if kind == FUNCTION else check
    assert told(capsys, exercise, other, *given).startswith(f"Not yet: the answer should be {kind}")


def test_answers_that_are_nearly_right(cases, capsys):
    def edges_round_the_rim(ids):
        moved = [ids.roll(step, dim) for dim in (0, 1) for step in (-1, 1)]
        return torch.stack([ids != x for x in moved]).any(0)

    def shares_its_encoder(finest_stride):
        network = cases["02.3"][0](finest_stride)
        network.encoder = cases["02.3"][1].encoder
        return network

    def blinds_the_readers_own(block_name):
        with torch.no_grad():
            for name, parameter in getattr(cases["04.3"][1], block_name).named_parameters():
                if "mlp_gamma.weight" in name or "mlp_beta.weight" in name:
                    parameter.zero_()
        return cases["04.3"][1]

    def sees_road(network, image_u8):
        return torch.full((len(image_u8), *image_u8.shape[-2:]), 7, dtype=torch.uint8)

    for exercise, answer in {
        "01.4": edges_round_the_rim,
        "02.3": shares_its_encoder,
        "02.4": lambda label_ids: cases["02.4"][0](label_ids).tolist(),
        "04.3": blinds_the_readers_own,
        "05.3": sees_road,
    }.items():
        right, *given = cases[exercise]
        assert told(capsys, exercise, answer, *given).startswith("Not yet: "), exercise
        assert told(capsys, exercise, right, *given) == "Right.\n", "the reader's networks stay"


def test_every_exercise_that_is_no_hash_has_a_case(cases):
    assert sorted([*cases, *FIXED]) == sorted(EXERCISES)


@pytest.mark.parametrize("answer", [[2, 5], (2.0, 4.9999), torch.tensor([2.001, 5.0])])
def test_numbers_may_be_of_any_type_and_a_little_off(answer, capsys):
    assert told(capsys, "03.2", answer) == "Right.\n"
    assert told(capsys, "03.2", [2, 5.02]).startswith("Not yet: first normalised")


def test_case_and_spaces_of_a_text_do_not_matter(cases, capsys):
    assert told(capsys, "04.2", "  Bus ", *cases["04.2"][1:]) == "Right.\n"
    assert told(capsys, "04.1", " true") == "Right.\n"


def test_a_function_that_fails_gets_a_hint_and_no_traceback(capsys):
    printed = told(capsys, "02.2", lambda predicted_ids, true_ids, name: 1 / 0)
    assert "ZeroDivisionError: division by zero\nHint: the pixels on which" in printed
    printed = told(capsys, "05.2", lambda: None)
    assert "TypeError" in printed and "column 0 twice" in printed


def test_an_unknown_exercise_is_the_notebooks_mistake():
    with pytest.raises(ValueError, match="no exercise '09.1': there are 01.1, "):
        check("09.1", 1)


@pytest.mark.parametrize(
    "value, bounds, printed",
    [
        (0.7534, {"at_least": 0.7}, "mIoU should be at least 0.7: 0.753"),
        (torch.tensor(2.0), {"at_most": 3}, "mIoU should be at most 3: 2"),
        (1.5, {"at_least": 1, "at_most": 2}, "mIoU should be at least 1 and at most 2: 1.5"),
        (0.5, {"at_least": 0.7}, "mIoU should be at least 0.7, but is 0.5. Other data,"),
        (float("nan"), {"at_most": 1}, "mIoU should be at most 1, but is nan. Other data,"),
    ],
)
def test_a_value_out_of_bounds_stops_the_tests_and_nobody_else(
    value, bounds, printed, monkeypatch, capsys
):
    monkeypatch.delenv("COURSE_STRICT", raising=False)
    check_value(value, "mIoU", **bounds)
    assert capsys.readouterr().out.startswith(printed)
    monkeypatch.setenv("COURSE_STRICT", "1")
    if "but is" in printed:
        with pytest.raises(AssertionError, match=printed.split(". ")[0]):
            check_value(value, "mIoU", **bounds)
    else:
        check_value(value, "mIoU", **bounds)
