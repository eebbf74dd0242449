"""Scores of a segmentation, computed from counts over the whole data set.

    score = SegmentationScore()         # mIoU and accuracies, from one confusion matrix
    score.update(predicted_ids, true_ids)
    print(score.compute())

BoundaryScore() is used in the same way and says how well the outlines fit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from utils.labels import (
    BENCHMARK_IDS,
    NAMES,
    NUM_LABELS,
    check_id_values,
    check_label_ids,
    instance_edges,
)
from utils.meanings import as_named_by


@dataclass(frozen=True)
class SegmentationResult:
    """The result of SegmentationScore.compute(); every figure is a share, 0..1.

    Attributes:
        miou: mean intersection over union of the benchmark classes that occur in the truth.
        accuracy: share of pixels with the right label, void pixels left out.
        accuracy_with_void: share of all pixels, void ones included, with the right label id.
        iou: intersection over union by class name, NaN for a class that does not occur.
    """

    miou: float
    accuracy: float
    accuracy_with_void: float
    iou: dict[str, float]

    def __str__(self) -> str:
        return (
            f"mIoU {self.miou:.3f}, pixel accuracy {self.accuracy:.3f} "
            f"({self.accuracy_with_void:.3f} with void pixels)"
        )


class SegmentationScore:
    """Collects predictions batch by batch and scores them as the Cityscapes benchmark does.

    Pixels whose true label is none of the 19 benchmark classes are left out of IoU and accuracy,
    as in cityscapesscripts' evalPixelLevelSemanticLabeling.  The mean runs over the classes that
    occur in the truth: on Cityscapes' own splits all 19 do.

    Args:
        all_processes: compute() adds up what all processes of a distributed run have collected.
    """

    def __init__(self, all_processes: bool = False):
        self.confusion = MulticlassConfusionMatrix(  # rows: truth, columns: prediction
            NUM_LABELS, sync_on_compute=all_processes
        )

    def update(
        self, predicted_ids: Tensor, true_ids: Tensor, map_kinds: Sequence[str] | None = None
    ) -> None:
        """Add label ids of one picture (H, W) or a batch (B, H, W); both of the same shape.

        Args:
            map_kinds: Scenes.map_kinds() of a batch's true maps: where CamVid's say "car", a
                predicted truck is right.  None: every label means itself.
        """
        _check_pair(predicted_ids, true_ids)
        if map_kinds is not None:
            predicted_ids = as_named_by(map_kinds, predicted_ids)
        self.confusion.to(true_ids.device).update(predicted_ids.long(), true_ids.long())

    def compute(self) -> SegmentationResult:
        """The scores of everything that was added so far."""
        if not self.confusion.update_called:
            raise ValueError("There is nothing to score yet: call update() first.")
        counts = self.confusion.compute().cpu().double()
        scored = counts[list(BENCHMARK_IDS)]  # (19, 34) rows of void classes are left out
        iou = iou_of(counts)[list(BENCHMARK_IDS)]
        correct = counts.diagonal()
        return SegmentationResult(
            miou=iou.nanmean().item(),
            accuracy=(correct[list(BENCHMARK_IDS)].sum() / scored.sum()).item(),
            accuracy_with_void=(correct.sum() / counts.sum()).item(),
            iou=_by_name(iou, ~iou.isnan()),
        )


def iou_of(counts: Tensor) -> Tensor:
    """Return the intersection over union of each label from a confusion matrix.

    Args:
        counts: (34, 34) double, rows: true labels, columns: predicted ones.

    Returns:
        (34,), NaN for a label that does not occur in the truth.  Pixels whose true label is none of
        the benchmark's classes are left out.
    """
    hits, in_truth = counts.diagonal(), counts.sum(1)
    in_prediction = counts[list(BENCHMARK_IDS)].sum(0)
    iou = hits / (in_truth + in_prediction - hits)
    return torch.where(in_truth > 0, iou, math.nan)


@dataclass(frozen=True)
class BoundaryResult:
    """The result of BoundaryScore.compute().

    Attributes:
        f_score: harmonic mean of precision and recall of the outlines, 0..1, the mean over the
            benchmark classes that occur in the truth.
        by_class: the same by class name, NaN for a class that does not occur.
        predicted_length, true_length: outline pixels, as shares of the scored pixels.
    """

    f_score: float
    by_class: dict[str, float]
    predicted_length: float
    true_length: float

    def __str__(self) -> str:
        return (
            f"boundary F-score {self.f_score:.3f}, outlines {self.predicted_length:.1%} of the "
            f"pixels (truth {self.true_length:.1%})"
        )


class BoundaryScore:
    """Collects maps batch by batch and scores how well the outlines of each class fit.

    A pixel belongs to its class's outline if a left, right, upper or lower neighbour has another
    label.  Precision is the share of the predicted outline that lies near the true one, recall the
    reverse.  Pixels whose true label the benchmark does not score are left out.

    Args:
        tolerance: how far is near, in pixels along each axis; None is 0.75 % of the diagonal,
            rounded, and at least 1.

    Source: Csurka et al., "What is a good evaluation measure for semantic segmentation?",
    BMVC 2013; they compute the F-score of each picture, this class that of the whole set.
    """

    def __init__(self, tolerance: int | None = None):
        self.tolerance = tolerance
        # predicted, of these near the truth, true, of these near the prediction
        self.counts = torch.zeros(4, len(BENCHMARK_IDS), dtype=torch.int64)
        self.outline, self.pixels = torch.zeros(2, dtype=torch.int64), 0

    def update(self, predicted_ids: Tensor, true_ids: Tensor) -> None:
        """Add label ids of one picture (H, W) or a batch (B, H, W); both of the same shape."""
        _check_pair(predicted_ids, true_ids)
        height, width = true_ids.shape[-2:]
        maps = [ids.reshape(-1, height, width).int() for ids in (predicted_ids, true_ids)]
        labels = torch.tensor(BENCHMARK_IDS, device=true_ids.device)
        scored = torch.isin(maps[1], labels)  # (B, H, W)
        predicted, true = (instance_edges(ids) & scored for ids in maps)
        reach = self.tolerance
        if reach is None:
            reach = max(1, round(0.0075 * math.hypot(height, width)))
        # One class after the other: all planes together would take 19 times the memory.
        for row, label in enumerate(BENCHMARK_IDS):
            ours, theirs = predicted & (maps[0] == label), true & (maps[1] == label)
            if ours.any() or theirs.any():
                near_ours, near_theirs = (_widened(x, reach) for x in (ours, theirs))
                hits = (ours, ours & near_theirs, theirs, theirs & near_ours)
                self.counts[:, row] += torch.stack([x.sum() for x in hits]).cpu()
        self.outline += torch.stack([predicted.sum(), true.sum()]).cpu()
        self.pixels += int(scored.sum())

    def compute(self) -> BoundaryResult:
        """The score of everything that was added so far."""
        if not self.pixels:
            raise ValueError("There is nothing to score yet: call update() first.")
        predicted, precise, true, recalled = self.counts.double()
        # 2 P R / (P + R); 0 where one of both is missing or 0, not 0 / 0
        precision, recall = precise / predicted.clamp(min=1), recalled / true.clamp(min=1)
        f_scores = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
        occurs = true > 0
        return BoundaryResult(
            f_score=f_scores[occurs].mean().item() if occurs.any() else math.nan,
            by_class=_by_name(f_scores, occurs),
            predicted_length=int(self.outline[0]) / self.pixels,
            true_length=int(self.outline[1]) / self.pixels,
        )


def _by_name(values: Tensor, occurs: Tensor) -> dict[str, float]:
    """A figure for each benchmark class, (19,), by class name; NaN where the class is not there."""
    shown = torch.where(occurs, values, math.nan)
    return dict(zip((NAMES[label] for label in BENCHMARK_IDS), shown.tolist(), strict=True))


def _widened(mask: Tensor, reach: int) -> Tensor:
    """(B, H, W) bool -> True where the mask is at most `reach` pixels away along each axis."""
    return F.max_pool2d(mask.half(), 2 * reach + 1, stride=1, padding=reach) > 0


def _check_pair(predicted_ids: Tensor, true_ids: Tensor) -> None:
    if predicted_ids.shape != true_ids.shape:
        raise ValueError(
            f"The prediction has shape {tuple(predicted_ids.shape)}, the truth "
            f"{tuple(true_ids.shape)}: expected the same."
        )
    check_id_values(predicted_ids, "the prediction")
    check_label_ids(true_ids, "the truth")
