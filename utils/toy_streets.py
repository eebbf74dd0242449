"""Toy streets: procedurally drawn street scenes in the Cityscapes label space.

One drawing makes photo, label map and instance map: a `_Canvas` projects shapes given in metres
through one camera (x to the right, y up from the road, z ahead) and paints them, far to near, into
the photo and the instance map at once; the label map follows from the instance map.  So the labels
are exact, and there is nothing to download.

Three random streams keep apart what must not disturb one another: the layout (where things stand),
the style (colours, crowns, lit windows) and the texture.  Size and time of day leave the layout as
it is; another city changes building heights and the number of trees only.
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

from utils.labels import ID

CITIES = ("Backsteinhafen", "Sonnental", "Glasquai", "Weissenau", "Plattenberg", "Tulpenried")
TIMES_OF_DAY = ("morning", "noon", "dusk", "night")

NEAR, FAR = 1.5, 130.0  # metres: where the street begins (behind the bonnet) and ends
OVERSAMPLING = 2  # the photo is drawn this much larger, then averaged; the maps are subsampled
LANE = 3.2  # metres
HAZE = 380.0  # metres: at this distance half of a colour is the sky's

Color = tuple[int, int, int]
Point = tuple[float, float, float]  # x, y, z in metres


class Street(NamedTuple):
    image_u8: torch.Tensor  # (3, H, W) uint8 RGB
    label_ids: torch.Tensor  # (H, W) uint8, 0..33
    instance_ids: torch.Tensor  # (H, W) int32, class*1000+n for things, the label id for the rest
    city: str
    time_of_day: str


class _City(NamedTuple):
    facades: tuple[Color, ...]
    trim: Color  # of window frames, cornices
    roof: Color
    gables: bool  # pitched roofs with gables, else flat ones with a cornice
    floors: tuple[int, int]
    window: tuple[float, float, float]  # width, height, spacing in metres
    greenery: float  # 0..1: how many of the possible trees stand
    foliage: tuple[Color, ...]
    road: Color
    pavement: Color


class _Light(NamedTuple):
    color: tuple[float, float, float]  # what every surface colour is multiplied with
    sky_top: Color
    sky_horizon: Color
    sun: float  # -1: from the left, 1: from the right
    shadow: int  # opacity of shadows, 0..255
    lit_windows: float  # share
    lamps: float  # strength of the glow of lamps, 0..1


_CITY_STYLES = {
    "Backsteinhafen": _City(
        ((150, 72, 56), (128, 60, 50), (168, 92, 66), (116, 66, 58)), (226, 220, 208), (70, 62, 64),
        True, (3, 5), (1.1, 1.7, 2.4), 0.55, ((74, 104, 48), (92, 116, 50)),
        (98, 98, 104), (168, 150, 142),
    ),
    "Sonnental": _City(
        ((232, 196, 128), (222, 164, 108), (238, 214, 168), (212, 142, 110)), (250, 240, 220),
        (176, 88, 58), True, (2, 4), (1.0, 1.5, 2.6), 0.65, ((88, 122, 44), (112, 132, 58)),
        (118, 112, 106), (206, 190, 164),
    ),
    "Glasquai": _City(
        ((120, 150, 172), (142, 166, 178), (100, 124, 150), (168, 178, 186)), (206, 214, 220),
        (90, 98, 108), False, (6, 11), (2.3, 2.3, 2.7), 0.45, ((66, 112, 60), (84, 128, 62)),
        (84, 86, 92), (182, 184, 186),
    ),
    "Weissenau": _City(
        ((236, 234, 226), (224, 222, 216), (240, 230, 210), (214, 220, 222)), (120, 128, 132),
        (112, 84, 76), True, (2, 3), (1.3, 1.4, 2.9), 0.95, ((70, 118, 52), (98, 140, 60)),
        (108, 108, 110), (190, 184, 178),
    ),
    "Plattenberg": _City(
        ((168, 164, 156), (150, 148, 146), (182, 170, 150), (140, 146, 156)), (204, 202, 196),
        (110, 108, 104), False, (5, 8), (1.7, 1.4, 2.5), 0.6, ((82, 104, 56), (100, 112, 58)),
        (104, 102, 100), (158, 156, 154),
    ),
    "Tulpenried": _City(
        ((196, 84, 84), (92, 140, 156), (226, 178, 84), (126, 158, 108), (214, 140, 158)),
        (246, 244, 238), (92, 76, 84), True, (3, 4), (1.2, 1.8, 2.1), 0.7,
        ((84, 126, 50), (118, 144, 62)), (124, 104, 98), (192, 172, 158),
    ),
}  # fmt: skip
assert tuple(_CITY_STYLES) == CITIES

_LIGHTS = {
    "morning": _Light(
        (1.0, 0.93, 0.83), (126, 168, 214), (252, 226, 190), -1.0, 80, 0.05, 0.0
    ),
    "noon": _Light((1.05, 1.05, 1.03), (80, 142, 214), (206, 224, 238), 1.0, 110, 0.0, 0.0),
    "dusk": _Light((0.70, 0.57, 0.57), (72, 72, 124), (248, 156, 96), 1.0, 60, 0.35, 0.6),
    "night": _Light((0.36, 0.37, 0.47), (10, 14, 36), (50, 54, 86), -1.0, 60, 0.4, 1.0),
}  # fmt: skip
assert tuple(_LIGHTS) == TIMES_OF_DAY

_CAR_COLORS = (
    (188, 30, 36), (30, 62, 140), (228, 228, 230), (34, 34, 40), (150, 154, 160), (70, 76, 84),
    (206, 170, 60), (48, 108, 84), (200, 204, 210), (96, 30, 40),
)  # fmt: skip
_CLOTHES = (
    (40, 50, 90), (150, 40, 50), (60, 60, 64), (190, 160, 110), (60, 110, 90), (216, 214, 208),
    (230, 150, 40), (112, 72, 130), (28, 28, 32),
)  # fmt: skip
_SKIN = ((236, 196, 168), (206, 158, 124), (150, 104, 76), (96, 66, 50))
_GLASS, _RUBBER, _STEEL, _WHITE = (58, 74, 88), (26, 26, 28), (122, 126, 130), (232, 232, 226)
_WARM, _RED, _LAMP = (255, 208, 128), (226, 34, 28), (255, 244, 214)
_GRASS, _BARK, _STONE = (112, 138, 66), (84, 66, 52), (150, 142, 130)

# Strength of the fine and of the blotchy grain that each class's surface gets, in parts of 1.
_FINE_GRAIN = np.full(34, 0.05, np.float32)
_BLOTCHES = np.full(34, 0.03, np.float32)
for _name, _fine, _blotchy in (
    ("road", 0.07, 0.05), ("sidewalk", 0.06, 0.05), ("parking", 0.08, 0.05), ("ground", 0.1, 0.1),
    ("rail track", 0.16, 0.1), ("building", 0.045, 0.05), ("wall", 0.1, 0.1),
    ("vegetation", 0.26, 0.24), ("terrain", 0.13, 0.14), ("sky", 0.0, 0.05), ("car", 0.02, 0.02),
    ("rectification border", 0.0, 0.0), ("out of roi", 0.0, 0.0), ("ego vehicle", 0.01, 0.03),
):  # fmt: skip
    _FINE_GRAIN[ID[_name]], _BLOTCHES[ID[_name]] = _fine, _blotchy


class _Canvas:
    """Photo and instance map under one camera; all that draws goes through here."""

    def __init__(
        self,
        size: tuple[int, int],
        city: _City,
        light: _Light,
        layout: np.random.Generator,
        style: np.random.Generator,
    ):
        self.size = (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING)
        self.city, self.light, self.style = city, light, style
        # Units of the picture's height: a 2:1 picture reaches from 0 to 2, and from 0 to 1.
        self.vanishing_x, self.horizon = layout.uniform(0.88, 1.12), layout.uniform(0.45, 0.49)
        self.focal, self.eye = layout.uniform(1.5, 1.75), layout.uniform(1.25, 1.5)
        self._centre = (self.vanishing_x * self.size[0] / 2, self.horizon * self.size[1])
        self._scale = (self.focal * self.size[0] / 2, self.focal * self.size[1])
        self.photo = _sky(self.size, self.horizon, light)
        self.instances = Image.new("I", self.size, ID["sky"])
        self._paint = ImageDraw.Draw(self.photo)
        self._glaze = ImageDraw.Draw(self.photo, "RGBA")
        self._mark = ImageDraw.Draw(self.instances)
        # Multiplied with the light, this is warm light again: it shines by itself.
        self.warm = tuple(int(c / k) for c, k in zip(_WARM, light.color, strict=True))
        self.glows: list[tuple[int, int, int, float, float, Color]] = []
        self._count = Counter()

    def new(self, name: str) -> int:
        """The id of one more thing of this class."""
        self._count[name] += 1
        return ID[name] * 1000 + self._count[name] - 1

    def pick(self, choices: tuple) -> Color:
        return choices[int(self.style.random() * len(choices))]

    def at(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Where a point in space appears, in pixels of the oversampled picture."""
        z = NEAR if z < NEAR else z
        return (
            self._centre[0] + self._scale[0] * x / z,
            self._centre[1] + self._scale[1] * (self.eye - y) / z,
        )

    def lit(self, color: Color, z: float, shade: float = 1.0) -> Color:
        """A surface colour under this light, paler in the distance."""
        far = z / (z + HAZE)
        near = (1 - far) * shade
        (red, green, blue), light, sky = color, self.light.color, self.light.sky_horizon
        red = int(red * light[0] * near + sky[0] * far)
        green = int(green * light[1] * near + sky[1] * far)
        blue = int(blue * light[2] * near + sky[2] * far)
        return min(red, 255), min(green, 255), min(blue, 255)

    def polygon(self, points: list[Point], color: Color, id_: int | None = None, shade=1.0) -> None:
        """A polygon in space; without an id it is a detail, seen in the photo only."""
        pixels = [self.at(*point) for point in points]
        self._paint.polygon(pixels, fill=self.lit(color, points[0][2], shade))
        if id_ is not None:
            self._mark.polygon(pixels, fill=id_)

    def card(self, x, z, outline, color: Color, id_: int | None = None, shade=1.0) -> None:
        """A polygon that faces the camera; outline: (dx, y) in metres from (x, 0, z)."""
        self.polygon([(x + dx, y, z) for dx, y in outline], color, id_, shade)

    def bar(self, x, z, left, bottom, right, top, color, id_=None, shade=1.0) -> None:
        """An upright rectangle that faces the camera."""
        outline = ((left, bottom), (right, bottom), (right, top), (left, top))
        self.card(x, z, outline, color, id_, shade)

    def disc(self, x, y, z, rx, ry, color: Color, id_: int | None = None, shade=1.0) -> None:
        """An upright ellipse that faces the camera."""
        box = (*self.at(x - rx, y + ry, z), *self.at(x + rx, y - ry, z))
        if box[0] > self.size[0] or box[2] < 0 or box[3] < 0:
            return
        self._paint.ellipse(box, fill=self.lit(color, z, shade))
        if id_ is not None:
            self._mark.ellipse(box, fill=id_)

    def lamp(self, x, y, z, radius, color: Color, glow=0.0) -> None:
        """A disc that shines by itself; at dusk and night it glows `glow` metres around."""
        on = self.light.lamps > 0
        box = [self.at(x - radius, y + radius, z), self.at(x + radius, y - radius, z)]
        self._paint.ellipse(box, fill=color if on else self.lit(color, z))
        if on and glow:
            self.glow(x, y, z, glow, color)

    def glow(self, x, y, z, radius, color: Color, flat: float = 1.0) -> None:
        """Light around a lamp, added at the end; flat < 1 for a pool of light on the ground."""
        (px, py), reach = self.at(x, y, z), radius * self.focal / z
        if 0 <= px < self.size[0] and 0 <= py < self.size[1]:
            self.glows.append((int(px), int(py), self.id_at(px, py), reach, reach * flat, color))

    def id_at(self, px: float, py: float) -> int:
        """What has been painted at this pixel so far."""
        return self.instances.getpixel((int(px), int(py)))

    def wall(self, x, z0, z1, y0, y1, color, id_=None, shade=1.0) -> None:
        """An upright rectangle along the street, at this x from z0 to z1."""
        self.polygon([(x, y0, z0), (x, y1, z0), (x, y1, z1), (x, y0, z1)], color, id_, shade)

    def floor(self, x0, x1, z0, z1, color, id_=None, y=0.0, shade=1.0) -> None:
        """A level rectangle."""
        self.polygon([(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)], color, id_, shade)

    def shadow(self, x0, x1, z0, z1, strength=1.0) -> None:
        """An octagon of shade on the ground, in the photo only."""
        a, b, c, d = (x0 + (x1 - x0) * k for k in (0, 0.2, 0.8, 1))
        k, m = z0 + (z1 - z0) * 0.25, z0 + (z1 - z0) * 0.75
        ring = ((a, k), (b, z0), (c, z0), (d, k), (d, m), (c, z1), (b, z1), (a, m))
        opacity = int(self.light.shadow * strength)
        self._glaze.polygon([self.at(x, 0, z) for x, z in ring], fill=(12, 12, 28, opacity))

    def veil(self, points: list[Point], color: Color, opacity: int) -> None:
        """A see-through polygon, in the photo only."""
        fill = (*self.lit(color, points[0][2]), opacity)
        self._glaze.polygon([self.at(*point) for point in points], fill=fill)

    def sunny(self, side: int) -> float:
        """How bright a wall on this side (-1 left, 1 right) is; the sun's side lies in shade."""
        return 1.04 - 0.14 * self.light.sun * side

    def screen(self, outline, color: Color, id_: int) -> None:
        """A polygon in picture coordinates 0..1, not in space."""
        pixels = [(u * self.size[0], v * self.size[1]) for u, v in outline]
        self._paint.polygon(pixels, fill=color)
        self._mark.polygon(pixels, fill=id_)


