#!/usr/bin/env python3
"""Do generated streets look like real ones, city by city?

    python -m utils.training --recipe benchmarks/judge.toml --root CAMVID --out runs/judge
    python benchmarks/streets_synthesis.py --camvid CAMVID --california FOLDER

Images are generated from the maps of photos that no network has learned from, each in the style of
its photo.  The kernel distance of their features to those of the photos is divided by that of as
many training photos: 1 means that generated images are no farther from them than other real photos.
Features: means of the last two feature maps of the judge, a segmentation network that no
loss used, and of EfficientNet-Lite2 with ImageNet weights.  The judge also reads the images, and a
two classifiers that were trained on real photos tell which city was asked for.

CAMVID is the data set's folder; FOLDER holds more California, photos/ and maps/, of which those in
data/streets and their neighbours, which show the same street, are left out.  Prints the tables that
are kept in benchmarks/streets_synthesis.txt.
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from synthesis import Classifier
from timing import in_turn, machine
from torch import Tensor
from torchvision.io import decode_jpeg, encode_jpeg

import spade
from utils.augmentation import Augmentation
from utils.files import PROJECT
from utils.images import read_image, read_map, u8_to_imagenet
from utils.metrics import SegmentationScore
from utils.pipeline import Pipeline, load_pipeline
from utils.progress import progress
from utils.scenes import open_scenes
from utils.segmentation import SegmentationNet

RESAMPLES = 1000
PHOTO_SIZE = (384, 192)  # crops of these, of 1 to 1.5 times, as the generator has learned from
CROPS = 8  # of each photo, where there are few
NEIGHBOURS = 3  # photos of California with numbers so close show the same street
BATCH = 16
JUDGE = PROJECT / "runs/judge/segmentation.safetensors"
JPEG_QUALITY = 85
Features = Callable[[Tensor], Tensor]  # image_u8 (B, 3, H, W) -> (B, D)


@dataclass
class Pictures:
    """Photos of a city: image_u8 (N, 3, H, W), label_ids (N, H, W), and of which photo each is."""

    image_u8: Tensor
    label_ids: Tensor
    photo: Tensor
    kinds: Sequence[str]  # of the maps, see utils.meanings

    def at(self, rows: Tensor) -> "Pictures":
        kinds = [self.kinds[row] for row in rows.tolist()]
        return Pictures(self.image_u8[rows], self.label_ids[rows], self.photo[rows], kinds)


def features_of(network: SegmentationNet, textures: bool = False) -> Features:
    """Means of the last two feature maps, at strides 16 and 32; they also tell the layout.

    Args:
        textures: instead means and deviations at strides 4, 8 and 16, which tell how things look.
    """
    chosen, statistics = (
        (slice(2, 5), (torch.mean, torch.std)) if textures else (slice(-2, None), (torch.mean,))
    )

    @torch.no_grad()
    def features(image_u8: Tensor) -> Tensor:
        x = u8_to_imagenet(image_u8, network.backbone.mean, network.backbone.std)
        maps = network.encoder(x)[chosen]
        return torch.cat([f(x, (2, 3)) for x in maps for f in statistics], dim=1)

    return features


@functools.cache
def lite2() -> SegmentationNet:
    """EfficientNet-Lite2 with ImageNet weights."""
    return SegmentationNet("efficientnet_lite2", pretrained=True).eval()


def all_features(features: Features, image_u8: Tensor) -> Tensor:
    return torch.cat([features(part) for part in progress(image_u8.split(BATCH), "features")])


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


def on_one_scale(*features: Tensor) -> list[Tensor]:
    """Divide features (N, D) by the last one's deviations, so that none outweighs the others."""
    mean, std = features[-1].mean(0), features[-1].std(0) + 1e-6
    return [(x.double() - mean) / std for x in features]


