#!/usr/bin/env python3
"""Train five small generators, each but the first without one of SPADE's losses, and compare them.

    python benchmarks/ablations.py --out runs/ablations       # an hour and a half on two cores
    python benchmarks/ablations.py --out runs/ablations --only no_kl    # trains this one, no scores

The same command continues an interrupted run, and skips what is trained.  With all five it writes
benchmarks/ablations.json and benchmarks/ablations.jpg, which notebook 06 shows, and prints what is
kept in benchmarks/ablations.txt.
"""

import argparse
import dataclasses
from pathlib import Path

import torch
from PIL import Image
from streets_synthesis import (
    Features,
    all_features,
    features_of,
    kernel_distance,
    lite2,
    on_one_scale,
)
from timing import machine, store
from torch import Tensor

from spade.discriminator import MultiscaleDiscriminator
from spade.losses import kl_divergence
from spade.stages import Stage, networks_of, perceptual_loss
from spade.training import VariationalGenerator, train_spade
from utils.cache import cached
from utils.engine.accelerator import PRECISIONS
from utils.files import PROJECT, write_atomically
from utils.images import read_image, save_image, u8_to_pm1
from utils.intervals import Interval, confusions, interval, labels_in, mean_iou
from utils.labels import label_ids_to_colors
from utils.recipes import read_recipe
from utils.scenes import Scenes, open_scenes
from utils.segmentation import SegmentationNet, load_segmentation
from utils.weights import find_weights

RECIPE = PROJECT / "benchmarks" / "ablations.toml"
RESULT = PROJECT / "benchmarks" / "ablations.json"
PICTURE = PROJECT / "benchmarks" / "ablations.jpg"
FILM = (1 / 12, 2 / 12, 4 / 12, 8 / 12, 1)  # shares of the first training, shown as a film strip
SHOWN = (63, 112, 133, 45)  # scenes of val
SCORED = 100  # maps
OFTEN = 5  # a label counts if it occurs in so many of them
RESAMPLES = 1000


class WithoutHinge(MultiscaleDiscriminator):
    """A discriminator whose score is no loss of the generator, but which learns and is matched."""

    def generator_losses(self, *given) -> dict[str, Tensor]:
        """The losses of MultiscaleDiscriminator, without the adversarial one."""
        losses = super().generator_losses(*given)
        del losses["adversarial"]
        return losses


def trained(stage: Stage, scenes: Scenes, folder: Path, precision: str) -> VariationalGenerator:
    """Train generator and encoder of a stage, or load what is trained."""
    torch.manual_seed(stage.seed)
    network, discriminator = networks_of(stage, classes=())
    if stage.name == "no_adversarial":
        state, discriminator = discriminator.state_dict(), WithoutHinge(stage.ndf)
        discriminator.load_state_dict(state)
    perceptual = perceptual_loss(stage.perceptual)
    parts = network.generator, discriminator, scenes, stage, network.encoder, perceptual
    train_spade(*parts, folder=folder, precision=precision)
    return network


@torch.no_grad()
def images_of(network: VariationalGenerator, scenes: Scenes, random: bool = False) -> Tensor:
    """One image for each scene's map, in its photo's style or with a random z -> (N, 3, H, W)."""
    image_u8, label_ids = scenes.batch(range(len(scenes)))
    z = network.encoder(u8_to_pm1(image_u8))[0]
    if random:
        z = torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    parts = zip(label_ids.split(16), z.split(16))
    return torch.cat([network.generator.synthesize(ids, z=each) for ids, each in parts])


def film_of(stage: Stage, scenes: Scenes, shown: Scenes, folder: Path, precision: str) -> dict:
    """Train a stage in stretches -> for each of FILM a row's name and its images (N, 3, H, W)."""
    rows = {}
    for share in FILM:
        pictures = round(share * stage.pictures / stage.batch_size) * stage.batch_size
        path = folder / f"film_{pictures:06d}.png"
        if not path.exists():  # else the checkpoint has seen more pictures than this
            part = dataclasses.replace(stage, pictures=pictures)
            row = images_of(trained(part, scenes, folder, precision), shown)
            save_image(torch.cat(list(row), dim=2), path)
        images = torch.stack(read_image(path).split(shown.size[0], dim=2))
        rows[f"{pictures:,} pictures"] = images
    return rows


# ----------------------------------------------------------------------------- scores


