"""Weight files: compact, written atomically, and read with clear error messages.

The format is safetensors (https://huggingface.co/docs/safetensors) with this project's settings as
JSON under one metadata key.  Compact files hold weights as 8-bit integers with one scale for each
index of the first dimension, or small ones as float16: a quarter of the size, for a repository.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torchvision.models import WeightsEnum

from utils.files import DISK_FULL, PROJECT, RUNS, check_room, disk_full, write_atomically

SCALE = ".scale"  # "conv.weight" in int8 is accompanied by "conv.weight.scale"
_ONLY_MIRRORED = "flip 0.5, scale 1..1, color 0"  # in older checkpoints: no augmentation but flips
SCALER = "scaler"  # the name of float16's gradient scaler among the parts of a checkpoint
OWN_LICENCE, PHOTO_LICENCE = "MIT", "CC BY-NC-SA 4.0"  # of networks, see licence_of()
METADATA = "metadata"  # the one key under which safetensors carries our JSON


def pack_state(state_dict: dict[str, Tensor], small: int = 0) -> dict[str, Tensor]:
    """Store every weight of two or more dimensions as int8 with a scale for each index of dim 0.

    Args:
        state_dict: any network's state dict.
        small: weights with fewer numbers are stored as float16 instead.

    Returns:
        Under the same key, int8 of the same shape, and under ``<key>.scale`` float32 of shape
        (size of dim 0,), for weights; all else (biases, running statistics, counters) unchanged:
        it is less than a hundredth of the bytes, and variances outgrow float16.

    The error is at most half a scale, that is 1/254 of the channel's largest weight.

    Raises ValueError: a weight is infinite or NaN, as after a training that diverged.
    """
    packed = {}
    for key, tensor in state_dict.items():
        if not tensor.is_floating_point() or tensor.dim() < 2:
            packed[key] = tensor
            continue
        rows = tensor.detach().float().flatten(1)
        if not bool(rows.isfinite().all()):
            raise ValueError(
                f"{key} holds infinite values or NaN and cannot be stored in 8 bits: the training "
                "has probably diverged; go back to an earlier checkpoint."
            )
        if tensor.numel() < small:
            packed[key] = tensor.detach().half()
            continue
        largest = rows.abs().amax(1)
        scale = torch.where(largest > 0, largest / 127, 1.0)  # 1 for a channel of zeros, not 0 / 0
        numbers = (rows / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        packed[key], packed[key + SCALE] = numbers.reshape(tensor.shape), scale
    return packed


def unpack_state(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo pack_state: a state dict with every number in float32 and integers unchanged.

    What was never packed passes through, so that one reader serves both kinds of file.
    """
    state_dict = {}
    for key, tensor in packed.items():
        if key.endswith(SCALE) and _is_packed(key.removesuffix(SCALE), packed):
            continue
        if _is_packed(key, packed):
            scale = packed[key + SCALE].float()
            tensor = tensor.float() * scale.reshape(-1, *[1] * (tensor.dim() - 1))
        state_dict[key] = tensor.float() if tensor.is_floating_point() else tensor
    return state_dict


def _is_packed(key: str, packed: dict[str, Tensor]) -> bool:
    return key in packed and packed[key].dtype == torch.int8 and key + SCALE in packed


def save_weights(
    path: str | Path,
    state_dict: dict[str, Tensor],
    metadata: dict,
    compact: bool = False,
    small: int = 0,
) -> None:
    """Write a state dict and its settings as one safetensors file, atomically.

    Args:
        path: where; the name ends in .safetensors.  Missing folders are made.
        state_dict: tensors on any device.
        metadata: what the reader has to know (widths, sizes, scores); JSON types only.
        compact: store the weights in 8 bits, see pack_state.
        small: compact weights with fewer numbers are stored in 16 bits.

    Raises ValueError: another ending, or weights that are not finite (compact only).
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} should end in .safetensors, the format that is written to it.")
    tensors = pack_state(state_dict, small) if compact else state_dict
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    header = {METADATA: json.dumps(metadata)}
    # Not save_file(), whose own temporary file stays behind if the process is killed.
    content = save(tensors, metadata=header)
    write_atomically(path, lambda temporary: temporary.write_bytes(content), sole_writer=True)


def licence_of(recipe: Sequence[dict]) -> str | None:
    """The licence of a network that these stages of a recipe have trained; None if it isn't known.

    Only the toy streets are the project's own.  Each other data set holds photos that are not for
    commercial use, so a network that was trained on one of them, or that started from the weights
    of such a network, is not for commercial use either.
    """
    licences = set() if recipe else {None}
    for number, stage in enumerate(recipe):
        is_toy = set(stage["dataset"].split("+")) == {"toy"}
        licences.add(OWN_LICENCE if is_toy else PHOTO_LICENCE)
        started = stage.get("start") or ()
        for file in [started] if isinstance(started, str) else started:
            before = {other["name"] for other in recipe[:number]}
            if file not in ("random", "imagenet") and Path(file).parts[0] not in before:
                licences.add(_licence_in(Path(file)))
    if PHOTO_LICENCE in licences:
        return PHOTO_LICENCE
    return OWN_LICENCE if licences == {OWN_LICENCE} else None


def _licence_in(path: Path) -> str | None:
    is_ours = path.suffix == ".safetensors" and path.is_file()
    return load_metadata(path).get("licence") if is_ours else None


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Read a file of save_weights, compact or not.

    Returns:
        The state dict on the CPU (numbers in float32), and the metadata; an empty one for a
        safetensors file that somebody else wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is an HTML page, truncated, or no safetensors file; or a number is NaN or
            infinite.
    """
    with _opened(path) as file:
        metadata = _metadata(file)
        # Copies: Windows can't replace a file that tensors still point into.
        packed = {key: file.get_tensor(key).clone() for key in file.keys()}
    state_dict = unpack_state(packed)
    _check_finite(path, state_dict)
    return state_dict, metadata


