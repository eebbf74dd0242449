"""Decode picture files of all common kinds, or say what else a file holds.

utils.images reads photos and maps through decode_photo() and decode_map(): files' bytes become
numpy arrays.  What no pixel depends on is ignored (texts, colour profiles, EXIF except for the
orientation).  Pictures too large for a small machine's memory are decoded at a reduced scale.
"""

import io
import re
import struct
from collections.abc import Callable

import numpy as np
import torch
from kornia_rs import io as kornia_rs
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from utils.labels import GREY_CLASSES, colors_contradict_ids

# A photo of more pixels is decoded at a reduced scale, and one of more than MOST_PIXELS refused,
# if its format has no such scale: a pixel takes up to seven bytes meanwhile.
FULL_PIXELS, REDUCED_PIXELS, MOST_PIXELS = 65_000_000, 20_000_000, 120_000_000
_STRIP = 1024  # rows that are converted at a time; a multiple of every scale

# The first bytes of a file that can't be decoded -> what it is, and how to get a picture.
_AGAIN = "download it again, or copy it again"
_CONVERT = "export it from a photo viewer as PNG (a photo also as JPEG); renaming does not help"
_CAUSES = (
    (rb"\Z", f"it is empty (0 bytes); {_AGAIN}"),
    (rb"\0+\Z", f"it holds nothing but zeros; {_AGAIN}"),
    (rb"\xff\xd8|\x89PNG|RIFF|GIF8|BM", f"it is cut short or damaged; {_AGAIN}"),
    (rb".{4}ftypavi", f"it is an AVIF picture, whatever its name says; {_CONVERT}"),
    (rb".{4}ftyp(hei|hev|mif|msf)", f"it is a HEIC picture, whatever its name says; {_CONVERT}"),
    (rb"\xff\x0a|.{4}JXL ", f"it is a JPEG XL picture, whatever its name says; {_CONVERT}"),
    (rb"II[*RU]|MM\0[*R]|FUJI|.{4}ftypcrx", f"it is a TIFF or a camera's raw picture; {_CONVERT}"),
    (rb"8BPS", f"it is a Photoshop file; {_CONVERT}"),
    (rb"version https://git-lfs", "it is a Git LFS pointer; run git lfs pull where it lies"),
    (rb"\W*(!doctype )?html", f"it is a web page, not a picture; {_AGAIN}"),
    (rb"[^\0]*<svg", f"it is an SVG drawing; {_CONVERT}"),
    (rb"[^\0-\x08\x0e-\x1f]+\Z", f"it is a text, not a picture; {_AGAIN}"),
    (rb"", f"it is of an unknown format; {_CONVERT}, or {_AGAIN}"),
)

_GREY, _RGB = 0, 2  # colour types of a PNG
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"


def decode_photo(data: bytes, source: str) -> np.ndarray:
    """A picture file's content -> (H, W, 3) uint8, RGB, upright; transparent pixels are white.

    Raises ValueError, which names source, if it is no complete picture or has too many pixels.
    """
    data, chunks = _without_metadata(data, kept=b"tRNS")
    exif, xmp = chunks.get(b"eXIf", b""), chunks.get(b"xmp", b"")
    if _png_kind(data) == (_RGB, 8, True) and b"tRNS" not in chunks:
        rows = _decode_plain_png(source, data, kornia_rs.decode_image_png_u8, "rgb")
    else:
        picture, rows = _decode(source, data, _to_rows)
        exif, xmp = picture.info.get("exif", exif), picture.info.get("xmp", xmp)
    return _upright(rows, _orientation(exif, xmp))


def decode_map(data: bytes, source: str) -> np.ndarray:
    """A map's content -> its ids (H, W), or (H, W, 3) uint8 if it is in colours.

    Ids are the file's own values at any bit depth, a palette's indices, or three equal channels.

    Raises ValueError, which names source, if it is no complete picture, if its format changes ids,
    or if it has transparent pixels.
    """
    data, _ = _without_metadata(data)
    color_type, bits, is_plain = _png_kind(data) or (None, 8, False)
    if is_plain and color_type == _GREY and bits == 8:
        return _decode_plain_png(source, data, kornia_rs.decode_image_png_u8, "mono")[..., 0]
    if is_plain and color_type == _GREY and bits == 16:
        return _decode_plain_png(source, data, kornia_rs.decode_image_png_u16, "mono")[..., 0]
    picture, values = _decode(source, data, np.array)
    _check_keeps_ids(source, data, picture, bits)
    if picture.mode in ("1", "L"):  # Pillow stretches 2 and 4 bits to 0..255
        return values.astype(np.uint8) // (255 // (2**bits - 1) if bits in (2, 4) else 1)
    if picture.mode.startswith("I") or (picture.mode == "P" and not _is_color_map(picture, values)):
        return values
    rgb = np.array(picture.convert("RGB"))
    if (rgb[..., :1] != rgb[..., 1:]).any():
        return rgb
    grey = set(np.unique(rgb).tolist())
    # Three equal channels: a grey picture, or the grey classes of a map in colours.
    return rgb if grey != {0} and grey <= {0, *GREY_CLASSES} else rgb[..., 0]


