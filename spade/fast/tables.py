"""The generator on a CPU, several times as fast as its forward() and the same function.

Three quarters of the work is gamma and beta, two convolutions of the label map in front of every
other convolution.  They depend on a pixel's 5x5 neighbourhood only, and a street has few distinct
ones: long roads and walls look the same everywhere.  So, at each resolution,

1. the distinct 3x3 neighbourhoods of the map are numbered, and the hidden layer is computed for
   these N1 only (3 % of the pixels of a street of 512x256, 20 % at a quarter of that size);
2. each of them is multiplied by the nine positions of the gamma and beta kernels;
3. the distinct 3x3 neighbourhoods of those numbers are numbered; gamma and beta of these N2 (9 %,
   40 %) are sums of nine products, and every pixel looks its own up.

Where a map has as many neighbourhoods as pixels (noise), gamma and beta are convolutions as in
forward().  Batch norm and spectral norm are folded into the tables, the nearest-neighbour doubling
into the scaling.  Nothing is kept from one call to the next, so weights may change at any time.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..normalization import SPADE, SpectralNormConv2d
from ..semantics import LABEL_PLANES, codes_to_planes
from . import winograd

OUTSIDE = 2 * LABEL_PLANES  # the code of what lies beyond the rim: neither a class nor an edge
PIECE = 1 << 18  # numbers of activations that are scaled at once: few enough to stay in the cache
TABLE = 1 << 22  # numbers in a table of products, which is made for WIDE channels at least ...
WIDE = 64  # ... because a lookup in memory costs the same for 16 numbers as for this many
FEW = 512  # pixels up to which a convolution is a product of patches (measured)
WORTH = 0.5  # distinct neighbourhoods for each pixel up to which the tables win (measured)


def number_neighbourhoods(numbers: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Number the distinct 3x3 neighbourhoods of a map.

    Args:
        numbers: (B, h, w) int64 in 0..count - 1; beyond the rim they count as `count`.

    Returns:
        The nine numbers of each of the N distinct neighbourhoods, row by row, (N, 9) int64 in
        0..count; and each pixel's neighbourhood, (B, h, w) int64 in 0..N - 1.
    """
    padded = F.pad(numbers, (1, 1, 1, 1), value=count)  # (B, h + 2, w + 2)
    triples = (padded[:, :, :-2], padded[:, :, 1:-1], padded[:, :, 2:])
    rows, row_of = _distinct_triples(triples, count + 1)  # (R, 3), (B, h + 2, w)
    triples = (row_of[:, :-2], row_of[:, 1:-1], row_of[:, 2:])
    squares, square_of = _distinct_triples(triples, len(rows))  # (N, 3), (B, h, w)
    return rows[squares].flatten(1), square_of