def _sky(size: tuple[int, int], horizon: float, light: _Light) -> Image.Image:
    down = np.clip(np.linspace(0, 1 / horizon, size[1], dtype=np.float32), 0, 1)[:, None]
    top, bottom = np.float32(light.sky_top), np.float32(light.sky_horizon)
    column = (top * (1 - down) + bottom * down).astype(np.uint8)
    return Image.fromarray(np.repeat(column[:, None], size[0], axis=1))


# --- things that stand on the ground; z is their nearest point -----------------------------------


def _tree(canvas: _Canvas, x: float, z: float, height: float, spread: float) -> None:
    id_, random = ID["vegetation"], canvas.style.random
    color = canvas.pick(canvas.city.foliage)
    sun = canvas.light.sun
    canvas.shadow(x - spread - sun * spread, x + spread - sun * spread, z - 1.2, z + 1.6, 0.8)
    trunk = height - 1.2 * spread
    canvas.card(x, z, ((-0.2, 0), (0.2, 0), (0.12, trunk), (-0.12, trunk)), _BARK, id_)
    lobes = [(0.0, 0.0, 1.0)] + [
        ((random() - 0.5) * 1.3, (random() - 0.5) * 1.3, 0.45 + 0.3 * random())
        for _ in range(7 if z < 60 else 3)
    ]
    for dx, dy, size in lobes:
        radius = spread * size
        canvas.disc(x + dx * spread, height + dy * spread, z, radius, radius, color, id_, 0.72)
    for _ in range(int(3 + 420 / (z + 6))):  # dabs of leaves, brighter towards sun and sky
        dx, dy = (random() - 0.5) * 1.7, (random() - 0.5) * 1.7
        if dx * dx + dy * dy < 0.72:
            shade = 0.88 + 0.2 * (dy + 0.6 * dx * sun) + 0.2 * random()
            size = spread * (0.1 + 0.12 * random())
            canvas.disc(x + dx * spread, height + dy * spread, z, size, size, color, None, shade)


