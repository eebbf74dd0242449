"""A loss in which each class counts equally, however few pixels it has: one minus its overlap."""

import torch
from torch import Tensor

from utils.labels import NUM_LABELS
from utils.meanings import of_meant


def overlap_loss(scores: Tensor, label_ids: Tensor, possible: Tensor | None = None) -> Tensor:
    """One minus the soft intersection over union, the mean over the classes in a batch -> a scalar.

    Poles and people cover one pixel in a hundred, so they hardly change the cross-entropy.  With
    larger weights for their pixels they are predicted too wide.  The overlap, which an mIoU
    measures, is largest if their outlines are right.

    Args:
        scores, label_ids, possible: see utils.training.pixel_loss.  Unlabeled pixels don't count.

    Source: Rahman and Wang, "Optimizing intersection-over-union in deep neural networks for image
    segmentation", ISVC 2016.  JaccardLoss of segmentation-models-pytorch computes the same from
    several tensors (B, 34, H, W); this function keeps sums, which takes less time and memory.
    """
    shares = scores.float().softmax(1)  # (B, 34, H, W)
    counted = (label_ids != 0).float()  # (B, H, W)
    hits = of_meant(shares, label_ids, possible, fill=0).sum(1) * counted  # (B, H, W)
    predicted = torch.einsum("blhw,bhw->bl", shares, counted)  # pixels, in all
    if possible is not None:  # of all that a label may mean
        predicted = torch.einsum("blm,bm->bl", possible.float(), predicted)
    zeros, pixels = scores.new_zeros(NUM_LABELS, dtype=torch.float32), label_ids.flatten().long()
    true = zeros.index_add(0, pixels, counted.flatten())
    both = zeros.index_add(0, pixels, hits.flatten())
    either = predicted.sum(0) + true - both
    occurs = true > 0
    losses = torch.where(occurs, 1 - both / either.clamp(min=1e-7), 0)
    return losses.sum() / occurs.sum().clamp(min=1)
