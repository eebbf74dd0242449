#!/usr/bin/env python3
"""Compare three backbones with two heads, trained alike on toy streets.

    python benchmarks/segmentation_models.py                  # 25 epochs each: hours on a CPU
    python benchmarks/segmentation_models.py --epochs 10 --scenes 2000 --precision bf16   # an hour

The same command continues an interrupted run.  Writes benchmarks/segmentation_models.json, which
notebook 02 shows, and prints the same as a table.
"""

import argparse
import copy
from contextlib import redirect_stdout

import torch
from timing import in_turn, machine, store

from utils.cache import cached
from utils.commands import width_and_height
from utils.engine.accelerator import PRECISIONS
from utils.files import PROJECT
from utils.scenes import Scenes, open_scenes
from utils.segmentation import SegmentationNet
from utils.training import Recipe, evaluate, train

BACKBONES = ("resnet18", "resnet34", "resnet50")
TIMED = 10  # batches
RESULT = PROJECT / "benchmarks" / "segmentation_models.json"


def trained(backbone: str, head: str, scenes: list[Scenes], arguments) -> SegmentationNet:
    """Return one of the networks after its training."""
    torch.manual_seed(0)
    network = SegmentationNet(backbone, head)
    width, height = scenes[0].size
    name = f"{backbone}_{head}_{width}x{height}_{len(scenes[0])}_{arguments.epochs}"
    recipe = Recipe(arguments.epochs, arguments.batch_size, arguments.learning_rate, "cosine")
    folder = PROJECT / "runs" / "comparison" / name
    train(network, *scenes, recipe, folder, arguments.precision)
    return network


def train_a_little(network: SegmentationNet, scenes: list[Scenes], arguments) -> None:
    """Train a copy of the network for TIMED batches."""
    some = scenes[0][: TIMED * arguments.batch_size]
    recipe = Recipe(epochs=1, batch_size=arguments.batch_size)
    with redirect_stdout(None):
        train(copy.deepcopy(network), some, scenes[1][:1], recipe, precision=arguments.precision)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="128x64", type=width_and_height, help="WIDTHxHEIGHT")
    parser.add_argument("--scenes", type=int, help="how many training scenes; all by default")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--precision", default="fp32", choices=tuple(PRECISIONS))
    parser.add_argument("--cache", default=PROJECT / "data/cache", help="for decoded scenes")
    arguments = parser.parse_args()
    width, height = arguments.size
    scenes = [
        cached(open_scenes("toy", split, size=(width, height))[:count], arguments.cache)
        for split, count in (("train", arguments.scenes), ("val", None))
    ]
    rows, networks = [], {}
    for head in ("fcn", "unet"):
        for backbone in BACKBONES:
            network = trained(backbone, head, scenes, arguments)
            _, result = evaluate(network, scenes[1])
            networks[f"{backbone} {head}"] = network
            rows.append(
                {
                    "backbone": backbone,
                    "head": head,
                    "miou": result.miou,
                    "accuracy": result.accuracy,
                    "parameters": sum(x.numel() for x in network.parameters()),
                }
            )
    image_u8, _ = scenes[1].batch(range(8))
    seconds = in_turn(
        9, **{name: lambda net=net: net.predict(image_u8) for name, net in networks.items()}
    )
    # Timed separately and in turn, because the machine did other work during the long trainings.
    training = in_turn(
        5,
        **{
            name: lambda net=net: train_a_little(net, scenes, arguments)
            for name, net in networks.items()
        },
    )
    timed = min(TIMED * arguments.batch_size, len(scenes[0]))
    for row, each, trained_in in zip(rows, seconds, training, strict=True):
        row["epoch_seconds"] = trained_in * len(scenes[0]) / timed
        row["pictures_a_second"] = len(image_u8) / each
    about = (
        f"{len(scenes[0])} toy scenes of {width}x{height}, {arguments.epochs} epochs, batches of "
        f"{arguments.batch_size}, Adam {arguments.learning_rate:g} with cosine decay, from random "
        f"weights, {arguments.precision}; scores on {len(scenes[1])} others; seconds an epoch: "
        f"from {TIMED} batches; pictures a second: predict() on 8 at a time, float32"
    )
    store(RESULT, about, rows=rows)
    print(f"{machine()}\n{about}\n")
    print(
        "backbone  head    mIoU  accuracy  million parameters  seconds an epoch  pictures a second"
    )
    for row in rows:
        print(
            f"{row['backbone']}  {row['head']:4} {row['miou']:5.3f} {row['accuracy']:9.3f} "
            f"{row['parameters'] / 1e6:19.1f} {row['epoch_seconds']:17.0f} "
            f"{row['pictures_a_second']:18.0f}"
        )


if __name__ == "__main__":
    main()
