"""Reading, resizing and saving pictures, and conversions between value ranges.

Names say the range: ``image_u8`` is RGB in 0..255 (uint8), ``image_pm1`` is what SPADE makes, -1..1
(float).  Label and instance maps are only ever resized nearest-neighbour.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from utils.archives import ZippedFile
from utils.decoding import decode_map, decode_photo
from utils.engine.graphs import constant
from utils.files import usable_cores, write_atomically

# What torchvision's ImageNet weights expect, for RGB in 0..1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


# ----------------------------------------------------------------------------- value ranges


def pm1_to_u8(image_pm1: torch.Tensor) -> torch.Tensor:
    """image_pm1 (..., 3, H, W) float -> image_u8 of the same shape, clipped to 0..255."""
    return ((image_pm1.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def u8_to_pm1(image_u8: torch.Tensor) -> torch.Tensor:
    """image_u8 (..., 3, H, W) -> image_pm1 of the same shape, float32 in -1..1."""
    return image_u8.float() / 127.5 - 1


def u8_to_imagenet(
    image_u8: torch.Tensor,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> torch.Tensor:
    """image_u8 (..., 3, H, W) -> float32 of the same shape, (image_u8 / 255 - mean) / std."""
    # Not torchvision's normalize(): each call would copy the six numbers, and wait for the GPU.
    mean, std = (
        constant(tuple(((255 * value,),) for value in values), image_u8.device)  # (3, 1, 1)
        for values in (mean, std)
    )
    return (image_u8.float() - mean).div_(std)


def pm1_to_imagenet(
    image_pm1: torch.Tensor,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> torch.Tensor:
    """image_pm1 (..., 3, H, W) -> what u8_to_imagenet() gives, without rounding: for losses."""
    return u8_to_imagenet((image_pm1 + 1) * 127.5, mean, std)


# ----------------------------------------------------------------------------- reading


def read_image(path: str | Path | ZippedFile) -> torch.Tensor:
    """Read a photo of any common kind -> image_u8 (3, H, W).

    It is rotated as its EXIF orientation says; grey, palette, CMYK and 16-bit pictures become 8-bit
    RGB; what is transparent becomes white.  A photo of more than 65 megapixels is read at a reduced
    scale, if its format allows that.

    Raises FileNotFoundError if there is no such file, ValueError if it is not a complete picture,
    or has more than 120 megapixels (WebP, AVIF: 60), unless it is a JPEG that isn't progressive.
    """
    rows = decode_photo(_read_bytes(path), str(path))
    # Not made contiguous: that would take longer than resizing does, which does not need it.
    return torch.from_numpy(rows).permute(2, 0, 1)


def read_map(path: str | Path | ZippedFile, colors: bool = False) -> torch.Tensor:
    """Read a map of ids from a one-channel PNG -> (H, W), uint8, or int32 for a 16-bit file.

    The ids are the file's own values, whatever its bit depth; palette files give their indices.  A
    grey picture that was saved with three equal channels, or an opaque alpha channel, is read, too.

    Args:
        colors: return a map in colours as image_u8 (3, H, W), and don't refuse it.

    Raises ValueError if the file has colours, transparent pixels or a format that changes ids.
    """
    ids = decode_map(_read_bytes(path), str(path))
    if ids.ndim == 2:
        return torch.from_numpy(ids if ids.dtype == np.uint8 else ids.astype(np.int32))
    if not colors:
        raise ValueError(
            f"{path} is a colour picture, expected one channel of label ids: use the "
            "*_labelIds.png file, or convert it, if it is a map in colours: save_image("
            "colors_to_label_ids(read_image(path)), new_path), from utils.images and utils.labels."
        )
    return torch.from_numpy(ids).permute(2, 0, 1)


def _read_bytes(path: str | Path | ZippedFile) -> bytes:
    if isinstance(path, ZippedFile):
        return path.read_bytes()
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not there: check the path, or get the data again.")
    return Path(path).read_bytes()


# ----------------------------------------------------------------------------- resizing


def crop_to_aspect(image: torch.Tensor, size: tuple[int, int], at: float = 0.5) -> torch.Tensor:
    """The largest crop of a picture or map (..., H, W) that has the shape of size.

    Args:
        size: (width, height); only their ratio counts.  480x360 for a 2:1 size: rows 60..300.
        at: where the crop lies in a picture that is wider: 0 at the left end, 0.5 in the middle, 1
            at the right end.  From a picture that is higher, the middle rows are taken.
    """
    height, width = image.shape[-2:]
    crop_width = min(width, max(1, round(height * size[0] / size[1])))
    crop_height = min(height, max(1, round(width * size[1] / size[0])))
    top, left = (height - crop_height) // 2, int((width - crop_width) * at)
    return image[..., top : top + crop_height, left : left + crop_width]


# Part of what a cached picture depends on: change it together with the functions below.
RESAMPLING = "photos bicubic with antialiasing, maps nearest as Pillow"


def resize_image(image_u8: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """image_u8 (..., 3, H, W) -> the same at size (width, height); bicubic, antialiased."""
    resized = transforms.resize(
        image_u8, [size[1], size[0]], InterpolationMode.BICUBIC, antialias=True
    )
    return resized.contiguous()


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
    # Summed as in Pillow, whose rounding decides where a centre lies between two pixels.
    return steps.cumsum(0).long()


def read_photo(path: str | Path, size: tuple[int, int]) -> torch.Tensor:
    """Read any photo, centre-crop it to the aspect of size and resize it -> image_u8 (3, H, W)."""
    return resize_image(crop_to_aspect(read_image(path), size), size)


# ----------------------------------------------------------------------------- saving


def save_image(image_u8: torch.Tensor, path: str | Path) -> Path:
    """Write image_u8 (3, H, W) as path's ending says (.png, .jpg), or a map (H, W) uint8 (.png).

    The folder is made, and the file is written atomically.
    """
    kind = _check_picture(image_u8, path)
    array = image_u8.cpu().movedim(0, -1).numpy() if image_u8.dim() == 3 else image_u8.cpu().numpy()
    picture = Image.fromarray(np.ascontiguousarray(array))
    # zlib's first level: two and a half times as fast as the usual sixth, files an eighth larger.
    options = {"compress_level": 1} if kind == "PNG" else {"quality": 90}
    write_atomically(path, lambda temporary: picture.save(temporary, kind, **options))
    return Path(path)


def _check_picture(image_u8: torch.Tensor, path: str | Path) -> str:
    """Raise ValueError if this can't be saved under that name -> the name of the file format."""
    if image_u8.dtype != torch.uint8 or not (
        image_u8.dim() == 2 or (image_u8.dim() == 3 and len(image_u8) == 3)
    ):
        raise ValueError(
            f"{path}: expected a uint8 tensor (3, H, W) or (H, W), got {image_u8.dtype} "
            f"{tuple(image_u8.shape)}; pm1_to_u8() converts what SPADE makes."
        )
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: no picture format has that ending; use .png or .jpg.")
    if image_u8.dim() == 2 and kind != "PNG":
        raise ValueError(f"{path}: a map of ids must end in .png; other formats change the ids.")
    return kind


