"""Reading the published generator files, and reading and writing our own, of encoders too."""

import copy
from pathlib import Path

import torch
from torch import Tensor

from utils.weights import load_torch_file, load_weights, save_weights

from .encoder import Encoder
from .generator import SpadeGenerator
from .normalization import fold_spectral_norm
from .semantics import SEMANTIC_CHANNELS

# In the metadata, so that no other network's file is taken for one.
KIND, ENCODER_KIND = "spade.SpadeGenerator", "spade.Encoder"
STYLE = "styles."  # before a style's name among the tensors
SHOWN = 3  # keys named in a message
_OTHER_VERSION = "{path} was written by another version of this project ({error}): update it."


def load_generator(
    path: str | Path, upsampling: str = "more", size: tuple[int, int] = (512, 256)
) -> SpadeGenerator:
    """Read a generator, in evaluation mode, on the CPU, in float32.

    Args:
        path: a file of save_generator (.safetensors), or one in the format of the published NVlabs
            files (.pth): a state dict, with spectral norms or with these folded into the weights,
            with or without the prefix "module." of multi-GPU training.
        upsampling, size: see SpadeGenerator.  Published files do not say; widths and the latent
            follow from their shapes.  Our own files carry all of it, and both are ignored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a web page, is truncated, holds code, or does not hold exactly the weights
            of such a generator.
    """
    if Path(path).suffix == ".safetensors":
        state_dict, metadata = load_weights(path)
        if metadata.pop("kind", None) != KIND:
            raise ValueError(
                f"{path} was not written by spade.save_generator: it does not say which generator "
                "its weights are for; load the published weights from their .pth file."
            )
        history = metadata.pop("history", {})
        settings = metadata | {"size": tuple(metadata["size"])}
        styles = {key: state_dict.pop(key) for key in list(state_dict) if key.startswith(STYLE)}
    else:
        state_dict, history, styles = _read_published(path), {}, {}
        settings = _settings_from_shapes(state_dict, path)
        settings |= {"upsampling": upsampling, "size": size}
    # On the meta device nothing is allocated or drawn at random: each weight comes from the file.
    with torch.device("meta"):
        try:
            generator = SpadeGenerator(**settings)
        except TypeError as error:
            raise ValueError(_OTHER_VERSION.format(path=path, error=error)) from error
        if "head_0.conv_0.weight" in state_dict:
            fold_spectral_norm(generator)
    _check_fit(generator, state_dict, path)
    generator.load_state_dict(state_dict, assign=True)
    generator.history = history
    generator.styles = {key.removeprefix(STYLE): z for key, z in styles.items()}
    # The layout that convolutions on a CPU and half precision on a GPU are fastest with.
    return generator.eval().to(memory_format=torch.channels_last)


def save_generator(generator: SpadeGenerator, path: str | Path, compact: bool = False) -> None:
    """Write a generator with settings, styles and history for load_generator, whole or not at all.

    Spectral norms are folded into the weights: the file is for making photos, not for training on.

    Args:
        generator: in any mode and on any device; it stays as it is.
        path: where; the name ends in .safetensors.
        compact: 8 bits a weight instead of 32, see utils.weights.pack_state.

    Raises:
        ValueError: another ending, or weights that are not finite (compact only).
    """
    folded = fold_spectral_norm(copy.deepcopy(generator))
    styles = {STYLE + name: z for name, z in generator.styles.items()}
    metadata = {"kind": KIND, **generator.settings, "history": generator.history}
    save_weights(path, folded.state_dict() | styles, metadata, compact)


def load_encoder(path: str | Path) -> Encoder:
    """Read an encoder that save_encoder() wrote: in evaluation mode, on the CPU, in float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    state_dict, metadata = load_weights(path)
    if metadata.pop("kind", None) != ENCODER_KIND:
        raise ValueError(
            f"{path} holds no style encoder: expected a file that spade.training wrote, such as "
            "encoder.safetensors."
        )
    try:
        encoder = fold_spectral_norm(Encoder(**metadata))
    except TypeError as error:
        raise ValueError(_OTHER_VERSION.format(path=path, error=error)) from error
    try:
        encoder.load_state_dict(state_dict)
    except RuntimeError as error:
        raise ValueError(
            f"{path} does not fit an encoder with {metadata} "
            f"({str(error).splitlines()[-1].strip()}): was it written by another version?"
        ) from error
    return encoder.eval()


def save_encoder(encoder: Encoder, path: str | Path, compact: bool = False) -> None:
    """Write an encoder for load_encoder, whole or not at all; see save_generator."""
    folded = fold_spectral_norm(copy.deepcopy(encoder))
    save_weights(path, folded.state_dict(), {"kind": ENCODER_KIND, **encoder.settings}, compact)


def _read_published(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a .pth file."""
    state_dict = load_torch_file(path)
    if not isinstance(state_dict, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state_dict.items()
    ):
        raise ValueError(
            f"{path} holds something else than a state dict of names and tensors: the published "
            "generator is the file latest_net_G.pth."
        )
    return {
        key.removeprefix("module."): value.float() if value.is_floating_point() else value
        for key, value in state_dict.items()
    }


def _settings_from_shapes(state_dict: dict[str, Tensor], path: str | Path) -> dict:
    shape = {key: tuple(value.shape) for key, value in state_dict.items()}
    first_bias = shape.get("head_0.conv_0.bias", ())
    first_planes = shape.get("head_0.norm_0.mlp_shared.0.weight", ())
    start = shape.get("fc.weight", ())
    if (len(first_bias), len(first_planes)) != (1, 4) or len(start) not in (2, 4):
        found = ", ".join(list(shape)[:SHOWN]) or "none"
        raise ValueError(
            f"{path} holds no SPADE generator: expected keys such as fc.weight and "
            f"head_0.conv_0.bias, found {found}; the published generator is latest_net_G.pth "
            "(latest_net_D.pth and latest_net_E.pth are the discriminator and the encoder)."
        )
    planes = first_planes[1]
    if planes == SEMANTIC_CHANNELS - 1:
        raise ValueError(
            f"{path} was trained without the instance-edge plane: it reads {planes} planes, and "
            f"spade.semantics makes {SEMANTIC_CHANNELS}; take a checkpoint that was trained with "
            "instance maps, such as the published Cityscapes one."
        )
    if planes != SEMANTIC_CHANNELS:
        raise ValueError(
            f"{path} reads {planes} planes and was trained on another data set: Cityscapes has "
            f"{SEMANTIC_CHANNELS}; take latest_net_G.pth from the archive's Cityscapes folder."
        )
    return {
        "ngf": first_bias[0] // 16,
        "z_dim": start[1] if len(start) == 2 else None,
        "hidden": first_planes[0],
    }


def _check_fit(generator: SpadeGenerator, state_dict: dict[str, Tensor], path: str | Path) -> None:
    """Raise ValueError unless keys and shapes are exactly those of the generator."""
    expected = {key: tuple(value.shape) for key, value in generator.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state_dict.items()}
    problems = [
        f"{key} should be {shape} and is {found.get(key, 'missing')}"
        for key, shape in expected.items()
        if found.get(key) != shape
    ]
    problems += [f"{key} {found[key]} should not be there" for key in found if key not in expected]
    if problems:
        settings = generator.settings
        more = f", and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ValueError(
            f"{path} does not fit a generator with ngf={settings['ngf']}, "
            f"z_dim={settings['z_dim']}, upsampling={settings['upsampling']!r} and "
            f"size={settings['size']}: {', '.join(problems[:SHOWN])}{more}; pass load_generator "
            "the upsampling and size that it was trained with, or download the file again."
        )
