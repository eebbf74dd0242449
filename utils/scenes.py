"""Street scenes from four data sets behind one interface: toy, streets, CamVid, Cityscapes.

    scenes = open_scenes("toy", "val")
    scenes = open_scenes("camvid+streets", "train")  # two data sets as one
    scene = scenes[0]          # Scene(image_u8, label_ids, instance_ids, name, city, time_of_day)
    few = scenes[:8]           # a slice is a smaller set of scenes
    photos = open_photos("my photos")                # no labels: image_u8 only

Every scene has Cityscapes label ids and the requested size, whatever its source.
"""

import copy
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import torch

from utils.files import PROJECT
from utils.folders import (
    NO_MAP,
    PHOTO_ENDINGS,
    existing_folder,
    file_identity,
    listed_photos,
    not_empty,
    official_files,
    pictures,
    visible_files,
    warn_of_unused,
)
from utils.images import (
    RESAMPLING,
    crop_to_aspect,
    read_image,
    read_map,
    read_photo,
    resize_image,
    resize_map,
)
from utils.labels import (
    NUM_LABELS,
    camvid_ids_to_label_ids,
    check_id_values,
    check_instance_ids,
    check_label_ids,
    colors_to_label_ids,
)
from utils.meanings import EXACT
from utils.progress import progress
from utils.toy import streets as toy_streets

SPLITS = ("train", "val", "test")
TOY_COUNTS = {"train": 2975, "val": 500, "test": 1525}  # as many as Cityscapes has
TOY_SEEDS = {"train": 1, "val": 2, "test": 3}


@dataclass(frozen=True)
class Scene:
    """One street.

    Attributes:
        image_u8: (3, H, W) uint8, RGB.
        label_ids: (H, W) uint8, Cityscapes label ids 0..33.
        instance_ids: (H, W) int32; label id * 1000 + n for separate things, else the label id
            itself (where a data set has no instances, that is every pixel).
        name: unique within its data set and split.
        city, time_of_day: as the data set gives them.
    """

    image_u8: torch.Tensor
    label_ids: torch.Tensor
    instance_ids: torch.Tensor
    name: str
    city: str
    time_of_day: str


