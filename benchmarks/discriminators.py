#!/usr/bin/env python3
"""The published discriminator against one of every pixel, and variants of it, at equal minutes.

    python benchmarks/discriminators.py --camvid CAMVID --california FOLDER --minutes 9

Generators learn real streets at 128x64 from the same start, the bundled one of the toy streets, by
the recipes in SIDES; they take turns, so that all have the same machine.  What else differs is said
there: feature matching is a part of the published discriminator.  Afterwards each draws the maps
that benchmarks/streets_synthesis.py uses.  Prints the tables that are kept in
benchmarks/discriminators.txt, and draws benchmarks/discriminators.jpg: twelve maps, each with its
photo and the images of the first two sides.

CAMVID and FOLDER: see streets_synthesis.py; so is --judge.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unittest.mock import patch

import torch
from streets_synthesis import JUDGE, PHOTO_SIZE, Pictures, all_cities, distances, generated
from timing import machine
from torch import Tensor

from spade import stages
from spade.pixel_discriminator import PixelDiscriminator
from spade.semantics import LABEL_PLANES
from spade.stages import FILES, Stage, train_stage
from utils.engine.accelerator import PRECISIONS
from utils.files import PROJECT
from utils.images import save_image
from utils.labels import label_ids_to_colors
from utils.pipeline import Pipeline, load_pipeline
from utils.recipes import Place

PICTURE = PROJECT / "benchmarks/discriminators.jpg"
START = tuple(f"{PROJECT}/data/weights/{name}_toy.safetensors" for name in ("generator", "encoder"))
TURN = 800  # pictures
MIX_WEIGHT = 10


class EvenClasses(PixelDiscriminator):
    """Without class weights: a pixel of a rare label counts as much as any other."""

    def prepare(self, scenes, count: int = 200) -> None:
        super().prepare(scenes, count)
        self.class_weights[1:] = 1


class LabelMix(PixelDiscriminator):
    """With a consistency term: an image that is half photo, half generated, is judged piecewise.

    Each class of the map comes from one of the two; scores there should be those of its source.

    Source: Schoenfeld et al., ICLR 2021, arXiv:2012.04781, section 3.2.
    """

    def forward(self, planes: Tensor | None, image_pm1: Tensor) -> tuple[Tensor, list[Tensor]]:
        if planes is None:  # the generator's step
            return super().forward(None, image_pm1)
        fake_pm1, real_pm1 = image_pm1.chunk(2)
        labels = planes[: len(real_pm1), :LABEL_PLANES].argmax(1)  # (B, H, W)
        coins = torch.rand(len(labels), LABEL_PLANES, device=labels.device) < 0.5
        from_photo = coins.gather(1, labels.flatten(1)).view_as(labels)[:, None]
        mixed_pm1 = torch.where(from_photo, real_pm1, fake_pm1)
        scores, styles = super().forward(None, torch.cat([image_pm1, mixed_pm1]))
        fake, real, mixed = scores.float().chunk(3)
        self.difference = (mixed - torch.where(from_photo, real, fake)).square().mean()
        return scores[: len(image_pm1)], styles

    def loss(self, judgement, planes: Tensor, styles: Tensor | None) -> Tensor:
        return super().loss(judgement, planes, styles) + MIX_WEIGHT * self.difference


class Recoloured(PixelDiscriminator):
    """Photos and generated images get random brightness, contrast and saturation alike.

    Source: Zhao et al., NeurIPS 2020, arXiv:2006.10738 (differentiable augmentation).
    """

    def forward(self, planes: Tensor | None, image_pm1: Tensor) -> tuple[Tensor, list[Tensor]]:
        chance = torch.rand(3, len(image_pm1), 1, 1, 1, device=image_pm1.device)
        x = image_pm1 + (chance[0] - 0.5) / 2
        gray = x.mean(1, keepdim=True)
        x = (x - gray) * 2 * chance[1] + gray
        mean = x.mean((1, 2, 3), keepdim=True)
        return super().forward(planes, (x - mean) * (chance[2] + 0.5) + mean)


@dataclass(frozen=True)
class Side:
    """A training to compare.

    Attributes:
        changes: of COMMON's settings.
        pixel_discriminator: the class that judges every pixel, if the settings choose one.
    """

    changes: dict
    pixel_discriminator: type[PixelDiscriminator] = PixelDiscriminator


COMMON = Stage(
    dataset="camvid+streets",
    start=START,
    size=(128, 64),
    upsampling="normal",
    photo_size=PHOTO_SIZE,
    scale=0.44,
    ngf=24,
    hidden=48,
    max_channels=192,
    styled_layers=True,
    grain=True,
    perceptual="imagenet",
    perceptual_weight=1,
    texture_weight=1,
    kl_weight=0.02,
    style_weight=1,
    head_start=3000,
    even_cities=True,
    learning_rate=2e-4,
    schedule="constant",
    average=0.998,
    warm_up=800,
    save_every=10**9,
)
PIXEL = {"discriminator": "pixel", "discriminator_speed": 2}
SIDES = {
    "published": Side({"matching_weight": 1}),
    "of every pixel": Side(PIXEL),
    "without class weights": Side(PIXEL, EvenClasses),
    "with LabelMix": Side(PIXEL, LabelMix),
    "with recoloured images": Side(PIXEL, Recoloured),
}


def draw(pipelines: Sequence[Pipeline], parts: Sequence[Pictures]) -> None:
    """Rows of two maps: each with its photo, and what the generators draw in its style."""
    cells = []
    for part in parts:
        some = part.at(torch.linspace(0, len(part.photo) - 1, 12 // len(parts)).long())
        columns = [label_ids_to_colors(some.label_ids), some.image_u8]
        columns += [generated(x.generator, some, x.style_of) for x in pipelines]
        cells += torch.cat(columns, dim=-1)  # (3, H, 4 W) each
    save_image(torch.cat([torch.cat(cells[i::2], dim=-2) for i in range(2)], dim=-1), PICTURE)


def train(name: str, pictures: int, place: Place) -> float:
    """Train one side until it has seen so many pictures -> seconds."""
    side, start = SIDES[name], time.perf_counter()
    stage = replace(COMMON, pictures=pictures, **side.changes)
    with patch.object(stages, "PixelDiscriminator", side.pixel_discriminator):
        train_stage(stage, place, place.out / name, [asdict(stage)])  # on from its checkpoint
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9, help="for each")
    parser.add_argument("--camvid", required=True, help="the data set's folder")
    parser.add_argument("--california", type=Path, required=True)
    parser.add_argument("--judge", type=Path, default=JUDGE)
    parser.add_argument("--out", type=Path, default=PROJECT / "runs/discriminators")
    parser.add_argument("--precision", default="bf16", choices=PRECISIONS)
    arguments = parser.parse_args()
    place = Place(arguments.out, arguments.camvid, precision=arguments.precision)
    seconds, pictures = dict.fromkeys(SIDES, 0.0), dict.fromkeys(SIDES, 0)
    while min(seconds.values()) < 60 * arguments.minutes:
        name = min(seconds, key=seconds.get)
        pictures[name] += TURN
        seconds[name] += train(name, pictures[name], place)
    cities = all_cities(arguments.camvid, arguments.california, COMMON.size)
    print(machine())
    pipelines = []
    for name in SIDES:
        pipelines.append(load_pipeline(arguments.judge, arguments.out / name / FILES[-1]))
        print(f"\n{name}: {pictures[name]} pictures in {seconds[name] / 60:.1f} minutes")
        distances(pipelines[-1], cities)
    draw(pipelines[:2], [cities["Karlsruhe"][0], cities["California"][0]])
    print(f"\ndrew {PICTURE.name}")


if __name__ == "__main__":
    main()
