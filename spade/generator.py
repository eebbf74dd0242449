"""The generator, which draws an image into a label map."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.engine.graphs import inferred
from utils.engine.precision import evaluation_mode, half_precision
from utils.images import pm1_to_u8

from .fast import fast_forward
from .normalization import SPADE, SpectralNormConv2d, resize_nearest
from .semantics import SEMANTIC_CHANNELS, codes_to_planes, label_codes

BLOCKS = ("head_0", "G_middle_0", "G_middle_1", "up_0", "up_1", "up_2", "up_3", "up_4")
# The factor by which each block's input is enlarged; the names "normal", "more" and "most" are
# those of the published training option.
ENLARGEMENTS = {
    "normal": (1, 2, 1, 2, 2, 2, 2),
    "more": (1, 2, 2, 2, 2, 2, 2),
    "most": (1, 2, 2, 2, 2, 2, 2, 2),
}
GRAIN_PLANES = 4
MEAN_STYLE = "mean"  # the style of every generator, with a latent or without
PRECISIONS = {"exact": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class SpadeBlock(nn.Module):
    """A residual block with SPADE in front of each convolution.

    Args:
        in_channels, out_channels: if they differ, the shortcut is a learned 1x1 convolution.
        hidden, semantic_channels, z_dim: see SPADE.

    Source: Park et al., CVPR 2019, arXiv:1903.07291, figure 4 (right).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int = 128,
        semantic_channels: int = 36,
        z_dim: int | None = None,
    ):
        super().__init__()
        middle = min(in_channels, out_channels)
        self.conv_0 = SpectralNormConv2d(in_channels, middle, kernel_size=3, padding=1)
        self.conv_1 = SpectralNormConv2d(middle, out_channels, kernel_size=3, padding=1)
        self.norm_0 = SPADE(in_channels, semantic_channels, hidden, z_dim)
        self.norm_1 = SPADE(middle, semantic_channels, hidden, z_dim)
        self.learned_shortcut = in_channels != out_channels
        if self.learned_shortcut:
            self.conv_s = SpectralNormConv2d(in_channels, out_channels, kernel_size=1, bias=False)
            self.norm_s = SPADE(in_channels, semantic_channels, hidden, z_dim)

    def forward(self, x: Tensor, semantics: Tensor, z: Tensor | None = None) -> Tensor:
        """x (B, in, h, w), semantics (B, 36, H, W) and z (B, z_dim) -> (B, out, h, w)."""
        shortcut = self.conv_s(self.norm_s(x, semantics, z)) if self.learned_shortcut else x
        x = self.conv_0(F.leaky_relu(self.norm_0(x, semantics, z), 0.2))  # (B, middle, h, w)
        x = self.conv_1(F.leaky_relu(self.norm_1(x, semantics, z), 0.2))  # (B, out, h, w)
        return shortcut + x


class Grain(nn.Module):
    """Planes of learned noise that the latent mixes into every channel of a block's input.

    All pixels inside a large wall have the same surroundings in the map, so without noise a
    generator draws all of them alike.  The noise differs from pixel to pixel, and the network can
    turn it into windows, bricks and the texture of asphalt.

    Args:
        channels, height, width: shape of the block's input.
        z_dim: size of the latent.

    Source: Karras et al., CVPR 2019, arXiv:1812.04948, section 3.2.  Their noise is random for each
    image; this noise is drawn once and then learned, so a map and a z always give the same image.
    """

    def __init__(self, channels: int, height: int, width: int, z_dim: int):
        super().__init__()
        self.planes = nn.Parameter(torch.randn(GRAIN_PLANES, height, width))
        self.mix = nn.Linear(z_dim, channels * GRAIN_PLANES)

    def shares(self, z: Tensor | None) -> Tensor:
        """Weight of each plane in each channel: z (B, z_dim), or None for zeros -> (B, C, 4)."""
        mix = self.mix.bias[None] if z is None else self.mix(z)
        return mix.unflatten(1, (-1, GRAIN_PLANES))

    def forward(self, z: Tensor | None) -> Tensor:
        """Noise to add to the block's input: z (B, z_dim) or None -> (B, C, height, width)."""
        return torch.einsum("bcp,phw->bchw", self.shares(z), self.planes)


