"""Painting street maps: strokes, filling, undo, classes swapped or removed, and the picture.

Everything that the painter of notebook 07 and the explorers (widgets.py) do, without a browser:

    painting = Painting(empty_street(generator.size))
    painting.paint([(20, 50), (60, 50)], "car", size=12)
    image_u8 = draw_street(generator, painting.label_ids)

A point is (x, y) in pixels of the map, x to the right and y down from the upper left corner: the
pixel at row 0, column 0 reaches from (0, 0) to (1, 1).
"""

import difflib
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from spade import SpadeGenerator
from spade.generator import MEAN_STYLE
from utils.files import PROJECT
from utils.images import resize_map, save_image
from utils.labels import ID, NAMES, check_label_ids, label_counts, label_ids_to_colors

Points = Sequence[tuple[float, float]]

PAINTINGS = PROJECT / "out" / "paintings"
LARGEST_BRUSH = 256  # pixels across
UNDO_STEPS = 100  # a map of 256x128 has 33 kB
ANY = "any"  # a city or an hour that is left open
HOURS = ("morning", "noon", "day", "dusk", "night")
BRIGHT = ("noon", "day")  # those that daylight() looks for, the better one first


# ------------------------------------------------------------------------------ classes


def class_id(name: str) -> int:
    """The label id of a class: class_id("car") == 26.

    Raises ValueError: no class has that name; names similar ones.
    """
    if name not in ID:
        close = difflib.get_close_matches(str(name).lower(), NAMES, n=3) or NAMES
        raise ValueError(f"There is no class {name!r}: did you mean {', '.join(close)}?")
    return ID[name]


def class_names(label_ids: torch.Tensor) -> list[str]:
    """The names of the classes that occur in a map (H, W) of label ids, the largest first."""
    return [NAMES[label] for label in label_counts(label_ids)]


def swap_class(label_ids: torch.Tensor, from_name: str, to_name: str) -> torch.Tensor:
    """Make all pixels of one class another one: what if the cars were buses?

    Args:
        label_ids: (H, W) uint8, label ids 0..33; it stays as it is.
        from_name, to_name: the classes' names, as in utils.labels.NAMES.

    Returns:
        The changed map, (H, W) uint8.

    Raises ValueError: an unknown name, or a class that the map does not hold.
    """
    return label_ids.masked_fill(_pixels_of(label_ids, from_name), class_id(to_name))


def remove_class(label_ids: torch.Tensor, name: str) -> torch.Tensor:
    """Take all pixels of a class away and let what surrounds them grow into the gap.

    Args:
        label_ids: (H, W) uint8, label ids 0..33; it stays as it is.
        name: the class's name, as in utils.labels.NAMES.

    Returns:
        The changed map, (H, W) uint8: each gap has the label of the nearest pixel of another class.

    Raises ValueError: an unknown name, a class that the map does not hold, or that is all it holds.
    """
    gap = _pixels_of(label_ids, name)
    if bool(gap.all()):
        raise ValueError(f"The map is {name} and nothing else: there is nothing to grow into it.")
    # Only pixels that touch the gap can be nearest to one inside it.
    near = torch.nn.functional.max_pool2d(gap[None].float(), 3, stride=1, padding=1)[0] > 0
    rim = (near & ~gap).nonzero().int()  # (M, 2)
    filled = label_ids.clone()
    for places in gap.nonzero().int().split(1024):  # (N, 2): bounds the memory of the distances
        distances = (places[:, None] - rim).square().sum(-1)  # (N, M), squared
        nearest = rim[distances.argmin(1)]
        filled[places[:, 0], places[:, 1]] = label_ids[nearest[:, 0], nearest[:, 1]]
    return filled


def _pixels_of(label_ids: torch.Tensor, name: str) -> torch.Tensor:
    """The pixels of a map that have that class, (H, W) bool; ValueError if there are none."""
    pixels = label_ids == class_id(name)
    if not bool(pixels.any()):
        raise ValueError(
            f"There is no {name} in this map: it holds {', '.join(class_names(label_ids))}."
        )
    return pixels


# ------------------------------------------------------------------------------ maps and marks


def empty_street(size: tuple[int, int]) -> torch.Tensor:
    """A street with nothing on it: sky above, a road with sidewalks below -> (H, W) uint8.

    Args:
        size: (width, height).
    """
    width, height = size
    x = (torch.arange(width) + 0.5) / width
    y = (torch.arange(height)[:, None] + 0.5) / height
    nearness = (y - 0.45) / 0.55  # 0 at the horizon, 1 at the lower rim
    beside = (x - 0.5).abs()  # from the road's middle
    label_ids = torch.full((height, width), ID["sky"], dtype=torch.uint8)
    label_ids[(nearness > 0).expand(height, width)] = ID["sidewalk"]
    label_ids[(nearness > 0) & (beside < 0.06 + 0.5 * nearness)] = ID["road"]
    return label_ids


