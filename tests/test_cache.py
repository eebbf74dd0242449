"""A cache changes the time that scenes take, and nothing else."""

import json
import os

import pytest
import torch

from utils import cache
from utils.cache import cached
from utils.images import save_image
from utils.scenes import open_scenes
from utils.toy_streets import draw_street

SIZE = (49, 33)


def toy(count=5):
    return open_scenes("toy", "val", size=SIZE)[3 : 3 + count]


def files(folder):
    """Three photos and maps on disk, that a test may change."""
    for i in range(3):
        street = draw_street(4, i, size=SIZE)
        save_image(street.image_u8, folder / "train" / f"{i}.png")
        save_image(street.label_ids % 12, folder / "trainannot" / f"{i}.png")
    return folder


def equal(one, other):
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in ((getattr(one, field), getattr(other, field)) for field in vars(one))
    )


def refuse(monkeypatch, scenes, message="must not be decoded"):
    def load(self, *source):
        raise ValueError(message)

    monkeypatch.setattr(type(scenes), "_load", load)


def test_cold_equals_warm_equals_uncached(tmp_path):
    scenes = toy()
    cold, warm = cached(scenes, tmp_path), cached(toy(), str(tmp_path))
    assert len(cold) == len(warm) == 5 and cold.names == warm.names == scenes.names
    assert (cold.dataset, cold.split, cold.size) == ("toy", "val", SIZE)
    for index in range(5):
        assert equal(cold[index], scenes[index]) and equal(warm[index], scenes[index])
        assert cold[index].instance_ids.dtype == torch.int32
    assert len(os.listdir(tmp_path)) == 1 and repr(warm) == repr(scenes)


def test_a_batch_is_its_items(tmp_path):
    scenes = cached(toy(), tmp_path)
    image_u8, label_ids = scenes.batch(torch.tensor([4, 0, 4]))
    assert image_u8.shape == (3, 3, 33, 49) and label_ids.shape == (3, 33, 49)
    assert image_u8.dtype == label_ids.dtype == torch.uint8
    for place, index in enumerate((4, 0, 4)):
        assert torch.equal(image_u8[place], scenes[index].image_u8)
        assert torch.equal(label_ids[place], scenes[index].label_ids)
    for one, other in zip(scenes.batch([1, 2]), toy().batch([1, 2]), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(IndexError):
        scenes.batch([5])


def test_what_is_taken_out_is_a_copy(tmp_path):
    scenes = cached(toy(), tmp_path)
    scenes.batch([1])[0].zero_()
    scene = scenes[1]
    for tensor in (scene.image_u8, scene.label_ids, scene.instance_ids):
        tensor.zero_()
    assert equal(cached(toy(), tmp_path)[1], toy()[1])


def test_the_second_call_does_not_decode(tmp_path, monkeypatch):
    expected = cached(toy(), tmp_path)[2]
    scenes = toy()
    refuse(monkeypatch, scenes)
    with pytest.raises(ValueError, match="must not be decoded"):
        scenes[2]
    assert equal(cached(scenes, tmp_path)[2], expected)


def test_slices_of_a_cached_set(tmp_path):
    scenes = cached(toy(), tmp_path)
    part = scenes[1:4].subset([2, 0])
    assert part.names == [scenes.names[3], scenes.names[1]]
    assert equal(part[0], toy()[3])
    image_u8, label_ids = part.batch([0])
    assert torch.equal(image_u8[0], toy()[3].image_u8)
    assert torch.equal(label_ids[0], toy()[3].label_ids)
    assert part.fingerprint() != scenes.fingerprint()
    again = cached(part, tmp_path / "again")
    assert equal(again[1], toy()[1]) and equal(cached(part, tmp_path / "again")[0], toy()[3])


def test_another_order_or_size_gets_another_cache(tmp_path):
    one, other = cached(toy(), tmp_path), cached(toy().subset([1, 0]), tmp_path)
    assert equal(one[0], other[1]) and equal(one[1], other[0])
    small = cached(open_scenes("toy", "val", size=(32, 16))[3:4], tmp_path)
    assert small[0].image_u8.shape == (3, 16, 32)
    assert len(os.listdir(tmp_path)) == 3


def test_a_changed_file_gets_another_cache(tmp_path):
    root = files(tmp_path / "camvid")
    before = cached(open_scenes("camvid", "train", root, SIZE), tmp_path / "cache")
    street = draw_street(4, 9, size=SIZE)
    save_image(street.image_u8, root / "train" / "1.png")
    after = cached(open_scenes("camvid", "train", root, SIZE), tmp_path / "cache")
    assert len(os.listdir(tmp_path / "cache")) == 2
    assert torch.equal(after[1].image_u8, street.image_u8)
    assert not equal(before[1], after[1]) and equal(before[2], after[2])


def test_an_error_while_building_leaves_nothing_behind(tmp_path):
    root = files(tmp_path / "camvid")
    path = root / "train" / "2.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    with pytest.raises(ValueError, match=r"2\.png can't be read as a picture"):
        cached(open_scenes("camvid", "train", root, SIZE), tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == []
    path.write_bytes(whole)
    assert len(cached(open_scenes("camvid", "train", root, SIZE), tmp_path / "cache")) == 3


def test_two_processes_that_build_the_same_cache(tmp_path, monkeypatch):
    rename = os.rename

    def beaten(source, target):
        monkeypatch.setattr(os, "rename", rename)
        cached(toy(), tmp_path)  # the other process is done a moment earlier
        rename(source, target)

    monkeypatch.setattr(cache.os, "rename", beaten)
    assert equal(cached(toy(), tmp_path)[4], toy()[4])
    assert len(os.listdir(tmp_path)) == 1


def test_a_cache_that_cannot_be_put_in_its_place(tmp_path, monkeypatch):
    def refused(source, target):
        raise PermissionError("not here")

    monkeypatch.setattr(cache.os, "rename", refused)
    with pytest.raises(PermissionError, match="not here"):
        cached(toy(1), tmp_path)
    assert os.listdir(tmp_path) == []


def test_the_cache_is_four_plain_files(tmp_path):
    cached(toy(2), tmp_path)
    (place,) = tmp_path.iterdir()
    assert place.name.startswith("toy-val-49x33-")
    names = ["image_u8.npy", "instance_ids.npy", "label_ids.npy", "scenes.json"]
    assert sorted(path.name for path in place.iterdir()) == names
    assert json.loads((place / "scenes.json").read_text())[1][0] == "toy_val_00004"