def load_metadata(path: str | Path) -> dict:
    """The metadata alone of a file of save_weights; raises what load_weights() does."""
    with _opened(path) as file:
        return _metadata(file)


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[safe_open]:
    check_weights_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"{path} is truncated or no safetensors file ({Path(path).stat().st_size} bytes): "
            "delete it and download or save it again."
        ) from error


def _metadata(file: safe_open) -> dict:
    return json.loads((file.metadata() or {}).get(METADATA, "{}"))


def load_torch_file(path: str | Path) -> object:
    """Read what torch.save() wrote, tensors on the CPU; code in the pickle is not run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is an HTML page, truncated, no such file, or holds code; or a number is NaN
            or infinite.
    """
    check_weights_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # Damaged bytes make the unpickler raise errors of any type: OSError, KeyError, EOFError ...
    except Exception as error:
        if isinstance(error, UnpicklingError) and _is_pickle(path, error):
            raise ValueError(
                f"{path} holds pickled code, which was not executed: expected nothing but a state "
                "dict, saved with torch.save(network.state_dict(), path)."
            ) from error
        raise ValueError(
            f"{path} is truncated or no PyTorch weight file ({Path(path).stat().st_size} bytes): "
            "delete it and download or make it again; an archive has to be unpacked first."
        ) from error
    _check_finite(path, content)
    return content


def _check_finite(path: str | Path, content: object) -> None:
    for name, tensor in _tensors(content):
        if not tensor.is_floating_point() or tensor.sum().isfinite():
            continue  # the sum alone takes a tenth of the time
        if not tensor.isfinite().all():
            raise ValueError(
                f"{path} holds NaN or infinite values (in {name}): the file is damaged, or the "
                "training that wrote it has diverged; take an earlier or another file."
            )


def _is_pickle(path: str | Path, error: UnpicklingError) -> bool:
    """Whether the unpickler refused an object, and not just meaningless bytes."""
    with open(path, "rb") as file:
        return "GLOBAL" in str(error) or file.read(1) == b"\x80"


def save_checkpoint(path: str | Path, parts: dict, record: object, settings: dict) -> None:
    """Write what a training needs to continue, atomically.

    Args:
        parts: networks and optimizers by name; their state_dict() is kept.
        record: what else to keep: numbers, strings, lists and dicts of them.
        settings: those of the training; load_checkpoint() compares them.

    Raises OSError if there is no room for it; what was at path stays.
    """
    state = {name: part.state_dict() for name, part in parts.items()}
    needed = sum(x.numel() * x.element_size() for _, x in _tensors(state))
    state |= {"record": record, "made_by": settings}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    check_room(Path(path).parent, needed, _IF_FULL)
    try:
        write_atomically(path, lambda temporary: torch.save(state, temporary), sole_writer=True)
    except (OSError, RuntimeError) as error:
        full = getattr(error, "errno", None) in DISK_FULL
        if full or "inline_container" in str(error):  # torch's writer has an error of its own
            raise disk_full(Path(path).parent, needed, _IF_FULL) from error
        raise


_IF_FULL = "; the checkpoint before this one is unchanged, and the training continues from it"