def _bush(canvas: _Canvas, x: float, z: float, height: float) -> None:
    color = canvas.pick(canvas.city.foliage)
    for _ in range(5):
        dx, size = (canvas.style.random() - 0.5) * height, 0.5 + 0.3 * canvas.style.random()
        shade = 0.7 + 0.25 * canvas.style.random()
        radius = height * size * 0.7
        canvas.disc(x + dx, radius * 0.8, z, radius, radius, color, ID["vegetation"], shade)


def _pole(canvas, x, z, height, radius=0.07, color=_STEEL, label="pole") -> None:
    canvas.bar(x, z, -radius, 0, radius, height, color, ID[label])
    canvas.bar(x, z, -radius, 0, 0, height, color, None, 0.75)


def _street_lamp(canvas: _Canvas, x: float, z: float, side: int) -> None:
    _pole(canvas, x, z, 6.2, 0.08)
    canvas.bar(x, z, min(0, -side * 1.3), 6.1, max(0, -side * 1.3), 6.25, _STEEL, ID["pole"])
    canvas.bar(x - side * 1.3, z, -0.4, 6.02, 0.4, 6.22, _STEEL, ID["pole"])
    canvas.lamp(x - side * 1.3, 6.05, z, 0.17, _LAMP, 1.3)
    if canvas.light.lamps:
        canvas.glow(x - side * 1.6, 0.1, z, 3.2, (120, 98, 60), 0.22)


def _sign(canvas: _Canvas, x: float, z: float, kind: int) -> None:
    id_ = ID["traffic sign"]
    _pole(canvas, x, z, 2.4, 0.05)
    if kind == 0:  # no entry, speed limits
        canvas.disc(x, 2.6, z, 0.44, 0.44, _RED, id_)
        canvas.disc(x, 2.6, z, 0.3, 0.3, _WHITE)
    elif kind == 1:  # give way, warning
        canvas.card(x, z, ((-0.52, 2.2), (0.52, 2.2), (0, 3.1)), _RED, id_)
        canvas.card(x, z, ((-0.3, 2.32), (0.3, 2.32), (0, 2.85)), _WHITE)
    elif kind == 2:  # parking, crossing
        canvas.bar(x, z, -0.42, 2.2, 0.42, 3.04, (30, 84, 170), id_)
        canvas.bar(x, z, -0.12, 2.35, 0.12, 2.9, _WHITE)
    else:  # a board with the way to other towns
        canvas.bar(x, z, -0.9, 2.1, 0.9, 3.2, (232, 196, 50), id_)
        canvas.bar(x, z, -0.7, 2.75, 0.5, 2.95, (40, 40, 40))
        canvas.bar(x, z, -0.7, 2.35, 0.2, 2.55, (40, 40, 40))


def _traffic_light(canvas: _Canvas, x: float, z: float, phase: int) -> None:
    _pole(canvas, x, z, 3.3, 0.07, (70, 74, 76))
    canvas.bar(x, z, -0.24, 2.4, 0.24, 3.6, (36, 38, 38), ID["traffic light"])
    for i, color in enumerate(((240, 40, 30), (250, 180, 40), (60, 220, 120))):
        if i == phase:
            canvas.lamp(x, 3.38 - 0.38 * i, z, 0.16, color, 0.5)
        else:
            canvas.disc(x, 3.38 - 0.38 * i, z, 0.15, 0.15, color, None, 0.32)


def _bin(canvas: _Canvas, x: float, z: float, kind: int) -> None:
    color = ((52, 92, 62), (60, 62, 66), (196, 160, 40))[kind]
    half, top = ((0.32, 1.15), (0.12, 1.0), (0.4, 1.35))[kind]
    canvas.shadow(x - half, x + half, z - 0.1, z + 0.6)
    canvas.bar(x, z, -half, 0, half, top, color, ID["static"])
    canvas.bar(x, z, -half * 1.1, top - 0.12, half * 1.1, top, color, ID["static"], 0.7)


def _pole_group(canvas: _Canvas, x: float, z: float) -> None:
    for dx in (-0.22, 0.0, 0.22):
        _pole(canvas, x + dx, z, 2.6 - abs(dx) * 3, 0.06, label="polegroup")


def _person(canvas: _Canvas, x: float, z: float, height: float, step: float) -> None:
    id_, k = canvas.new("person"), height / 1.75
    coat, trousers, skin = canvas.pick(_CLOTHES), canvas.pick(_CLOTHES), canvas.pick(_SKIN)
    canvas.shadow(x - 0.3, x + 0.3, z - 0.2, z + 0.3)
    for foot, shade in ((-step, 0.6), (step, 0.75)):
        leg = ((foot - 0.08, 0), (foot + 0.1, 0), (0.15, 0.88 * k), (-0.15, 0.88 * k))
        canvas.card(x, z, leg, trousers, id_, shade)
    arms = ((-0.3, 0.8), (-0.24, 1.45), (0.24, 1.45), (0.3, 0.8), (0.2, 0.8), (-0.2, 0.8))
    canvas.card(x, z, [(dx, y * k) for dx, y in arms], coat, id_, 0.82)
    canvas.bar(x, z, -0.17, 0.78 * k, 0.17, 1.47 * k, coat, id_)
    canvas.disc(x, 1.62 * k, z, 0.13, 0.15 * k, skin, id_)
    canvas.disc(x, 1.68 * k, z, 0.13, 0.09 * k, canvas.pick(((40, 30, 24), (110, 78, 40))))


def _dog(canvas: _Canvas, x: float, z: float) -> None:
    id_, color = ID["dynamic"], canvas.pick(((90, 66, 46), (40, 38, 38), (190, 160, 120)))
    for dx in (-0.26, -0.16, 0.18, 0.28):
        canvas.bar(x, z, dx - 0.04, 0, dx + 0.04, 0.3, color, id_, 0.7)
    canvas.bar(x, z, -0.34, 0.26, 0.34, 0.52, color, id_)
    canvas.disc(x + 0.4, 0.58, z, 0.16, 0.13, color, id_)


def _bicycle(canvas: _Canvas, x: float, z: float, across: bool, color: Color) -> None:
    id_ = canvas.new("bicycle")
    if not across:  # seen from behind
        canvas.bar(x, z, -0.05, 0, 0.05, 0.7, _RUBBER, id_)
        canvas.bar(x, z, -0.07, 0.6, 0.07, 0.95, color, id_)
        canvas.bar(x, z, -0.28, 0.98, 0.28, 1.06, _STEEL, id_)
        return
    for dx in (-0.52, 0.52):
        canvas.disc(x + dx, 0.34, z, 0.35, 0.34, _RUBBER, id_)
        canvas.disc(x + dx, 0.34, z, 0.26, 0.25, (150, 148, 146))
    frame = ((-0.52, 0.3), (0.0, 0.26), (0.5, 0.34), (0.4, 0.95), (0.32, 0.72), (-0.2, 0.7))
    canvas.card(x, z, frame, color, id_)
    canvas.card(x, z, ((-0.26, 0.38), (0.0, 0.34), (0.26, 0.66), (-0.16, 0.64)), (150, 148, 146))
    canvas.bar(x, z, -0.32, 0.84, -0.06, 0.92, _RUBBER, id_)
    canvas.bar(x, z, 0.28, 0.98, 0.5, 1.04, _STEEL, id_)


