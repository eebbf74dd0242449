"""The losses of the published recipe and two more, each a function of networks' outputs.

All of them are computed in float32.  The perceptual loss is in spade/perceptual.py.

Source: Park et al., CVPR 2019, arXiv:1903.07291, appendix A; feature matching is pix2pixHD's
(Wang et al., CVPR 2018, arXiv:1711.11585, section 3.2).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Judgement = list[list[Tensor]]  # a MultiscaleDiscriminator's output: for each scale its layers


def split_judgement(judgement: Judgement) -> tuple[Judgement, Judgement]:
    """Split the judgement of a batch into its halves -> (of generated images, of photos)."""
    halves = [[layer.chunk(2) for layer in scale] for scale in judgement]
    return tuple([[half[side] for half in scale] for scale in halves] for side in (0, 1))


def hinge_discriminator(fake: Judgement, real: Judgement) -> Tensor:
    """Return the discriminator's loss: 0 if fake scores are below -1 and real ones above 1."""
    losses = [
        F.relu(1 + fake_scale[-1].float()).mean() + F.relu(1 - real_scale[-1].float()).mean()
        for fake_scale, real_scale in zip(fake, real, strict=True)
    ]
    return torch.stack(losses).mean()


def hinge_generator(fake: Judgement) -> Tensor:
    """Return the generator's loss: the negative mean score of its images."""
    return torch.stack([-scale[-1].float().mean() for scale in fake]).mean()


def feature_matching(fake: Judgement, real: Judgement) -> Tensor:
    """Return how far the discriminator's layers differ between generated images and photos.

    The mean absolute difference, summed over all layers but the last, averaged over the scales.
    """
    losses = [
        F.l1_loss(fake_layer.float(), real_layer.detach().float())
        for fake_scale, real_scale in zip(fake, real, strict=True)
        for fake_layer, real_layer in zip(fake_scale[:-1], real_scale[:-1], strict=True)
    ]
    return torch.stack(losses).sum() / len(fake)


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """Return the KL divergence of the encoder's latents from the prior, a standard normal.

    Args:
        mu, logvar: (B, z_dim).

    Returns:
        The sum over the latent's dimensions, averaged over the batch.
    """
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1).mean()


def style_cross_entropy(scores: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Return a StyleClassifier's cross-entropy, summed over the attributes.

    Args:
        scores: for each attribute (B, number of its classes).
        labels: (B, number of attributes) long, the true classes.

    Not part of the published recipe.
    """
    each = [F.cross_entropy(s.float(), t) for s, t in zip(scores, labels.T, strict=True)]
    return torch.stack(each).sum()


def label_cross_entropy(scores: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return a PixelDiscriminator's cross-entropy, with a weight for each label.

    Args:
        scores: (B, 35, H, W), see PixelDiscriminator.
        labels: (B, H, W) long, the true classes: 0..33, or 34 for "fake".
        weights: (35,), one for each label.

    Returns:
        The mean over all pixels, a scalar.

    Source: Schoenfeld et al., ICLR 2021, arXiv:2012.04781, equation 1.
    """
    return F.cross_entropy(scores.float(), labels, weights, reduction="none").mean()
