"""Reading, resizing and saving: nothing changes that should not, and nothing is half-written."""

import os
import struct
import threading
import time
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from utils import images
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


def noise(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


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


def test_every_value_survives_the_way_there_and_back():
    image_u8 = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, -1, -1)
    assert torch.equal(pm1_to_u8(u8_to_pm1(image_u8)), image_u8)
    assert torch.equal(pm1_to_u8(u8_to_pm1(image_u8).half()), image_u8)


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
    tensor = noise(*shape)
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


def test_a_view_is_saved_as_it_looks(tmp_path):
    image_u8 = noise(3, 9, 11)
    save_image(image_u8.flip(-1)[:, ::2], tmp_path / "a.png")
    assert torch.equal(read_image(tmp_path / "a.png"), image_u8.flip(-1)[:, ::2])


def test_exif_rotation(tmp_path):
    image_u8 = smooth(16, 32)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    picture = Image.fromarray(image_u8.permute(1, 2, 0).numpy())
    picture.save(tmp_path / "a.jpg", exif=exif, quality=100)
    read = read_image(tmp_path / "a.jpg")
    assert read.shape == (3, 32, 16)
    difference = read.int() - image_u8.rot90(-1, (1, 2)).int()
    assert difference.abs().max() < 12


@pytest.mark.parametrize(
    "error", [struct.error("required argument is not an integer"), KeyError(1)]
)
def test_whatever_error_damage_leads_to_the_file_is_named(error, tmp_path, monkeypatch):
    def stumble(picture):
        raise error

    save_image(noise(3, 9, 11), tmp_path / "a.jpg")
    monkeypatch.setattr(images.ImageOps, "exif_transpose", stumble)
    with pytest.raises(ValueError, match=r"a\.jpg can't be read as a picture"):
        read_image(tmp_path / "a.jpg")


def test_a_transparent_colour_becomes_white(tmp_path):
    picture = Image.new("RGB", (4, 2), (10, 20, 30))
    picture.putpixel((1, 0), (40, 50, 60))
    picture.save(tmp_path / "a.png", transparency=(10, 20, 30))
    white = torch.full((3, 2, 4), 255, dtype=torch.uint8)
    white[:, 0, 1] = torch.tensor([40, 50, 60])
    assert torch.equal(read_image(tmp_path / "a.png"), white)


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


def test_what_is_transparent_becomes_white(tmp_path):
    rgba = noise(5, 7, 4)
    rgba[..., 3] = torch.tensor([0, 0, 0, 255, 255, 255, 255])
    Image.fromarray(rgba.numpy()).save(tmp_path / "rgba.png")
    read = read_image(tmp_path / "rgba.png")
    assert (read[..., :3] == 255).all()
    assert torch.equal(read[..., 3:], rgba[:, 3:, :3].permute(2, 0, 1))
    Image.fromarray(noise(5, 7, 2).numpy(), "LA").save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png").shape == (3, 5, 7)


def test_a_png_with_a_rotation_and_an_interlaced_one(tmp_path):
    """Two that the fast decoder must leave to Pillow."""
    picture = Image.fromarray(noise(4, 6, 3).numpy())
    exif = Image.Exif()
    exif[0x0112] = 3
    picture.save(tmp_path / "turned.png", exif=exif)
    turned = torch.from_numpy(np.array(picture)).permute(2, 0, 1).rot90(2, (1, 2))
    assert torch.equal(read_image(tmp_path / "turned.png"), turned)
    # Adam7 of a picture of one pixel: Pillow reads such files, but writes none.
    one = (tmp_path / "one.png", Image.new("RGB", (1, 1), (9, 8, 7)))
    one[1].save(one[0])
    data = bytearray(one[0].read_bytes())
    data[28] = 1  # the interlace method
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    one[0].write_bytes(data)
    assert read_image(one[0]).flatten().tolist() == [9, 8, 7]


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


def test_maps_in_16_bits_and_with_a_palette(tmp_path):
    instance_ids = torch.tensor([[26001, 7, 33999], [0, 65535, 24000]], dtype=torch.int32)
    picture = Image.fromarray(instance_ids.numpy().astype(np.uint16))
    picture.save(tmp_path / "instances.png")
    read = read_map(tmp_path / "instances.png")
    assert torch.equal(read, instance_ids) and read.dtype == torch.int32
    indices = torch.tensor([[0, 5, 11]], dtype=torch.uint8)
    picture = Image.fromarray(indices.numpy()).convert("P")
    picture.putpalette([9, 8, 7] * 256)
    picture.putdata(indices.flatten().tolist())
    picture.save(tmp_path / "palette.png")
    assert torch.equal(read_map(tmp_path / "palette.png"), indices)


def test_a_map_in_colours(tmp_path):
    path = save_image(noise(3, 5, 7), tmp_path / "color.png")
    with pytest.raises(ValueError, match=r"color\.png is a colour picture \(mode RGB\).*labelIds"):
        read_map(path)


@pytest.mark.parametrize("read", [read_image, read_map, lambda path: read_photo(path, (32, 16))])
def test_files_that_are_no_pictures(read, tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(FileNotFoundError, match=r"a\.png is not there: check the path"):
        read(path)
    save_image(noise(33, 47), path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:20], b"", b"<html>no picture</html>"):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"a\.png can't be read as a picture .*download it again"
        ):
            read(path)


# ------------------------------------------------------------------------------ saving fails