class SpadeGenerator(nn.Module):
    """Generates an image from a label map; by default 7 blocks enlarge a 4x8 grid to 256x512.

    Args:
        ngf: channels of the block up_3; the first block has 16 times as many, and up_4 has half.
        upsampling: "normal", "more" (the published Cityscapes weights) or "most": the start grid is
            32, 64 or 128 times smaller than the image.
        z_dim: size of the latent that sets the style; None for a generator without a latent.
        size: (width, height) of the images in pixels.  A generator with a latent makes this size
            only; one without a latent makes any multiple of the upsampling factor.
        hidden, semantic_channels: see SPADE.
        max_channels: upper limit of the channels of every block; None is 16 times ngf, as
            published.  The wide blocks at the start hold most of the weights but do little of the
            work, so a limit makes the file much smaller.
        styled_layers: z also shifts the hidden layer of every SPADE, see SPADE.  As published
            (False) z only sets the start grid.  Then z can change the light of the image, but
            hardly the look of a city's walls.
        grain: add learned noise to every block's input, see Grain; not in the published networks.

    Attributes:
        styles: latents by name, (z_dim,) each: the cities and times of day of its training scenes.
        history: the losses of its training, see spade.training.
        recipe: the settings of each stage of its training, see spade.stages.Stage.
        licence: of the weights; None if unknown.
        These four are saved with the weights.

    Raises:
        ValueError: an unknown upsampling, a size that is not a multiple of its factor, or
            styled_layers or grain without a latent.

    Source: Park et al., CVPR 2019, arXiv:1903.07291, appendix A.
    """

    def __init__(
        self,
        ngf: int = 64,
        upsampling: str = "more",
        z_dim: int | None = None,
        size: tuple[int, int] = (512, 256),
        hidden: int = 128,
        semantic_channels: int = 36,
        max_channels: int | None = None,
        styled_layers: bool = False,
        grain: bool = False,
    ):
        super().__init__()
        if (styled_layers or grain) and z_dim is None:
            raise ValueError("styled_layers and grain need a latent: set z_dim, 64 for example.")
        if upsampling not in ENLARGEMENTS:
            raise ValueError(f'upsampling is {upsampling!r}, expected "normal", "more" or "most".')
        size = (int(size[0]), int(size[1]))
        # What load_generator needs, besides the weights, to build the same network.
        self.settings = {
            "ngf": ngf,
            "upsampling": upsampling,
            "z_dim": z_dim,
            "size": size,
            "hidden": hidden,
            "semantic_channels": semantic_channels,
            "max_channels": max_channels,
            "styled_layers": styled_layers,
            "grain": grain,
        }
        self.styles: dict[str, Tensor] = {}
        self.history: dict[str, list] = {}
        self.licence: str | None = None
        self.recipe: list[dict] = []
        self.upsampling = upsampling
        self.z_dim = z_dim
        self.is_styled = styled_layers or grain  # z does more than make the start grid
        self.size = size
        self.semantic_channels = semantic_channels
        self.enlargements = dict(zip(BLOCKS, ENLARGEMENTS[upsampling], strict=False))
        self.factor = math.prod(self.enlargements.values())
        grid_height, grid_width = self._start_grid(height=size[1], width=size[0])

        # Channels of the first blocks, of up_0 .. up_3, and of up_4.
        first, *widths, last = (
            min(factor * ngf // 2, max_channels or 16 * ngf) for factor in (32, 16, 8, 4, 2, 1)
        )

        def block(in_channels: int, out_channels: int) -> SpadeBlock:
            style = z_dim if styled_layers else None
            return SpadeBlock(in_channels, out_channels, hidden, semantic_channels, style)

        if z_dim is None:
            self.fc = nn.Conv2d(semantic_channels, first, kernel_size=3, padding=1)
        else:
            self.fc = nn.Linear(z_dim, first * grid_height * grid_width)
        self.head_0 = block(first, first)
        self.G_middle_0 = block(first, first)
        self.G_middle_1 = block(first, first)
        self.up_0 = block(first, widths[0])
        self.up_1 = block(widths[0], widths[1])
        self.up_2 = block(widths[1], widths[2])
        self.up_3 = block(widths[2], widths[3])
        if upsampling == "most":
            self.up_4 = block(widths[3], last)
        self.conv_img = nn.Conv2d(last if upsampling == "most" else widths[3], 3, 3, padding=1)

        self.grains = nn.ModuleDict()
        if grain:
            height, width = grid_height, grid_width
            for name, enlargement in self.enlargements.items():
                height, width = height * enlargement, width * enlargement
                channels = getattr(self, name).norm_0.param_free_norm.num_features
                self.grains[name] = Grain(channels, height, width, z_dim)

    def forward(self, semantics: Tensor, z: Tensor | None = None) -> Tensor:
        """Draw images into semantic planes.

        Args:
            semantics: (B, 36, H, W) float, see spade.semantics.
            z: (B, z_dim) float, or (1, z_dim) for the whole batch; only for a generator with a
                latent.  None is a z of zeros, the mean of the prior.  forward() draws no random
                numbers.

        Returns:
            image_pm1, (B, 3, H, W) float in -1..1.

        Raises:
            ValueError: H or W is not a multiple of the upsampling factor, or z has a wrong shape.
        """
        if semantics.dim() != 4 or semantics.shape[1] != self.semantic_channels:
            raise ValueError(
                f"semantics has shape {tuple(semantics.shape)}, expected (B, "
                f"{self.semantic_channels}, H, W): make it with spade.semantics(label_ids)."
            )
        batch, _, height, width = semantics.shape
        self._check_inputs(batch, height, width, z)
        grid = self._start_grid(height, width)
        x = self.first_features(resize_nearest(semantics, size=grid), z)
        # Channels with "more" and no max_channels: 16 ngf at heights H / 64, H / 32 and H / 16,
        # 8 ngf at H / 8, 4 ngf at H / 4, 2 ngf at H / 2 and ngf at H.
        for name, enlargement in self.enlargements.items():
            x = resize_nearest(x, scale_factor=enlargement)
            x = getattr(self, name)(self.grained(name, x, z), semantics, z)
        return torch.tanh(self.conv_img(F.leaky_relu(x, 0.2)))  # (B, 3, H, W)

    @torch.no_grad()
    def synthesize(
        self,
        label_ids: Tensor,
        instance_ids: Tensor | None = None,
        z: Tensor | None = None,
        precision: str = "exact",
        edges: bool = True,
        checked: bool = False,
    ) -> Tensor:
        """Draw images into label maps, in evaluation mode and without gradients.

        On a CPU this uses spade/fast, which computes the same function several times as fast.  It
        does not call the modules, so hooks on them run only in forward().

        Args:
            label_ids: (H, W) or (B, H, W) integers on any device, Cityscapes label ids 0..33, at
                the size of the image to make.
            instance_ids: the same shape, or None for edges between classes only.
            z: (B, z_dim) float, or (1, z_dim) for all maps; see style().  None is a z of zeros.
            precision: "exact" computes in float32, "bf16" in bfloat16 where this is safe.  bfloat16
                gives slightly different images and is faster on recent GPUs and on CPUs with
                instructions for it (avx512_bf16, amx_bf16).  "fp16", float16, is for GPUs without
                bfloat16, such as a T4.
            edges: False leaves the edge plane empty and ignores instance_ids.
            checked: see spade.semantics.

        Returns:
            image_u8, (3, H, W) or (B, 3, H, W) uint8 RGB on the generator's device.

        Raises ValueError: see spade.semantics and forward(); an unknown precision.
        """
        dtype = self.dtype_of(precision)
        device = self.conv_img.weight.device
        if self.semantic_channels != SEMANTIC_CHANNELS:
            raise ValueError(
                f"This generator was made for {self.semantic_channels} planes, but a label map has "
                f"{SEMANTIC_CHANNELS}: call the generator itself with planes of your own."
            )
        codes = label_codes(label_ids.to(device), instance_ids, edges, checked)  # (B, H, W)
        self._check_inputs(*codes.shape, z)
        z = None if z is None else z.to(device)
        # Autocast is set in any case, because the caller may be inside another autocast.
        with half_precision(device, dtype):
            if device.type == "cpu":
                image_pm1 = fast_forward(self, codes, z, dtype)  # (B, 3, H, W)
            else:
                inputs = (codes,) if z is None else (codes, z)
                image_pm1 = inferred(self, partial(self._drawn, dtype), *inputs)  # (B, 3, H, W)
        image_u8 = pm1_to_u8(image_pm1.float())
        return image_u8[0] if label_ids.dim() == 2 else image_u8

    def dtype_of(self, precision: str) -> torch.dtype:
        """Return what a precision computes in; ValueError if it is unknown, or fp16 on a CPU."""
        on_cpu = self.conv_img.weight.device.type == "cpu"
        if precision not in PRECISIONS or (precision == "fp16" and on_cpu):
            raise ValueError(
                f"precision is {precision!r}: expected exact or bf16, or on a GPU fp16."
            )
        return PRECISIONS[precision]

    def style(self, name: str) -> Tensor | None:
        """Look up a style by its name -> z (1, z_dim), or None for "mean", the mean style.

        Styles can be mixed: ``torch.lerp(generator.style("noon"), generator.style("dusk"), 0.3)``
        is three tenths dusk.  Every generator has the mean style, also one without a latent.

        Raises ValueError, which lists the names, if there is no such style.
        """
        if name == MEAN_STYLE:
            return None
        if name not in self.styles:
            known = ", ".join([*self.styles, MEAN_STYLE])
            raise ValueError(f"This generator has no style {name!r}; its styles: {known}.")
        return self.styles[name][None].to(self.conv_img.weight.device)

    def first_features(self, planes: Tensor, z: Tensor | None) -> Tensor:
        """Return the first block's input, (B, 16 ngf, h, w), from planes (B, 36, h, w) or z."""
        if self.z_dim is None:
            return self.fc(planes)
        batch, _, height, width = planes.shape
        z = planes.new_zeros(1, self.z_dim) if z is None else z
        return self.fc(z.expand(batch, -1)).reshape(batch, -1, height, width)

    def grained(self, name: str, x: Tensor, z: Tensor | None) -> Tensor:
        """Return a block's input x (B, C, h, w), with the block's grain added if it has any."""
        return x + self.grains[name](z) if name in self.grains else x

    def _drawn(self, dtype: torch.dtype, codes: Tensor, z: Tensor | None = None) -> Tensor:
        """Draw codes (B, H, W) by forward() in evaluation mode -> image_pm1 (B, 3, H, W)."""
        planes = codes_to_planes(codes)
        if dtype != torch.float32:  # 16 bits hold 0 and 1, and are fastest in this layout
            planes = planes.to(dtype, memory_format=torch.channels_last)
        with evaluation_mode(self):
            return self(planes, z)

    def _check_inputs(self, batch: int, height: int, width: int, z: Tensor | None) -> None:
        """Raise ValueError if the generator can't use this size or this z."""
        self._start_grid(height, width)
        if batch == 0:
            raise ValueError("The batch holds no label map: pass at least one, (1, H, W).")
        if self.z_dim is None:
            if z is not None:
                raise ValueError("This generator has no latent: leave z out, or set z_dim.")
            return
        if (width, height) != self.size:
            raise ValueError(
                f"The label map is {width}x{height} (width x height), but this generator has a "
                f"latent and makes one size only: resize the map to {self.size[0]}x{self.size[1]}."
            )
        if z is not None and z.shape not in ((batch, self.z_dim), (1, self.z_dim)):
            raise ValueError(
                f"z has shape {tuple(z.shape)}, expected ({batch}, {self.z_dim}), one row for each "
                f"label map, or (1, {self.z_dim}), one row for all."
            )

    def _start_grid(self, height: int, width: int) -> tuple[int, int]:
        """Return (rows, columns) of the start grid; ValueError if a side is not a multiple."""
        if height % self.factor or width % self.factor or not height or not width:
            raise ValueError(
                f"The size {width}x{height} (width x height) does not work: with "
                f'upsampling="{self.upsampling}" both must be multiples of {self.factor}; '
                f"the nearest are {_nearest_multiples(width, self.factor)} wide and "
                f"{_nearest_multiples(height, self.factor)} high."
            )
        return height // self.factor, width // self.factor


def _nearest_multiples(length: int, factor: int) -> str:
    """Name the nearest multiples of factor: "192 or 256" for 250 and 64, "256" for 256 and 64."""
    below, above = length // factor * factor, -(-length // factor) * factor
    return " or ".join(str(x) for x in sorted({below, above} - {0}) or [factor])
