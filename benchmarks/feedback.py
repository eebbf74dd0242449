#!/usr/bin/env python3
"""Compare the maps before and after SPADE: agreement, outlines, and controls of both.

    python benchmarks/feedback.py --scenes 200 --store             # toy streets, bundled networks
    python benchmarks/feedback.py --dataset streets --store        # the project's real photos
    python benchmarks/feedback.py --dataset streets --judge FILE --store

With --judge, a second segmentation network reads the photos and the generated images, too; one that
no generator was trained with is trained by

    python -m utils.training --recipe benchmarks/judge.toml --root CAMVID --out runs/judge

--store keeps the figures in benchmarks/feedback.json, which notebook 05 shows.
"""

import argparse
from pathlib import Path

import torch
from timing import machine, store_by

from utils.cache import cached
from utils.feedback import compare_outlines, controls, soften
from utils.files import PROJECT
from utils.intervals import Interval, by_photo, confusions, interval, labels_in, occurrences
from utils.labels import NAMES
from utils.metrics import iou_of
from utils.pipeline import agreement, load_pipeline
from utils.progress import progress
from utils.scenes import DATASETS, open_scenes
from utils.segmentation import load_segmentation

RESULT = PROJECT / "benchmarks" / "feedback.json"
AT_LEAST = 5  # classes that occur in the first maps of fewer photos are left out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="toy", choices=DATASETS)
    parser.add_argument("--root", help="the data set's folder")
    parser.add_argument("--networks", help="whose weights; by default the data set's")
    parser.add_argument("--judge", type=Path, help="the file of a second segmentation network")
    parser.add_argument("--scenes", type=int, help="how many of the split; all by default")
    parser.add_argument("--store", action="store_true", help=f"keep the figures in {RESULT.name}")
    arguments = parser.parse_args()
    print(machine())
    networks = arguments.networks or arguments.dataset
    pipeline = load_pipeline(networks, networks)
    judge = load_segmentation(arguments.judge)[0] if arguments.judge else None
    scenes = open_scenes(arguments.dataset, "val", arguments.root, pipeline.generator.size)
    scenes = cached(scenes.evenly_spaced(arguments.scenes or len(scenes)), PROJECT / "data/cache")

    own, judged = ([], []), ([], [])  # the maps of the photos, and of the images
    for indices in progress(torch.arange(len(scenes)).split(8), "scenes"):
        image_u8 = scenes.batch(indices)[0]
        result = pipeline.run(image_u8)
        for maps, ids in zip(own, (result.label_ids, result.generated_label_ids)):
            maps.append(ids.cpu())
        for maps, picture in zip(judged if judge else (), (image_u8, result.generated_u8)):
            maps.append(judge.predict(picture).cpu())
    first_ids, second_ids = map(torch.cat, own)
    counts = by_photo(confusions(second_ids, first_ids), scenes.names)
    occurs, iou = occurrences(counts), iou_of(counts.sum(0))
    seconds = {"second map": second_ids, **controls(second_ids)}
    compared = {"second map": second_ids, "softened map": torch.cat([soften(x) for x in own[0]])}
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
        pair = *map(torch.cat, judged), scenes.names
        row["agreement"]["second map, judge"] = agrees(*pair)
        row["outlines"]["second map, judge"] = outlines(*pair)
    report(row)
    if arguments.store:
        store_by("dataset", RESULT, __doc__.splitlines()[0], row)


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
    print(f"IoU of the second map, classes in the first map of {row['at_least']} photos or more")
    for name, values in sorted(row["iou"].items(), key=lambda item: -item[1]["second map"]):
        print(f"{name:14} {values['second map']:.3f} in {values['photos']}")


if __name__ == "__main__":
    main()