def _motorcycle(canvas: _Canvas, x: float, z: float, color: Color) -> None:
    id_ = canvas.new("motorcycle")
    canvas.shadow(x - 0.4, x + 0.4, z - 0.2, z + 1.8)
    body = ((-0.16, 0.3), (0.16, 0.3), (0.3, 0.6), (0.22, 0.92), (-0.22, 0.92), (-0.3, 0.6))
    canvas.bar(x, z, -0.1, 0, 0.1, 0.5, _RUBBER, id_)
    canvas.card(x, z, ((-0.2, 0.9), (0.2, 0.9), (0.12, 1.24), (-0.12, 1.24)), _GLASS, id_)
    canvas.card(x, z, body, color, id_)
    canvas.bar(x, z, -0.2, 0.86, 0.2, 0.96, _RUBBER, id_)  # the seat
    canvas.bar(x, z, -0.42, 1.0, 0.42, 1.06, _STEEL, id_)
    for dx in (-0.42, 0.42):
        canvas.disc(x + dx, 1.16, z, 0.09, 0.07, _STEEL, id_, 0.7)
    canvas.lamp(x, 0.8, z, 0.09, _RED, 0.25)


def _rider(canvas: _Canvas, x: float, z: float, across: bool, motor: bool) -> None:
    """A rider and what they ride: two things, two labels."""
    coat, skin, color = canvas.pick(_CLOTHES), canvas.pick(_SKIN), canvas.pick(_CAR_COLORS)
    canvas.shadow(x - 0.5, x + 0.5, z - 0.1, z + 0.5)
    if motor:
        _motorcycle(canvas, x, z, color)
    else:
        _bicycle(canvas, x, z, across, color)
    id_ = canvas.new("rider")
    if across and not motor:
        leg = ((-0.28, 0.9), (-0.02, 0.94), (0.14, 0.2), (0.0, 0.18))
        back = ((-0.3, 0.86), (-0.02, 0.86), (0.42, 1.06), (0.3, 1.45), (0.12, 1.5), (-0.14, 1.3))
    else:
        leg = ((-0.24, 0.4), (-0.12, 0.4), (0.12, 0.4), (0.24, 0.4), (0.2, 0.95), (-0.2, 0.95))
        back = ((-0.2, 0.85), (0.2, 0.85), (0.32, 1.1), (0.22, 1.5), (-0.22, 1.5), (-0.32, 1.1))
    head = 0.26 if across and not motor else 0.0
    canvas.card(x, z, leg, (50, 54, 70), id_)
    canvas.card(x, z, back, coat, id_)
    canvas.disc(x + head, 1.64, z, 0.13, 0.16, skin, id_)
    canvas.disc(x + head, 1.71, z, 0.15, 0.11, color, id_)  # the helmet


def _side_of(x: float, half: float) -> float | None:
    """The x of the flank that the camera sees of a thing at x; None from straight behind."""
    if x - half > 0.1:
        return x - half
    return x + half if x + half < -0.1 else None


def _wheels(canvas: _Canvas, flank: float, positions, radius: float) -> None:
    ring = ((1, 0), (0.7, 0.7), (0, 1), (-0.7, 0.7), (-1, 0), (-0.7, -0.7), (0, -1), (0.7, -0.7))
    for z in positions:
        for r, color in ((radius, _RUBBER), (radius * 0.55, _STEEL)):
            canvas.polygon([(flank, radius + r * dy, z + r * dz) for dz, dy in ring], color)


def _car(canvas: _Canvas, x: float, z: float, toward: bool, size: float) -> None:
    id_, color = canvas.new("car"), canvas.pick(_CAR_COLORS)
    half, belt, top, length = 0.88 * size, 0.86 * size, 1.45 * size, 4.3 * size
    hood, slope, trunk = (1.1, 0.75, 0.2) if toward else (0.15, 0.45, 1.2)
    nose, roof0, roof1, tail = z + hood, z + hood + slope, z + length - trunk - 0.6, z + length
    canvas.shadow(x - half - 0.15, x + half + 0.15, z - 0.25, tail + 0.2, 1.6)
    flank = _side_of(x, half)
    if flank is not None:
        inner = x + (flank - x) * 0.76
        shade = 0.62 * canvas.sunny(1 if x > 0 else -1)
        canvas.wall(flank, z, tail, 0.0, 0.3, _RUBBER, id_)
        canvas.wall(flank, z, tail, 0.24, belt, color, id_, shade)
        cabin = [(flank, belt, nose), (inner, top, roof0), (inner, top, roof1)]
        canvas.polygon([*cabin, (flank, belt, tail - trunk)], color, id_, shade)
        low, high = belt + 0.04, top - 0.1
        glass = [(flank, low, nose + 0.3), (inner, high, roof0 + 0.15), (inner, high, roof1 - 0.1)]
        canvas.polygon([*glass, (flank, low, tail - trunk - 0.25)], _GLASS, None, 0.8)
        _wheels(canvas, flank, (z + 0.75, tail - 0.8), 0.33)
    inset = half * 0.76
    canvas.floor(x - inset, x + inset, roof0, roof1, color, id_, top, 1.1)
    pane = [(x - half, belt, nose), (x + half, belt, nose)]
    canvas.polygon([*pane, (x + inset, top, roof0), (x - inset, top, roof0)], color, id_, 0.95)
    pane = [(x - half * 0.88, belt + 0.03, nose), (x + half * 0.88, belt + 0.03, nose)]
    brow = [(x + inset * 0.88, top - 0.09, roof0), (x - inset * 0.88, top - 0.09, roof0)]
    canvas.polygon(pane + brow, _GLASS)
    canvas.polygon([pane[0], brow[1], ((pane[0][0] + x) / 2, belt + 0.03, nose)], _GLASS, None, 1.5)
    canvas.floor(x - half, x + half, z, nose, color, id_, belt, 1.12)
    for edge in (-1, 1):
        tyre = sorted((edge * half, edge * (half - 0.24)))
        canvas.bar(x, z, tyre[0], 0.0, tyre[1], 0.4, _RUBBER, id_)
    face = ((-half, 0.22), (half, 0.22), (half, belt - 0.1), (half * 0.95, belt))
    canvas.card(x, z, (*face, (-half * 0.95, belt), (-half, belt - 0.1)), color, id_)
    canvas.bar(x, z, -half, 0.22, half, 0.36, (48, 48, 52))
    canvas.bar(x, z, -0.27, 0.42, 0.27, 0.54, _WHITE)  # the plate
    for edge in (-1, 1):
        if toward:
            canvas.lamp(x + edge * half * 0.76, belt - 0.22, z, 0.13, _LAMP, 0.7)
        else:
            canvas.bar(x + edge * half * 0.84, z, -0.12, belt - 0.3, 0.12, belt - 0.1, _RED)
            canvas.lamp(x + edge * half * 0.84, belt - 0.2, z, 0.1, _RED, 0.35)
    if toward:
        canvas.bar(x, z, -half * 0.5, belt - 0.28, half * 0.5, belt - 0.14, (40, 40, 44))


_LARGE = {  # half width, height, length in metres, colours
    "truck": (1.2, 3.4, 8.0, ((206, 206, 204), (50, 84, 140), (206, 120, 44), (84, 110, 84))),
    "bus": (1.25, 3.0, 11.0, ((214, 170, 40), (180, 40, 44), (220, 220, 222))),
    "train": (1.2, 3.4, 26.0, ((224, 206, 150), (40, 120, 80), (190, 44, 48))),
    "caravan": (1.1, 2.5, 5.0, ((236, 232, 222), (226, 226, 230))),
    "trailer": (0.9, 1.5, 3.0, ((96, 108, 120), (130, 96, 66))),
}


