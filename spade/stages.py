"""The generator's training as a command: the settings of a stage of a recipe, and its training.

python -m spade.training --recipe data/weights/generator_toy.toml --out runs/generator_toy
"""

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.state import PartialState
from torch import nn

from utils.cache import cached
from utils.commands import exit_status
from utils.recipes import Data, Place, Training, option, some_of
from utils.scenes import open_scenes
from utils.segmentation import load_segmentation

from .checkpoint import blend_with_start, save_encoder, save_generator, start_from, take_over
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
FILES = ("last.pt", "encoder.safetensors", "generator.safetensors")  # that a stage leaves
# The settings of a stage that the shapes of its networks' weights depend on.
SHAPING = tuple(
    "ngf hidden max_channels upsampling size styled_layers grain z_dim encoder_ngf ndf "
    "discriminator discriminator_backbone shown_style_weight".split()
)


def perceptual_loss(name: str, texture: float = 0.0) -> PerceptualLoss | None:
    """Make the perceptual loss of a name in PERCEPTUAL_LOSSES, or of a segmentation network's file.

    Args:
        texture: see PerceptualLoss.
    """
    if name in PERCEPTUAL_LOSSES:
        return PERCEPTUAL_LOSSES[name](texture)
    return PerceptualLoss.of_segmentation(load_segmentation(name)[0], texture)


@dataclass(frozen=True)
class Stage(Data, Recipe):
    """One stage of a recipe file, or the options of a command: data, networks and training."""

    ngf: int = option(32, "channels of the generator's last block", least=1)
    hidden: int = option(48, "channels of SPADE's hidden layer", least=1)
    max_channels: int = option(256, "upper limit of channels in the generator's blocks", least=1)
    upsampling: str = option(
        "more", "the start grid is smaller by 32 (normal), 64 (more) or 128 (most)", ENLARGEMENTS
    )
    styled_layers: bool = option(False, "pass z to every SPADE layer")
    grain: bool = option(False, "add learned noise to every block")
    z_dim: int = option(64, "size of the latent; 0 for no latent", least=0)
    encoder_ngf: int = option(16, "channels of the encoder's first layer", least=1)
    discriminator: str = option(
        "multiscale", "multiscale (published) or pixel (scores every pixel)", DISCRIMINATORS
    )
    discriminator_backbone: str = option("efficientnet_lite0", "of the pixel discriminator", LITES)
    ndf: int = option(32, "channels of the multiscale discriminator's first layer", least=1)
    photo_size: tuple[int, int] | None = option(
        None, "WIDTHxHEIGHT of the scenes that crops are cut from; by default the same as size"
    )
    perceptual: str = option(
        "none",
        "none, vgg19, imagenet (EfficientNet-Lite0), or weights of a segmentation network",
        alternatives=PERCEPTUAL_LOSSES,
    )
    texture_weight: float = option(
        0.0, "of comparing textures in the perceptual loss; not in the published recipe"
    )
    start: tuple[str, ...] | None = option(
        None,
        "files with the weights to start from: last.pt of a run; or weights of a generator and of "
        "its encoder; or all three, which takes the discriminator from the run.  A generator of "
        "half the size with upsampling normal has the same start grid as one with upsampling more, "
        "and so the same weights",
        alternatives=("random",),
    )
    start_share: float = option(
        0.0,
        "share of the weights of start that is mixed into the saved generator and encoder",
        least=0,
        most=1,
    )


def networks_of(
    stage: Stage, classes: Sequence[Sequence[str]]
) -> tuple[VariationalGenerator, MultiscaleDiscriminator | PixelDiscriminator]:
    """Make the networks of a stage; all but a PixelDiscriminator are initialised as published.

    Args:
        classes: of styles, see style_labels(); used if the discriminator classifies styles.
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
        classes = classes if stage.shown_style_weight else ()
        return network, PixelDiscriminator(stage.discriminator_backbone, classes=classes)
    discriminator = MultiscaleDiscriminator(stage.ndf)
    xavier_start(discriminator)
    return network, discriminator


def _shaping(stage: Stage) -> Stage:
    """A stage with the settings that the networks' shapes depend on, and defaults for the rest."""
    return Stage(**{name: getattr(stage, name) for name in SHAPING})


@functools.cache  # many stages have networks of the same shapes
def _networks_without_weights(stage: Stage) -> tuple[nn.Module, nn.Module]:
    with torch.device("meta"):
        return networks_of(stage, classes=[["any", "other"]])  # the same for all stages


def check_start(before: Stage, stage: Stage, file: str) -> None:
    """Raise ValueError if a stage can't start from that file of an earlier stage."""
    pairs = list(zip(*(_networks_without_weights(_shaping(x)) for x in (stage, before))))
    for part, other in pairs if file == FILES[0] else pairs[:1]:
        try:
            take_over(part, other.state_dict(), file)
        except ValueError as error:
            names = [n for n in SHAPING if getattr(before, n) != getattr(stage, n)]
            was, now = (", ".join(f"{n} {getattr(x, n)}" for n in names) for x in (before, stage))
            raise ValueError(f"the networks differ, with {was} there and {now} here.") from error


def train_stage(stage: Stage, place: Place, folder: Path, so_far: list[dict]) -> None:
    """Train one stage and write its generator and encoder, see utils.recipes.Training."""
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
    start = [] if stage.start in (None, ("random",)) else [Path(x) for x in stage.start]
    if start:
        start_from(start, network, discriminator, classifier)
    elif stage.start_share:
        raise ValueError(
            f"start_share is {stage.start_share}, but the stage starts from random weights: "
            "expected 0, or files in start."
        )
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
        preview=val_scenes.evenly_spaced(4),
    )
    if not PartialState().is_main_process:
        return
    if stage.start_share:
        blend_with_start(start, network, stage.start_share)
    generator.recipe = so_far
    if encoder is not None:
        generator.styles = named_styles(encoder, train_scenes)
        save_encoder(encoder, folder / "encoder.safetensors", compact=True, recipe=so_far)
    path = folder / FILES[-1]
    save_generator(generator, path, compact=True)
    print(f"wrote {path}")


TRAINING = Training(Stage, train_stage, check_start, FILES)


def main(arguments: list[str] | None = None) -> None:
    """python -m spade.training."""
    TRAINING.main("Train a SPADE generator, with its discriminator and encoder.", arguments)


if __name__ == "__main__":
    sys.exit(exit_status(main))