# ----------------------------------------------------------------------------- metadata


def _without_metadata(data: bytes, kept: bytes = b"") -> tuple[bytes, dict[bytes, bytes]]:
    """Split a PNG or JPEG into what its pixels depend on, and the other parts by their kinds.

    Of a PNG's chunks the critical ones stay, and those of the kind kept.  A JPEG's EXIF and XMP
    data come out as b"eXIf" and b"xmp".  Files of other formats stay as they are.
    """
    if data[:8] == _PNG:
        return _png_without_metadata(data, kept)
    if data[:2] == _JPEG:
        return _jpeg_without_metadata(data)
    return data, {}


def _png_without_metadata(data: bytes, kept: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    parts, others, start = [data[:8]], {}, 8
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if kind[:1].isupper() or kind == kept:
            parts.append(data[start:end])
        if not kind[:1].isupper():
            others[kind] = data[start + 8 : end - 4]
        start = end
    return b"".join(parts) if others else data, others


def _jpeg_without_metadata(data: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    parts, others, start = [data[:2]], {}, 2
    while start + 4 <= len(data):
        first, marker, length = struct.unpack_from(">BBH", data, start)
        if first != 0xFF or marker not in range(0xC0, 0xFF) or marker in range(0xD0, 0xDB):
            break  # no more segments: the pixels begin
        end = start + 2 + length
        content = data[start + 4 : end]
        if marker == 0xE1:
            kind = b"eXIf" if content.startswith(b"Exif\0\0") else b"xmp"
            others[kind] = others.get(kind, b"") + content
        # JFIF's and Adobe's segments, if complete, say what the colours are.
        if marker not in range(0xE0, 0xF0) or (marker in (0xE0, 0xEE) and len(content) >= 12):
            parts.append(data[start:end])
        start = end
    return b"".join([*parts, data[start:]]), others


# ----------------------------------------------------------------------------- PNG files


def _png_kind(data: bytes) -> tuple[int, int, bool] | None:
    """Colour type and bits a channel of a PNG, and whether it is plain; None for other files.

    The plain ones, neither interlaced nor huge, are decoded by kornia_rs in less than half of
    Pillow's time; everything else is left to Pillow.  (https://www.w3.org/TR/png-3/#11IHDR)
    """
    if data[:8] != _PNG or data[12:16] != b"IHDR" or len(data) < 29:
        return None
    width, height, bits, color_type, *_, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    return color_type, bits, not interlaced and 0 < width * height <= MOST_PIXELS


def _decode_plain_png(source: str, data: bytes, decode: Callable, mode: str) -> np.ndarray:
    width, height = struct.unpack(">II", data[16:24])
    try:
        return decode(data, (height, width), mode)
    except Exception as error:  # kornia_rs raises nothing narrower
        raise _unreadable(source, data, error) from error


# ----------------------------------------------------------------------------- Pillow


def _decode(
    source: str, data: bytes, convert: Callable[[Image.Image], np.ndarray]
) -> tuple[Image.Image, np.ndarray]:
    try:
        picture = _open(data)
        return picture, convert(picture)
    except Exception as error:  # damaged bytes make Pillow raise errors of many types
        raise _unreadable(source, data, error) from error


def _unreadable(source: str, data: bytes, error: Exception) -> ValueError:
    if isinstance(error, Image.DecompressionBombError):
        return ValueError(
            f"{source} has too many pixels: expected at most {MOST_PIXELS // 10**6} million, in a "
            "WebP or AVIF file half as many.  Make it smaller, or save it as a JPEG that is not "
            "progressive, which is decoded at a reduced scale."
        )
    start = data[:512]
    cause = next(x for begin, x in _CAUSES if re.match(begin, start, re.DOTALL | re.IGNORECASE))
    return ValueError(f"{source} can't be read as a picture: {cause}.")


def _open(data: bytes) -> Image.Image:
    """Decode a picture; a large JPEG at a half, a quarter or an eighth of its width and height."""
    # Image.open() refuses large JPEGs.
    opener = {_JPEG: JpegImageFile, _PNG[:2]: PngImageFile}.get(data[:2], Image.open)
    picture = opener(io.BytesIO(data))
    (width, height), is_jpeg = picture.size, opener is JpegImageFile
    # These decoders need 16 bytes a pixel.
    most = MOST_PIXELS // 2 if picture.format in ("WEBP", "AVIF") else MOST_PIXELS
    # A progressive JPEG is held in memory at its full size, whatever the scale.
    if width * height > most and (not is_jpeg or "progressive" in picture.info):
        raise Image.DecompressionBombError
    scale = _scale(width * height)
    if is_jpeg and scale > 1:
        picture.draft(None, (width // scale, height // scale))
    picture.load()
    return picture


def _scale(pixels: int) -> int:
    """The number that divides the sides of a picture of so many pixels: 1, 2, 4 or 8."""
    if pixels <= FULL_PIXELS:
        return 1
    return next(scale for scale in (2, 4, 8) if scale == 8 or pixels <= REDUCED_PIXELS * scale**2)


def _to_rows(picture: Image.Image) -> np.ndarray:
    """Any picture -> (H, W, 3) uint8; in strips, so that a large one is not in memory twice."""
    (width, height), scale = picture.size, _scale(picture.width * picture.height)
    rows = np.empty((-(-height // scale), -(-width // scale), 3), np.uint8)
    for top in range(0, height, _STRIP):
        strip = _to_rgb(picture.crop((0, top, width, min(top + _STRIP, height))))
        strip = strip.reduce(scale) if scale > 1 else strip
        rows[top // scale :][: strip.height] = strip
    return rows


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits of grey: Pillow would cut everything over 255
        array = np.asarray(picture).astype(np.int64) >> 8
        picture = Image.fromarray(array.clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


# ----------------------------------------------------------------------------- orientation


def _orientation(exif: bytes, xmp: bytes) -> int:
    """The orientation of the camera, 1..8 (EXIF 2.3, tag 0x0112), from EXIF or XMP data."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order and len(exif) >= 10:
        start, count = struct.unpack_from(order + "I", exif, 4)[0], 0
        if start + 2 <= len(exif):
            (count,) = struct.unpack_from(order + "H", exif, start)
        for place in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
            tag, kind = struct.unpack_from(order + "HH", exif, place)
            if tag == 0x0112:
                value = {3: "H", 4: "I"}.get(kind, "B")
                return struct.unpack_from(order + value, exif, place + 8)[0]
    found = re.search(rb"tiff:Orientation(?:=['\"]|>)([1-8])", xmp)
    return int(found[1]) if found else 1


def _upright(rows: np.ndarray, orientation: int) -> np.ndarray:
    """Rows (H, W, 3) as the camera stored them -> as they should be shown."""
    if orientation not in range(2, 9):
        return rows
    rows = rows.swapaxes(0, 1) if orientation >= 5 else rows
    rows = rows[::-1] if orientation in (3, 4, 7, 8) else rows
    rows = rows[:, ::-1] if orientation in (2, 3, 6, 7) else rows
    return np.ascontiguousarray(rows)


# ----------------------------------------------------------------------------- maps


def _check_keeps_ids(source: str, data: bytes, picture: Image.Image, bits: int) -> None:
    """Raise ValueError if the ids can't be what was once saved: a lossy or rescaling format."""
    is_kept = picture.format in ("PNG", "BMP")
    if picture.format == "WEBP":
        is_kept = b"VP8L" in data  # lossless
    elif picture.format == "TIFF":
        is_kept = picture.tag_v2.get(258, (1,))[0] in (8, 16)  # bits
        is_kept &= "jpeg" not in picture.info.get("compression", "")
    if not is_kept:
        raise ValueError(
            f"{source} holds a {picture.format} picture, expected a map of ids as PNG: JPEG and "
            "some other formats change ids.  Save the map as PNG where it was made; converting "
            "this file does not bring the ids back."
        )
    if bits == 16 and not picture.mode.startswith("I"):
        raise ValueError(
            f"{source} has several channels of 16 bits, expected a map of ids: save it as a grey "
            "PNG of 8 or 16 bits, with one channel."
        )
    if picture.mode in ("LA", "PA", "RGBA") and picture.getchannel("A").getextrema()[0] < 255:
        raise ValueError(
            f"{source} has transparent pixels, expected a class for every pixel: fill them, and "
            "save the map without an alpha channel."
        )


def _is_color_map(picture: Image.Image, ids: np.ndarray) -> bool:
    """Whether a palette picture's colours name classes that its indices contradict."""
    used = torch.from_numpy(np.unique(ids)).long()
    palette = torch.tensor(picture.getpalette("RGB"), dtype=torch.uint8).reshape(-1, 3)
    return int(used[-1]) < len(palette) and colors_contradict_ids(palette[used], used)
