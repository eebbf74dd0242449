"""Recipes: trainings described in a TOML file, or by the same names as options of a command.

    dataset = "toy"             # settings above the stages hold for all of them
    batch_size = 8

    [[stages]]
    name = "small"
    size = "128x64"
    pictures = 8000

    [[stages]]                  # continues from the stage before it
    size = "256x128"
    pictures = 5600

A stage is a dataclass whose fields are made by option(): it has a name, and start, the files that
it begins from.  The last stage is trained in the folder --out itself, the others in folders of
their names below it.
"""

import argparse
import dataclasses
import json
import re
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from accelerate.state import PartialState

from utils.commands import width_and_height
from utils.engine.accelerator import PRECISIONS, make_accelerator
from utils.engine.run import CHECKPOINT
from utils.files import write_atomically
from utils.scenes import DATASETS, Scenes
from utils.weights import differing, load_metadata

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

BEGUN = "stages.json"  # beside a checkpoint: the settings of its stage and of those before it
GOING_ON = ("pictures", "epochs")  # settings of a stage that its training compares itself
_NAME = re.compile(r"[\w-]+")
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    tuple[int, int]: 'WIDTHxHEIGHT in quotes, "256x128" for example',
    tuple[str, ...]: "a text in quotes, or a list of them",
}


def option(
    default: object,
    about: str,
    choices: Iterable[str] = (),
    least: float | None = None,
    most: float | None = None,
    alternatives: Iterable[str] = (),
    joined: bool = False,
) -> typing.Any:
    """A dataclass's field that is a key in recipes and an option of the command.

    Args:
        choices: the values that it may have; a dict in which they are looked up, for example.
        least, most: the smallest and the largest number that it may be.
        alternatives: for a field that names files, the words that are allowed as well.
        joined: several of the choices may be joined by "+".
    """
    metadata = {"about": about, "choices": choices, "least": least, "most": most}
    metadata |= {"alternatives": tuple(alternatives), "joined": joined}
    return dataclasses.field(default=default, metadata=metadata)


def check_values(stage: object) -> None:
    """Raise ValueError if a value is not one of its option's choices, too small or too large."""
    for field in dataclasses.fields(stage):
        choices, least, most = (field.metadata[x] for x in ("choices", "least", "most"))
        value = getattr(stage, field.name)
        if value is None:
            continue
        for part in value.split("+") if field.metadata["joined"] else [value]:
            if choices and part not in choices:
                known = ", ".join(map(str, choices))
                known += ', or several joined by "+"' if field.metadata["joined"] else ""
                raise ValueError(f"{field.name} is {value!r}: expected one of {known}.")
        smallest = min(value) if isinstance(value, tuple) and least is not None else value
        if least is not None and not smallest >= least:
            raise ValueError(f"{field.name} is {_shown(value)}: expected {least} or more.")
        if most is not None and not value <= most:
            raise ValueError(f"{field.name} is {value}: expected {most} or less.")


DATA = f"the data set ({', '.join(DATASETS)}), or several joined by +"


def some_of(scenes: Scenes, count: int | None) -> Scenes:
    """The first `count` scenes (None: all); of joined data sets, evenly spaced ones."""
    return scenes.evenly_spaced(count) if count and "+" in scenes.dataset else scenes[:count]


@dataclasses.dataclass(frozen=True)
class Data:
    """The settings that the stages of all trainings have: a name, and the scenes."""

    name: str = option("1", "of the stage, and of the folder that it is trained in")
    dataset: str = option("toy", DATA, DATASETS, joined=True)
    size: tuple[int, int] = option((256, 128), "WIDTHxHEIGHT")
    scenes: int | None = option(None, "how many training scenes; all by default", least=1)


# ----------------------------------------------------------------------------- from a file


def read_recipe(path: str | Path, kind: type) -> list:
    """The stages of a recipe, in order.

    Args:
        kind: the dataclass of a stage.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not TOML, is empty, has a key that is not a field, a value that a field
            can't have, or two stages of one name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no recipe {path}: check the path.")
    try:
        shared = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}.") from error
    if not shared:
        raise ValueError(f"{path} is empty: expected settings, and stages under lines [[stages]].")
    tables = shared.pop("stages", [{}])
    if not isinstance(tables, list) or not all(isinstance(x, dict) for x in tables) or not tables:
        raise ValueError(f"{path}: stages should be tables, each under a line [[stages]].")
    if len(tables) > 1 and {"start", "name"} & shared.keys():
        raise ValueError(
            f"{path}: start and name hold for one stage, and here they are above all stages: write "
            "them under the line [[stages]] of their stage."
        )
    stages = []
    for number, table in enumerate(tables, 1):
        name = table.get("name", str(number))
        stages.append(_stage(kind, {"name": name} | shared | table, f'{path}, stage "{name}"'))
    names = [stage.name for stage in stages]
    if len({name.lower() for name in names}) < len(names) or not all(map(_NAME.fullmatch, names)):
        raise ValueError(
            f"{path} has the stages {', '.join(map(repr, names))}: expected names that differ, of "
            "letters, digits, - and _."
        )
    return stages


def _stage(kind: type, values: dict, where: str):
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in values:
        if key not in fields:
            raise ValueError(f"{where}: there is no key {key}: expected {', '.join(fields)}.")
    try:
        return kind(**{key: _converted(fields[key], value) for key, value in values.items()})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _type(field: dataclasses.Field) -> type:
    """A field's type; that of its values for one that may be None."""
    return typing.get_args(field.type)[0] if isinstance(field.type, types.UnionType) else field.type


