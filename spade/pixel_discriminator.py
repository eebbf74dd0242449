"""A discriminator that judges every pixel, on the features of a network that knows ImageNet."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.backbones import BACKBONES
from utils.images import pm1_to_imagenet, u8_to_pm1
from utils.labels import NAMES, NUM_LABELS
from utils.progress import progress
from utils.scenes import Scenes

from .losses import label_cross_entropy, style_cross_entropy
from .normalization import SpectralNormConv2d
from .semantics import LABEL_PLANES
from .styles import StyleClassifier

LITES = tuple(name for name in BACKBONES if name.startswith("efficientnet_lite"))
STYLED = slice(1, 4)  # the feature maps, at strides 16, 8 and 4, that show a photo's style
FAKE = NUM_LABELS  # the answer of a PixelDiscriminator that no label map holds


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, all with spectral norm."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv_0 = SpectralNormConv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.conv_1 = SpectralNormConv2d(out_channels, out_channels, kernel_size=3, padding=1)
        self.conv_s = SpectralNormConv2d(in_channels, out_channels, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_0(F.leaky_relu(x, 0.2))
        return self.conv_s(x) + self.conv_1(F.leaky_relu(y, 0.2))


class PixelDiscriminator(nn.Module):
    """Sorts every pixel of a photo into one of the 34 labels, or "fake".

    It is not shown the label map: a generated pixel passes if it looks like what the map says.  The
    features of a frozen ImageNet network are the encoder of a U-Net, whose decoder learns.  It can
    also tell a photo's city and time of day, from the mean and the spread of its features.

    Args:
        backbone: one of LITES.
        widths: of the decoder, at strides 32, 16, 8, 4, 2 and 1.
        classes: the styles that it tells, see spade.styles.style_labels; by default none.

    Raises ValueError for another backbone.

    Sources: Schoenfeld et al., ICLR 2021, arXiv:2012.04781 (labels and "fake", class weights);
    Sauer et al., NeurIPS 2021, arXiv:2111.01007 (frozen EfficientNet-Lite features); Berrada et
    al., arXiv:2312.13314 (both together, features brought to one scale).
    """

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        widths: Sequence[int] = (192, 128, 96, 64, 48, 48),
        classes: Sequence[Sequence[str]] = (),
    ):
        super().__init__()
        if backbone not in LITES:
            raise ValueError(
                f"A discriminator can't stand on {backbone!r}: expected {' or '.join(LITES)}."
            )
        self.backbone = BACKBONES[backbone]
        self.stages = nn.ModuleList(self.backbone.stages())
        channels = self.backbone.channels()[::-1]  # at strides 32 .. 2
        for index, count in enumerate(channels):
            self.register_buffer(f"mean_{index}", torch.zeros(count, 1, 1))
            self.register_buffer(f"std_{index}", torch.ones(count, 1, 1))
        self.register_buffer("class_weights", torch.ones(FAKE + 1))
        self.laterals = nn.ModuleList(
            nn.Conv2d(count, width, 1) for count, width in zip(channels, widths)
        )
        inputs = [widths[0], *widths[:4]]
        self.blocks = nn.ModuleList(ResidualBlock(*pair) for pair in zip(inputs, widths[:5]))
        self.last = ResidualBlock(widths[4] + 3, widths[5])
        self.score = nn.Conv2d(widths[5], FAKE + 1, 1)
        self.style = StyleClassifier(classes, 2 * sum(channels[STYLED])) if classes else None
        self.requires_grad_(True)

    def requires_grad_(self, requires_grad: bool = True) -> "PixelDiscriminator":
        """As in torch, but the backbone never learns."""
        super().requires_grad_(requires_grad)
        self.stages.requires_grad_(False)
        return self

    def train(self, mode: bool = True) -> "PixelDiscriminator":
        """As in torch, but the backbone stays in evaluation mode."""
        super().train(mode)
        self.stages.eval()
        return self

    def features(self, image_pm1: Tensor) -> list[Tensor]:
        """image_pm1 (B, 3, H, W) -> the backbone's feature maps at strides 32 .. 2."""
        x, maps = pm1_to_imagenet(image_pm1, self.backbone.mean, self.backbone.std), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[::-1]

    def forward(self, planes: Tensor | None, image_pm1: Tensor) -> tuple[Tensor, list[Tensor]]:
        """image_pm1 (B, 3, H, W), H and W multiples of 32 -> scores of each pixel (B, 35, H, W);
        and for each attribute of a style scores (B, number of its classes).

        planes are not looked at: they are what the other discriminator is given.
        """
        x, maps = None, []
        for index, features in enumerate(self.features(image_pm1)):
            mean, std = getattr(self, f"mean_{index}"), getattr(self, f"std_{index}")
            maps.append((features - mean) / std)
        for features, lateral, block in zip(maps, self.laterals, self.blocks):
            skip = lateral(features)
            if x is None:
                x = block(skip)
            else:
                x = block(F.interpolate(x, scale_factor=2, mode="nearest")) + skip
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = self.last(torch.cat([x, image_pm1], dim=1))  # (B, width, H, W)
        scores = self.score(F.leaky_relu(x, 0.2))  # (B, 35, H, W)
        if self.style is None:
            return scores, []
        pooled = [y for x in maps[STYLED] for y in (x.mean((2, 3)), x.float().std((2, 3)))]
        return scores, self.style(torch.cat(pooled, dim=1))

    def generator_losses(
        self, planes: Tensor, fake_pm1: Tensor, real_pm1: Tensor, recipe, styles: Tensor | None
    ) -> dict[str, Tensor]:
        """As of the other discriminator: every pixel should be taken for what the map says, and
        the whole for a photo of the city and the time of day that were asked for."""
        labels = planes[:, :LABEL_PLANES].argmax(1)
        scores, told = self(None, fake_pm1)
        losses = {"adversarial": label_cross_entropy(scores, labels, self.class_weights)}
        if told:
            losses["shown style"] = recipe.shown_style_weight * style_cross_entropy(told, styles)
        return losses

    def loss(
        self, judgement: tuple[Tensor, list[Tensor]], planes: Tensor, styles: Tensor | None
    ) -> Tensor:
        """As of the other discriminator; styles are learned from real photos alone."""
        scores, told = judgement
        fake, real = scores.chunk(2)
        labels = planes[:, :LABEL_PLANES].argmax(1)
        loss = label_cross_entropy(fake, torch.full_like(labels, FAKE), self.class_weights)
        loss = loss + label_cross_entropy(real, labels, self.class_weights)
        if told:
            loss = loss + style_cross_entropy([x.chunk(2)[1] for x in told], styles)
        return loss

    @torch.no_grad()
    def prepare(self, scenes: Scenes, count: int = 200) -> None:
        """Take ImageNet's weights, and learn what is usual in real photos, unless it has already.

        Each channel's mean and deviation, so that no feature map outweighs the others; and how
        frequent each label is: its weight is the root of the inverse, 0 for unlabeled pixels.

        Args:
            scenes: real ones; the features of as many photos as count are looked at.

        Raises:
            ValueError: it is prepared, and the scenes show a label that it has never seen.
            OSError: see Backbone.pretrained_state.
        """
        counts = torch.zeros(NUM_LABELS, dtype=torch.double)
        for indices in progress(torch.arange(len(scenes)).split(64), "counting classes"):
            label_ids = scenes.batch(indices)[1].cpu()
            counts += torch.bincount(label_ids.flatten().long(), minlength=NUM_LABELS)
        if self.class_weights[0] == 0:  # its weight is 1 until then
            unknown = (self.class_weights[:FAKE].cpu() == 0) & (counts > 0)
            names = [NAMES[i] for i in unknown.nonzero().flatten().tolist() if i]
            if names:
                raise ValueError(
                    "The discriminator has learned from scenes without "
                    f"{', '.join(names)}, which these scenes show, and can't judge them: train on "
                    "the scenes that it knows, or start with a new one, from the weights of "
                    "generator and encoder instead of last.pt."
                )
            return
        shares = counts / counts[1:].sum()
        weights = torch.where(shares > 0, shares.rsqrt(), 0)
        weights[0] = 0
        self._measure_features(scenes.spread(count))
        self.class_weights[:FAKE] = (weights / (shares[1:] * weights[1:]).sum()).float()

    def _measure_features(self, scenes: Scenes) -> None:
        """ImageNet's weights, and mean and deviation of each of their features in these photos."""
        for stage, pretrained in zip(self.stages, self.backbone.stages(pretrained=True)):
            stage.load_state_dict(pretrained.state_dict())
        self.stages.eval()
        sums: list[Tensor] = []
        for indices in progress(torch.arange(len(scenes)).split(8), "features of real photos"):
            image_u8 = scenes.batch(indices)[0].to(self.score.weight.device)
            moments = [
                torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))]).double() * len(indices)
                for x in self.features(u8_to_pm1(image_u8))
            ]
            sums = moments if not sums else [a + b for a, b in zip(sums, moments)]
        for index, (mean, square) in enumerate(total / len(scenes) for total in sums):
            getattr(self, f"mean_{index}").copy_(mean[:, None, None])
            deviation = (square - mean.square()).clamp(min=1e-8).sqrt()
            getattr(self, f"std_{index}").copy_(deviation[:, None, None])
