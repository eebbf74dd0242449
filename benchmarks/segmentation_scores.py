#!/usr/bin/env python3
"""Score the bundled segmentation networks, with intervals over scenes and what is taken for what.

    python benchmarks/segmentation_scores.py       # half a minute on two cores

Writes benchmarks/segmentation_scores.json, which notebook 02 shows, and prints what is kept in
benchmarks/segmentation_scores.txt.
"""

import dataclasses

import torch
from timing import machine, store

from utils.cache import cached
from utils.files import PROJECT
from utils.intervals import (
    RESAMPLES,
    Interval,
    by_photo,
    confusions,
    interval,
    labels_in,
    mean_iou,
    occurrences,
    pixel_accuracy,
)
from utils.labels import NAMES
from utils.metrics import BoundaryScore, iou_of
from utils.plots import TRAFFIC_IDS
from utils.progress import progress
from utils.scenes import Scenes, open_scenes
from utils.segmentation import SegmentationNet, load_segmentation
from utils.weights import find_weights

# Data set, size, how many scenes (None: all).
SETS = (("toy", (256, 128), 200), ("streets", (256, 128), None), ("streets", (512, 256), None))
LEAST = 4  # the mean leaves out classes that occur in fewer scenes, or photos
WORST = 8  # scenes to name
RESULT = PROJECT / "benchmarks" / "segmentation_scores.json"


def main() -> None:
    print(machine())
    rows = []
    for dataset, size, count in SETS:
        network, _ = load_segmentation(find_weights("segmentation", dataset))
        scenes = open_scenes(dataset, "val", size=size)
        scenes = scenes if count is None else scenes.evenly_spaced(count)
        rows.append(scored(network, cached(scenes, PROJECT / "data/cache")))
        show(rows[-1])
    about = (
        f"bundled networks on validation scenes; mIoU over classes in at least {LEAST} scenes "
        f"(toy) or photos (streets); 95 % intervals from {RESAMPLES} resamples of these"
    )
    store(RESULT, about, rows=rows)


def scored(network: SegmentationNet, scenes: Scenes) -> dict:
    """The figures of one network on one set of scenes, ready for JSON."""
    counts, boundaries = [], BoundaryScore()
    for indices in progress(torch.arange(len(scenes)).split(8), "scenes"):
        image_u8, true_ids = scenes.batch(indices)
        predicted_ids = network.predict(image_u8)
        counts.append(confusions(predicted_ids, true_ids))
        boundaries.update(predicted_ids, true_ids)
    by_scene = torch.cat(counts)
    units = by_photo(by_scene, scenes.names)
    classes = labels_in(units, LEAST)
    miou = interval(lambda rows: mean_iou(rows, classes), units)
    accuracies = [float(pixel_accuracy(row[None])) for row in by_scene]
    worst = sorted(range(len(scenes)), key=accuracies.__getitem__)[:WORST]
    traffic = by_scene[:, list(TRAFFIC_IDS)][:, :, list(TRAFFIC_IDS)]  # (N, 10, 10)
    mistaken = traffic.sum((1, 2)) - traffic.diagonal(dim1=1, dim2=2).sum(1)
    confused = mistaken.argsort(descending=True)[:WORST].tolist()
    occurs = occurrences(units).tolist()
    iou, outlines = iou_of(by_scene.sum(0)), boundaries.compute()
    confusion = by_scene.sum(0)[list(TRAFFIC_IDS)].long()  # (10, 34)
    return {
        "dataset": scenes.dataset,
        "size": list(scenes.size),
        "scenes": len(scenes),
        "units": len(units),
        "classes": len(classes),
        "miou": _plain(miou),
        "accuracy": _plain(interval(pixel_accuracy, units)),
        "boundary_f": outlines.f_score,
        "by_class": {
            NAMES[label]: {
                "iou": iou[label].item(),
                "boundary_f": outlines.by_class[NAMES[label]],
                "in": occurs[label],
            }
            for label in labels_in(units)
        },
        "confusion": {NAMES[x]: row for x, row in zip(TRAFFIC_IDS, confusion.tolist())},
        "worst": [{"name": scenes.names[i], "accuracy": accuracies[i]} for i in worst],
        "confused": [{"name": scenes.names[i], "pixels": int(mistaken[i])} for i in confused],
    }


def show(row: dict) -> None:
    """Print the figures of scored()."""
    scenes = "{dataset} val, {scenes} scenes of {size[0]}x{size[1]}".format(**row)
    photos = "" if row["units"] == row["scenes"] else f", {row['units']} photos"
    miou, accuracy = (Interval(*row[key]) for key in ("miou", "accuracy"))
    print(f"\n{scenes}{photos}\n  mIoU over {row['classes']} classes {miou}")
    print(f"  pixel accuracy {accuracy}, boundary F-score {row['boundary_f']:.3f}")
    for name, figures in row["by_class"].items():
        print("  {:14} IoU {iou:.3f}, F {boundary_f:.3f}, in {in}".format(name, **figures))


def _plain(figure: Interval) -> list[float]:
    return list(dataclasses.astuple(figure))


if __name__ == "__main__":
    main()
