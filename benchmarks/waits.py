#!/usr/bin/env python3
"""What people wait for: the first picture, a photo, a stroke, an epoch, each notebook.

    python benchmarks/waits.py                 # a minute
    python benchmarks/waits.py --notebooks     # the notebooks, too: five more minutes on two cores

On a GPU, if there is one.  Prints the table that is kept in benchmarks/waits.txt.  The page in the
browser is measured by page.py, batches of pictures by spade.py, trainings by spade_training.py.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import torch
from timing import machine

from spade import load_generator
from utils.cache import cached
from utils.files import PROJECT
from utils.images import read_photo
from utils.painter.widgets import StreetPainter
from utils.pipeline import load_pipeline
from utils.scenes import open_scenes
from utils.segmentation import SegmentationNet
from utils.training import Recipe, train
from utils.weights import find_weights

PHOTO = "docs/california_0109.jpg"
FIRST = f"""
from utils.images import read_photo, save_image
from utils.pipeline import load_pipeline
result = load_pipeline("streets", "streets").run(read_photo("{PHOTO}", (256, 128)))
save_image(result.generated_u8, "out/first.png")
"""
ROUNDS = {"first picture": 5, "photo": 20, "stroke": 20, "epochs": 3}


def report(what: str, seconds: list[float]) -> None:
    """Print the median and the slowest."""
    print(f"{what:66} {statistics.median(seconds):6.2f}   {max(seconds):6.2f}", flush=True)


def timed(run: Callable[[], object], rounds: int) -> list[float]:
    """Seconds of each call; what a call returns lies on the CPU, so a GPU has finished."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


def first_pictures() -> None:
    def run() -> None:
        subprocess.run([sys.executable, "-c", FIRST], cwd=PROJECT, check=True, capture_output=True)

    report("a new Python, from its start to the first picture", timed(run, ROUNDS["first picture"]))


def photos() -> None:
    pipeline = load_pipeline("streets", "streets")  # on a GPU, if there is one
    image_u8 = read_photo(PROJECT / PHOTO, (256, 128))

    def run() -> torch.Tensor:
        return pipeline.run(image_u8).generated_label_ids.cpu()

    run()
    report("photo, map, image, map, real streets of 256x128", timed(run, ROUNDS["photo"]))


def strokes(device: str) -> None:
    generator = load_generator(find_weights("generator", "streets")).to(device)
    start = open_scenes("streets", "val", size=generator.size)[0].label_ids
    painter = StreetPainter({"streets": generator}, {"a street": start})

    def run() -> None:
        painter.painting.paint([(40, 90), (120, 100)], "car", 12)
        painter.refresh()

    report("a stroke in notebook 07's painter, to the new picture", timed(run, ROUNDS["stroke"]))


def epochs() -> None:
    size = (256, 128)
    scenes = cached(open_scenes("streets", "train", size=size), PROJECT / "data/cache")
    network = SegmentationNet("efficientnet_lite0", "unet", pretrained=True)
    recipe = Recipe(epochs=ROUNDS["epochs"], batch_size=8)
    val_scenes = open_scenes("streets", "val", size=size)
    with contextlib.redirect_stdout(sys.stderr):  # a line for each epoch
        history = train(network, scenes, val_scenes, recipe)
    report(f"an epoch of {len(scenes)} photos with U-Net, validation included", history["seconds"])


def notebooks() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted((PROJECT / "notebooks").glob("*.ipynb")):
            command = [sys.executable, "tools/run_notebooks.py", "--out", folder, str(path)]
            start = time.perf_counter()
            subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
            report(f"notebook {path.stem}", [time.perf_counter() - start])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notebooks", action="store_true", help="execute each of them once")
    arguments = parser.parse_args()
    os.environ["COURSE_PROGRESS"] = "0"  # no bars between the lines
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{machine()}\n\n{'seconds':66} median  slowest")
    first_pictures()
    photos()
    strokes(device)
    epochs()
    if arguments.notebooks:
        notebooks()


if __name__ == "__main__":
    main()
