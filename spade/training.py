"""Train a SPADE generator against its discriminator, with an encoder that reads photos' styles.

    history = train_spade(generator, discriminator, scenes, Recipe(pictures=20_000), encoder)

From a shell, on the devices that Accelerate finds; the same command continues an interrupted run:

    python -m spade.training --dataset toy --size 256x128 --pictures 20000 --out runs/generator_toy
    python -m spade.training --recipe data/weights/generator_toy.toml --out runs/generator_toy
    accelerate launch --num_processes 2 -m spade.training ...        # several GPUs

The recipe is the published one: hinge loss, feature matching, a perceptual loss, a latent with a KL
loss, a higher learning rate for the discriminator, and rates that fall over the second half.  It
can be extended: style_weight keeps the photo's city and time of day in the latent,
shown_style_weight asks for them in the generated image, and texture_weight compares textures.
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

History = dict[str, list[float]]  # for each loss, times its weight, one value per step
_MAX_POINTS = 200  # values of each loss in the history that is saved with the weights

# The factor of the learning rate after a share 0..1 of the training.
SCHEDULES = {"linear": lambda done: min(1.0, 2 - 2 * done), "constant": lambda done: 1.0}


@dataclass(frozen=True)
class Recipe:
    """The settings of a training; all defaults but batch_size, pictures and average are published.

    A continued run may have another save_every, and more pictures if the schedule is constant.
    matching_weight=1 and perceptual_weight=1, instead of 10, make details sharper that the map does
    not determine, such as windows.  Both losses demand the real photo's windows at their exact
    positions, and while these are unknown a blur has the smallest expected loss.

    Raises ValueError for an unknown schedule, and for numbers that are too small or too large.
    """

    pictures: int = option(20_000, "number of training pictures in all, at least one batch")
    batch_size: int = option(8, "pictures per step, of all processes together", least=1)
    learning_rate: float = option(1e-4, "of Adam (0, 0.9) for the generator", least=0)
    discriminator_speed: float = option(4.0, "discriminator's learning rate / generator's", least=0)
    schedule: str = option("linear", "linear (to 0 over the second half) or constant", SCHEDULES)
    matching_weight: float = option(10.0, "weight of feature matching; adversarial loss: 1")
    perceptual_weight: float = option(10.0, "weight of the perceptual loss")
    kl_weight: float = option(0.05, "KL loss; small: z holds more; large: a random z works better")
    style_weight: float = option(0.0, "weight of classifying city and time of day from z; our own")
    shown_style_weight: float = option(
        0.0, "of classifying them from the image, by the pixel discriminator", least=0
    )
    other_styles: float = option(
        0.0, "share of each batch that is drawn in another photo's style", least=0, most=0.5
    )
    head_start: int = option(16_000, "pictures to pre-train encoder and classifier on", least=0)
    warm_up: int = option(0, "first pictures, in which generator and encoder stay fixed", least=0)
    scale: float = option(1.0, "smallest share of a scene's area in a crop; 1 crops nothing")
    even_cities: bool = option(False, "draw scenes of all cities equally often")
    average: float = option(0.999, "share of the weights' running mean that each step keeps")
    seed: int = option(0, "of the scenes' order and augmentation, and of the latent's noise")
    save_every: int = option(1600, "pictures between two checkpoints", least=1)

    def __post_init__(self):
        check_values(self)
        if self.pictures < self.batch_size:
            raise ValueError(
                f"pictures is {self.pictures}: expected at least a batch, {self.batch_size}."
            )

    def is_due(self, seen: int) -> bool:
        """Whether a checkpoint is due after the step that brings the pictures to `seen`."""
        return seen % self.save_every < self.batch_size or seen + self.batch_size > self.pictures

    def learning_rates(self, done: float) -> tuple[float, float]:
        """Learning rates of generator and discriminator after a share 0..1 of the training."""
        rate = self.learning_rate * SCHEDULES[self.schedule](done)
        is_warming = done * self.pictures < self.warm_up
        return 0.0 if is_warming else rate, self.discriminator_speed * rate


PUBLISHED_RECIPE = Recipe()


class VariationalGenerator(nn.Module):
    """Encoder and generator as one network, which redraws a photo from its style and its map.

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
        """planes (B, 36, H, W), photos image_pm1, noise (B, z_dim) -> image_pm1, mu, logvar."""
        if self.encoder is None:
            return self.generator(planes), None, None
        mu, logvar = self.encoder(real_pm1)
        return self.generator(planes, sampled(mu, logvar, noise)), mu, logvar


