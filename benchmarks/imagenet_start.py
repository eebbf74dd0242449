#!/usr/bin/env python3
"""Compare a start from ImageNet weights with one from random weights, for the same training.

    python benchmarks/imagenet_start.py            # a quarter of an hour on two cores

Writes the curves of all trainings with their recipe to benchmarks/imagenet_start.json, and prints
what is kept in benchmarks/imagenet_start.txt.
"""

import argparse
import dataclasses
import statistics

import torch
from timing import machine, store

from utils.cache import cached
from utils.engine.accelerator import PRECISIONS
from utils.files import PROJECT
from utils.labels import ID, NUM_LABELS
from utils.scenes import open_scenes
from utils.segmentation import SegmentationNet
from utils.training import Recipe, train

BACKBONE, HEAD, SIZE = "efficientnet_lite0", "unet", (256, 128)
# A trained backbone learns at a lower rate than the head, an untrained one at the same rate.
BACKBONE_RATE = {"imagenet": 0.2, "random": 1.0}
RESULT = PROJECT / "benchmarks" / "imagenet_start.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", default="fp32", choices=tuple(PRECISIONS))
    arguments = parser.parse_args()
    scenes = [
        cached(open_scenes("streets", split, size=SIZE), PROJECT / "data/cache")
        for split in ("train", "val")
    ]
    weights = torch.ones(NUM_LABELS)
    weights[ID["unlabeled"]] = 0
    runs = []
    for seed in range(arguments.seeds):
        for start, rate in BACKBONE_RATE.items():
            recipe = Recipe(
                epochs=arguments.epochs,
                batch_size=8,
                learning_rate=2e-3,
                backbone_rate=rate,
                schedule="cosine",
                scale=0.3,
                color=0.3,
                seed=seed,
            )
            torch.manual_seed(seed)
            network = SegmentationNet(BACKBONE, HEAD, pretrained=start == "imagenet")
            print(f"seed {seed}, {start} start")
            history = train(
                network, *scenes, recipe, precision=arguments.precision, class_weights=weights
            )
            runs.append({"start": start, "recipe": dataclasses.asdict(recipe), "history": history})
    about = (
        f"{BACKBONE} with a {HEAD} head on {len(scenes[0])} scenes of {scenes[0].dataset} at "
        f"{SIZE[0]}x{SIZE[1]}, {arguments.epochs} epochs, {arguments.precision}; scores on "
        f"{len(scenes[1])} others"
    )
    store(RESULT, about, runs=runs)
    print(f"{machine()}\n{about}")
    for start in BACKBONE_RATE:
        last = [run["history"] for run in runs if run["start"] == start]
        for name, key in (("mIoU", "val_miou"), ("pixel accuracy", "val_accuracy")):
            values = [history[key][-1] for history in last]
            shown = ", ".join(f"{value:.3f}" for value in values)
            print(f"{start:8} {name:14} mean {statistics.mean(values):.3f} ({shown})")
        seconds = [sum(history["seconds"]) for history in last]
        print(f"{start:8} minutes        {', '.join(f'{x / 60:.1f}' for x in seconds)}")


if __name__ == "__main__":
    main()
