#!/usr/bin/env python3
"""Score the maps and images of photo -> map -> image -> map over a validation split.

    python benchmarks/pipeline.py                                  # toy streets, bundled networks
    python benchmarks/pipeline.py --dataset camvid --root FOLDER --segmenter streets \\
        --generator streets                                        # networks for real photos
    python benchmarks/pipeline.py --photos FOLDER                  # a folder through the command

Prints scores, and saves one picture of each stage in out/pictures.  With --photos, times
`python -m utils.photo_folder`, then kills it halfway, starts it again, and compares.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from timing import machine

from utils.cache import cached
from utils.engine.run import JOURNAL
from utils.files import PROJECT
from utils.metrics import SegmentationScore
from utils.photo_folder import Record
from utils.pipeline import agreement, load_pipeline
from utils.plots import PICTURES, show_grid
from utils.progress import progress
from utils.scenes import DATASETS, open_photos, open_scenes
from utils.weights import find_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="toy", choices=DATASETS)
    parser.add_argument("--root", help="the data set's folder")
    parser.add_argument("--segmenter", help="whose weights; by default the data set's")
    parser.add_argument("--generator", help="whose weights; by default the data set's")
    parser.add_argument("--style", default="photo", help="see utils.pipeline.load_pipeline")
    parser.add_argument("--scenes", type=int, help="how many of the split; all by default")
    parser.add_argument("--photos", type=Path, help="time the command on this folder instead")
    arguments = parser.parse_args()
    options = {
        "segmenter": arguments.segmenter or arguments.dataset,
        "generator": arguments.generator or arguments.dataset,
        "style": arguments.style,
    }
    print(machine())
    for network, dataset in zip(("segmentation", "generator"), options.values()):
        print(f"{network:12} {find_weights(network, dataset).relative_to(PROJECT)}")
    if arguments.photos:
        folder(arguments.photos, options)
    else:
        split(options, arguments.dataset, arguments.root, arguments.scenes)


def split(options: dict, dataset: str, root: str | None, count: int | None) -> None:
    """Print the scores of a validation split after each stage of the pipeline."""
    pipeline = load_pipeline(**options)
    scenes = open_scenes(dataset, "val", root, pipeline.generator.size)
    scenes = scenes.evenly_spaced(count or len(scenes))
    scenes = cached(scenes, PROJECT / "data" / "cache")

    scores = {
        name: SegmentationScore()
        for name in ("map of the photo", "map of the generated photo", "map of SPADE on true map")
    }
    shares, seconds = [], 0.0
    for indices in progress(torch.arange(len(scenes)).split(8), "scenes"):
        image_u8, true_ids = scenes.batch(indices)
        start = time.perf_counter()
        result = pipeline.run(image_u8)
        seconds += time.perf_counter() - start
        from_truth = pipeline.run(image_u8, true_ids)
        maps = (result.label_ids, result.generated_label_ids, from_truth.generated_label_ids)
        for score, label_ids in zip(scores.values(), maps):
            score.update(label_ids.cpu(), true_ids, scenes.map_kinds(indices))
        shares.append(agreement(result.label_ids, result.generated_label_ids).cpu())
    shares = torch.cat(shares)
    print(scenes)
    for name, score in scores.items():
        print(f"{name:27} {score.compute()}")
    print(f"feedback agreement          {shares.mean():.3f} (from {shares.min():.3f})")
    print(f"{len(scenes) / seconds:.1f} photos a second through photo, map, photo, map")

    image_u8, true_ids = scenes.evenly_spaced(4).batch(range(4))
    result = pipeline.run(image_u8)
    stages = {
        "photo": image_u8,
        "true map": true_ids,
        "map": result.label_ids,
        "SPADE": result.generated_u8,
        "map again": result.generated_label_ids,
        "from truth": pipeline.run(image_u8, true_ids).generated_u8,
    }
    show_grid({name: x.cpu() for name, x in stages.items()}, name=f"pipeline_{scenes.dataset}")
    print(f"picture: {(PICTURES / f'pipeline_{scenes.dataset}.jpg').relative_to(PROJECT)}")


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


if __name__ == "__main__":
    main()