def _converted(field: dataclasses.Field, value: object) -> object:
    """A value of a TOML file as the field's type, or ValueError."""
    kind = _type(field)
    if kind is float and type(value) is int:
        return float(value)
    if kind == tuple[int, int] and isinstance(value, str):
        try:
            return width_and_height(value)
        except argparse.ArgumentTypeError:
            pass  # raised below
    elif kind == tuple[str, ...] and isinstance(value, (str, list)):
        items = [value] if isinstance(value, str) else value
        if all(isinstance(item, str) for item in items):
            return tuple(items)
    elif type(value) is kind:
        return value
    raise ValueError(f"{field.name} is {value!r}: expected {_KINDS[kind]}.")


# ----------------------------------------------------------------------------- from options


def add_options(parser: argparse.ArgumentParser, kind: type) -> None:
    """An option for each field; what is not given is not in the parser's result."""
    for field in dataclasses.fields(kind):
        if field.name == "name":
            continue  # stages of a recipe have one
        name, value_type = "--" + field.name.replace("_", "-"), _type(field)
        settings = {"help": field.metadata["about"], "default": argparse.SUPPRESS}
        if value_type is bool:
            parser.add_argument(name, action="store_true", **settings)
            continue
        if value_type == tuple[str, ...]:
            settings |= {"nargs": "+", "type": str}
        else:
            settings["type"] = width_and_height if value_type == tuple[int, int] else value_type
        if field.metadata["choices"] and not field.metadata["joined"]:
            settings["choices"] = tuple(field.metadata["choices"])
        if field.default not in (None, ()):
            settings["help"] += f" (default: {_shown(field.default)})"
        parser.add_argument(name, **settings)


