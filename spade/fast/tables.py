"""The generator on a CPU: the same function as its forward(), several times as fast.

Three quarters of the work is gamma and beta, two convolutions of the label map in front of every
other convolution.  A pixel's gamma and beta depend only on its 5x5 neighbourhood in the map, and a
street has few distinct neighbourhoods, because the map is constant inside of roads and walls.
Therefore, at each resolution,

1. the distinct 3x3 neighbourhoods of the map are numbered, and the hidden layer is computed for
   these N1 only (3 % of the pixels of a street of 512x256, 20 % at a quarter of that size);
2. the hidden layer of each of them is multiplied by the nine positions of the gamma and beta
   kernels;
3. the distinct 3x3 neighbourhoods of the numbers from step 1 are numbered in turn.  Gamma and beta
   are computed for these N2 only (9 %, 40 %), as sums of nine products from step 2, and every pixel
   looks up its own.

If a map has too many distinct neighbourhoods (noise), gamma and beta are convolutions as in
forward().  Batch norm and spectral norm are folded into the tables, and nearest-neighbour
enlargement into the scaling.  Nothing is kept from one call to the next, so weights may change at
any time.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..normalization import SPADE, SpectralNormConv2d
from ..semantics import LABEL_PLANES, codes_to_planes

OUTSIDE = 2 * LABEL_PLANES  # the code of pixels outside of the map: neither a class nor an edge
MAX_SCALED = 1 << 18  # activations that are scaled at once; more would not stay in the CPU's cache
MAX_PRODUCTS = 1 << 22  # numbers in a table of products, if MIN_CHANNELS allow it
MIN_CHANNELS = 64  # of a table of products: looking up 16 numbers takes as long as looking up 64
MAX_PATCH_PIXELS = 512  # a convolution of so few pixels is a product of patches (measured)
MAX_DISTINCT_SHARE = 0.5  # neighbourhoods per pixel up to which tables are faster (measured)


def number_neighbourhoods(numbers: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Number the distinct 3x3 neighbourhoods of a map.

    Args:
        numbers: (B, h, w) int64 in 0..count - 1; pixels outside of the map count as `count`.

    Returns:
        The nine numbers of each of the N distinct neighbourhoods, row by row, (N, 9) int64 in
        0..count; and the index of each pixel's neighbourhood, (B, h, w) int64 in 0..N - 1.
    """
    padded = F.pad(numbers, (1, 1, 1, 1), value=count)  # (B, h + 2, w + 2)
    triples = (padded[:, :, :-2], padded[:, :, 1:-1], padded[:, :, 2:])
    rows, row_of = _distinct_triples(triples, count + 1)  # (R, 3), (B, h + 2, w)
    triples = (row_of[:, :-2], row_of[:, 1:-1], row_of[:, 2:])
    squares, square_of = _distinct_triples(triples, len(rows))  # (N, 3), (B, h, w)
    return rows[squares].flatten(1), square_of


