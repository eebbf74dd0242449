"""The losses of the published recipe and two more, each a plain function of what networks put out.
The perceptual loss has a file of its own.

Source: Park et al., CVPR 2019, arXiv:1903.07291, appendix A; feature matching is pix2pixHD's
(Wang et al., CVPR 2018, arXiv:1711.11585, section 3.2).  Each is computed in float32.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Judgement = list[list[Tensor]]  # what MultiscaleDiscriminator returns: layers for each scale


def split_judgement(judgement: Judgement) -> tuple[Judgement, Judgement]:
    """Take a judgement of fake and real photos in one batch apart -> (of the fake, of the real)."""
    halves = [[layer.chunk(2) for layer in scale] for scale in judgement]
    return tuple([[half[side] for half in scale] for scale in halves] for side in (0, 1))


def hinge_discriminator(fake: Judgement, real: Judgement) -> Tensor:
    """What the discriminator minimises: fake scores below -1, real ones above 1 cost nothing."""
    losses = [
        F.relu(1 + fake_scale[-1].float()).mean() + F.relu(1 - real_scale[-1].float()).mean()
        for fake_scale, real_scale in zip(fake, real, strict=True)
    ]
    return torch.stack(losses).mean()


def hinge_generator(fake: Judgement) -> Tensor:
    """What the generator minimises: the higher its photos are scored, the lower."""
    return torch.stack([-scale[-1].float().mean() for scale in fake]).mean()


def feature_matching(fake: Judgement, real: Judgement) -> Tensor:
    """Mean absolute difference of the discriminator's layers, all but the last, over the scales."""
    losses = [
        F.l1_loss(fake_layer.float(), real_layer.detach().float())
        for fake_scale, real_scale in zip(fake, real, strict=True)
        for fake_layer, real_layer in zip(fake_scale[:-1], real_scale[:-1], strict=True)
    ]
    return torch.stack(losses).sum() / len(fake)


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """How far the encoder's latents are from the prior, a standard normal: mu, logvar (B, z_dim).

    The sum over the latent's numbers, averaged over the batch.
    """
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1).mean()


def style_cross_entropy(scores: Sequence[Tensor], labels: Tensor) -> Tensor:
    """How wrong a StyleClassifier is: its cross-entropy, summed over the attributes.

    Args:
        scores: for each attribute (B, number of its classes).
        labels: (B, number of attributes) long, the right classes.

    No part of the published recipe.
    """
    each = [F.cross_entropy(s.float(), t) for s, t in zip(scores, labels.T, strict=True)]
    return torch.stack(each).sum()


def label_cross_entropy(scores: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """How wrong a PixelDiscriminator is about photos that show these labels.

    Args:
        scores: (B, 35, H, W), see PixelDiscriminator.
        labels: (B, H, W) long, what is right: 0..33, or 34 for "fake".
        weights: (35,) of each label.

    Returns:
        The mean over all pixels, a scalar.

    Source: Schoenfeld et al., ICLR 2021, arXiv:2012.04781, equation 1.
    """
    return F.cross_entropy(scores.float(), labels, weights, reduction="none").mean()
