"""Recipes: what a TOML file may say, and what it may not."""

import argparse
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from spade.stages import TRAINING as SPADE
from utils.files import PROJECT
from utils.recipes import Place, Training, add_options, check_values, option, read_recipe
from utils.stages import TRAINING as SEGMENTATION
from utils.weights import load_weights, save_weights

SHAPES = {"round": 1, "square": 2}


@dataclass(frozen=True)
class Stage:
    """A stage of a training that counts only."""

    name: str = option("1", "of the stage")
    count: int = option(3, "how many", least=0)
    rate: float = option(0.5, "how fast", least=0.1)
    epochs: int = option(1, "how often")
    is_loud: bool = option(False, "with noise")
    size: tuple[int, int] = option((4, 2), "WIDTHxHEIGHT")
    shape: str = option("round", "its form", SHAPES)
    width: int | None = option(None, "any by default")
    start: tuple[str, ...] | None = option(None, "what it begins from", alternatives=("random",))

    def __post_init__(self):
        check_values(self)


@pytest.fixture
def recipe(tmp_path):
    def write(text):
        (tmp_path / "recipe.toml").write_text(text)
        return tmp_path / "recipe.toml"

    return write


def test_stages_share_what_stands_above_them(recipe):
    path = recipe("""
        count = 5
        size = "8x6"
        rate = 1

        [[stages]]
        is_loud = true

        [[stages]]
        name = "last"
        count = 7
        width = 9
        start = ["1/file", "random"]
    """)
    first, last = read_recipe(path, Stage)
    assert first == Stage("1", 5, 1.0, is_loud=True, size=(8, 6)) and isinstance(first.rate, float)
    assert last == Stage("last", 7, 1.0, size=(8, 6), width=9, start=("1/file", "random"))
    assert read_recipe(recipe("count = 1"), Stage) == [Stage(count=1)]


@pytest.mark.parametrize(
    "text, message",
    [
        ("counts = 5", 'recipe.toml, stage "1": there is no key counts: expected name, count, ra'),
        ("[[stages]]\n[[stages]]\nshapes = 1", 'recipe.toml, stage "2": there is no key shapes'),
        ("count = 5.5", 'stage "1": count is 5.5: expected a whole number.'),
        ("count = true", "count is True: expected a whole number."),
        ("rate = '1'", "rate is '1': expected a number."),
        ("is_loud = 1", "is_loud is 1: expected true or false."),
        ("size = '8'", "size is '8': expected WIDTHxHEIGHT in quotes"),
        ("size = [8, 6]", r"size is \[8, 6\]: expected WIDTHxHEIGHT in quotes"),
        ("start = 1", "start is 1: expected a text in quotes, or a list of them."),
        ("start = [1]", r"start is \[1\]: expected a text in quotes, or a list"),
        ("count = -1", "count is -1: expected 0 or more."),
        ("rate = nan", "rate is nan: expected 0.1 or more."),
        ("", "recipe.toml is empty: expected settings"),
        ("count = {a = 1}", r"count is {'a': 1}: expected a whole number."),
        ("start = 'f'\n[[stages]]\n[[stages]]\nname='b'", "start and name hold for one stage, and"),
        ("width = 'a'", "width is 'a': expected a whole number."),
        ("shape = 'oval'", "stage \"1\": shape is 'oval': expected one of round, square."),
        ("count = ", "recipe.toml is no TOML file: "),
        ("stages = 3", r"recipe.toml: stages should be tables, each under a line \[\[stages\]\]"),
        ("stages = []", "recipe.toml: stages should be tables"),
        ("[[stages]]\nname='a'\n[[stages]]\nname='a'", "has the stages 'a', 'a': expected names"),
        ("[[stages]]\nname='a'\n[[stages]]\nname='A'", "has the stages 'a', 'A': expected names"),
        ("[[stages]]\nname='../a'", "has the stages '../a': expected names that differ, of lett"),
        ("[[stages]]\nname=''", "has the stages '': expected names"),
        ("[[stages]]\nname='last.pt'", "has the stages 'last.pt': expected names"),
        ("[[stages]]\nname=1", "name is 1: expected a text in quotes."),
    ],
)
def test_what_a_recipe_may_not_say(recipe, text, message):
    with pytest.raises(ValueError, match=message):
        read_recipe(recipe(text), Stage)
    with pytest.raises(FileNotFoundError, match="There is no recipe .*nowhere.toml: check"):
        read_recipe("nowhere.toml", Stage)


