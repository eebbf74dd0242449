"""The code as a whole: who imports whom, how much there is to read, and the calls to a step."""

import ast
import functools
import importlib.util
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import spade
from spade.training import Recipe, train_spade
from utils import training
from utils.files import PROJECT
from utils.pipeline import Pipeline
from utils.scenes import open_scenes
from utils.segmentation import SegmentationNet

# What a student reads: the limits are of lines, and may be raised for a reason.
CORE = {
    "utils": "labels scenes images cache segmentation training metrics pipeline",
    "spade": "normalization semantics generator encoder discriminator losses training",
}
# 4,500 until labels could mean several things, and data sets could be joined; 4,560 until inference
# was recorded on a GPU, too; 4,620 until enlarging kept half precision there.
MAX_CORE, MAX_CORE_ENGINE_AND_STYLES, MAX_TRAIN = 3800, 4630, 60
# The modules of utils that may need spade.
MAY_NEED_SPADE = ("pipeline", "photo_folder", "feedback", "painter", "downloads", "exercises")


@functools.cache
def modules() -> dict[str, Path]:
    """All modules of both packages by name; a package's own is its __init__.py."""
    paths = [path for name in ("utils", "spade") for path in (PROJECT / name).rglob("*.py")]
    names = {}
    for path in paths:
        parts = path.relative_to(PROJECT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imported(name: str) -> set[str]:
    """The modules of the project that one needs, and the packages around them."""
    path, found = modules()[name], set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level]
            source = ".".join([*base, node.module or ""] if node.level else [node.module])
            source = source.rstrip(".")
            found |= {source} | {f"{source}.{alias.name}" for alias in node.names}
    found |= {x.rsplit(".", depth)[0] for x in found for depth in range(1, x.count(".") + 1)}
    # A module runs inside its own packages, which therefore need not be there before it.
    around = {name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)}
    return (found & modules().keys()) - around - {name}


def test_no_import_runs_in_a_circle():
    needs, done = {name: imported(name) for name in modules()}, set()

    def visit(name, path):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in sorted(needs[name]):
                visit(other, [*path, name])
            done.add(name)

    for name in needs:
        visit(name, [])
    assert {"spade.generator", "utils.cache"} <= done