def xavier_start(network: nn.Module, gain: float = 0.02) -> None:
    """Initialise all weights as published: Xavier normal with gain 0.02, biases 0."""
    for name, parameter in network.named_parameters():
        if name.endswith("planes"):  # the noise of Grain keeps its scale
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
    """Make the batch of a step from random scenes; the result depends on step and seed only.

    Half of the batches draw their edges from instances, half from the label map alone, because a
    predicted map has no instances.  Each of several processes gets its part of the batch.

    Args:
        labels: the styles of all scenes, see style_labels().
        augment: by default half of the scenes are mirrored.
        chances: (len(scenes),), how often each scene is drawn relative to the others.

    Returns:
        semantics (B, 36, H, W), image_pm1, noise (B, z_dim), and the rows of labels if given.
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
    """Draw a batch of images and compute each loss of the generator times its weight.

    Args: see adversarial_step(); judge is the discriminator.

    Returns:
        image_pm1 (B, 3, H, W), and the losses by name.
    """
    planes, real_pm1, noise, *labels = batch
    count, style_pm1 = len(planes), real_pm1
    # The last `others` images get the styles of the first photos, so their own photos do not show
    # how they should look, and the perceptual loss leaves them out.
    others = int(recipe.other_styles * count)
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
    """Train the generator for one step and the discriminator for one step, on the same batch.

    Both steps use the same generated images; the published code draws them twice.

    Args:
        batch: the result of training_batch().
        network: a VariationalGenerator; all networks and optimizers prepared by the accelerator.
        optimizers: of the network, with the classifier if there is one, and of the discriminator.
        recipe: has the weights of the losses.
        classifier: a StyleClassifier that learns together with the encoder, or None.

    Returns:
        Each loss, a scalar, times its weight.
    """
    planes, real_pm1 = batch[:2]
    # The generator's step needs no gradients of the discriminator's weights.
    judge = accelerator.unwrap_model(discriminator).requires_grad_(False)
    with accelerator.autocast():
        given = recipe, perceptual, classifier
        fake_pm1, losses = generator_losses(network, judge, batch, *given)
    judge.requires_grad_(True)
    optimizers[0].zero_grad()
    accelerator.backward(sum(losses.values()))
    optimizers[0].step()
    # The discriminator's step: detach() keeps its gradients out of the generator.
    with accelerator.autocast():
        pairs = torch.cat([fake_pm1.detach(), real_pm1])
        judgement = discriminator(planes.repeat(2, 1, 1, 1), pairs)
        losses["discriminator"] = judge.loss(judgement, planes, *batch[3:] or [None])
    optimizers[1].zero_grad()
    accelerator.backward(losses["discriminator"])
    optimizers[1].step()
    return {name: loss.detach() for name, loss in losses.items()}


@torch.no_grad()
def with_fresh_singular_vectors(averaged: RunningMean) -> VariationalGenerator:
    """Return a copy of the averaged networks, in evaluation mode, with recomputed spectral norms.

    The averaged u and v are not singular vectors of the averaged weight.
    """
    network = copy.deepcopy(averaged.module).eval()
    find_singular_vectors(network)
    return network


@torch.no_grad()
def save_preview(
    generator: SpadeGenerator, scenes: Scenes, path: Path, encoder: Encoder | None = None
) -> None:
    """Save a picture with a row for each scene: photo, map, and image in the mean style.

    With an encoder, the image in the photo's style comes before the one in the mean style.

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
    """Collect the settings that must not change when a run is continued."""
    settings = {field.name: getattr(recipe, field.name) for field in fields(Recipe)}
    del settings["save_every"]
    # Older checkpoints lack these settings; a missing setting counts as None.
    for name, default in (("scale", 1), ("discriminator_speed", 4)):
        settings[name] = None if settings[name] == default else settings[name]
    return generator.settings | settings | {
        "pictures": "any" if recipe.schedule == "constant" else recipe.pictures,
        "scenes": f"{scenes.dataset} {len(scenes)}",
        "head_start": recipe.head_start if classifier is not None else 0,
        # Older checkpoints lack these settings; a missing setting counts as False or 0.
        "without_perceptual": perceptual is None,
        "texture_weight": 0 if perceptual is None else perceptual.texture,
    }  # fmt: skip


def make_optimizers(learners: dict[str, nn.Module], recipe: Recipe) -> dict[str, torch.optim.Adam]:
    """Make Adam (0, 0.9) for the network and the classifier, and another for the discriminator."""
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
    """Yield for each step that is still to do: pictures seen after it, learning rates, batch."""
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
    """Save a checkpoint, print the progress, and draw the preview."""
    losses.read()
    if run.folder is None or not PartialState().is_main_process:
        return
    run.save(parts, losses.history)
    speed = losses.speed() * recipe.batch_size
    figures = ", ".join(f"{name} {mean:.2f}" for name, mean in losses.means(100).items())
    print(f"{seen} pictures, {speed:.1f} a second: {figures}", flush=True)
    if preview is not None:
        network = with_fresh_singular_vectors(parts["averaged"])
        path = run.folder / f"preview_{seen:06d}.jpg"
        with copy_may_fail(path):
            save_preview(network.generator, preview, path, network.encoder)


def _thinned(values: list[float]) -> list[float]:
    """Shorten a curve to at most _MAX_POINTS means over equally long stretches."""
    stretch = math.ceil(len(values) / _MAX_POINTS)
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
        folder: for the checkpoint last.pt, and preview_*.jpg with images of the scenes in preview.
            A run that finds a checkpoint continues from it; on a CPU with as many threads, the
            result is bit for bit that of an uninterrupted run.  None: nothing is written.
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
                optimizer.param_groups[0]["lr"] = rate  # group 1, the classifier, keeps its rate
            losses.add(step(*batch))
            averaged.update_parameters(network)
            if recipe.is_due(seen):
                _keep(run, parts, losses, seen, recipe, preview)
        accelerator.wait_for_everyone()
    network.load_state_dict(with_fresh_singular_vectors(averaged).state_dict())
    network.eval()
    generator.history = {name: _thinned(values) for name, values in losses.history.items()}
    return losses.history


if __name__ == "__main__":
    runpy.run_module("spade.stages", run_name="__main__")
