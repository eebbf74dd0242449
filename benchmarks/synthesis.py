#!/usr/bin/env python3
"""Score a generator's images, and check whether they have the requested style.

    python benchmarks/synthesis.py                                     # the bundled toy generator
    pip install transformers torch-fidelity        # for these two, whose weights are downloaded:
    python benchmarks/synthesis.py --judge segformer --features inception

On the true maps of the validation split: what a segmentation network (the judge) reads from the
generated photos beside what it reads from the real ones, the Frechet distance, and diversity.  A
simple classifier, trained on real photos, tells the time of day and the city of generated ones.
Prints the tables that are kept in benchmarks/synthesis.txt.
"""

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from timing import machine
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

import spade
from spade.perceptual import PerceptualLoss
from utils.cache import cached
from utils.files import PROJECT
from utils.images import u8_to_imagenet, u8_to_pm1
from utils.metrics import SegmentationScore
from utils.pipeline import agreement
from utils.progress import progress
from utils.published import load_published
from utils.scenes import Scenes, open_scenes
from utils.segmentation import SegmentationNet, load_segmentation
from utils.weights import find_weights

BATCH = 16
Judge = Callable[[Tensor], Tensor]  # image_u8 (B, 3, H, W) -> label_ids (B, H, W)


class Features(nn.Module):
    """A photo in numbers: mean and spread of a segmentation network's first three feature maps."""

    def __init__(self, network: SegmentationNet):
        super().__init__()
        self.stages = PerceptualLoss.of_segmentation(network).stages
        self.num_features = 2 * sum(network.encoder.out_channels[1:4])

    @torch.no_grad()
    def forward(self, image_u8: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, num_features)."""
        x, columns = u8_to_imagenet(image_u8), []
        for stage in self.stages:
            x = stage(x)
            columns += [x.mean((2, 3)), x.std((2, 3))]
        return torch.cat(columns, dim=1)


def batches(scenes: Scenes, what: str):
    return progress(torch.arange(len(scenes)).split(BATCH), what)


def features_of(features: Features, scenes: Scenes) -> Tensor:
    return torch.cat([features(scenes.batch(part)[0]) for part in batches(scenes, "features")])


class Classifier:
    """Logistic regression on Features: which of some names is a photo?"""

    def __init__(self, features: Features, x: Tensor, names: list[str]):
        self.features, self.names = features, sorted(set(names))
        self.mean, self.std = x.mean(0), x.std(0) + 1e-6
        target = torch.tensor([self.names.index(name) for name in names])
        x = (x - self.mean) / self.std
        self.linear = nn.Linear(x.shape[1], len(self.names))
        nn.init.zeros_(self.linear.weight)
        optimizer = torch.optim.LBFGS(self.linear.parameters(), max_iter=200)

        def closure() -> Tensor:
            optimizer.zero_grad()
            decay = 1e-3 * self.linear.weight.square().sum()
            loss = F.cross_entropy(self.linear(x), target) + decay
            loss.backward()
            return loss

        optimizer.step(closure)

    @torch.no_grad()
    def right(self, x: Tensor, names: list[str]) -> float:
        """Share of the features (N, D) that are read as what they are called."""
        read = self.linear((x - self.mean) / self.std).argmax(1).tolist()
        return sum(self.names[i] == name for i, name in zip(read, names, strict=True)) / len(names)


def scores_on_true_maps(
    generator: spade.SpadeGenerator,
    encoder: spade.Encoder | None,
    judge: Judge,
    distance: FrechetInceptionDistance,
    scenes: Scenes,
) -> None:
    """Print judge's scores and Frechet distance of generated photos beside the real ones'."""
    styles = {"real photos": None}  # of the drawn photos: image_u8 -> z
    if encoder is not None:
        styles["drawn in the photo's own style"] = lambda image_u8: encoder(u8_to_pm1(image_u8))[0]
    styles["drawn with z = 0" if encoder else "drawn"] = lambda image_u8: None
    half = len(scenes) // 2
    rows = {}
    for name, style in styles.items():
        score = SegmentationScore()
        distance.reset()
        for part in batches(scenes, name):
            image_u8, label_ids = scenes.batch(part)
            photos_u8 = image_u8
            if style is not None:
                with torch.no_grad():
                    photos_u8 = generator.synthesize(label_ids, z=style(image_u8))
                distance.update(image_u8, real=True)
                distance.update(photos_u8, real=False)
            else:  # how far one half of the real photos is from the other
                for index, photo in zip(part.tolist(), image_u8, strict=True):
                    distance.update(photo[None], real=index < half)
            score.update(judge(photos_u8), label_ids, scenes.map_kinds(part))
        rows[name] = (score.compute(), distance.compute().item())
    real = rows["real photos"][0]
    print(f"{'':32}mIoU  of the real  accuracy  with void  Frechet distance")
    for name, (result, frechet) in rows.items():
        print(
            f"{name:30} {result.miou:5.3f} {result.miou / real.miou:12.2f} {result.accuracy:9.3f} "
            f"{result.accuracy_with_void:10.3f} {frechet:17.2f}"
            + (" (half to half)" if name == "real photos" else "")
        )


def styles_asked_for(
    generator: spade.SpadeGenerator, features: Features, train: Scenes, val: Scenes, maps: int
) -> None:
    """Print how often a classifier reads the time of day and the city that were asked for."""
    styles = [(scene.city, scene.time_of_day) for scene in train]
    styles_val = [(scene.city, scene.time_of_day) for scene in val]
    x, x_val = features_of(features, train), features_of(features, val)
    _, label_ids = val.evenly_spaced(maps).batch(range(maps))
    drawn = {
        name: torch.cat(
            [
                features(generator.synthesize(part, z=generator.style(name)))
                for part in label_ids.split(BATCH)
            ]
        )
        for name in progress(list(generator.styles), "styles")
    }
    for side, what in ((1, "time of day"), (0, "city")):
        names = [pair[side] for pair in styles]
        if len(set(names)) < 2:
            continue
        classifier = Classifier(features, x, names)
        right = classifier.right(x_val, [pair[side] for pair in styles_val])
        print(f"{what}: read right on real photos {right:.3f}")
        singles = {name: drawn[name] for name in classifier.names}
        shares = {n: classifier.right(y, [n] * len(y)) for n, y in singles.items()}
        print(f"  on photos drawn in its style {_mean(shares):.3f}: {_listed(shares)}")
        pairs = {n: y for n, y in drawn.items() if ", " in n}
        if pairs:
            read = {
                n: classifier.right(y, [n.split(", ")[side]] * len(y)) for n, y in pairs.items()
            }
            print(f"  on photos drawn in the style of city and time of day {_mean(read):.3f}")


def light_and_layout(
    generator: spade.SpadeGenerator, judge: Judge, scenes: Scenes, maps: int
) -> None:
    """Print what two styles do to one map, and one style to two maps."""
    _, label_ids = scenes.evenly_spaced(maps).batch(range(maps))
    seeded = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, maps, generator.z_dim, generator=seeded)
    pictures = [
        torch.cat(
            [generator.synthesize(m, z=s) for m, s in zip(label_ids.split(BATCH), z.split(BATCH))]
        )
        for z in (first, second)
    ]
    same = agreement(*(judge(x) for x in pictures)).mean().item()
    differ = (pictures[0].float() - pictures[1].float()).abs().mean().item()
    print(f"one map, two z drawn at random: labels agree on {same:.3f} of the pixels,")
    print(f"  colours differ by {differ:.1f} of 255")
    # Light: the mean colour of a picture.  One style over all maps, against all styles over one.
    named = [generator.style(name) for name in generator.styles if ", " in name] or [
        generator.style(name) for name in generator.styles
    ]
    table = torch.stack(
        [generator.synthesize(label_ids[:BATCH], z=z).float().mean((2, 3)) for z in named]
    )  # (styles, maps, 3)
    print(
        f"mean colour of a picture: spread over maps with one style {table.std(1).mean():.1f}, "
        f"over styles with one map {table.std(0).mean():.1f}"
    )


def _mean(shares: dict[str, float]) -> float:
    return sum(shares.values()) / len(shares)


def _listed(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.2f}" for name, share in shares.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="toy", choices=("toy", "cityscapes"))
    parser.add_argument("--root", help="the data set's folder")
    parser.add_argument("--generator", help="a file; by default the data set's")
    parser.add_argument("--encoder", help="a file; by default the data set's")
    parser.add_argument("--judge", default="own", choices=("own", "segformer"))
    parser.add_argument("--features", default="own", choices=("own", "inception"))
    parser.add_argument("--scenes", type=int, help="how many of the validation split")
    parser.add_argument("--maps", type=int, default=48, help="drawn in each style")
    parser.add_argument("--cache", default=PROJECT / "data" / "cache", help="for decoded scenes")
    arguments = parser.parse_args()

    generator = spade.load_generator(
        arguments.generator or find_weights("generator", arguments.dataset)
    )
    encoder = None
    if generator.z_dim is not None:
        path = arguments.encoder or find_weights("encoder", arguments.dataset)
        encoder = spade.load_encoder(path)
    segmenter, _ = load_segmentation(find_weights("segmentation", arguments.dataset))
    judge = (segmenter if arguments.judge == "own" else load_published("segformer")).predict
    features = Features(segmenter)
    distance = FrechetInceptionDistance(features if arguments.features == "own" else 2048)
    train, val = (
        cached(
            open_scenes(arguments.dataset, split, arguments.root, generator.size), arguments.cache
        )
        for split in ("train", "val")
    )
    val = val[: arguments.scenes]
    width, height = generator.size
    print(f"{machine()}\n")
    print(
        f"{len(val)} maps of {arguments.dataset} val, {width}x{height}; judge: {arguments.judge};"
    )
    print(f"Frechet distance with features of: {arguments.features} network\n")
    scores_on_true_maps(generator, encoder, judge, distance, val)
    if generator.styles:
        print(f"\n{arguments.maps} maps in each of {len(generator.styles)} styles")
        styles_asked_for(generator, features, train, val, min(arguments.maps, len(val)))
        light_and_layout(generator, judge, val, min(arguments.maps, len(val)))


if __name__ == "__main__":
    main()
