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
from dataclasses import replace
from pathlib import Path

import torch
from streets_synthesis import (
    JUDGE,
    PHOTO_SIZE,
    Pictures,
    all_cities,
    distances,
    generated,
    own_style,
)
from timing import machine

from spade.checkpoint import start_from
from spade.stages import Stage, networks_of, perceptual_loss
from spade.styles import StyleClassifier, style_labels
from spade.training import VariationalGenerator, train_spade
from utils.cache import cached
from utils.engine.accelerator import PRECISIONS
from utils.files import PROJECT
from utils.images import save_image
from utils.labels import label_ids_to_colors
from utils.scenes import Scenes, open_scenes
from utils.segmentation import load_segmentation

PICTURE = PROJECT / "benchmarks/discriminators.jpg"
START = [PROJECT / f"data/weights/{name}_toy.safetensors" for name in ("generator", "encoder")]
TURN = 400  # pictures
COMMON = Stage(
    dataset="camvid+streets",
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


def turn(stage: Stage, scenes: Scenes, folder: Path, precision: str) -> VariationalGenerator:
    """Train until stage.pictures, on from what is in the folder -> the networks."""
    torch.manual_seed(stage.seed)
    classes = style_labels(scenes)[0]
    network, discriminator = networks_of(stage, classes)
    start_from(START, network, discriminator)
    train_spade(
        network.generator,
        discriminator,
        scenes,
        stage,
        network.encoder,
        perceptual_loss(stage.perceptual, stage.texture_weight),
        StyleClassifier(classes, stage.z_dim),
        folder,
        precision,
    )
    return network


def draw(networks: dict[str, VariationalGenerator], parts: list[Pictures]) -> None:
    """Rows of three maps: each with its photo, and what the two generators draw in its style."""
    cells = []
    for part in parts:
        rows = torch.linspace(0, len(part.photo) - 1, 12 // len(parts)).long()
        some = Pictures(part.image_u8[rows], part.label_ids[rows], part.photo[rows], [])
        columns = [label_ids_to_colors(some.label_ids), some.image_u8]
        columns += [generated(x.generator, some, own_style(x.encoder)) for x in networks.values()]
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
    judge, _ = load_segmentation(arguments.judge)
    train = open_scenes(COMMON.dataset, "train", arguments.camvid, PHOTO_SIZE)
    train = cached(train, PROJECT / "data/cache")
    seconds, pictures, networks = dict.fromkeys(SIDES, 0.0), dict.fromkeys(SIDES, 0), {}
    while min(seconds.values()) < 60 * arguments.minutes:
        name = min(seconds, key=seconds.get)
        pictures[name] += TURN
        stage = replace(SIDES[name], pictures=pictures[name])
        start = time.perf_counter()
        networks[name] = turn(stage, train, arguments.out / name, arguments.precision)
        seconds[name] += time.perf_counter() - start
    cities = all_cities(arguments.camvid, arguments.california, COMMON.size)
    print(machine())
    for name in SIDES:
        print(f"\n{name}: {pictures[name]} pictures in {seconds[name] / 60:.1f} minutes")
        distances(networks[name].generator, networks[name].encoder, judge, cities)
    draw(
        {name: networks[name] for name in SIDES}, [cities["Karlsruhe"][0], cities["California"][0]]
    )
    print(f"\ndrew {PICTURE.name}")


if __name__ == "__main__":
    main()
