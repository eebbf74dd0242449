#!/usr/bin/env python3
"""Two discriminators, the published one and one of every pixel, with as many minutes each.

    python benchmarks/discriminators.py --camvid CAMVID --california FOLDER --minutes 15

Two generators learn real streets from the same start, the bundled one of the toy streets, by the
two recipes in SIDES; they take turns, so that both have the same machine.  What else differs is
said there: feature matching is a part of the published discriminator.  Afterwards both draw the
maps that benchmarks/streets_synthesis.py uses.  Prints the table that is kept in
benchmarks/discriminators.txt, and draws benchmarks/discriminators.jpg: map, photo, both images.

CAMVID and FOLDER: see streets_synthesis.py; so is --judge.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from streets_synthesis import JUDGE, PHOTO_SIZE, Pictures, all_cities, distances, generated
from timing import machine

from spade.stages import FILES, Stage, train_stage
from utils.engine.accelerator import PRECISIONS
from utils.files import PROJECT
from utils.images import save_image
from utils.labels import label_ids_to_colors
from utils.pipeline import Pipeline, load_pipeline
from utils.recipes import Place

PICTURE = PROJECT / "benchmarks/discriminators.jpg"
START = tuple(f"{PROJECT}/data/weights/{name}_toy.safetensors" for name in ("generator", "encoder"))
TURN = 400  # pictures
COMMON = Stage(
    dataset="camvid+streets",
    start=START,
    size=(256, 128),
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
    head_start=8000,
    even_cities=True,
    learning_rate=2e-4,
    schedule="constant",
    average=0.998,
    warm_up=800,
    save_every=10**9,
)
SIDES = {
    "published": replace(COMMON, matching_weight=1),
    "of every pixel": replace(COMMON, discriminator="pixel", discriminator_speed=2),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=15, help="for each")
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
        stage = replace(SIDES[name], pictures=pictures[name])
        start = time.perf_counter()
        train_stage(stage, place, arguments.out / name, [asdict(stage)])  # on from its checkpoint
        seconds[name] += time.perf_counter() - start
    cities = all_cities(arguments.camvid, arguments.california, COMMON.size)
    print(machine())
    pipelines = []
    for name in SIDES:
        pipelines.append(load_pipeline(arguments.judge, arguments.out / name / FILES[-1]))
        print(f"\n{name}: {pictures[name]} pictures in {seconds[name] / 60:.1f} minutes")
        distances(pipelines[-1], cities)
    draw(pipelines, [cities["Karlsruhe"][0], cities["California"][0]])
    print(f"\ndrew {PICTURE.name}")


if __name__ == "__main__":
    main()
