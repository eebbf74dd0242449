#!/usr/bin/env python3
"""Measure a training step of SPADE against the published recipe in a plain float32 loop.

    python benchmarks/spade_training.py           # a few minutes

The plain recipe draws each image twice, once for the generator's and once for the discriminator's
step, in torch's default layout.  Its tensors are in memory, and it averages no weights.  Ours is
train_spade(), which also reads from the cache and mirrors.  Both train the same three networks with
the same losses.
"""

import argparse
import os

import torch
from timing import STEPS, in_turn, machine
from torch import nn

import spade
from spade.losses import (
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    kl_divergence,
    split_judgement,
)
from spade.perceptual import PerceptualLoss
from spade.training import Recipe, train_spade, training_batch, xavier_start
from utils.cache import cached
from utils.commands import width_and_height
from utils.files import PROJECT
from utils.scenes import open_scenes
from utils.segmentation import SegmentationNet, load_segmentation
from utils.weights import find_weights


class Networks:
    """The networks that both sides train, as wide as the bundled toy generator.

    Args:
        discriminator: by default the published one.
        is_tiny: narrow networks instead, to try a script out.
    """

    def __init__(
        self, size: tuple[int, int], discriminator: nn.Module | None = None, is_tiny: bool = False
    ):
        upsampling = "more" if size[1] >= 128 else "normal"
        if is_tiny:
            self.generator = spade.SpadeGenerator(2, upsampling, 4, size, hidden=4)
            self.encoder, segmenter = spade.Encoder(2, 4), SegmentationNet("resnet18")
        else:
            self.generator = spade.SpadeGenerator(24, upsampling, 64, size, 48, max_channels=192)
            self.encoder = spade.Encoder(16, 64)
            segmenter = load_segmentation(find_weights("segmentation", "toy"))[0]
        self.discriminator = discriminator or spade.MultiscaleDiscriminator(2 if is_tiny else 32)
        self.perceptual = PerceptualLoss.of_segmentation(segmenter)
        for network in (self.generator, self.encoder, self.discriminator):
            xavier_start(network)


class PlainRecipe(Networks):
    """One step of the generator and one of the discriminator, as in the paper."""

    def __init__(self, size, scenes, batch: int, steps: int = STEPS, **settings):
        super().__init__(size, **settings)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        for network in (self.generator, self.encoder, self.discriminator, self.perceptual):
            network.to(device, memory_format=torch.contiguous_format).train()
        parameters = [*self.generator.parameters(), *self.encoder.parameters()]
        self.for_generator = torch.optim.Adam(parameters, 1e-4, betas=(0.0, 0.9))
        self.for_discriminator = torch.optim.Adam(
            self.discriminator.parameters(), 4e-4, betas=(0.0, 0.9)
        )
        z_dim = self.generator.z_dim
        batches = (training_batch(scenes, step, batch, 0, z_dim) for step in range(4))
        batches = [[x.contiguous().to(device) for x in batch] for batch in batches]
        self.batches = [batches[step % len(batches)] for step in range(steps)]

    def draw(self, planes, real_pm1, noise):
        mu, logvar = self.encoder(real_pm1)
        return self.generator(planes, mu + torch.exp(logvar / 2) * noise), mu, logvar

    def judge(self, planes, fake_pm1, real_pm1):
        both = torch.cat([fake_pm1, real_pm1])
        return split_judgement(self.discriminator(planes.repeat(2, 1, 1, 1), both))

    def generator_loss(self, planes, fake_pm1, real_pm1):
        fake, real = self.judge(planes, fake_pm1, real_pm1)
        return hinge_generator(fake) + 10 * feature_matching(fake, real)

    def discriminator_loss(self, planes, fake_pm1, real_pm1):
        return hinge_discriminator(*self.judge(planes, fake_pm1, real_pm1))

    def __call__(self) -> None:
        for planes, real_pm1, noise in self.batches:
            fake_pm1, mu, logvar = self.draw(planes, real_pm1, noise)
            loss = self.generator_loss(planes, fake_pm1, real_pm1)
            loss = (
                loss + 10 * self.perceptual(fake_pm1, real_pm1) + 0.05 * kl_divergence(mu, logvar)
            )
            self.for_generator.zero_grad()
            loss.backward()
            self.for_generator.step()
            with torch.no_grad():
                fake_pm1, _, _ = self.draw(planes, real_pm1, noise)
            loss = self.discriminator_loss(planes, fake_pm1, real_pm1)
            self.for_discriminator.zero_grad()
            loss.backward()
            self.for_discriminator.step()


class OurTraining(Networks):
    """train_spade() for the same number of pictures."""

    def __init__(self, size, scenes, batch: int, precision: str):
        super().__init__(size)
        self.scenes, self.batch, self.precision = scenes, batch, precision

    def __call__(self) -> None:
        train_spade(
            self.generator,
            self.discriminator,
            self.scenes,
            Recipe(STEPS * self.batch, self.batch),
            self.encoder,
            self.perceptual,
            precision=self.precision,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="256x128", type=width_and_height, help="WIDTHxHEIGHT")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", default=PROJECT / "data" / "cache", help="for decoded scenes")
    arguments = parser.parse_args()
    width, height = size = arguments.size
    batch = arguments.batch_size
    os.environ["COURSE_PROGRESS"] = "0"  # no bars between the lines
    scenes = cached(open_scenes("toy", "train", size=size)[: 4 * batch], arguments.cache)
    print(f"{machine()}\n{width}x{height}, batches of {batch}; pictures a second\n")
    seconds = in_turn(
        arguments.rounds,
        plain=PlainRecipe(size, scenes, batch),
        fp32=OurTraining(size, scenes, batch, "fp32"),
        bf16=OurTraining(size, scenes, batch, "bf16"),
    )
    for name, each in zip(("plain float32", "ours, fp32", "ours, bf16"), seconds, strict=True):
        print(f"{name:14} {STEPS * batch / each:6.2f} {seconds[0] / each:6.2f}x")


if __name__ == "__main__":
    main()
