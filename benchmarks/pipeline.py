#!/usr/bin/env python3
"""Score the maps and images of photo -> map -> image -> map over a validation split.

    python benchmarks/pipeline.py --scenes 200 --store             # toy streets, bundled networks
    python benchmarks/pipeline.py --dataset streets --store        # the project's real photos
    python benchmarks/pipeline.py --dataset camvid --root FOLDER --segmenter streets \\
        --generator streets --store                                # CamVid's photos
    python benchmarks/pipeline.py --photos FOLDER                  # a folder through the command
    python benchmarks/pipeline.py --dataset streets --against 2790fff  # the speed of both

The generator gets three maps of each scene: the true one, the true one cut to the benchmark's
classes, and the one that the segmentation network predicts.  What the network reads from each image
is scored against the true map, with bootstrap intervals over photos.  --store keeps the figures in
benchmarks/pipeline.json, which notebook 04 shows.

With --photos, times `python -m utils.photo_folder`, then kills it halfway, starts it again, and
compares.

With --against, times one photo at a time on a CPU, here and in a commit of this repository, whose
whole history it needs.  The machine should have nothing else to do.
"""

import argparse
import contextlib
import hashlib
import io
import json
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import torch
from timing import another_python, machine, store_by

from utils.cache import cached
from utils.engine.run import JOURNAL
from utils.files import PROJECT
from utils.intervals import (
    Interval,
    by_photo,
    confusions,
    interval,
    labels_in,
    mean_iou,
    occurrences,
    pixel_accuracy,
)
from utils.labels import NAMES, label_ids_to_train_ids, train_ids_to_label_ids
from utils.metrics import iou_of
from utils.photo_folder import Record
from utils.pipeline import Pipeline, agreement, load_pipeline
from utils.progress import progress
from utils.scenes import DATASETS, Scenes, open_photos, open_scenes
from utils.weights import find_weights

RESULT = PROJECT / "benchmarks" / "pipeline.json"
AT_LEAST = 5  # the mean leaves out classes that occur in fewer photos
WAYS = {
    "photo": "the map that is read from the photo",
    "true": "from the image of the true map",
    "cut": "from the image of the cut true map",
    "predicted": "from the image of the predicted map",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="toy", choices=DATASETS)
    parser.add_argument("--root", help="the data set's folder")
    parser.add_argument("--segmenter", help="whose weights; by default the data set's")
    parser.add_argument("--generator", help="whose weights; by default the data set's")
    parser.add_argument("--style", default="photo", help="see utils.pipeline.load_pipeline")
    parser.add_argument("--scenes", type=int, help="how many of the split; all by default")
    parser.add_argument("--store", action="store_true", help=f"keep the figures in {RESULT.name}")
    parser.add_argument("--photos", type=Path, help="time the command on this folder instead")
    parser.add_argument("--against", metavar="COMMIT", help="only time it, here and there")
    parser.add_argument("--rounds", type=int, default=7, help="of --against")
    arguments = parser.parse_args()
    options = {
        "segmenter": arguments.segmenter or arguments.dataset,
        "generator": arguments.generator or arguments.dataset,
        "style": arguments.style,
    }
    print(machine())
    files = {
        "segmenter": find_weights("segmentation", options["segmenter"]),
        "generator": find_weights("generator", options["generator"]),
    }
    for network, file in zip(("segmentation", "generator"), files.values()):
        print(f"{network:12} {file.relative_to(PROJECT)}")
    if arguments.photos:
        folder(arguments.photos, options)
        return
    if arguments.against:
        same = options | {name: str(file) for name, file in files.items()}
        photos = arguments.scenes or 12
        against(arguments.against, arguments.dataset, same, photos, arguments.rounds)
        return
    pipeline = load_pipeline(**options)
    scenes = open_scenes(arguments.dataset, "val", arguments.root, pipeline.generator.size)
    scenes = scenes.evenly_spaced(arguments.scenes or len(scenes))
    row = measure(pipeline, cached(scenes, PROJECT / "data" / "cache"))
    report(row)
    if arguments.store:
        store_by("dataset", RESULT, __doc__.splitlines()[0], options | row)


