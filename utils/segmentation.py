"""The segmentation network: an image classifier that is turned into a classifier of pixels.

The average pool and the fully connected layer of an ImageNet network are replaced by one of two
heads:

"fcn"   a 1x1 convolution scores the 34 labels in every cell of the last feature map, transposed
        convolutions bring the scores back to full size, and on the way the scores of finer feature
        maps are added (Long et al., "Fully Convolutional Networks for Semantic Segmentation",
        CVPR 2015, arXiv:1411.4038).
"unet"  the decoder of a U-Net, which joins the features themselves instead of their scores
        (Ronneberger et al., MICCAI 2015, arXiv:1505.04597), by segmentation-models-pytorch.
"""

from collections.abc import Sequence
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.backbones import BACKBONES
from utils.engine.graphs import inferred
from utils.engine.precision import evaluation_mode
from utils.images import u8_to_imagenet
from utils.labels import NUM_LABELS
from utils.weights import licence_of, load_weights, save_weights

HEADS = ("fcn", "unet")
SMALL = 20_000  # numbers: smaller convolutions, first and depthwise ones, suffer most from 8 bits
STRIDES = (2, 4, 8, 16, 32)  # pixels to a cell of a backbone's five feature maps, fine to coarse


def check_photos(image_u8: Tensor) -> None:
    """Raise ValueError if this is no batch of photos that a segmentation network can read."""
    shape = tuple(image_u8.shape)
    if image_u8.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or min(shape[2:]) < 32:
        raise ValueError(
            f"The network got {image_u8.dtype} of shape {shape}: expected image_u8 (B, 3, H, W), "
            "uint8 in 0..255, with H and W of at least 32; utils.images.resize_image() enlarges a "
            "photo, pm1_to_u8() converts what SPADE makes."
        )


class FcnHead(nn.Module):
    """Scores from feature maps, coarse to fine, each doubled in size and added to the next.

    Args:
        channels: widths of the feature maps at STRIDES.
        finest_stride: where the last scores are taken; 32, 16 and 8 are the FCN-32s, FCN-16s and
            FCN-8s of the paper, 4 and 2 carry the idea on.
    """

    def __init__(self, channels: list[int], finest_stride: int):
        super().__init__()
        self.first = STRIDES.index(finest_stride)
        coarse_to_fine = channels[self.first :][::-1]
        self.scores = nn.ModuleList(nn.Conv2d(width, NUM_LABELS, 1) for width in coarse_to_fine)
        factors = [2] * (len(coarse_to_fine) - 1) + [finest_stride]
        self.upscales = nn.ModuleList(_upscale(factor) for factor in factors)

    def forward(self, features: list[Tensor]) -> Tensor:
        """The photo and its feature maps (B, C, H/s, W/s) at STRIDES -> scores (B, 34, H, W)."""
        coarse, *finer = features[1 + self.first :][::-1]
        x = self.scores[0](coarse)  # (B, 34, H/32, W/32)
        for feature, score, upscale in zip(finer, self.scores[1:], self.upscales):
            x = upscale(x) + score(feature)  # (B, 34, H/16, W/16), then H/8 ...
        return self.upscales[-1](x)  # (B, 34, H, W)


class UnetHead(nn.Module):
    """The decoder and the last convolution of a U-Net."""

    def __init__(self, unet: smp.Unet):
        super().__init__()
        self.decoder, self.score = unet.decoder, unet.segmentation_head

    def forward(self, features: list[Tensor]) -> Tensor:
        """The photo and its feature maps (B, C, H/s, W/s) at STRIDES -> scores (B, 34, H, W)."""
        return self.score(self.decoder(features))  # (B, 34, H, W)


