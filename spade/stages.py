"""The generator's training as a command: what a stage of a recipe says, and does.

python -m spade.training --recipe data/weights/generator_toy.toml --out runs/generator_toy
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.state import PartialState

from utils.cache import cached
from utils.commands import exit_status
from utils.recipes import Data, Place, Training, option, some_of
from utils.scenes import open_scenes
from utils.segmentation import load_segmentation

from .checkpoint import save_encoder, save_generator, start_from, take_over
from .discriminator import MultiscaleDiscriminator
from .encoder import Encoder
from .generator import ENLARGEMENTS, SpadeGenerator
from .perceptual import PerceptualLoss
from .pixel_discriminator import LITES, PixelDiscriminator
from .styles import StyleClassifier, named_styles, style_labels
from .training import Recipe, VariationalGenerator, train_spade, xavier_start

PERCEPTUAL_LOSSES = {
    "none": lambda texture: None,
    "vgg19": PerceptualLoss.of_vgg19,
    "imagenet": PerceptualLoss.of_imagenet,
}
DISCRIMINATORS = ("multiscale", "pixel")


def perceptual_loss(name: str, texture: float = 0.0) -> PerceptualLoss | None:
    """The loss of that name in PERCEPTUAL_LOSSES, or by a file of a segmentation network."""
    if name in PERCEPTUAL_LOSSES:
        return PERCEPTUAL_LOSSES[name](texture)
    return PerceptualLoss.of_segmentation(load_segmentation(name)[0], texture)


@dataclass(frozen=True)
class Stage(Data, Recipe):
    """One stage of a recipe file, or the options of a command: data, networks and training."""

    ngf: int = option(32, "width of the generator's last block", least=1)
    hidden: int = option(48, "width of SPADE's hidden layer", least=1)
    max_channels: int = option(256, "no block of the generator is wider", least=1)
    upsampling: str = option("more", "doublings in the generator", ENLARGEMENTS)
    styled_layers: bool = option(False, "z in every layer")
    grain: bool = option(False, "learned noise in every block")
    z_dim: int = option(64, "numbers in the latent; 0 for none", least=0)
    encoder_ngf: int = option(16, "width of the encoder", least=1)
    discriminator: str = option("multiscale", "published, or one of every pixel", DISCRIMINATORS)
    discriminator_backbone: str = option("efficientnet_lite0", "of the one of every pixel", LITES)
    ndf: int = option(32, "width of the multiscale discriminator", least=1)
    photo_size: tuple[int, int] | None = option(
        None, "WIDTHxHEIGHT of the scenes that crops are cut from; size by default"
    )
    perceptual: str = option(
        "none",
        "none, vgg19, imagenet (EfficientNet-Lite0), or weights of a segmentation network",
        instead=PERCEPTUAL_LOSSES,
    )
    texture_weight: float = option(0.0, "of textures, in the perceptual loss; not as published")
    start: tuple[str, ...] | None = option(
        None,
        "last.pt of a run, or the weights of a generator and of its encoder, or all three: with "
        "these two, and the discriminator of the run; those of half the size and upsampling "
        "normal, for upsampling more, have the same start grid and so the same weights",
        instead=("random",),
    )


def networks_of(
    stage: Stage, classes: Sequence[Sequence[str]] = (("one", "other"),)
) -> tuple[VariationalGenerator, MultiscaleDiscriminator | PixelDiscriminator]:
    """The networks of a stage, with weights as the published recipe starts.

    Args:
        classes: of styles, see style_labels(), if a discriminator is to tell them.
    """
    generator = SpadeGenerator(
        stage.ngf,
        stage.upsampling,
        stage.z_dim or None,
        stage.size,
        stage.hidden,
        max_channels=stage.max_channels,
        styled_layers=stage.styled_layers,
        grain=stage.grain,
    )
    encoder = Encoder(stage.encoder_ngf, stage.z_dim) if stage.z_dim else None
    network = VariationalGenerator(generator, encoder)
    xavier_start(network)
    if stage.discriminator == "pixel":
        told = classes if stage.shown_style_weight else ()
        return network, PixelDiscriminator(stage.discriminator_backbone, classes=told)
    discriminator = MultiscaleDiscriminator(stage.ndf)
    xavier_start(discriminator)
    return network, discriminator


def check_start(before: Stage, stage: Stage, file: str) -> None:
    """Raise ValueError if a stage can't begin with what one before it leaves in a file."""
    with torch.device("meta"):  # shapes without numbers
        pairs = list(zip(networks_of(stage), networks_of(before), strict=True))
    for part, other in pairs if file == TRAINING.files[0] else pairs[:1]:
        try:
            take_over(part, other.state_dict(), file)
        except ValueError as error:
            names = "ngf hidden max_channels upsampling size styled_layers grain z_dim encoder_ngf"
            names = [*names.split(), "ndf", "discriminator", "discriminator_backbone"]
            names = [n for n in names if getattr(before, n) != getattr(stage, n)]
            was, now = (", ".join(f"{n} {getattr(x, n)}" for n in names) for x in (before, stage))
            raise ValueError(f"the networks differ, with {was} there and {now} here.") from error


def train_stage(stage: Stage, place: Place, folder: Path, so_far: list[dict]) -> None:
    """Train one stage and write its generator and encoder: see utils.recipes.Training."""
    train_scenes, val_scenes = (
        open_scenes(stage.dataset, split, place.root, size)
        for split, size in (("train", stage.photo_size or stage.size), ("val", stage.size))
    )
    train_scenes = cached(some_of(train_scenes, stage.scenes), place.cache)
    styled = stage.z_dim and (stage.style_weight or stage.shown_style_weight)
    classes = style_labels(train_scenes)[0] if styled else ()
    torch.manual_seed(stage.seed)
    network, discriminator = networks_of(stage, classes)
    generator, encoder = network.generator, network.encoder
    classifier = StyleClassifier(classes, generator.z_dim) if styled else None
    if stage.start not in (None, ("random",)):
        start_from([Path(x) for x in stage.start], network, discriminator, classifier)
    train_spade(
        generator,
        discriminator,
        train_scenes,
        stage,
        encoder,
        perceptual_loss(stage.perceptual, stage.texture_weight),
        classifier,
        folder,
        place.precision,
        preview=val_scenes.spread(4),
    )
    if not PartialState().is_main_process:
        return
    generator.recipe = so_far
    if encoder is not None:
        generator.styles = named_styles(encoder, train_scenes)
        save_encoder(encoder, folder / "encoder.safetensors", compact=True, recipe=so_far)
    save_generator(generator, folder / TRAINING.files[-1], compact=True)
    print(f"wrote {folder / TRAINING.files[-1]}")


TRAINING = Training(
    Stage,
    train_stage,
    check_start,
    files=("last.pt", "encoder.safetensors", "generator.safetensors"),
)


def main(arguments: list[str] | None = None) -> None:
    """python -m spade.training."""
    TRAINING.main("Train a SPADE generator, with its discriminator and encoder.", arguments)


if __name__ == "__main__":
    sys.exit(exit_status(main))