class ImageWriter:
    """Saves pictures in background threads, while the next ones are made.

        with ImageWriter() as writer:
            for name, image_u8 in ...:
                writer.save(image_u8, folder / f"{name}.png")

    Compression runs outside of Python's lock, so the threads use all cores.  A picture that can't
    be written stops no other: the end of the with block raises the first error.

    Args:
        waiting: save() blocks while this many pictures are not written yet, which bounds memory.

    Attributes:
        errors: path -> why that picture could not be written; complete after wait().
    """

    def __init__(self, waiting: int = 64):
        self.errors: dict[Path, Exception] = {}
        self._room = threading.BoundedSemaphore(waiting)
        self._threads = ThreadPoolExecutor(usable_cores(), "image writer")

    def save(self, image_u8: torch.Tensor, path: str | Path) -> None:
        """Write a picture as save_image() does; it is copied, so it may be changed after.

        Raises ValueError, at once, for what save_image() would refuse.
        """
        _check_picture(image_u8, path)
        self._room.acquire()
        self._threads.submit(self._write, image_u8.detach().to("cpu", copy=True), Path(path))

    def wait(self) -> None:
        """Return when everything is written; save() can't be called any more."""
        self._threads.shutdown()

    def _write(self, image_u8: torch.Tensor, path: Path) -> None:
        try:
            save_image(image_u8, path)
        except Exception as error:  # of any type: it is raised where the user sees it
            self.errors[path] = error
        finally:
            self._room.release()

    def __enter__(self) -> "ImageWriter":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.wait()
        if self.errors and error is None:  # else the error of the with block is the one to see
            path, first = next(iter(self.errors.items()))
            raise OSError(
                f"{path} could not be saved ({first}), {len(self.errors)} pictures in all; the "
                "others are written.  Make room, or correct the folder, and save these again."
            ) from first