def test_the_fields_are_the_options(capsys):
    parser = argparse.ArgumentParser()
    add_options(parser, Stage)
    line = "--count 5 --rate 1 --is-loud --size 8x6 --shape square --width 9 --start a b"
    assert vars(parser.parse_args(line.split())) == {
        "count": 5, "rate": 1.0, "is_loud": True, "size": (8, 6), "shape": "square", "width": 9,
        "start": ["a", "b"],
    }  # fmt: skip
    assert vars(parser.parse_args([])) == {}, "what is not given is known not to be given"
    for wrong in ("--shape oval", "--count x", "--size 8", "--name a"):
        with pytest.raises(SystemExit):
            parser.parse_args(wrong.split())
    assert "how many (default: 3)" in parser.format_help()
    assert "WIDTHxHEIGHT (default: 4x2)" in parser.format_help()


# ------------------------------------------------------------------------------ stages in a row


@pytest.fixture
def counting(recipe, tmp_path):
    """A training whose result is a file of weights that says its recipe; and what it was asked."""
    asked = []

    def train(stage, place, folder, so_far):
        asked.append((stage.name, folder, stage.start))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "last.pt").write_text(stage.name)
        save_weights(folder / "result.safetensors", {}, {"recipe": so_far})

    def check_start(before, stage, file):
        if before.width != stage.width:
            raise ValueError(f"width {before.width}, then {stage.width}.")

    training = Training(Stage, train, check_start, ("last.pt", "result.safetensors"))

    def run(text, *options):
        asked.clear()
        out = tmp_path / "out"
        training.main("", ["--recipe", str(recipe(text)), "--out", str(out), *options])
        return [(name, folder.relative_to(out).as_posix(), start) for name, folder, start in asked]

    return run


TWO = "[[stages]]\nname = 'small'\n[[stages]]\nname = 'large'\ncount = 4\n"


def test_a_stage_goes_on_from_the_one_before_it(counting, tmp_path):
    start = (str(tmp_path / "out" / "small" / "last.pt"),)
    assert counting(TWO) == [("small", "small", None), ("large", ".", start)]
    assert (tmp_path / "out" / "result.toml").read_text() == TWO
    recorded = load_weights(tmp_path / "out" / "result.safetensors")[1]["recipe"]
    expected = [("small", 3, [4, 2]), ("large", 4, [4, 2])]
    assert [(x["name"], x["count"], x["size"]) for x in recorded] == expected
    assert counting(TWO) == [], "nothing is left to do"
    # The last stage was interrupted before its end.
    (tmp_path / "out" / "result.safetensors").unlink()
    assert counting(TWO) == [("large", ".", start)]


def test_a_checkpoint_of_another_recipe_is_refused_at_once_and_always(counting, tmp_path):
    counting(TWO)
    out = tmp_path / "out"
    for changed, message in (
        ("rate = 2\n" + TWO, r"small.last\.pt is of another training \(stage 1 had rate 0.5, a"),
        (TWO + "rate = 2", r"last\.pt is of another .* \(stage 2 had rate 0.5, and has rate 2"),
        (TWO + "start = 'random'", r"\(stage 2 had start None, and has start \['random'\] now"),
        (TWO + "[[stages]]\nname = 'end'", r"it was stage 2 of its recipe, and is stage 3 now"),
    ):
        for _ in range(2):
            with pytest.raises(ValueError, match=message):
                counting(changed)
    # What the training itself compares may change: it goes on, but no later stage does.
    assert [name for name, *_ in counting(TWO + "epochs = 2")] == ["large"]
    with pytest.raises(ValueError, match=r"\(stage 1 had epochs 1, and has epochs 3 now\)"):
        counting("epochs = 3\n" + TWO + "epochs = 2")
    # One that single options began has no recipe.
    (out / "stages.json").unlink()
    with pytest.raises(ValueError, match=r"last\.pt is of another training \(it was begun without"):
        counting(TWO + "epochs = 3")


