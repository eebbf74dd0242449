"""The segmentation network: a ResNet whose classifier is replaced by a map of all 34 label ids.

The average pool and the fully connected layer of an ImageNet network are taken off; in their place
a 1x1 convolution scores the 34 labels in every cell of the last feature map, and a transposed
convolution brings the scores back to full size (Long et al., "Fully Convolutional Networks for
Semantic Segmentation", CVPR 2015, arXiv:1411.4038).
"""

from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn
from torchvision import models

from utils.images import u8_to_imagenet
from utils.labels import NUM_LABELS
from utils.modes import evaluation_mode
from utils.weights import load_weights, save_weights

BACKBONES = {"resnet34": (models.resnet34, models.ResNet34_Weights.IMAGENET1K_V1)}


class SegmentationNet(nn.Module):
    """Photo -> scores of the 34 label ids for every pixel.

    Args:
        backbone: "resnet34".
        head: "fcn": 1x1 convolution, then transposed convolution.
        pretrained: start from torchvision's ImageNet weights (downloaded once, 83 MB) instead of
            random ones.
        output_stride: pixels of the photo to a cell of the last feature map: 32 as in a plain
            ResNet; 16 or 8 take the stride out of its last one or two stages and dilate them
            instead (Chen et al., arXiv:1706.05587), which costs time and gives finer maps.

    Raises:
        ValueError: an unknown backbone, head or output stride.
        RuntimeError: the ImageNet weights can't be downloaded.
    """

    def __init__(
        self,
        backbone: str = "resnet34",
        head: str = "fcn",
        pretrained: bool = False,
        output_stride: int = 8,
    ):
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"There is no backbone {backbone!r}: expected {', '.join(BACKBONES)}.")
        if head != "fcn":
            raise ValueError(f"There is no head {head!r}: expected 'fcn'.")
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is {output_stride}: expected 8, 16 or 32.")
        self.settings = {"backbone": backbone, "head": head, "output_stride": output_stride}
        resnet = _resnet(backbone, pretrained)
        if output_stride <= 16:
            _dilate(resnet.layer4, dilation=16 // output_stride * 2)
        if output_stride == 8:
            _dilate(resnet.layer3, dilation=2)
        channels = resnet.fc.in_features
        self.backbone = nn.Sequential(*list(resnet.children())[:-2])  # without avgpool and fc
        self.score = nn.Conv2d(channels, NUM_LABELS, 1)
        self.upscale = nn.ConvTranspose2d(
            NUM_LABELS,
            NUM_LABELS,
            kernel_size=2 * output_stride,
            stride=output_stride,
            padding=output_stride // 2,
        )
        self.upscale.weight.data = _bilinear_kernel(NUM_LABELS, output_stride)
        nn.init.zeros_(self.upscale.bias)

    def forward(self, image_u8: torch.Tensor) -> torch.Tensor:
        """image_u8 (B, 3, H, W), any H and W of at least 32 -> scores (B, 34, H, W) float."""
        if image_u8.dim() != 4 or image_u8.shape[1] != 3 or min(image_u8.shape[2:]) < 32:
            raise ValueError(
                f"The network got a tensor of shape {tuple(image_u8.shape)}: expected image_u8 "
                "(B, 3, H, W) with H and W of at least 32."
            )
        if image_u8.dtype != torch.uint8:
            raise ValueError(
                f"The network got {image_u8.dtype}: expected image_u8, uint8 in 0..255; "
                "utils.images.pm1_to_u8() converts what SPADE makes."
            )
        height, width = image_u8.shape[2:]
        x = u8_to_imagenet(image_u8)  # (B, 3, H, W)
        x = self.backbone(x)  # (B, 512, ceil(H/s), ceil(W/s)), s = output_stride
        x = self.score(x)  # (B, 34, ceil(H/s), ceil(W/s))
        x = self.upscale(x)  # (B, 34, >= H, >= W)
        return x[:, :, :height, :width]

    @torch.no_grad()
    def predict(self, image_u8: torch.Tensor) -> torch.Tensor:
        """image_u8 (3, H, W) or (B, 3, H, W) -> label_ids (H, W) or (B, H, W) uint8, 0..33."""
        device = self.score.weight.device
        batch = image_u8 if image_u8.dim() == 4 else image_u8[None]
        with evaluation_mode(self):
            label_ids = self(batch.to(device)).argmax(1).to(torch.uint8)
        return label_ids if image_u8.dim() == 4 else label_ids[0]


def save_segmentation(
    network: SegmentationNet, path: str | Path, history: dict | None = None, compact: bool = False
) -> None:
    """Write the network's weights with its settings and training history, atomically.

    Args:
        compact: store convolutions in 8 bits (a quarter of the size).
    """
    metadata = {"kind": "segmentation", "settings": network.settings, "history": history or {}}
    save_weights(path, network.state_dict(), metadata, compact)


def load_segmentation(path: str | Path) -> tuple[SegmentationNet, dict]:
    """Read what save_segmentation() wrote -> (network in eval mode, its training history)."""
    state, metadata = load_weights(path)
    if metadata.get("kind") != "segmentation":
        raise ValueError(
            f"{path} holds no segmentation network (kind: {metadata.get('kind', 'not given')}): "
            "pass a file that notebook 02 or utils.training wrote."
        )
    try:
        network = SegmentationNet(**metadata["settings"])
        network.load_state_dict(state)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} does not fit a network with the settings {metadata['settings']} "
            f"({str(error).splitlines()[-1].strip()}): was it written by another version?"
        ) from error
    return network.eval(), metadata["history"]


def _resnet(backbone: str, pretrained: bool) -> nn.Module:
    build, weights = BACKBONES[backbone]
    if not pretrained:
        return build()
    try:
        return build(weights=weights)
    except (URLError, OSError) as error:
        raise RuntimeError(
            f"The ImageNet weights of {backbone} could not be downloaded ({error}). Connect to the "
            f"internet, put the file {weights.url} into {torch.hub.get_dir()}/checkpoints, or "
            "choose to start without them: pretrained=False, or the bundled network in notebook 02."
        ) from error


def _dilate(stage: nn.Sequential, dilation: int) -> None:
    """Take the stride out of a ResNet stage; dilate its later 3x3 convolutions to see as far."""
    first = stage[0]
    first.conv1.stride = first.downsample[0].stride = (1, 1)
    before = dilation // 2  # what came before this stage's stride sees as before
    first.conv1.dilation = first.conv1.padding = (before, before)
    later = [convolution for block in stage[1:] for convolution in (block.conv1, block.conv2)]
    for convolution in (first.conv2, *later):
        convolution.dilation = convolution.padding = (dilation, dilation)


def _bilinear_kernel(channels: int, stride: int) -> torch.Tensor:
    """Weights (C, C, 2s, 2s) with which a transposed convolution starts as bilinear resizing."""
    size = 2 * stride
    ramp = 1 - (torch.arange(size) - (size - 1) / 2).abs() / stride
    kernel = torch.zeros(channels, channels, size, size)
    kernel[range(channels), range(channels)] = ramp[:, None] * ramp[None, :]
    return kernel