class SegmentationNet(nn.Module):
    """Photo -> scores of the 34 label ids for every pixel.

    Args:
        backbone: "resnet18", "resnet34", "resnet50", "efficientnet_lite0" or "efficientnet_lite2".
        head: "fcn" or "unet", see above.
        pretrained: start from ImageNet weights instead of random ones: from an installed package,
            or downloaded once, 18 to 98 MB (see utils.backbones).
        finest_stride: for the FCN head, pixels to a cell of the finest scores that are added: 32 (a
            plain FCN, whose maps are soft), 16, 8, 4 or 2.  The U-Net always goes down to 2.

    Raises:
        ValueError: an unknown backbone, head or stride.
        OSError: the ImageNet weights are not installed and can't be downloaded.
    """

    def __init__(
        self,
        backbone: str = "resnet34",
        head: str = "fcn",
        pretrained: bool = False,
        finest_stride: int = 2,
    ):
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"There is no backbone {backbone!r}: expected {', '.join(BACKBONES)}.")
        if head not in HEADS:
            raise ValueError(f"There is no head {head!r}: expected 'fcn' or 'unet'.")
        if finest_stride not in STRIDES:
            raise ValueError(f"finest_stride is {finest_stride}: expected one of {STRIDES}.")
        self.settings = {"backbone": backbone, "head": head, "finest_stride": finest_stride}
        self.is_frozen, self.licence = False, None  # the latter is that of weights from a file
        self.backbone = BACKBONES[backbone]
        if head == "unet":
            unet = smp.Unet(
                self.backbone.encoder,
                encoder_weights=None,
                decoder_channels=self.backbone.unet_channels,
                classes=NUM_LABELS,
            )
            self.encoder, self.head = unet.encoder, UnetHead(unet)
        else:
            self.encoder = smp.encoders.get_encoder(self.backbone.encoder, weights=None)
            self.head = FcnHead(self.encoder.out_channels[1:], finest_stride)
        if pretrained:
            self.encoder.load_state_dict(self.backbone.pretrained_state())
        self.to(memory_format=torch.channels_last)  # convolutions are fastest in this layout

    def forward(self, image_u8: Tensor) -> Tensor:
        """image_u8 (B, 3, H, W), any H and W of at least 32 -> scores (B, 34, H, W) float."""
        check_photos(image_u8)
        height, width = image_u8.shape[2:]
        x = u8_to_imagenet(image_u8, self.backbone.mean, self.backbone.std)  # (B, 3, H, W)
        # The backbone halves five times: other sizes are padded with copies of the last pixels.
        x = F.pad(x, (0, -width % 32, 0, -height % 32), mode="replicate")
        features = self.encoder(x)  # x, and (B, C, H/s, W/s) for each of STRIDES
        return self.head(features)[:, :, :height, :width]  # (B, 34, H, W)

    def freeze_backbone(self) -> None:
        """Train only the head from now on, which makes a training step faster.

        The backbone's weights and the statistics of its batch norms no longer change.
        """
        self.is_frozen = True
        self.encoder.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "SegmentationNet":
        """As in torch, but a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.is_frozen:
            self.encoder.eval()
        return self

    @torch.no_grad()
    def predict(self, image_u8: Tensor) -> Tensor:
        """image_u8 (3, H, W) or (B, 3, H, W) -> label_ids (H, W) or (B, H, W) uint8, 0..33."""
        device = next(self.parameters()).device
        batch = image_u8 if image_u8.dim() == 4 else image_u8[None]
        label_ids = inferred(self, self._most_likely, batch.to(device))
        return label_ids if image_u8.dim() == 4 else label_ids[0]

    def _most_likely(self, image_u8: Tensor) -> Tensor:
        with evaluation_mode(self):
            return self(image_u8).argmax(1).to(torch.uint8)


def save_segmentation(
    network: SegmentationNet,
    path: str | Path,
    history: dict | None = None,
    compact: bool = False,
    recipe: Sequence[dict] = (),
) -> None:
    """Write the network's weights with its settings and training history, atomically.

    Args:
        compact: store large convolutions in 8 bits, small ones in 16 (about a quarter of the size).
        recipe: the settings of each stage of the training, see utils.recipes.
    """
    metadata = {"kind": "segmentation", "settings": network.settings}
    metadata |= {"history": history or {}, "recipe": list(recipe)}
    metadata["licence"] = licence_of(recipe) or network.licence
    save_weights(path, network.state_dict(), metadata, compact, SMALL)


def load_segmentation(path: str | Path) -> tuple[SegmentationNet, dict]:
    """Read what save_segmentation() wrote -> (network in eval mode, its training history).

    Raises ValueError if the file holds something else.
    """
    state, metadata = load_weights(path)
    if metadata.get("kind") != "segmentation":
        raise ValueError(
            f"{path} holds no segmentation network (kind: {metadata.get('kind', 'not given')}): "
            "pass a file that notebook 02 or utils.training wrote."
        )
    try:
        network = SegmentationNet(**metadata["settings"])
        network.load_state_dict(state)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} does not fit a network with the settings {metadata['settings']} "
            f"({str(error).splitlines()[-1].strip()}): was it written by another version?"
        ) from error
    network.licence = metadata.get("licence")
    return network.eval(), metadata["history"]


def _upscale(factor: int) -> nn.ConvTranspose2d:
    """A transposed convolution that starts as bilinear enlargement by that factor."""
    upscale = nn.ConvTranspose2d(
        NUM_LABELS, NUM_LABELS, kernel_size=2 * factor, stride=factor, padding=factor // 2
    )
    ramp = 1 - (torch.arange(2 * factor) - (2 * factor - 1) / 2).abs() / factor
    nn.init.zeros_(upscale.weight)
    upscale.weight.data[range(NUM_LABELS), range(NUM_LABELS)] = ramp[:, None] * ramp[None, :]
    nn.init.zeros_(upscale.bias)
    return upscale