def test_a_setting_that_an_older_version_lacked_has_its_default(counting, tmp_path):
    counting(TWO)
    weights = tmp_path / "out" / "result.safetensors"
    recorded = load_weights(weights)[1]["recipe"]
    for stage in recorded:
        del stage["width"], stage["rate"]
    save_weights(weights, {}, {"recipe": recorded})
    assert counting(TWO) == []
    shutil.rmtree(tmp_path / "out" / "small")  # of a stage that is finished
    assert counting(TWO) == []


def test_a_stage_can_name_what_it_starts_from(counting, tmp_path):
    three = TWO + "[[stages]]\nname = 'end'\nstart = ['small/last.pt', 'large/result.safetensors']"
    (*_, end) = counting(three)
    out = tmp_path / "out"
    assert end == ("end", ".", (f"{out}/small/last.pt", f"{out}/large/result.safetensors"))
    shutil.rmtree(out)
    assert counting(TWO + "start = 'random'")[-1][2] == ("random",)


def test_stages_that_do_not_fit_are_refused_before_anything_is_trained(counting, tmp_path):
    with pytest.raises(ValueError, match='stage "large" can.t start from stage "small": width No'):
        counting(TWO + "width = 5")
    for start, message in (
        ("['huge/last.pt']", "start names huge/last.pt, and there is no such file in "),
        ("['small/lasst.pt']", "small/lasst.pt, .*; a stage leaves last.pt, result.safetensors"),
        ("[]", "start is an empty list: write"),
    ):
        with pytest.raises((FileNotFoundError, ValueError), match=f'stage "large": .*{message}'):
            counting(TWO + f"start = {start}")
    assert not (tmp_path / "out").exists()


def test_options_beside_a_recipe(counting):
    with pytest.raises(ValueError, match="recipe.toml and --is-loud: beside --recipe only --out"):
        counting(TWO, "--is-loud")
    options = ("--cache", "c", "--root", "r", "--precision", "bf16")
    assert counting("count = 1", *options) == [("1", ".", None)]


# ------------------------------------------------------------------------------ what is bundled


@pytest.mark.parametrize(
    "path", sorted((PROJECT / "data" / "weights").glob("*.toml")), ids=lambda path: path.name
)
def test_the_recipes_of_the_bundled_networks(path, monkeypatch):
    """They can be read, their stages fit one another, and the last one makes such a network."""
    monkeypatch.chdir(PROJECT)
    training = SEGMENTATION if path.name.startswith("segmentation") else SPADE
    stages = read_recipe(path, training.stage)
    trained, is_file = [], Path.is_file
    # Some stages go on from another recipe's run.
    monkeypatch.setattr(Path, "is_file", lambda x: x.parts[0] == "runs" or is_file(x))
    monkeypatch.setattr("utils.recipes.write_atomically", lambda *_: None)
    dry = replace(training, train=lambda stage, *_: trained.append(stage.name))
    dry.train_recipe(path, Place(PROJECT / "nowhere"))
    assert trained == [stage.name for stage in stages]
    weights = path.with_suffix(".safetensors")
    if not is_file(weights):
        assert path.name == "segmentation_camvid.toml", "data/README.md: too large for the project"
        return
    metadata = load_weights(weights)[1]
    # What a stage leaves open is as in the stage before it.
    last = {k: v for stage in stages for k, v in vars(stage).items() if v is not None}
    settings = metadata.get("settings") or metadata
    if "z_dim" in last:
        last["z_dim"] = last["z_dim"] or None  # a stage's 0 is a generator without a latent
    compared = {name: value for name, value in settings.items() if name in last}
    assert len(compared) >= 2
    for name, value in compared.items():
        assert value == (list(last[name]) if isinstance(last[name], tuple) else last[name]), name
