"""Training a SPADE generator against its discriminator, and an encoder that gives it a style.

    python -m spade.training --dataset toy --size 256x128 --pictures 20000 --out runs/generator_toy

The recipe is the published one: hinge loss, feature matching, a perceptual term, a latent with its
KL term, two time scales, a rate that falls over the second half.  Two terms that it has not can be
added: the latent has to tell the photo's city and time of day (--style-weight), and textures are
compared as textures (--texture-weight).  Started again, it goes on from its last checkpoint;
`accelerate launch -m spade.training ...` trains on several GPUs.
"""

import argparse
import copy
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from spade.checkpoint import load_encoder, load_generator, save_encoder, save_generator
from spade.discriminator import MultiscaleDiscriminator
from spade.encoder import Encoder
from spade.generator import SpadeGenerator
from spade.losses import (
    PUBLISHED_WEIGHTS,
    LossWeights,
    PerceptualLoss,
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    kl_divergence,
    split_judgement,
    style_cross_entropy,
)
from spade.normalization import find_singular_vectors
from spade.semantics import categories, semantics
from spade.styles import StyleClassifier, style_labels
from utils.augmentation import Augmentation
from utils.cache import CachedScenes, cached
from utils.commands import exit_status, width_and_height
from utils.engine.accelerator import CHECK_EVERY, PRECISIONS, diverged, make_accelerator
from utils.engine.batch_norm import synchronize_batch_norm
from utils.engine.graphs import Recorder, send
from utils.engine.precision import float32_again
from utils.images import save_image, u8_to_pm1
from utils.labels import label_ids_to_colors
from utils.progress import progress
from utils.scenes import Scenes, open_scenes
from utils.segmentation import load_segmentation
from utils.weights import load_checkpoint, load_torch_file, save_checkpoint

History = dict[str, list[float]]  # of each loss one value a step, already times its weight
DISCRIMINATOR_SPEED = 4  # times the generator's learning rate
CLASSIFIER_RATE = 1e-3  # the style classifier's learning rate, and in the head start the encoder's
HEAD_START = 16_000  # pictures that the encoder sees with the style classifier before the training
_POINTS = 200  # of a curve, where the history goes with the weights

# How much of the learning rate is left after this share of the training, 0..1.
SCHEDULES = {"linear": lambda done: min(1.0, 2 - 2 * done), "constant": lambda done: 1.0}


@dataclass(frozen=True)
class Recipe:
    """How networks are trained; it can't change between two parts of one training.

    The published recipe by default, with smaller batches.

    Attributes:
        batch_size: pictures a step, all processes together.
        learning_rate: of Adam (0, 0.9); the discriminator's is four times that.
        schedule: "linear" falls to zero over the second half, "constant" does not fall.
        weights: of the losses; style needs scenes of several cities or times of day.
        head_start: pictures that encoder and classifier see before the training, if there is a
            classifier; 0 for those that have had it.
        average: how much of the running mean of the weights is kept in a step, 0..1.
        seed: of the order of the scenes, their augmentation, and the noise of the latent.

    Raises ValueError if there is no such schedule.
    """

    batch_size: int = 8
    learning_rate: float = 1e-4
    schedule: str = "linear"
    weights: LossWeights = PUBLISHED_WEIGHTS
    head_start: int = HEAD_START
    average: float = 0.999
    seed: int = 0

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            known = ", ".join(SCHEDULES)
            raise ValueError(f"There is no schedule {self.schedule!r}: expected {known}.")

    def learning_rates(self, done: float) -> tuple[float, float]:
        """Of the generator and of the discriminator after this share of the training, 0..1."""
        rate = self.learning_rate * SCHEDULES[self.schedule](done)
        return rate, DISCRIMINATOR_SPEED * rate


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