def ratio(
    fake: Tensor, real: Tensor, other: Tensor, photo: Tensor, other_photo: Tensor
) -> tuple[float, float, float]:
    """Distance of fake to real over that of other to real -> of all, and its 95 % interval.

    Each resample is a random half of the photos, which spreads as much as all of them do (delete
    half jackknife); drawn with replacement, a photo would be compared with itself.
    """
    fake, other, real = on_one_scale(fake, other, real)
    generator, ratios = torch.Generator().manual_seed(0), []

    def half_of(numbers: Tensor) -> Tensor:
        names = numbers.unique()
        chosen = names[torch.randperm(len(names), generator=generator)[: len(names) // 2]]
        return torch.isin(numbers, chosen)

    for _ in range(RESAMPLES):
        rows, other_rows = half_of(photo), half_of(other_photo)
        one = kernel_distance(fake[rows], real[rows])
        ratios.append(one / kernel_distance(other[other_rows], real[rows]))
    low, high = torch.stack(ratios).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return (kernel_distance(fake, real) / kernel_distance(other, real)).item(), low, high


def crops_of(pairs: list[tuple[Tensor, Tensor, str]], size: tuple[int, int], seed: int) -> Pictures:
    """CROPS crops at random scales of each photo (3, H, W) with its map (H, W) and map's kind."""
    augment = Augmentation(size, flip=0, scale=(0.44, 1))
    parts = []
    for number, (image_u8, label_ids, _) in enumerate(pairs):
        repeated = (x.expand(CROPS, *x.shape) for x in (image_u8, label_ids))
        parts.append(augment(*repeated, seeds=torch.arange(CROPS) + seed + 1000 * number))
    image_u8, label_ids = (torch.cat(column) for column in zip(*parts))
    photo = torch.arange(len(pairs)).repeat_interleave(CROPS)
    return Pictures(image_u8, label_ids, photo, [p[2] for p in pairs for _ in range(CROPS)])


def of_camvid(split: str, root: str, size: tuple[int, int]) -> Pictures:
    scenes = open_scenes("camvid", split, root, size)
    kinds = scenes.map_kinds(range(len(scenes)))
    return Pictures(*scenes.batch(range(len(scenes))), torch.arange(len(scenes)), kinds)


def of_streets(city: str, split: str, size: tuple[int, int]) -> Pictures:
    scenes = open_scenes("streets", split, size=PHOTO_SIZE)
    kinds = scenes.map_kinds(range(len(scenes)))
    rows = [(s.image_u8, s.label_ids, kind) for s, kind in zip(scenes, kinds) if s.city == city]
    return crops_of(rows, size, seed=split == "train")


def number_of(path: Path) -> int:
    """12 for california_0012.jpg."""
    return int(path.stem.rsplit("_", 1)[1])


def of_folder(folder: Path, size: tuple[int, int]) -> Pictures:
    known = {number_of(x) for x in (PROJECT / "data/streets/california/photos").glob("*.jpg")}
    rows = [
        (read_image(path), read_map(folder / "maps" / f"{path.stem}.png"), "network")
        for path in sorted((folder / "photos").glob("*.jpg"))
        if min(abs(number_of(path) - number) for number in known) > NEIGHBOURS
    ]
    return crops_of(rows, size, seed=0)


def all_cities(
    camvid: str, california: Path | None, size: tuple[int, int]
) -> dict[str, tuple[Pictures, Pictures]]:
    """Of each city photos that no network has learned from, and some of those it has."""
    cities = {
        "Cambridge": tuple(of_camvid(split, camvid, size) for split in ("val", "train")),
        "Karlsruhe": tuple(of_streets("Karlsruhe", split, size) for split in ("val", "train")),
    }
    if california is not None:
        train = of_streets("California", "train", size)
        cities["California"] = (of_folder(california, size), train)
    return cities


@torch.no_grad()
def generated(generator: spade.SpadeGenerator, pictures: Pictures, z_of: Callable) -> Tensor:
    """One image for each map, in the style that z_of gives for a batch of photos."""
    batches = zip(pictures.image_u8.split(BATCH), pictures.label_ids.split(BATCH))
    return torch.cat([generator.synthesize(ids, z=z_of(image_u8)) for image_u8, ids in batches])


def as_jpeg(image_u8: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) as JPEG shows them: no classifier may go by traces of compression."""
    return torch.stack([decode_jpeg(encode_jpeg(x, JPEG_QUALITY)) for x in image_u8])


def read_miou(judge: SegmentationNet, image_u8: Tensor, pictures: Pictures) -> float:
    """The mIoU that the judge reads from images of these maps."""
    score = SegmentationScore()
    for rows in torch.arange(len(image_u8)).split(BATCH):
        part = pictures.at(rows)
        score.update(judge.predict(image_u8[rows]), part.label_ids, part.kinds)
    return score.compute().miou


def distances(pipeline: Pipeline, cities: dict[str, tuple[Pictures, Pictures]]) -> None:
    """Print for each city how far generated images are from real photos, and how well they read.

    Args:
        pipeline: the judge, and the generator with its encoder.
    """
    judge = pipeline.segmenter
    kinds_of_features = features_of(judge), features_of(lite2())
    print("city       images  judge's features        EfficientNet-Lite2's    mIoU, image / photo")
    for city, (val, train) in cities.items():
        fake_u8 = generated(pipeline.generator, val, pipeline.style_of)
        seeded = torch.Generator().manual_seed(0)
        other = train.at(torch.randperm(len(train.photo), generator=seeded)[: len(val.photo)])
        cells = []
        for features in kinds_of_features:
            x = [all_features(features, u8) for u8 in (fake_u8, val.image_u8, other.image_u8)]
            cells.append("{:5.2f} ({:.2f} to {:.2f})".format(*ratio(*x, val.photo, other.photo)))
        miou, of_photos = (read_miou(judge, x, val) for x in (fake_u8, val.image_u8))
        print(
            f"{city:10} {len(fake_u8):6}  {cells[0]:22}  {cells[1]:22}  "
            f"{miou:.3f} / {of_photos:.3f} = {miou / of_photos:.2f}"
        )


def cities_asked_for(
    generator: spade.SpadeGenerator, cities: dict[str, tuple[Pictures, Pictures]], maps: int
) -> None:
    """Print how often classifiers of real photos read the city whose style was asked for.

    One goes by Lite2's last feature maps, which also tell the layout of a street, and so the city
    of the map; the other by earlier ones, which tell how things look.
    """
    print(f"\nwhich city? asked of {maps} maps of each city's photos; before it, its real photos")
    for title in ("deep", "textures"):
        features = features_of(lite2(), textures=title == "textures")

        def read(image_u8: Tensor, features: Features = features) -> Tensor:
            return all_features(features, as_jpeg(image_u8))

        x = {city: [read(part.image_u8) for part in parts] for city, parts in cities.items()}
        names = [city for city, (_, train) in x.items() for _ in train]
        classifier = Classifier(None, torch.cat([train for _, train in x.values()]), names)
        everywhere = []
        for name in generator.styles:
            city = name.split(",")[0]
            if city not in cities:
                continue
            z, shares = generator.style(name), []
            for val, _ in cities.values():
                rows = torch.linspace(0, len(val.photo) - 1, maps).long()
                images_u8 = generated(generator, val.at(rows), lambda _, z=z: z)
                shares.append(classifier.right(read(images_u8), [city] * maps))
            everywhere.append(sum(shares) / len(shares))
            real = classifier.right(x[city][0], [city] * len(x[city][0]))
            listed = ", ".join(f"{other} {share:.2f}" for other, share in zip(cities, shares))
            print(f"{title:9} {name:16} {real:.3f}  {everywhere[-1]:.3f}   on maps of {listed}")
        print(f"{title:9} {'all':16}        {sum(everywhere) / len(everywhere):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generator", default="streets", help="a data set's, or a file")
    parser.add_argument("--judge", type=Path, default=JUDGE, help="its weights")
    parser.add_argument("--camvid", required=True, help="the data set's folder")
    parser.add_argument("--california", type=Path, help="a folder with photos/ and maps/")
    parser.add_argument("--maps", type=int, default=24, help="of each city, for every style")
    arguments = parser.parse_args()
    pipeline = load_pipeline(arguments.judge, arguments.generator)
    generator, size = pipeline.generator, pipeline.generator.size
    cities = all_cities(arguments.camvid, arguments.california, size)
    print(f"{machine()}\ngenerator: {arguments.generator}, {size[0]}x{size[1]}\n")
    distances(pipeline, cities)
    cities_asked_for(generator, cities, arguments.maps)
    label_ids = cities["Cambridge"][0].label_ids[0]
    (seconds,) = in_turn(20, synthesize=lambda: generator.synthesize(label_ids))
    print(f"\nsynthesize(), one map: {seconds:.3f} s, median of 20")


if __name__ == "__main__":
    main()
