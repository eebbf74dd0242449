#!/usr/bin/env python3
"""Measure the bundled segmentation network on real photos: scores, speed and memory.

    python benchmarks/real_streets.py                       # the photos that come with the project
    python benchmarks/real_streets.py --camvid FOLDER       # CamVid's validation photos, too
    python benchmarks/real_streets.py --photos FOLDER       # the folder command: speed and memory

Prints the tables that are kept in benchmarks/real_streets.txt.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from timing import in_turn, machine

from utils.files import PROJECT
from utils.intervals import (
    RESAMPLES,
    by_photo,
    confusions,
    interval,
    labels_in,
    mean_iou,
    occurrences,
    pixel_accuracy,
)
from utils.labels import CAMVID_NAMES, LABEL_OF_CAMVID_ID, NAMES
from utils.metrics import iou_of
from utils.progress import progress
from utils.scenes import open_photos, open_scenes
from utils.segmentation import SegmentationNet, load_segmentation
from utils.training import evaluate
from utils.weights import find_weights

SIZES = ((256, 128), (512, 256), (1024, 512))
MIN_PHOTOS = 4  # the mean leaves out classes that occur in fewer photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, help="a file; by default the bundled network's")
    parser.add_argument("--camvid", help="the data set's folder")
    parser.add_argument("--photos", type=Path, help="measure the command on this folder instead")
    arguments = parser.parse_args()
    weights = arguments.weights or find_weights("segmentation", "streets")
    print(machine())
    if arguments.photos:
        folder_command(arguments.photos, weights)
        return
    network, _ = load_segmentation(weights)
    parameters = sum(x.numel() for x in network.parameters())
    megabytes = weights.stat().st_size / 1e6
    print(f"{weights.name}: {parameters / 1e6:.2f} million parameters, {megabytes:.2f} MB")
    if arguments.camvid:
        camvid(network, arguments.camvid)
    streets(network)
    for width, height in SIZES:
        image_u8 = open_scenes("streets", "val", size=(width, height))[0].image_u8
        (seconds,) = in_turn(20, predict=lambda photo=image_u8: network.predict(photo))
        print(f"one photo of {width}x{height} to its map: {seconds:.3f} s, median of 20")


def camvid(network: SegmentationNet, root: str) -> None:
    """Score the network on CamVid's validation photos, in CamVid's eleven classes."""
    scenes = open_scenes("camvid", "val", root, (480, 360))
    _, result = evaluate(network, scenes, batch_size=8)
    print(f"\n{scenes}: {result}")
    for name, label in zip(CAMVID_NAMES[:-1], LABEL_OF_CAMVID_ID.tolist()):
        print(f"  {name:11} {result.iou[NAMES[label]]:.3f}")


def streets(network: SegmentationNet) -> None:
    """Score it on photos of Karlsruhe with manual maps, with bootstrap intervals over photos."""
    for size in SIZES:
        scenes = open_scenes("streets", "val", size=size)
        pairs = ((network.predict(x.image_u8), x.label_ids) for x in progress(scenes, "streets"))
        by_scene = torch.cat([confusions(*(ids[None] for ids in pair)) for pair in pairs])
        counts = by_photo(by_scene, scenes.names)
        classes = labels_in(counts, MIN_PHOTOS)
        miou = interval(lambda rows, classes=classes: mean_iou(rows, classes), counts)
        print(
            f"\n{scenes}, {len(counts)} photos\n"
            f"  pixel accuracy {interval(pixel_accuracy, counts)}, mIoU over the {len(classes)} "
            f"classes in at least {MIN_PHOTOS} photos {miou}; 95 % intervals, {RESAMPLES} "
            "resamples of the photos"
        )
        if size == (512, 256):
            occurs = occurrences(counts)
            for label, value in zip(classes, iou_of(counts.sum(0))[classes].tolist()):
                print(f"  {NAMES[label]:13} {value:.3f}, in {occurs[label]} photos")
    print()


def folder_command(photos: Path, weights: Path) -> None:
    """Time the folder command and measure its peak memory."""
    count = len(open_photos(photos))
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "utils.photo_folder", str(photos.resolve())]
        start = time.perf_counter()
        subprocess.run(
            [*command, "--segmenter", str(weights), "--out", out], cwd=PROJECT, check=True
        )
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(
        f"{count} photos through the folder command: {count / seconds:.2f} a second, start of "
        f"Python and networks included; at most {peak:.2f} GiB of memory"
    )


if __name__ == "__main__":
    main()
