"""Reading, resizing and saving: nothing changes that should not, and nothing is half-written."""

import os
import struct
import threading
import zlib

import numpy as np
import pytest
import torch
from examples import noise
from PIL import Image, ImageOps

from utils import decoding, images
from utils.images import (
    ImageWriter,
    crop_to_aspect,
    pm1_to_imagenet,
    pm1_to_u8,
    read_image,
    read_map,
    read_photo,
    resize_image,
    resize_map,
    save_image,
    u8_to_imagenet,
    u8_to_pm1,
)
from utils.labels import COLORS, colors_to_label_ids, label_ids_to_colors


def smooth(height, width):
    """A photo that JPEG keeps nearly as it is."""
    rows, columns = torch.linspace(0, 200, height)[:, None], torch.linspace(0, 55, width)
    return torch.stack([rows + columns, 255 - rows - columns, rows + 0 * columns]).to(torch.uint8)


# ------------------------------------------------------------------------------ value ranges


def test_ranges_by_hand():
    image_pm1 = torch.tensor([-1.0, 0.0, 1.0, -3.0, 7.0, 0.003]).reshape(1, 1, 6).expand(3, 1, 6)
    image_u8 = pm1_to_u8(image_pm1)
    assert image_u8[0, 0].tolist() == [0, 128, 255, 0, 255, 128]
    assert image_u8.dtype == torch.uint8 and image_u8.shape == (3, 1, 6)
    back = u8_to_pm1(torch.tensor([0, 51, 255], dtype=torch.uint8))
    torch.testing.assert_close(back, torch.tensor([-1.0, -0.6, 1.0]))
    every = torch.arange(256, dtype=torch.uint8)
    for image_pm1 in (u8_to_pm1(every), u8_to_pm1(every).half()):
        assert torch.equal(pm1_to_u8(image_pm1), every)


def test_imagenet_range():
    white = torch.full((2, 3, 3, 5), 255, dtype=torch.uint8)
    normalized = u8_to_imagenet(white)
    assert normalized.shape == (2, 3, 3, 5) and normalized.dtype == torch.float32
    expected = torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    torch.testing.assert_close(normalized[1, :, 2, 4], expected)
    image_u8 = noise(3, 5, 7)
    torch.testing.assert_close(pm1_to_imagenet(u8_to_pm1(image_u8)), u8_to_imagenet(image_u8))


# ------------------------------------------------------------------------------ files


@pytest.mark.parametrize("shape", [(3, 33, 47), (33, 47)])
def test_png_round_trip_is_exact(shape, tmp_path):
    tensor = noise(*shape).flip(-1)[..., ::2]  # a view is saved as it looks
    path = save_image(tensor, tmp_path / "new folder" / "a.png")
    assert path == tmp_path / "new folder" / "a.png"
    read = read_image(path) if len(shape) == 3 else read_map(path)
    assert torch.equal(read, tensor) and read.dtype == torch.uint8


def test_jpeg_round_trip_is_close(tmp_path):
    image_u8 = smooth(33, 47)
    read = read_image(save_image(image_u8, str(tmp_path / "a.JPG")))
    assert read.shape == image_u8.shape
    difference = (read.int() - image_u8.int()).abs().float()
    assert 0 < difference.mean() < 3
    with Image.open(tmp_path / "a.JPG") as picture:
        assert picture.format == "JPEG"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_all_orientations_are_those_of_pillow(orientation, order, tmp_path):
    image_u8 = noise(3, 5, 7)
    exif = an_exif(order, (0x0112, 3, 1, struct.pack(order + "HH", orientation, 0)))
    picture = Image.fromarray(image_u8.permute(1, 2, 0).numpy())
    for name in ("a.png", "a.webp", "a.tif"):
        picture.save(tmp_path / name, exif=exif, lossless=True)
        with Image.open(tmp_path / name) as opened:
            expected = torch.from_numpy(np.array(ImageOps.exif_transpose(opened)))
        assert torch.equal(read_image(tmp_path / name), expected.permute(2, 0, 1))