def _distinct_triples(triples: tuple[Tensor, ...], base: int) -> tuple[Tensor, Tensor]:
    """Three maps of numbers below base -> the distinct triples (N, 3), and each pixel's triple."""
    first, second, third = triples
    if base**3 < 2**63:  # else the number would not fit: first the pairs, then pairs and thirds
        keys, triple_of = torch.unique((first * base + second) * base + third, return_inverse=True)
        return torch.stack([keys // base**2, keys // base % base, keys % base], 1), triple_of
    keys, pair_of = torch.unique(first * base + second, return_inverse=True)
    pairs = torch.stack([keys // base, keys % base], 1)  # (M, 2)
    keys, triple_of = torch.unique(pair_of * base + third, return_inverse=True)
    return torch.cat([pairs[keys // base], keys[:, None] % base], 1), triple_of


class Neighbourhoods:
    """What all SPADE layers of one resolution, and all maps of a batch, share.

    Args:
        codes: (B, h, w) int64, see spade.semantics.label_codes.
    """

    def __init__(self, codes: Tensor):
        self.small, self.small_of = number_neighbourhoods(codes, OUTSIDE)  # (N1, 9), (B, h, w)

    @cached_property
    def large(self) -> tuple[Tensor, Tensor]:
        """The 5x5 ones, as nine numbers of small ones (N1: beyond the rim): (N2, 9), (B, h, w)."""
        return number_neighbourhoods(self.small_of, len(self.small))

    @property
    def repeat(self) -> bool:
        """Whether there are so few of them that tables save work."""
        return len(self.small) <= WORTH * self.small_of.numel()


@dataclass
class Modulation:
    """Scale and shift, (N, C) each, and the row that belongs to each pixel, (B, h, w), or None
    where every pixel has its own."""

    scale: Tensor
    shift: Tensor
    row_of: Tensor | None


def modulation(
    layer: SPADE, around: Neighbourhoods, gain: Tensor, dtype: torch.dtype, z: Tensor | None = None
) -> Modulation:
    """All that a SPADE layer does: ``x * scale + shift`` is gain * layer(x, semantics, z)."""
    hidden = _hidden(layer, around.small, z)  # (N1, hidden)
    row_of = None
    if around.repeat:
        members, row_of = around.large
        gamma, beta = (
            _sums_of_products(hidden, convolution.weight, members, dtype)  # (N2, C)
            for convolution in (layer.mlp_gamma, layer.mlp_beta)
        )
    else:
        hidden = hidden.to(dtype)[around.small_of].permute(0, 3, 1, 2)  # (B, hidden, h, w)
        gamma, beta = (
            _as_rows(F.conv2d(hidden, convolution.weight.to(dtype), padding=1))  # (B h w, C)
            for convolution in (layer.mlp_gamma, layer.mlp_beta)
        )
    # gain * ((x - mean) / deviation * (1 + gamma) + beta), sorted by x
    norm = layer.param_free_norm
    factor = gain * (norm.running_var + norm.eps).rsqrt()
    scale = gamma.add_(1 + layer.mlp_gamma.bias).mul_(factor)
    shift = beta.add_(layer.mlp_beta.bias).mul_(gain).addcmul_(scale, -norm.running_mean)
    return Modulation(scale.to(dtype), shift.to(dtype), row_of)


def _hidden(layer: SPADE, members: Tensor, z: Tensor | None) -> Tensor:
    """The hidden layer of neighbourhoods given by nine codes, (N, 9) -> (N, hidden).

    A one-hot plane picks one column of the kernel, so a convolution of planes is a sum of columns.
    """
    convolution = layer.mlp_shared[0]
    shift = convolution.bias
    if layer.mlp_style is not None and z is not None:
        shift = shift + layer.mlp_style(z)  # (1, hidden)
    columns = convolution.weight.permute(2, 3, 1, 0).flatten(0, 1)  # (9, 36, hidden)
    plain = columns[:, :LABEL_PLANES]  # (9, 35, hidden): a class
    edge = plain + columns[:, LABEL_PLANES:]  # the same with the edge plane
    outside = torch.zeros_like(plain[:, :1])  # the planes are zero beyond the rim
    table = torch.cat([plain, edge, outside], 1)  # (9, 71, hidden)
    return F.relu_(_sum_of_nine(members, table).add_(shift))


def _sums_of_products(
    hidden: Tensor, weight: Tensor, members: Tensor, dtype: torch.dtype
) -> Tensor:
    """A 3x3 convolution of the hidden layer at the N2 neighbourhoods: (N2, C) float32.

    Args:
        hidden: (N1, hidden) float32.
        weight: (C, hidden, 3, 3).
        members: (N2, 9) rows of hidden; N1, beyond the rim, is a row of zeros.
    """
    hidden = F.pad(hidden.to(dtype), (0, 0, 0, 1))  # (N1 + 1, hidden)
    kernel = weight.to(dtype).permute(2, 3, 1, 0).flatten(0, 1)  # (9, hidden, C)
    channels = kernel.shape[2]
    sums = hidden.new_empty(len(members), channels, dtype=torch.float32)
    block = max(1, TABLE // (9 * len(hidden) * WIDE)) * WIDE
    for start in range(0, channels, block):
        part = slice(start, start + block)
        products = torch.bmm(hidden.expand(9, -1, -1), kernel[:, :, part])  # (9, N1 + 1, block)
        sums[:, part] = _sum_of_nine(members, products)
    return sums


def _sum_of_nine(members: Tensor, tables: Tensor) -> Tensor:
    """Row members[:, i] of table i, summed over i: (N, 9) and (9, M, K) -> (N, K)."""
    rows = members + len(tables[0]) * torch.arange(9, device=members.device)
    return F.embedding_bag(rows, tables.flatten(0, 1), mode="sum")


def _modulated(
    x: Tensor, by: Modulation, rows: slice, factor: int, out: Tensor | None = None
) -> Tensor:
    """``x * scale + shift`` for some rows of pixels, with x enlarged on the way.

    Args:
        x: (B, h / factor, w / factor, C); each of its pixels serves for factor x factor.
        rows: which of x's B h / factor rows.
        out: (B, h, w, C) to write into; None allocates what is returned.

    Returns:
        Those rows enlarged, (pixels, C).
    """
    batch, height, width, channels = x.shape
    x = x.view(batch * height, 1, width, 1, channels)[rows]
    shape = (len(x), factor, width, factor, channels)
    if by.row_of is None:
        scale, shift = (
            table.view(batch * height, *shape[1:])[rows] for table in (by.scale, by.shift)
        )
    else:
        row_of = by.row_of.view(batch * height, -1)[rows].flatten()  # (pixels,)
        scale, shift = (table.index_select(0, row_of).view(shape) for table in (by.scale, by.shift))
    # Nobody reads this part of shift again.
    out = shift if out is None else out.view(batch * height, *shape[1:])[rows]
    return torch.addcmul(shift, x, scale, out=out).view(-1, channels)


def _grained(x: Tensor, grain: nn.Module, factor: int, z: Tensor | None) -> Tensor:
    """x (B, h / factor, w / factor, C), enlarged, and one style's Grain added -> (B, h, w, C)."""
    batch, height, width, channels = x.shape
    added = grain.planes.permute(1, 2, 0) @ grain.shares(z)[0].t()  # (h, w, C)
    added = added.to(x.dtype).view(height, factor, width, factor, channels)
    x = x.view(batch, height, 1, width, 1, channels) + added
    return x.view(batch, height * factor, width * factor, channels)


def _pieces(x: Tensor, factor: int) -> list[slice]:
    """All rows of x (B, h, w, C), a few at a time."""
    batch, height, width, channels = x.shape
    step = max(1, PIECE // (width * channels * factor**2))
    return [slice(start, start + step) for start in range(0, batch * height, step)]


def _activated(x: Tensor, by: Modulation, factor: int, out: Tensor) -> Tensor:
    """The leaky ReLU of the modulated x, written into out (B, h, w, C)."""
    for rows in _pieces(x, factor):
        F.leaky_relu_(_modulated(x, by, rows, factor, out), 0.2)
    return out


def _weight_and_gain(convolution: SpectralNormConv2d | nn.Conv2d) -> tuple[Tensor, Tensor]:
    """The kernel of a convolution without its spectral norm, and the factor, above 0, that is left
    to apply: before the leaky ReLU, which lets it through, it costs nothing."""
    if isinstance(convolution, nn.Conv2d):  # folded
        return convolution.weight, convolution.weight.new_ones(())
    weight = convolution.weight_orig.contiguous(memory_format=torch.channels_last)
    out_channels, in_channels, size, _ = weight.shape
    matrix = weight.permute(0, 2, 3, 1).reshape(out_channels, -1)  # (out, size size in), no copy
    right = convolution.weight_v.view(in_channels, size, size).permute(1, 2, 0).flatten()
    singular_value = convolution.weight_u @ (matrix @ right)
    if singular_value < 0:  # possible before the first power iteration
        return -weight, -1 / singular_value
    return weight, 1 / singular_value


def _convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3x3 convolution of x (B, h, w, in) -> (B, h, w, out)."""
    if x[..., 0].numel() <= FEW:
        return _product_of_patches(x, weight.to(x.dtype), bias.to(x.dtype))
    if winograd.pays(x, weight):
        return winograd.convolution(x, weight, bias)
    x = x.permute(0, 3, 1, 2)  # (B, in, h, w) in the layout channels-last
    x = F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), padding=1)
    return x.permute(0, 2, 3, 1).contiguous()


def _product_of_patches(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """_convolved() as one matrix product, for few pixels and large kernels: those stay where they
    are, while conv2d would bring them into an order of its own first."""
    batch, height, width, _ = x.shape
    patches = F.pad(x, (0, 0, 1, 1, 1, 1)).unfold(1, 3, 1).unfold(2, 3, 1)  # (B, h, w, in, 3, 3)
    patches = patches.permute(0, 1, 2, 4, 5, 3).reshape(batch * height * width, -1)
    matrix = weight.permute(0, 2, 3, 1).flatten(1).t()  # (9 in, out)
    return torch.addmm(bias, patches, matrix).view(batch, height, width, -1)


def _as_rows(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B h w, C) float32."""
    return x.permute(0, 2, 3, 1).flatten(0, 2).float()


def block_forward(
    block: nn.Module, x: Tensor, around: Neighbourhoods, factor: int, z: Tensor | None = None
) -> Tensor:
    """A SpadeBlock: x (B, h / factor, w / factor, in), z (1, z_dim) or None -> (B, h, w, out)."""
    weight, gain = _weight_and_gain(block.conv_0)
    out = x.new_empty(*around.small_of.shape, x.shape[3])  # (B, h, w, in)
    out = _activated(x, modulation(block.norm_0, around, gain, x.dtype, z), factor, out)
    out = _convolved(out, weight, block.conv_0.bias)  # (B, h, w, middle)
    weight, gain = _weight_and_gain(block.conv_1)
    out = _activated(out, modulation(block.norm_1, around, gain, x.dtype, z), 1, out)
    out = _convolved(out, weight, block.conv_1.bias)  # (B, h, w, out)
    batch, height, width, channels = x.shape
    if not block.learned_shortcut:
        enlarged = out.view(batch * height, factor, width, factor, channels)
        enlarged += x.view(batch * height, 1, width, 1, channels)
        return out
    weight, gain = _weight_and_gain(block.conv_s)
    matrix = weight.flatten(1).t().to(x.dtype)  # (in, out)
    by = modulation(block.norm_s, around, gain, x.dtype, z)
    rows_out = out.view(batch * height, -1, out.shape[3])  # (B h / factor, pixels of a row, out)
    for rows in _pieces(x, factor):
        rows_out[rows].flatten(0, 1).addmm_(_modulated(x, by, rows, factor), matrix)
    return out


def stages(generator: nn.Module) -> list[tuple[str, int, int]]:
    """Each block of a SpadeGenerator: name, the map's pixels for one of its own, enlargement."""
    result, step = [], generator.factor
    for name, enlargement in generator.enlargements.items():
        step //= enlargement
        result.append((name, step, enlargement))
    return result


@torch.no_grad()
def fast_forward(
    generator: nn.Module,
    codes: Tensor,
    z: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """What forward() does with the planes of these codes, in evaluation mode.

    Args:
        generator: a SpadeGenerator with weights in float32, in any mode.
        codes: (B, H, W) int64, see spade.semantics.label_codes.
        z: (B, z_dim) float or None.
        dtype: of activations and products: torch.float32 or torch.bfloat16.

    Returns:
        image_pm1, (B, 3, H, W) of that dtype in -1..1.
    """
    if generator.is_styled and z is not None and len(z) > 1:  # a style has tables of its own
        each = zip(codes[:, None], z[:, None], strict=True)
        return torch.cat([fast_forward(generator, *one, dtype) for one in each])
    step = generator.factor  # of nearest-neighbour resizing, which takes the first of each cell
    x = generator.first_features(codes_to_planes(codes[:, ::step, ::step]), z).to(dtype)
    x = x.permute(0, 2, 3, 1).contiguous()  # (B, h, w, 16 ngf)
    around = None
    for name, step, factor in stages(generator):
        if around is None or factor > 1:
            around = Neighbourhoods(codes[:, ::step, ::step])
        if name in generator.grains:
            x, factor = _grained(x, generator.grains[name], factor, z), 1
        x = block_forward(getattr(generator, name), x, around, factor, z)
    x = _convolved(F.leaky_relu_(x, 0.2), generator.conv_img.weight, generator.conv_img.bias)
    return x.permute(0, 3, 1, 2).tanh_()  # (B, 3, H, W)
