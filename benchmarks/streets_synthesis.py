#!/usr/bin/env python3
"""Do generated streets look like real ones, city by city?

    python -m utils.training --recipe benchmarks/judge.toml --out runs/judge --root CAMVID
    python benchmarks/streets_synthesis.py --camvid CAMVID --california FOLDER

Images are generated from the maps of photos that no network has learned from, each in the style of
its photo.  The kernel distance of their features to those of the photos (lower is better) is
divided by that of as many training photos: 1 means that generated images are no farther from them
than other real photos.  Features: mean and spread of the first feature maps of a segmentation
network that was trained for judging only, and of EfficientNet-Lite2 with ImageNet weights.

--california: a folder with photos/ and maps/ that are not in data/streets.  Prints the tables that
are kept in benchmarks/streets_synthesis.txt.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from timing import machine
from torch import Tensor

import spade
from utils.augmentation import Augmentation
from utils.backbones import BACKBONES
from utils.files import PROJECT
from utils.images import read_image, read_map, u8_to_imagenet, u8_to_pm1
from utils.meanings import in_words_of
from utils.metrics import SegmentationScore
from utils.progress import progress
from utils.scenes import Scenes, open_scenes
from utils.segmentation import SegmentationNet, load_segmentation
from utils.weights import find_weights

RESAMPLES, SHARE = 1000, 0.7  # of the photos in each resample, drawn without replacement
CROPS = 8  # of each photo, where there are few
BATCH = 16
Features = Callable[[Tensor], Tensor]  # image_u8 (B, 3, H, W) -> (B, D)
Pairs = tuple[Tensor, Tensor]  # image_u8 (N, 3, H, W), label_ids (N, H, W)


def pooled(maps: list[Tensor]) -> Tensor:
    """Mean and spread of feature maps (B, C, h, w) -> (B, D)."""
    return torch.cat([y for x in maps for y in (x.mean((2, 3)), x.std((2, 3)))], dim=1)


def judge_features(network: SegmentationNet) -> Features:
    """Of the first three feature maps of a segmentation network."""

    @torch.no_grad()
    def features(image_u8: Tensor) -> Tensor:
        x = u8_to_imagenet(image_u8, network.backbone.mean, network.backbone.std)
        return pooled(network.encoder(x)[1:4])

    return features


def lite2_features() -> Features:
    """Of the first three feature maps of EfficientNet-Lite2 with ImageNet weights."""
    backbone = BACKBONES["efficientnet_lite2"]
    stages = torch.nn.ModuleList(backbone.stages(pretrained=True)[:3]).eval()

    @torch.no_grad()
    def features(image_u8: Tensor) -> Tensor:
        x, maps = u8_to_imagenet(image_u8, backbone.mean, backbone.std), []
        for stage in stages:
            x = stage(x)
            maps.append(x)
        return pooled(maps)

    return features


def kernel_distance(x: Tensor, y: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of features (N, D) and (M, D), unbiased -> a scalar.

    Source: Binkowski et al., "Demystifying MMD GANs" (KID), ICLR 2018, arXiv:1801.01401: the kernel
    is (x . y / D + 1) ** 3.
    """

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    n, m = len(x), len(y)
    within = (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1))
    return within - 2 * xy.mean()


def ratio(fake: Tensor, real: Tensor, other: Tensor) -> tuple[float, float, float]:
    """Distance of fake to real over that of other real photos -> all photos, 95 % interval."""
    mean, std = real.mean(0), real.std(0) + 1e-6  # so that no feature outweighs the others
    fake, real, other = ((x.double() - mean) / std for x in (fake, real, other))
    generator, ratios = torch.Generator().manual_seed(0), []
    for _ in range(RESAMPLES):
        parts = []
        for x in (fake, real, other):
            rows = torch.randperm(len(x), generator=generator)[: int(SHARE * len(x))]
            parts.append(x[rows])
        ratios.append(kernel_distance(parts[0], parts[1]) / kernel_distance(parts[2], parts[1]))
    low, high = torch.stack(ratios).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    whole = kernel_distance(fake, real) / kernel_distance(other, real)
    return whole.item(), low, high


def all_of(scenes: Scenes) -> Pairs:
    return scenes.batch(range(len(scenes)))


