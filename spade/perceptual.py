"""The perceptual loss, which compares the features of a trained network in two images."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from utils.backbones import BACKBONES, stages_of
from utils.images import IMAGENET_MEAN, IMAGENET_STD, pm1_to_imagenet
from utils.segmentation import SegmentationNet
from utils.weights import imagenet_weights


class PerceptualLoss(nn.Module):
    """Mean absolute difference of a trained, frozen network's features in two images.

    Args:
        stages: parts of the network; each takes the output of the one before it.
        weights: of each stage's difference.  None takes the mean over the stages, each divided by
            the standard deviation of the photo's features, so that no stage outweighs the others.
        texture: weight of the features' texture_difference(), which is added; not in the published
            recipe.
        mean, std: by which the network's input is normalised, see utils.images.u8_to_imagenet.
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
        """Compare the first three feature maps of one of our own segmentation networks."""
        mean, std = network.backbone.mean, network.backbone.std
        return cls(stages_of(network.encoder)[:3], texture=texture, mean=mean, std=std)

    @classmethod
    def of_imagenet(cls, texture: float = 0.0) -> "PerceptualLoss":
        """Compare the first four feature maps of EfficientNet-Lite0 with its ImageNet weights."""
        backbone = BACKBONES["efficientnet_lite0"]
        stages = backbone.stages(pretrained=True)[:4]
        return cls(stages, texture=texture, mean=backbone.mean, std=backbone.std)

    @classmethod
    def of_vgg19(cls, texture: float = 0.0) -> "PerceptualLoss":
        """Compare features of VGG-19 with its ImageNet weights, as published.

        The weights (548 MB) are downloaded once.

        Raises OSError if they can't be downloaded.
        """
        weights = imagenet_weights(
            models.VGG19_Weights.IMAGENET1K_V1,
            "take the features of a segmentation network instead: --perceptual FILE",
        )
        with torch.device("meta"):  # no random start for 144 million weights
            network = models.vgg19(init_weights=False)
        network.load_state_dict(weights, assign=True)
        layers = network.features
        for layer in layers:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # an in-place ReLU would overwrite features of a stage
        cuts = (0, 2, 7, 12, 21, 30)  # after relu1_1, relu2_1 ... relu5_1
        stages = [layers[start:end] for start, end in pairwise(cuts)]
        return cls(stages, (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), texture)

    def train(self, mode: bool = True) -> "PerceptualLoss":
        """As in torch, but always in evaluation mode, so that batch norm keeps its statistics."""
        return super().train(False)

    def forward(self, fake_pm1: Tensor, real_pm1: Tensor, regions: Tensor | None = None) -> Tensor:
        """Compare two batches image_pm1 (B, 3, H, W) -> the loss, a scalar.

        Args:
            regions: see texture_difference().
        """
        fake, real = (pm1_to_imagenet(x, self.mean, self.std) for x in (fake_pm1, real_pm1))
        loss = fake_pm1.new_zeros(())
        for index, stage in enumerate(self.stages):
            fake = stage(fake)
            with torch.no_grad():
                real = stage(real)
            deviation = real.float().std() + 1e-6
            if self.weights is None:
                weight = 1 / (len(self.stages) * deviation)
            else:
                weight = self.weights[index]
            loss = loss + weight * F.l1_loss(fake.float(), real.float())
            if self.texture:
                difference = texture_difference(fake / deviation, real / deviation, regions)
                loss = loss + self.texture / len(self.stages) * difference
        return loss


def texture_difference(fake: Tensor, real: Tensor, regions: Tensor | None = None) -> Tensor:
    """Return how much the textures of two images differ within each region, walls for example.

    Args:
        fake, real: features (B, C, h, w).
        regions: (B, K, H, W) of 0 and 1, of any size: a mask for each region.  None takes the whole
            image as one region.

    Returns:
        Mean absolute difference of the regions' Gram matrices, a scalar.  A region's weight is the
        square root of its area, so that small regions, such as persons, still count.

    Not part of the published recipe.
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
    """Return the Gram matrices of regions: how often two features occur at the same pixel.

    A Gram matrix does not depend on where in the region the features occur, so it describes the
    texture.

    Args:
        features: (B, C, h, w); computed in float32.
        masks: (B, K, h w), the share 0..1 of each pixel that belongs to each region.

    Returns:
        (B, K, C, C), the mean over the region's pixels.

    Source: Gatys et al., CVPR 2016, "Image style transfer using convolutional neural networks"; in
    regions: Gatys et al., CVPR 2017, arXiv:1611.07865, section 4.
    """
    x = features.float().flatten(2)  # (B, C, h w)
    sums = (masks[:, :, None] * x[:, None]) @ x[:, None].mT  # (B, K, C, C)
    return sums / masks.sum(2)[..., None, None].clamp(min=1)  # a region may be empty
