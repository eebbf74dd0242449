"""Save and load generators and encoders, and start a training from earlier weights."""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.weights import PHOTO_LICENCE, licence_of, load_torch_file, load_weights, save_weights

from .encoder import Encoder
from .generator import SpadeGenerator
from .normalization import find_singular_vectors, fold_spectral_norm
from .semantics import SEMANTIC_CHANNELS

# Stored in the metadata, so that a file of another network is recognised.
KIND, ENCODER_KIND = "spade.SpadeGenerator", "spade.Encoder"
STYLE_PREFIX = "styles."  # of the tensors that hold a generator's styles
MAX_KEYS_SHOWN = 3  # in an error message


def load_generator(
    path: str | Path, upsampling: str = "more", size: tuple[int, int] = (512, 256)
) -> SpadeGenerator:
    """Load a generator, in evaluation mode, on the CPU, in float32.

    Args:
        path: a file of save_generator (.safetensors), or one in the format of the published NVlabs
            files (.pth): a state dict, with spectral norms or with these folded into the weights,
            with or without the prefix "module." of multi-GPU training.
        upsampling, size: see SpadeGenerator.  Published files do not contain them; channels and
            z_dim follow from the shapes of the weights.  Our own files contain all settings, and
            these arguments are ignored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a web page, is truncated, contains code, or does not hold exactly the
            weights of such a generator.
    """
    if Path(path).suffix == ".safetensors":
        state_dict, metadata = load_weights(path)
        if metadata.pop("kind", None) != KIND:
            raise ValueError(
                f"{path} was not written by spade.save_generator, so the settings of its generator "
                "are unknown; load the published weights from their .pth file."
            )
        history, recipe = metadata.pop("history", {}), metadata.pop("recipe", [])
        licence = metadata.pop("licence", None)
        settings = metadata | {"size": tuple(metadata["size"])}
        keys = [key for key in state_dict if key.startswith(STYLE_PREFIX)]
        styles = {key.removeprefix(STYLE_PREFIX): state_dict.pop(key) for key in keys}
    else:
        state_dict, history, recipe, styles = _read_published(path), {}, [], {}
        licence = PHOTO_LICENCE  # the licence of NVlabs' weights is the same
        settings = _settings_from_shapes(state_dict, path)
        settings |= {"upsampling": upsampling, "size": size}
    # On the meta device no memory is allocated and no random weights are drawn.
    with torch.device("meta"):
        try:
            generator = SpadeGenerator(**settings)
        except TypeError as error:
            raise ValueError(
                f"{path} was written by another version of this project ({error}): update it."
            ) from error
        if "head_0.conv_0.weight" in state_dict:
            fold_spectral_norm(generator)
    for key in generator.state_dict():  # older versions of PyTorch did not save these counters
        if key.endswith(".num_batches_tracked"):
            state_dict.setdefault(key, torch.tensor(0))
    _check_fit(generator, state_dict, path)
    generator.load_state_dict(state_dict, assign=True)
    generator.history, generator.recipe, generator.licence = history, recipe, licence
    generator.styles = styles
    # In this layout convolutions are fastest, on a CPU and in half precision on a GPU.
    return generator.eval().to(memory_format=torch.channels_last)


def save_generator(generator: SpadeGenerator, path: str | Path, compact: bool = False) -> None:
    """Write a generator with its settings, styles, history and recipe, atomically.

    Spectral norms are folded into the weights, so the file is meant for making images, not for
    further training.

    Args:
        generator: in any mode and on any device; it is not changed.
        path: must end in .safetensors.
        compact: store 8 bits per weight instead of 32, see utils.weights.pack_state.

    Raises ValueError: the path has another ending, or weights are not finite (compact only).
    """
    folded = fold_spectral_norm(copy.deepcopy(generator))
    styles = {STYLE_PREFIX + name: z for name, z in generator.styles.items()}
    metadata = {"kind": KIND, **generator.settings}
    metadata |= {"history": generator.history, "recipe": generator.recipe}
    metadata["licence"] = licence_of(generator.recipe) or generator.licence
    save_weights(path, folded.state_dict() | styles, metadata, compact)


