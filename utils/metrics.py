"""Scores of a segmentation: one confusion matrix over the whole set, every figure from it."""

import math
from dataclasses import dataclass

import torch
from torchmetrics.classification import MulticlassConfusionMatrix

from utils.labels import BENCHMARK_IDS, NAMES, NUM_LABELS, check_label_ids


@dataclass(frozen=True)
class SegmentationResult:
    """What SegmentationScore.compute() returns; every figure is a share, 0..1.

    Attributes:
        miou: mean intersection over union of the benchmark classes that occur in the truth.
        accuracy: share of pixels with the right label, void pixels left out.
        accuracy_with_void: the same over all pixels: void ones count, against all 34 ids.
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
    """

    def __init__(self):
        self.confusion = MulticlassConfusionMatrix(NUM_LABELS)  # rows: truth, columns: prediction

    def update(self, predicted_ids: torch.Tensor, true_ids: torch.Tensor) -> None:
        """Add label ids of one picture (H, W) or a batch (B, H, W); both of the same shape."""
        if predicted_ids.shape != true_ids.shape:
            raise ValueError(
                f"The prediction has shape {tuple(predicted_ids.shape)}, the truth "
                f"{tuple(true_ids.shape)}: expected the same."
            )
        check_label_ids(predicted_ids, "the prediction", predicted=True)
        check_label_ids(true_ids, "the truth")
        self.confusion.to(true_ids.device).update(predicted_ids.long(), true_ids.long())

    def compute(self) -> SegmentationResult:
        """The scores of everything that was added so far."""
        if not self.confusion.update_called:
            raise ValueError("There is nothing to score yet: call update() first.")
        counts = self.confusion.compute().cpu().double()
        scored = counts[list(BENCHMARK_IDS)]  # (19, 34) rows of void classes are left out
        correct = counts.diagonal()
        in_truth, in_prediction = scored.sum(1), scored.sum(0)[list(BENCHMARK_IDS)]
        hits = correct[list(BENCHMARK_IDS)]
        iou = hits / (in_truth + in_prediction - hits)
        occurs = in_truth > 0
        return SegmentationResult(
            miou=iou[occurs].mean().item() if occurs.any() else math.nan,
            accuracy=(hits.sum() / scored.sum()).item(),
            accuracy_with_void=(correct.sum() / counts.sum()).item(),
            iou={
                NAMES[label]: value if occurring else math.nan
                for label, value, occurring in zip(
                    BENCHMARK_IDS, iou.tolist(), occurs.tolist(), strict=True
                )
            },
        )
