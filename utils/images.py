"""Reading, resizing and saving pictures; the only place where value ranges change.

Names say the range: ``image_u8`` is RGB in 0..255 (uint8), ``image_pm1`` is what SPADE makes, -1..1
(float).  Label and instance maps are only ever resized nearest-neighbour.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from utils.files import write_atomically

# What torchvision's ImageNet weights expect, for RGB in 0..1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


# ----------------------------------------------------------------------------- value ranges


def pm1_to_u8(image_pm1: torch.Tensor) -> torch.Tensor:
    """image_pm1 (..., 3, H, W) float -> image_u8 of the same shape; beyond -1..1 is cut."""
    return ((image_pm1.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def u8_to_pm1(image_u8: torch.Tensor) -> torch.Tensor:
    """image_u8 (..., 3, H, W) -> image_pm1 of the same shape, float32 in -1..1."""
    return image_u8.float() / 127.5 - 1


def u8_to_imagenet(image_u8: torch.Tensor) -> torch.Tensor:
    """image_u8 (..., 3, H, W) -> float32 with ImageNet's mean and deviation taken out."""
    mean = [255 * value for value in IMAGENET_MEAN]
    std = [255 * value for value in IMAGENET_STD]
    return transforms.normalize(image_u8.float(), mean, std)


def pm1_to_imagenet(image_pm1: torch.Tensor) -> torch.Tensor:
    """image_pm1 (..., 3, H, W) -> what u8_to_imagenet() gives, without rounding: for losses."""
    return u8_to_imagenet((image_pm1 + 1) * 127.5)


# ----------------------------------------------------------------------------- reading


def read_image(path: str | Path) -> torch.Tensor:
    """Read a photo -> image_u8 (3, H, W); rotated as its EXIF tag says, grey and RGBA become RGB.

    Raises FileNotFoundError if there is no such file, ValueError if it is no complete picture.
    """
    picture = _decode(path, lambda opened: ImageOps.exif_transpose(opened).convert("RGB"))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def read_map(path: str | Path) -> torch.Tensor:
    """Read a map of ids from a one-channel PNG -> (H, W), uint8, or int32 for a 16-bit file.

    Palette files give their indices.  Raises ValueError if the file has colour channels.
    """
    picture = _decode(path, lambda opened: opened.copy())
    if picture.mode not in ("L", "P", "I", "I;16"):
        raise ValueError(
            f"{path} is a colour picture (mode {picture.mode}), expected one channel of label ids: "
            "use the *_labelIds.png file, or convert it with utils.labels.colors_to_label_ids()."
        )
    ids = np.array(picture)
    return torch.from_numpy(ids if ids.dtype == np.uint8 else ids.astype(np.int32))


def _decode(path: str | Path, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not there: check the path, or get the data again.")
    try:
        with Image.open(path) as opened:
            return convert(opened)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"{path} can't be read as a picture ({error}): it may be cut short; download it again."
        ) from error


# ----------------------------------------------------------------------------- resizing


def crop_to_aspect(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The largest centred crop of a picture or map (..., H, W) that has the shape of size.

    Args:
        size: (width, height); only their ratio counts.  480x360 for a 2:1 size: rows 60..300.
    """
    height, width = image.shape[-2:]
    crop_width = min(width, max(1, round(height * size[0] / size[1])))
    crop_height = min(height, max(1, round(width * size[1] / size[0])))
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return image[..., top : top + crop_height, left : left + crop_width]


def resize_image(image_u8: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """image_u8 (..., 3, H, W) -> the same at size (width, height); bicubic, antialiased."""
    return transforms.resize(
        image_u8, [size[1], size[0]], InterpolationMode.BICUBIC, antialias=True
    )


def resize_map(ids: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A map of ids (H, W) or (B, H, W) -> the same at size (width, height); nearest neighbour.

    Takes the pixel under each new pixel's centre, as Pillow and the published SPADE code do.
    """
    rows = _under_centres(ids.shape[-2], size[1]).to(ids.device)
    columns = _under_centres(ids.shape[-1], size[0]).to(ids.device)
    return ids[..., rows[:, None], columns]


def _under_centres(length: int, new_length: int) -> torch.Tensor:
    """Which of length pixels lie under the centres of new_length ones -> (new_length,) int64."""
    steps = torch.full((new_length,), length / new_length, dtype=torch.float64)
    steps[0] /= 2
    # Added up as Pillow does, whose rounding decides where a centre lies between two pixels.
    return steps.cumsum(0).long()


def read_photo(path: str | Path, size: tuple[int, int]) -> torch.Tensor:
    """Read any photo, centre-crop it to the aspect of size and resize it -> image_u8 (3, H, W)."""
    return resize_image(crop_to_aspect(read_image(path), size), size)


# ----------------------------------------------------------------------------- saving


def save_image(image_u8: torch.Tensor, path: str | Path) -> Path:
    """Write image_u8 (3, H, W) as path's ending says (.png, .jpg), or a map (H, W) uint8 (.png).

    The folder is made; the file appears whole or not at all.
    """
    if image_u8.dtype != torch.uint8 or not (
        image_u8.dim() == 2 or (image_u8.dim() == 3 and len(image_u8) == 3)
    ):
        raise ValueError(
            f"{path}: expected a uint8 tensor (3, H, W) or (H, W), got {image_u8.dtype} "
            f"{tuple(image_u8.shape)}; pm1_to_u8() converts what SPADE makes."
        )
    array = image_u8.cpu().movedim(0, -1).numpy() if image_u8.dim() == 3 else image_u8.cpu().numpy()
    picture = Image.fromarray(np.ascontiguousarray(array))
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: no picture format has that ending; use .png or .jpg.")
    if image_u8.dim() == 2 and kind != "PNG":
        raise ValueError(f"{path}: a map of ids must end in .png; other formats change the ids.")
    write_atomically(path, lambda temporary: picture.save(temporary, kind, quality=90))
    return Path(path)
