"""The perceptual loss: what a trained network sees in two photos should be alike."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from utils.backbones import BACKBONES
from utils.images import IMAGENET_MEAN, IMAGENET_STD, pm1_to_imagenet
from utils.segmentation import SegmentationNet
from utils.weights import imagenet_weights


class PerceptualLoss(nn.Module):
    """Mean absolute difference of what a trained network sees in two photos.  It is frozen.

    Args:
        stages: parts of the network; each goes on from the one before it.
        weights: of each stage's difference.  None divides it by the spread of the real photo's
            features, so that no stage outweighs the others, and takes the mean.
        texture: weight of the features' texture_difference(), which is added; the published recipe
            has none.
        mean, std: what the network expects of photos, see utils.images.u8_to_imagenet.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        weights: Sequence[float] | None = None,
        texture: float = 0.0,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ):
        super().__init__()
        self.stages, self.weights, self.texture = nn.ModuleList(stages), weights, texture
        self.mean, self.std = tuple(mean), tuple(std)
        self.requires_grad_(False).eval()

    @classmethod
    def of_segmentation(cls, network: SegmentationNet, texture: float = 0.0) -> "PerceptualLoss":
        """Through the first three feature maps of one of our own segmentation networks."""
        encoder = network.encoder
        return cls(
            [
                nn.Sequential(encoder.conv1, encoder.bn1, encoder.relu),
                nn.Sequential(encoder.maxpool, encoder.layer1),
                nn.Sequential(encoder.layer2),
            ],
            texture=texture,
        )

    @classmethod
    def of_imagenet(
        cls, texture: float = 0.0, name: str = "efficientnet_lite0"
    ) -> "PerceptualLoss":
        """Through the first four feature maps of one of BACKBONES with its ImageNet weights."""
        backbone = BACKBONES[name]
        stages = backbone.stages(pretrained=True)[:4]
        return cls(stages, texture=texture, mean=backbone.mean, std=backbone.std)

    @classmethod
    def of_vgg19(cls, texture: float = 0.0) -> "PerceptualLoss":
        """Through VGG-19 with its ImageNet weights (downloaded once, 548 MB), as published.

        Raises OSError if they can't be downloaded.
        """
        network = models.vgg19()
        network.load_state_dict(
            imagenet_weights(
                models.VGG19_Weights.IMAGENET1K_V1,
                "take the features of a segmentation network instead: --perceptual FILE",
            )
        )
        layers = network.features
        for layer in layers:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # its input is compared, too
        # relu1_1, relu2_1 ... relu5_1
        cuts = (0, 2, 7, 12, 21, 30)
        stages = [layers[start:end] for start, end in pairwise(cuts)]
        return cls(stages, (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), texture)

    def train(self, mode: bool = True) -> "PerceptualLoss":
        return super().train(False)  # its batch norm must keep the statistics it was trained with

    def forward(self, fake_pm1: Tensor, real_pm1: Tensor, regions: Tensor | None = None) -> Tensor:
        """Two batches image_pm1 (B, 3, H, W) -> the loss, a scalar.

        Args:
            regions: see texture_difference().
        """
        fake, real = (pm1_to_imagenet(x, self.mean, self.std) for x in (fake_pm1, real_pm1))
        loss = fake_pm1.new_zeros(())
        for index, stage in enumerate(self.stages):
            fake = stage(fake)
            with torch.no_grad():
                real = stage(real)
            spread = real.float().std() + 1e-6
            if self.weights is None:
                weight = 1 / (len(self.stages) * spread)
            else:
                weight = self.weights[index]
            loss = loss + weight * F.l1_loss(fake.float(), real.float())
            if self.texture:
                difference = texture_difference(fake / spread, real / spread, regions)
                loss = loss + self.texture / len(self.stages) * difference
        return loss


def texture_difference(fake: Tensor, real: Tensor, regions: Tensor | None = None) -> Tensor:
    """How much the textures of two photos differ, region by region: walls are held against walls.

    Args:
        fake, real: features (B, C, h, w).
        regions: (B, K, H, W) of 0 and 1, of any size: where each of them is.  None is the whole
            photo as one.

    Returns:
        Mean absolute difference of the regions' Gram matrices, a scalar.  Each region counts by the
        square root of its area: a person has little of it, and a texture nonetheless.

    No part of the published recipe.
    """
    if regions is None:
        regions = fake.new_ones(len(fake), 1, 1, 1)
    with torch.autocast(fake.device.type, enabled=False):
        masks = F.interpolate(regions.float(), fake.shape[-2:], mode="area").flatten(2)  # (B, K, N)
        one, other = (gram_matrices(x, masks) for x in (fake, real))
        share = masks.sum(2).sqrt()  # (B, K)
        share = share / share.sum(1, keepdim=True)
        return (share * (one - other).abs().mean((2, 3))).sum(1).mean()


def gram_matrices(features: Tensor, masks: Tensor) -> Tensor:
    """Which features occur together in a region, wherever they are in it: its texture.

    Args:
        features: (B, C, h, w); computed in float32.
        masks: (B, K, h w): how much of each pixel belongs to each region.

    Returns:
        (B, K, C, C), the mean over the region's pixels.

    Source: Gatys et al., CVPR 2016, "Image style transfer using convolutional neural networks"; in
    regions: Gatys et al., CVPR 2017, arXiv:1611.07865, section 4.
    """
    x = features.float().flatten(2)  # (B, C, h w)
    sums = (masks[:, :, None] * x[:, None]) @ x[:, None].mT  # (B, K, C, C)
    return sums / masks.sum(2)[..., None, None].clamp(min=1)  # a region may be empty
