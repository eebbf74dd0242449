"""Training a SPADE generator against its discriminator.

    python -m spade.training --dataset toy --size 128x64 --pictures 20000 --out runs/spade_toy

The recipe is the published one (hinge loss, feature matching, two time scales, linear decay over
the second half), in a size that two CPU cores can train; a perceptual term through our own
segmentation network is added where one is named.
"""

import argparse
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from spade.checkpoint import save_generator
from spade.discriminator import MultiscaleDiscriminator
from spade.generator import SpadeGenerator
from spade.losses import (
    PerceptualLoss,
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    split_judgement,
)
from spade.semantics import semantics
from utils.augmentation import Augmentation
from utils.cache import cached
from utils.images import save_image, u8_to_pm1
from utils.labels import label_ids_to_colors
from utils.scenes import Scenes, open_scenes
from utils.segmentation import load_segmentation
from utils.weights import load_checkpoint, save_checkpoint

GENERATOR_RATE, DISCRIMINATOR_RATE = 1e-4, 4e-4  # Adam, betas (0, 0.9)
MATCHING_WEIGHT, PERCEPTUAL_WEIGHT = 10, 10


def xavier_start(network: nn.Module, gain: float = 0.02) -> None:
    """Draw all convolutions anew as the published recipe starts: Xavier normal, gain 0.02."""
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            nn.init.xavier_normal_(parameter, gain)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def training_batch(scenes: Scenes, step: int, batch_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random scenes, a pure function of step and seed -> semantics (B, 36, H, W), image_pm1.

    Half of them are mirrored; half of the batches draw their edges from instances, half from the
    label map alone, because a predicted map has no instances.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    chosen = torch.randint(len(scenes), (batch_size,), generator=generator).tolist()
    with_instances = bool(torch.rand((), generator=generator) < 0.5)
    pixels = scenes.batch(chosen)
    if with_instances:
        pixels = (*pixels, scenes.instance_batch(chosen))
    augment = Augmentation(scenes.size, flip=0.5)
    seeds = torch.randint(2**62, (batch_size,), generator=generator)
    image_u8, *maps = augment(*pixels, seeds=seeds)
    return semantics(*maps), u8_to_pm1(image_u8)


def training_step(
    generator: nn.Module,
    discriminator: nn.Module,
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    perceptual: PerceptualLoss | None,
    planes: Tensor,
    real_pm1: Tensor,
    accelerator: Accelerator,
) -> dict[str, float]:
    """One step of the generator and one of the discriminator on the same batch -> the losses."""
    fake_pm1 = generator(planes)
    twice = planes.repeat(2, 1, 1, 1)

    discriminator.requires_grad_(False)
    fake, real = split_judgement(discriminator(twice, torch.cat([fake_pm1, real_pm1])))
    losses = {
        "adversarial": hinge_generator(fake),
        "matching": MATCHING_WEIGHT * feature_matching(fake, real),
    }
    if perceptual is not None:
        losses["perceptual"] = PERCEPTUAL_WEIGHT * perceptual(fake_pm1, real_pm1)
    optimizers[0].zero_grad()
    accelerator.backward(sum(losses.values()))
    optimizers[0].step()

    discriminator.requires_grad_(True)
    fake, real = split_judgement(discriminator(twice, torch.cat([fake_pm1.detach(), real_pm1])))
    losses["discriminator"] = hinge_discriminator(fake, real)
    optimizers[1].zero_grad()
    accelerator.backward(losses["discriminator"])
    optimizers[1].step()
    return {name: loss.item() for name, loss in losses.items()}


def train_spade(
    generator: SpadeGenerator,
    discriminator: MultiscaleDiscriminator,
    scenes: Scenes,
    pictures: int,
    batch_size: int = 8,
    perceptual: PerceptualLoss | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    save_every: int = 1600,
    preview: Scenes | None = None,
) -> list[dict[str, float]]:
    """Train both networks in place until the generator has seen that many pictures.

    Args:
        scenes: training scenes; cached() ones are much faster.
        perceptual: one more loss of the generator, or None.
        folder: where checkpoints (and previews) are kept; a run that finds one there goes on.
        save_every: pictures between two checkpoints.
        preview: scenes whose maps are drawn at each checkpoint into folder/preview_*.jpg.

    Returns:
        The losses of every step.
    """
    accelerator = Accelerator()
    device = accelerator.device
    optimizers = tuple(
        torch.optim.Adam(network.parameters(), rate, betas=(0.0, 0.9))
        for network, rate in ((generator, GENERATOR_RATE), (discriminator, DISCRIMINATOR_RATE))
    )
    parts = {"generator": generator, "discriminator": discriminator}
    parts |= {"generator_adam": optimizers[0], "discriminator_adam": optimizers[1]}
    steps = pictures // batch_size
    for network in (generator, discriminator, perceptual):
        if network is not None:
            network.to(device, memory_format=torch.channels_last)  # faster, on CPU and GPU
    made_by = generator.settings | {"scenes": f"{scenes.dataset} {len(scenes)}", "seed": seed}
    made_by |= {"batch_size": batch_size}
    losses: list[dict[str, float]] = []
    checkpoint = None if folder is None else Path(folder) / "last.pt"
    if checkpoint is not None and checkpoint.is_file():
        losses = load_checkpoint(checkpoint, parts, device, made_by)
    prepared = accelerator.prepare(generator, discriminator, *optimizers)
    start, first = time.perf_counter(), len(losses)
    for step in range(len(losses), steps):
        decay = min(1.0, 2 - 2 * step / steps)  # linear to 0 over the second half
        for optimizer, rate in zip(optimizers, (GENERATOR_RATE, DISCRIMINATOR_RATE), strict=True):
            optimizer.param_groups[0]["lr"] = rate * decay
        generator.train()
        discriminator.train()
        planes, real_pm1 = (
            x.to(device, memory_format=torch.channels_last)
            for x in training_batch(scenes, step, batch_size, seed)
        )
        losses.append(
            training_step(*prepared[:2], prepared[2:], perceptual, planes, real_pm1, accelerator)
        )
        seen = (step + 1) * batch_size
        if checkpoint is not None and (seen % save_every < batch_size or step + 1 == steps):
            save_checkpoint(checkpoint, parts, losses, made_by)
            rate = (step + 1 - first) * batch_size / (time.perf_counter() - start)
            figures = ", ".join(f"{name} {value:.2f}" for name, value in losses[-1].items())
            print(f"{seen} pictures, {rate:.1f} a second: {figures}", flush=True)
            if preview is not None:
                save_preview(generator, preview, Path(folder) / f"preview_{seen:06d}.jpg")
    generator.eval()
    return losses


def save_preview(generator: SpadeGenerator, scenes: Scenes, path: Path) -> None:
    """Photo, map and generated photo of each scene, one row each, as one picture."""
    image_u8, label_ids = scenes.batch(range(len(scenes)))
    generated_u8 = generator.synthesize(label_ids).cpu()
    columns = torch.cat([image_u8, label_ids_to_colors(label_ids), generated_u8], dim=-1)
    save_image(torch.cat(list(columns), dim=-2), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="toy", choices=("toy", "camvid", "cityscapes"))
    parser.add_argument("--root", help="the data set's folder")
    parser.add_argument("--size", default="256x128", help="WIDTHxHEIGHT")
    parser.add_argument("--times-of-day", nargs="*", help="only scenes of these; all by default")
    parser.add_argument("--ngf", type=int, default=24, help="width of the generator's last block")
    parser.add_argument("--hidden", type=int, default=32, help="width of SPADE's hidden layer")
    parser.add_argument("--max-channels", type=int, default=192, help="no block is wider")
    parser.add_argument("--upsampling", default="more", choices=("normal", "more", "most"))
    parser.add_argument("--ndf", type=int, default=32, help="width of the discriminator")
    parser.add_argument("--pictures", type=int, default=20_000, help="to train on, in all")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--perceptual", help="weights of a segmentation network")
    parser.add_argument("--cache", default="data/cache", help="folder for decoded scenes")
    parser.add_argument("--start", type=Path, help="last.pt of a run whose networks to start from")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and weights")
    arguments = parser.parse_args()

    width, height = size = tuple(int(side) for side in arguments.size.split("x"))
    train_scenes, val_scenes = (
        cached(open_scenes(arguments.dataset, split, arguments.root, size), arguments.cache)
        for split in ("train", "val")
    )
    if arguments.times_of_day:
        train_scenes, val_scenes = (
            scenes.subset(
                index
                for index, scene in enumerate(scenes)
                if scene.time_of_day in arguments.times_of_day
            )
            for scenes in (train_scenes, val_scenes)
        )
    torch.manual_seed(0)
    generator = SpadeGenerator(
        arguments.ngf,
        arguments.upsampling,
        size=size,
        hidden=arguments.hidden,
        max_channels=arguments.max_channels,
    )
    discriminator = MultiscaleDiscriminator(arguments.ndf)
    for network in (generator, discriminator):
        xavier_start(network)
    if arguments.start:
        networks = {"generator": generator, "discriminator": discriminator}
        load_checkpoint(arguments.start, networks, "cpu", generator.settings)
    perceptual = None
    if arguments.perceptual:
        perceptual = PerceptualLoss(load_segmentation(arguments.perceptual)[0])
    train_spade(
        generator,
        discriminator,
        train_scenes,
        arguments.pictures,
        arguments.batch_size,
        perceptual,
        arguments.out,
        preview=val_scenes[:4],
    )
    save_generator(generator, arguments.out / "generator.safetensors", compact=True)
    print(f"wrote {arguments.out / 'generator.safetensors'}")


if __name__ == "__main__":
    main()
