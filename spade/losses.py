"""The losses of the published recipe, each a plain function of what the networks put out.

Source: Park et al., CVPR 2019, arXiv:1903.07291, appendix A; feature matching is pix2pixHD's
(Wang et al., CVPR 2018, arXiv:1711.11585, section 3.2).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.images import pm1_to_imagenet
from utils.segmentation import SegmentationNet

Judgement = list[list[Tensor]]  # what MultiscaleDiscriminator returns: layers for each scale


def split_judgement(judgement: Judgement) -> tuple[Judgement, Judgement]:
    """Take a judgement of fake and real photos in one batch apart -> (of the fake, of the real)."""
    halves = [[layer.chunk(2) for layer in scale] for scale in judgement]
    return tuple([[half[side] for half in scale] for scale in halves] for side in (0, 1))


def hinge_discriminator(fake: Judgement, real: Judgement) -> Tensor:
    """What the discriminator minimises: fake scores below -1, real ones above 1 cost nothing."""
    losses = [
        F.relu(1 + fake_scale[-1]).mean() + F.relu(1 - real_scale[-1]).mean()
        for fake_scale, real_scale in zip(fake, real, strict=True)
    ]
    return torch.stack(losses).mean()


def hinge_generator(fake: Judgement) -> Tensor:
    """What the generator minimises: the higher its photos are scored, the lower."""
    return torch.stack([-scale[-1].mean() for scale in fake]).mean()


def feature_matching(fake: Judgement, real: Judgement) -> Tensor:
    """Mean absolute difference of the discriminator's layers, all but the last, over the scales."""
    losses = [
        F.l1_loss(fake_layer, real_layer.detach())
        for fake_scale, real_scale in zip(fake, real, strict=True)
        for fake_layer, real_layer in zip(fake_scale[:-1], real_scale[:-1], strict=True)
    ]
    return torch.stack(losses).sum() / len(fake)


class PerceptualLoss(nn.Module):
    """Mean absolute difference of what a trained segmentation network sees in two photos.

    Compares its first three feature maps, each divided by the spread of the real photo's, so that
    none outweighs the others.  The network is frozen.
    """

    def __init__(self, network: SegmentationNet):
        super().__init__()
        encoder = network.encoder
        self.stages = nn.ModuleList(
            [
                nn.Sequential(encoder.conv1, encoder.bn1, encoder.relu),
                nn.Sequential(encoder.maxpool, encoder.layer1),
                nn.Sequential(encoder.layer2),
            ]
        )
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "PerceptualLoss":
        return super().train(False)  # its batch norm must keep the statistics it was trained with

    def forward(self, fake_pm1: Tensor, real_pm1: Tensor) -> Tensor:
        """Two batches image_pm1 (B, 3, H, W) -> the loss, a scalar."""
        fake, real = pm1_to_imagenet(fake_pm1), pm1_to_imagenet(real_pm1)
        loss = fake.new_zeros(())
        for stage in self.stages:
            fake = stage(fake)
            with torch.no_grad():
                real = stage(real)
            loss = loss + F.l1_loss(fake, real) / (real.std() + 1e-6)
        return loss / len(self.stages)