@pytest.mark.parametrize(
    "wrong", [torch.zeros(3, 4, 5), torch.zeros(4, 5, 3, dtype=torch.uint8), noise(1, 3, 4, 5)]
)
def test_what_is_no_picture_is_not_saved(wrong, tmp_path):
    with pytest.raises(
        ValueError, match=r"a\.png: expected a uint8 tensor .* got torch.*pm1_to_u8"
    ):
        save_image(wrong, tmp_path / "a.png")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a", "a.txt", "a.png.part"])
def test_unknown_endings(name, tmp_path):
    with pytest.raises(ValueError, match=rf"{name}: no picture format has that ending"):
        save_image(noise(3, 4, 5), tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_a_map_is_not_saved_as_jpeg(tmp_path):
    with pytest.raises(ValueError, match=r"a\.jpg: a map of ids must end in \.png"):
        save_image(torch.zeros(4, 5, dtype=torch.uint8), tmp_path / "a.jpg")
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


def test_read_photo(tmp_path):
    image_u8 = torch.zeros(3, 100, 60, dtype=torch.uint8)
    image_u8[:, 34:65] = 200  # the middle, which a 2:1 size keeps
    save_image(image_u8, tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png", (33, 17))
    assert photo.shape == (3, 17, 33) and photo.dtype == torch.uint8
    assert (photo == 200).all()


def test_imagenet_figures_are_torchvisions():
    from torchvision.models import ResNet34_Weights

    preset = ResNet34_Weights.IMAGENET1K_V1.transforms()
    assert images.IMAGENET_MEAN == tuple(preset.mean)
    assert images.IMAGENET_STD == tuple(preset.std)


# ------------------------------------------------------------------------------ in the background


def test_a_writer_writes_what_save_image_does(tmp_path):
    pictures = {f"{i:02d}.png": noise(3, 9, 11, seed=i) for i in range(20)}
    with ImageWriter(threads=3, waiting=4) as writer:
        for name, image_u8 in pictures.items():
            again = image_u8.clone()
            writer.save(again, tmp_path / "new" / name)
            again.zero_()  # handed in is handed in
        writer.save(smooth(8, 8), tmp_path / "new" / "a.jpg")
        writer.save(noise(4, 4), tmp_path / "new" / "map.png")
    for name, image_u8 in pictures.items():
        assert torch.equal(read_image(tmp_path / "new" / name), image_u8)
    assert torch.equal(read_map(tmp_path / "new" / "map.png"), noise(4, 4))
    assert len(os.listdir(tmp_path / "new")) == 22


def test_a_writer_waits_when_its_queue_is_full(tmp_path, monkeypatch):
    gate, begun, third, running = threading.Event(), threading.Event(), threading.Event(), []

    def slow(image_u8, path):
        running.append(path)
        begun.set()
        assert gate.wait(60)

    monkeypatch.setattr(images, "save_image", slow)
    writer, taken = ImageWriter(threads=1, waiting=3), []

    def hand_in():
        for i in range(5):
            writer.save(noise(3, 2, 2), tmp_path / f"{i}.png")
            taken.append(i)
            if i == 2:
                third.set()

    thread = threading.Thread(target=hand_in)
    thread.start()
    assert begun.wait(60) and third.wait(60)
    time.sleep(0.2)  # for a fourth picture to be taken or begun by mistake
    assert len(taken) == 3 and len(running) == 1
    gate.set()
    thread.join(60)
    writer.close()
    assert len(taken) == len(running) == 5


def test_a_writers_error_surfaces_and_loses_nothing(tmp_path, monkeypatch):
    save, broken = images.save_image, [True]

    def save_or_not(image_u8, path):
        if broken[0] and path.stem == "1":
            raise OSError("No space left on device")
        return save(image_u8, path)

    monkeypatch.setattr(images, "save_image", save_or_not)
    pictures = [noise(3, 2, 2, seed=i) for i in range(4)]
    writer = ImageWriter(threads=1)
    writer.save(pictures[0], tmp_path / "0.png")
    writer.save(pictures[1], tmp_path / "1.png")
    deadline = time.monotonic() + 60
    while not writer.failed and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(OSError, match=r"No space left on device.*1 so far.*retry"):
        writer.save(pictures[2], tmp_path / "2.png")
    writer.save(pictures[3], tmp_path / "3.png")  # it was told once
    writer.close()
    assert sorted(os.listdir(tmp_path)) == ["0.png", "2.png", "3.png"]
    broken[0] = False
    writer.retry()
    writer.close()
    for i, image_u8 in enumerate(pictures):
        assert torch.equal(read_image(tmp_path / f"{i}.png"), image_u8)
    assert writer.failed == []


def test_the_last_pictures_error_surfaces_at_the_end(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="could not be saved"):
        with ImageWriter() as writer:
            writer.save(noise(3, 2, 2), tmp_path / "file" / "a.png")


def test_an_error_of_the_readers_own_stays_the_one_to_see(tmp_path):
    with pytest.raises(KeyError, match="mine"):
        with ImageWriter() as writer:
            writer.save(noise(3, 2, 2), tmp_path / "a.png")
            raise KeyError("mine")
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_writer_refuses_at_once_what_is_no_picture(tmp_path):
    with ImageWriter() as writer:
        with pytest.raises(ValueError, match=r"a\.png: expected a uint8 tensor"):
            writer.save(torch.rand(3, 4, 4), tmp_path / "a.png")
        with pytest.raises(ValueError, match="must end in .png"):
            writer.save(noise(4, 4), tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="waiting is 0"):
        ImageWriter(waiting=0)
    assert os.listdir(tmp_path) == []
