"""All data sets behind one interface; what is wrong with a file is said in one sentence."""

import os
import pickle
import re
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from examples import equal, noise
from PIL import Image

from utils import scenes as scenes_module
from utils.cache import cached
from utils.files import PROJECT
from utils.images import read_image, read_map, read_photo, save_image
from utils.labels import LABEL_OF_CAMVID_ID, label_ids_to_colors, label_ids_to_train_ids
from utils.scenes import open_photos, open_scenes
from utils.toy.streets import draw_street

SIZE = (64, 32)
CITIES = {"aachen": 2, "bochum": 1}  # how many photos each folder holds


def coarse_ids(height, width, highest, seed=0):
    cells = noise(height // 4 + 1, width // 4 + 1, seed=seed, high=highest + 1)
    cells = cells.repeat_interleave(4, 0).repeat_interleave(4, 1)
    return cells[:height, :width].contiguous()


def make_camvid(folder, ending=".png", size=(60, 45), split="train"):
    """Three photos and maps in the SegNet tutorial's layout, the names in no order."""
    width, height = size
    for i, name in enumerate(("0016E5_2", "0001TP_1", "0016E5_1")):
        save_image(noise(3, height, width, seed=i), folder / split / f"{name}{ending}")
        save_image(coarse_ids(height, width, 11, i), folder / f"{split}annot" / f"{name}.png")
    (folder / split / "Thumbs.db").write_bytes(b"no photo")
    return folder


def make_cityscapes(folder, size=(64, 32), split="val"):
    width, height = size
    for city, count in CITIES.items():
        for i in range(count):
            name = f"{city}_{i:06d}_000019"
            street = draw_street(5, i, size=size)
            maps = folder / "gtFine" / split / city
            photo = folder / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
            save_image(street.image_u8, photo)
            save_image(street.label_ids, maps / f"{name}_gtFine_labelIds.png")
            instances = Image.fromarray(street.instance_ids.numpy().astype(np.uint16))
            instances.save(maps / f"{name}_gtFine_instanceIds.png")
    return folder


@pytest.fixture
def camvid(tmp_path):
    return make_camvid(tmp_path / "camvid")


@pytest.fixture
def cityscapes(tmp_path):
    return make_cityscapes(tmp_path / "cityscapes")


def check_scene(scene, size):
    width, height = size
    for tensor, shape, dtype in (
        (scene.image_u8, (3, height, width), torch.uint8),
        (scene.label_ids, (height, width), torch.uint8),
        (scene.instance_ids, (height, width), torch.int32),
    ):
        assert tensor.shape == shape and tensor.dtype == dtype
    assert scene.label_ids.max() < 34
    # An instance id says its class.
    ids = scene.instance_ids
    assert torch.equal(torch.where(ids >= 1000, ids // 1000, ids), scene.label_ids.int())
    assert all(isinstance(x, str) and x for x in (scene.name, scene.city, scene.time_of_day))


# ------------------------------------------------------------------------------ toy streets


@pytest.mark.parametrize("size", [(256, 128), (65, 33), (32, 16)])
def test_toy_scenes(size):
    scenes = open_scenes("toy", "val", size=size)
    assert len(scenes) == 500 and scenes.size == size
    check_scene(scenes[7], size)
    width, height = size
    assert repr(scenes) == f"Scenes(toy val: 500 scenes of {width}x{height})"


def test_toy_scenes_are_drawn_from_the_splits_own_seed():
    street = draw_street(2, 7, (64, 32))
    scene = open_scenes("toy", "val", size=(64, 32))[7]
    assert torch.equal(scene.image_u8, street.image_u8) and scene.name == "toy_val_00007"
    assert (scene.city, scene.time_of_day) == (street.city, street.time_of_day)
    assert open_scenes("toy", "train").size == (256, 128)
    lengths = {split: len(open_scenes("toy", split)) for split in scenes_module.SPLITS}
    assert lengths == {"train": 2975, "val": 500, "test": 1525}
    others = [open_scenes("toy", split, size=(64, 32))[7] for split in ("train", "test")]
    assert not any(torch.equal(scene.image_u8, other.image_u8) for other in others)


# ------------------------------------------------------------------------------ a sequence


def test_slices_subsets_and_batches():
    scenes = open_scenes("toy", "train", size=(33, 17))
    few = scenes[10:16:2]
    assert few.names == ["toy_train_00010", "toy_train_00012", "toy_train_00014"]
    assert few[1:][0].name == few[-2].name == "toy_train_00012"
    chosen = few.subset(iter([2, 0]))
    assert chosen.names == [few.names[2], few.names[0]] and len(few) == 3
    assert [scene.name for scene in chosen] == chosen.names  # iteration ends
    image_u8, label_ids = scenes.batch(torch.tensor([12, 10, 12]))
    assert image_u8.shape == (3, 3, 17, 33) and label_ids.shape == (3, 17, 33)
    assert torch.equal(image_u8[0], few[1].image_u8) and torch.equal(label_ids[1], few[0].label_ids)
    assert len(scenes[:0]) == 0
    with pytest.raises(IndexError):
        few[3]


def test_the_fingerprint_of_toy_streets(monkeypatch):
    scenes = open_scenes("toy", "train", size=(33, 17))
    fingerprint = scenes[:3].fingerprint()
    assert fingerprint == open_scenes("toy", "train", size=(33, 17))[:3].fingerprint()
    others = [
        scenes[:4],
        scenes[1:4],
        scenes.subset([0, 2, 1]),
        open_scenes("toy", "val", size=(33, 17))[:3],
        open_scenes("toy", "train", size=(34, 17))[:3],
    ]
    prints = {other.fingerprint() for other in others}
    monkeypatch.setattr(scenes_module.toy_streets, "RENDERER_HASH", "another version")
    prints.add(scenes[:3].fingerprint())
    assert len(prints) == 6 and fingerprint not in prints


# ------------------------------------------------------------------------------ CamVid


@pytest.mark.parametrize("below", ["", "CamVid"])
@pytest.mark.parametrize("ending", [".png", ".jpg", ".PNG", ".JPG", ".jpeg", ".jfif"])
def test_camvid_layouts(below, ending, tmp_path, no_warnings):
    make_camvid(tmp_path / below, ending)
    label_map = tmp_path / below / "trainannot" / "0016E5_1.png"
    label_map.rename(label_map.with_suffix(".Png"))
    scenes = open_scenes("camvid", "train", tmp_path, size=(65, 33))
    assert scenes.names == ["0001TP_1", "0016E5_1", "0016E5_2"]
    assert [scene.time_of_day for scene in scenes] == ["dusk", "day", "day"]
    for scene in scenes:
        check_scene(scene, (65, 33))
        assert scene.city == "Cambridge"


def test_camvid_pixels(camvid):
    (camvid / "CamVid" / "train").mkdir(parents=True)  # an empty folder hides nothing
    # 60x45 at the aspect 2:1 keeps the 30 rows in the middle, here without resizing.
    scene = open_scenes("camvid", "train", str(camvid), size=(60, 30))[2]
    assert scene.name == "0016E5_2"  # the first that was made
    assert torch.equal(scene.image_u8, noise(3, 45, 60)[:, 7:37])
    camvid_ids = coarse_ids(45, 60, 11)[7:37]
    assert torch.equal(scene.label_ids, LABEL_OF_CAMVID_ID[camvid_ids.long()])
    assert torch.equal(scene.instance_ids, scene.label_ids.int())


def hide_some(folder):
    """What Macs leave beside files on other disks, and in archives."""
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
        path.with_name(".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        for place in (".Trashes", "__MACOSX"):
            (path.parent / place).mkdir(exist_ok=True)
            (path.parent / place / path.name).write_bytes(b"hidden")


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # about files of other tests
        yield


def test_hidden_files_are_no_scenes(camvid, cityscapes, tmp_path, no_warnings):
    hide_some(tmp_path)
    assert len(open_scenes("camvid", "train", camvid)) == 3
    assert len(open_scenes("cityscapes", "val", cityscapes)) == 3
    for kind in ("gtFine", "leftImg8bit"):
        zip_up(cityscapes, kind, cityscapes)
    assert len(open_scenes("cityscapes", "val", cityscapes)) == 3
    assert len(open_photos(camvid / "train")) == 3


def test_camvid_says_what_it_leaves_out(camvid):
    (camvid / "train" / "0016E5_9.tif").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"3 photos are used, 1 pictures .*0016E5_9\.tif"):
        open_scenes("camvid", "train", camvid)
    (camvid / "train" / "0016E5_9.tif").unlink()
    (camvid / "train" / "0016E5_1.png").unlink()
    with pytest.warns(UserWarning, match=r"2 photos, but there are 3 label maps: .*0016E5_1\.png"):
        open_scenes("camvid", "train", camvid)


def test_camvid_maps_in_colours(camvid):
    image_u8 = torch.zeros(3, 45, 60, dtype=torch.uint8)
    image_u8[0, :20], image_u8[:2, 20:] = 128, 128  # buildings above trees
    save_image(image_u8, camvid / "trainannot" / "0001TP_1.png")
    label_ids = open_scenes("camvid", "train", camvid, size=(60, 30))[0].label_ids
    assert label_ids[:13].unique().tolist() == [11] and label_ids[13:].unique().tolist() == [21]


# ------------------------------------------------------------------------------ Cityscapes


def test_cityscapes(cityscapes):
    scenes = open_scenes("cityscapes", "val", cityscapes, size=(64, 32))
    names = ["aachen_000000_000019", "aachen_000001_000019", "bochum_000000_000019"]
    assert scenes.names == names and [scene.city for scene in scenes] == [x[:6] for x in names]
    street = draw_street(5, 1, size=(64, 32))
    for field in ("image_u8", "label_ids", "instance_ids"):
        assert torch.equal(getattr(scenes[1], field), getattr(street, field))
    assert street.instance_ids.max() > 24000  # there is something that 8 bits would lose
    for scene in open_scenes("cityscapes", "val", cityscapes, size=(47, 33)):
        check_scene(scene, (47, 33))


# ------------------------------------------------------------------------------ fingerprints


def test_the_test_split_of_cityscapes_holds_nothing_but_void(tmp_path):
    make_cityscapes(tmp_path, split="test")
    label_ids = torch.ones(32, 64, dtype=torch.uint8)  # ego vehicle
    label_ids[:4], label_ids[:, :4], label_ids[8:20, 8:50] = 2, 3, 0
    for path in tmp_path.rglob("*_labelIds.png"):
        save_image(label_ids, path)
    scenes = open_scenes("cityscapes", "test", tmp_path, size=(64, 32))
    assert torch.equal(scenes[0].label_ids, label_ids)


def test_a_changed_file_changes_the_fingerprint(cityscapes):
    def fingerprint():
        return open_scenes("cityscapes", "val", cityscapes, size=(64, 32)).fingerprint()

    prints = [fingerprint()]
    assert fingerprint() == prints[0]
    for pattern in ("**/*labelIds.png", "**/*instanceIds.png", "**/*leftImg8bit.png"):
        path = sorted(cityscapes.glob(pattern))[-1]
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
        prints.append(fingerprint())
    path.write_bytes(path.read_bytes() + b" ")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
    prints.append(fingerprint())
    assert len(set(prints)) == 5


# ------------------------------------------------------------------------------ zip archives


def zip_up(folder, kind, target):
    """Pack a folder into one of the two official archives, and remove it."""
    with zipfile.ZipFile(target / f"{kind}_trainvaltest.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("README", "as in the official ones")
        for path in sorted((folder / kind).rglob("*")):
            file.write(path, path.relative_to(folder))
    shutil.rmtree(folder / kind)


def test_cityscapes_straight_from_the_zip_files(cityscapes, tmp_path):
    scenes = open_scenes("cityscapes", "val", cityscapes, SIZE)
    expected, names = [scenes[i] for i in range(len(scenes))], scenes.names
    for kind in ("gtFine", "leftImg8bit"):  # one folder and one archive is fine, too
        zip_up(cityscapes, kind, cityscapes)
        zipped = open_scenes("cityscapes", "val", cityscapes, SIZE)
        assert zipped.names == names
        assert all(map(equal, zipped, expected))
    assert not [path for path in cityscapes.iterdir() if path.is_dir()]
    built = cached(zipped, tmp_path / "cache", workers=2)
    assert torch.equal(built[2].image_u8, expected[2].image_u8)


def test_a_whole_archive_is_read_instead_of_a_part_of_a_folder(cityscapes, tmp_path):
    whole = shutil.copytree(cityscapes, tmp_path / "whole")
    expected = open_scenes("cityscapes", "val", whole, SIZE)
    for kind in ("gtFine", "leftImg8bit"):
        zip_up(whole, kind, whole)
    for kind, counts in (("leftImg8bit", "2 files, and .* 3"), ("gtFine", "5 files, and .* 6")):
        shutil.copytree(cityscapes / kind, whole / kind)
        first_of(whole, f"{kind}/val/*/*.png").unlink()
        with pytest.warns(UserWarning, match=rf"{kind}.val holds {counts}: the archive is read"):
            scenes = open_scenes("cityscapes", "val", whole, SIZE)
        assert scenes.names == expected.names
        shutil.rmtree(whole / kind)
    (whole / "leftImg8bit/val").mkdir(parents=True)  # nothing in it
    assert open_scenes("cityscapes", "val", whole, SIZE).names == expected.names


def test_a_whole_folder_is_read_beside_a_damaged_archive(cityscapes, no_warnings):
    archive = cityscapes / "leftImg8bit_trainvaltest.zip"
    archive.write_bytes(b"PK\3\4 the download was interrupted")
    assert len(open_scenes("cityscapes", "val", cityscapes, SIZE)) == 3
    shutil.rmtree(cityscapes / "leftImg8bit/val/aachen")
    shutil.rmtree(cityscapes / "leftImg8bit/val/bochum")
    with pytest.raises(ValueError, match="is not a whole zip file"):
        open_scenes("cityscapes", "val", cityscapes, SIZE)


def test_a_part_of_the_photos_is_named(cityscapes):
    first_of(cityscapes, "leftImg8bit/val/*/*.png").unlink()
    message = r"val holds 2 photos, but there are 3 label maps: .*aachen_000000_000019_gtFine_label"
    with pytest.warns(UserWarning, match=message):
        assert len(open_scenes("cityscapes", "val", cityscapes)) == 2


@pytest.mark.parametrize("zipped", [False, True])
def test_unusual_names_in_the_official_layout(zipped, cityscapes, no_warnings):
    for kind in ("leftImg8bit", "gtFine"):
        folder = cityscapes / kind / "val"
        (folder / "aachen").rename(folder / "St. Aachen (west) [2]")
        for path in [*folder.glob("bochum/*")]:
            name = path.name.replace("_000019", " (1).[x] é").replace("png", "PNG")
            path.rename(path.with_name(name))
        if zipped:
            zip_up(cityscapes, kind, cityscapes)
    scenes = open_scenes("cityscapes", "val", cityscapes, SIZE)
    assert [scene.city for scene in scenes] == ["St. Aachen (west) [2]"] * 2 + ["bochum"]
    assert scenes.names[-1] == "bochum_000000 (1).[x] é"


@pytest.mark.parametrize(
    "name",
    ["aachen/aachen_7_leftImg8bit (1).png", "a_leftImg8bit.png", "aachen/x/a_leftImg8bit.png"],
)
def test_photos_at_other_places_of_the_layout_are_named(name, cityscapes):
    save_image(noise(3, 32, 64), cityscapes / "leftImg8bit/val" / name)
    with pytest.warns(UserWarning, match=r"3 photos are used, 1 pictures .*leftImg8bit.*\.png"):
        open_scenes("cityscapes", "val", cityscapes)


def test_a_changed_archive_is_noticed(cityscapes):
    zip_up(cityscapes, "gtFine", cityscapes)
    before = open_scenes("cityscapes", "val", cityscapes).fingerprint()
    archive = cityscapes / "gtFine_trainvaltest.zip"
    os.utime(archive)
    assert open_scenes("cityscapes", "val", cityscapes).fingerprint() == before
    with zipfile.ZipFile(archive) as file:
        content = {name: file.read(name) for name in file.namelist()}
    name = next(name for name in content if name.endswith("labelIds.png"))
    content[name] = content[name][:-1] + b"!"
    with zipfile.ZipFile(archive, "w") as file:
        for key, value in content.items():
            file.writestr(key, value)
    assert open_scenes("cityscapes", "val", cityscapes).fingerprint() != before


def test_archives_that_lack_something(cityscapes, tmp_path):
    zip_up(cityscapes, "leftImg8bit", cityscapes)
    (cityscapes / "gtFine" / "train").mkdir()
    with pytest.raises(ValueError, match=r"leftImg8bit_trainvaltest\.zip.* holds no photo"):
        open_scenes("cityscapes", "train", cityscapes)
    first_of(cityscapes, "gtFine/val/*/*labelIds.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"member leftImg8bit/val.* has no label map: "):
        open_scenes("cityscapes", "val", cityscapes)


# ------------------------------------------------------------------------------ own photos


def test_a_folder_of_photos(tmp_path):
    for i, name in enumerate(("b.JPG", "a.png", "c.jpeg")):
        save_image(noise(3, 40 + i, 60, seed=i), tmp_path / name)
    Image.fromarray(noise(3, 30, 50).permute(1, 2, 0).numpy()).save(tmp_path / "d.webp")
    (tmp_path / "notes.txt").write_text("no photo")
    (tmp_path / "._a.png").write_bytes(b"what a Mac knows about a.png")
    (tmp_path / "folder.jpg").mkdir()
    photos = open_photos(tmp_path, (64, 32))
    assert [path.name for path in photos.paths] == ["a.png", "b.JPG", "c.jpeg", "d.webp"]
    assert len(photos) == 4 and len(photos[1:3]) == 2
    for image_u8 in photos:
        assert image_u8.shape == (3, 32, 64) and image_u8.dtype == torch.uint8
    assert torch.equal(photos[0], read_photo(tmp_path / "a.png", (64, 32)))
    batch = photos[1:].batch([2, 0])
    assert torch.equal(batch, torch.stack([photos[3], photos[1]]))
    assert len(open_photos(tmp_path / "a.png")) == 1


def test_pictures_of_other_kinds_are_left_out_by_name(tmp_path):
    for name in ("a.jfif", "b.JPE", "c.mpo", "d.jxl", "e.CR2", "f.heic", "g.nef", "h.avif"):
        Image.new("RGB", (64, 32)).save(tmp_path / name, "JPEG")
    for name in ("Thumbs.db", "notes.txt", "a.json", ".hidden.jpg"):
        (tmp_path / name).write_bytes(b"")
    photos = open_photos(tmp_path, (64, 32))
    assert [path.name for path in photos.paths] == ["a.jfif", "b.JPE", "c.mpo"]
    left_out = [path.name for path in photos.left_out]
    assert left_out == ["d.jxl", "e.CR2", "f.heic", "g.nef", "h.avif"]
    assert photos.batch([0, 1, 2]).shape == (3, 3, 32, 64)


def test_folders_without_photos(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is not there: check the path"):
        open_photos(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no photo: expected .jpg.*found no file"):
        open_photos(tmp_path)
    (tmp_path / "a.heic").write_bytes(b"")
    with pytest.raises(ValueError, match=r"found \.heic; save other kinds \(HEIC, say\) as JPEG"):
        open_photos(tmp_path)


# ------------------------------------------------------------------------------ real streets


def test_streets_are_cut_out_of_wide_photos():
    """Two scenes of a photo of 1060x320: its left 640 columns and its right 640."""
    scenes = open_scenes("streets", "val", size=(640, 320))
    assert scenes.names[:2] == ["karlsruhe_001_left", "karlsruhe_001_right"] and len(scenes) == 24
    folder = PROJECT / "data" / "streets" / "karlsruhe"
    image_u8 = read_image(folder / "photos" / "karlsruhe_001.jpg")
    label_ids = read_map(folder / "maps" / "karlsruhe_001.png")
    for scene, columns in ((scenes[0], slice(640)), (scenes[1], slice(-640, None))):
        assert torch.equal(scene.image_u8, image_u8[..., columns])
        assert torch.equal(scene.label_ids, label_ids[..., columns])
        assert (scene.city, scene.time_of_day) == ("Karlsruhe", "day")
    assert len(set(scenes.names)) == len(scenes)
    assert len(open_scenes("streets", "val", size=(128, 32))) == 12, "as wide as the photos"


def test_streets_keep_validation_apart_from_training():
    train, val = (open_scenes("streets", split) for split in ("train", "val"))
    stems = [{re.sub("_(left|right)$", "", name) for name in x.names} for x in (train, val)]
    assert not stems[0] & stems[1] and len(stems[1]) == 12
    assert set(val.map_kinds(range(len(val)))) == {"exact"}, "maps drawn by hand only"
    assert {"exact", "network"} == set(train.map_kinds(range(len(train))))
    assert {train[i].city for i in range(0, len(train), 5)} == {"Karlsruhe", "California"}


def test_scenes_csv_is_checked(tmp_path):
    header = "photo,width,height,split,city,time_of_day,labels\n"
    for text in (
        header + "a.jpg,2,1,val,A,day,guessed\n",
        "photo,split\na.jpg,val\n",
        header + "a.jpg\n",
    ):
        (tmp_path / "scenes.csv").write_text(text)
        with pytest.raises(ValueError, match=r"scenes\.csv has the line .*: expected the columns"):
            open_scenes("streets", "val", tmp_path)
    (tmp_path / "scenes.csv").write_text(header + "a/photos/a.jpg,2,1,val,A,day,network\n")
    with pytest.raises(FileNotFoundError, match=r"a\.jpg is not there, though scenes\.csv"):
        open_scenes("streets", "val", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"scenes\.csv is not there: pass the project's"):
        open_scenes("streets", "val", tmp_path.parent)


def test_another_city_is_another_cache(tmp_path):
    """City and time of day lie in the cache, too."""
    folder = shutil.copytree(PROJECT / "data" / "streets", tmp_path / "streets")
    before = open_scenes("streets", "val", folder).fingerprint()
    table = (folder / "scenes.csv").read_text()
    (folder / "scenes.csv").write_text(table.replace("Karlsruhe,day", "Durlach,day"))
    assert open_scenes("streets", "val", folder).fingerprint() != before


def test_joined_data_sets(camvid):
    """One after another, each with its own kind of map, and nothing of it lost in the cache."""
    joined = open_scenes("camvid+streets", "train", camvid, size=(64, 32))
    parts = [
        open_scenes("camvid", "train", camvid, (64, 32)),
        open_scenes("streets", "train", size=(64, 32)),
    ]
    assert len(joined) == sum(map(len, parts)) and joined.dataset == "camvid+streets"
    few = joined.subset([0, len(parts[0]), len(joined) - 1])
    assert few.map_kinds(range(3)) == ["camvid", *parts[1].map_kinds([0, len(parts[1]) - 1])]
    for scene, expected in zip(few, (parts[0][0], parts[1][0], parts[1][-1])):
        assert scene.name == expected.name and torch.equal(scene.image_u8, expected.image_u8)
        assert torch.equal(scene.label_ids, expected.label_ids)
    kept = cached(few, camvid / "cache")
    assert kept.map_kinds([2, 0]) == few.map_kinds([2, 0])
    assert kept.subset([0]).map_kinds([0]) == ["camvid"]
    assert torch.equal(kept.batch([1])[0][0], few[1].image_u8)
    sent = pickle.loads(pickle.dumps(few))  # as the cache's worker processes get it
    assert sent.map_kinds(range(3)) == few.map_kinds(range(3)) and sent[2].name == few[2].name
    assert few.fingerprint() != joined.subset([0, 1, 2]).fingerprint()


# ------------------------------------------------------------------------------ bad input


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(ValueError, match=r"no data set 'kitti': expected one of toy, streets, "):
        open_scenes("kitti", "train")
    with pytest.raises(ValueError, match=r"no data set 'kitti'"):
        open_scenes("toy+kitti", "train")
    with pytest.raises(ValueError, match=r"no test photos: take .val."):
        open_scenes("streets", "test")
    with pytest.raises(ValueError, match=r"no split 'training': expected one of train, val, test"):
        open_scenes("toy", "training")
    for size in ((31, 16), (32, 15), (0, 0)):
        with pytest.raises(ValueError, match=rf"size {size[0]}x{size[1]} is too small: .*32x16"):
            open_scenes("toy", "train", size=size)
    with pytest.raises(FileNotFoundError, match=r"camvid folder .*nowhere is not there: "):
        open_scenes("camvid", "train", tmp_path / "nowhere")


@pytest.mark.parametrize("dataset", ["camvid", "cityscapes"])
def test_the_default_root_is_in_the_project(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(scenes_module, "PROJECT", tmp_path)
    message = rf"{dataset} folder .*{dataset} is not there: .*pass its folder as root"
    with pytest.raises(FileNotFoundError, match=message):
        open_scenes(dataset, "train")
    if dataset == "camvid":
        make_camvid(tmp_path / "data" / "camvid")
        assert len(open_scenes("camvid", "train")) == 3


def first_of(folder, pattern):
    return sorted(Path(folder).glob(pattern))[0]


def test_folders_that_are_missing(camvid, cityscapes):
    with pytest.raises(FileNotFoundError, match=r"val is not there: data/README\.md shows"):
        open_scenes("camvid", "val", camvid)
    (camvid / "trainannot").rename(camvid / "annotations")
    with pytest.raises(FileNotFoundError, match=r"trainannot is not there: data/README\.md shows"):
        open_scenes("camvid", "train", camvid)
    (cityscapes / "gtFine").rename(cityscapes / "gtCoarse")
    with pytest.raises(FileNotFoundError, match=r"Neither .*gtFine.val nor .*_trainvaltest\.zip"):
        open_scenes("cityscapes", "val", cityscapes)


def test_splits_without_photos(tmp_path):
    for folder in ("train", "trainannot", "leftImg8bit/val", "gtFine/val"):
        (tmp_path / folder).mkdir(parents=True)
    for dataset, split in (("camvid", "train"), ("cityscapes", "val")):
        with pytest.raises(ValueError, match=rf"{split} holds no photo \(\*.*README\.md shows"):
            open_scenes(dataset, split, tmp_path)


def test_photos_without_a_map(camvid, cityscapes):
    first_of(camvid, "trainannot/*").unlink()
    message = r"0001TP_1\.png has no label map: .*trainannot.0001TP_1\.png is not there; get it"
    with pytest.raises(FileNotFoundError, match=message):
        open_scenes("camvid", "train", camvid)
    for kind in ("instanceIds", "labelIds"):
        first_of(cityscapes, f"**/*{kind}.png").unlink()
        message = rf"leftImg8bit\.png has no label map: .*_gtFine_{kind}\.png is not there"
        with pytest.raises(FileNotFoundError, match=message):
            open_scenes("cityscapes", "val", cityscapes)


@pytest.mark.parametrize(
    "kind, made, message",
    [  # of the scene's own street; None: cut short
        ("leftImg8bit", None, "can't be read as a picture: .*download it"),
        ("labelIds", None, "can't be read as a picture: .*download it"),
        ("instanceIds", None, "can't be read as a picture: .*download it"),
        ("labelIds", lambda s: s.label_ids[::2, ::2], r"is 32x16, but its photo .* is 64x32"),
        ("instanceIds", lambda s: s.instance_ids.byte(), r"contradicts the label map in \d+ of"),
        (
            "labelIds",
            lambda s: label_ids_to_colors(s.label_ids),
            "is a colour picture.*colors_to_label_ids",
        ),
        (
            "labelIds",
            lambda s: label_ids_to_train_ids(s.label_ids),
            "looks like .*train_ids_to_label_ids",
        ),
    ],
)
def test_files_that_do_not_fit(kind, made, message, cityscapes):
    path = first_of(cityscapes, f"**/*{kind}.png")
    if made is None:
        path.write_bytes(path.read_bytes()[:-100])
    else:
        save_image(made(draw_street(5, 0, SIZE)), path)
    with pytest.raises(ValueError, match=rf"aachen_000000_000019_\w*{kind}\.png {message}"):
        open_scenes("cityscapes", "val", cityscapes, SIZE)[0]


def test_camvid_maps_of_another_kind(camvid):
    save_image(torch.full((45, 60), 31, dtype=torch.uint8), camvid / "trainannot" / "0001TP_1.png")
    with pytest.raises(ValueError, match=r"0001TP_1\.png has .*values up to 31, expected CamVid"):
        open_scenes("camvid", "train", camvid)[0]


@pytest.mark.parametrize(
    ("count", "expected"), [(3, [0, 3, 6]), (10, list(range(10))), (99, list(range(10))), (0, [])]
)
def test_evenly_spaced_scenes(count, expected):
    scenes = open_scenes("toy", "val", size=(64, 32))[:10]
    assert scenes.evenly_spaced(count).names == [f"toy_val_{index:05d}" for index in expected]
