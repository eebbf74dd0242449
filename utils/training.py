"""Training the segmentation network: train_one_epoch, evaluate, and the loop around them.

    history = train(SegmentationNet(), train_scenes, val_scenes, epochs=25)

From a shell, on whatever Accelerate finds; started again, it goes on after the last whole epoch:

    python -m utils.training --dataset toy --size 256x128 --out runs/segmentation_toy
    accelerate launch --num_processes 2 -m utils.training ...        # several GPUs
"""

import argparse
import contextlib
import math
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import PartialState
from torch import Tensor, nn

from utils.augmentation import Augmentation
from utils.cache import CachedScenes, cached
from utils.commands import exit_status, width_and_height
from utils.engine.accelerator import CHECK_EVERY, PRECISIONS, diverged, make_accelerator
from utils.engine.batch_norm import synchronize_batch_norm
from utils.engine.graphs import Recorder, send
from utils.engine.precision import evaluation_mode, float32_again
from utils.images import resize_image, resize_map
from utils.labels import ID, NUM_LABELS
from utils.metrics import SegmentationResult, SegmentationScore
from utils.progress import progress
from utils.scenes import Scenes, open_scenes
from utils.segmentation import (
    BACKBONES,
    STRIDES,
    SegmentationNet,
    load_segmentation,
    save_segmentation,
)
from utils.weights import load_checkpoint, save_checkpoint

History = dict[str, list]  # what the weights have been through: one entry an epoch in each list
HISTORY_KEYS = ("scenes", "train_loss", "val_loss", "val_miou", "val_accuracy", "seconds")

