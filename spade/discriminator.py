"""The published discriminator, which scores whether an image is real and fits its label map.

It scores overlapping patches and starts from random weights.  spade/pixel_discriminator.py has
another one, which scores pixels and starts from ImageNet features.  The training calls the same
methods of both: prepare(), forward(), generator_losses() and loss().
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .losses import feature_matching, hinge_discriminator, hinge_generator, split_judgement
from .normalization import SpectralNormConv2d


class PatchDiscriminator(nn.Module):
    """Scores overlapping patches by five convolutions; feature matching compares their outputs.

    Args:
        in_channels: number of planes of the label map and of the image together.
        ndf: number of channels of the first layer.
    """

    def __init__(self, in_channels: int, ndf: int = 64):
        super().__init__()
        widths = [min(ndf * factor, 512) for factor in (1, 2, 4, 8)]
        self.model0 = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], kernel_size=4, stride=2, padding=2),
            nn.LeakyReLU(0.2),
        )
        self.model1 = _normalized_layer(widths[0], widths[1], stride=2)
        self.model2 = _normalized_layer(widths[1], widths[2], stride=2)
        self.model3 = _normalized_layer(widths[2], widths[3], stride=1)
        self.model4 = nn.Sequential(nn.Conv2d(widths[3], 1, kernel_size=4, stride=1, padding=2))

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (B, in_channels, H, W) -> the outputs of the five layers."""
        outputs = []
        for layer in (self.model0, self.model1, self.model2, self.model3, self.model4):
            x = layer(x)
            outputs.append(x)
        return outputs


def _normalized_layer(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    convolution = SpectralNormConv2d(
        in_channels, out_channels, kernel_size=4, stride=stride, padding=2, bias=False
    )
    normalized = nn.Sequential(convolution, nn.InstanceNorm2d(out_channels))
    return nn.Sequential(normalized, nn.LeakyReLU(0.2))


class MultiscaleDiscriminator(nn.Module):
    """Two patch discriminators, one for the image at full size and one for it at half the size.

    Args:
        ndf: number of channels of the first layer.
        semantic_channels: number of planes of the label map.

    Source: Park et al., CVPR 2019, arXiv:1903.07291, appendix A; Wang et al., CVPR 2018,
    arXiv:1711.11585, section 3.2.
    """

    def __init__(self, ndf: int = 64, semantic_channels: int = 36):
        super().__init__()
        self.discriminator_0 = PatchDiscriminator(semantic_channels + 3, ndf)
        self.discriminator_1 = PatchDiscriminator(semantic_channels + 3, ndf)

    def forward(self, semantics: Tensor, image_pm1: Tensor) -> list[list[Tensor]]:
        """Score images together with their label maps.

        Args:
            semantics: (B, 36, H, W) float, see spade.semantics.
            image_pm1: (B, 3, H, W) float in -1..1.  In training, generated images and photos are
                concatenated to one batch, as published.

        Returns:
            For each of the two scales the outputs of its five layers.  The last output is the score
            of each patch, (B, 1, h, w), unbounded: above 0 means real, below 0 means generated.
        """
        x = torch.cat([semantics, image_pm1], dim=1)  # (B, 39, H, W)
        half = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        return [self.discriminator_0(x), self.discriminator_1(half)]

    def prepare(self, scenes) -> None:
        """Do nothing: only the PixelDiscriminator has to measure photos before a training."""

    def generator_losses(
        self, planes: Tensor, fake_pm1: Tensor, real_pm1: Tensor, recipe, styles: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the losses that the generator minimises, each times its weight in the recipe.

        styles are ignored; the PixelDiscriminator needs them.
        """
        judgement = self(planes.repeat(2, 1, 1, 1), torch.cat([fake_pm1, real_pm1]))
        fake, real = split_judgement(judgement)
        return {
            "adversarial": hinge_generator(fake),
            "matching": recipe.matching_weight * feature_matching(fake, real),
        }

    def loss(self, judgement: list[list[Tensor]], planes: Tensor, styles: Tensor | None) -> Tensor:
        """Return the loss that the discriminator minimises.

        judgement is the result of forward() for generated images followed by as many photos; planes
        and styles of the photos are ignored, but the PixelDiscriminator needs them.
        """
        return hinge_discriminator(*split_judgement(judgement))
