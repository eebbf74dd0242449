"""A cache changes the time that scenes take, and nothing else."""

import copy
import errno
import gc
import os
import pickle
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from examples import equal
from killed import killed_and_resumed

from utils import cache
from utils import scenes as scenes_module
from utils.cache import cached
from utils.images import read_image, save_image
from utils.scenes import open_scenes
from utils.toy import streets
from utils.toy.streets import Street, draw_street

SIZE = (49, 33)
MEMORY = Path("/proc/self/smaps_rollup")  # exact, unlike statm on a machine with many cores


def toy(count=5):
    return open_scenes("toy", "val", size=SIZE)[3 : 3 + count]


def files(folder):
    """Three photos and maps on disk, that a test may change."""
    for i in range(3):
        street = draw_street(4, i, size=SIZE)
        save_image(street.image_u8, folder / "train" / f"{i}.png")
        save_image(street.label_ids % 12, folder / "trainannot" / f"{i}.png")
    return folder


def test_cold_equals_warm_equals_uncached(tmp_path, monkeypatch):
    scenes, uncached = toy(), [*toy()]
    cold = cached(scenes, tmp_path)
    monkeypatch.setattr(streets, "draw_street", None)  # what is there is not drawn again
    warm = cached(toy(), str(tmp_path))
    assert len(cold) == len(warm) == 5 and cold.names == warm.names == scenes.names
    assert (cold.dataset, cold.split, cold.size) == ("toy", "val", SIZE)
    for index in range(5):
        assert equal(cold[index], uncached[index]) and equal(warm[index], uncached[index])
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


def test_a_changed_file_gets_another_cache(tmp_path):
    root = files(tmp_path / "camvid")
    before = cached(open_scenes("camvid", "train", root, SIZE), tmp_path / "cache")
    street = draw_street(4, 9, size=SIZE)
    save_image(street.image_u8, root / "train" / "1.png")
    after = cached(open_scenes("camvid", "train", root, SIZE), tmp_path / "cache")
    assert len(os.listdir(tmp_path / "cache")) == 2
    assert torch.equal(after[1].image_u8, street.image_u8)
    assert not equal(before[1], after[1]) and equal(before[2], after[2])


# ------------------------------------------------------------------------------ interrupted


def contents(place):
    return {path.name: path.read_bytes() for path in place.iterdir()}


def the_cache(folder):
    (place,) = folder.iterdir()  # and nothing else: no lock, no part
    return contents(place)


def test_a_scene_that_cannot_be_read_costs_only_itself(tmp_path, monkeypatch):
    root, folder = files(tmp_path / "camvid"), tmp_path / "cache"
    path = root / "train" / "2.png"
    whole, status = path.read_bytes(), path.stat()
    path.write_bytes(whole[:-200] + bytes(200))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    for workers in (0, 2):
        with pytest.raises(ValueError, match=r"2\.png can't be read as a picture"):
            cached(open_scenes("camvid", "train", root, SIZE), folder, workers)
    path.write_bytes(whole)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    scenes, read = open_scenes("camvid", "train", root, SIZE), []

    def note(photo):
        read.append(photo.name)
        return read_image(photo)

    monkeypatch.setattr(scenes_module, "read_image", note)
    again = cached(scenes, folder, workers=0)
    assert read == ["2.png"] and len(again) == 3
    cached(scenes, tmp_path / "afresh")
    assert the_cache(folder) == the_cache(tmp_path / "afresh")


def build(folder):
    cache.SCENES_PER_COMMIT = 8
    cached(open_scenes("toy", "val", size=SIZE)[:48], folder, workers=2)


def test_killed_at_random_moments_it_ends_the_same(tmp_path):
    whole, others = killed_and_resumed(build, tmp_path)
    for folder in others:
        assert the_cache(folder) == the_cache(whole)


@pytest.mark.parametrize("damage", ["half a line", "a short array", "no list"])
def test_whatever_a_killed_process_left_is_mended(damage, tmp_path):
    scenes = toy()
    cached(scenes, tmp_path / "whole")
    (place,) = (tmp_path / "whole").iterdir()
    part = tmp_path / "cache" / f".{place.name}.part"
    shutil.copytree(place, part)
    facts, pixels = part / "scenes.jsonl", part / "image_u8.npy"
    if damage == "half a line":
        facts.write_bytes(facts.read_bytes()[:-4])
        pixels.write_bytes(pixels.read_bytes() + b"row that was begun")
    elif damage == "a short array":
        pixels.write_bytes(pixels.read_bytes()[:-1000])
    else:
        facts.unlink()
    cached(scenes, tmp_path / "cache")
    assert the_cache(tmp_path / "cache") == contents(place)


def test_a_process_waits_for_the_one_that_builds(tmp_path, monkeypatch):
    """The second call must not decode anything, though it began while the first was at it."""
    scenes = toy()
    begun, go_on, drawn = threading.Event(), threading.Event(), []

    def slowly(seed, index, size):
        begun.set()
        assert go_on.wait(60)
        drawn.append(index)
        return draw_street(seed, index, size)

    monkeypatch.setattr(streets, "draw_street", slowly)
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(cached, scenes, tmp_path, workers=0) for _ in range(2)]
        assert begun.wait(60)
        time.sleep(0.2)  # for the second call to reach the lock
        assert not any(call.done() for call in calls)
        go_on.set()
    assert drawn == [3, 4, 5, 6, 7] and equal(calls[0].result()[4], calls[1].result()[4])


