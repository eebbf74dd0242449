"""The segmentation network's training as a command: a stage's settings, and its training.

python -m utils.training --recipe data/weights/segmentation_toy.toml --out runs/segmentation_toy
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.state import PartialState
from torch.optim.swa_utils import update_bn

from utils.backbones import BACKBONES
from utils.cache import cached
from utils.commands import exit_status
from utils.labels import ID, NUM_LABELS
from utils.progress import progress
from utils.recipes import DATA, Data, Place, Training, option, some_of
from utils.scenes import DATASETS, Scenes, open_scenes
from utils.segmentation import HEADS, STRIDES, SegmentationNet, load_segmentation, save_segmentation
from utils.training import HISTORY_KEYS, History, Recipe, balanced_weights, evaluate, train

FILES = ("best.safetensors", "segmentation.safetensors")  # that a stage leaves
ANEW = (None, "random", "imagenet")  # a start that is not a file
DEFAULTS = {"backbone": "resnet34", "head": "fcn", "finest_stride": 2}  # of a new network


@dataclass(frozen=True)
class Stage(Data, Recipe):
    """One stage of a recipe file, or the options of a command: data, network and training."""

    val_dataset: str | None = option(
        None, f"to validate with, the same by default: {DATA}", DATASETS, joined=True
    )
    val_scenes: int | None = option(None, "how many to validate with; all by default", least=1)
    start: str | None = option(
        None,
        "random, imagenet, or a file of weights; if its head differs, only its backbone",
        alternatives=("random", "imagenet"),
    )
    backbone: str | None = option(None, "that of the start, or else resnet34", BACKBONES)
    head: str | None = option(None, "that of the start, or else fcn", HEADS)
    finest_stride: int | None = option(None, "that of the start, or else 2", STRIDES)
    freeze_backbone: bool = option(False, "train the head alone, which is faster")
    balance: float = option(
        0.0, "how much more rare classes weigh: 1 as in ENet, 0 not at all", least=0, most=2
    )
    ignore_unlabeled: bool = option(False, "learn nothing from label 0")
    statistics: int = option(
        0, "whole scenes to recompute batch norm's statistics from at the end; 0: none", least=0
    )


def train_stage(stage: Stage, place: Place, folder: Path, so_far: list[dict]) -> None:
    """Train one stage and write its network: see utils.recipes.Training."""
    train_scenes, val_scenes = (
        cached(some_of(open_scenes(dataset, split, place.root, stage.size), count), place.cache)
        for dataset, split, count in (
            (stage.dataset, "train", stage.scenes),
            (stage.val_dataset or stage.dataset, "val", stage.val_scenes),
        )
    )
    torch.manual_seed(stage.seed)
    network, earlier = _starting_network(stage)
    if stage.freeze_backbone:
        network.freeze_backbone()
    class_weights = None
    if stage.balance or stage.ignore_unlabeled:
        class_weights = torch.ones(NUM_LABELS)
        if stage.balance:  # counting the pixels of all scenes takes a while
            class_weights = balanced_weights(train_scenes, stage.balance)
        if stage.ignore_unlabeled:
            class_weights[ID["unlabeled"]] = 0
    scenes = train_scenes, val_scenes
    history = train(network, *scenes, stage, folder, place.precision, class_weights)
    if PartialState().is_main_process:
        best, _ = load_segmentation(folder / "best.safetensors")
        if stage.statistics:
            take_statistics(best, train_scenes.evenly_spaced(stage.statistics), stage.batch_size)
            print(f"with new statistics: {evaluate(best, val_scenes, stage.batch_size)[1]}")
        history = {key: earlier.get(key, []) + history[key] for key in HISTORY_KEYS}
        path = folder / FILES[-1]
        save_segmentation(best, path, history, compact=True, recipe=so_far)
        print(f"wrote {path}")


def take_statistics(network: SegmentationNet, scenes: Scenes, batch_size: int) -> None:
    """Recompute the mean and variance of all batch norms, from whole scenes in random order.

    During training they are running means over crops of a few batches: they differ from those of
    whole photos, and from epoch to epoch.
    """
    order = torch.randperm(len(scenes), generator=torch.Generator().manual_seed(0))
    batches = progress(order.split(batch_size), "statistics")
    update_bn((scenes.batch(indices)[0] for indices in batches), network)
    network.eval()


def _starting_network(stage: Stage) -> tuple[SegmentationNet, History]:
    """The network that a stage begins with, and the history of its weights."""
    if stage.start in ANEW:
        settings = {name: getattr(stage, name) or value for name, value in DEFAULTS.items()}
        return SegmentationNet(pretrained=stage.start == "imagenet", **settings), {}
    network, history = load_segmentation(stage.start)
    for option_name in ("backbone", "finest_stride"):
        found, wanted = network.settings[option_name], getattr(stage, option_name)
        if wanted not in (None, found):
            raise ValueError(
                f"{stage.start} has {option_name} {found}: leave "
                f"--{option_name.replace('_', '-')} {wanted} out, or start from other weights."
            )
    if stage.head in (None, network.settings["head"]):
        return network, history
    other = SegmentationNet(**network.settings | {"head": stage.head})
    other.encoder.load_state_dict(network.encoder.state_dict())
    return other, {}


def check_start(before: Stage, stage: Stage, file: str) -> None:
    """Raise ValueError if a stage can't begin with the network of one before it."""
    for name in ("backbone", "finest_stride"):
        was, wanted = getattr(before, name), getattr(stage, name)
        if was is None and before.start in ANEW:
            was = DEFAULTS[name]
        if None not in (was, wanted) and was != wanted:
            raise ValueError(f"{name} is {was} there and {wanted} here; expected the same.")


TRAINING = Training(Stage, train_stage, check_start, FILES)


def main(arguments: list[str] | None = None) -> None:
    """python -m utils.training."""
    TRAINING.main("Train a segmentation network.", arguments)


if __name__ == "__main__":
    sys.exit(exit_status(main))