def sampled(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """A latent from what the encoder says about it; all (B, z_dim), noise standard normal."""
    return mu + torch.exp(logvar / 2) * noise


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
) -> tuple[Tensor, ...]:
    """Random scenes, a pure function of step and seed -> semantics (B, 36, H, W), image_pm1, noise.

    With labels, see style_labels(), those scenes' rows of them are a fourth tensor.

    Half of them are mirrored; half of the batches draw their edges from instances, half from the
    label map alone, because a predicted map has no instances.  Of several processes each gets its
    part of the batch.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    chosen, with_instances, seeds, noise = _drawn(len(scenes), batch_size, z_dim or 0, generator)
    mine, device = slice(None), torch.device("cpu")
    if accelerator is not None:
        mine = slice(accelerator.process_index, None, accelerator.num_processes)
        device = accelerator.device
    pixels = scenes.batch(chosen[mine].tolist())
    if with_instances:
        pixels = (*pixels, scenes.instance_batch(chosen[mine].tolist()))
    augment = Augmentation(scenes.size, flip=0.5)
    image_u8, *maps = augment(*(send(x, device) for x in pixels), seeds=seeds[mine])
    batch = semantics(*maps, checked=True), u8_to_pm1(image_u8), send(noise[mine], device)
    return batch if labels is None else (*batch, send(labels[chosen[mine]], device))


def _drawn(
    count: int, batch_size: int, z_dim: int, generator: torch.Generator
) -> tuple[Tensor, bool, Tensor, Tensor]:
    """Which of count scenes; whether with instances; a seed for each augmentation; the noise."""
    chosen = torch.randint(count, (batch_size,), generator=generator)
    with_instances = bool(torch.rand((), generator=generator) < 0.5)
    seeds = torch.randint(2**62, (batch_size,), generator=generator)
    return chosen, with_instances, seeds, torch.randn(batch_size, z_dim, generator=generator)


class AdversarialStep:
    """One step of the generator and one of the discriminator on the same batch -> the losses.

    Both judge the same generated photos, where the published code draws them twice.

    Args:
        network, discriminator: where there are several processes, or half precision, prepared by
            the accelerator, and so are the optimizers.
        optimizers: of the network, with the classifier if there is one, and of the discriminator.
        classifier: a StyleClassifier that learns along with the encoder, or None.
    """

    def __init__(
        self,
        network: nn.Module,
        discriminator: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        perceptual: PerceptualLoss | None,
        accelerator: Accelerator,
        weights: LossWeights = PUBLISHED_WEIGHTS,
        classifier: nn.Module | None = None,
    ):
        self.network, self.discriminator, self.classifier = network, discriminator, classifier
        self.optimizers, self.perceptual = optimizers, perceptual
        self.accelerator, self.weights = accelerator, weights
        self._generate, self._judge = (
            Recorder(x for group in optimizer.param_groups for x in group["params"])
            for optimizer in optimizers
        )

    def __call__(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """What training_batch() gives, for a classifier with labels -> each loss, a scalar."""
        fake_pm1, losses = self._generate(self._generator_gradients, *batch)
        self.optimizers[0].step()
        (loss,) = self._judge(self._discriminator_gradients, *batch[:2], fake_pm1)
        self.optimizers[1].step()
        losses = torch.stack([*losses, loss])  # a copy: the next step would overwrite them
        return dict(zip((*self._names, "discriminator"), losses, strict=True))

    def _generator_gradients(
        self, planes: Tensor, real_pm1: Tensor, noise: Tensor, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        weights = self.weights
        # Its own weights stand still here: there is no gradient to share among processes.
        judge = self.accelerator.unwrap_model(self.discriminator).requires_grad_(False)
        with self.accelerator.autocast():
            fake_pm1, mu, logvar = self.network(planes, real_pm1, noise)
            both = judge(planes.repeat(2, 1, 1, 1), torch.cat([fake_pm1, real_pm1]))
            fake, real = split_judgement(both)
            losses = {
                "adversarial": hinge_generator(fake),
                "matching": weights.matching * feature_matching(fake, real),
            }
            if self.perceptual is not None:
                regions = categories(planes) if self.perceptual.texture else None
                loss = self.perceptual(fake_pm1, real_pm1, regions)
                losses["perceptual"] = weights.perceptual * loss
            if mu is not None:
                losses["kl"] = weights.kl * kl_divergence(mu.float(), logvar.float())
            if self.classifier is not None:
                scores = self.classifier(sampled(mu, logvar, noise))
                losses["style"] = weights.style * style_cross_entropy(scores, labels)
        judge.requires_grad_(True)
        self.optimizers[0].zero_grad()
        self.accelerator.backward(sum(losses.values()))
        self._names = tuple(losses)
        return fake_pm1.detach(), torch.stack([loss.detach() for loss in losses.values()])

    def _discriminator_gradients(
        self, planes: Tensor, real_pm1: Tensor, fake_pm1: Tensor
    ) -> tuple[Tensor]:
        with self.accelerator.autocast():
            pairs = torch.cat([fake_pm1, real_pm1])
            judgement = self.discriminator(planes.repeat(2, 1, 1, 1), pairs)
            loss = hinge_discriminator(*split_judgement(judgement))
        self.optimizers[1].zero_grad()
        self.accelerator.backward(loss)
        return (loss.detach(),)


def give_head_start(
    encoder: Encoder,
    classifier: nn.Module,
    scenes: Scenes,
    labels: Tensor,
    recipe: Recipe,
) -> None:
    """Let the encoder learn to tell the styles, before a generator gets used to its latents.

    It takes minutes where the generator's training takes hours.  Several processes do the same.

    Args:
        labels: of the scenes, see style_labels().
        recipe: its head_start says how long, its weights what counts.
    """
    device = next(encoder.parameters()).device
    learning = [*encoder.parameters(), *classifier.parameters()]
    optimizer = torch.optim.Adam(learning, CLASSIFIER_RATE, betas=(0.0, 0.9))
    z_dim, batch_size = encoder.settings["z_dim"], recipe.batch_size
    steps, weights = range(recipe.head_start // batch_size), recipe.weights
    augment = Augmentation(scenes.size, flip=0.5)
    generator = torch.Generator().manual_seed(recipe.seed)
    encoder.train()

    def gradients(image_u8: Tensor, noise: Tensor, labels: Tensor) -> tuple[Tensor]:
        mu, logvar = encoder(u8_to_pm1(image_u8))
        told = style_cross_entropy(classifier(sampled(mu, logvar, noise)), labels)
        loss = weights.style * told + weights.kl * kl_divergence(mu, logvar)
        optimizer.zero_grad()
        loss.backward()
        return (loss.detach(),)

    compute = Recorder(learning)
    for _ in progress(steps, "encoder", hidden=not PartialState().is_main_process):
        chosen, _, seeds, noise = _drawn(len(scenes), batch_size, z_dim, generator)
        (image_u8,) = augment(send(scenes.batch(chosen.tolist())[0], device), seeds=seeds)
        compute(gradients, image_u8, send(noise, device), send(labels[chosen], device))
        optimizer.step()
    optimizer.zero_grad()  # gradients hold a GPU's memory


def train_spade(
    generator: SpadeGenerator,
    discriminator: MultiscaleDiscriminator,
    scenes: Scenes,
    pictures: int,
    encoder: Encoder | None = None,
    perceptual: PerceptualLoss | None = None,
    recipe: Recipe = PUBLISHED_RECIPE,
    classifier: StyleClassifier | None = None,
    precision: str = "fp32",
    folder: str | Path | None = None,
    save_every: int = 1600,
    preview: Scenes | None = None,
) -> History:
    """Train all networks in place until the generator has seen that many pictures.

    Generator and encoder end with the running mean of their weights, which draws better than the
    last ones; they are ready to use, the checkpoint is what a training goes on from.

    Args:
        scenes: training scenes; cached() ones are much faster.
        encoder: for a generator with a latent; it learns along.
        perceptual: one more loss of the generator, or None.
        recipe: batches, learning rate, weights of the losses ...
        classifier: for a recipe in which style has a weight; it learns along, too.
        precision: "fp32", "bf16" or "fp16" (GPUs only); weights are kept in float32.
        folder: where last.pt, a checkpoint, and previews are kept; a run that finds a checkpoint
            goes on from it, and ends (on the CPU, with as many threads) with the same bits as one
            that was never interrupted.  None keeps nothing.
        save_every: pictures between two checkpoints.
        preview: scenes that are drawn at each checkpoint into folder/preview_*.jpg.

    Returns:
        Of each loss, already times its weight, a list with one value a step.

    Raises:
        ValueError: an unknown precision, an encoder or a classifier that does not fit, or a
            checkpoint of another training.
        FloatingPointError: a loss is no number any more; names the step and what is left.
        OSError: no room for the checkpoint; the one before it stays.
    """
    batch_size, weights = recipe.batch_size, recipe.weights
    accelerator = make_accelerator(precision, batch_size)
    device = accelerator.device
    network = VariationalGenerator(generator, encoder)
    learners: dict[str, nn.Module] = {"network": network, "discriminator": discriminator}
    labels = None
    if weights.style and (encoder is None or classifier is None):
        raise ValueError(
            f"Style has a weight of {weights.style}: expected a generator with a latent, its "
            "encoder and a classifier, or a weight of 0."
        )
    if classifier is not None:
        classes, labels = style_labels(scenes)
        if classes != classifier.classes:
            raise ValueError(
                f"The classifier tells {classifier.classes}, and the scenes are of {classes}: make "
                "it from style_labels(scenes)."
            )
        learners["classifier"] = classifier
    for learner in learners.values():
        if accelerator.num_processes > 1:
            synchronize_batch_norm(learner)
    for part in (*learners.values(), perceptual):
        if part is not None:
            part.to(device, memory_format=torch.channels_last)  # faster, on CPU and GPU
    optimizers = [
        torch.optim.Adam(part.parameters(), rate, betas=(0.0, 0.9))
        for part, rate in zip((network, discriminator), recipe.learning_rates(0), strict=True)
    ]
    if classifier is not None:
        group = {"params": classifier.parameters(), "lr": CLASSIFIER_RATE}
        optimizers[0].add_param_group(group)
    averaged = AveragedModel(network, use_buffers=True)
    parts = learners | {"averaged": averaged}
    parts |= {"network_adam": optimizers[0], "discriminator_adam": optimizers[1]}
    if accelerator.scaler is not None:  # fp16
        parts["scaler"] = accelerator.scaler
    steps = pictures // batch_size
    # What must not change between two parts of one training.
    made_by = generator.settings | asdict(recipe)
    made_by |= {f"{name}_weight": weight for name, weight in made_by.pop("weights").items()}
    made_by["scenes"] = f"{scenes.dataset} {len(scenes)}"
    # False and 0 are what a checkpoint counts as that does not tell.
    made_by["without_perceptual"] = perceptual is None
    made_by["texture_weight"] = 0 if perceptual is None else perceptual.texture
    made_by["head_start"] *= classifier is not None
    made_by["pictures"] = "any" if recipe.schedule == "constant" else pictures
    history: History = {}
    if isinstance(scenes, CachedScenes):
        scenes = scenes.to(device)
    folder = None if folder is None else Path(folder)
    goes_on = folder is not None and (folder / "last.pt").is_file()
    if classifier is not None and not goes_on:
        give_head_start(encoder, classifier, scenes, labels, recipe)
    prepared = accelerator.prepare(*learners.values(), *optimizers)
    trained, optimizers = prepared[: len(learners)], prepared[len(learners) :]
    training_step = AdversarialStep(
        *trained[:2], optimizers, perceptual, accelerator, weights, *trained[2:]
    )
    for learner in learners.values():
        learner.train()
    with float32_again(accelerator, *trained):
        if goes_on:  # after prepare(), which moves Adam's counts to the GPU: see load_checkpoint()
            history = load_checkpoint(folder / "last.pt", parts, made_by)
        first, waiting = len(history.get("adversarial", ())), []
        start = time.perf_counter()
        bar = progress(range(first, steps), "training", hidden=not accelerator.is_main_process)
        for step in bar:
            rates = recipe.learning_rates(step / steps)
            for optimizer, rate in zip(optimizers, rates, strict=True):  # the classifier's stays
                optimizer.param_groups[0]["lr"] = rate
            batch = training_batch(
                scenes, step, batch_size, recipe.seed, generator.z_dim, accelerator, labels
            )
            batch = (*(x.to(memory_format=torch.channels_last) for x in batch[:2]), *batch[2:])
            waiting.append(training_step(batch))
            update_mean(averaged, network, recipe.average)
            seen = (step + 1) * batch_size
            is_due = seen % save_every < batch_size or step + 1 == steps
            if is_due or len(waiting) == CHECK_EVERY:
                try:
                    _collect(history, waiting, accelerator)
                except FloatingPointError as error:
                    kept = "nothing was kept before it"
                    if folder is not None and (folder / "last.pt").is_file():
                        kept = f"{folder / 'last.pt'} holds the last good checkpoint"
                    raise diverged(str(error), kept) from error
                waiting = []
                bar.set_postfix_str(_figures(history, 1), refresh=False)
            if is_due and folder is not None and accelerator.is_main_process:
                save_checkpoint(folder / "last.pt", parts, history, made_by)
                rate = (step + 1 - first) * batch_size / (time.perf_counter() - start)
                line = f"{seen} pictures, {rate:.1f} a second: {_figures(history, 100)}"
                accelerator.print(line, flush=True)
                if preview is not None:
                    network_now = settled(averaged)
                    path = folder / f"preview_{seen:06d}.jpg"
                    save_preview(network_now.generator, preview, path, network_now.encoder)
        accelerator.wait_for_everyone()
    for optimizer in optimizers:
        optimizer.zero_grad()  # gradients hold a GPU's memory
    network.load_state_dict(settled(averaged).state_dict())
    network.eval()
    generator.history = {name: _thinned(values) for name, values in history.items()}
    return history


@torch.no_grad()
def update_mean(averaged: AveragedModel, network: nn.Module, keep: float) -> None:
    """Take the network's weights and buffers into their running mean.

    Not AveragedModel.update_parameters(), for which a GPU is waited for.

    Args:
        keep: how much of the mean is kept, 0..1; in the first steps less, to forget the start.
    """
    count = int(averaged.n_averaged)  # it lies on the CPU
    kept = min(keep, (1 + count) / (10 + count)) if count else 0.0
    pairs = zip(
        [*averaged.module.parameters(), *averaged.module.buffers()],
        [*network.parameters(), *network.buffers()],
        strict=True,
    )
    counts, floats = [], []
    for pair in pairs:
        (floats if pair[0].is_floating_point() else counts).append(pair)
    torch._foreach_lerp_(*map(list, zip(*floats)), 1 - kept)  # all at once
    for mean, current in counts:
        mean.copy_(current)
    averaged.n_averaged += 1


@torch.no_grad()
def settled(averaged: AveragedModel) -> VariationalGenerator:
    """A copy of the averaged networks that can be used, in evaluation mode.

    The mean of singular vectors is none of the mean weight: they are found anew.
    """
    network = copy.deepcopy(averaged.module).eval()
    find_singular_vectors(network)
    return network


def _collect(history: History, waiting: list[dict[str, Tensor]], accelerator: Accelerator) -> None:
    """Add the losses of some steps, the mean of all processes, to the history."""
    names = list(waiting[0])
    losses = torch.stack([torch.stack([step[name].float() for name in names]) for step in waiting])
    losses = accelerator.reduce(losses, "mean").cpu()  # (steps, losses), in all processes alike
    if not losses.isfinite().all():
        row, column = (~losses.isfinite()).nonzero()[0].tolist()
        step = len(history.get(names[0], ())) + row + 1
        raise FloatingPointError(
            f"The {names[column]} loss is {losses[row, column]} in step {step}"
        )
    for name, values in zip(names, losses.T.tolist(), strict=True):
        history.setdefault(name, []).extend(values)


def _figures(history: History, steps: int) -> str:
    """The mean of each loss over the last steps, for people."""
    means = {name: sum(values[-steps:]) / len(values[-steps:]) for name, values in history.items()}
    return ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())


def _thinned(values: list[float]) -> list[float]:
    """The means of at most so many equal stretches, to go with the weights."""
    stretch = math.ceil(len(values) / _POINTS)
    parts = (values[start : start + stretch] for start in range(0, len(values), stretch or 1))
    return [round(sum(part) / len(part), 4) for part in parts]


@torch.no_grad()
def named_styles(encoder: Encoder, scenes: Scenes, batch_size: int = 32) -> dict[str, Tensor]:
    """The mean latent of each city, each time of day, and each pair of them -> (z_dim,) each.

    Names are those of the scenes: "dusk", "Sonnental", and "Sonnental, dusk" for a pair; a data set
    that has only one city or one time of day has no pairs.
    """
    device = next(encoder.parameters()).device
    singles: dict[str, list[Tensor]] = {}
    pairs: dict[tuple[str, str], list[Tensor]] = {}
    for indices in progress(torch.arange(len(scenes)).split(batch_size), "styles"):
        part = [scenes[int(index)] for index in indices]
        image_u8 = torch.stack([scene.image_u8 for scene in part]).to(device)
        for scene, mu in zip(part, encoder(u8_to_pm1(image_u8))[0].cpu(), strict=True):
            pair = (scene.city, scene.time_of_day)
            pairs.setdefault(pair, []).append(mu)
            for name in pair:
                singles.setdefault(name, []).append(mu)
    styles = {name: singles[name] for name in sorted(singles)}
    # With one city, "Cambridge, dusk" would be "dusk" again.
    if all(len(set(names)) > 1 for names in zip(*pairs)):
        styles |= {", ".join(pair): pairs[pair] for pair in sorted(pairs)}
    return {name: torch.stack(latents).mean(0) for name, latents in styles.items()}


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


def start_from(
    paths: Sequence[Path],
    network: VariationalGenerator,
    discriminator: nn.Module,
    classifier: StyleClassifier | None = None,
) -> None:
    """Take over the weights of an earlier training, in place; it may have lacked styles and grain.

    Args:
        paths: a run's last.pt; or a generator's file and, if it has a latent, its encoder's, which
            hold no discriminator: that one stays as it is.  Or all of them: generator and encoder
            of the files, and the rest of the run.
        classifier: of the run to come; stays as it is where the earlier one had none.

    Raises:
        FileNotFoundError, ValueError: no such file, or one of other networks.
    """
    if paths[0].suffix == ".pt":
        saved = load_torch_file(paths[0])
        for name, part in (("network", network), ("discriminator", discriminator)):
            if not isinstance(saved, dict) or name not in saved:
                raise ValueError(f"{paths[0]} holds no {name}: expected the last.pt of such a run.")
            _take_over(part, saved[name], paths[0])
        if classifier is not None and "classifier" in saved:
            _take_over(classifier, saved["classifier"], paths[0])
        if len(paths) == 1:
            return
        paths = paths[1:]
    parts = [part for part in (network.generator, network.encoder) if part is not None]
    if len(paths) != len(parts):
        raise ValueError(
            f"There are {len(paths)} files to start from: expected "
            f"{'a generator and its encoder' if len(parts) == 2 else 'a generator alone'}."
        )
    for part, read, path in zip(parts, (load_generator, load_encoder), paths, strict=False):
        vectors = {k: v for k, v in part.state_dict().items() if k.endswith(("_u", "_v"))}
        # A folded weight is one whose largest singular value is 1: normalising leaves it alone.
        state = {
            f"{key}_orig" if f"{key}_u" in vectors else key: value
            for key, value in read(path).state_dict().items()
        }
        _take_over(part, state | vectors, path)
        find_singular_vectors(part, 50)


def _take_over(part: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load weights.  Styled layers and grain that they lack begin at 0: it draws as it did."""
    own = part.state_dict()
    fresh = {k: torch.zeros_like(v) for k, v in own.items() if ".mlp_style." in k or ".mix." in k}
    fresh |= {k: v for k, v in own.items() if k.endswith("planes")}
    try:
        part.load_state_dict(fresh | state)
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"{path} does not fit the networks to train: {reason}") from error


