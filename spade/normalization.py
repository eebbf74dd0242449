"""The two normalisations of SPADE: spatially-adaptive for activations, spectral for weights.

Attribute names in this package (param_free_norm, mlp_shared, head_0, weight_orig ...) are fixed by
the published checkpoints.
"""

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SPADE(nn.Module):
    """Normalise the activations, then scale and shift every pixel depending on the label map.

    ``normalized * (1 + gamma) + beta``, where gamma and beta are convolutions of the label map.

    Args:
        channels: number of channels of the activations.
        semantic_channels: number of planes of the label map.
        hidden: number of channels of the hidden layer between the label map and gamma and beta.
        z_dim: size of a latent that shifts the hidden layer, so that gamma and beta can depend on
            the style for some labels and not for others.  None (as published): no latent.

    Source: Park et al., CVPR 2019, arXiv:1903.07291, equation 1 and appendix A; the 1 in
    (1 + gamma) is in the published code only.  The latent in every layer follows Schoenfeld et al.,
    ICLR 2021, arXiv:2012.04781, section 3.3.  They append planes of z to those of the map; a
    convolution of constant planes is a shift, which is computed directly here.
    """

    def __init__(
        self,
        channels: int,
        semantic_channels: int = 36,
        hidden: int = 128,
        z_dim: int | None = None,
    ):
        super().__init__()
        self.param_free_norm = nn.BatchNorm2d(channels, affine=False)
        self.mlp_shared = nn.Sequential(
            nn.Conv2d(semantic_channels, hidden, kernel_size=3, padding=1), nn.ReLU()
        )
        self.mlp_style = None if z_dim is None else nn.Linear(z_dim, hidden, bias=False)
        self.mlp_gamma = nn.Conv2d(hidden, channels, kernel_size=3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor, semantics: Tensor, z: Tensor | None = None) -> Tensor:
        """x (B, C, h, w), semantics (B, 36, H, W), any H and W, z (B, z_dim) -> (B, C, h, w).

        A z of (1, z_dim) is used for the whole batch; None is a z of zeros.
        """
        normalized = self.param_free_norm(x)  # (B, C, h, w)
        planes = resize_nearest(semantics, size=x.shape[-2:])  # (B, 36, h, w)
        convolution, activation = self.mlp_shared
        features = convolution(planes)  # (B, hidden, h, w)
        if self.mlp_style is not None and z is not None:
            features = features + self.mlp_style(z)[:, :, None, None]
        features = activation(features)
        gamma = self.mlp_gamma(features)  # (B, C, h, w)
        beta = self.mlp_beta(features)  # (B, C, h, w)
        return normalized * (1 + gamma) + beta


def resize_nearest(x: Tensor, **to) -> Tensor:
    """F.interpolate() by nearest neighbour, in x's dtype; CUDA's autocast would make it float32."""
    with _no_autocast(x):
        return F.interpolate(x, **to, mode="nearest")


class SpectralNormConv2d(nn.Module):
    """A convolution whose weight is divided by its largest singular value.

    The largest singular value is u . W v, where W is the weight as a matrix (out, rest) and u, v
    are its first singular vectors.  In training mode each forward call updates u and v by one step
    of power iteration; in evaluation mode they stay fixed.

    This class exists because torch's newer parametrization uses other keys than the published
    files (weight_orig, weight_u, weight_v), and its older hook cannot be deep-copied after
    training.

    Source: Miyato et al., ICLR 2018, arXiv:1802.05957, algorithm 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ):
        super().__init__()
        plain = nn.Conv2d(in_channels, out_channels, kernel_size, bias=bias)
        self.weight_orig = plain.weight
        self.bias = plain.bias
        self.stride = stride
        self.padding = padding
        rest = plain.weight[0].numel()
        self.register_buffer("weight_u", F.normalize(torch.randn(out_channels), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.randn(rest), dim=0))

    @torch.no_grad()
    def power_iteration(self) -> None:
        """Update u and v by one step towards the first singular vectors of the weight."""
        with _no_autocast(self.weight_orig):
            matrix = self.weight_orig.flatten(1)  # (out, rest)
            self.weight_v.copy_(F.normalize(matrix.t() @ self.weight_u, dim=0))
            self.weight_u.copy_(F.normalize(matrix @ self.weight_v, dim=0))

    def normalized_weight(self) -> Tensor:
        """Return the weight that the convolution uses: weight_orig / (u . W v)."""
        # In float32, because bfloat16 would round the singular value by up to 0.4 %.
        with _no_autocast(self.weight_orig):
            matrix = self.weight_orig.flatten(1)  # (out, rest)
            # Clones, because backward needs these values after the next call has changed u and v.
            sigma = self.weight_u.clone() @ (matrix @ self.weight_v.clone())
            return self.weight_orig / sigma

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.power_iteration()
        return F.conv2d(x, self.normalized_weight(), self.bias, self.stride, self.padding)

    def folded(self) -> nn.Conv2d:
        """Return a plain convolution with the weight normalised as it is now."""
        out_channels, in_channels, kernel_size, _ = self.weight_orig.shape
        has_bias = self.bias is not None
        plain = nn.Conv2d(
            in_channels, out_channels, kernel_size, self.stride, self.padding, bias=has_bias,
            device="meta",
        )  # fmt: skip
        plain.weight = nn.Parameter(self.normalized_weight().detach())
        plain.bias = nn.Parameter(self.bias.detach().clone()) if has_bias else None
        return plain.train(self.training)

    def extra_repr(self) -> str:
        return f"weight={tuple(self.weight_orig.shape)}, stride={self.stride}"


def _no_autocast(x: Tensor) -> contextlib.AbstractContextManager:
    """Turn autocast off where it is on, so that x keeps its dtype; the meta device has none."""
    if x.is_meta or not torch.is_autocast_enabled(x.device.type):
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def find_singular_vectors(network: nn.Module, iterations: int = 10) -> None:
    """Recompute the singular vectors of all spectral norms after their weights were replaced."""
    for module in network.modules():
        if isinstance(module, SpectralNormConv2d):
            for _ in range(iterations):
                module.power_iteration()


def fold_spectral_norm(network: nn.Module) -> nn.Module:
    """Replace each SpectralNormConv2d of a network by a plain convolution, in place.

    The division is then done once, and the outputs in evaluation mode stay the same.  A generator
    that will be trained further should keep its spectral norms.

    Returns:
        The same network; its keys are now ``weight`` instead of weight_orig, _u and _v.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SpectralNormConv2d):
                setattr(parent, name, child.folded())
    return network