def an_exif(order, *tags):
    """EXIF data with these (tag, kind, count, value of 4 bytes); offsets lead out of it."""
    entries = b"".join(struct.pack(order + "HHI", *tag[:3]) + tag[3] for tag in tags)
    start = b"II*\0" if order == "<" else b"MM\0*"
    head = struct.pack(order + "IH", 8, len(tags))
    return b"Exif\0\0" + start + head + entries + struct.pack(order + "Iii", 0, -1, 0)


@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")  # of other tests' files
@pytest.mark.parametrize("kind", range(14))
def test_odd_exif_entries_are_not_looked_at(kind, tmp_path):
    turned = (0x0112, 3, 1, struct.pack("<HH", 6, 0))
    odd = struct.pack("<I", 38)  # where -1/0 stands
    for tags in (
        [(0x010F, kind, 1, odd), turned, (0x011A, kind, 1, odd)],
        [(0x010F, kind, 1 << 30, b"\xff\xff\xff\x7f"), turned],
    ):
        for name in ("a.jpg", "a.png"):
            Image.new("RGB", (8, 4)).save(tmp_path / name, exif=an_exif("<", *tags))
            assert read_image(tmp_path / name).shape == (3, 8, 4)
    for length in range(6, 60, 3):  # cut short anywhere: the pixels are read all the same
        Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=an_exif("<", *tags)[:length])
        assert read_image(tmp_path / "a.jpg").flatten().tolist() == [0] * 96


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_metadata_of_a_png_is_not_looked_at(mode, tmp_path):
    path = tmp_path / "a.png"
    Image.new(mode, (4, 2), 9).save(path)
    data, expected = path.read_bytes(), read_image(path)
    for kind, content in (
        (b"tEXt", b"comment\0" + bytes(3 << 20)),
        (b"zTXt", b"comment\0\0" + zlib.compress(bytes(90 << 20))),
        (b"iCCP", b"profile\0\7damaged"),
        (b"pHYs", b""),
    ):
        chunk = struct.pack(">I", len(content)) + kind + content + b"crc?"
        path.write_bytes(data[:33] + chunk + data[33:])
        assert torch.equal(read_image(path), expected)
        if mode == "L":
            assert read_map(path).unique().tolist() == [9]


