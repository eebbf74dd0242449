#!/usr/bin/env python3
"""Compare the maps before and after SPADE: agreement, outlines, and controls of both.

    python benchmarks/feedback.py --scenes 200 --store             # toy streets, bundled networks
    python benchmarks/feedback.py --dataset streets --store        # the project's real photos
    python benchmarks/feedback.py --dataset streets --judge FILE --store

With --judge, a second segmentation network reads the photos and the images of each round, too, and
both networks' maps are compared: with the true maps, and with their own maps of the photos.  A
network that no generator was trained with is trained by

    python -m utils.training --recipe benchmarks/judge.toml --root CAMVID --out runs/judge

--store keeps the figures in benchmarks/feedback.json, which notebook 05 shows.
"""

import argparse
from pathlib import Path

import torch
from timing import machine, store_by

from utils.cache import CachedScenes, cached
from utils.feedback import compare_outlines, controls, soften
from utils.files import PROJECT
from utils.intervals import (
    Interval,
    by_photo,
    confusions,
    interval,
    labels_in,
    occurrences,
    pixel_accuracy,
)
from utils.labels import NAMES
from utils.metrics import iou_of
from utils.pipeline import agreement, load_pipeline
from utils.progress import progress
from utils.scenes import DATASETS, open_scenes
from utils.segmentation import load_segmentation

RESULT = PROJECT / "benchmarks" / "feedback.json"
ROUNDS = 10  # with a judge
AT_LEAST = 5  # classes that occur in the first maps of fewer photos are left out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="toy", choices=DATASETS)
    parser.add_argument("--root", help="the data set's folder")
    parser.add_argument("--networks", help="whose weights; by default the data set's")
    parser.add_argument("--judge", type=Path, help="the file of a second segmentation network")
    parser.add_argument("--scenes", type=int, help="how many of the split; all by default")
    parser.add_argument("--store", action="store_true", help="keep the figures in --result")
    parser.add_argument("--result", type=Path, default=RESULT, help="a JSON file")
    arguments = parser.parse_args()
    print(machine())
    networks = arguments.networks or arguments.dataset
    pipeline = load_pipeline(networks, networks)
    judge = load_segmentation(arguments.judge)[0] if arguments.judge else None
    scenes = open_scenes(arguments.dataset, "val", arguments.root, pipeline.generator.size)
    scenes = cached(scenes.evenly_spaced(arguments.scenes or len(scenes)), PROJECT / "data/cache")

    own, judged, rounds = [], [], ROUNDS if judge else 1
    for indices in progress(torch.arange(len(scenes)).split(8), "scenes"):
        results = pipeline.feedback(scenes.batch(indices)[0], rounds)
        own.append([results[0].label_ids, *(x.generated_label_ids for x in results)])
        if judge:
            pictures = results[0].image_u8, *(x.generated_u8 for x in results)
            judged.append([judge.predict(x) for x in pictures])
    own_ids = joined(own)
    first_ids, second_ids = own_ids[:2]
    counts = by_photo(confusions(second_ids, first_ids), scenes.names)
    occurs, iou = occurrences(counts), iou_of(counts.sum(0))
    seconds = {"second map": second_ids, **controls(second_ids)}
    compared = {
        "second map": second_ids,
        "softened map": torch.cat([soften(x) for x in first_ids.split(8)]),
    }
    compared["another scene"] = seconds["another scene"]
    row = {
        "dataset": scenes.dataset,
        "scenes": len(scenes),
        "photos": len(counts),
        "at_least": AT_LEAST,
        "agreement": {k: agrees(first_ids, ids, scenes.names) for k, ids in seconds.items()},
        "outlines": {k: outlines(first_ids, ids, scenes.names) for k, ids in compared.items()},
        "iou": {
            NAMES[label]: {"photos": int(occurs[label]), "second map": round(float(iou[label]), 3)}
            for label in labels_in(counts, AT_LEAST)
        },
    }
    if judge:
        readers = {"in the loop": own_ids, "judge": joined(judged)}
        row["readers"] = {name: reading(maps, first_ids, scenes) for name, maps in readers.items()}
    report(row)
    if arguments.store:
        store_by("dataset", arguments.result, __doc__.splitlines()[0], row)


def joined(batches: list[list[torch.Tensor]]) -> torch.Tensor:
    """The maps of each batch, first those of the photos -> (rounds + 1, scenes, H, W), uint8."""
    return torch.cat([torch.stack(maps).cpu() for maps in batches], 1)


def reading(maps: torch.Tensor, first_ids: torch.Tensor, scenes: CachedScenes) -> dict:
    """What a network reads in the photos, maps[0], and in the images of each round, the others.

    Args:
        first_ids: the maps that the images of the first round were drawn from.
    """
    names, kinds = scenes.names, scenes.map_kinds(range(len(scenes)))
    true_ids = scenes.batch(range(len(scenes)))[1]
    right = [by_photo(confusions(x, true_ids, kinds), names) for x in maps[:2]]
    return {
        "photo right": ends(interval(pixel_accuracy, right[0])),
        "image right": ends(interval(pixel_accuracy, right[1])),
        "photo as first map": agrees(maps[0], first_ids, names),
        "image as first map": agrees(maps[1], first_ids, names),
        "outlines": outlines(maps[0], maps[1], names),
        "agreement by round": [agrees(maps[0], ids, names) for ids in maps[1:]],
    }


def agrees(first_ids: torch.Tensor, second_ids: torch.Tensor, names: list[str]) -> list[float]:
    shares = agreement(first_ids, second_ids)
    return ends(interval(torch.mean, by_photo(shares, names, mean=True)))


def outlines(first_ids: torch.Tensor, second_ids: torch.Tensor, names: list[str]) -> dict:
    compared = compare_outlines(first_ids, second_ids, names)
    return {measure: ends(found) for measure, found in vars(compared).items()}


def ends(found: Interval) -> list[float]:
    return [round(x, 4) for x in (found.value, found.low, found.high)]


def report(row: dict) -> None:
    """Print a row of feedback.json."""
    print(f"{row['dataset']} val: {row['scenes']} scenes of {row['photos']} photos, 95 % intervals")
    for name, shares in row["agreement"].items():
        print(f"agreement, {name:18} {Interval(*shares)}")
    for name, measures in row["outlines"].items():
        print(f"outlines, {name:18}", *(f"{k} {Interval(*x)}" for k, x in measures.items()))
    for name, read in row.get("readers", {}).items():
        for of, where in (("right", "true map"), ("as first map", "first map")):
            photo, image = (Interval(*read[f"{what} {of}"]) for what in ("photo", "image"))
            print(f"{name}: pixels as in the {where}: photo {photo}, image {image}")
        print("  outlines", *(f"{k} {Interval(*x)}" for k, x in read["outlines"].items()))
        for number, shares in enumerate(read["agreement by round"], 1):
            print(f"  agreement with its map of the photo, round {number:2}: {Interval(*shares)}")
    print(f"IoU of the second map, classes in the first map of {row['at_least']} photos or more")
    for name, values in sorted(row["iou"].items(), key=lambda item: -item[1]["second map"]):
        print(f"{name:14} {values['second map']:.3f} in {values['photos']}")


if __name__ == "__main__":
    main()
