"""Training a SPADE generator against its discriminator, and an encoder that gives it a style.

    history = train_spade(generator, discriminator, scenes, Recipe(pictures=20_000), encoder)

From a shell, on whatever Accelerate finds; started again, it goes on from its last checkpoint:

    python -m spade.training --dataset toy --size 256x128 --pictures 20000 --out runs/generator_toy
    python -m spade.training --recipe data/weights/generator_toy.toml --out runs/generator_toy
    accelerate launch --num_processes 2 -m spade.training ...        # several GPUs

The recipe is the published one: hinge loss, feature matching, a perceptual term, a latent with its
KL term, two time scales, a rate that falls over the second half.  Two terms can be added to it: the
latent has to tell the photo's city and time of day (style_weight), and textures are compared as
textures (texture_weight).
"""

import copy
import math
import runpy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from torch import Tensor, nn

from spade.discriminator import MultiscaleDiscriminator
from spade.encoder import Encoder, sampled
from spade.generator import SpadeGenerator
from spade.losses import kl_divergence, style_cross_entropy
from spade.normalization import find_singular_vectors
from spade.perceptual import PerceptualLoss
from spade.pixel_discriminator import PixelDiscriminator
from spade.semantics import categories, semantics
from spade.styles import (
    CLASSIFIER_RATE,
    StyleClassifier,
    check_styles,
    draw,
    even_chances,
    give_head_start,
)
from utils.augmentation import Augmentation
from utils.engine.accelerator import make_accelerator, place, scaler_of
from utils.engine.averaging import RunningMean
from utils.engine.graphs import graphed, send
from utils.engine.precision import restored
from utils.engine.run import LossLog, Run
from utils.files import copy_may_fail
from utils.images import save_image, u8_to_pm1
from utils.labels import label_ids_to_colors
from utils.progress import progress
from utils.recipes import check_values, option
from utils.scenes import Scenes

History = dict[str, list[float]]  # of each loss one value a step, already times its weight
_POINTS = 200  # of a curve, where the history goes with the weights

# How much of the learning rate is left after this share of the training, 0..1.
SCHEDULES = {"linear": lambda done: min(1.0, 2 - 2 * done), "constant": lambda done: 1.0}


@dataclass(frozen=True)
class Recipe:
    """How the networks are trained; by default as published, with smaller batches.

    Only save_every, and pictures at a constant rate, may change between two parts of a training.
    With less matching and perceptual loss, 1 instead of 10, details that the map does not
    determine, such as windows, become sharper: both losses demand the real photo's windows at
    their exact positions, and when these are unknown a blur is the cheapest answer.

    Raises ValueError for a schedule that there is not, and numbers that are too small.
    """

    pictures: int = option(20_000, "to train on, in all, at least one batch")
    batch_size: int = option(8, "pictures a step, all processes together", least=1)
    learning_rate: float = option(1e-4, "of Adam (0, 0.9), for the generator", least=0)
    discriminator_speed: float = option(4.0, "times that rate: the discriminator's", least=0)
    schedule: str = option("linear", "linear: to 0 over the second half, or constant", SCHEDULES)
    matching_weight: float = option(10.0, "of feature matching; the adversarial loss has 1")
    perceptual_weight: float = option(10.0, "of the perceptual loss")
    kl_weight: float = option(0.05, "small: z carries more; large: a random z works better")
    style_weight: float = option(0.0, "of telling city and time of day from z; not as published")
    shown_style_weight: float = option(
        0.0, "of telling them from what is drawn, by the discriminator of every pixel", least=0
    )
    other_styles: float = option(
        0.0, "share of a batch that is drawn in another photo's style", least=0, most=0.5
    )
    head_start: int = option(16_000, "pictures to pre-train encoder and classifier on", least=0)
    warm_up: int = option(0, "pictures from which the discriminator alone learns at first", least=0)
    scale: float = option(1.0, "least share of a scene's area in a crop; 1 crops nothing")
    even_cities: bool = option(False, "scenes of all cities are drawn equally often")
    average: float = option(0.999, "share of the weights' running mean that is kept in a step")
    seed: int = option(0, "of the scenes' order and augmentation, and of the latent's noise")
    save_every: int = option(1600, "pictures between two checkpoints", least=1)

    def __post_init__(self):
        check_values(self)
        if self.pictures < self.batch_size:
            raise ValueError(
                f"pictures is {self.pictures}: expected at least a batch, {self.batch_size}."
            )

    def is_due(self, seen: int) -> bool:
        """Whether a checkpoint is due after the step that made it so many pictures."""
        return seen % self.save_every < self.batch_size or seen + self.batch_size > self.pictures

    def learning_rates(self, done: float) -> tuple[float, float]:
        """Of the generator and of the discriminator after this share of the training, 0..1."""
        rate = self.learning_rate * SCHEDULES[self.schedule](done)
        is_warming = done * self.pictures < self.warm_up
        return 0.0 if is_warming else rate, self.discriminator_speed * rate