class Scenes(Sequence):
    """An indexable set of scenes; each is decoded when it is asked for.

    Attributes:
        dataset, split: what open_scenes() was asked for.
        size: (width, height) of every scene.
        names: one name a scene.
    """

    def __init__(self, dataset: str, split: str, size: tuple[int, int], entries: list[tuple]):
        self.dataset, self.split, self.size = dataset, split, size
        self._entries = entries  # a subclass's (name, ...) for each scene

    @property
    def names(self) -> list[str]:
        return [entry[0] for entry in self._entries]

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Scene: ...
    @overload
    def __getitem__(self, index: slice) -> "Scenes": ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.subset(range(len(self))[index])
        return self._load(*self._entries[index])

    def subset(self, indices: Iterable[int]) -> "Scenes":
        """The scenes of these indices, in this order."""
        part = copy.copy(self)
        part._entries = [self._entries[index] for index in indices]
        return part

    def evenly_spaced(self, count: int) -> "Scenes":
        """`count` evenly spaced scenes (all if there are fewer): consecutive ones look alike."""
        count = min(count, len(self))
        return self.subset(i * len(self) // count for i in range(count))

    def batch(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Several scenes at once -> image_u8 (B, 3, H, W), label_ids (B, H, W)."""
        scenes = [self[int(index)] for index in indices]
        image_u8 = torch.stack([scene.image_u8 for scene in scenes])
        return image_u8, torch.stack([scene.label_ids for scene in scenes])

    def instance_batch(self, indices: Sequence[int]) -> torch.Tensor:
        """The instance maps of several scenes -> (B, H, W) int32."""
        return torch.stack([self[int(index)].instance_ids for index in indices])

    def map_kinds(self, indices: Iterable[int]) -> list[str]:
        """What the labels of several scenes' maps may mean: keys of utils.meanings.MEANINGS."""
        return [self._kind(*self._entries[int(index)]) for index in indices]

    def to(self, device: torch.device | str) -> "Scenes":
        """These scenes, which are decoded on the CPU and stay there (cached() ones can move)."""
        return self

    def fingerprint(self) -> str:
        """A hash of everything that the pixels depend on: sources, order and size."""
        sources = [self._identity(*entry) for entry in self._entries]
        content = (self.dataset, self.split, self.size, RESAMPLING, sources)
        return hashlib.sha256(repr(content).encode()).hexdigest()

    def _load(self, name: str, *source) -> Scene:
        raise NotImplementedError

    def _identity(self, name: str, *source) -> tuple:
        raise NotImplementedError

    def _kind(self, name: str, *source) -> str:
        return EXACT

    def __repr__(self) -> str:
        width, height = self.size
        return f"Scenes({self.dataset} {self.split}: {len(self)} scenes of {width}x{height})"


def open_scenes(
    dataset: str, split: str, root: str | Path | None = None, size: tuple[int, int] = (256, 128)
) -> Scenes:
    """Open one split of a data set.

    Args:
        dataset: "toy" (drawn by the project itself), "streets" (real photos that come with it),
            "camvid" or "cityscapes"; several, joined by "+", are one after another.
        split: "train", "val" or "test"; "streets" has no test photos.
        root: the data set's folder; by default data/streets, data/camvid and data/cityscapes of the
            project.  For Cityscapes it may hold the two official zip files instead of their
            content.  With several data sets it is used for all except "toy" and "streets".
        size: (width, height) that every scene is cropped (to its aspect) and resized to.

    Raises:
        ValueError: an unknown data set, split or size, or a split without a single scene.
        FileNotFoundError: a folder that is not there, or a photo without its label map.
    """
    for name in dataset.split("+"):
        if name not in DATASETS:
            known = ", ".join(DATASETS)
            raise ValueError(f"There is no data set {name!r}: expected one of {known}.")
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}: expected one of {', '.join(SPLITS)}.")
    width, height = size
    if width < 32 or height < 16:
        raise ValueError(f"size {width}x{height} is too small: expected 32x16 or more.")
    if "+" in dataset:
        names = dataset.split("+")
        roots = [None if name in WITH_THE_PROJECT else root for name in names]
        return _JoinedScenes([open_scenes(n, split, r, size) for n, r in zip(names, roots)])
    if dataset == "toy":
        return _ToyScenes(split, (width, height))
    folder = PROJECT / "data" / dataset if root is None else Path(root)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"The {dataset} folder {folder} is not there: data/README.md says how to get the data "
            'set; pass its folder as root, or use "toy" or "streets", which need no download.'
        )
    return DATASETS[dataset](split, (width, height), folder)


class _JoinedScenes(Scenes):
    """The scenes of several data sets, one after another."""

    def __init__(self, parts: list[Scenes]):
        self._parts = parts
        entries = [
            (name, part, index)
            for part, scenes in enumerate(parts)
            for index, name in enumerate(scenes.names)
        ]
        dataset = "+".join(part.dataset for part in parts)
        super().__init__(dataset, parts[0].split, parts[0].size, entries)

    def _load(self, name, part, index):
        return self._parts[part][index]

    def _identity(self, name, part, index):
        scenes = self._parts[part]
        return (scenes.dataset, scenes._identity(*scenes._entries[index]))

    def _kind(self, name, part, index):
        return self._parts[part].map_kinds([index])[0]


class _ToyScenes(Scenes):
    """Streets drawn from a seed: see utils.toy.streets."""

    def __init__(self, split, size):
        entries = [(f"toy_{split}_{i:05d}", TOY_SEEDS[split], i) for i in range(TOY_COUNTS[split])]
        super().__init__("toy", split, size, entries)

    def _load(self, name, seed, index):
        street = toy_streets.draw_street(seed, index, self.size)
        return Scene(*street[:3], name=name, city=street.city, time_of_day=street.time_of_day)

    def _identity(self, name, seed, index):
        return (seed, index, toy_streets.RENDERER_HASH)