def load_encoder(path: str | Path) -> Encoder:
    """Load an encoder that save_encoder() wrote, in evaluation mode, on the CPU, in float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else.
    """
    state_dict, metadata = load_weights(path)
    if metadata.pop("kind", None) != ENCODER_KIND:
        raise ValueError(
            f"{path} holds no style encoder: expected a file that spade.training wrote, such as "
            "encoder.safetensors."
        )
    for about in ("recipe", "licence"):
        metadata.pop(about, None)
    try:
        encoder = fold_spectral_norm(Encoder(**metadata))
        encoder.load_state_dict(state_dict)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"{path} does not fit an encoder with {metadata} "
            f"({str(error).splitlines()[-1].strip()}): was it written by another version?"
        ) from error
    return encoder.eval()


def save_encoder(
    encoder: Encoder, path: str | Path, compact: bool = False, recipe: Sequence[dict] = ()
) -> None:
    """Write an encoder for load_encoder(), atomically; see save_generator()."""
    folded = fold_spectral_norm(copy.deepcopy(encoder))
    metadata = {"kind": ENCODER_KIND, **encoder.settings}
    metadata |= {"recipe": list(recipe), "licence": licence_of(recipe)}
    save_weights(path, folded.state_dict(), metadata, compact)


def start_from(
    paths: Sequence[Path],
    network: nn.Module,
    discriminator: nn.Module,
    classifier: nn.Module | None = None,
) -> None:
    """Load the weights of an earlier training, in place; it may have lacked styles and grain.

    Args:
        network: a VariationalGenerator.
        paths: a run's last.pt; or the file of a generator and, if it has a latent, the file of its
            encoder, and then the discriminator keeps its weights; or all three, and then only the
            discriminator and the classifier come from the run.
        classifier: of the new training; keeps its weights if the earlier training had none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file holds other networks.
    """
    if paths[0].suffix == ".pt":
        saved = load_torch_file(paths[0])
        for name, part in (("network", network), ("discriminator", discriminator)):
            if not isinstance(saved, dict) or name not in saved:
                raise ValueError(f"{paths[0]} holds no {name}: expected last.pt of a SPADE run.")
            take_over(part, saved[name], paths[0])
        if classifier is not None and "classifier" in saved:
            take_over(classifier, saved["classifier"], paths[0])
        if len(paths) == 1:
            return
        paths = paths[1:]
    _load_files(paths, network)


def _load_files(paths: Sequence[Path], network: nn.Module) -> None:
    """Load the files of a generator and its encoder, for start_from()."""
    parts = [part for part in (network.generator, network.encoder) if part is not None]
    if len(paths) != len(parts):
        raise ValueError(
            f"There are {len(paths)} files to start from: expected "
            f"{'a generator and its encoder' if len(parts) == 2 else 'a generator alone'}."
        )
    for part, read, path in zip(parts, (load_generator, load_encoder), paths, strict=False):
        vectors = {k: v for k, v in part.state_dict().items() if k.endswith(("_u", "_v"))}
        # A folded weight has a largest singular value of 1, so normalising does not change it.
        state = {
            f"{key}_orig" if f"{key}_u" in vectors else key: value
            for key, value in read(path).state_dict().items()
        }
        take_over(part, state | vectors, path)
        find_singular_vectors(part, 50)


@torch.no_grad()
def blend_with_start(paths: Sequence[Path], network: nn.Module, share: float) -> None:
    """Mix the weights that a training started from into its result, in place.

    The mean of two sets of weights can perform better than either of them.

    Args:
        paths: the files that start_from() got; of a run's last.pt the running mean is taken.
        network: a VariationalGenerator, trained.
        share: of the start's weights, 0..1.

    Source: Wortsman et al., CVPR 2022, arXiv:2109.01903, section 3.
    """
    start = copy.deepcopy(network)
    if paths[-1].suffix == ".pt":
        mean = load_torch_file(paths[-1])["averaged"]
        prefix = "module."
        state = {k.removeprefix(prefix): v for k, v in mean.items() if k.startswith(prefix)}
        take_over(start, state, paths[-1])
    else:
        _load_files([path for path in paths if path.suffix != ".pt"], start)
    for own, other in zip(network.state_dict().values(), start.state_dict().values()):
        if own.is_floating_point():  # batch norm also has counters
            own.lerp_(other, share)
    find_singular_vectors(network, 50)