def stroke_mask(points: Points, size: float, shape: tuple[int, int]) -> torch.Tensor:
    """The pixels under a round brush that moves along a line from point to point.

    Args:
        points: one or more (x, y) in pixels; they may lie outside of the map.
        size: the brush's diameter in pixels, 1..256.
        shape: (H, W) of the map.

    Returns:
        (H, W) bool: pixels whose centre is no further than size / 2 from the line.  A brush of 1
        still marks a pixel at every point.

    Raises ValueError: no points, a point that is no pair of finite numbers, or another size.
    """
    if not 1 <= size <= LARGEST_BRUSH:
        raise ValueError(f"The brush has size {size}: expected 1 to {LARGEST_BRUSH} pixels.")
    line = _as_points(points)
    rows = torch.arange(shape[0], dtype=torch.float64)[:, None] + 0.5
    columns = torch.arange(shape[1], dtype=torch.float64) + 0.5
    # No point is further than sqrt(1/2) from a pixel's centre.
    reach = max(size / 2, 0.7072) ** 2
    mask = torch.zeros(shape, dtype=torch.bool)
    for (x0, y0), (x1, y1) in zip(line, line[1:] or line):
        dx, dy = x1 - x0, y1 - y0
        length = dx * dx + dy * dy
        # The place on the piece, 0..1, that is nearest to each pixel's centre.
        along = ((columns - x0) * dx + (rows - y0) * dy) / (length or 1)
        along = along.clamp(0, 1)  # (H, W)
        mask |= (columns - x0 - along * dx) ** 2 + (rows - y0 - along * dy) ** 2 <= reach
    return mask


def fill_mask(label_ids: torch.Tensor, point: tuple[float, float]) -> torch.Tensor:
    """The connected pixels of one class around a point.

    Args:
        label_ids: (H, W) uint8, label ids 0..33.
        point: (x, y) in pixels, inside of the map.

    Returns:
        (H, W) bool; pixels are connected across their sides, not across corners.

    Raises ValueError: a point outside of the map.
    """
    ((x, y),) = _as_points([point])
    height, width = label_ids.shape
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(f"The point ({x:g}, {y:g}) is not in the map of {width}x{height} pixels.")
    canvas = Image.fromarray(label_ids.cpu().numpy()).copy()  # fromarray() gives a read-only one
    marked = len(NAMES)  # a value that no label has
    ImageDraw.floodfill(canvas, (int(x), int(y)), marked)
    return torch.from_numpy(np.array(canvas) == marked)


def _as_points(points: Points) -> list[list[float]]:
    array = np.array(points, dtype=float)
    if array.ndim != 2 or array.shape[1] != 2 or not len(array) or not np.isfinite(array).all():
        raise ValueError(
            f"{points!r:.80} are no points: expected at least one (x, y) of two finite numbers."
        )
    return array.tolist()


# ------------------------------------------------------------------------------ a painting


class Painting:
    """A label map to paint on, with undo.

    Args:
        start_ids: (H, W) integers, label ids 0..33: what is there at first, and what erase() brings
            back.

    Attributes:
        start_ids, label_ids: (H, W) uint8.  Each step makes a new label_ids: one that was handed
            out does not change.

    Raises ValueError: no map of label ids.
    """

    def __init__(self, start_ids: torch.Tensor):
        self._earlier: deque[tuple[torch.Tensor, torch.Tensor]] = deque(maxlen=UNDO_STEPS)
        self.start_ids = self.label_ids = _checked_map(start_ids)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        height, width = self.label_ids.shape
        return width, height

    def paint(self, points: Points, name: str, size: float, continues: bool = False) -> None:
        """Draw a stroke of a class, see stroke_mask.

        Args:
            continues: it is the rest of the stroke before: undo() takes both back at once.
        """
        label_id = class_id(name)
        mask = stroke_mask(points, size, self.label_ids.shape)
        self._step(self.label_ids.masked_fill(mask, label_id), continues=continues)

    def erase(self, points: Points, size: float, continues: bool = False) -> None:
        """Bring the start map back along a stroke; arguments as in paint()."""
        mask = stroke_mask(points, size, self.label_ids.shape)
        self._step(torch.where(mask, self.start_ids, self.label_ids), continues=continues)

    def fill(self, point: tuple[float, float], name: str) -> None:
        """Make the region around a point another class, see fill_mask."""
        mask = fill_mask(self.label_ids, point)
        self._step(self.label_ids.masked_fill(mask, class_id(name)))

    def start_over(self, start_ids: torch.Tensor | None = None) -> None:
        """Go back to the start map, or on to another one of the same size.

        Raises ValueError: no map of label ids, or one of another size.
        """
        if start_ids is None:
            start_ids = self.start_ids
        elif start_ids.shape != self.label_ids.shape:
            raise ValueError(
                f"The start map has shape {tuple(start_ids.shape)}, the painting "
                f"{tuple(self.label_ids.shape)}: resize it with utils.images.resize_map()."
            )
        start_ids = _checked_map(start_ids)
        self._step(start_ids, start_ids)

    def undo(self) -> None:
        """Take back the last step; a hundred steps are kept.

        Raises ValueError: there is none.
        """
        if not self._earlier:
            raise ValueError("There is nothing left to undo.")
        self.start_ids, self.label_ids = self._earlier.pop()

    def _step(
        self,
        label_ids: torch.Tensor,
        start_ids: torch.Tensor | None = None,
        continues: bool = False,
    ) -> None:
        if not (continues and self._earlier):
            self._earlier.append((self.start_ids, self.label_ids))
        self.label_ids = label_ids
        self.start_ids = self.start_ids if start_ids is None else start_ids