def _large_vehicle(canvas: _Canvas, name: str, x: float, z: float, toward: bool) -> None:
    """Bus, truck, train (tram), caravan, trailer: boxes that differ in size, colour and windows."""
    half, top, length, colors = _LARGE[name]
    id_, color = canvas.new(name), canvas.pick(colors)
    tail, flank, base = z + length, _side_of(x, half), 0.35
    canvas.shadow(x - half - 0.2, x + half + 0.2, z - 0.4, tail, 1.6)
    if flank is not None:
        shade = 0.68 * canvas.sunny(1 if x > 0 else -1)
        canvas.wall(flank, z, tail, 0.0, base + 0.1, _RUBBER, id_)
        canvas.wall(flank, z, tail, base, top, color, id_, shade)
        if name in ("bus", "train", "caravan"):
            canvas.wall(flank, z + 0.5, tail - 0.5, top * 0.45, top * 0.82, _GLASS, None, 0.9)
            for i in range(1, int(length / 1.6)):
                post = z + i * 1.6
                canvas.wall(flank, post, post + 0.15, top * 0.45, top * 0.82, color, None, shade)
            if canvas.light.lamps and name != "caravan":
                inside = [(flank, top * y, zz) for y, zz in ((0.5, z), (0.8, z), (0.8, tail))]
                canvas.veil([*inside, (flank, top * 0.5, tail)], canvas.warm, 150)
        _wheels(canvas, flank, (z + 1.2, tail - 1.5), 0.45)
    for edge in (-1, 1):
        tyre = sorted((edge * half, edge * (half - 0.3)))
        canvas.bar(x, z, tyre[0], 0, tyre[1], 0.5, _RUBBER, id_)
    canvas.bar(x, z, -half, base, half, top, color, id_)
    canvas.bar(x, z, -half, base, half, base + 0.2, (50, 50, 54))
    if toward or name in ("bus", "train", "caravan"):
        width = half * (0.6 if name == "caravan" else 0.88)
        canvas.bar(x, z, -width, top * 0.42, width, top * 0.78, _GLASS)
        canvas.card(x, z, ((-width, top * 0.42), (0, top * 0.78), (-width, top * 0.78)), _GLASS,
                    None, 1.4)  # fmt: skip
    elif name == "truck":  # the doors
        canvas.bar(x, z, -half * 0.92, base + 0.35, half * 0.92, top - 0.15, color, None, 0.88)
        canvas.bar(x, z, -0.03, base + 0.35, 0.03, top - 0.15, (60, 60, 60))
    if name in ("bus", "train"):  # the line's number
        canvas.bar(x, z, -half * 0.6, top * 0.83, half * 0.6, top * 0.95, (40, 36, 30))
        canvas.bar(x, z, -half * 0.4, top * 0.85, half * 0.3, top * 0.92, (255, 190, 60))
    for edge in (-1, 1):
        lamp = _LAMP if toward else _RED
        canvas.lamp(x + edge * half * 0.8, base + 0.4, z, 0.13, lamp, 0.5)


# --- what lines the street ------------------------------------------------------------------------


def _windows(canvas: _Canvas, place: Callable, length: float, floors: int, shade: float) -> None:
    """Windows of one facade; place(along, y) -> point in space; length of the facade in metres."""
    width, height, spacing = canvas.city.window
    columns = max(1, int((length - 0.6) / spacing))
    margin = (length - columns * spacing + spacing - width) / 2
    lit = canvas.style.random((columns, floors)).tolist()
    for column in range(columns):
        left = margin + column * spacing
        right = left + width
        near, far = canvas.at(*place(left, 0)), canvas.at(*place(right, 0))
        if max(near[0], far[0]) < 0 or min(near[0], far[0]) > canvas.size[0]:
            continue
        fine = abs(near[0] - far[0]) > 0.02 * canvas.size[0]
        for floor in range(floors):
            door = floor == 0 and column % 3 == 1
            y = 0.1 if door else 1.0 + 3.1 * floor if floor else 0.6
            top = y + height if floor else 2.6
            if canvas.at(*place(right, y))[1] < 0 and canvas.at(*place(left, y))[1] < 0:
                break
            if fine:  # a frame and a sill would vanish in the distance
                canvas.polygon(_pane(place, left - 0.12, right + 0.12, y - 0.2, top + 0.12),
                               canvas.city.trim, None, shade)  # fmt: skip
            pane, brightness = _pane(place, left, right, y, top), lit[column][floor]
            if brightness < canvas.light.lit_windows and not door:
                canvas.polygon(pane, canvas.warm, None, 1.0 - 0.7 * brightness)
            else:
                color = (92, 66, 50) if door else _GLASS
                canvas.polygon(pane, color, None, shade * (0.85 + 0.4 * brightness))


def _pane(place: Callable, left: float, right: float, low: float, high: float) -> list[Point]:
    return [place(left, low), place(right, low), place(right, high), place(left, high)]


def _building(canvas: _Canvas, side: int, x: float, z0: float, z1: float, draw, corner) -> None:
    """A house along the street; its end wall has windows only at a corner."""
    city, id_ = canvas.city, ID["building"]
    floors = city.floors[0] + int(draw[3] * (city.floors[1] - city.floors[0] + 1))
    color, top, back = canvas.pick(city.facades), 3.1 * floors + 0.8, x + side * 11.0
    wall_shade, front_shade = canvas.sunny(side), 0.78
    front = [(x, 0, z0), (x, top, z0), (back, top, z0), (back, 0, z0)]
    if city.gables:
        ridge, peak = x + side * 5.5, top + 4.0
        front.insert(2, (ridge, peak, z0))
        eaves = [(x - side * 0.4, top, z0), (x - side * 0.4, top, z1)]
        canvas.polygon([*eaves, (ridge, peak, z1), (ridge, peak, z0)], city.roof, id_, wall_shade)
    canvas.polygon(front, color, id_, front_shade)
    if corner:
        _windows(canvas, lambda a, y: (x + side * a, y, z0), 11.0, floors, front_shade)
    canvas.wall(x, z0, z1, 0, top, color, id_, wall_shade)
    canvas.wall(x, z0, z1, 0, 0.6, _STONE, None, wall_shade * 0.8)
    canvas.wall(x, z0, z1, 3.2, 3.5, city.trim, None, wall_shade * 0.9)
    _windows(canvas, lambda a, y: (x, y, z0 + a), z1 - z0, floors, wall_shade)
    if draw[2] < 0.4:  # an awning above the shop
        out, awning = x - side * 1.1, canvas.pick(_CAR_COLORS)
        edge = [(x, 3.1, z0 + 0.5), (x, 3.1, z1 - 0.5), (out, 2.6, z1 - 0.5), (out, 2.6, z0 + 0.5)]
        canvas.polygon(edge, awning, id_, wall_shade)
        canvas.wall(out, z0 + 0.5, z1 - 0.5, 2.4, 2.6, awning, id_, wall_shade * 0.8)
    rim = x - side * 0.3
    canvas.wall(rim, z0, z1, top - 0.35, top + 0.1, city.trim, id_, wall_shade * 0.92)


def _park(canvas: _Canvas, side: int, x: float, z0: float, z1: float, edge: int) -> None:
    """Trees on grass, behind a fence, a wall or a hedge."""
    canvas.floor(x, x + side * 40, z0, z1, _GRASS, ID["terrain"])
    z = z1 - 1.0
    while z > z0 + 1:
        for row in (13.0, 7.0):
            offset, height = canvas.style.random() * 2, 4.5 + 2.5 * canvas.style.random()
            _tree(canvas, x + side * (row + offset), z, height, 2.6)
        _bush(canvas, x + side * 3.0, z, 1.3)
        z -= 5.0 if z < 50 else 9.0
    (_fence, _garden_wall, _hedge, _fence)[edge](canvas, x + side * 0.3, z0, z1)