def take_over(part: nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    """Load a state dict; styled layers and grain that it lacks start at 0, without an effect.

    Noise planes of another size, which belong to a generator of another size, are drawn anew.

    Raises ValueError, with path in the message, if it does not fit.
    """
    own = part.state_dict()
    fresh = {k: torch.zeros_like(v) for k, v in own.items() if ".mlp_style." in k or ".mix." in k}
    planes = {k: v for k, v in own.items() if k.endswith("planes")}
    fitting = {k: v for k, v in state.items() if k not in planes or v.shape == planes[k].shape}
    try:
        part.load_state_dict(fresh | planes | fitting)
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"{path} does not fit the networks to train: {reason}") from error


def _read_published(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict of a .pth file."""
    state_dict = load_torch_file(path)
    if not isinstance(state_dict, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state_dict.items()
    ):
        raise ValueError(
            f"{path} does not hold a state dict of names and tensors: the published generator is "
            "the file latest_net_G.pth."
        )
    return {
        key.removeprefix("module."): value.float() if value.is_floating_point() else value
        for key, value in state_dict.items()
    }


def _settings_from_shapes(state_dict: dict[str, Tensor], path: str | Path) -> dict:
    """Derive ngf, z_dim and hidden from the shapes of published weights."""
    shape = {key: tuple(value.shape) for key, value in state_dict.items()}
    first_bias = shape.get("head_0.conv_0.bias", ())
    first_planes = shape.get("head_0.norm_0.mlp_shared.0.weight", ())
    start = shape.get("fc.weight", ())
    if (len(first_bias), len(first_planes)) != (1, 4) or len(start) not in (2, 4):
        found = ", ".join(list(shape)[:MAX_KEYS_SHOWN]) or "none"
        raise ValueError(
            f"{path} holds no SPADE generator: expected keys such as fc.weight and "
            f"head_0.conv_0.bias, found {found}; the published generator is latest_net_G.pth "
            "(latest_net_D.pth and latest_net_E.pth are the discriminator and the encoder)."
        )
    planes = first_planes[1]
    if planes == SEMANTIC_CHANNELS - 1:
        raise ValueError(
            f"{path} was trained without the instance-edge plane: it reads {planes} planes, but "
            f"spade.semantics makes {SEMANTIC_CHANNELS}; take a checkpoint that was trained with "
            "instance maps, such as the published Cityscapes one."
        )
    if planes != SEMANTIC_CHANNELS:
        raise ValueError(
            f"{path} reads {planes} planes, so it was trained on another data set: Cityscapes has "
            f"{SEMANTIC_CHANNELS}; take latest_net_G.pth from the archive's Cityscapes folder."
        )
    return {
        "ngf": first_bias[0] // 16,
        "z_dim": start[1] if len(start) == 2 else None,
        "hidden": first_planes[0],
    }


def _check_fit(generator: SpadeGenerator, state_dict: dict[str, Tensor], path: str | Path) -> None:
    """Raise ValueError if a key or a shape differs from the generator's."""
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
        hidden = len(problems) - MAX_KEYS_SHOWN
        more = f", and {hidden} more" if hidden > 0 else ""
        raise ValueError(
            f"{path} does not fit a generator with ngf={settings['ngf']}, "
            f"z_dim={settings['z_dim']}, upsampling={settings['upsampling']!r} and "
            f"size={settings['size']}: {', '.join(problems[:MAX_KEYS_SHOWN])}{more}; pass to "
            "load_generator the upsampling and size of its training, or download the file again."
        )