def measure(pipeline: Pipeline, scenes: Scenes) -> dict:
    """Score all four maps of each scene against the true one -> a row of pipeline.json."""
    parts, shares = {way: [] for way in WAYS}, []
    for indices in progress(torch.arange(len(scenes)).split(8), "scenes"):
        image_u8, true_ids = scenes.batch(indices)
        result = pipeline.run(image_u8)
        cut_ids = train_ids_to_label_ids(label_ids_to_train_ids(true_ids))
        maps = {
            "photo": result.label_ids,
            "true": pipeline.run(image_u8, true_ids).generated_label_ids,
            "cut": pipeline.run(image_u8, cut_ids).generated_label_ids,
            "predicted": result.generated_label_ids,
        }
        for way, label_ids in maps.items():
            parts[way].append(confusions(label_ids.cpu(), true_ids, scenes.map_kinds(indices)))
        shares.append(agreement(result.label_ids, result.generated_label_ids).cpu())
    counts = {way: by_photo(torch.cat(rows), scenes.names) for way, rows in parts.items()}
    labels = labels_in(counts["photo"], AT_LEAST)
    occurs = occurrences(counts["photo"])
    iou = {way: iou_of(rows.sum(0)) for way, rows in counts.items()}

    def less(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return mean_iou(first, labels) - mean_iou(second, labels)

    def ends(statistic, *rows: torch.Tensor) -> list[float]:
        found = interval(statistic, *rows)
        return [round(x, 4) for x in (found.value, found.low, found.high)]

    return {
        "dataset": scenes.dataset,
        "scenes": len(scenes),
        "photos": len(counts["photo"]),
        "at_least": AT_LEAST,
        "miou": {w: ends(lambda x: mean_iou(x, labels), rows) for w, rows in counts.items()},
        "accuracy": {way: ends(pixel_accuracy, rows) for way, rows in counts.items()},
        "drawing": ends(less, counts["photo"], counts["true"]),
        "cutting": ends(less, counts["true"], counts["cut"]),
        "predicting": ends(less, counts["true"], counts["predicted"]),
        "agreement": ends(torch.mean, by_photo(torch.cat(shares), scenes.names, mean=True)),
        "iou": {
            NAMES[label]: {"photos": int(occurs[label])}
            | {way: round(float(values[label]), 3) for way, values in iou.items()}
            for label in labels
        },
    }


def report(row: dict) -> None:
    """Print a row of pipeline.json."""
    print(
        f"{row['dataset']} val: {row['scenes']} scenes of {row['photos']} photos; mIoU over the "
        f"{len(row['iou'])} classes in at least {row['at_least']} photos; 95 % intervals"
    )
    for way, name in WAYS.items():
        miou, accuracy = (_shown(row[key][way]) for key in ("miou", "accuracy"))
        print(f"{name:36} mIoU {miou}, pixel accuracy {accuracy}")
    print(f"drawing costs                        {_shown(row['drawing'])}")
    print(f"cutting the map costs                {_shown(row['cutting'])}")
    print(f"predicting the map costs             {_shown(row['predicting'])}")
    print(f"agreement of the first and last map  {_shown(row['agreement'])}")
    print(f"{'IoU':14}" + "".join(f"{way:>10}" for way in ("photos", *WAYS)))
    for name, values in row["iou"].items():
        print(f"{name:14}{values['photos']:10}" + "".join(f"{values[w]:10.3f}" for w in WAYS))


def _shown(ends: list[float]) -> str:
    return str(Interval(*ends))


def folder(photos: Path, options: dict) -> None:
    """Time the command on a folder of photos, kill it halfway, resume it, and compare the files."""
    count = len(open_photos(photos))
    given = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "utils.photo_folder", str(photos.resolve()), *given, "--out"]
    print(f"{count} photos of {photos.name}")
    with tempfile.TemporaryDirectory() as temporary:
        whole, killed = Path(temporary, "whole"), Path(temporary, "killed")
        start = time.perf_counter()
        _finish([*command, str(whole)])
        seconds = time.perf_counter() - start
        print(f"{count / seconds:.2f} photos a second, start of Python and networks included")

        process = subprocess.Popen([*command, str(killed)], cwd=PROJECT)
        while len(_done(killed)) < count / 2 and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.wait()
        done = _done(killed)
        before = {path: _written(path) for record in done for path in record.files(killed)}
        print(f"killed after {len(done)} of {count} photos; the same command again:")
        _finish([*command, str(killed)])
        twice = sum(_written(path) != written for path, written in before.items())
        hashes = [_hashes(place) for place in (whole, killed)]
        lost = len(hashes[0].keys() - hashes[1].keys())
        extra = len(hashes[1].keys() - hashes[0].keys())
        differ = sum(hashes[0][name] != hashes[1][name] for name in hashes[0] if name in hashes[1])
        print(f"done twice: {twice} of {len(before)} pictures that were there")
        print(f"lost: {lost}, left over: {extra}, different: {differ} of {len(hashes[0])} files")