def test_only_some_of_utils_need_spade():
    needy = {
        name.split(".")[1]
        for name in modules()
        if name.startswith("utils.") and any(x.split(".")[0] == "spade" for x in imported(name))
    }
    assert needy <= set(MAY_NEED_SPADE)
    needs = {name: imported(name) for name in modules()}
    reached, waiting = set(), ["utils.training", "utils.metrics", "utils.stages"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += needs[name]
    assert not [name for name in reached if name.startswith("spade")]


def file_of(module: str, folder: Path) -> Path | None:
    """The project's file that a script in this folder imports by a name; None: a library's."""
    for root in (PROJECT, folder, PROJECT / "tests"):
        path = root.joinpath(*module.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


@functools.cache
def names_in(file: Path) -> set[str]:
    """What a module's own lines bind, in an if, a try or a loop, too."""
    found, waiting = set(), [ast.parse(file.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        waiting += ast.iter_child_nodes(node)
    return found


def uses(script: Path) -> Iterator[tuple[int, str, str | None]]:
    """(line, module, name) of a script's imports, and of what it reads from the project's modules
    with a dot; the name is None where a module is imported as a whole."""
    tree, modules, hidden = ast.parse(script.read_text(encoding="utf-8")), {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, None
                modules[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, node.module, alias.name
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.arg):  # a parameter of the same name
            hidden.add(node.arg)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id) if node.value.id not in hidden else None
            if module and file_of(module, script.parent) and not node.attr.startswith("__"):
                yield node.lineno, module, node.attr


@pytest.mark.parametrize("folder", ["benchmarks", "tools", "tests"])
def test_what_scripts_use_of_the_project_is_there(folder):
    """Nobody runs each benchmark after a change, which may have given its names new ones."""
    count = 0
    for script in sorted((PROJECT / folder).glob("*.py")):
        for line, module, name in uses(script):
            file, where = file_of(module, script.parent), f"{folder}/{script.name}:{line}"
            if file is None:
                top = module.split(".")[0]
                is_ours = file_of(top, script.parent) or (PROJECT / top).is_dir()
                assert not is_ours and importlib.util.find_spec(top), f"{where}: {module}"
            elif name is not None:
                is_there = name in names_in(file) or file_of(f"{module}.{name}", script.parent)
                assert is_there, f"{where}: {module} has no {name}"
                count += 1
    assert count > 20


def lines(*paths: Path) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def test_the_core_is_read_in_an_afternoon():
    core = [PROJECT / x / f"{name}.py" for x, names in CORE.items() for name in names.split()]
    engine = sorted((PROJECT / "utils" / "engine").glob("*.py"))
    assert len(core) == 15 and len(engine) >= 6
    assert lines(*core) <= MAX_CORE
    assert lines(*core, *engine, PROJECT / "spade" / "styles.py") <= MAX_CORE_ENGINE_AND_STYLES


def test_the_readme_lists_the_core_in_an_order_to_read_it():
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    paths = re.findall(r"^\| \d+ \| \[((\w+)/(\w+)\.py)\]\(\1\)", readme, re.M)
    order = [f"{package}.{name}" for _, package, name in paths]
    assert sorted(order) == sorted(f"{x}.{n}" for x, names in CORE.items() for n in names.split())
    for number, name in enumerate(order):
        assert not imported(name) & set(order[number:]), name
    others = set(re.findall(r"`((?:utils|spade)/[\w/]+(?:\.py|/))`", readme))
    named = {PROJECT / path for path in others} | {modules()[name] for name in order}
    unnamed = [path for path in modules().values() if not named & {path, *path.parents}]
    assert [path.name for path in unnamed] == ["__init__.py"] * 2


@pytest.mark.parametrize(
    "file, name", [("utils/training.py", "train"), ("spade/training.py", "train_spade")]
)
def test_a_training_loop_fits_a_screen(file, name):
    tree = ast.parse((PROJECT / file).read_text(encoding="utf-8"))
    (loop,) = (x for x in tree.body if isinstance(x, ast.FunctionDef) and x.name == name)
    assert loop.end_lineno - loop.lineno + 1 <= MAX_TRAIN


def names_on_the_way(monkeypatch, owner, name, call) -> list[list[str]]:
    """The project's functions between call() and each call of owner.name, outermost first."""
    ways, function = [], getattr(owner, name)

    def noted(*arguments, **settings):
        frames = traceback.extract_stack()
        packages = [str(PROJECT / "utils"), str(PROJECT / "spade")]
        ways.append([x.name for x in frames if any(map(x.filename.startswith, packages))])
        return function(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, noted)
        call()
    return ways


def test_a_training_step_is_two_calls_away(monkeypatch):
    scenes = open_scenes("toy", "train", size=(64, 64))[:2]
    recipe = training.Recipe(epochs=1, batch_size=2)
    ways = names_on_the_way(
        monkeypatch,
        torch.Tensor,
        "backward",
        lambda: training.train(SegmentationNet("resnet18"), scenes, scenes, recipe),
    )
    assert ways == [["train", "segmentation_step"]]
    networks = (
        spade.SpadeGenerator(2, "normal", None, (64, 64), 4),
        spade.MultiscaleDiscriminator(ndf=2),
    )
    ways = names_on_the_way(
        monkeypatch,
        torch.Tensor,
        "backward",
        lambda: train_spade(*networks, scenes, Recipe(pictures=2, batch_size=2)),
    )
    assert ways == [["train_spade", "adversarial_step"]] * 2  # the generator's, the discriminator's


def test_from_a_scene_to_its_new_photo_there_are_two_calls(monkeypatch):
    generator = spade.SpadeGenerator(2, "normal", None, (64, 64), 4).eval()
    pipeline = Pipeline(SegmentationNet("resnet18"), generator)
    scene = open_scenes("toy", "val", size=(64, 64))[0]
    run = functools.partial(pipeline.run, scene.image_u8)
    ways = names_on_the_way(monkeypatch, spade.SpadeGenerator, "synthesize", run)
    assert ways == [["run", "feedback"]]