PUBLISHED_RECIPE = Recipe()


class VariationalGenerator(nn.Module):
    """Encoder and generator in a row: a photo's style, and its map, become a photo again.

    Args:
        encoder: None for a generator without a latent.

    Source: Park et al., CVPR 2019, arXiv:1903.07291, figure 14.
    """

    def __init__(self, generator: SpadeGenerator, encoder: Encoder | None):
        super().__init__()
        latents = generator.z_dim, None if encoder is None else encoder.settings["z_dim"]
        if latents[0] != latents[1]:
            raise ValueError(
                f"The generator's z_dim is {latents[0]}, the encoder's {latents[1]}: expected the "
                "same, or no encoder for a generator without a latent."
            )
        self.generator, self.encoder = generator, encoder

    def forward(
        self, planes: Tensor, real_pm1: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """planes (B, 36, H, W), image_pm1, noise (B, z_dim) -> image_pm1, mu and logvar."""
        if self.encoder is None:
            return self.generator(planes), None, None
        mu, logvar = self.encoder(real_pm1)
        return self.generator(planes, sampled(mu, logvar, noise)), mu, logvar


def xavier_start(network: nn.Module, gain: float = 0.02) -> None:
    """Draw all weights anew as the published recipe starts: Xavier normal, gain 0.02."""
    for name, parameter in network.named_parameters():
        if name.endswith("planes"):  # of grain: noise already
            continue
        if parameter.dim() > 1:
            nn.init.xavier_normal_(parameter, gain)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def training_batch(
    scenes: Scenes,
    step: int,
    batch_size: int,
    seed: int,
    z_dim: int | None = None,
    accelerator: Accelerator | None = None,
    labels: Tensor | None = None,
    augment: Augmentation | None = None,
    chances: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Random scenes, a pure function of step and seed -> semantics (B, 36, H, W), image_pm1, noise.

    With labels, see style_labels(), those scenes' rows of them are a fourth tensor.  With chances,
    (len(scenes),), scenes are drawn as often as these say.

    By default half of them are mirrored; augment does more.  Half of the batches draw their edges
    from instances, half from the label map alone, because a predicted map has no instances.  Of
    several processes each gets its part of the batch.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    count = len(scenes)
    chosen, with_instances, seeds, noise = draw(count, batch_size, z_dim, generator, chances)
    mine, device = slice(None), torch.device("cpu")
    if accelerator is not None:
        mine = slice(accelerator.process_index, None, accelerator.num_processes)
        device = accelerator.device
    pixels = scenes.batch(chosen[mine])
    if with_instances:
        pixels = (*pixels, scenes.instance_batch(chosen[mine]))
    augment = augment or Augmentation(scenes.size, flip=0.5)
    image_u8, *maps = augment(*(send(x, device) for x in pixels), seeds=seeds[mine])
    planes, real_pm1 = (
        x.to(memory_format=torch.channels_last)
        for x in (semantics(*maps, checked=True), u8_to_pm1(image_u8))
    )
    batch = planes, real_pm1, send(noise[mine], device)
    return batch if labels is None else (*batch, send(labels[chosen[mine]], device))


def generator_losses(
    network: nn.Module,
    judge: nn.Module,
    batch: Sequence[Tensor],
    recipe: Recipe,
    perceptual: PerceptualLoss | None,
    classifier: nn.Module | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """image_pm1 (B, 3, H, W) that the generator draws, and each of its losses times its weight.

    Args: see adversarial_step; judge is the discriminator.
    """
    planes, real_pm1, noise, *labels = batch
    count, style_pm1 = len(planes), real_pm1
    others = int(recipe.other_styles * count)  # of them no photo says how they should look
    if others:
        style_pm1, *labels = (torch.cat([x[:-others], x[:others]]) for x in (real_pm1, *labels))
    fake_pm1, mu, logvar = network(planes, style_pm1, noise)
    losses = judge.generator_losses(planes, fake_pm1, real_pm1, recipe, *labels or [None])
    if perceptual is not None:
        own = slice(count - others)
        regions = categories(planes[own]) if perceptual.texture else None
        difference = perceptual(fake_pm1[own], real_pm1[own], regions)
        losses["perceptual"] = recipe.perceptual_weight * difference
    if mu is not None:
        losses["kl"] = recipe.kl_weight * kl_divergence(mu.float(), logvar.float())
    if classifier is not None:
        scores = classifier(sampled(mu, logvar, noise))
        losses["style"] = recipe.style_weight * style_cross_entropy(scores, *labels)
    return fake_pm1, losses


def adversarial_step(
    *batch: Tensor,
    network: nn.Module,
    discriminator: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    accelerator: Accelerator,
    recipe: Recipe = PUBLISHED_RECIPE,
    perceptual: PerceptualLoss | None = None,
    classifier: nn.Module | None = None,
) -> dict[str, Tensor]:
    """One step of the generator, and one of the discriminator, on the same batch.

    Both judge the same generated photos, where the published code draws them twice.

    Args:
        batch: what training_batch() gives.
        network: a VariationalGenerator; all networks and optimizers prepared by the accelerator.
        optimizers: of the network, with the classifier if there is one, and of the discriminator.
        recipe: for the weights of the losses.
        classifier: a StyleClassifier that learns along with the encoder, or None.

    Returns:
        Each loss, a scalar, times its weight.
    """
    planes, real_pm1 = batch[:2]
    # The generator's half.  The discriminator's own weights stand still.
    judge = accelerator.unwrap_model(discriminator).requires_grad_(False)
    with accelerator.autocast():
        given = recipe, perceptual, classifier
        fake_pm1, losses = generator_losses(network, judge, batch, *given)
    judge.requires_grad_(True)
    optimizers[0].zero_grad()
    accelerator.backward(sum(losses.values()))
    optimizers[0].step()
    # The discriminator's half, which leaves the generator alone.
    with accelerator.autocast():
        pairs = torch.cat([fake_pm1.detach(), real_pm1])
        judgement = discriminator(planes.repeat(2, 1, 1, 1), pairs)
        losses["discriminator"] = judge.loss(judgement, planes, *batch[3:] or [None])
    optimizers[1].zero_grad()
    accelerator.backward(losses["discriminator"])
    optimizers[1].step()
    return {name: loss.detach() for name, loss in losses.items()}


@torch.no_grad()
def settled(averaged: RunningMean) -> VariationalGenerator:
    """A copy of the averaged networks that can be used, in evaluation mode.

    The averaged u and v are not singular vectors of the averaged weight: they are computed anew.
    """
    network = copy.deepcopy(averaged.module).eval()
    find_singular_vectors(network)
    return network


@torch.no_grad()
def save_preview(
    generator: SpadeGenerator, scenes: Scenes, path: Path, encoder: Encoder | None = None
) -> None:
    """Of each scene a row: photo, map, generated photo; with an encoder first in the photo's style.

    Args:
        path: of the picture, see utils.images.save_image.
    """
    image_u8, label_ids = scenes.batch(range(len(scenes)))
    styles = [None]
    if encoder is not None:
        device = next(encoder.parameters()).device
        styles = [encoder(u8_to_pm1(image_u8.to(device)))[0], None]
    drawn = [generator.synthesize(label_ids, z=z).cpu() for z in styles]
    columns = torch.cat([image_u8.cpu(), label_ids_to_colors(label_ids).cpu(), *drawn], dim=-1)
    save_image(torch.cat(list(columns), dim=-2), path)


def run_settings(
    generator: SpadeGenerator, scenes: Scenes, recipe: Recipe, perceptual, classifier
) -> dict:
    """What must not change between two parts of one training."""
    settings = {field.name: getattr(recipe, field.name) for field in fields(Recipe)}
    del settings["save_every"]
    for name, value in (("scale", 1), ("discriminator_speed", 4)):  # as older checkpoints had them
        settings[name] = None if settings[name] == value else settings[name]
    return generator.settings | settings | {
        "pictures": "any" if recipe.schedule == "constant" else recipe.pictures,
        "scenes": f"{scenes.dataset} {len(scenes)}",
        "head_start": recipe.head_start if classifier is not None else 0,
        # Settings that older checkpoints lack count as False or 0.
        "without_perceptual": perceptual is None,
        "texture_weight": 0 if perceptual is None else perceptual.texture,
    }  # fmt: skip


def make_optimizers(learners: dict[str, nn.Module], recipe: Recipe) -> dict[str, torch.optim.Adam]:
    """Adam (0, 0.9) for the network, together with a classifier, and for the discriminator."""
    of_network, of_discriminator = (
        torch.optim.Adam(
            (x for x in learners[name].parameters() if x.requires_grad), rate, betas=(0.0, 0.9)
        )
        for name, rate in zip(("network", "discriminator"), recipe.learning_rates(0), strict=True)
    )
    if "classifier" in learners:
        group = {"params": learners["classifier"].parameters(), "lr": CLASSIFIER_RATE}
        of_network.add_param_group(group)
    return {"network_adam": of_network, "discriminator_adam": of_discriminator}


def training_steps(
    scenes: Scenes,
    recipe: Recipe,
    losses: LossLog,
    z_dim: int | None,
    accelerator: Accelerator,
    labels: Tensor | None,
    size: tuple[int, int],
) -> Iterator[tuple[int, tuple[float, float], tuple[Tensor, ...]]]:
    """For each step whose losses are not there yet: the number of pictures after it, the learning
    rates, and the batch; with a progress bar that shows the losses."""
    steps, count = recipe.pictures // recipe.batch_size, recipe.batch_size
    augment = Augmentation(size, flip=0.5, scale=(recipe.scale, 1))
    chances = even_chances(scenes) if recipe.even_cities else None
    todo = range(losses.steps, steps)
    bar = progress(todo, "training", hidden=not accelerator.is_main_process)
    for step in bar:
        drawn = count, recipe.seed, z_dim, accelerator, labels, augment, chances
        batch = training_batch(scenes, step, *drawn)
        yield (step + 1) * count, recipe.learning_rates(step / steps), batch
        bar.set_postfix_str(losses.latest, refresh=False)


def _keep(
    run: Run, parts: dict, losses: LossLog, seen: int, recipe: Recipe, preview: Scenes | None
) -> None:
    """Save a checkpoint, print how far the training is, and draw the preview."""
    losses.read()
    if run.folder is None or not PartialState().is_main_process:
        return
    run.save(parts, losses.history)
    speed = losses.speed() * recipe.batch_size
    figures = ", ".join(f"{name} {mean:.2f}" for name, mean in losses.means(100).items())
    print(f"{seen} pictures, {speed:.1f} a second: {figures}", flush=True)
    if preview is not None:
        network = settled(parts["averaged"])
        path = run.folder / f"preview_{seen:06d}.jpg"
        with copy_may_fail(path):
            save_preview(network.generator, preview, path, network.encoder)


def _thinned(values: list[float]) -> list[float]:
    """The means of at most so many equal stretches, to go with the weights."""
    stretch = math.ceil(len(values) / _POINTS)
    parts = (values[start : start + stretch] for start in range(0, len(values), stretch or 1))
    return [round(sum(part) / len(part), 4) for part in parts]


def train_spade(
    generator: SpadeGenerator,
    discriminator: MultiscaleDiscriminator | PixelDiscriminator,
    scenes: Scenes,
    recipe: Recipe = PUBLISHED_RECIPE,
    encoder: Encoder | None = None,
    perceptual: PerceptualLoss | None = None,
    classifier: StyleClassifier | None = None,
    folder: str | Path | None = None,
    precision: str = "fp32",
    preview: Scenes | None = None,
) -> History:
    """Train all networks in place; generator and encoder end as the running mean of their weights.

    Args:
        encoder, classifier: for a generator with a latent, and for a recipe with a style_weight.
        folder: keeps last.pt, a checkpoint, and draws preview into preview_*.jpg.  A run that
            finds a checkpoint goes on from it, and ends (on a CPU, with as many threads) with the
            bits of one that was never interrupted.  None keeps nothing.
        precision: "fp32", "bf16" or "fp16" (GPUs only); weights stay in float32.

    Raises ValueError, FloatingPointError and OSError as utils.training.train() does, and ValueError
    for an encoder or a classifier that does not fit.
    """
    accelerator = make_accelerator(precision, recipe.batch_size)
    scenes, network = scenes.to(accelerator.device), VariationalGenerator(generator, encoder)
    labels = check_styles(recipe, discriminator, encoder, classifier, scenes)
    learners = {"network": network, "discriminator": discriminator}
    learners |= {} if classifier is None else {"classifier": classifier}
    place(accelerator, *learners.values(), *filter(None, [perceptual]))
    run = Run(folder, run_settings(generator, scenes, recipe, perceptual, classifier))
    if not run.has_checkpoint:
        discriminator.prepare(scenes)
        give_head_start(encoder, classifier, scenes, labels, recipe)
    adams, averaged = make_optimizers(learners, recipe), RunningMean(network, recipe.average)
    parts = learners | adams | {"averaged": averaged} | scaler_of(accelerator)
    prepared = accelerator.prepare(*learners.values(), *adams.values())
    trained, optimizers = prepared[:-2], prepared[-2:]
    given = {"optimizers": optimizers, "accelerator": accelerator, "perceptual": perceptual}
    networks = dict(zip(learners, trained, strict=True))
    step = partial(adversarial_step, recipe=recipe, **networks, **given)
    step = graphed(step, optimizers, accelerator.device)
    with restored(accelerator, trained, optimizers):
        losses = LossLog(accelerator, run, history=run.load(parts))
        for part in learners.values():
            part.train()
        for seen, rates, batch in training_steps(
            scenes, recipe, losses, generator.z_dim, accelerator, labels, generator.size
        ):
            for optimizer, rate in zip(optimizers, rates):
                optimizer.param_groups[0]["lr"] = rate  # a classifier's, in group 1, stays
            losses.add(step(*batch))
            averaged.update_parameters(network)
            if recipe.is_due(seen):
                _keep(run, parts, losses, seen, recipe, preview)
        accelerator.wait_for_everyone()
    network.load_state_dict(settled(averaged).state_dict())
    network.eval()
    generator.history = {name: _thinned(values) for name, values in losses.history.items()}
    return losses.history


if __name__ == "__main__":
    runpy.run_module("spade.stages", run_name="__main__")