def distance(fake: Tensor, real: Tensor) -> Interval:
    """Kernel distance of features (N, D) and its 95 % interval, over random halves of the maps.

    With resamples drawn with replacement, images would be compared with themselves.
    """
    fake, real = on_one_scale(fake, real)
    generator = torch.Generator().manual_seed(0)
    halves = [
        torch.randperm(len(real), generator=generator)[: len(real) // 2] for _ in range(RESAMPLES)
    ]
    values = torch.stack([kernel_distance(fake[half], real[half]) for half in halves])
    low, high = values.quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return Interval(kernel_distance(fake, real).item(), low, high)


def contrast(image_u8: Tensor) -> Tensor:
    """Mean difference between neighbouring pixels of each image (N, 3, H, W) -> (N,)."""
    x = image_u8.float()
    return x.diff(dim=2).abs().mean((1, 2, 3)) + x.diff(dim=3).abs().mean((1, 2, 3))


def scores_of_images(
    fake_u8: Tensor, scenes: Scenes, judge: SegmentationNet, features: Features
) -> dict[str, Interval]:
    """What the judge reads, how far from the photos, and how much contrast compared with them."""
    image_u8, label_ids = scenes.batch(range(len(scenes)))
    read = torch.cat([judge.predict(part) for part in fake_u8.split(16)])
    counts = confusions(read, label_ids)
    often = labels_in(counts, at_least=min(OFTEN, len(scenes)))
    fake, real = (all_features(features, x) for x in (fake_u8, image_u8))
    return {
        "miou": interval(lambda rows: mean_iou(rows, often), counts),
        "distance": distance(fake, real),
        "contrast": interval(lambda x, y: x.sum() / y.sum(), contrast(fake_u8), contrast(image_u8)),
    }


@torch.no_grad()
def scores_of(
    network: VariationalGenerator, scenes: Scenes, judge: SegmentationNet, features: Features
) -> dict[str, Interval]:
    """All scores of a network: in the photo's style, with a random z, and the KL term in nats."""
    mu, logvar = network.encoder(u8_to_pm1(scenes.batch(range(len(scenes)))[0]))
    given = scenes, judge, features
    own = scores_of_images(images_of(network, scenes), *given)
    drawn = scores_of_images(images_of(network, scenes, random=True), *given)
    nats = torch.stack([kl_divergence(*x) for x in zip(mu.split(1), logvar.split(1))])
    return {
        **own,
        **{f"{name}_random": value for name, value in drawn.items()},
        "nats": interval(torch.mean, nats),
    }


def write_picture(rows: dict[str, Tensor]) -> None:
    """Write the rows of images (N, 3, H, W) below each other, with full resolution of colours."""
    picture = torch.cat([torch.cat(list(row), dim=2) for row in rows.values()], dim=1)
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    write_atomically(PICTURE, lambda part: image.save(part, "JPEG", quality=90, subsampling=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path, help="folder for the checkpoints")
    parser.add_argument("--only", help="train this one of the recipe, and stop")
    parser.add_argument("--pictures", type=int, help="of each training; by default the recipe's")
    parser.add_argument("--precision", default="fp32", choices=tuple(PRECISIONS))
    parser.add_argument("--cache", default=PROJECT / "data/cache", help="for decoded scenes")
    arguments = parser.parse_args()
    stages = read_recipe(RECIPE, Stage)
    names = [stage.name for stage in stages]
    if arguments.only not in (None, *names):
        parser.error(f"--only {arguments.only}: expected one of {', '.join(names)}")
    if arguments.pictures:
        stages = [dataclasses.replace(stage, pictures=arguments.pictures) for stage in stages]
    scenes = cached(open_scenes("toy", "train", size=stages[0].size), arguments.cache)
    val = open_scenes("toy", "val", size=stages[0].size)
    shown, scored = val.subset(SHOWN), val[:SCORED]
    image_u8, label_ids = shown.batch(range(len(shown)))
    rows = {"map": label_ids_to_colors(label_ids), "photo": image_u8}
    networks = {}
    for stage in stages:
        if arguments.only in (None, stage.name):
            given = arguments.out / stage.name, arguments.precision
            if stage is stages[0]:
                rows |= film_of(stage, scenes, shown, *given)
            networks[stage.name] = trained(stage, scenes, *given)
    if arguments.only:
        return
    for name, network in networks.items():
        rows[name] = images_of(network, shown)
        rows[f"{name}, random z"] = images_of(network, shown, random=True)
    write_picture(rows)
    judge, _ = load_segmentation(find_weights("segmentation", "toy"))
    features = features_of(lite2())
    scores = {name: scores_of(x, scored, judge, features) for name, x in networks.items()}
    about = (
        f"{stages[0].pictures:,} pictures of {stages[0].size[0]}x{stages[0].size[1]} each, "
        f"{arguments.precision}; {len(scored)} maps of val; mIoU over the labels in {OFTEN} or "
        "more of them, read by the network of the perceptual loss; kernel distance to the photos, "
        "of EfficientNet-Lite2's features; contrast: mean difference of neighbouring pixels, that "
        "of the photos is 1; KL term in nats; 95 % intervals over maps"
    )
    store(
        RESULT,
        about,
        recipes=[dataclasses.asdict(stage) for stage in stages],
        rows=list(rows),
        scores=[
            {"name": name, **{key: dataclasses.astuple(x) for key, x in values.items()}}
            for name, values in scores.items()
        ],
    )
    print(f"{machine()}\n{about}")
    for style, end in (("in the photo's style", ""), ("with a random z", "_random")):
        print(f"\n{style:20}  {'mIoU':23}  {'distance':23}  contrast")
        for name, x in scores.items():
            cells = [str(x[key + end]) for key in ("miou", "distance", "contrast")]
            print(f"{name:20}  {cells[0]:23}  {cells[1]:23}  {cells[2]}")
    print("\nKL term in nats")
    for name, x in scores.items():
        print(f"{name:20}  {x['nats']}")


if __name__ == "__main__":
    main()
