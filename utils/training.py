"""Training the segmentation network: train_one_epoch, evaluate, and the loop around them.

    history = train(SegmentationNet(), train_scenes, val_scenes, epochs=25)

From a shell, resumable at any epoch:

    python -m utils.training --dataset toy --size 256x128 --out runs/segmentation_toy
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.nn import functional as F

from utils.augmentation import Augmentation
from utils.cache import CachedScenes, cached
from utils.metrics import SegmentationResult, SegmentationScore
from utils.modes import evaluation_mode
from utils.progress import progress
from utils.scenes import Scenes, open_scenes
from utils.segmentation import SegmentationNet, load_segmentation, save_segmentation
from utils.weights import load_checkpoint, save_checkpoint

History = dict[str, list]  # what the weights have been through: one entry an epoch in each list
HISTORY_KEYS = ("scenes", "train_loss", "val_loss", "val_miou", "val_accuracy", "seconds")


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[torch.Tensor]:
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


# How much of the learning rate is left after this share of the training, 0..1.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "polynomial": lambda done: (1 - done) ** 0.9,
}


def train_one_epoch(
    network,
    optimizer,
    accelerator,
    scenes: Scenes,
    batches: Sequence[torch.Tensor],
    learning_rates: Sequence[float],
    augment: Augmentation,
    seed: int,
) -> float:
    """One pass over the batches, each of them augmented -> the mean training loss."""
    network.train()
    generator = torch.Generator().manual_seed(seed)
    loss_sum, seen = torch.zeros((), device=accelerator.device), 0
    bar = progress(zip(batches, learning_rates), "training", len(batches))
    for indices, learning_rate in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        image_u8, label_ids = (x.to(accelerator.device) for x in scenes.batch(indices))
        image_u8, label_ids = augment(image_u8, label_ids, generator=generator)
        with accelerator.autocast():
            loss = F.cross_entropy(network(image_u8), label_ids.long())
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        loss_sum += loss.detach() * len(indices)
        seen += len(indices)
        bar.set_postfix_str(f"loss {loss_sum / seen:.3f}", refresh=False)
    return (loss_sum / seen).item()


@torch.no_grad()
def evaluate(
    network: SegmentationNet, scenes: Scenes, batch_size: int = 32
) -> tuple[float, SegmentationResult]:
    """Loss and scores over all scenes, in evaluation mode -> (mean loss a pixel, scores)."""
    device = next(network.parameters()).device
    score, loss_sum = SegmentationScore(), 0.0
    with evaluation_mode(network):
        for indices in progress(torch.arange(len(scenes)).split(batch_size), "validation"):
            image_u8, label_ids = (x.to(device) for x in scenes.batch(indices))
            scores = network(image_u8)
            loss_sum += F.cross_entropy(scores, label_ids.long()).item() * len(indices)
            score.update(scores.argmax(1), label_ids)
    return loss_sum / len(scenes), score.compute()


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
) -> History:
    """Train end to end with Adam, on whatever Accelerate finds (CPU, GPU, mixed precision).

    Args:
        network: trained in place.
        train_scenes, val_scenes: scenes of one size; cached() ones are much faster.
        schedule: how the learning rate falls over all epochs: "constant", "cosine" or "polynomial"
            (power 0.9).
        folder: where a checkpoint is kept after each epoch; a run that finds one there goes on
            from it.  None keeps nothing.
        augment: what happens to the training scenes; by default half of them are mirrored.

    Returns:
        A list for each of HISTORY_KEYS with one entry an epoch: the scenes' data set and size,
        train_loss (running mean while training), val_loss, val_miou, val_accuracy and seconds.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"There is no schedule {schedule!r}: expected {', '.join(SCHEDULES)}.")
    accelerator = Accelerator()
    history: History = {key: [] for key in HISTORY_KEYS}
    network.to(accelerator.device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    parts = {"network": network, "optimizer": optimizer}
    checkpoint = None if folder is None else Path(folder) / "last.pt"
    if checkpoint is not None and checkpoint.is_file():
        history = load_checkpoint(checkpoint, parts, accelerator.device)
    prepared, optimizer = accelerator.prepare(network, optimizer)
    augment = augment or Augmentation(train_scenes.size)
    train_scenes, val_scenes = (
        scenes.to(accelerator.device) if isinstance(scenes, CachedScenes) else scenes
        for scenes in (train_scenes, val_scenes)
    )
    for epoch in range(len(history["train_loss"]), epochs):
        start = time.perf_counter()
        batches = epoch_batches(len(train_scenes), batch_size, seed, epoch)
        learning_rates = [
            learning_rate * SCHEDULES[schedule]((epoch + step / len(batches)) / epochs)
            for step in range(len(batches))
        ]
        train_loss = train_one_epoch(
            prepared,
            optimizer,
            accelerator,
            train_scenes,
            batches,
            learning_rates,
            augment,
            seed=seed + epoch,
        )
        val_loss, result = evaluate(network, val_scenes, batch_size)
        seconds = time.perf_counter() - start
        scenes = "{} {}x{}".format(train_scenes.dataset, *train_scenes.size)
        entry = (scenes, train_loss, val_loss, result.miou, result.accuracy, seconds)
        for key, value in zip(HISTORY_KEYS, entry, strict=True):
            history[key].append(value)
        losses = f"training loss {train_loss:.3f}, validation {val_loss:.3f}"
        print(f"epoch {epoch + 1}: {losses}, {result}", flush=True)
        if checkpoint is not None:
            save_checkpoint(checkpoint, parts, history)
    return history


def join_histories(earlier: History, later: History) -> History:
    """The history of weights that were trained, and then trained on."""
    return {key: earlier[key] + later[key] for key in HISTORY_KEYS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="toy", choices=("toy", "camvid", "cityscapes"))
    parser.add_argument("--root", help="the data set's folder")
    parser.add_argument("--size", default="256x128", help="WIDTHxHEIGHT")
    parser.add_argument("--start", default="random", help="random, imagenet, or a file of weights")
    parser.add_argument("--output-stride", type=int, default=8, choices=(8, 16, 32))
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--schedule", default="constant", choices=tuple(SCHEDULES))
    parser.add_argument("--scenes", type=int, help="how many training scenes; all by default")
    parser.add_argument("--cache", default="data/cache", help="folder for decoded scenes")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint and weights")
    arguments = parser.parse_args()

    width, height = (int(side) for side in arguments.size.split("x"))
    train_scenes, val_scenes = (
        cached(
            open_scenes(arguments.dataset, split, arguments.root, (width, height))[:count],
            arguments.cache,
        )
        for split, count in (("train", arguments.scenes), ("val", None))
    )
    torch.manual_seed(0)
    network = SegmentationNet(
        pretrained=arguments.start == "imagenet", output_stride=arguments.output_stride
    )
    earlier = {}
    if arguments.start not in ("random", "imagenet"):
        start, earlier = load_segmentation(arguments.start)
        network.backbone.load_state_dict(start.backbone.state_dict())
        network.score.load_state_dict(start.score.state_dict())
    history = train(
        network,
        train_scenes,
        val_scenes,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        schedule=arguments.schedule,
        folder=arguments.out,
    )
    if earlier:
        history = join_histories(earlier, history)
    save_segmentation(network, arguments.out / "segmentation.safetensors", history, compact=True)
    print(f"wrote {arguments.out / 'segmentation.safetensors'}")


if __name__ == "__main__":
    main()