def _fence(canvas: _Canvas, x: float, z0: float, z1: float) -> None:
    canvas.wall(x, z0, z1, 0, 1.5, (92, 98, 92), ID["fence"], 0.8)
    z = z0
    while z < min(z1, 40):
        canvas.wall(x, z, z + 0.1, 0.1, 1.6, (206, 206, 196))
        z += 0.35
    for y in (0.2, 1.3):
        canvas.wall(x, z0, z1, y, y + 0.1, (206, 206, 196))


def _garden_wall(canvas: _Canvas, x: float, z0: float, z1: float) -> None:
    side = 1 if x > 0 else -1
    shade = canvas.sunny(side)
    canvas.bar(x, z0, min(0, 0.4 * side), 0, max(0, 0.4 * side), 2.1, _STONE, ID["wall"], 0.8)
    canvas.wall(x, z0, z1, 0, 2.0, _STONE, ID["wall"], shade * 0.9)
    for y in (0.5, 1.0, 1.5):
        canvas.wall(x, z0, z1, y, y + 0.05, _STONE, None, 0.7)
    canvas.wall(x, z0, z1, 1.9, 2.1, _STONE, ID["wall"], 1.15)


def _hedge(canvas: _Canvas, x: float, z0: float, z1: float) -> None:
    color, z = canvas.city.foliage[0], z1
    canvas.wall(x, z0, z1, 0, 1.3, color, ID["vegetation"], 0.75)
    while z > z0:
        y = 1.2 + 0.15 * canvas.style.random()
        canvas.disc(x, y, z, 0.45, 0.35, color, ID["vegetation"], 0.9)
        z -= 0.7 + z / 40


def _guard_rail(canvas: _Canvas, x: float, z: float) -> None:
    """One post and the rail to the next: a piece at a time, so that people can stand behind it."""
    canvas.bar(x, z, -0.05, 0, 0.05, 0.6, _STEEL, ID["guard rail"], 0.7)
    canvas.wall(x, z, z + 2.5, 0.4, 0.8, (176, 180, 184), ID["guard rail"])
    canvas.wall(x, z, z + 2.5, 0.57, 0.62, (120, 124, 128))


def _bridge(canvas: _Canvas, z: float, left: float, right: float) -> None:
    canvas.shadow(left, right, z - 1, z + 9, 1.6)
    for x in (left - 0.4, right + 0.4):
        canvas.bar(x, z, -0.5, 0, 0.5, 5.4, _STONE, ID["bridge"], 0.75)
    canvas.floor(left - 30, right + 30, z, z + 9, (110, 106, 100), ID["bridge"], 5.0)
    canvas.bar(0, z, left - 30, 5.0, right + 30, 6.6, (164, 160, 152), ID["bridge"])
    canvas.bar(0, z, left - 30, 5.0, right + 30, 5.25, (164, 160, 152), None, 0.6)
    canvas.bar(0, z, left - 30, 6.6, right + 30, 7.5, (110, 124, 120), ID["bridge"], 0.9)


def _tunnel(canvas: _Canvas, z: float, left: float, right: float) -> None:
    canvas.bar(0, z, left - 40, 0, right + 40, 9.0, (148, 140, 128), ID["tunnel"], 0.9)
    arch = [(left, 0), (left, 4.5), (left + 2, 6.2), (right - 2, 6.2), (right, 4.5), (right, 0)]
    canvas.card(0, z, arch, (24, 22, 24), ID["tunnel"])
    for dx in range(int(left) + 1, int(right), 2):
        canvas.lamp(dx, 5.6, z, 0.12, _WARM)


def _street_end(canvas: _Canvas, kind: int, left: float, right: float) -> None:
    """What closes the view: houses across the street, trees, a tunnel."""
    if kind == 0:
        for i in range(-4, 5):
            height = 7.0 + 3.1 * int(canvas.style.random() * 4)
            color, x = canvas.pick(canvas.city.facades), i * 12.0
            canvas.bar(x, FAR, -6, 0, 6, height, color, ID["building"], 0.85)
            if canvas.city.gables:
                gable = ((-6, height), (6, height), (0, height + 4))
                canvas.card(x, FAR, gable, canvas.city.roof, ID["building"])
            _windows(canvas, lambda a, y, x=x: (x - 6 + a, y, FAR), 12.0, int(height / 3.1), 0.8)
        return
    for i in range(-4, 5):
        height = 7.0 + 7 * canvas.style.random()
        _tree(canvas, i * 9.0, FAR - (i % 2), height, 8.0)
        canvas.bar(i * 9.0, FAR - 2, -6, 0, 6, 5, canvas.city.foliage[0], ID["vegetation"], 0.7)
    if kind == 2:
        _tunnel(canvas, FAR - 40, left, right)


def _balloon(canvas: _Canvas, u: float) -> None:
    """A hot-air balloon: Cityscapes has no name for it, so it is 'unlabeled'."""
    x, y, z, color = (u - 0.5) * 24, 25.0, 100.0, canvas.pick(((220, 70, 50), (240, 180, 50)))
    canvas.disc(x, y, z, 4.2, 4.6, color, ID["unlabeled"])
    canvas.disc(x, y, z, 1.6, 4.6, (250, 240, 220))
    canvas.bar(x, z, -0.8, y - 7.4, 0.8, y - 6.2, (120, 84, 50), ID["unlabeled"])


# --- the whole ------------------------------------------------------------------------------------


class _Plan(NamedTuple):
    """The street's cross-section, as x in metres; the camera drives at x = 0."""

    left: float  # the road's edges
    right: float
    track: float  # width of the rail track left of the road, 0 without one
    parking: tuple[bool, bool]  # parked cars left and right
    walk: tuple[float, float]  # width of the pavement left and right
    strip: tuple[float, float]  # width of the grass between kerb and pavement, 0 without
    crossing: float  # z of a side street, 0 without one

    def free(self, z: float, margin: float) -> bool:
        """Whether things may stand at z: not on the side street, nor `margin` metres before it."""
        return not (self.crossing and -margin < z - self.crossing < 8)

    def edge(self, side: int) -> float:
        return self.left - self.track if side < 0 else self.right

    def houses(self, side: int) -> float:
        return self.edge(side) + side * (self.walk[side > 0] + self.strip[side > 0])


def _plan(layout: np.random.Generator) -> _Plan:
    draw = layout.random(12)
    parking = (bool(draw[0] < 0.6), bool(draw[1] < 0.6))
    lanes = 1 + int(draw[2] < 0.35)
    left = -LANE / 2 - LANE * lanes - 2.2 * parking[0]
    right = LANE / 2 + 0.5 + 2.2 * parking[1]
    strip = tuple(1.4 + d if d < 0.32 else 0.0 for d in (draw[3], draw[4]))
    walk = (2.4 + 2.0 * draw[5], 2.4 + 2.0 * draw[6])
    crossing = 16 + 26 * draw[8] if draw[7] < 0.45 else 0.0
    return _Plan(left, right, 3.6 * (draw[9] < 0.2), parking, walk, strip, crossing)


