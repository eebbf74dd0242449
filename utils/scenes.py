"""Street scenes from three data sets behind one interface: toy streets, CamVid, Cityscapes.

    scenes = open_scenes("toy", "val")
    scene = scenes[0]          # Scene(image_u8, label_ids, instance_ids, name, city, time_of_day)
    few = scenes[:8]           # a slice is a smaller set of scenes
    photos = open_photos("my photos")                # no labels: image_u8 only

Whatever the source, a scene speaks Cityscapes label ids and has the size that was asked for.
"""

import copy
import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import torch

from utils.archives import ZippedFile, zipped_files
from utils.files import PROJECT
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
    camvid_ids_to_label_ids,
    check_instance_ids,
    check_label_ids,
    colors_to_label_ids,
)
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
        instance_ids: (H, W) int32; label id * 1000 + n for things that were told apart, else the
            label id itself (where a data set has no instances, that is every pixel).
        name: unique within its data set and split.
        city, time_of_day: as the data set knows them.
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

    def spread(self, count: int) -> "Scenes":
        """As many scenes (all, if there are no more) at even distances: photos filmed one after
        another look alike.
        """
        count = min(count, len(self))
        return self.subset(i * len(self) // count for i in range(count))

    def batch(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Several scenes at once -> image_u8 (B, 3, H, W), label_ids (B, H, W)."""
        scenes = [self[int(index)] for index in indices]
        return (
            torch.stack([scene.image_u8 for scene in scenes]),
            torch.stack([scene.label_ids for scene in scenes]),
        )

    def instance_batch(self, indices: Sequence[int]) -> torch.Tensor:
        """The instance maps of several scenes -> (B, H, W) int32."""
        return torch.stack([self[int(index)].instance_ids for index in indices])

    def to(self, device: torch.device | str) -> "Scenes":
        """These scenes: decoded one by one, they stay on the CPU (cached() ones can move)."""
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

    def __repr__(self) -> str:
        width, height = self.size
        return f"Scenes({self.dataset} {self.split}: {len(self)} scenes of {width}x{height})"


def open_scenes(
    dataset: str,
    split: str,
    root: str | Path | None = None,
    size: tuple[int, int] = (256, 128),
) -> Scenes:
    """Open one split of a data set.

    Args:
        dataset: "toy" (drawn by the project itself), "camvid" or "cityscapes".
        split: "train", "val" or "test".
        root: the data set's folder; by default data/camvid and data/cityscapes of the project.
            For Cityscapes the two official zip files may lie there instead of what is in them.
        size: (width, height) that every scene is cropped (to its aspect) and resized to.

    Raises:
        ValueError: an unknown data set, split or size, or a split without a single scene.
        FileNotFoundError: a folder that is not there, or a photo without its label map.
    """
    if dataset not in DATASETS:
        known = ", ".join(DATASETS)
        raise ValueError(f"There is no data set {dataset!r}: expected one of {known}.")
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}: expected one of {', '.join(SPLITS)}.")
    width, height = size
    if width < 32 or height < 16:
        raise ValueError(f"size {width}x{height} is too small: expected 32x16 or more.")
    if dataset == "toy":
        return _ToyScenes(split, (width, height))
    folder = PROJECT / "data" / dataset if root is None else Path(root)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"The {dataset} folder {folder} is not there: data/README.md says how to get the data "
            'set; pass its folder as root, or use "toy", which needs no download.'
        )
    return DATASETS[dataset](split, (width, height), folder)


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

    def _load(self, name, city, time_of_day, photo, label_map, instance_map):
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
        image_u8 = resize_image(crop_to_aspect(image_u8, size), size)
        label_ids = resize_map(crop_to_aspect(label_ids, size), size)
        instance_ids = resize_map(crop_to_aspect(instance_ids, size), size)
        # Now that there are fewer pixels to look at.  Cityscapes publishes no labels for its test.
        trusted = self.dataset == "cityscapes" and self.split == "test"
        check_label_ids(label_ids, str(label_map), trusted)
        check_instance_ids(instance_ids, label_ids, str(instance_map))
        return Scene(
            image_u8=image_u8,
            label_ids=label_ids.to(torch.uint8),
            instance_ids=instance_ids,
            name=name,
            city=city,
            time_of_day=time_of_day,
        )

    def _read_label_ids(self, path: Path) -> torch.Tensor:
        return read_map(path)

    def _identity(self, name, city, time_of_day, *sources):
        return (name, [file_identity(source) for source in sources if source is not None])


def file_identity(source: Path | ZippedFile) -> tuple[int, int]:
    """What changes when the file does; reading 11 GB to hash them would take minutes."""
    if isinstance(source, ZippedFile):
        return (source.size, source.crc)
    status = source.stat()
    return (status.st_size, status.st_mtime_ns)


class _CamVidScenes(_FileScenes):
    """CamVid as the SegNet tutorial ships it: folders train, trainannot, val, valannot ...

    Photos may be PNG (upstream) or JPEG, maps hold SegNet's ids or CamVid's own colours.  The
    pictures are 4:3; for a 2:1 size the middle rows 60..300 are kept.  There are no instances.
    """

    def __init__(self, split, size, folder):
        places = [place for place in (folder / "CamVid", folder) if place.is_dir()]
        folder = max(places, key=lambda place: len(_pictures(place / split)[0]))
        photos, annotations = _folder(folder / split), _folder(folder / f"{split}annot")
        label_maps = {p.stem: p for p in _files(annotations) if p.suffix.lower() == ".png"}
        entries, (paths, left_out) = [], _pictures(photos)
        for photo in paths:
            # The SegNet selection films one sequence at dusk, the others by day.
            time_of_day = "dusk" if photo.name.startswith("0001TP") else "day"
            if photo.stem not in label_maps:
                missing = annotations / f"{photo.stem}.png"
                raise FileNotFoundError(_NO_MAP.format(photo=photo, label_map=missing))
            label_map = label_maps[photo.stem]
            entries.append((photo.stem, "Cambridge", time_of_day, photo, label_map, None))
        super().__init__("camvid", split, size, _not_empty(entries, photos, "*.png or *.jpg"))
        unused = [label_maps[name] for name in sorted(label_maps.keys() - set(self.names))]
        _warn_of_unused(photos, len(entries), left_out, unused)

    def _read_label_ids(self, path):
        ids = read_map(path, colors=True)
        if ids.dim() == 3:
            return colors_to_label_ids(ids, str(path))
        return camvid_ids_to_label_ids(ids, str(path))


class _CityscapesScenes(_FileScenes):
    """The official layout: leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/...,
    as folders, or inside of leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip.
    """

    def __init__(self, split, size, folder):
        ending = "_leftImg8bit.png"
        map_endings = ("_gtFine_labelIds.png", "_gtFine_instanceIds.png")
        photos, left_out, where = _official_files(folder, "leftImg8bit", split, (ending,))
        maps, _, where_maps = _official_files(folder, "gtFine", split, map_endings)
        maps = {(city, name.lower()): file for (city, name), file in maps.items()}
        entries = []
        for (city, file_name), photo in sorted(photos.items()):
            name, pair = file_name[: -len(ending)], []
            for map_name in (f"{name}{map_ending}" for map_ending in map_endings):
                pair.append(maps.pop((city, map_name.lower()), None))
                if pair[-1] is None:
                    missing = where_maps / city / map_name
                    raise FileNotFoundError(_NO_MAP.format(photo=photo, label_map=missing))
            entries.append((name, city, "day", photo, *pair))
        super().__init__("cityscapes", split, size, _not_empty(entries, where, f"*/*{ending}"))
        unused = [file for (_, name), file in maps.items() if name.endswith("labelids.png")]
        _warn_of_unused(where, len(entries), left_out, unused)


DATASETS = {"toy": _ToyScenes, "camvid": _CamVidScenes, "cityscapes": _CityscapesScenes}


def _official_files(
    folder: Path, kind: str, split: str, endings: tuple[str, ...]
) -> tuple[dict[tuple[str, str], Path | ZippedFile], list, Path]:
    """The files of one kind and split, from a folder or an archive, whichever holds more.

    Returns:
        {(city, file name): file} of the files with these endings, other pictures, where they are.
    """
    top, archive = folder / kind / split, folder / f"{kind}_trainvaltest.zip"
    if not top.is_dir() and not archive.is_file():
        raise FileNotFoundError(
            f"Neither {top} nor {archive} is there: data/README.md shows the folders that are "
            "expected, and where the two zip files come from."
        )
    found, start = {}, f"{kind}/{split}/"
    if top.is_dir():
        paths = (path for depth in ("*", "*/*", "*/*/*") for path in top.glob(depth))
        files = {path.relative_to(top).as_posix(): path for path in paths}
        found[top] = _sorted_out(files, endings)
    try:
        zipped = zipped_files(archive) if archive.is_file() else {}
    except ValueError:
        if top not in found or not found[top][0]:  # else a damaged archive isn't needed
            raise
        zipped = {}
    if zipped or not found:
        inside = {n.removeprefix(start): f for n, f in zipped.items() if n.startswith(start)}
        found[archive / kind / split] = _sorted_out(inside, endings)
    where = max(found, key=lambda place: len(found[place][0]))
    count = len(found[top][0]) if top in found else 0
    if count and where != top:
        warnings.warn(
            f"{top} holds {count} files, and {archive} {len(found[where][0])}: the archive is "
            "read, not the folder.  Delete the folder, or move the archive away to read it.",
            stacklevel=4,
        )
    return *found[where], where


def _sorted_out(files: dict, endings: tuple[str, ...]) -> tuple[dict, list]:
    """{path: file} -> {(city, file name): file} of those with such an ending, other pictures."""
    taken, others, endings = {}, [], tuple(ending.lower() for ending in endings)
    for name, file in files.items():
        if _is_hidden(name):
            continue
        if name.count("/") == 1 and name.lower().endswith(endings):
            taken[tuple(name.split("/"))] = file
        elif name.lower().endswith(_PHOTO_ENDINGS + _OTHER_ENDINGS):
            others.append(file)
    return taken, others


# ----------------------------------------------------------------------------- a check


def boundary_contrast(image_u8: torch.Tensor, label_ids: torch.Tensor) -> float:
    """How much more a photo changes where its labels do: whether photo and map belong together.

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


_PHOTO_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp")
_OTHER_ENDINGS = tuple(  # they are named, and not read
    ".heic .heif .hif .avif .jxl .jp2 .j2k .bmp .gif .apng .tif .tiff .tga .psd .svg .dng .cr2 "
    ".cr3 .crw .nef .nrw .arw .srf .sr2 .orf .rw2 .raf .pef .srw .x3f .3fr .iiq .kdc .raw".split()
)


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
    paths, left_out = _pictures(folder)
    if not paths:
        others = sorted({path.suffix for path in _files(folder)})
        raise ValueError(
            f"{folder} holds no photo: expected {', '.join(_PHOTO_ENDINGS)}, found "
            f"{', '.join(others) or 'no file'}; save other kinds (HEIC, say) as JPEG first."
        )
    return Photos(paths, size, left_out)


# ----------------------------------------------------------------------------- files, and none


def _is_hidden(name: str) -> bool:
    """Whether a file, or a folder around it, is hidden: a Mac's ._NAME, .DS_Store, __MACOSX ..."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _files(folder: Path) -> list[Path]:
    """The files of a folder, or the one file itself, sorted by name, without the hidden ones."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    return [path for path in inside if path.is_file() and not _is_hidden(path.name)]


def _pictures(folder: Path) -> tuple[list[Path], list[Path]]:
    """The photos of a folder, and the pictures of other kinds, which can't be read."""
    photos, others = (
        [path for path in _files(folder) if path.suffix.lower() in endings]
        for endings in (_PHOTO_ENDINGS, _OTHER_ENDINGS)
    )
    return photos, others


def _warn_of_unused(photos: Path, count: int, left_out: list, maps: list) -> None:
    if left_out:
        warnings.warn(
            f"{photos}: {count} photos are used, {len(left_out)} pictures with other names or of "
            f"other kinds are not, for example {left_out[0]}: data/README.md shows the layout.",
            stacklevel=4,
        )
    if maps:
        warnings.warn(
            f"{photos} holds {count} photos, but there are {count + len(maps)} label maps: "
            f"{maps[0]} has no photo.  If photos are missing, unpack or download them again.",
            stacklevel=4,
        )


def _folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not there: data/README.md shows the folders that are expected."
        )
    return folder


_NO_MAP = "{photo} has no label map: {label_map} is not there; get it, or move the photo away."


def _not_empty(entries: list[tuple], folder: Path, pattern: str) -> list[tuple]:
    if not entries:
        raise ValueError(f"{folder} holds no photo ({pattern}): data/README.md shows the layout.")
    return entries