def _tensors(state: object, name: object = "it") -> Iterator[tuple[object, Tensor]]:
    """All tensors in nested dicts and lists, each with the key that it is found by."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, (dict, list, tuple)):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from _tensors(value, key)


def load_checkpoint(path: str | Path, parts: dict, settings: dict) -> object:
    """Put the state of save_checkpoint() back into the parts, on any device -> its record.

    A gradient scaler ("scaler") that the checkpoint lacks begins anew: the training may continue in
    another precision.

    Raises:
        FileNotFoundError, ValueError: see load_torch_file; or the file is that of a training with
            other settings.
    """
    # Not loaded onto a GPU: Adam's counts of steps would stay there, and each step would
    # synchronise with the GPU to read them.
    state = load_torch_file(path)
    if not isinstance(state, dict) or not {"made_by", "record"} <= state.keys():
        raise ValueError(
            f"{path} is no checkpoint of a training, or a damaged one: expected a file that this "
            "project's trainings write; move it away, or choose another folder for this training."
        )
    advice = "delete it to start anew, or keep this training in another folder"
    differences = differing(state["made_by"], settings)
    if differences:
        was, now = differences
        raise ValueError(
            f"{path} is the checkpoint of another training, with {was}; this one has {now}: "
            f"{advice}."
        )
    try:
        for name, part in parts.items():
            if name != SCALER or state.get(SCALER):
                part.load_state_dict(state[name])
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} is the checkpoint of another training ({str(error).splitlines()[-1].strip()}):"
            f" {advice}."
        ) from error
    return state["record"]


def differing(saved: dict, settings: dict) -> tuple[str, str] | None:
    """Which settings were saved with other values -> ("seed 0", "seed 1"), or None if none was.

    Settings that are missing from an older checkpoint count as None, False or 0.
    """

    def value(x: object) -> object:
        return None if not x or x == _ONLY_MIRRORED else x

    names = [name for name in settings if value(saved.get(name)) != value(settings[name])]
    if not names:
        return None
    was, now = (", ".join(f"{name} {x.get(name)}" for name in names) for x in (saved, settings))
    return was, now


def imagenet_weights(weights: WeightsEnum, alternative: str) -> dict[str, Tensor]:
    """The state dict of one of torchvision's networks, downloaded once, its hash checked.

    Args:
        weights: for example torchvision.models.ResNet34_Weights.IMAGENET1K_V1.
        alternative: what to do without them, for the message.

    Raises OSError if they can't be downloaded, or are damaged.
    """
    try:
        return weights.get_state_dict(check_hash=True)
    # A broken connection and damaged bytes raise errors of many types.
    except Exception as error:
        raise OSError(
            f"The ImageNet weights {weights.url} could not be downloaded and read ({error}). "
            f"Connect to the internet, put the file into {torch.hub.get_dir()}/checkpoints (if it "
            f"is there, it is damaged: delete it), or {alternative}."
        ) from None


def check_weights_file(path: str | Path) -> None:
    """Raise FileNotFoundError if there is no such file, ValueError if it is empty or a web page.

    Google Drive answers with a page instead of the file when the download quota is used up.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no weight file {path}: check the path; data/README.md says where to get "
            "each file."
        )
    with open(path, "rb") as file:
        start = file.read(512).lstrip().lower()
    if not start:
        raise ValueError(f"{path} is empty: the download was cut off; delete it and try again.")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(
            f"{path} is a web page, not weights: Google Drive sends one when too many people have "
            "downloaded a file; delete it and try again later, or take it from another source."
        )


def find_weights(network: str, dataset: str) -> Path:
    """Find the file with the weights of a network for a data set.

    Weights that were trained here with `--out runs/NETWORK_DATASET` come first, then downloaded and
    bundled ones, then those of the short training in notebook 02.

    Args:
        network: "segmentation", "generator", or "encoder", which reads the generator's styles.
        dataset: "toy", "streets", "camvid" or "cityscapes".

    Raises:
        ValueError: another network.
        FileNotFoundError: there are none yet; says how to get them.
    """
    trainings = {
        "segmentation": f'notebook 02 with DATASET = "{dataset}", or python -m utils.training',
        "generator": "python -m spade.training",
        "encoder": "python -m spade.training",
    }
    if network not in trainings:
        raise ValueError(f"There is no network {network!r}: expected {', '.join(trainings)}.")
    folder = "generator" if network == "encoder" else network  # they are trained together
    places = [
        RUNS / f"{folder}_{dataset}" / f"{network}.safetensors",
        PROJECT / "data" / "weights" / f"{network}_{dataset}.safetensors",
    ]
    if network == "segmentation":
        places.append(RUNS / "notebook_02" / f"{network}_{dataset}.safetensors")
    if (network, dataset) == ("generator", "cityscapes"):
        places.insert(1, PROJECT / "data" / "weights" / "latest_net_G.pth")
    for place in places:
        # A training that was killed at its end leaves an encoder without its generator.
        beside = place.with_name(place.name.replace("encoder", "generator"))
        if place.is_file() and beside.is_file():
            return place
    raise FileNotFoundError(
        f"There are no {network} weights for {dataset} yet (looked for "
        f"{', '.join(place.as_posix() for place in places)}): train them with "
        f"{trainings[network]} --dataset {dataset} --out runs/{folder}_{dataset}, or see "
        f'data/README.md for those that can be downloaded, or take "streets", which has learned '
        "from real photos and comes with the project."
    )