def _distinct_triples(triples: tuple[Tensor, ...], base: int) -> tuple[Tensor, Tensor]:
    """Three maps of numbers below base -> the distinct triples (N, 3), and each pixel's index."""
    first, second, third = triples
    if base**3 < 2**63:  # a triple fits into one int64; otherwise pairs are numbered first
        keys, triple_of = torch.unique((first * base + second) * base + third, return_inverse=True)
        return torch.stack([keys // base**2, keys // base % base, keys % base], 1), triple_of
    keys, pair_of = torch.unique(first * base + second, return_inverse=True)
    pairs = torch.stack([keys // base, keys % base], 1)  # (M, 2)
    keys, triple_of = torch.unique(pair_of * base + third, return_inverse=True)
    return torch.cat([pairs[keys // base], keys[:, None] % base], 1), triple_of


class Neighbourhoods:
    """The distinct neighbourhoods of a batch of maps, used by all SPADE layers of one resolution.

    Args:
        codes: (B, h, w) int64, see spade.semantics.label_codes.

    Attributes:
        small: the distinct 3x3 neighbourhoods, as nine codes each, (N1, 9).
        small_of: the index of each pixel's 3x3 neighbourhood, (B, h, w).
    """

    def __init__(self, codes: Tensor):
        self.small, self.small_of = number_neighbourhoods(codes, OUTSIDE)  # (N1, 9), (B, h, w)

    @cached_property
    def large(self) -> tuple[Tensor, Tensor]:
        """The distinct 5x5 neighbourhoods, as nine indices of small ones each (N1: outside of the
        map), (N2, 9); and the index of each pixel's 5x5 neighbourhood, (B, h, w)."""
        return number_neighbourhoods(self.small_of, len(self.small))

    @property
    def repeat(self) -> bool:
        """Whether the neighbourhoods repeat often enough for tables to be faster."""
        return len(self.small) <= MAX_DISTINCT_SHARE * self.small_of.numel()


@dataclass
class Modulation:
    """Tables of scale and shift, (N, C) each, and each pixel's row in them, (B, h, w).

    row_of is None if the rows are the pixels in order.
    """

    scale: Tensor
    shift: Tensor
    row_of: Tensor | None


def modulation(
    layer: SPADE,
    neighbourhoods: Neighbourhoods,
    gain: Tensor,
    dtype: torch.dtype,
    z: Tensor | None = None,
) -> Modulation:
    """Compute scale and shift, so that ``x * scale + shift`` is gain * layer(x, semantics, z)."""
    hidden = _hidden(layer, neighbourhoods.small, z)  # (N1, hidden)
    row_of = None
    if neighbourhoods.repeat:
        members, row_of = neighbourhoods.large
        gamma, beta = (
            _sums_of_products(hidden, convolution.weight, members, dtype)  # (N2, C)
            for convolution in (layer.mlp_gamma, layer.mlp_beta)
        )
    else:
        hidden = hidden.to(dtype)[neighbourhoods.small_of].permute(0, 3, 1, 2)  # (B, hidden, h, w)
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
    """Compute the hidden layer of neighbourhoods given by nine codes, (N, 9) -> (N, hidden).

    A one-hot plane selects one column of the kernel, so a convolution of one-hot planes is a sum of
    columns.
    """
    convolution = layer.mlp_shared[0]
    shift = convolution.bias
    if layer.mlp_style is not None and z is not None:
        shift = shift + layer.mlp_style(z)  # (1, hidden)
    columns = convolution.weight.permute(2, 3, 1, 0).flatten(0, 1)  # (9, 36, hidden)
    plain = columns[:, :LABEL_PLANES]  # (9, 35, hidden): of each label
    edge = plain + columns[:, LABEL_PLANES:]  # of each label on an edge
    outside = torch.zeros_like(plain[:, :1])  # a convolution pads with zeros
    table = torch.cat([plain, edge, outside], 1)  # (9, 71, hidden)
    return F.relu_(_sum_of_nine(members, table).add_(shift))


def _sums_of_products(
    hidden: Tensor, weight: Tensor, members: Tensor, dtype: torch.dtype
) -> Tensor:
    """Convolve the hidden layer (3x3) at the N2 neighbourhoods -> (N2, C) float32.

    Args:
        hidden: (N1, hidden) float32.
        weight: (C, hidden, 3, 3).
        members: (N2, 9) rows of hidden; N1, outside of the map, stands for a row of zeros.
    """
    hidden = F.pad(hidden.to(dtype), (0, 0, 0, 1))  # (N1 + 1, hidden)
    kernel = weight.to(dtype).permute(2, 3, 1, 0).flatten(0, 1)  # (9, hidden, C)
    channels = kernel.shape[2]
    sums = hidden.new_empty(len(members), channels, dtype=torch.float32)
    block = max(1, MAX_PRODUCTS // (9 * len(hidden) * MIN_CHANNELS)) * MIN_CHANNELS
    for start in range(0, channels, block):
        part = slice(start, start + block)
        products = torch.bmm(hidden.expand(9, -1, -1), kernel[:, :, part])  # (9, N1 + 1, block)
        sums[:, part] = _sum_of_nine(members, products)
    return sums


def _sum_of_nine(members: Tensor, tables: Tensor) -> Tensor:
    """Sum row members[:, i] of table i over i: members (N, 9), tables (9, M, K) -> (N, K)."""
    rows = members + len(tables[0]) * torch.arange(9, device=members.device)
    return F.embedding_bag(rows, tables.flatten(0, 1), mode="sum")


def _modulated(
    x: Tensor, table: Modulation, rows: slice, factor: int, out: Tensor | None = None
) -> Tensor:
    """Compute ``x * scale + shift`` for some rows of x, enlarged by nearest neighbour.

    Args:
        x: (B, h / factor, w / factor, C).
        rows: which of x's B h / factor rows.
        out: (B, h, w, C) to write into; None returns a new tensor.

    Returns:
        These rows enlarged, (pixels, C).
    """
    batch, height, width, channels = x.shape
    x = x.view(batch * height, 1, width, 1, channels)[rows]
    shape = (len(x), factor, width, factor, channels)
    both = table.scale, table.shift
    if table.row_of is None:
        scale, shift = (values.view(batch * height, *shape[1:])[rows] for values in both)
    else:
        row_of = table.row_of.view(batch * height, -1)[rows].flatten()  # (pixels,)
        scale, shift = (values.index_select(0, row_of).view(shape) for values in both)
    # The result may overwrite shift, because each part of it is read only once.
    out = shift if out is None else out.view(batch * height, *shape[1:])[rows]
    return torch.addcmul(shift, x, scale, out=out).view(-1, channels)


def _grained(x: Tensor, grain: nn.Module, factor: int, z: Tensor | None) -> Tensor:
    """Enlarge x (B, h / factor, w / factor, C) and add one style's Grain -> (B, h, w, C)."""
    batch, height, width, channels = x.shape
    added = grain.planes.permute(1, 2, 0) @ grain.shares(z)[0].t()  # (h, w, C)
    added = added.to(x.dtype).view(height, factor, width, factor, channels)
    x = x.view(batch, height, 1, width, 1, channels) + added
    return x.view(batch, height * factor, width * factor, channels)


def _pieces(x: Tensor, factor: int) -> list[slice]:
    """Split the B h rows of x (B, h, w, C) into slices of at most MAX_SCALED enlarged numbers."""
    batch, height, width, channels = x.shape
    step = max(1, MAX_SCALED // (width * channels * factor**2))
    return [slice(start, start + step) for start in range(0, batch * height, step)]


def _activated(x: Tensor, table: Modulation, factor: int, out: Tensor) -> Tensor:
    """Write the leaky ReLU of the modulated x into out (B, h, w, C), and return out."""
    for rows in _pieces(x, factor):
        F.leaky_relu_(_modulated(x, table, rows, factor, out), 0.2)
    return out


def _weight_and_gain(convolution: SpectralNormConv2d | nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Return a kernel before spectral normalisation, and the positive factor that normalises it.

    A positive factor can be applied before the leaky ReLU instead of after it, and there it is part
    of the tables.
    """
    if isinstance(convolution, nn.Conv2d):  # folded
        return convolution.weight, convolution.weight.new_ones(())
    weight = convolution.weight_orig.contiguous(memory_format=torch.channels_last)
    out_channels, in_channels, size, _ = weight.shape
    matrix = weight.permute(0, 2, 3, 1).reshape(out_channels, -1)  # (out, size size in), no copy
    right = convolution.weight_v.view(in_channels, size, size).permute(1, 2, 0).flatten()
    singular_value = convolution.weight_u @ (matrix @ right)
    if singular_value < 0:  # u and v are random before the first power iteration
        return -weight, -1 / singular_value
    return weight, 1 / singular_value


def _convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve x (B, h, w, in) with a 3x3 kernel -> (B, h, w, out)."""
    if x[..., 0].numel() <= MAX_PATCH_PIXELS:
        return _product_of_patches(x, weight.to(x.dtype), bias.to(x.dtype))
    x = x.permute(0, 3, 1, 2)  # (B, in, h, w) in the layout channels-last
    x = F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), padding=1)
    return x.permute(0, 2, 3, 1).contiguous()


def _product_of_patches(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute _convolved() as one matrix product, for few pixels and large kernels.

    conv2d would first copy the kernel into another layout, which takes longer than the product.
    """
    batch, height, width, _ = x.shape
    patches = F.pad(x, (0, 0, 1, 1, 1, 1)).unfold(1, 3, 1).unfold(2, 3, 1)  # (B, h, w, in, 3, 3)
    patches = patches.permute(0, 1, 2, 4, 5, 3).reshape(batch * height * width, -1)
    matrix = weight.permute(0, 2, 3, 1).flatten(1).t()  # (9 in, out)
    return torch.addmm(bias, patches, matrix).view(batch, height, width, -1)


def _as_rows(x: Tensor) -> Tensor:
    """Reshape (B, C, h, w) to (B h w, C) float32."""
    return x.permute(0, 2, 3, 1).flatten(0, 2).float()


def block_forward(
    block: nn.Module,
    x: Tensor,
    neighbourhoods: Neighbourhoods,
    factor: int,
    z: Tensor | None = None,
) -> Tensor:
    """Enlarge x and apply a SpadeBlock to it.

    Args:
        x: (B, h / factor, w / factor, in).
        neighbourhoods: of maps (B, h, w).
        z: (1, z_dim) or None.

    Returns:
        (B, h, w, out).
    """
    weight, gain = _weight_and_gain(block.conv_0)
    out = x.new_empty(*neighbourhoods.small_of.shape, x.shape[3])  # (B, h, w, in)
    table = modulation(block.norm_0, neighbourhoods, gain, x.dtype, z)
    out = _activated(x, table, factor, out)
    out = _convolved(out, weight, block.conv_0.bias)  # (B, h, w, middle)
    weight, gain = _weight_and_gain(block.conv_1)
    table = modulation(block.norm_1, neighbourhoods, gain, x.dtype, z)
    out = _activated(out, table, 1, out)
    out = _convolved(out, weight, block.conv_1.bias)  # (B, h, w, out)
    batch, height, width, channels = x.shape
    if not block.learned_shortcut:
        enlarged = out.view(batch * height, factor, width, factor, channels)
        enlarged += x.view(batch * height, 1, width, 1, channels)
        return out
    weight, gain = _weight_and_gain(block.conv_s)
    matrix = weight.flatten(1).t().to(x.dtype)  # (in, out)
    table = modulation(block.norm_s, neighbourhoods, gain, x.dtype, z)
    rows_out = out.view(batch * height, -1, out.shape[3])  # (B h / factor, pixels of a row, out)
    for rows in _pieces(x, factor):
        rows_out[rows].flatten(0, 1).addmm_(_modulated(x, table, rows, factor), matrix)
    return out


def stages(generator: nn.Module) -> list[tuple[str, int, int]]:
    """List the blocks of a SpadeGenerator: name, pixels of the map per pixel, enlargement."""
    result, step = [], generator.factor
    for name, enlargement in generator.enlargements.items():
        step //= enlargement
        result.append((name, step, enlargement))
    return result


@torch.no_grad()
def fast_forward(
    generator: nn.Module, codes: Tensor, z: Tensor | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Compute what forward() computes from the planes of these codes in evaluation mode.

    Args:
        generator: a SpadeGenerator with weights in float32, in any mode.
        codes: (B, H, W) int64, see spade.semantics.label_codes.
        z: (B, z_dim) float or None.
        dtype: torch.float32 or torch.bfloat16, for activations and products.

    Returns:
        image_pm1, (B, 3, H, W) of this dtype in -1..1.
    """
    if generator.is_styled and z is not None and len(z) > 1:  # each style needs its own tables
        each = zip(codes[:, None], z[:, None], strict=True)
        return torch.cat([fast_forward(generator, *one, dtype) for one in each])
    step = generator.factor  # nearest-neighbour resizing takes the first pixel of each cell
    x = generator.first_features(codes_to_planes(codes[:, ::step, ::step]), z).to(dtype)
    x = x.permute(0, 2, 3, 1).contiguous()  # (B, h, w, 16 ngf)
    neighbourhoods = None
    for name, step, factor in stages(generator):
        if neighbourhoods is None or factor > 1:
            neighbourhoods = Neighbourhoods(codes[:, ::step, ::step])
        if name in generator.grains:
            x, factor = _grained(x, generator.grains[name], factor, z), 1
        x = block_forward(getattr(generator, name), x, neighbourhoods, factor, z)
    x = _convolved(F.leaky_relu_(x, 0.2), generator.conv_img.weight, generator.conv_img.bias)
    return x.permute(0, 3, 1, 2).tanh_()  # (B, 3, H, W)