def test_metadata_of_a_jpeg_is_not_looked_at(tmp_path):
    path = tmp_path / "a.jpg"
    exif = an_exif(">", (0x0112, 3, 1, struct.pack(">HH", 6, 0)))
    Image.fromarray(smooth(16, 32).permute(1, 2, 0).numpy()).convert("CMYK").save(path, exif=exif)
    data, expected = path.read_bytes(), read_image(path)
    assert expected.shape == (3, 32, 16)
    for marker, content in (
        (0xE0, b"JFIF"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<"),
        (0xE2, b"MPF\0II*\0\xff\xff"),
        (0xE2, b"ICC_PROFILE\0"),
        (0xED, b"Photoshop 3.0\0008BIM\3\xed"),
        (0xEE, b"Adobe"),
        (0xFE, bytes(60_000)),
    ):
        at = 2 + 2 + int.from_bytes(data[4:6], "big")  # after the first segment
        segment = struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content
        path.write_bytes(data[:at] + segment + data[at:])
        assert torch.equal(read_image(path), expected)
    # Without EXIF data the orientation may stand in XMP data.
    Image.new("RGB", (8, 4)).save(path, xmp=b'<x:xmpmeta tiff:Orientation="6"/>')
    assert read_image(path).shape == (3, 8, 4)


def test_what_is_transparent_becomes_white(tmp_path):
    picture = Image.new("RGB", (4, 2), (10, 20, 30))
    picture.putpixel((1, 0), (40, 50, 60))
    picture.save(tmp_path / "a.png", transparency=(10, 20, 30))
    white = torch.full((3, 2, 4), 255, dtype=torch.uint8)
    white[:, 0, 1] = torch.tensor([40, 50, 60])
    assert torch.equal(read_image(tmp_path / "a.png"), white)
    rgba = noise(5, 7, 4)
    rgba[..., 3] = torch.tensor([0, 0, 0, 255, 255, 255, 255])
    Image.fromarray(rgba.numpy()).save(tmp_path / "rgba.png")
    read = read_image(tmp_path / "rgba.png")
    assert (read[..., :3] == 255).all()
    assert torch.equal(read[..., 3:], rgba[:, 3:, :3].permute(2, 0, 1))
    Image.fromarray(noise(5, 7, 2).numpy(), "LA").save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png").shape == (3, 5, 7)


def test_every_kind_of_picture_becomes_rgb(tmp_path):
    grey = noise(5, 7)
    Image.fromarray(grey.numpy()).save(tmp_path / "grey.png")
    assert torch.equal(read_image(tmp_path / "grey.png"), grey.expand(3, 5, 7))
    deep = Image.fromarray((grey.numpy().astype(np.uint16) << 8) + 77)
    deep.save(tmp_path / "deep.png")
    assert torch.equal(read_image(tmp_path / "deep.png"), grey.expand(3, 5, 7))
    image_u8 = noise(3, 5, 7)
    rgb = Image.fromarray(image_u8.permute(1, 2, 0).numpy())
    rgb.convert("P").save(tmp_path / "palette.png")
    expected = np.array(rgb.convert("P").convert("RGB"))
    assert np.array_equal(read_image(tmp_path / "palette.png").permute(1, 2, 0), expected)
    rgb.save(tmp_path / "a.webp", lossless=True)
    assert torch.equal(read_image(tmp_path / "a.webp"), image_u8)
    flat = Image.new("RGB", (16, 16), (200, 30, 90))
    flat.convert("CMYK").save(tmp_path / "print.jpg", quality=100)
    read = read_image(tmp_path / "print.jpg")
    assert read.shape == (3, 16, 16)
    assert (read.int() - torch.tensor([200, 30, 90])[:, None, None]).abs().max() < 6


def test_an_interlaced_png(tmp_path):
    """Adam7 of a picture of one pixel: Pillow reads such files, but writes none."""
    Image.new("RGB", (1, 1), (9, 8, 7)).save(tmp_path / "one.png")
    data = bytearray((tmp_path / "one.png").read_bytes())
    data[28] = 1  # the interlace method
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "one.png").write_bytes(data)
    assert read_image(tmp_path / "one.png").flatten().tolist() == [9, 8, 7]


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_the_fast_decoder_reads_what_pillow_reads(mode, tmp_path):
    shape = (33, 47, 3) if mode == "RGB" else (33, 47)
    values = np.random.default_rng(0).integers(0, 60_000 if mode == "I;16" else 256, shape)
    array = values.astype(np.uint16 if mode == "I;16" else np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    read = read_image if mode == "RGB" else read_map
    found = read(tmp_path / "a.png")
    expected = torch.from_numpy(array.astype(np.int32))
    assert torch.equal(found.int(), expected.permute(2, 0, 1) if mode == "RGB" else expected)
    data = (tmp_path / "a.png").read_bytes()
    for broken in (data[:-40], data[: len(data) // 2], data[:40], data[:60] + b"?" + data[61:]):
        (tmp_path / "b.png").write_bytes(broken)
        with pytest.raises(ValueError, match=r"b\.png can't be read as a picture"):
            read(tmp_path / "b.png")


def test_a_map_with_a_palette(tmp_path):
    indices = torch.tensor([[0, 5, 11]], dtype=torch.uint8)
    picture = Image.fromarray(indices.numpy()).convert("P")
    picture.putpalette([9, 8, 7] * 256)
    picture.putdata(indices.flatten().tolist())
    picture.save(tmp_path / "palette.png")
    assert torch.equal(read_map(tmp_path / "palette.png"), indices)


def test_a_map_in_colours(tmp_path):
    path = save_image(noise(3, 5, 7), tmp_path / "color.png")
    with pytest.raises(ValueError, match=r"color\.png is a colour picture, expected .*labelIds"):
        read_map(path)
    assert torch.equal(read_map(path, colors=True), noise(3, 5, 7))


def a_png(path, color_type, bits, *rows):
    """Write a PNG whose rows are bytes as they stand in the file; 7 is transparent in grey ones."""

    def chunk(kind, content):
        length, check = len(content), zlib.crc32(kind + content)
        return struct.pack(">I", length) + kind + content + struct.pack(">I", check)

    width = len(rows[0]) * 8 // bits // {0: 1, 2: 3, 4: 2, 6: 4}[color_type]
    head = struct.pack(">IIBBBBB", width, len(rows), bits, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    transparent = chunk(b"tRNS", b"\0\7") if color_type == 0 else b""
    parts = chunk(b"IHDR", head), transparent, chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.parametrize(
    "bits, row, ids",
    [
        (1, b"\xa0", [1, 0, 1, 0, 0, 0, 0, 0]),
        (2, b"\x1b", [0, 1, 2, 3]),
        (4, b"\x7b\x0f", [7, 11, 0, 15]),
        (8, b"\x07\x21", [7, 33]),
        (16, b"\x00\x07\x65\x91", [7, 26001]),
    ],
)
def test_grey_maps_of_every_bit_depth_hold_their_own_values(bits, row, ids, tmp_path):
    read = read_map(a_png(tmp_path / "a.png", 0, bits, row))
    assert read.tolist() == [ids] and read.dtype == (torch.int32 if bits == 16 else torch.uint8)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_a_grey_map_may_have_more_channels(mode, tmp_path):
    ids = torch.tensor([[7, 23], [33, 0]], dtype=torch.uint8)
    grey = Image.fromarray(ids.numpy())
    grey.convert(mode).save(tmp_path / "a.png")
    assert torch.equal(read_map(tmp_path / "a.png"), ids)
    grey.convert(mode).save(tmp_path / "a.webp", lossless=True)
    assert torch.equal(read_map(tmp_path / "a.webp"), ids)
    if "A" in mode:
        picture = grey.convert(mode)
        picture.putpixel((0, 0), (*picture.getpixel((0, 0))[:-1], 254))
        picture.save(tmp_path / "a.png")
        with pytest.raises(ValueError, match=r"a\.png has transparent pixels.*alpha channel"):
            read_map(tmp_path / "a.png")


@pytest.mark.parametrize("color_type, channels", [(2, 3), (4, 2), (6, 4)])
def test_16_bits_in_several_channels_are_refused(color_type, channels, tmp_path):
    path = a_png(tmp_path / "a.png", color_type, 16, b"\0\7" * channels)
    with pytest.raises(ValueError, match=r"a\.png has several channels of 16 bits.*one channel"):
        read_map(path)


@pytest.mark.parametrize("grey", [70, 128])
def test_a_map_in_one_grey_class_is_in_colours(grey, tmp_path):
    Image.new("RGB", (4, 2), (grey,) * 3).save(tmp_path / "a.png")
    assert read_map(tmp_path / "a.png", colors=True).shape == (3, 2, 4)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "JPEG2000", "TIFF", "PPM", "GIF"])
def test_formats_that_change_ids_are_refused(kind, tmp_path):
    path = tmp_path / "a.png"  # whatever the ending says
    options = {"compression": "jpeg"} if kind == "TIFF" else {}
    Image.fromarray(noise(16, 16).numpy()).save(path, kind, **options)
    with pytest.raises(ValueError, match=rf"a\.png holds a {kind} picture, .* ids as PNG"):
        read_map(path)
    for name in ("a.tif", "a.bmp"):  # lossless ones hold them
        Image.fromarray(noise(16, 16).numpy()).save(tmp_path / name)
        assert torch.equal(read_map(tmp_path / name), noise(16, 16))


def test_a_colour_map_with_a_palette_is_no_map_of_indices(tmp_path):
    ids = torch.tensor([[7, 11, 23, 26]], dtype=torch.uint8)
    picture = Image.fromarray(label_ids_to_colors(ids).permute(1, 2, 0).numpy())
    picture.quantize(4).save(tmp_path / "editor.png")
    with pytest.raises(ValueError, match=r"editor\.png is a colour picture"):
        read_map(tmp_path / "editor.png")
    assert torch.equal(colors_to_label_ids(read_image(tmp_path / "editor.png")), ids)
    official = Image.fromarray(ids.numpy()).convert("P")
    official.putpalette(COLORS.flatten().tolist())  # indices and colours agree
    official.putdata(ids.flatten().tolist())
    official.save(tmp_path / "official.png")
    assert torch.equal(read_map(tmp_path / "official.png"), ids)


@pytest.mark.parametrize("read", [read_image, read_map, lambda path: read_photo(path, (32, 16))])
def test_files_that_are_no_pictures(read, tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(FileNotFoundError, match=r"a\.png is not there: check the path"):
        read(path)
    save_image(noise(33, 47), path)
    whole = path.read_bytes()
    for content, message in (
        (whole[: len(whole) // 2], "is cut short or damaged; download it again"),
        (whole[:20], "is cut short or damaged"),
        (whole.replace(b"IHDR", b"IHDX"), "is cut short or damaged"),
        (b"\xff\xd8\xff\xe0", "is cut short or damaged"),
        (b"", r"is empty \(0 bytes\); download it again"),
        (bytes(5000), "holds nothing but zeros; download it again"),
        (b"\n<!DOCTYPE html><html>log in<svg></html>", "is a web page, not a picture"),
        (b"<html>no picture</html>", "is a web page, not a picture; download it again"),
        ("kein Bild: ä\n".encode(), "is a text, not a picture; download it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer; run git lfs"),
        (b"<?xml version='1.0'?>\n<svg/>", "is an SVG drawing; export it"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC picture, whatever .*; export it"),
        (b"\0\0\0\x18ftypavif\0\0\0\0avif", "is an AVIF picture, whatever .*; export it"),
        (b"\xff\x0a\0\1\2", "is a JPEG XL picture, whatever its name says; export it"),
        (b"II*\0\x10\0\0\0CR\2", "is a TIFF or a camera's raw picture; export it"),
        (b"8BPS\0\1\0\0", "is a Photoshop file; export it"),
        (b"\1\2\3\4", "is of an unknown format; export it .*, or download it again"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"a\.png can't be read .*: it {message}") as raised:
            read(path)
        assert "BytesIO" not in str(raised.value)


@pytest.mark.parametrize(
    "mode, name, tolerance",
    [("RGB", "a.jpg", 8), ("L", "a.jpg", 8), ("RGBA", "a.png", 0), ("L", "a.png", 0)],
)
def test_large_photos_are_read_at_a_reduced_scale(mode, name, tolerance, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "FULL_PIXELS", 5000)
    monkeypatch.setattr(decoding, "REDUCED_PIXELS", 400)
    monkeypatch.setattr(decoding, "MOST_PIXELS", 9000)
    monkeypatch.setattr(decoding, "_STRIP", 16)
    path = tmp_path / name
    left_and_right = Image.new("RGB", (102, 71), (200, 30, 90))
    left_and_right.paste((10, 220, 40), (48, 0, 102, 71))
    left_and_right.convert(mode).save(path)
    expected = np.array(left_and_right.convert(mode).convert("RGB"))[:, [0, -1]]
    read = read_image(path)
    assert read.shape == (3, 9, 13)  # an eighth, rounded up
    difference = read[..., [0, -1]].int() - torch.from_numpy(expected[:9]).permute(2, 0, 1).int()
    assert difference.abs().max() <= tolerance


def test_photos_too_large_to_decode_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "FULL_PIXELS", 500)
    monkeypatch.setattr(decoding, "MOST_PIXELS", 800)
    picture = Image.new("RGB", (40, 24), (200, 30, 90))  # 960 pixels
    picture.save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").shape == (3, 12, 20)
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "b.jpg", progressive=True)
    picture.resize((25, 24)).save(tmp_path / "a.webp")
    for path in (tmp_path / "a.png", tmp_path / "b.jpg", tmp_path / "a.webp"):
        with pytest.raises(ValueError, match=rf"{path.name} has too many pixels: .*Make it"):
            read_image(path)


def test_what_pillow_itself_calls_a_bomb_is_read_or_refused(tmp_path, monkeypatch):
    height = 2100  # more rows than are converted at a time: versions of Pillow check those, too
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2500)
    for name in ("a.jpg", "a.png"):
        save_image(noise(3, height, 4), tmp_path / name)
        assert read_image(tmp_path / name).shape == (3, height, 4)
    Image.fromarray(noise(height, 4).numpy()).save(tmp_path / "a.bmp")
    with pytest.raises(ValueError, match=r"a\.bmp has too many pixels: .* at most 120 million"):
        read_image(tmp_path / "a.bmp")


# ------------------------------------------------------------------------------ saving fails


@pytest.mark.parametrize(
    "picture, name, message",
    [
        (torch.zeros(3, 4, 5), "a.png", "expected a uint8 tensor .* got torch.*pm1_to_u8"),
        (noise(4, 5, 3), "a.png", "expected a uint8 tensor"),
        (noise(1, 3, 4, 5), "a.png", "expected a uint8 tensor"),
        (noise(3, 4, 5), "a", "no picture format has that ending"),
        (noise(3, 4, 5), "a.png.part", "no picture format has that ending"),
        (noise(4, 5), "a.jpg", "a map of ids must end in .png"),
    ],
)
def test_what_is_not_saved(picture, name, message, tmp_path):
    with pytest.raises(ValueError, match=rf"{name}: {message}"):
        save_image(picture, tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_an_error_while_saving_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = save_image(noise(3, 4, 5), tmp_path / "a.png")
    before = path.read_bytes()

    def full_disk(self, target, *args, **settings):
        target.write_bytes(b"half a pic")
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_image(noise(3, 4, 5, seed=1), path)
    assert os.listdir(tmp_path) == ["a.png"] and path.read_bytes() == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
def test_saved_files_have_the_usual_rights(tmp_path):
    (tmp_path / "usual").write_bytes(b"")
    path = save_image(noise(3, 4, 5), tmp_path / "a.png")
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


# ------------------------------------------------------------------------------ resizing


def test_crop_keeps_the_middle():
    rows = torch.arange(360)[:, None].expand(360, 480)
    cropped = crop_to_aspect(rows, (256, 128))
    assert cropped.shape == (240, 480) and cropped[0, 0] == 60 and cropped[-1, 0] == 299
    columns = torch.arange(50).expand(3, 10, 50)
    cropped = crop_to_aspect(columns, (64, 64))
    assert cropped.shape == (3, 10, 10) and cropped[0, 0].tolist() == list(range(20, 30))
    assert crop_to_aspect(noise(3, 33, 47), (47, 33)).shape == (3, 33, 47)
    assert crop_to_aspect(noise(3, 1, 500), (32, 64)).shape == (3, 1, 1)


def test_resize_image():
    flat = torch.full((2, 3, 33, 47), 77, dtype=torch.uint8)
    resized = resize_image(flat, (20, 31))
    assert resized.shape == (2, 3, 31, 20) and resized.dtype == torch.uint8
    assert (resized == 77).all()
    # Antialiased: of stripes that cover a quarter, a quarter is left, wherever they lie.
    stripes = torch.tensor([255, 0, 0, 0], dtype=torch.uint8).repeat(16).expand(3, 64, 64)
    assert (resize_image(stripes, (16, 16))[:, 2:-2, 2:-2].int() - 64).abs().max() < 20


def test_resize_map_by_hand():
    ids = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=torch.uint8)
    assert resize_map(ids, (1, 1)).tolist() == [[5]]
    assert resize_map(ids, (6, 3))[0].tolist() == [1, 1, 2, 2, 3, 3]
    assert resize_map(ids[None], (2, 2)).tolist() == [[[1, 3], [7, 9]]]
    assert resize_map(ids, (3, 3)).dtype == torch.uint8


@pytest.mark.parametrize("source", [(7, 5), (480, 360), (33, 47), (256, 128), (2048, 1024)])
@pytest.mark.parametrize("size", [(7, 5), (256, 128), (33, 17), (13, 11), (101, 99), (1000, 333)])
def test_resize_map_picks_as_pillow_does(source, size):
    width, height = source
    ids = np.arange(width * height, dtype=np.int32).reshape(height, width)
    expected = np.asarray(Image.fromarray(ids).resize(size, Image.Resampling.NEAREST))
    assert np.array_equal(resize_map(torch.from_numpy(ids), size).numpy(), expected)


@pytest.mark.parametrize("size", [(8000, 200), (200, 8000), (1, 1)])
def test_photos_of_odd_sizes(size, tmp_path):
    Image.new("RGB", size, (90, 90, 90)).save(tmp_path / "odd.png")
    photo = read_photo(tmp_path / "odd.png", (64, 32))
    assert photo.shape == (3, 32, 64) and photo.unique().tolist() == [90]


def test_read_photo(tmp_path):
    image_u8 = torch.zeros(3, 100, 60, dtype=torch.uint8)
    image_u8[:, 34:65] = 200  # the middle, which a 2:1 size keeps
    save_image(image_u8, tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png", (33, 17))
    assert photo.shape == (3, 17, 33) and photo.dtype == torch.uint8
    assert (photo == 200).all()


# ------------------------------------------------------------------------------ in the background


def test_a_writer_writes_what_save_image_does(tmp_path):
    pictures = {f"{i:02d}.png": noise(3, 9, 11, seed=i) for i in range(20)}
    with ImageWriter(waiting=4) as writer:
        for name, image_u8 in pictures.items():
            again = image_u8.clone()
            writer.save(again, tmp_path / "new" / name)
            again.zero_()  # it was copied
        writer.save(smooth(8, 8), tmp_path / "new" / "a.jpg")
        writer.save(noise(4, 4), tmp_path / "new" / "map.png")
    for name, image_u8 in pictures.items():
        assert torch.equal(read_image(tmp_path / "new" / name), image_u8)
    assert torch.equal(read_map(tmp_path / "new" / "map.png"), noise(4, 4))
    assert len(os.listdir(tmp_path / "new")) == 22
    with ImageWriter() as writer, pytest.raises(ValueError, match="must end in .png"):
        writer.save(noise(4, 4), tmp_path / "a.jpg")  # refused at once


def test_a_writer_waits_when_its_queue_is_full(tmp_path, monkeypatch):
    gate, taken = threading.Event(), []
    monkeypatch.setattr(images, "save_image", lambda *_: gate.wait(60))

    def save_five(writer):
        for i in range(5):
            writer.save(noise(3, 2, 2), tmp_path / f"{i}.png")
            taken.append(i)

    with ImageWriter(waiting=3) as writer:
        thread = threading.Thread(target=save_five, args=(writer,))
        thread.start()
        thread.join(0.5)  # long enough for a fourth picture to be taken by mistake
        assert taken == [0, 1, 2] and thread.is_alive()
        gate.set()
        thread.join(60)
    assert len(taken) == 5


def test_a_writers_errors_name_the_picture_and_stop_no_other(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    wrong = tmp_path / "file" / "a.png"
    with pytest.raises(OSError, match=r"a\.png could not be saved \(.*\), 1 pictures in all"):
        with ImageWriter() as writer:
            writer.save(noise(3, 2, 2), wrong)
            writer.save(noise(3, 2, 2), tmp_path / "b.png")
    assert list(writer.errors) == [wrong] and isinstance(writer.errors[wrong], OSError)
    with pytest.raises(KeyError, match="mine"):  # the error of the with block is the one to see
        with ImageWriter() as writer:
            writer.save(noise(3, 2, 2), wrong)
            writer.save(noise(3, 2, 2), tmp_path / "c.png")
            raise KeyError("mine")
    assert sorted(os.listdir(tmp_path)) == ["b.png", "c.png", "file"]