# How much of the learning rate is left after this share of the training, 0..1.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "polynomial": lambda done: (1 - done) ** 0.9,
}


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """The indices 0..count-1 in an order that depends on seed and epoch only, cut into batches.

    What is left over at the end is dropped: batch norm dislikes a batch of one.
    """
    if count < batch_size:
        raise ValueError(
            f"There are {count} scenes, fewer than a batch of {batch_size}: take more scenes, or a "
            "smaller batch."
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
    return list(order[: count // batch_size * batch_size].split(batch_size))


def balanced_weights(scenes: Scenes) -> Tensor:
    """A weight for each of the 34 labels, larger for rare ones -> (34,) float, for pixel_loss().

    The mean over the scenes' pixels is 1, so that the learning rate keeps its meaning.

    Source: Paszke et al., "ENet", arXiv:1606.02147, section 5.2: 1 / ln(1.02 + share).
    """
    counts = torch.zeros(NUM_LABELS, dtype=torch.float64)
    for indices in progress(torch.arange(len(scenes)).split(64), "counting classes"):
        label_ids = scenes.batch(indices)[1].cpu()
        counts += torch.bincount(label_ids.flatten().long(), minlength=NUM_LABELS)
    shares = counts / counts.sum()
    weights = 1 / torch.log(1.02 + shares)
    return (weights / (shares * weights).sum()).float()


def pixel_loss(scores: Tensor, label_ids: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of the pixels, each times its label's weight, if there are weights.

    Divided by the number of pixels, not by the sum of their weights as torch would: so the mean
    over several processes is what one process with the whole batch computes.

    Args:
        scores: (B, 34, H, W) float.
        label_ids: (B, H, W), 0..33.
        class_weights: (34,) float; 0 leaves a label out.
    """
    total = F.cross_entropy(scores.float(), label_ids.long(), class_weights, reduction="sum")
    return total / label_ids.numel()


def training_batch(
    scenes: Scenes,
    indices: Tensor,
    accelerator: Accelerator,
    augment: Augmentation,
    half_size: float,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """This process's part of a batch, augmented: a pure function of indices and seed.

    Returns:
        image_u8 (B, 3, H, W) and label_ids (B, H, W) on the device; in a share of the batches,
        half_size, H and W are halved, so that the network also learns to see small.
    """
    generator = torch.Generator().manual_seed(seed)
    seeds = torch.randint(2**62, (len(indices),), generator=generator)
    is_halved = bool(torch.rand((), generator=generator) < half_size)
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    pixels = (send(x, accelerator.device) for x in scenes.batch(indices[mine]))
    image_u8, label_ids = augment(*pixels, seeds=seeds[mine])
    if is_halved:
        size = (image_u8.shape[-1] // 2, image_u8.shape[-2] // 2)
        image_u8, label_ids = resize_image(image_u8, size), resize_map(label_ids, size)
    return image_u8, label_ids


class TrainingStep:
    """Loss, gradients, and a step of the optimizer: (image_u8, label_ids) -> the loss, a scalar.

    Args:
        network, optimizer: prepared by the accelerator.
        class_weights: see pixel_loss().
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
        class_weights: Tensor | None = None,
    ):
        self.network, self.optimizer, self.accelerator = network, optimizer, accelerator
        self.class_weights = class_weights
        self._compute = Recorder(network.parameters())

    def __call__(self, image_u8: Tensor, label_ids: Tensor) -> Tensor:
        (loss,) = self._compute(self._gradients, image_u8, label_ids)
        self.optimizer.step()
        return loss.clone()  # the next step overwrites it

    def _gradients(self, image_u8: Tensor, label_ids: Tensor) -> tuple[Tensor]:
        loss = pixel_loss(self.network(image_u8), label_ids, self.class_weights)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        return (loss.detach(),)


def train_one_epoch(
    training_step: TrainingStep,
    scenes: Scenes,
    batches: Sequence[Tensor],
    learning_rates: Sequence[float],
    augment: Augmentation,
    seed: int,
    half_size: float = 0.0,
) -> float:
    """One pass over the batches -> the mean training loss of all processes.

    Raises FloatingPointError, which tells the step, if the loss is infinite or not a number.
    """
    accelerator = training_step.accelerator
    training_step.network.train()
    losses = torch.zeros(len(batches), device=accelerator.device)
    bar = progress(
        zip(batches, learning_rates),
        "training",
        len(batches),
        hidden=not accelerator.is_main_process,
    )
    for step, (indices, learning_rate) in enumerate(bar):
        for group in training_step.optimizer.param_groups:
            group["lr"] = learning_rate
        batch = training_batch(scenes, indices, accelerator, augment, half_size, seed + step)
        losses[step] = training_step(*batch)
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == len(batches):
            seen = accelerator.reduce(losses[: step + 1], "mean")  # in all processes alike
            if not seen.isfinite().all():
                bad = int((~seen.isfinite()).nonzero()[0])
                raise FloatingPointError(f"The loss is {seen[bad]} in step {bad + 1}")
            bar.set_postfix_str(f"loss {seen.mean():.3f}", refresh=False)
    return seen.mean().item()


@torch.no_grad()
def evaluate(
    network: SegmentationNet,
    scenes: Scenes,
    batch_size: int = 32,
    accelerator: Accelerator | None = None,
) -> tuple[float, SegmentationResult]:
    """Loss and scores over all scenes, in evaluation mode -> (mean loss a pixel, scores).

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
            loss = pixel_loss(scores, label_ids)
            losses += torch.stack([loss, loss.new_ones(())]) * len(indices)  # sum, count
            score.update(scores.argmax(1), label_ids)
    if processes > 1:
        losses = accelerator.reduce(losses, "sum")
    return (losses[0] / losses[1]).item(), score.compute()


def train(
    network: SegmentationNet,
    train_scenes: Scenes,
    val_scenes: Scenes,
    epochs: int = 25,
    batch_size: int = 32,
    learning_rate: float = 1e-4,
    schedule: str = "constant",
    folder: str | Path | None = None,
    seed: int = 0,
    augment: Augmentation | None = None,
    half_size: float = 0.0,
    class_weights: Tensor | None = None,
    precision: str = "fp32",
) -> History:
    """Train end to end with Adam, on whatever Accelerate finds: CPU, GPU, several of them.

    Args:
        network: trained in place; its head alone after network.freeze_backbone().
        train_scenes, val_scenes: scenes of one size; cached() ones are much faster.
        batch_size: scenes a step, all processes together.
        schedule: how the learning rate falls over all epochs: "constant", "cosine" or "polynomial"
            (power 0.9).
        folder: where last.pt, a checkpoint, is kept after each epoch, and best.safetensors, the
            network with the best mIoU so far; a run that finds a checkpoint goes on from it, and
            ends (on the CPU, with as many threads) with the same bits as one that was never
            interrupted.  None keeps nothing.
        seed: of the order and the augmentation of the scenes; no other randomness is used.
        augment: what happens to the training scenes; by default half of them are mirrored.
        half_size: share of the batches in which the scenes are halved in size, 0..1.
        class_weights: (34,) float, see balanced_weights() and pixel_loss(); None counts every pixel
            once.
        precision: "fp32", "bf16" or "fp16" (GPUs only); weights are kept in float32.

    Returns:
        A list for each of HISTORY_KEYS with one entry an epoch: the scenes' data set and size,
        train_loss (running mean while training), val_loss, val_miou, val_accuracy and seconds.

    Raises:
        ValueError: fewer scenes than a batch, an unknown schedule or precision, or a checkpoint of
            another training.
        FloatingPointError: the loss is no number any more; names the step and what is left.
        OSError: no room for the checkpoint; the one before it stays.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"There is no schedule {schedule!r}: expected {', '.join(SCHEDULES)}.")
    accelerator = make_accelerator(precision, batch_size)
    device = accelerator.device
    if accelerator.num_processes > 1:
        synchronize_batch_norm(network)
    network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    parts = {"network": network, "optimizer": optimizer}
    if accelerator.scaler is not None:  # fp16
        parts["scaler"] = accelerator.scaler
    # What must not change between two parts of one training.
    trained_on = "{} {}x{}".format(train_scenes.dataset, *train_scenes.size)
    made_by = network.settings | {
        "scenes": f"{trained_on}, {len(train_scenes)} scenes",
        "batch_size": batch_size, "learning_rate": learning_rate, "schedule": schedule,
        "epochs": "any" if schedule == "constant" else epochs, "seed": seed,
        "half_size": half_size, "class_weights": _fingerprint(class_weights),
        "frozen backbone": network.is_frozen,
    }  # fmt: skip
    plain = Augmentation(train_scenes.size)
    augment = augment or plain
    made_by["augmentation"] = augment.settings if augment.settings != plain.settings else None
    history: History = {key: [] for key in HISTORY_KEYS}
    prepared, prepared_optimizer = accelerator.prepare(network, optimizer)
    folder = None if folder is None else Path(folder)
    class_weights = None if class_weights is None else class_weights.to(device)
    training_step = TrainingStep(prepared, prepared_optimizer, accelerator, class_weights)
    train_scenes, val_scenes = (
        scenes.to(device) if isinstance(scenes, CachedScenes) else scenes
        for scenes in (train_scenes, val_scenes)
    )
    with float32_again(accelerator, prepared):
        if folder is not None and (folder / "last.pt").is_file():
            # After prepare(), which moves Adam's counts to the GPU: see load_checkpoint().
            history = load_checkpoint(folder / "last.pt", parts, made_by)
        for epoch in range(len(history["train_loss"]), epochs):
            start = time.perf_counter()
            batches = epoch_batches(len(train_scenes), batch_size, seed, epoch)
            learning_rates = [
                learning_rate * SCHEDULES[schedule]((epoch + step / len(batches)) / epochs)
                for step in range(len(batches))
            ]
            try:
                train_loss = train_one_epoch(
                    training_step,
                    train_scenes,
                    batches,
                    learning_rates,
                    augment,
                    seed=(seed * 100_003 + epoch) * 100_003,
                    half_size=half_size,
                )
            except FloatingPointError as error:
                kept = "nothing was kept before it"
                if folder is not None and epoch:
                    kept = f"{folder / 'last.pt'} holds the epoch before it"
                raise diverged(f"{error} of epoch {epoch + 1}", kept) from error
            val_loss, result = evaluate(network, val_scenes, batch_size, accelerator)
            seconds = time.perf_counter() - start
            entry = (trained_on, train_loss, val_loss, result.miou, result.accuracy, seconds)
            for key, value in zip(HISTORY_KEYS, entry, strict=True):
                history[key].append(value)
            losses = f"training loss {train_loss:.3f}, validation {val_loss:.3f}"
            accelerator.print(f"epoch {epoch + 1}: {losses}, {result}", flush=True)
            if folder is not None and accelerator.is_main_process:
                # The best first: whoever is killed between the two repeats the epoch.
                if result.miou == max(history["val_miou"]):
                    save_segmentation(network, folder / "best.safetensors", history)
                save_checkpoint(folder / "last.pt", parts, history, made_by)
        accelerator.wait_for_everyone()
    optimizer.zero_grad()  # gradients hold a GPU's memory
    return history


def _fingerprint(class_weights: Tensor | None) -> str | None:
    if class_weights is None:
        return None
    return f"with checksum {zlib.crc32(class_weights.cpu().float().numpy().tobytes()):08x}"


def join_histories(earlier: History, later: History) -> History:
    """The history of weights that were trained, and then trained on."""
    return {key: earlier[key] + later[key] for key in HISTORY_KEYS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="toy", choices=("toy", "camvid", "cityscapes"))
    parser.add_argument("--root", help="the data set's folder")
    parser.add_argument("--size", default="256x128", type=width_and_height, help="WIDTHxHEIGHT")
    parser.add_argument("--scenes", type=int, help="how many training scenes; all by default")
    parser.add_argument("--val-scenes", type=int, help="how many to validate with; all by default")
    parser.add_argument(
        "--backbone", choices=tuple(BACKBONES), help="that of --start, or else resnet34"
    )
    parser.add_argument("--head", choices=("fcn", "unet"), help="that of --start, or else fcn")
    parser.add_argument(
        "--finest-stride", type=int, choices=STRIDES, help="that of --start, or else 2"
    )
    parser.add_argument(
        "--start",
        default="random",
        help="random, imagenet, or a file of weights; with another --head its backbone alone",
    )
    parser.add_argument(
        "--freeze-backbone", action="store_true", help="train the head alone, which is faster"
    )
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--batch-size", type=int, default=32, help="all processes together")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--schedule", default="constant", choices=tuple(SCHEDULES))
    parser.add_argument("--precision", default="fp32", choices=tuple(PRECISIONS))
    parser.add_argument("--scale", type=float, default=1, help="least share of the area in a crop")
    parser.add_argument("--color", type=float, default=0, help="strength of changes of colour")
    parser.add_argument("--half-size", type=float, default=0, help="share of batches halved")
    parser.add_argument("--balanced", action="store_true", help="rare classes weigh more")
    parser.add_argument(
        "--ignore-unlabeled", action="store_true", help="learn nothing from label 0"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", default="data/cache", help="folder for decoded scenes")
    parser.add_argument(
        "--out", type=Path, required=True, help="for last.pt, best.safetensors and the result"
    )
    arguments = parser.parse_args()

    train_scenes, val_scenes = (
        cached(
            open_scenes(arguments.dataset, split, arguments.root, arguments.size)[:count],
            arguments.cache,
        )
        for split, count in (("train", arguments.scenes), ("val", arguments.val_scenes))
    )
    torch.manual_seed(arguments.seed)
    if arguments.start in ("random", "imagenet"):
        pretrained, earlier = arguments.start == "imagenet", None
        network = SegmentationNet(
            arguments.backbone or "resnet34",
            arguments.head or "fcn",
            pretrained,
            arguments.finest_stride or 2,
        )
    else:
        network, earlier = load_segmentation(arguments.start)
        for option in ("backbone", "finest_stride"):
            there, wanted = network.settings[option], getattr(arguments, option)
            if wanted not in (None, there):
                raise ValueError(
                    f"{arguments.start} has {option} {there}: leave --{option.replace('_', '-')} "
                    f"{wanted} out, or start from other weights."
                )
        if arguments.head not in (None, network.settings["head"]):
            trained, earlier = network, None
            network = SegmentationNet(**trained.settings | {"head": arguments.head})
            network.encoder.load_state_dict(trained.encoder.state_dict())
    if arguments.freeze_backbone:
        network.freeze_backbone()
    class_weights = None
    if arguments.balanced or arguments.ignore_unlabeled:
        class_weights = torch.ones(NUM_LABELS)
        if arguments.balanced:
            class_weights = balanced_weights(train_scenes)
        if arguments.ignore_unlabeled:
            class_weights[ID["unlabeled"]] = 0
    history = train(
        network,
        train_scenes,
        val_scenes,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        schedule=arguments.schedule,
        folder=arguments.out,
        seed=arguments.seed,
        augment=Augmentation(arguments.size, scale=(arguments.scale, 1), color=arguments.color),
        half_size=arguments.half_size,
        class_weights=class_weights,
        precision=arguments.precision,
    )
    if PartialState().is_main_process:
        best, _ = load_segmentation(arguments.out / "best.safetensors")
        if earlier:
            history = join_histories(earlier, history)
        path = arguments.out / "segmentation.safetensors"
        save_segmentation(best, path, history, compact=True)
        print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
