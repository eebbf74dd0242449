"""Decode once, memory-map ever after.

    scenes = cached(open_scenes("toy", "train"), "data/cache")
    image_u8, label_ids = scenes.batch([3, 1, 4])       # one indexed read, no decoding

A cache is a folder of three .npy files and one .json file; its name carries a hash of everything
that the pixels depend on, so a changed file or size gets another folder and never stale pixels.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from utils.progress import progress
from utils.scenes import Scene, Scenes


def cached(scenes: Scenes, folder: str | Path) -> "CachedScenes":
    """Decode all scenes into memory-mapped arrays below folder, unless that was done before.

    The result has the interface of scenes, and its batch() is one indexed read.
    """
    width, height = scenes.size
    name = f"{scenes.dataset}-{scenes.split}-{width}x{height}-{scenes.fingerprint()[:16]}"
    place = Path(folder) / name
    if not place.is_dir():
        _build(scenes, place)
    return CachedScenes(scenes, place)


def _build(scenes: Scenes, place: Path) -> None:
    """Decode into a temporary folder beside place, then rename it: whole, or not at all."""
    width, height = scenes.size
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        arrays = {
            field: np.lib.format.open_memmap(
                temporary / f"{field}.npy", "w+", dtype, (len(scenes), *shape)
            )
            for field, dtype, shape in (
                ("image_u8", np.uint8, (3, height, width)),
                ("label_ids", np.uint8, (height, width)),
                ("instance_ids", np.int32, (height, width)),
            )
        }
        facts = []
        for index in progress(range(len(scenes)), f"decoding {scenes}"):
            scene = scenes[index]
            for field, array in arrays.items():
                array[index] = getattr(scene, field).numpy()
            facts.append((scene.name, scene.city, scene.time_of_day))
        for array in arrays.values():
            array.flush()
        (temporary / "scenes.json").write_text(json.dumps(facts))
        try:
            os.rename(temporary, place)
        except OSError:
            if not place.is_dir():  # else another process has just built the same cache
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class CachedScenes(Scenes):
    """Scenes that lie decoded in memory-mapped arrays; made by cached()."""

    def __init__(self, scenes: Scenes, place: Path):
        facts = json.loads((place / "scenes.json").read_text())
        entries = [(*fact, index) for index, fact in enumerate(facts)]
        super().__init__(scenes.dataset, scenes.split, scenes.size, entries)
        self._place = place
        self._image_u8, self._label_ids, self._instance_ids = (
            np.load(place / f"{field}.npy", mmap_mode="r")
            for field in ("image_u8", "label_ids", "instance_ids")
        )

    def batch(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Several scenes in one read -> image_u8 (B, 3, H, W), label_ids (B, H, W), both copies."""
        rows = [self._entries[int(index)][-1] for index in indices]
        return torch.from_numpy(self._image_u8[rows]), torch.from_numpy(self._label_ids[rows])

    def _load(self, name, city, time_of_day, row):
        return Scene(
            image_u8=torch.from_numpy(self._image_u8[row].copy()),
            label_ids=torch.from_numpy(self._label_ids[row].copy()),
            instance_ids=torch.from_numpy(self._instance_ids[row].copy()),
            name=name,
            city=city,
            time_of_day=time_of_day,
        )

    def _identity(self, name, *source):
        return (str(self._place), name)