def _ground(canvas: _Canvas, plan: _Plan, extras: np.ndarray) -> None:
    """Road, markings, pavements, grass and tracks: all that is flat."""
    road, pavement = canvas.city.road, canvas.city.pavement
    canvas.floor(-200, 200, NEAR, 400, _GRASS, ID["terrain"])
    for side in (-1, 1):
        edge, houses = plan.edge(side), plan.houses(side)
        canvas.floor(edge, houses + side * 0.2, NEAR, FAR, pavement, ID["sidewalk"])
        for z in range(3, 40, 2):  # joints between the slabs
            canvas.floor(edge, houses, z, z + 0.06, pavement, None, shade=0.86)
        if plan.strip[side > 0]:
            inner = edge + side * 0.3
            canvas.floor(inner, inner + side * plan.strip[side > 0], NEAR, FAR, _GRASS,
                         ID["terrain"])  # fmt: skip
    canvas.floor(plan.left, plan.right, NEAR, FAR, road, ID["road"])
    for x in (-0.9, 0.9, -LANE - 0.9, -LANE + 0.9):  # worn by tyres
        canvas.floor(x - 0.25, x + 0.25, NEAR, 80, road, None, shade=0.95)
    if plan.track:
        canvas.floor(plan.left - plan.track, plan.left, NEAR, FAR, (112, 100, 90), ID["rail track"])
        centre = plan.left - plan.track / 2
        for z in range(3, 45):
            canvas.floor(centre - 1.2, centre + 1.2, z, z + 0.25, (88, 74, 64))
        for x in (centre - 0.72, centre + 0.72):
            canvas.floor(x - 0.05, x + 0.05, NEAR, FAR, (186, 184, 180))
    for side in (-1, 1):
        edge = plan.edge(side)
        canvas.floor(edge, edge + side * 0.22, NEAR, FAR, pavement, ID["sidewalk"], shade=1.14)
        if plan.parking[side > 0]:
            start = (plan.left if side < 0 else plan.right) - side * 2.2
            if extras[0] < 0.3:
                canvas.floor(start, start + side * 2.2, NEAR, FAR, (128, 116, 112), ID["parking"])
            canvas.floor(start - 0.06, start + 0.06, NEAR, FAR, _WHITE, None, shade=0.9)
    if extras[1] < 0.4:  # mended asphalt
        x, z = -3 + 3 * extras[2], 7 + 10 * extras[3]
        canvas.floor(x, x + 1.6, z, z + 4, road, None, shade=0.8)
    if extras[1] > 0.75:  # a yard's entrance, neither road nor pavement
        x, z = plan.houses(1), 8 + 20 * extras[2]
        canvas.floor(x - plan.walk[1], x, z, z + 5, (176, 158, 120), ID["ground"])
    if plan.crossing:
        z = plan.crossing
        canvas.floor(-60, 60, z, z + 7, road, ID["road"])
        for x in range(int(plan.left) + 1, int(plan.right)):
            canvas.floor(x, x + 0.5, z - 3.4, z - 0.8, _WHITE, None, shade=0.92)
    for x in [-LANE / 2 - LANE * i for i in range(3) if -LANE / 2 - LANE * i > plan.left + 1]:
        for z in range(4, 90, 6):
            if plan.free(z, 7):
                canvas.floor(x - 0.08, x + 0.08, z, z + 3, _WHITE, None, shade=0.95)


def _frontage(canvas: _Canvas, plan: _Plan, side: int, layout: np.random.Generator) -> None:
    """Houses and parks along one side, painted from far to near."""
    x, spans, z = plan.houses(side), [], 2.0
    while z < FAR - 12:
        draw = layout.random(4)
        end = z + 9 + 9 * draw[0]
        if z < plan.crossing < end:  # a side street: build up to it, go on behind it
            end, following = plan.crossing, plan.crossing + 7
        else:
            following = end
        spans.append((z, max(end, z + 2), draw))
        z = following
    parks = [draw[1] < 0.12 + 0.3 * canvas.city.greenery for _, _, draw in spans]
    for i, (z0, z1, draw) in reversed(list(enumerate(spans))):
        if parks[i]:
            _park(canvas, side, x, z0, z1, int(draw[2] * 4))
        else:
            corner = i > 0 and (parks[i - 1] or spans[i - 1][1] < z0)
            _building(canvas, side, x, z0, z1, draw, corner)


def _furniture(plan: _Plan, side: int, greenery: float, layout: np.random.Generator) -> list:
    """Trees, lamps, signs, people along one pavement: (z, function, arguments)."""
    things, kerb = [], plan.edge(side) + side * 0.7
    middle = plan.houses(side) - side * 0.9
    for z in np.arange(7.0, 70.0, 3.5):
        draw = layout.random(8)
        here, kind = z + 1.5 * draw[0], draw[1]
        if not plan.free(here, 1):
            continue
        if kind < 0.28:
            if draw[2] < greenery + 0.1:
                args = (kerb + side * 0.3, here, 4.4 + 2 * draw[3], 1.7 + 1.0 * draw[4])
                things.append((here, _tree, args))
        elif kind < 0.39:
            things.append((here, _street_lamp, (kerb, here, side)))
        elif kind < 0.52:
            things.append((here, _sign, (kerb, here, int(4 * draw[2]))))
        elif kind < 0.59:
            things.append((here, _bin, (kerb, here, int(3 * draw[2]))))
        elif kind < 0.69:
            color = _CAR_COLORS[int(draw[2] * len(_CAR_COLORS))]
            things.append((here, _bicycle, (kerb + side * 0.3, here, True, color)))
        elif kind < 0.75:
            things.append((here, _pole, (kerb, here, 4 + 3 * draw[2])))
        elif kind < 0.77:
            things.append((here, _pole_group, (kerb, here)))
        if draw[5] < 0.3:
            person = (middle, here + 0.4, 1.55 + 0.35 * draw[6], 0.05 + 0.2 * draw[7])
            things.append((here + 0.4, _person, person))
            if draw[6] < 0.12:
                things.append((here + 0.3, _dog, (middle - side * 0.7, here + 0.3)))
    if plan.crossing:
        z, phase = plan.crossing - 3.8, int(layout.random() * 3)
        things.append((z, _traffic_light, (plan.edge(side) + side * 0.4, z, phase)))
    return things


def _traffic(plan: _Plan, layout: np.random.Generator) -> list:
    """What drives and parks: (z, function, arguments)."""
    things = []
    for side in (-1, 1):
        x = (plan.left if side < 0 else plan.right) - side * 1.15
        for z in np.arange(7.0, 80.0, 5.6):
            draw = layout.random(4)
            if not (plan.parking[side > 0] and plan.free(z, 6)):
                continue
            if draw[0] < 0.62:
                things.append((z, _car, (x, z + draw[1] * 0.5, side < 0, 0.95 + 0.12 * draw[2])))
            elif draw[0] < 0.67:
                name = "caravan" if draw[3] < 0.4 else "trailer" if draw[3] < 0.9 else "truck"
                things.append((z, _large_vehicle, (name, x, z, side < 0)))
            elif draw[0] < 0.74:
                things.append((z, _motorcycle, (x, z, _CAR_COLORS[int(10 * draw[3])])))
    lanes = [(0.0, False), (-LANE, True)] + [(-2 * LANE, True)] * (plan.left < -10)
    for x, toward in lanes:
        z = 9.0 if toward else 12.0
        while z < 80:
            draw = layout.random(5)
            z += 2 + 26 * draw[0]
            if draw[1] < 0.62:
                thing = (_car, (x + 0.3 * draw[2], z, toward, 0.97 + 0.12 * draw[3]))
            elif draw[1] < 0.77:
                name = "truck" if draw[4] < 0.33 else "bus"
                thing = (_large_vehicle, (name, x, z + 6, toward))
            else:
                motor = bool(draw[4] < 0.3)
                thing = (_rider, (x + (-1 if toward else 1) * 0.7, z, False, motor))
            things.append((z + 6 * (thing[0] is _large_vehicle), *thing))
            z += 14 if thing[0] is _large_vehicle else 6
    draw = layout.random(6)
    if plan.track and draw[0] < 0.75:
        z = 20 + 26 * draw[1]
        things.append((z, _large_vehicle, ("train", plan.left - plan.track / 2, z, True)))
    if plan.crossing:
        z = plan.crossing - 2.0
        for i, u in enumerate(draw[2:5]):
            if u < 0.5:
                x = plan.left + (plan.right - plan.left) * (0.15 + 0.3 * i + u * 0.4)
                things.append((z - 0.1 * i, _person, (x, z - 0.1 * i, 1.6 + 0.3 * u, 0.22)))
        if draw[5] < 0.5:
            args = (plan.left + 2 + 6 * draw[5], plan.crossing + 3, True, False)
            things.append((plan.crossing + 3, _rider, args))
    return things


