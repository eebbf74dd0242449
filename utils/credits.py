"""Who made the real photos that come with the project, and under which licence they are.

credit_of("my photos/california_0026.jpg")  # None, unless it is one of the project's photos
CREDITS["Karlsruhe"]                        # by city, as in Scene.city
"""

import filecmp
import functools
from dataclasses import dataclass
from pathlib import Path

from utils.files import PROJECT
from utils.folders import street_lines

STREETS = PROJECT / "data" / "streets"


@dataclass(frozen=True)
class Credit:
    """The credit that has to stand wherever a photo is shown; str() gives the full text."""

    source: str
    authors: str
    licence: str
    licence_url: str
    source_url: str | None = None
    changes: str = (
        "reduced in size and cropped, faces and number plates blurred where they could be read"
    )

    def __str__(self) -> str:
        return (
            f"{self.source} ({self.authors}), {self.licence} ({self.licence_url}); {self.changes}"
        )


CREDITS = {
    "California": Credit(
        "Drive.ai Sample Dataset",
        "drive.ai: Brody Huval, Chih Hu, Rahul Patel",
        "CC BY 4.0",
        "https://creativecommons.org/licenses/by/4.0/",
    ),
    "Karlsruhe": Credit(
        "KITTI",
        "Geiger, Lenz, Urtasun, CVPR 2012; semantic labels: Alhaija et al., IJCV 2018",
        "CC BY-NC-SA 3.0",
        "https://creativecommons.org/licenses/by-nc-sa/3.0/",
        "https://www.cvlibs.net/datasets/kitti",
    ),
}


@functools.cache
def _photos_by_size() -> dict[int, list[tuple[Path, str]]]:
    """The photos that came with the project and are still there, each with its city."""
    found: dict[int, list[tuple[Path, str]]] = {}
    for line in street_lines(STREETS) if STREETS.is_dir() else ():
        photo = STREETS / line["photo"]
        if photo.is_file():
            found.setdefault(photo.stat().st_size, []).append((photo, line["city"]))
    return found


def city_of(path: str | Path) -> str | None:
    """The city of a photo that is a copy of one in data/streets, under any name, or None."""
    for photo, city in _photos_by_size().get(Path(path).stat().st_size, ()):
        if filecmp.cmp(path, photo, shallow=False):
            return city
    return None


def credit_of(path: str | Path) -> Credit | None:
    """Who is to be credited for a photo; None if it did not come with the project."""
    return CREDITS.get(city_of(path))