class _FileScenes(Scenes):
    """Scenes that are read from one photo, one label map and perhaps one instance map each."""

    def _load(self, name, city, time_of_day, photo, label_map, instance_map, at=0.5):
        image_u8 = read_image(photo)
        label_ids = self._read_label_ids(label_map)
        instance_ids = label_ids.int() if instance_map is None else read_map(instance_map).int()
        for ids, path in ((label_ids, label_map), (instance_ids, instance_map)):
            if ids.shape != image_u8.shape[1:]:
                raise ValueError(
                    f"{path} is {ids.shape[1]}x{ids.shape[0]}, but its photo {photo} is "
                    f"{image_u8.shape[2]}x{image_u8.shape[1]}: they must be the same scene at the "
                    "same size."
                )
        size = self.size
        image_u8 = resize_image(crop_to_aspect(image_u8, size, at), size)
        label_ids = resize_map(crop_to_aspect(label_ids, size, at), size)
        instance_ids = resize_map(crop_to_aspect(instance_ids, size, at), size)
        # After resizing, because there are fewer pixels to look at.  Cityscapes publishes no labels
        # for its test split: these maps hold nothing but void, and would be taken for train ids.
        is_void = self.dataset == "cityscapes" and self.split == "test"
        (check_id_values if is_void else check_label_ids)(label_ids, str(label_map))
        check_instance_ids(instance_ids, label_ids, str(instance_map))
        return Scene(image_u8, label_ids.to(torch.uint8), instance_ids, name, city, time_of_day)

    def _read_label_ids(self, path: Path) -> torch.Tensor:
        return read_map(path)

    def _identity(self, name, city, time_of_day, photo, label_map, instance_map, *how):
        sources = (photo, label_map, instance_map)
        return (name, [file_identity(x) for x in sources if x is not None], *how)


class _CamVidScenes(_FileScenes):
    """CamVid as the SegNet tutorial ships it: folders train, trainannot, val, valannot ...

    Photos may be PNG (upstream) or JPEG, maps hold SegNet's ids or CamVid's own colours.  The
    pictures are 4:3; for a 2:1 size the middle rows 60..300 are kept.  There are no instances.
    """

    def __init__(self, split, size, folder):
        places = [place for place in (folder / "CamVid", folder) if place.is_dir()]
        folder = max(places, key=lambda place: len(pictures(place / split)[0]))
        photos, annotations = map(existing_folder, (folder / split, folder / f"{split}annot"))
        label_maps = {p.stem: p for p in visible_files(annotations) if p.suffix.lower() == ".png"}
        entries, (paths, left_out) = [], pictures(photos)
        for photo in paths:
            # In this selection one sequence was filmed at dusk, the others by day.
            time_of_day = "dusk" if photo.name.startswith("0001TP") else "day"
            if photo.stem not in label_maps:
                missing = annotations / f"{photo.stem}.png"
                raise FileNotFoundError(NO_MAP.format(photo=photo, label_map=missing))
            label_map = label_maps[photo.stem]
            entries.append((photo.stem, "Cambridge", time_of_day, photo, label_map, None))
        super().__init__("camvid", split, size, not_empty(entries, photos, "*.png or *.jpg"))
        unused = [label_maps[name] for name in sorted(label_maps.keys() - set(self.names))]
        warn_of_unused(photos, len(entries), left_out, unused)

    def _read_label_ids(self, path):
        ids = read_map(path, colors=True)
        if ids.dim() == 3:
            return colors_to_label_ids(ids, str(path))
        return camvid_ids_to_label_ids(ids, str(path))

    def _kind(self, *source):
        return "camvid"


class _StreetsScenes(_FileScenes):
    """The real photos in data/streets, which scenes.csv lists; see README.md there.

    A photo that is at least one and a half times as wide as the size requires gives two scenes:
    its left part and its right part.
    """

    def __init__(self, split, size, folder):
        entries = []
        for photo, label_map, row in listed_photos(folder, split):
            is_wide = int(row["width"]) / int(row["height"]) >= 1.5 * size[0] / size[1]
            for side, at in (("_left", 0.0), ("_right", 1.0)) if is_wide else (("", 0.5),):
                source = (photo, label_map, None, at, row["labels"])
                entries.append((photo.stem + side, row["city"], row["time_of_day"], *source))
        super().__init__("streets", split, size, not_empty(entries, folder, f"split {split}"))

    def _load(self, *source):
        return super()._load(*source[:-1])

    def _identity(self, name, city, time_of_day, *source):
        files = super()._identity(name, city, time_of_day, *source[:-1])
        return (city, time_of_day, *files)

    def _kind(self, *source):
        return source[-1]