def _checked_map(label_ids: torch.Tensor) -> torch.Tensor:
    """A copy as uint8 on the CPU; ValueError if it is no single map of label ids."""
    check_label_ids(label_ids, "the start map")
    if label_ids.dim() != 2:
        raise ValueError(
            f"The start map has shape {tuple(label_ids.shape)}, expected (H, W): take one map of "
            "the batch, label_ids[0]."
        )
    return label_ids.to("cpu", torch.uint8, copy=True)


# ------------------------------------------------------------------------------ the picture


def at_size(
    label_ids: torch.Tensor, size: tuple[int, int], source: str = "the map"
) -> torch.Tensor:
    """A map (H, W) or (B, H, W) at the size (width, height) of a generator; nearest-neighbour.

    Args:
        source: how the message names it.

    Raises ValueError: the map has another shape (aspect), so that it would be distorted.
    """
    height, width = label_ids.shape[-2:]
    if width * size[1] != height * size[0]:
        raise ValueError(
            f"{source} is {width}x{height} (width x height), and the generator makes "
            f"{size[0]}x{size[1]}: cut it to that shape first, with utils.images.crop_to_aspect()."
        )
    return resize_map(label_ids, size)


def daylight(generator: SpadeGenerator) -> str:
    """The name of the generator's style of a bright day; the mean style if it has none."""
    hours = [(name, hour) for hour in BRIGHT for name in generator.styles]
    bright = [name for name, hour in hours if name.rpartition(", ")[2] == hour]
    return min(bright, key=lambda name: ", " in name, default=MEAN_STYLE)  # of all cities, if any


def styles_by_city(generator: SpadeGenerator) -> dict[str, dict[str, str]]:
    """A generator's styles in two lists: city -> hour -> the name for generator.style().

    Each list ends with "any".  A city that was seen at some hours only has only these.
    """
    by_city = {}
    for name in generator.styles:
        city, _, hour = (ANY, "", name) if name in HOURS else name.partition(", ")
        by_city.setdefault(city, {})[hour or ANY] = name
    by_city[ANY] = by_city.pop(ANY, {}) | {ANY: MEAN_STYLE}
    ranks = {hour: rank for rank, hour in enumerate(HOURS)}

    def in_order(hours: dict[str, str]) -> dict[str, str]:
        return dict(sorted(hours.items(), key=lambda item: ranks.get(item[0], len(HOURS))))

    return {city: in_order(hours) for city, hours in by_city.items()}


def draw_street(
    generator: SpadeGenerator, label_ids: torch.Tensor, style: str = MEAN_STYLE
) -> torch.Tensor:
    """The picture that a generator draws into a map, in one of its styles.

    Args:
        label_ids: (H, W) or (B, H, W) integers, label ids 0..33, of the shape (the aspect) that the
            generator is made for; another size is resized to generator.size, nearest-neighbour.
        style: a name for generator.style(): a city, a time of day, or "mean".

    Returns:
        image_u8, (3, H, W) or (B, 3, H, W) uint8 of generator.size, on the CPU.

    Raises ValueError: a map of another shape, or a style that the generator does not have.
    """
    z = generator.style(style)
    return generator.synthesize(at_size(label_ids, generator.size), z=z).cpu()


def save_street(
    label_ids: torch.Tensor, image_u8: torch.Tensor, name: str, folder: str | Path = PAINTINGS
) -> list[Path]:
    """Save a map and its picture; files of the same name are replaced.

    Args:
        label_ids: (H, W) uint8, label ids 0..33.
        image_u8: (3, H, W) uint8.
        name: what the files' names begin with.
        folder: it is made if it is not there.

    Returns:
        The files, all PNG: <name>_labelIds (read it back with utils.images.read_map),
        <name>_color (the map to look at) and <name> (the picture).

    Raises ValueError: a name that is empty or has a slash.
    """
    if not name.strip() or set(name) & set('/\\:*?"<>|'):
        raise ValueError(f"{name!r} can't name a file: use letters, digits, spaces, - and _.")
    files = {
        f"{name}_labelIds.png": label_ids,
        f"{name}_color.png": label_ids_to_colors(label_ids),
        f"{name}.png": image_u8,
    }
    return [save_image(picture, Path(folder) / file) for file, picture in files.items()]