def _frame(canvas: _Canvas, draw: np.ndarray) -> None:
    """What belongs to the camera: the car's bonnet, and the borders of the rectified picture."""
    if draw[0] < 0.85:
        rise, dark = 0.05 + 0.05 * draw[1], canvas.lit((52, 54, 62), 1.0)
        curve = [(i / 20, (i / 10 - 1) ** 4) for i in range(21)]
        outline = [(u, 1 - rise * (1 - 0.85 * bend)) for u, bend in curve]
        canvas.screen([(0, 1.01), *outline, (1, 1.01)], dark, ID["ego vehicle"])
        light = canvas.lit((96, 100, 112), 1.0)
        band = [(u, v + 0.012) for u, v in outline[3:18]] + [(0.8, 1.01), (0.2, 1.01)]
        canvas.screen(band, light, ID["ego vehicle"])
        inner = [(u, v + 0.022) for u, v in outline[3:18]] + [(0.8, 1.02), (0.2, 1.02)]
        canvas.screen(inner, dark, ID["ego vehicle"])
    if draw[2] < 0.35:
        width = 0.006 + 0.006 * draw[3]
        for u in (0, 1 - width):
            side = ((u, 0), (u + width, 0), (u + width, 1), (u, 1))
            canvas.screen(side, (0, 0, 0), ID["rectification border"])
    if draw[4] < 0.35:
        for v in (0, 0.988):
            row = ((0, v), (1, v), (1, v + 0.012), (0, v + 0.012))
            canvas.screen(row, (0, 0, 0), ID["out of roi"])


def _glow(canvas: _Canvas) -> Image.Image:
    """The light around all lamps, small and soft: faint outer rings before bright inner ones."""
    canvas.glow(-0.5, 0.0, 7.0, 3.4, (120, 110, 84), 0.22)  # the camera's own headlights
    glow = Image.new("RGB", (128, 64))
    paint = ImageDraw.Draw(glow)
    # Where another thing has been painted since, the lamp is hidden.
    visible = [lamp for lamp in canvas.glows if canvas.id_at(*lamp[:2]) == lamp[2]]
    for ring in (1.0, 0.75, 0.5, 0.25):
        for px, py, _, rx, ry, color in visible:
            x, y = px * 128 / canvas.size[0], py * 64 / canvas.size[1]
            rx, ry = max(rx * 64 * ring, 0.5), max(ry * 64 * ring, 0.5)
            strength = canvas.light.lamps * (1.1 - ring)
            fill = tuple(int(c * strength) for c in color)
            paint.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)
    return glow.filter(ImageFilter.BoxBlur(2)).filter(ImageFilter.BoxBlur(1))


def _develop(canvas: _Canvas, label_ids: np.ndarray, texture: np.random.Generator) -> np.ndarray:
    """The finished photo (H, W, 3) uint8: grain by class, the glow of lamps, sensor noise."""
    height, width = label_ids.shape
    photo = np.asarray(canvas.photo.reduce(OVERSAMPLING)).astype(np.float32)

    def noise(rows: int, columns: int) -> np.ndarray:  # (H, W) in -1..1, of this coarseness
        grain = texture.integers(0, 256, (rows, columns), dtype=np.uint8)
        grain = Image.fromarray(grain).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(grain).astype(np.float32) / 127.5 - 1

    haze, cover = canvas.light.sky_horizon, noise(10, 14) + 0.5 * noise(20, 28) - 0.15
    cover = np.where(label_ids == ID["sky"], np.clip(cover, 0, 0.7), 0)[..., None]
    photo += cover * (np.float32(haze) * 1.08 - photo)  # clouds
    gain = _FINE_GRAIN[label_ids] * noise(128, 256) + _BLOTCHES[label_ids] * noise(28, 56)
    photo *= (1 + gain)[..., None]
    if canvas.light.lamps:
        glow = _glow(canvas).resize((width, height), Image.Resampling.BILINEAR)
        photo += np.asarray(glow).astype(np.float32)
    sensor = texture.integers(-4, 5, (height, width, 3), dtype=np.int8)
    return np.clip(photo + sensor, 0, 255).astype(np.uint8)


def _known(value: str, names: tuple[str, ...], what: str) -> str:
    if value not in names:
        raise ValueError(f"{value!r} is no {what} of the toy streets: use {', '.join(names)}.")
    return value


def draw_street(
    seed: int,
    index: int,
    size: tuple[int, int] = (256, 128),
    city: str | None = None,
    time_of_day: str | None = None,
) -> Street:
    """Draw the street scene that belongs to these numbers: the same one on every machine.

    Args:
        seed, index: not negative; each pair is another street.
        size: (width, height) in pixels, 32x16 at least; made for width = 2 * height.
        city: one of CITIES; None lets the seed choose.
        time_of_day: one of TIMES_OF_DAY; None lets the seed choose.

    Raises ValueError for a smaller size and for unknown names.
    """
    if size[0] < 32 or size[1] < 16:
        raise ValueError(f"a toy street of {size[0]}x{size[1]} pixels: 32x16 is the least.")
    # Streams of their own, so that what one part draws leaves the other parts as they were.
    layout = np.random.default_rng([seed, index])
    style, texture, *parts = (np.random.default_rng([seed, index, k]) for k in range(1, 8))
    chosen = (CITIES[int(style.random() * 6)], TIMES_OF_DAY[int(style.random() * 4)])
    city = _known(city or chosen[0], CITIES, "city")
    time_of_day = _known(time_of_day or chosen[1], TIMES_OF_DAY, "time of day")

    canvas = _Canvas(size, _CITY_STYLES[city], _LIGHTS[time_of_day], layout, style)
    plan, extras = _plan(layout), layout.random(16)
    _ground(canvas, plan, extras[:4])
    if extras[4] < 0.15:
        _balloon(canvas, extras[5])
    _street_end(canvas, 2 if extras[6] < 0.06 else int(extras[6] < 0.65), plan.left, plan.right)
    for side, part in ((-1, parts[0]), (1, parts[1])):
        _frontage(canvas, plan, side, part)
    things = _traffic(plan, parts[2])
    for side, part in ((-1, parts[3]), (1, parts[4])):
        things += _furniture(plan, side, canvas.city.greenery, part)
    if extras[7] < 0.08:
        things.append((30 + 30 * extras[8], _bridge, (30 + 30 * extras[8], plan.left, plan.right)))
    if extras[9] < 0.1:
        x = plan.edge(-1) - 0.3
        things += [(z, _guard_rail, (x, z)) for z in np.arange(4.0, 60.0, 2.5) if plan.free(z, 3)]
    for _, draw, arguments in sorted(things, key=lambda thing: -thing[0]):
        draw(canvas, *arguments)
    _frame(canvas, extras[10:])

    instance_ids = np.asarray(canvas.instances)[::OVERSAMPLING, ::OVERSAMPLING].astype(np.int32)
    label_ids = np.where(instance_ids >= 1000, instance_ids // 1000, instance_ids).astype(np.uint8)
    photo = _develop(canvas, label_ids, texture)
    return Street(
        torch.from_numpy(photo).permute(2, 0, 1).contiguous(),
        torch.from_numpy(label_ids),
        torch.from_numpy(instance_ids),
        city,
        time_of_day,
    )