class _CityscapesScenes(_FileScenes):
    """The official layout: leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/...,
    as folders, or inside of leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip.
    """

    def __init__(self, split, size, folder):
        ending = "_leftImg8bit.png"
        map_endings = ("_gtFine_labelIds.png", "_gtFine_instanceIds.png")
        photos, left_out, where = official_files(folder, "leftImg8bit", split, (ending,))
        maps, _, where_maps = official_files(folder, "gtFine", split, map_endings)
        maps = {(city, name.lower()): file for (city, name), file in maps.items()}
        entries = []
        for (city, file_name), photo in sorted(photos.items()):
            name, pair = file_name[: -len(ending)], []
            for map_name in (f"{name}{map_ending}" for map_ending in map_endings):
                pair.append(maps.pop((city, map_name.lower()), None))
                if pair[-1] is None:
                    missing = where_maps / city / map_name
                    raise FileNotFoundError(NO_MAP.format(photo=photo, label_map=missing))
            entries.append((name, city, "day", photo, *pair))
        super().__init__("cityscapes", split, size, not_empty(entries, where, f"*/*{ending}"))
        unused = [file for (_, name), file in maps.items() if name.endswith("labelids.png")]
        warn_of_unused(where, len(entries), left_out, unused)


DATASETS = {
    "toy": _ToyScenes,
    "streets": _StreetsScenes,
    "camvid": _CamVidScenes,
    "cityscapes": _CityscapesScenes,
}
WITH_THE_PROJECT = ("toy", "streets")  # nothing to download


# ----------------------------------------------------------------------------- a check


def count_labels(scenes: Scenes) -> torch.Tensor:
    """How many pixels have each label in all scenes together -> (34,) float64, on the CPU."""
    counts = torch.zeros(NUM_LABELS, dtype=torch.float64)
    for indices in progress(torch.arange(len(scenes)).split(64), "counting classes"):
        label_ids = scenes.batch(indices)[1].cpu()
        counts += torch.bincount(label_ids.flatten().long(), minlength=NUM_LABELS)
    return counts


def boundary_contrast(image_u8: torch.Tensor, label_ids: torch.Tensor) -> float:
    """Measure how much more a photo changes where its labels change, to test that both fit.

    Args:
        image_u8: (3, H, W).
        label_ids: (H, W).

    Returns:
        The mean difference between neighbouring pixels of different labels, divided by that
        between neighbouring pixels of the same label: about 1 for a map of another photo, clearly
        more for its own.
    """
    across, within = [], []
    for dim in (-1, -2):
        change = image_u8.float().diff(dim=dim).abs().mean(0)
        boundary = label_ids.int().diff(dim=dim) != 0
        across.append(change[boundary])
        within.append(change[~boundary])
    return float(torch.cat(across).mean() / torch.cat(within).mean())


# ----------------------------------------------------------------------------- your own photos


class Photos(Sequence):
    """A folder of the reader's own photos; each is read when it is asked for.

    photos[i] is image_u8 (3, H, W): turned upright, centre-cropped to the aspect of size, resized.

    Attributes:
        size: (width, height) of every photo.
        paths: one file a photo, sorted by name.
        left_out: photos of other kinds (HEIC, say) that lie beside them and can't be read.
    """

    def __init__(self, paths: list[Path], size: tuple[int, int], left_out: Sequence[Path] = ()):
        self.paths, self.size, self.left_out = paths, size, list(left_out)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Photos(self.paths[index], self.size)
        return read_photo(self.paths[index], self.size)

    def batch(self, indices: Sequence[int]) -> torch.Tensor:
        """Several photos at once -> image_u8 (B, 3, H, W)."""
        return torch.stack([self[int(index)] for index in indices])


def open_photos(folder: str | Path, size: tuple[int, int] = (256, 128)) -> Photos:
    """All JPEG, PNG and WebP photos of a folder, of any size and colour mode.

    Args:
        folder: a folder; its subfolders are not searched.  One photo's path is fine, too.
        size: (width, height); the default 2:1 is what the networks of this project expect.

    Raises FileNotFoundError if there is no such folder, ValueError if it holds no photo.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"{folder} is not there: check the path of your photos.")
    paths, left_out = pictures(folder)
    if not paths:
        others = sorted({path.suffix for path in visible_files(folder)})
        raise ValueError(
            f"{folder} holds no photo: expected {', '.join(PHOTO_ENDINGS)}, found "
            f"{', '.join(others) or 'no file'}; save other kinds (HEIC, say) as JPEG first."
        )
    return Photos(paths, size, left_out)