def _shown(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


# ----------------------------------------------------------------------------- the command


@dataclasses.dataclass(frozen=True)
class Place:
    """The settings of a training that depend on the machine, and are not part of a recipe.

    Attributes:
        out: the folder for checkpoints and weights.
        root: the data set's folder, None for the usual one.
        cache: the folder for decoded scenes.
        precision: "fp32", "bf16" or "fp16".
    """

    out: Path
    root: str | None = None
    cache: str = "data/cache"
    precision: str = "fp32"


ABOUT_THE_MACHINE = tuple(field.name for field in dataclasses.fields(Place))  # beside --recipe


@dataclasses.dataclass(frozen=True)
class Training:
    """A training that can be run by a command.

    Attributes:
        stage: the dataclass of a stage.
        train: a function of a stage (start holds paths), place, folder, and the settings of all
            stages so far, which it saves in the weights' metadata; it writes files to the folder.
        check_start: a function of two stages and the name of a file; it raises ValueError if the
            second stage can't start from that file of the first.
        files: names of the files that a stage writes.  By default the next stage starts from the
            first one; the last one holds the weights, and exists once the stage is finished.
    """

    stage: type
    train: Callable[[object, Place, Path, list[dict]], None]
    check_start: Callable[[object, object, str], None]
    files: tuple[str, ...]

    def main(self, description: str, arguments: list[str] | None = None) -> None:
        """The command line: the stages of --recipe, or one stage of options.

        Raises ValueError or FileNotFoundError before anything is trained, if the recipe can't be
        trained here.
        """
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--recipe", type=Path, help="a TOML file with all of the training")
        parser.add_argument("--out", type=Path, required=True, help="for checkpoints and weights")
        parser.add_argument("--root", help="the data set's folder")
        parser.add_argument("--cache", default=Place.cache, help="folder for decoded scenes")
        parser.add_argument("--precision", default=Place.precision, choices=tuple(PRECISIONS))
        add_options(parser, self.stage)
        options = vars(parser.parse_args(arguments))
        recipe = options.pop("recipe")
        place = Place(**{name: options.pop(name) for name in ABOUT_THE_MACHINE})
        if recipe is None:
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
            stage = self.stage(**values)
            self.train(stage, place, place.out, [dataclasses.asdict(stage)])
        elif options:
            raise ValueError(
                f"{recipe} and --{next(iter(options)).replace('_', '-')}: beside --recipe only "
                f"{', '.join('--' + name for name in ABOUT_THE_MACHINE)} are allowed; write the "
                "other options into the recipe."
            )
        else:
            self.train_recipe(recipe, place)

    def train_recipe(self, recipe: Path, place: Place) -> None:
        """Train the stages that are not finished; one that was interrupted continues."""
        make_accelerator()  # PartialState() alone would not find several processes on a CPU
        stages, text = read_recipe(recipe, self.stage), recipe.read_bytes()
        folders = {stage.name: place.out / stage.name for stage in stages}
        folders[stages[-1].name] = place.out
        ready: list = []
        for stage in stages:
            ready.append(self._ready(stage, ready, folders, recipe))
        records = [self._record(stages[: number + 1]) for number in range(len(stages))]
        todo = 0
        for number, (stage, record) in enumerate(zip(stages, records, strict=True)):
            if self._is_finished(folders[stage.name], record):
                todo = number + 1
            else:
                self._check_begun(folders[stage.name], record)
        for stage, record in list(zip(ready, records, strict=True))[todo:]:
            folder = folders[stage.name]
            if PartialState().is_main_process:
                _write(folder / BEGUN, json.dumps(record, indent=1).encode())
            PartialState().wait_for_everyone()
            self.train(stage, place, folder, record)
            PartialState().wait_for_everyone()
        if PartialState().is_main_process:
            weights = place.out / self.files[-1]
            _write(weights.with_suffix(".toml"), text)
            print(f"{recipe} is finished: {weights}")

    def _record(self, stages: list) -> list[dict]:
        """The settings of stages as JSON returns them, with lists for tuples."""
        return json.loads(json.dumps([dataclasses.asdict(stage) for stage in stages]))

    def _is_finished(self, folder: Path, record: list[dict]) -> bool:
        weights = folder / self.files[-1]
        if not weights.is_file():
            return False
        return self._difference(load_metadata(weights).get("recipe"), record) is None

    def _check_begun(self, folder: Path, record: list[dict]) -> None:
        """Raise ValueError if the folder's checkpoint is of a stage with another history."""
        if not (folder / CHECKPOINT).is_file():
            return
        begun = folder / BEGUN
        saved = json.loads(begun.read_text()) if begun.is_file() else None
        difference = self._difference(saved, record, GOING_ON)
        if difference is not None:
            raise ValueError(
                f"{folder / CHECKPOINT} is of another training ({difference}): delete it to train "
                "this stage anew, or choose another --out."
            )

    def _difference(
        self, saved: list[dict] | None, record: list[dict], may_differ: Sequence[str] = ()
    ) -> str | None:
        """In which setting of which stage two records differ, in words; None if they are alike.

        Args:
            may_differ: settings of the last stage that are not compared.
        """
        if saved is None:
            return "it was begun without this recipe"
        if len(saved) != len(record):
            return f"it was stage {len(saved)} of its recipe, and is stage {len(record)} now"
        defaults = self._record([self.stage()])[0]  # for settings that an older version lacks
        for number, (was, now) in enumerate(zip(saved, record, strict=True), 1):
            skipped = ("save_every", *(may_differ if number == len(record) else ()))
            compared = {key: value for key, value in now.items() if key not in skipped}
            differences = differing(defaults | was, compared)
            if differences is not None:
                return f"stage {number} had {differences[0]}, and has {differences[1]} now"
        return None

    def _ready(self, stage, before: list, folders: dict[str, Path], recipe: Path):
        """A stage with paths in start, after a check that its files exist, or will exist."""
        where, start = f'{recipe}, stage "{stage.name}"', stage.start
        earlier = {x.name: x for x in before}
        if start is None and before:
            start = f"{before[-1].name}/{self.files[0]}"

        def path_of(item: str, field: dataclasses.Field) -> str:
            name, _, file = item.partition("/")
            if field.name == "start" and name in earlier and file in self.files:
                try:
                    self.check_start(earlier[name], stage, file)
                except ValueError as error:
                    raise ValueError(
                        f'{where} can\'t start from stage "{name}": {error}'
                    ) from error
                return str(folders[name] / file)
            if item in field.metadata["alternatives"] or Path(item).is_file():
                return item
            leaves = f"; a stage leaves {', '.join(self.files)}" if name in earlier else ""
            raise FileNotFoundError(
                f"{where}: {field.name} names {item}, and there is no such file in {Path.cwd()}"
                f"{leaves}."
            )

        paths = {}
        for field in dataclasses.fields(stage):
            value = start if field.name == "start" else getattr(stage, field.name)
            if not field.metadata["alternatives"] or value is None:
                continue
            is_list = _type(field) is not str
            items = [value] if isinstance(value, str) else value
            if not items:
                raise ValueError(f'{where}: {field.name} is an empty list: write ["random"].')
            items = tuple(path_of(item, field) for item in items)
            paths[field.name] = items if is_list else items[0]
        return dataclasses.replace(stage, **paths)


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda part: part.write_bytes(content))