def _finish(command: list[str]) -> None:
    """Run the command to its end and print its report without the path of the page."""
    run = subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True)
    print(run.stdout.splitlines()[0])


def _done(out: Path) -> list[Record]:
    """Return the photos with complete results: all complete lines of the journal but the first."""
    path = out / JOURNAL
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [Record(**json.loads(line)) for line in lines[1:] if line.endswith("\n")]


def _written(path: Path) -> tuple[int, int]:
    """Return inode and time of a file, which change whenever the file is written again."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def _hashes(out: Path) -> dict[Path, str]:
    """Return the hash of every file in an output folder."""
    files = [path for path in out.rglob("*") if path.is_file()]
    return {path.relative_to(out): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# What both commits run: photos from map to map, a round for each line on stdin.
ROUNDS = """
import json, sys, time, zlib
from utils.pipeline import load_pipeline
from utils.scenes import open_scenes

dataset, options, count = json.loads(sys.argv[1])
pipeline = load_pipeline(**options, device="cpu")
scenes = open_scenes(dataset, "val", size=pipeline.generator.size)
photos = [scenes[i].image_u8 for i in range(count)]
for _ in sys.stdin:
    start = time.perf_counter()
    results = [pipeline.run(image_u8) for image_u8 in photos]
    seconds = time.perf_counter() - start
    pixels = b"".join(x.generated_u8.contiguous().numpy().tobytes() for x in results)
    print(seconds, zlib.crc32(pixels), flush=True)
"""


def against(commit: str, dataset: str, options: dict, photos: int, rounds: int) -> None:
    """Photo, map, image, map, one photo at a time: an older commit's code and this one, in turn."""
    archive = subprocess.run(["git", "-C", str(PROJECT), "archive", commit], capture_output=True)
    if archive.returncode:
        raise SystemExit(
            f"git does not know the commit {commit} ({archive.stderr.decode().strip()}): "
            "--against needs the whole history, git fetch --unshallow."
        )
    with tempfile.TemporaryDirectory() as older:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(older, filter="data")
        places = {f"commit {commit}": older, "this code": PROJECT}
        seconds, sums = {name: [] for name in places}, set()
        work = ROUNDS, json.dumps([dataset, options, photos])
        with contextlib.ExitStack() as stack:
            sides = {
                name: stack.enter_context(another_python(*work, folder=place))
                for name, place in places.items()
            }
            for number in range(rounds + 1):  # the first is not timed
                for name, ask in sides.items():
                    taken, checksum = ask("")
                    sums.add(checksum)
                    if number:
                        seconds[name].append(float(taken) / photos)
    medians = [statistics.median(values) for values in seconds.values()]
    print(f"photo, map, image, map, one photo at a time, {photos} photos of {dataset}")
    for name, median in zip(seconds, medians, strict=True):
        print(f"  {name:16} {median:7.3f} s a photo {medians[0] / median:6.2f}x")
    print(f"  the images are {'the same' if len(sums) == 1 else 'not the same'}, bit for bit")


if __name__ == "__main__":
    main()
