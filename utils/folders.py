"""Which files of a folder, or of Cityscapes' archives, are photos and label maps."""

import csv
import warnings
from pathlib import Path

from utils.archives import ZippedFile, zipped_files
from utils.meanings import MEANINGS

PHOTO_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp")
_OTHER_ENDINGS = tuple(  # of pictures that are named in a warning, and not read
    ".heic .heif .hif .avif .jxl .jp2 .j2k .bmp .gif .apng .tif .tiff .tga .psd .svg .dng .cr2 "
    ".cr3 .crw .nef .nrw .arw .srf .sr2 .orf .rw2 .raf .pef .srw .x3f .3fr .iiq .kdc .raw".split()
)


def _is_hidden(name: str) -> bool:
    """Whether a file, or a folder around it, is hidden: a Mac's ._NAME, .DS_Store, __MACOSX ..."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


COLUMNS = {"photo", "width", "height", "split", "city", "time_of_day", "labels"}  # of scenes.csv


def file_identity(source: Path | ZippedFile) -> tuple[int, int]:
    """Size and time (or checksum), which change with the file; hashing 11 GB takes minutes."""
    if isinstance(source, ZippedFile):
        return (source.size, source.crc)
    status = source.stat()
    return (status.st_size, status.st_mtime_ns)


def visible_files(folder: Path) -> list[Path]:
    """The files of a folder, or the one file itself, sorted by name, without the hidden ones."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    return [path for path in inside if path.is_file() and not _is_hidden(path.name)]


def pictures(folder: Path) -> tuple[list[Path], list[Path]]:
    """The photos of a folder, and the pictures of other kinds, which can't be read."""
    photos, others = (
        [path for path in visible_files(folder) if path.suffix.lower() in endings]
        for endings in (PHOTO_ENDINGS, _OTHER_ENDINGS)
    )
    return photos, others


def warn_of_unused(photos: Path, count: int, left_out: list, maps: list) -> None:
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


def street_lines(folder: Path) -> list[dict[str, str]]:
    """The lines of scenes.csv in data/streets: one a photo, with COLUMNS."""
    table = folder / "scenes.csv"
    if not table.is_file():
        raise FileNotFoundError(f"{table} is not there: pass the project's folder data/streets.")
    with open(table, newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        if None in line.values() or not COLUMNS <= line.keys() or line["labels"] not in MEANINGS:
            raise ValueError(
                f"{table} has the line {line}: expected the columns {', '.join(sorted(COLUMNS))}, "
                f"and one of {', '.join(MEANINGS)} as labels."
            )
    return lines


def listed_photos(folder: Path, split: str) -> list[tuple[Path, Path, dict[str, str]]]:
    """Each photo of a split that scenes.csv in data/streets lists, its label map, and its line."""
    if split == "test":
        raise ValueError('"streets" has no test photos: take "val".')
    listed = []
    for line in street_lines(folder):
        if line["split"] != split:
            continue
        photo = folder / line["photo"]
        label_map = photo.parents[1] / "maps" / f"{photo.stem}.png"
        for path in (photo, label_map):
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} is not there, though scenes.csv lists it: get the project's folder "
                    "data/streets again."
                )
        listed.append((photo, label_map, line))
    return listed


def existing_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not there: data/README.md shows the folders that are expected."
        )
    return folder


NO_MAP = "{photo} has no label map: {label_map} is not there; get it, or move the photo away."


def not_empty(entries: list[tuple], folder: Path, pattern: str) -> list[tuple]:
    if not entries:
        raise ValueError(f"{folder} holds no photo ({pattern}): data/README.md shows the layout.")
    return entries


def official_files(
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
        elif name.lower().endswith(PHOTO_ENDINGS + _OTHER_ENDINGS):
            others.append(file)
    return taken, others