def test_a_disk_that_is_too_small_is_told_before(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    # 5 scenes of 49x33 pixels: 3 bytes of photo, 1 of label id and 2 of instance id for each
    message = r"0\.0 MB are free, but 0\.0 MB more are needed: make room.*smaller size"
    with pytest.raises(OSError, match=message) as caught:
        cached(toy(), tmp_path)
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=49 * 33 * 6 * 5))
    assert len(cached(toy(), tmp_path)) == 5


@pytest.mark.parametrize("workers", [0, 2])
def test_a_disk_that_fills_up_on_the_way(workers, tmp_path, monkeypatch):
    scenes = toy(20)
    write = cache._Layout.write

    def full(self, part, row, scene):
        if row == 13:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, part, row, scene)

    monkeypatch.setattr(cache._Layout, "write", full)
    with pytest.raises(OSError, match=r"MB are free, but 0\.2 MB more are needed: make room"):
        cached(scenes, tmp_path / "cache", workers)
    monkeypatch.setattr(cache._Layout, "write", write)
    cached(scenes, tmp_path / "cache", workers)
    cached(scenes, tmp_path / "afresh")
    assert the_cache(tmp_path / "cache") == the_cache(tmp_path / "afresh")


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOLCK, errno.EACCES])
def test_a_drive_that_cannot_lock(code, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        message = rf"{tmp_path} can't hold a cache .*choose another folder \(--cache .*lock files"
        with pytest.raises(OSError, match=message):
            cached(toy(), tmp_path)
    assert len(cached(toy(), tmp_path)) == 5 and len(os.listdir(tmp_path)) == 1
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file/cache can't hold a cache .*choose another folder"):
        cached(toy(), tmp_path / "file/cache")


def test_instance_ids_that_do_not_fit(tmp_path, monkeypatch):
    def strange(seed, index, size):
        street = draw_street(seed, index, size)
        return street._replace(instance_ids=street.instance_ids + 70_000)

    monkeypatch.setattr(streets, "draw_street", strange)
    with pytest.raises(ValueError, match=r"toy_val_00003 has instance ids from 70.* 0\.\.65535"):
        cached(toy(), tmp_path)


# ------------------------------------------------------------------------------ other places


def test_another_process_gets_the_files_and_not_the_pixels(tmp_path):
    scenes = cached(toy(), tmp_path)
    sent = pickle.dumps(scenes)
    assert len(sent) < 2000
    assert equal(pickle.loads(sent)[2], scenes[2])


def test_scenes_that_live_on_a_device(tmp_path):
    scenes = cached(toy(), tmp_path)
    moved = scenes.subset([4, 1, 3]).to("cpu", resident=True)
    streamed = copy.copy(scenes)
    streamed._arrays = cache._StreamedArrays(scenes._arrays, torch.device("cpu"))
    plain = scenes.to("cpu")
    for other, picked in ((moved, [2, 0]), (streamed, [3, 4]), (plain, [3, 4])):
        for one, expected in zip(other.batch(picked), scenes.batch([3, 4]), strict=True):
            assert torch.equal(one, expected) and one.dtype == torch.uint8
        instance_ids = other.instance_batch(picked)
        assert torch.equal(instance_ids, torch.stack([toy()[i].instance_ids for i in (3, 4)]))
        assert instance_ids.dtype == torch.int32
    assert equal(moved[1], toy()[1]) and moved.names == [scenes.names[i] for i in (4, 1, 3)]
    assert len(pickle.dumps(plain)) < 2000 < len(pickle.dumps(moved)), "only one holds its pixels"
    moved.batch([0])[0].zero_()
    assert equal(moved[0], toy()[4])
    again = moved.to("cpu", resident=True), moved.to("cpu"), moved.subset([2])
    assert [[scene.name for scene in scenes] for scenes in again[:2]] == [moved.names] * 2
    for one, index in zip(again, (1, 1, 0), strict=True):
        assert equal(one[index], toy()[(1, 1, 3)[again.index(one)]])


@pytest.mark.gpu
@pytest.mark.parametrize("resident", [None, False])
def test_scenes_on_a_gpu(resident, tmp_path):
    scenes = cached(toy(), tmp_path)
    before = torch.cuda.memory_allocated()
    moved = scenes.to("cuda", resident)
    held = torch.cuda.memory_allocated() - before
    assert held == 0 if resident is False else held >= 5 * 49 * 33 * 6, "five scenes, or none"
    for one, expected in zip(moved.batch([3, 1]), scenes.batch([3, 1]), strict=True):
        assert one.is_cuda and torch.equal(one.cpu(), expected)


@pytest.mark.skipif(not MEMORY.exists(), reason="only Linux says exactly what lies in memory")
def test_memory_does_not_grow_with_what_was_read(tmp_path, monkeypatch):
    pixels = torch.zeros(3, 256, 512, dtype=torch.uint8)
    plain = Street(pixels, pixels[0], pixels[0].int(), "nowhere", "noon", "dry")
    monkeypatch.setattr(streets, "draw_street", lambda seed, index, size: plain)
    scenes = open_scenes("toy", "val", size=(512, 256))[:160]
    scenes = cached(scenes, tmp_path, workers=0)

    def resident():
        return int(re.search(r"^Rss: +(\d+) kB", MEMORY.read_text(), re.M)[1]) * 1024

    def read(indices):
        scenes.batch(indices)
        scenes.instance_batch(indices)

    read(range(16))  # buffers of this size are kept for the next batch
    gc.collect()  # what earlier tests have left must not make room meanwhile
    before = resident()
    for indices in torch.arange(160).split(16):
        read(indices)
    assert resident() - before < 60e6  # of 126 MB
