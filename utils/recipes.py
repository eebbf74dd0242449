"""Recipes: trainings described in a TOML file, or by the same names as options of a command.

    dataset = "toy"             # what stands above the stages holds for all of them
    batch_size = 8

    [[stages]]
    name = "small"
    size = "128x64"
    pictures = 8000

    [[stages]]                  # goes on from the stage before it
    size = "256x128"
    pictures = 5600

A stage is a dataclass whose fields are made by option(): it has a name, and start, the files that
it begins from.  The last stage is trained in the folder --out itself, the others in folders of
their names below it.
"""

import argparse
import dataclasses
import json
import shutil
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path

from accelerate.state import PartialState

from utils.commands import width_and_height
from utils.engine.accelerator import PRECISIONS
from utils.engine.run import CHECKPOINT
from utils.files import write_atomically
from utils.weights import load_weights

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ABOUT_THE_MACHINE = ("out", "root", "cache", "precision")  # options beside --recipe
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    tuple[int, int]: 'WIDTHxHEIGHT in quotes, "256x128" for example',
    tuple[str, ...]: "a list of texts in quotes",
}


def option(
    default: object, about: str, choices: Iterable[str] = (), instead: Iterable[str] = ()
) -> typing.Any:
    """A dataclass's field that is a key in recipes and an option of the command.

    Args:
        choices: the values that it may have; a dict in which they are looked up, for example.
        instead: for a field that names files, the words that may stand in their place.
    """
    metadata = {"about": about, "choices": choices, "instead": tuple(instead)}
    return dataclasses.field(default=default, metadata=metadata)


def check_choices(stage: object) -> None:
    """Raise ValueError if one of a dataclass's values is none of the choices of its option()."""
    for field in dataclasses.fields(stage):
        choices, value = field.metadata["choices"], getattr(stage, field.name)
        if choices and value is not None and value not in choices:
            raise ValueError(
                f"{field.name} is {value!r}: expected one of {', '.join(map(str, choices))}."
            )


# ----------------------------------------------------------------------------- from a file


def read_recipe(path: str | Path, kind: type) -> list:
    """The stages of a recipe, in order.

    Args:
        kind: the dataclass of a stage.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TOML, has a key that is no field, a value of another type, or two
            stages of one name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no recipe {path}: check the path.")
    try:
        shared = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}.") from error
    tables = shared.pop("stages", [{}])
    if not isinstance(tables, list) or not all(isinstance(x, dict) for x in tables) or not tables:
        raise ValueError(f"{path}: stages should be tables, each under a line [[stages]].")
    stages = []
    for number, table in enumerate(tables, 1):
        name = table.get("name", str(number))
        stages.append(_stage(kind, {"name": name} | shared | table, f'{path}, stage "{name}"'))
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names) or any(Path(name).name != name for name in names):
        raise ValueError(
            f"{path} has the stages {', '.join(names)}: expected names that differ and can be "
            "names of folders."
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
            pass  # told below
    elif kind == tuple[str, ...] and isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return tuple(value)
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
        if field.metadata["choices"]:
            settings["choices"] = tuple(field.metadata["choices"])
        if field.default not in (None, ()):
            settings["help"] += f" (default: {_shown(field.default)})"
        parser.add_argument(name, **settings)


def _shown(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


# ----------------------------------------------------------------------------- the command


@dataclasses.dataclass(frozen=True)
class Place:
    """What a training needs to know of the machine: no part of a recipe.

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


@dataclasses.dataclass(frozen=True)
class Training:
    """A training that can be run by a command.

    Attributes:
        stage: the dataclass of a stage.
        train: trains a stage, whose start holds paths, and writes result into the folder; the list
            goes into the metadata of the weights: the settings of all stages so far.
        check_start: raises ValueError if its second stage can't begin with that file of the first.
        checkpoint: the file of a stage that the next one goes on from.
        result: the file of weights that a stage ends with.
    """

    stage: type
    train: Callable[[object, Place, Path, list[dict]], None]
    check_start: Callable[[object, object, str], None]
    checkpoint: str
    result: str

    def main(self, description: str, arguments: list[str] | None = None) -> None:
        """The command line: the stages of --recipe, or one stage of options.

        Raises ValueError or FileNotFoundError, in a sentence, before anything is trained.
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
            self.run([self.stage(**values)], place)
            return
        if options:
            raise ValueError(
                f"{recipe} and --{next(iter(options)).replace('_', '-')}: beside --recipe only "
                f"{', '.join('--' + name for name in ABOUT_THE_MACHINE)} are allowed; write the "
                "other options into the recipe."
            )
        self.run(read_recipe(recipe, self.stage), place, recipe)

    def run(self, stages: list, place: Place, recipe: Path | None = None) -> None:
        """Train the stages that are not finished; one that was interrupted goes on."""
        folders = {stage.name: place.out / stage.name for stage in stages}
        folders[stages[-1].name] = place.out
        ready = [self._ready(stages, number, folders, recipe) for number in range(len(stages))]
        before = None  # the stage before, if it was trained now
        for number, stage in enumerate(ready):
            folder = folders[stage.name]
            so_far = [dataclasses.asdict(x) for x in stages[: number + 1]]
            so_far = json.loads(json.dumps(so_far))  # with lists for tuples, as it is read again
            if recipe is not None:
                weights = folder / self.result
                if weights.is_file() and load_weights(weights)[1].get("recipe") == so_far:
                    continue
                if before is not None and (folder / CHECKPOINT).is_file():
                    raise ValueError(
                        f'{folder / CHECKPOINT} began from an earlier training of stage "{before}"'
                        ": delete it, or choose another --out."
                    )
            self.train(stage, place, folder, so_far)
            PartialState().wait_for_everyone()
            before = stage.name
        if recipe is not None and PartialState().is_main_process:
            beside = (place.out / self.result).with_suffix(".toml")
            write_atomically(beside, lambda part: shutil.copyfile(recipe, part))
            print(f"{recipe} is finished: {place.out / self.result}")

    def _ready(self, stages: list, number: int, folders: dict[str, Path], recipe: Path | None):
        """A stage with paths for the files that it names, after a check that they will fit."""
        stage, earlier = stages[number], {x.name: x for x in stages[:number]}
        where = f'{recipe}, stage "{stage.name}"'

        def path_of(item: str, field: dataclasses.Field) -> str:
            name, _, file = item.partition("/")
            if item in field.metadata["instead"] or recipe is None:
                return item
            if file and name in earlier:
                try:
                    self.check_start(earlier[name], stage, file)
                except ValueError as error:
                    raise ValueError(
                        f'{where} can\'t start from stage "{name}": {error}'
                    ) from error
                return str(folders[name] / file)
            if not Path(item).is_file():
                raise FileNotFoundError(
                    f"{where}: {field.name} names {item}, and there is no such file."
                )
            return item

        values = {}
        for field in dataclasses.fields(stage):
            value = getattr(stage, field.name)
            if field.name == "start" and value is None and number:
                value = f"{stages[number - 1].name}/{self.checkpoint}"
                value = value if _type(field) is str else (value,)
            if field.metadata["instead"] and value is not None:
                is_one = isinstance(value, str)
                paths = tuple(path_of(item, field) for item in ([value] if is_one else value))
                values[field.name] = paths[0] if is_one else paths
        return dataclasses.replace(stage, **values)
