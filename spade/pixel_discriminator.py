"""A discriminator that classifies every pixel, from the features of an ImageNet network."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.backbones import BACKBONES
from utils.images import pm1_to_imagenet, u8_to_pm1
from utils.labels import NAMES, NUM_LABELS
from utils.progress import progress
from utils.scenes import Scenes, count_labels

from .losses import label_cross_entropy, style_cross_entropy
from .normalization import SpectralNormConv2d, resize_nearest
from .semantics import LABEL_PLANES
from .styles import StyleClassifier

LITES = tuple(name for name in BACKBONES if name.startswith("efficientnet_lite"))
STYLE_MAPS = slice(1, 4)  # the feature maps from which styles are classified: strides 16, 8 and 4
FAKE = NUM_LABELS  # the class of generated pixels, beside the label ids


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, all with spectral norm."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv_0 = SpectralNormConv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.conv_1 = SpectralNormConv2d(out_channels, out_channels, kernel_size=3, padding=1)
        self.conv_s = SpectralNormConv2d(in_channels, out_channels, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, in, h, w) -> (B, out, h, w)."""
        y = self.conv_0(F.leaky_relu(x, 0.2))
        return self.conv_s(x) + self.conv_1(F.leaky_relu(y, 0.2))


class PixelDiscriminator(nn.Module):
    """Classifies every pixel of an image as one of the 34 labels or as "fake".

    It does not see the label map: the generator has to draw pixels that are classified as the label
    of the map.  It is a U-Net: a frozen ImageNet network is the encoder, and the decoder learns.
    It can also classify an image's city and time of day, from mean and standard deviation of the
    features.

    Args:
        backbone: one of LITES.
        widths: channels of the decoder at strides 32, 16, 8, 4, 2 and 1.
        classes: of the styles to classify, see spade.styles.style_labels; by default none.

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
                f"The discriminator's backbone is {backbone!r}: expected {' or '.join(LITES)}."
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
        self.style = StyleClassifier(classes, 2 * sum(channels[STYLE_MAPS])) if classes else None
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
        """image_pm1 (B, 3, H, W) -> the backbone's feature maps at strides 32, 16, 8, 4 and 2."""
        x, maps = pm1_to_imagenet(image_pm1, self.backbone.mean, self.backbone.std), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[::-1]

    def forward(self, planes: Tensor | None, image_pm1: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Classify pixels and styles of images.

        Args:
            planes: ignored; the MultiscaleDiscriminator needs them.
            image_pm1: (B, 3, H, W), H and W multiples of 32.

        Returns:
            The scores of each pixel, (B, 35, H, W); and for each attribute of a style the scores,
            (B, number of its classes).
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
                x = block(resize_nearest(x, scale_factor=2)) + skip
        x = resize_nearest(x, scale_factor=2)
        x = self.last(torch.cat([x, image_pm1], dim=1))  # (B, width, H, W)
        scores = self.score(F.leaky_relu(x, 0.2))  # (B, 35, H, W)
        if self.style is None:
            return scores, []
        pooled = [y for x in maps[STYLE_MAPS] for y in (x.mean((2, 3)), x.float().std((2, 3)))]
        return scores, self.style(torch.cat(pooled, dim=1))

    def generator_losses(
        self, planes: Tensor, fake_pm1: Tensor, real_pm1: Tensor, recipe, styles: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the losses that the generator minimises, each times its weight in the recipe.

        Every pixel should be classified as its label in the map, and the image as the city and time
        of day in styles, (B, number of attributes), see spade.styles.style_labels.
        """
        labels = planes[:, :LABEL_PLANES].argmax(1)
        scores, style_scores = self(None, fake_pm1)
        losses = {"adversarial": label_cross_entropy(scores, labels, self.class_weights)}
        if style_scores:
            style_loss = style_cross_entropy(style_scores, styles)
            losses["shown style"] = recipe.shown_style_weight * style_loss
        return losses

    def loss(
        self, judgement: tuple[Tensor, list[Tensor]], planes: Tensor, styles: Tensor | None
    ) -> Tensor:
        """Return the loss that the discriminator minimises.

        Styles are learned from photos only, because a generated image may not show its style yet.

        Args:
            judgement: the result of forward() for generated images followed by as many photos.
            planes, styles: of the photos.
        """
        scores, style_scores = judgement
        fake, real = scores.chunk(2)
        labels = planes[:, :LABEL_PLANES].argmax(1)
        loss = label_cross_entropy(fake, torch.full_like(labels, FAKE), self.class_weights)
        loss = loss + label_cross_entropy(real, labels, self.class_weights)
        if style_scores:
            loss = loss + style_cross_entropy([x.chunk(2)[1] for x in style_scores], styles)
        return loss

    @torch.no_grad()
    def prepare(self, scenes: Scenes, count: int = 200) -> None:
        """Load ImageNet weights and measure photos, unless this has been done before.

        Features are normalised by each channel's mean and standard deviation, so that no feature
        map outweighs the others.  A label's weight is the inverse square root of its frequency, and
        0 for unlabeled pixels.

        Args:
            scenes: the training scenes.
            count: number of photos whose features are measured.

        Raises:
            ValueError: this has been done before with scenes that lack a label of these scenes.
            OSError: see Backbone.pretrained_state.
        """
        counts = count_labels(scenes)
        if self.class_weights[0] == 0:  # 1 before prepare()
            unknown = (self.class_weights[:FAKE].cpu() == 0) & (counts > 0)
            names = [NAMES[i] for i in unknown.nonzero().flatten().tolist() if i]
            if names:
                raise ValueError(
                    "The discriminator has learned from scenes without "
                    f"{', '.join(names)}, which these scenes show, and can't classify them: train "
                    "on the earlier scenes, or start with a new discriminator, from the weights of "
                    "generator and encoder instead of last.pt."
                )
            return
        shares = counts / counts[1:].sum()
        weights = torch.where(shares > 0, shares.rsqrt(), 0)
        weights[0] = 0
        self._measure_features(scenes.evenly_spaced(count))
        self.class_weights[:FAKE] = (weights / (shares[1:] * weights[1:]).sum()).float()

    def _measure_features(self, scenes: Scenes) -> None:
        """Load ImageNet weights and store mean and deviation of each feature in these photos."""
        pretrained = nn.ModuleList(self.backbone.stages(pretrained=True))
        self.stages.load_state_dict(pretrained.state_dict())
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
