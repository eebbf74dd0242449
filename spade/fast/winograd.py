"""A 3x3 convolution with 4 multiplications per pixel instead of 9 (Winograd).

In one dimension, two neighbouring results of a kernel g0 g1 g2 on inputs d0 d1 d2 d3 share
products:

    m0 = (d0 - d2) g0              m1 = (d1 + d2) (g0 + g1 + g2) / 2
    m3 = (d1 - d3) g2              m2 = (d2 - d1) (g0 - g1 + g2) / 2
    d0 g0 + d1 g1 + d2 g2 = m0 + m1 + m2           d1 g0 + d2 g1 + d3 g2 = m1 - m2 - m3

These are 4 products instead of 6, and in two dimensions 16 instead of 36 for a tile of 2x2 results.
With many channels each product is a matrix product, and the sums before and after it take little
time in comparison.

Source: Lavin and Gray, CVPR 2016, arXiv:1509.09308, section 4.1, F(2x2, 3x3).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TILES = 128  # computed at once: enough for an efficient matrix product, and they stay in the cache
MIN_PIXELS, MIN_CHANNELS = 1024, 128  # with fewer, torch's convolution was faster (measured)


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether convolution() is usable and faster for x (B, h, w, in) and weight (out, in, 3, 3)."""
    batch, height, width, _ = x.shape
    return (
        x.dtype == torch.float32  # in bfloat16 the sums would lose too much precision
        and batch * height * width >= MIN_PIXELS
        and min(weight.shape[:2]) >= MIN_CHANNELS
        and height % 2 == width % 2 == 0
    )


def convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute conv2d(x, weight, bias, padding=1), with channels in the last dimension.

    Args:
        x: (B, h, w, in) with even h and w.
        weight, bias: (out, in, 3, 3), (out,).

    Returns:
        (B, h, w, out).
    """
    batch, height, width, in_channels = x.shape
    out_channels = len(weight)
    kernels = _transformed_kernel(weight)  # (16, in, out)
    out = x.new_empty(batch, height, width, out_channels)
    step = 2 * max(1, 2 * TILES // width)  # rows of pixels at once
    for image, image_out in zip(x, out):
        for top in range(0, height, step):
            bottom = min(top + step, height)
            rows = image[max(top - 1, 0) : bottom + 1]
            rim = (0, 0, 1, 1, int(top == 0), int(bottom == height))
            tiles = _transformed_tiles(F.pad(rows, rim))  # (4, 4, n, w / 2, in)
            products = torch.bmm(tiles.flatten(2, 3).flatten(0, 1), kernels)  # (16, n w / 2, out)
            products = products.view(*tiles.shape[:4], out_channels)
            results = image_out[top:bottom].view(-1, 2, width // 2, 2, out_channels)
            _sum_products(products, bias, results.permute(1, 3, 0, 2, 4))
    return out


def _transformed_kernel(weight: Tensor) -> Tensor:
    """Compute the factors of g in both dimensions: (out, in, 3, 3) -> (16, in, out)."""
    out_channels, in_channels, _, _ = weight.shape
    line = weight.new_tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    kernel = weight.permute(0, 2, 3, 1).reshape(out_channels, 9, in_channels)
    return torch.matmul(torch.kron(line, line), kernel).permute(1, 2, 0)


def _transformed_tiles(rows: Tensor) -> Tensor:
    """Compute the factors of d in both dimensions, for n pairs of rows with a border of one pixel.

    (2 n + 2, w + 2, in) -> (4, 4, n, w / 2, in)
    """
    pairs, width, channels = len(rows) // 2 - 1, rows.shape[1] - 2, rows.shape[2]
    down = rows.new_empty(4, pairs, width + 2, channels)
    _factors([rows[i : i + 2 * pairs : 2] for i in range(4)], down)
    tiles = rows.new_empty(4, 4, pairs, width // 2, channels)
    _factors([down[:, :, i : i + width : 2] for i in range(4)], tiles.transpose(0, 1))
    return tiles


def _factors(d: list[Tensor], out: Tensor) -> None:
    """The factors of d in one dimension, see the top of this file."""
    torch.sub(d[0], d[2], out=out[0])
    torch.add(d[1], d[2], out=out[1])
    torch.sub(d[2], d[1], out=out[2])
    torch.sub(d[1], d[3], out=out[3])


def _sum_products(products: Tensor, bias: Tensor, results: Tensor) -> None:
    """Write the sums of products m (4, 4, n, w / 2, out) into results (2, 2, n, w / 2, out)."""
    down = torch.empty_like(products[:2])  # (2, 4, n, w / 2, out)
    _sums(products, down)
    down[:, 1] += bias  # m1 is in both sums once, with a factor of 1
    _sums(down.transpose(0, 1), results.transpose(0, 1))


def _sums(m: Tensor, out: Tensor) -> None:
    """The sums of m in one dimension, see the top of this file."""
    torch.add(m[0], m[1], out=out[0]).add_(m[2])
    torch.sub(m[1], m[2], out=out[1]).sub_(m[3])
