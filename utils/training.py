"""Training the segmentation network: a step, a batch, evaluation, and the loop around them.

    history = train(SegmentationNet(), train_scenes, val_scenes, Recipe(epochs=25))

From a shell, on the devices that Accelerate finds; the same command continues an interrupted run:

    python -m utils.training --dataset toy --size 256x128 --out runs/segmentation_toy
    python -m utils.training --recipe data/weights/segmentation_toy.toml --out runs/segmentation_toy
    accelerate launch --num_processes 2 -m utils.training ...        # several GPUs
"""

import contextlib
import math
import runpy
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from utils.augmentation import Augmentation
from utils.engine.accelerator import make_accelerator, place, scaler_of
from utils.engine.graphs import graphed, send
from utils.engine.precision import evaluation_mode, restored
from utils.engine.rates import set_rate, shares_of_rate
from utils.engine.run import LossLog, Run
from utils.images import resize_image, resize_map
from utils.meanings import kinds_to_learn, meanings_checksum, of_meant, possible_labels
from utils.metrics import SegmentationResult, SegmentationScore
from utils.overlap import overlap_loss
from utils.progress import progress
from utils.recipes import check_values, option
from utils.scenes import Scenes, count_labels
from utils.segmentation import SegmentationNet, save_segmentation

History = dict[str, list]  # one list for each of HISTORY_KEYS, one entry an epoch
HISTORY_KEYS = ("scenes", "train_loss", "val_loss", "val_miou", "val_accuracy", "seconds")

# The factor of the learning rate after a share 0..1 of the training.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "polynomial": lambda done: (1 - done) ** 0.9,
}


@dataclass(frozen=True)
class Recipe:
    """The settings of a training.

    A continued run may have more epochs if the schedule is constant; nothing else may differ.

    Raises ValueError for an unknown schedule, and for numbers that are too small or too large.
    """

    epochs: int = option(25, "passes over the training scenes", least=1)
    batch_size: int = option(32, "scenes a step, all processes together", least=1)
    learning_rate: float = option(1e-4, "of Adam", least=0)
    schedule: str = option("constant", "how the rate falls over all epochs", SCHEDULES)
    backbone_rate: float = option(1.0, "rate of the backbone, as a share of that rate", least=0)
    scale: float = option(
        1.0, "least share of a scene's area in a crop; 1 crops nothing", least=0.01, most=1
    )
    crop: tuple[int, int] | None = option(
        None, "WIDTHxHEIGHT that the network sees of each scene; all of it by default", least=64
    )
    color: float = option(0.0, "strength of random colours, below 1", least=0, most=0.99)
    overlap: float = option(0.0, "weight of each class's overlap, beside the pixels'", least=0)
    half_size: float = option(0.0, "share of batches halved in size, 0..1", least=0, most=1)
    seed: int = option(0, "of the order and the augmentation of the scenes")

    def __post_init__(self):
        check_values(self)

    def rate(self, done: float) -> float:
        """The learning rate after this share of the training, 0..1."""
        return self.learning_rate * SCHEDULES[self.schedule](done)


