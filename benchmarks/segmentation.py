#!/usr/bin/env python3
"""Measure a training step of the segmentation network against a plain float32 loop.

    python benchmarks/segmentation.py             # a few minutes

The plain loop is that of a tutorial: tensors in memory, torch's default layout, float32, no
augmentation.  Ours is an epoch of utils.training, which also reads from the cache and mirrors.
"""

import argparse
import os
from functools import partial

import torch
import torch.nn.functional as F
from timing import STEPS, in_turn, machine

from utils.cache import cached
from utils.commands import width_and_height
from utils.engine.accelerator import PRECISIONS, make_accelerator, place
from utils.engine.graphs import graphed
from utils.engine.run import LossLog, Run
from utils.files import PROJECT
from utils.scenes import open_scenes
from utils.segmentation import SegmentationNet
from utils.training import Recipe, epoch_steps, segmentation_step


class PlainLoop:
    """A plain loop with the same network and optimizer."""

    def __init__(
        self,
        head: str,
        image_u8: torch.Tensor,
        label_ids: torch.Tensor,
        batch: int,
        backbone: str = "resnet34",
    ):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        network = SegmentationNet(backbone, head).train()
        self.network = network.to(self.device, memory_format=torch.contiguous_format)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4)
        self.image_u8, self.label_ids, self.batch = image_u8, label_ids, batch

    def __call__(self) -> None:
        batches = (pixels.split(self.batch) for pixels in (self.image_u8, self.label_ids))
        for image_u8, label_ids in zip(*batches, strict=True):
            x, y = image_u8.to(self.device), label_ids.to(self.device).long()
            loss = F.cross_entropy(self.network(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


class OurLoop:
    """An epoch of utils.training with the same number of steps."""

    def __init__(self, head: str, precision: str, scenes, batch: int, backbone: str = "resnet34"):
        self.accelerator = make_accelerator(precision)
        self.network = network = SegmentationNet(backbone, head)
        place(self.accelerator, network)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
        network, optimizer = self.accelerator.prepare(network, optimizer)
        step = partial(segmentation_step, network.train(), optimizer, self.accelerator, None)
        self.step = graphed(step, [optimizer], self.accelerator.device)
        self.scenes = scenes.to(self.accelerator.device)
        self.recipe = Recipe(batch_size=batch)

    def __call__(self) -> None:
        losses = LossLog(self.accelerator, Run(None, {}))
        for _, *batch in epoch_steps(self.scenes, self.recipe, 0, self.accelerator, losses):
            losses.add({"training": self.step(*batch)})
        losses.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="256x128", type=width_and_height, help="WIDTHxHEIGHT")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precisions", nargs="+", default=("fp32", "bf16"), choices=PRECISIONS)
    arguments = parser.parse_args()
    width, height = arguments.size
    batch = arguments.batch_size
    os.environ["COURSE_PROGRESS"] = "0"  # no bars between the lines
    scenes = cached(
        open_scenes("toy", "train", size=(width, height))[: STEPS * batch], PROJECT / "data/cache"
    )
    scenes = scenes[: len(scenes) // batch * batch]
    pixels = scenes.batch(range(len(scenes)))
    print(f"{machine()}\nResNet-34, {width}x{height}, batches of {batch}; pictures a second\n")
    columns = "".join(f"{'ours, ' + name:>18}" for name in arguments.precisions)
    print(f"{'':28} {'plain float32':>14} {columns}")
    for head in ("fcn", "unet"):
        loops = {name: OurLoop(head, name, scenes, batch) for name in arguments.precisions}
        plain, *ours = in_turn(arguments.rounds, plain=PlainLoop(head, *pixels, batch), **loops)
        speeds = "".join(
            f"{len(scenes) / seconds:10.1f} {plain / seconds:6.2f}x" for seconds in ours
        )
        print(f"training step, head {head:8} {len(scenes) / plain:14.1f} {speeds}", flush=True)


if __name__ == "__main__":
    main()
