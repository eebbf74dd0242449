"""Bootstrap intervals of scores over scenes, and mIoU over the classes in enough scenes.

counts = confusions(predicted_ids, true_ids)            # (B, 34, 34), one for each scene
often = labels_in(counts, at_least=5)                   # labels that occur in 5 scenes or more
print(interval(lambda rows: mean_iou(rows, often), counts))     # 0.743 (0.712 to 0.768)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.labels import BENCHMARK_IDS, NUM_LABELS
from utils.meanings import as_named_by
from utils.metrics import iou_of

RESAMPLES = 1000
SHARE = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure of all scenes, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def interval(
    statistic: Callable[..., Tensor], *rows: Tensor, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Compute a statistic of all scenes, and its bootstrap interval over scenes.

    Args:
        statistic: gets the rows of the chosen scenes, of each tensor the same, and returns a
            scalar; for example a mean, or the difference of two mIoU.
        rows: (N, ...) each, one row for each scene.

    Raises ValueError for fewer than two scenes, or a different number of them.

    Source: Efron, "Bootstrap methods", Annals of Statistics 1979; the percentile interval.
    """
    count = len(rows[0])
    if count < 2 or any(len(x) != count for x in rows):
        raise ValueError(
            f"The rows are {[len(x) for x in rows]}: expected the same number of scenes in each, "
            "two or more."
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack(
        [
            torch.as_tensor(statistic(*(x[chosen] for x in rows))).double()
            for chosen in torch.randint(count, (resamples, count), generator=generator)
        ]
    )
    ends = torch.tensor([(1 - SHARE) / 2, (1 + SHARE) / 2], dtype=torch.double)
    low, high = drawn.nanquantile(ends).tolist()
    return Interval(float(statistic(*rows)), low, high)


def confusions(
    predicted_ids: Tensor, true_ids: Tensor, map_kinds: Sequence[str] | None = None
) -> Tensor:
    """Count for each scene how often a true label was predicted as another.

    Args:
        predicted_ids, true_ids: (B, H, W) label ids 0..33, of the same shape.
        map_kinds: see SegmentationScore.update().

    Returns:
        (B, 34, 34) double: of each scene, rows are true labels, columns predicted ones.
    """
    if map_kinds is not None:
        predicted_ids = as_named_by(map_kinds, predicted_ids)
    pairs = (true_ids.long() * NUM_LABELS + predicted_ids.long()).flatten(1).cpu()  # (B, H * W)
    counts = torch.stack([row.bincount(minlength=NUM_LABELS**2) for row in pairs])
    return counts.reshape(-1, NUM_LABELS, NUM_LABELS).double()


def by_photo(rows: Tensor, names: Sequence[str], mean: bool = False) -> Tensor:
    """Add up the rows of the scenes that were cut out of one photo, which are not independent.

    Args:
        rows: (N, ...), one for each scene.
        names: of the scenes; those of "streets" end in _left and _right where one photo gave two.
        mean: take the mean of a photo's rows instead of the sum.

    Returns:
        (photos, ...) in the order of the photos; rows itself where each scene is a photo.
    """
    photos = [name.removesuffix("_left").removesuffix("_right") for name in names]
    order = {photo: place for place, photo in enumerate(dict.fromkeys(photos))}
    places = torch.tensor([order[photo] for photo in photos])
    sums = torch.zeros(len(order), *rows.shape[1:], dtype=rows.dtype).index_add_(0, places, rows)
    if mean:
        sums /= places.bincount().reshape(-1, *[1] * (rows.dim() - 1))
    return sums


def occurrences(counts: Tensor) -> Tensor:
    """Count in how many scenes each label occurs: counts (N, 34, 34) -> (34,)."""
    return (counts.sum(2) > 0).sum(0)


def labels_in(counts: Tensor, at_least: int = 1) -> list[int]:
    """List the benchmark's labels that occur in at least so many scenes of counts (N, 34, 34)."""
    scenes = occurrences(counts)
    return [label for label in BENCHMARK_IDS if scenes[label] >= at_least]


def mean_iou(counts: Tensor, labels: Sequence[int] = BENCHMARK_IDS) -> Tensor:
    """Return the mean intersection over union of these labels, those that occur, over all scenes.

    Args:
        counts: (N, 34, 34), see confusions().
    """
    return iou_of(counts.sum(0))[list(labels)].nanmean()


def pixel_accuracy(counts: Tensor) -> Tensor:
    """Return the share of the benchmark's pixels with the right label, over all scenes.

    Args:
        counts: (N, 34, 34), see confusions().
    """
    scored = counts.sum(0)[list(BENCHMARK_IDS)]  # (19, 34)
    return scored[:, list(BENCHMARK_IDS)].diagonal().sum() / scored.sum()