def random_crops(pairs: list[Pairs], size: tuple[int, int], seed: int) -> Pairs:
    """CROPS crops at random scales of each photo (3, H, W) with its map (H, W)."""
    augment = Augmentation(size, flip=0, scale=(0.44, 1))
    seeds = torch.arange(CROPS) + seed
    parts = []
    for number, (image_u8, label_ids) in enumerate(pairs):
        repeated = (x.expand(CROPS, *x.shape) for x in (image_u8, label_ids))
        parts.append(augment(*repeated, seeds=seeds + 1000 * number))
    return tuple(torch.cat(column) for column in zip(*parts))


def streets_of(city: str, split: str, size: tuple[int, int]) -> list[Pairs]:
    scenes = open_scenes("streets", split, size=(384, 192))
    return [(x.image_u8, x.label_ids) for x in scenes if x.city == city]


def folder_pairs(folder: Path) -> list[Pairs]:
    paths = sorted((folder / "photos").glob("*.jpg"))
    known = {path.name for path in (PROJECT / "data/streets").glob("*/photos/*.jpg")}
    return [
        (read_image(path), read_map(folder / "maps" / f"{path.stem}.png"))
        for path in paths
        if path.name not in known
    ]


def as_many(pairs: Pairs, count: int) -> Tensor:
    """So many photos of those, at random."""
    rows = torch.randperm(len(pairs[0]), generator=torch.Generator().manual_seed(0))[:count]
    return pairs[0][rows]


@torch.no_grad()
def generated(generator: spade.SpadeGenerator, encoder: spade.Encoder, pairs: Pairs) -> Tensor:
    parts = []
    for image_u8, label_ids in zip(*(x.split(BATCH) for x in pairs)):
        z = encoder(u8_to_pm1(image_u8))[0]
        parts.append(generator.synthesize(label_ids, z=z))
    return torch.cat(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generator", default="streets", help="a data set's, or a file")
    parser.add_argument(
        "--judge", type=Path, default=PROJECT / "runs/judge/segmentation.safetensors"
    )
    parser.add_argument("--camvid", required=True, help="the data set's folder")
    parser.add_argument("--california", type=Path, help="a folder with photos/ and maps/")
    arguments = parser.parse_args()
    source = arguments.generator
    path = Path(source) if Path(source).suffix else find_weights("generator", source)
    generator = spade.load_generator(path)
    encoder = spade.load_encoder(path.with_name(path.name.replace("generator", "encoder")))
    judge, _ = load_segmentation(arguments.judge)
    size = generator.size
    cities = {
        "Cambridge": (
            all_of(open_scenes("camvid", "val", arguments.camvid, size)),
            all_of(open_scenes("camvid", "train", arguments.camvid, size)),
        ),
        "Karlsruhe": tuple(
            random_crops(streets_of("Karlsruhe", split, size), size, seed)
            for seed, split in enumerate(("val", "train"))
        ),
    }
    if arguments.california:
        cities["California"] = (
            random_crops(folder_pairs(arguments.california), size, 0),
            random_crops(streets_of("California", "train", size), size, 1),
        )
    print(f"{machine()}\n{path.name}, {size[0]}x{size[1]}\n")
    print("city         images  judge's features          EfficientNet-Lite2's      mIoU over real")
    for city, (val, train) in cities.items():
        fake_u8 = generated(generator, encoder, val)
        other_u8 = as_many(train, len(fake_u8))
        cells = []
        for features in (judge_features(judge), lite2_features()):
            parts = [
                torch.cat([features(part) for part in progress(x.split(BATCH), city)])
                for x in (fake_u8, val[0], other_u8)
            ]
            cells.append("{:5.2f} ({:.2f} to {:.2f})".format(*ratio(*parts)))
        kind = "camvid" if city == "Cambridge" else "exact"
        miou = [read_miou(judge, x, val[1], kind) for x in (fake_u8, val[0])]
        print(
            f"{city:12} {len(fake_u8):6} {cells[0]:>24} {cells[1]:>24}"
            f"      {miou[0]:.3f} / {miou[1]:.3f} = {miou[0] / miou[1]:.2f}"
        )


def read_miou(judge: SegmentationNet, image_u8: Tensor, label_ids: Tensor, kind: str) -> float:
    """The mIoU that the judge reads from images of these maps."""
    score = SegmentationScore()
    for images, ids in zip(image_u8.split(BATCH), label_ids.split(BATCH)):
        score.update(in_words_of([kind] * len(ids), judge.predict(images)), ids)
    return score.compute().miou


if __name__ == "__main__":
    main()