DEFAULT_RECIPE = Recipe()


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """The indices 0..count-1 in an order that depends on seed and epoch only, cut into batches.

    What is left over at the end is dropped, because batch norm can't use a batch of one.
    """
    if count < batch_size:
        raise ValueError(
            f"There are {count} scenes, fewer than a batch of {batch_size}: take more scenes, or a "
            "smaller batch."
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
    return list(order[: count // batch_size * batch_size].split(batch_size))


def balanced_weights(scenes: Scenes, power: float = 1.0) -> Tensor:
    """A weight for each of the 34 labels, larger for rare ones -> (34,) float, for pixel_loss().

    The mean over the scenes' pixels is 1, so that the learning rate keeps its meaning.

    Args:
        power: 1 for the weights of the source, 0.5 for their roots, which differ less.

    Source: Paszke et al., "ENet", arXiv:1606.02147, section 5.2: 1 / ln(1.02 + share).
    """
    counts = count_labels(scenes)
    shares = counts / counts.sum()
    weights = (1 / torch.log(1.02 + shares)) ** power
    return (weights / (shares * weights).sum()).float()


def pixel_loss(
    scores: Tensor,
    label_ids: Tensor,
    class_weights: Tensor | None = None,
    possible: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of the pixels, each times its label's weight, if there are weights.

    The sum is divided by the number of pixels, not by the sum of their weights as in torch, so that
    the mean over several processes is what one process computes from the whole batch.

    Args:
        scores: (B, 34, H, W) float.
        label_ids: (B, H, W), 0..33.
        class_weights: (34,) float; 0 leaves a label out.
        possible: (B, 34, 34) bool, for each map and label the labels that it may mean, see
            utils.meanings: the loss is -log of the sum of their probabilities.  None: itself.
    """
    scores = scores.float()
    if possible is None:
        total = F.cross_entropy(scores, label_ids.long(), class_weights, reduction="sum")
        return total / label_ids.numel()
    meant = of_meant(scores, label_ids, possible, fill=-torch.inf).logsumexp(1)  # (B, H, W)
    losses = scores.logsumexp(1) - meant
    if class_weights is not None:
        losses = losses * class_weights[label_ids.long()]
    return losses.mean()


def training_batch(
    scenes: Scenes,
    indices: Tensor,
    accelerator: Accelerator,
    recipe: Recipe,
    seed: int,
    map_kinds: Sequence[str] = (),
) -> tuple[Tensor, ...]:
    """This process's part of a batch, augmented: a pure function of indices and seed.

    Args:
        map_kinds: of all scenes, see utils.meanings.kinds_to_learn().

    Returns:
        image_u8 (B, 3, H, W) and label_ids (B, H, W) on the device, and, if a label may mean
        several, possible (B, 34, 34) for pixel_loss().  In a share recipe.half_size of the
        batches, H and W are halved, so that the network also learns to recognise small objects.
    """
    generator = torch.Generator().manual_seed(seed)
    seeds = torch.randint(2**62, (len(indices),), generator=generator)
    is_halved = bool(torch.rand((), generator=generator) < recipe.half_size)
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    pixels = (send(x, accelerator.device) for x in scenes.batch(indices[mine]))
    image_u8, label_ids = augmentation(scenes, recipe)(*pixels, seeds=seeds[mine])
    if is_halved:
        size = (image_u8.shape[-1] // 2, image_u8.shape[-2] // 2)
        image_u8, label_ids = resize_image(image_u8, size), resize_map(label_ids, size)
    kinds = [map_kinds[index] for index in indices[mine]] if map_kinds else ()
    possible = possible_labels(kinds, accelerator.device)
    return (image_u8, label_ids) if possible is None else (image_u8, label_ids, possible)


def augmentation(scenes: Scenes, recipe: Recipe) -> Augmentation:
    """The augmentation of the training scenes: by the recipe, and half of them are mirrored."""
    width, height = scenes.size
    size = recipe.crop or scenes.size
    if recipe.scale == 1 and size[0] * height != size[1] * width:
        raise ValueError(
            f"crop is {size[0]}x{size[1]} and scenes are {width}x{height}: whole scenes would be "
            "squeezed; expected the same shape, or a scale below 1, which cuts crops out of them."
        )
    return Augmentation(size, scale=(recipe.scale, 1), color=recipe.color)


def segmentation_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    class_weights: Tensor | None,
    image_u8: Tensor,
    label_ids: Tensor,
    possible: Tensor | None = None,
    overlap: float = 0.0,
) -> Tensor:
    """One step of training: forward, loss, backward, step.

    Args:
        network, optimizer: prepared by the accelerator.
        class_weights, possible: see pixel_loss().
        image_u8: (B, 3, H, W).
        label_ids: (B, H, W).

    Returns:
        The loss, a scalar.
    """
    scores = network(image_u8)
    loss = pixel_loss(scores, label_ids, class_weights, possible)
    if overlap:
        loss = loss + overlap * overlap_loss(scores, label_ids, possible)
    optimizer.zero_grad()
    accelerator.backward(loss)
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def evaluate(
    network: SegmentationNet,
    scenes: Scenes,
    batch_size: int = 32,
    accelerator: Accelerator | None = None,
) -> tuple[float, SegmentationResult]:
    """Loss and scores over all scenes, in evaluation mode -> (mean loss a pixel, scores).

    Predictions get the names that each scene's map uses: for CamVid's maps a truck is a car.

    Args:
        accelerator: several processes share the work, and each gets the whole result; in its
            precision.  None: this process alone, in float32.
    """
    device = next(network.parameters()).device
    rank, processes, precision = 0, 1, contextlib.nullcontext()
    if accelerator is not None:
        rank, processes = accelerator.process_index, accelerator.num_processes
        precision = accelerator.autocast()
    score, losses = SegmentationScore(all_processes=processes > 1), torch.zeros(2, device=device)
    mine = torch.arange(len(scenes))[rank::processes].split(batch_size)
    with evaluation_mode(network), precision:
        for indices in progress(mine, "validation", hidden=rank > 0):
            image_u8, label_ids = (x.to(device) for x in scenes.batch(indices))
            scores = network(image_u8)
            kinds = scenes.map_kinds(indices)
            loss = pixel_loss(scores, label_ids, possible=possible_labels(kinds, device))
            losses += torch.stack([loss, loss.new_ones(())]) * len(indices)  # sum, count
            score.update(scores.argmax(1), label_ids, kinds)
    if processes > 1:
        losses = accelerator.reduce(losses, "sum")
    return (losses[0] / losses[1]).item(), score.compute()


def epoch_steps(
    scenes: Scenes, recipe: Recipe, epoch: int, accelerator: Accelerator, losses: LossLog
) -> Iterator[tuple]:
    """For each step of an epoch the learning rate and a training_batch(), with a progress bar that
    shows the losses."""
    batches = epoch_batches(len(scenes), recipe.batch_size, recipe.seed, epoch)
    seed = (recipe.seed * 100_003 + epoch) * 100_003
    kinds = kinds_to_learn(scenes.map_kinds(range(len(scenes))))
    bar = progress(batches, "training", hidden=not accelerator.is_main_process)
    for number, indices in enumerate(bar):
        rate = recipe.rate((epoch + number / len(batches)) / recipe.epochs)
        yield rate, *training_batch(scenes, indices, accelerator, recipe, seed + number, kinds)
        bar.set_postfix_str(losses.latest, refresh=False)


def run_settings(
    network: SegmentationNet,
    scenes: Scenes,
    val_scenes: Scenes,
    recipe: Recipe,
    class_weights: Tensor | None,
) -> dict:
    """Collect the settings that must not change when a run is continued."""
    settings = {field.name: getattr(recipe, field.name) for field in fields(Recipe)}
    # No augmentation but mirroring, and no weights, count as None.
    is_plain = (settings.pop("scale"), settings.pop("color")) == (1, 0)
    settings["backbone_rate"] = None if recipe.backbone_rate == 1 else recipe.backbone_rate
    if class_weights is not None:
        checksum = zlib.crc32(class_weights.cpu().float().numpy().tobytes())
        class_weights = f"with checksum {checksum:08x}"
    return network.settings | settings | {
        "epochs": "any" if recipe.schedule == "constant" else recipe.epochs,
        "scenes": f"{_described(scenes)}, {len(scenes)} scenes",
        "validation": None if val_scenes.dataset == scenes.dataset else val_scenes.dataset,
        "meanings": meanings_checksum(scenes.map_kinds(range(len(scenes)))),
        "augmentation": None if is_plain else augmentation(scenes, recipe).settings,
        "class_weights": class_weights,
        "frozen backbone": network.is_frozen,
    }  # fmt: skip


def _described(scenes: Scenes) -> str:
    return "{} {}x{}".format(scenes.dataset, *scenes.size)


def _keep(run: Run, network: SegmentationNet, parts: dict, history: History) -> None:
    """Save the best network, then the checkpoint: a kill in between repeats the epoch."""
    if run.folder is not None and history["val_miou"][-1] == max(history["val_miou"]):
        save_segmentation(network, run.folder / "best.safetensors", history)
    run.save(parts, history)


def train(
    network: SegmentationNet,
    train_scenes: Scenes,
    val_scenes: Scenes,
    recipe: Recipe = DEFAULT_RECIPE,
    folder: str | Path | None = None,
    precision: str = "fp32",
    class_weights: Tensor | None = None,
) -> History:
    """Train in place, on the devices that Accelerate finds: CPU, GPU, or several GPUs.

    Args:
        network: is trained as a whole; after network.freeze_backbone() only its head is.
        train_scenes, val_scenes: scenes of one size; cached() ones are much faster.
        folder: for last.pt, the checkpoint after the last epoch, and best.safetensors, the network
            with the best mIoU so far.  A run that finds a checkpoint continues from it; on a CPU
            with as many threads, the result is bit for bit that of an uninterrupted run.
        precision: "fp32", "bf16" or "fp16" (GPUs only); weights stay in float32.
        class_weights: (34,) float, see balanced_weights(); None counts every pixel once.

    Returns: the history; train_loss is the mean of an epoch's steps, while the network learned.

    Raises:
        ValueError: fewer scenes than a batch, no such precision, a checkpoint of another training.
        FloatingPointError: the loss is NaN or infinite; names the step and the last checkpoint.
        OSError: no room for the checkpoint; the one before it stays.
    """
    accelerator = make_accelerator(precision, recipe.batch_size)
    place(accelerator, network)
    train_scenes, val_scenes = (x.to(accelerator.device) for x in (train_scenes, val_scenes))
    weights = None if class_weights is None else class_weights.to(accelerator.device)
    shares = shares_of_rate(network, recipe.backbone_rate)
    optimizer = torch.optim.Adam(shares, lr=recipe.learning_rate)
    parts = {"network": network, "optimizer": optimizer} | scaler_of(accelerator)
    run = Run(folder, run_settings(network, train_scenes, val_scenes, recipe, class_weights))
    trained, optimizer = accelerator.prepare(network, optimizer)
    step = partial(
        segmentation_step, trained, optimizer, accelerator, weights, overlap=recipe.overlap
    )
    step = graphed(step, [optimizer], accelerator.device)
    with restored(accelerator, [trained], [optimizer]):
        history = run.load(parts) or {key: [] for key in HISTORY_KEYS}
        for epoch in range(len(history["train_loss"]), recipe.epochs):
            start, losses = time.perf_counter(), LossLog(accelerator, run, f" of epoch {epoch + 1}")
            trained.train()
            for rate, *batch in epoch_steps(train_scenes, recipe, epoch, accelerator, losses):
                set_rate(optimizer, rate)
                losses.add({"training": step(*batch)})
            train_loss = losses.means()["training"]
            val_loss, result = evaluate(network, val_scenes, recipe.batch_size, accelerator)
            scores = train_loss, val_loss, result.miou, result.accuracy
            entry = (_described(train_scenes), *scores, time.perf_counter() - start)
            for key, value in zip(HISTORY_KEYS, entry, strict=True):
                history[key].append(value)
            figures = f"training loss {train_loss:.3f}, validation {val_loss:.3f}, {result}"
            accelerator.print(f"epoch {epoch + 1}: {figures}", flush=True)
            if accelerator.is_main_process:
                _keep(run, network, parts, history)
        accelerator.wait_for_everyone()
    return history


if __name__ == "__main__":
    runpy.run_module("utils.stages", run_name="__main__")
