"""A loss that counts every class alike, however few pixels it has: one minus its overlap."""

import torch
from segmentation_models_pytorch.losses import JaccardLoss
from torch import Tensor

from utils.labels import NUM_LABELS

# Classes that do not occur in a batch cost nothing, and count in its mean.
_jaccard = JaccardLoss("multilabel", from_logits=False)


def overlap_loss(scores: Tensor, label_ids: Tensor, possible: Tensor | None = None) -> Tensor:
    """One minus the soft intersection over union, the mean over the classes in a batch -> a scalar.

    Cross-entropy hardly notices poles and people: they have one pixel in a hundred.  Weights on
    their pixels make them too wide.  The overlap, which is what an mIoU measures, is largest where
    their outlines are right.

    Args:
        scores, label_ids, possible: see utils.training.pixel_loss.  Unlabeled pixels don't count.

    Source: Rahman and Wang, "Optimizing intersection-over-union in deep neural networks for image
    segmentation", ISVC 2016; by segmentation-models-pytorch.
    """
    shares = scores.float().softmax(1)  # (B, 34, H, W)
    if possible is not None:  # of all that a label may mean
        shares = torch.einsum("blm,bmhw->blhw", possible.float(), shares)
    labels = torch.arange(NUM_LABELS, device=scores.device).view(1, -1, 1, 1)
    true = label_ids[:, None] == labels  # (B, 34, H, W)
    counted = label_ids[:, None] != 0
    occurring = true[:, 1:].flatten(2).any(2).any(0).sum().clamp(min=1)
    loss = _jaccard((shares * counted)[:, 1:], true[:, 1:].float())
    return loss * (NUM_LABELS - 1) / occurring