def perceptual_loss(name: str, texture: float = 0.0) -> PerceptualLoss | None:
    """The loss of that name: "none", "vgg19", or the file of a segmentation network's weights."""
    if name == "none":
        return None
    if name == "vgg19":
        return PerceptualLoss.of_vgg19(texture)
    return PerceptualLoss.of_segmentation(load_segmentation(name)[0], texture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="toy", choices=("toy", "camvid", "cityscapes"))
    parser.add_argument("--root", help="the data set's folder")
    parser.add_argument("--size", default="256x128", type=width_and_height, help="WIDTHxHEIGHT")
    parser.add_argument("--scenes", type=int, help="how many training scenes; all by default")
    parser.add_argument("--ngf", type=int, default=32, help="width of the generator's last block")
    parser.add_argument("--hidden", type=int, default=48, help="width of SPADE's hidden layer")
    parser.add_argument("--max-channels", type=int, default=256, help="no block is wider")
    parser.add_argument("--upsampling", default="more", choices=("normal", "more", "most"))
    parser.add_argument("--styled-layers", action="store_true", help="z in every layer")
    parser.add_argument("--grain", action="store_true", help="learned noise in every block")
    parser.add_argument("--z-dim", type=int, default=64, help="numbers in the latent; 0 for none")
    parser.add_argument("--encoder-ngf", type=int, default=16, help="width of the encoder")
    parser.add_argument("--ndf", type=int, default=32, help="width of the discriminator")
    parser.add_argument("--pictures", type=int, default=20_000, help="to train on, in all")
    parser.add_argument("--batch-size", type=int, default=8, help="all processes together")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--schedule", default="linear", choices=tuple(SCHEDULES))
    parser.add_argument("--matching-weight", type=float, default=PUBLISHED_WEIGHTS.matching)
    parser.add_argument("--perceptual-weight", type=float, default=PUBLISHED_WEIGHTS.perceptual)
    parser.add_argument("--kl-weight", type=float, default=PUBLISHED_WEIGHTS.kl)
    parser.add_argument(
        "--style-weight",
        type=float,
        default=PUBLISHED_WEIGHTS.style,
        help="of city and time of day in z",
    )
    parser.add_argument(
        "--head-start", type=int, default=HEAD_START, help="pictures that the encoder sees first"
    )
    parser.add_argument("--precision", default="fp32", choices=tuple(PRECISIONS))
    parser.add_argument(
        "--perceptual", default="none", help="none, vgg19, or weights of a segmentation network"
    )
    parser.add_argument(
        "--texture-weight", type=float, default=0, help="of textures, in the perceptual loss"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--save-every", type=int, default=1600, help="pictures between two checkpoints"
    )
    parser.add_argument("--cache", default="data/cache", help="folder for decoded scenes")
    parser.add_argument(
        "--start",
        nargs="+",
        type=Path,
        help="last.pt of a run to start from, or the weights of a generator and of its encoder, "
        "or all three: with these two, and the discriminator of the run; "
        "those of half the size and --upsampling normal, for --upsampling more, have the same "
        "start grid and so the same weights",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and weights")
    arguments = parser.parse_args()

    train_scenes, val_scenes = (
        open_scenes(arguments.dataset, split, arguments.root, arguments.size)
        for split in ("train", "val")
    )
    train_scenes = cached(train_scenes[: arguments.scenes], arguments.cache)
    torch.manual_seed(arguments.seed)
    z_dim = arguments.z_dim or None
    generator = SpadeGenerator(
        arguments.ngf,
        arguments.upsampling,
        z_dim,
        arguments.size,
        arguments.hidden,
        max_channels=arguments.max_channels,
        styled_layers=arguments.styled_layers,
        grain=arguments.grain,
    )
    encoder = Encoder(arguments.encoder_ngf, z_dim) if z_dim else None
    discriminator = MultiscaleDiscriminator(arguments.ndf)
    network = VariationalGenerator(generator, encoder)
    for part in (network, discriminator):
        xavier_start(part)
    classifier = None
    if arguments.style_weight and encoder is not None:
        classifier = StyleClassifier(style_labels(train_scenes)[0], generator.z_dim)
    if arguments.start:
        start_from(arguments.start, network, discriminator, classifier)
    train_spade(
        generator,
        discriminator,
        train_scenes,
        arguments.pictures,
        encoder,
        perceptual_loss(arguments.perceptual, arguments.texture_weight),
        Recipe(
            arguments.batch_size,
            arguments.learning_rate,
            arguments.schedule,
            LossWeights(
                arguments.matching_weight,
                arguments.perceptual_weight,
                arguments.kl_weight,
                arguments.style_weight,
            ),
            arguments.head_start,
            seed=arguments.seed,
        ),
        classifier,
        arguments.precision,
        arguments.out,
        arguments.save_every,
        preview=val_scenes.spread(4),
    )
    if not PartialState().is_main_process:
        return
    if encoder is not None:
        generator.styles = named_styles(encoder, train_scenes)
        save_encoder(encoder, arguments.out / "encoder.safetensors", compact=True)
    save_generator(generator, arguments.out / "generator.safetensors", compact=True)
    print(f"wrote {arguments.out / 'generator.safetensors'}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
