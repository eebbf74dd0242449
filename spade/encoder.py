"""The encoder, which reads a photo's style as mean and variance of a latent z."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .normalization import SpectralNormConv2d

PHOTO_SIZE = 256  # every photo is resized to a square with sides of this length
LAST_GRID = PHOTO_SIZE // 2**6  # sides of the last feature map, after six layers of stride 2


class Encoder(nn.Module):
    """Reads a latent from a photo, by six convolutions of stride 2 and two linear layers.

    Args:
        ngf: number of channels of the first layer.
        z_dim: size of the latent.

    Source: Park et al., CVPR 2019, arXiv:1903.07291, appendix A, "Image encoder".
    """

    def __init__(self, ngf: int = 64, z_dim: int = 256):
        super().__init__()
        # What load_encoder needs, besides the weights, to build the same network.
        self.settings = {"ngf": ngf, "z_dim": z_dim}
        self.layer1 = _layer(3, ngf)
        self.layer2 = _layer(ngf, 2 * ngf)
        self.layer3 = _layer(2 * ngf, 4 * ngf)
        self.layer4 = _layer(4 * ngf, 8 * ngf)
        self.layer5 = _layer(8 * ngf, 8 * ngf)
        self.layer6 = _layer(8 * ngf, 8 * ngf)
        self.fc_mu = nn.Linear(8 * ngf * LAST_GRID**2, z_dim)
        self.fc_var = nn.Linear(8 * ngf * LAST_GRID**2, z_dim)

    def forward(self, image_pm1: Tensor) -> tuple[Tensor, Tensor]:
        """Read styles: image_pm1 (B, 3, H, W) in -1..1, any size -> mu and logvar, (B, z_dim) each.

        mu is the style of the photo; sampled() draws a latent around it.
        """
        square = (PHOTO_SIZE, PHOTO_SIZE)
        x = F.interpolate(image_pm1, size=square, mode="bilinear", align_corners=False)
        x = self.layer1(x)  # (B, ngf, 128, 128)
        x = self.layer2(F.leaky_relu(x, 0.2))  # (B, 2 ngf, 64, 64)
        x = self.layer3(F.leaky_relu(x, 0.2))  # (B, 4 ngf, 32, 32)
        x = self.layer4(F.leaky_relu(x, 0.2))  # (B, 8 ngf, 16, 16)
        x = self.layer5(F.leaky_relu(x, 0.2))  # (B, 8 ngf, 8, 8)
        x = self.layer6(F.leaky_relu(x, 0.2))  # (B, 8 ngf, 4, 4)
        x = F.leaky_relu(x, 0.2).flatten(1)  # (B, 128 ngf)
        return self.fc_mu(x), self.fc_var(x)  # (B, z_dim) each


def _layer(in_channels: int, out_channels: int) -> nn.Sequential:
    convolution = SpectralNormConv2d(
        in_channels, out_channels, kernel_size=3, stride=2, padding=1, bias=False
    )
    return nn.Sequential(convolution, nn.InstanceNorm2d(out_channels))


def sampled(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """Draw a latent from the distribution that the encoder predicts.

    All arguments and the result are (B, z_dim); noise is standard normal.
    """
    return mu + torch.exp(logvar / 2) * noise
