"""What toy streets are drawn with: styles of cities and light, the canvas, one function per object.

A place is given in metres as the camera sees it: x to the right of its path, y up from the road, z
ahead.  A `Canvas` projects shapes and paints them into a photo and an instance map at once; what is
painted later hides what was painted before, so callers draw from far to near.  Every drawing
function takes the canvas and where the object's nearest point is.  A side is -1 (left of the
camera's path) or 1 (right).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from utils.labels import ID

NEAR, FAR = 1.5, 130.0  # metres: where the street begins (behind the bonnet) and ends
OVERSAMPLING = 2  # the photo is drawn this much larger, then averaged; the maps are subsampled
HAZE = 380.0  # metres: at this distance half of a colour is the sky's

Color = tuple[int, int, int]
Point = tuple[float, float, float]  # x, y, z in metres
Outline = Sequence[tuple[float, float]]  # x and y of the corners


class CityStyle(NamedTuple):
    """How a city looks."""

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


class Light(NamedTuple):
    """How a time of day looks."""

    color: tuple[float, float, float]  # what every surface colour is multiplied with
    sky_top: Color
    sky_horizon: Color
    sun: float  # -1: from the left, 1: from the right
    shadow: int  # opacity of shadows, 0..255
    lit_windows: float  # share
    lamps: float  # strength of the glow of lamps, 0..1


CITY_STYLES = {
    "Backsteinhafen": CityStyle(
        ((150, 72, 56), (128, 60, 50), (168, 92, 66), (116, 66, 58)), (226, 220, 208), (70, 62, 64),
        True, (3, 5), (1.1, 1.7, 2.4), 0.55, ((74, 104, 48), (92, 116, 50)),
        (98, 98, 104), (168, 150, 142),
    ),
    "Sonnental": CityStyle(
        ((232, 196, 128), (222, 164, 108), (238, 214, 168), (212, 142, 110)), (250, 240, 220),
        (176, 88, 58), True, (2, 4), (1.0, 1.5, 2.6), 0.65, ((88, 122, 44), (112, 132, 58)),
        (118, 112, 106), (206, 190, 164),
    ),
    "Glasquai": CityStyle(
        ((120, 150, 172), (142, 166, 178), (100, 124, 150), (168, 178, 186)), (206, 214, 220),
        (90, 98, 108), False, (6, 11), (2.3, 2.3, 2.7), 0.45, ((66, 112, 60), (84, 128, 62)),
        (84, 86, 92), (182, 184, 186),
    ),
    "Weissenau": CityStyle(
        ((236, 234, 226), (224, 222, 216), (240, 230, 210), (214, 220, 222)), (120, 128, 132),
        (112, 84, 76), True, (2, 3), (1.3, 1.4, 2.9), 0.95, ((70, 118, 52), (98, 140, 60)),
        (108, 108, 110), (190, 184, 178),
    ),
    "Plattenberg": CityStyle(
        ((168, 164, 156), (150, 148, 146), (182, 170, 150), (140, 146, 156)), (204, 202, 196),
        (110, 108, 104), False, (5, 8), (1.7, 1.4, 2.5), 0.6, ((82, 104, 56), (100, 112, 58)),
        (104, 102, 100), (158, 156, 154),
    ),
    "Tulpenried": CityStyle(
        ((196, 84, 84), (92, 140, 156), (226, 178, 84), (126, 158, 108), (214, 140, 158)),
        (246, 244, 238), (92, 76, 84), True, (3, 4), (1.2, 1.8, 2.1), 0.7,
        ((84, 126, 50), (118, 144, 62)), (124, 104, 98), (192, 172, 158),
    ),
}  # fmt: skip

LIGHTS = {
    "morning": Light(
        (1.0, 0.93, 0.83), (126, 168, 214), (252, 226, 190), -1.0, 80, 0.05, 0.0
    ),
    "noon": Light((1.05, 1.05, 1.03), (80, 142, 214), (206, 224, 238), 1.0, 110, 0.0, 0.0),
    "dusk": Light((0.70, 0.57, 0.57), (72, 72, 124), (248, 156, 96), 1.0, 60, 0.35, 0.6),
    "night": Light((0.36, 0.37, 0.47), (10, 14, 36), (50, 54, 86), -1.0, 60, 0.4, 1.0),
}  # fmt: skip

CAR_COLORS = (
    (188, 30, 36), (30, 62, 140), (228, 228, 230), (34, 34, 40), (150, 154, 160), (70, 76, 84),
    (206, 170, 60), (48, 108, 84), (200, 204, 210), (96, 30, 40),
)  # fmt: skip
CLOTHES = (
    (40, 50, 90), (150, 40, 50), (60, 60, 64), (190, 160, 110), (60, 110, 90), (216, 214, 208),
    (230, 150, 40), (112, 72, 130), (28, 28, 32),
)  # fmt: skip
SKIN = ((236, 196, 168), (206, 158, 124), (150, 104, 76), (96, 66, 50))
GLASS, RUBBER, STEEL, WHITE = (58, 74, 88), (26, 26, 28), (122, 126, 130), (232, 232, 226)
WARM, RED, LAMP = (255, 208, 128), (226, 34, 28), (255, 244, 214)
GRASS, BARK, STONE = (112, 138, 66), (84, 66, 52), (150, 142, 130)


def _sky(size: tuple[int, int], horizon: float, light: Light) -> Image.Image:
    down = np.clip(np.linspace(0, 1 / horizon, size[1], dtype=np.float32), 0, 1)[:, None]
    top, bottom = np.float32(light.sky_top), np.float32(light.sky_horizon)
    column = (top * (1 - down) + bottom * down).astype(np.uint8)
    return Image.fromarray(np.repeat(column[:, None], size[0], axis=1))


class Canvas:
    """Photo and instance map under one camera; all that draws goes through here."""

    def __init__(
        self,
        size: tuple[int, int],
        city: CityStyle,
        light: Light,
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
        self.warm = tuple(int(c / k) for c, k in zip(WARM, light.color, strict=True))
        # Pixel x and y, what has been painted there, two radii in picture heights, colour.
        self.glows: list[tuple[int, int, int, float, float, Color]] = []
        self._count = Counter()

    def new(self, name: str) -> int:
        """The id of one more thing of this class."""
        self._count[name] += 1
        return ID[name] * 1000 + self._count[name] - 1

    def pick(self, choices: Sequence[Color]) -> Color:
        """One of these colours, by the style's random stream."""
        return choices[int(self.style.random() * len(choices))]

    def at(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Where a point in space appears, in pixels of the oversampled picture."""
        z = max(z, NEAR)
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

    def polygon(
        self, points: Sequence[Point], color: Color, id_: int | None = None, shade: float = 1.0
    ) -> None:
        """A polygon in space; without an id it is a detail, seen in the photo only."""
        pixels = [self.at(*point) for point in points]
        self._paint.polygon(pixels, fill=self.lit(color, points[0][2], shade))
        if id_ is not None:
            self._mark.polygon(pixels, fill=id_)

    def card(
        self,
        x: float,
        z: float,
        outline: Outline,
        color: Color,
        id_: int | None = None,
        shade: float = 1.0,
    ) -> None:
        """A polygon that faces the camera; outline: (dx, y) in metres from (x, 0, z)."""
        self.polygon([(x + dx, y, z) for dx, y in outline], color, id_, shade)

    def bar(
        self,
        x: float,
        z: float,
        left: float,
        bottom: float,
        right: float,
        top: float,
        color: Color,
        id_: int | None = None,
        shade: float = 1.0,
    ) -> None:
        """An upright rectangle that faces the camera; left and right are counted from x."""
        outline = ((left, bottom), (right, bottom), (right, top), (left, top))
        self.card(x, z, outline, color, id_, shade)

    def disc(
        self,
        x: float,
        y: float,
        z: float,
        rx: float,
        ry: float,
        color: Color,
        id_: int | None = None,
        shade: float = 1.0,
    ) -> None:
        """An upright ellipse that faces the camera; rx and ry are its radii."""
        box = (*self.at(x - rx, y + ry, z), *self.at(x + rx, y - ry, z))
        if box[0] > self.size[0] or box[2] < 0 or box[3] < 0:
            return
        self._paint.ellipse(box, fill=self.lit(color, z, shade))
        if id_ is not None:
            self._mark.ellipse(box, fill=id_)

    def lamp(
        self, x: float, y: float, z: float, radius: float, color: Color, glow: float = 0.0
    ) -> None:
        """A disc that shines by itself; at dusk and night it glows `glow` metres around."""
        on = self.light.lamps > 0
        box = [self.at(x - radius, y + radius, z), self.at(x + radius, y - radius, z)]
        self._paint.ellipse(box, fill=color if on else self.lit(color, z))
        if on and glow:
            self.glow(x, y, z, glow, color)

    def glow(
        self, x: float, y: float, z: float, radius: float, color: Color, flat: float = 1.0
    ) -> None:
        """Light around a lamp, added at the end; flat < 1 for a pool of light on the ground."""
        (px, py), reach = self.at(x, y, z), radius * self.focal / z
        if 0 <= px < self.size[0] and 0 <= py < self.size[1]:
            self.glows.append((int(px), int(py), self.id_at(px, py), reach, reach * flat, color))

    def id_at(self, px: float, py: float) -> int:
        """What has been painted at this pixel so far."""
        return self.instances.getpixel((int(px), int(py)))

    def wall(
        self,
        x: float,
        z0: float,
        z1: float,
        y0: float,
        y1: float,
        color: Color,
        id_: int | None = None,
        shade: float = 1.0,
    ) -> None:
        """An upright rectangle along the street, at this x from z0 to z1."""
        self.polygon([(x, y0, z0), (x, y1, z0), (x, y1, z1), (x, y0, z1)], color, id_, shade)

    def floor(
        self,
        x0: float,
        x1: float,
        z0: float,
        z1: float,
        color: Color,
        id_: int | None = None,
        y: float = 0.0,
        shade: float = 1.0,
    ) -> None:
        """A level rectangle."""
        self.polygon([(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)], color, id_, shade)

    def shadow(self, x0: float, x1: float, z0: float, z1: float, strength: float = 1.0) -> None:
        """An octagon of shade on the ground, in the photo only."""
        a, b, c, d = (x0 + (x1 - x0) * k for k in (0, 0.2, 0.8, 1))
        k, m = z0 + (z1 - z0) * 0.25, z0 + (z1 - z0) * 0.75
        ring = ((a, k), (b, z0), (c, z0), (d, k), (d, m), (c, z1), (b, z1), (a, m))
        opacity = int(self.light.shadow * strength)
        self._glaze.polygon([self.at(x, 0, z) for x, z in ring], fill=(12, 12, 28, opacity))

    def veil(self, points: Sequence[Point], color: Color, opacity: int) -> None:
        """A see-through polygon, in the photo only."""
        fill = (*self.lit(color, points[0][2]), opacity)
        self._glaze.polygon([self.at(*point) for point in points], fill=fill)

    def sunny(self, side: int) -> float:
        """How bright a wall on this side (-1 left, 1 right) is; the sun's side lies in shade."""
        return 1.04 - 0.14 * self.light.sun * side

    def screen(self, outline: Outline, color: Color, id_: int) -> None:
        """A polygon in picture coordinates 0..1, not in space."""
        pixels = [(u * self.size[0], v * self.size[1]) for u, v in outline]
        self._paint.polygon(pixels, fill=color)
        self._mark.polygon(pixels, fill=id_)


# --- things on the pavement and on the road -------------------------------------------------------


def draw_tree(canvas: Canvas, x: float, z: float, height: float, spread: float) -> None:
    """A tree: its crown, `spread` in radius, has its centre at `height`."""
    id_, random = ID["vegetation"], canvas.style.random
    color = canvas.pick(canvas.city.foliage)
    sun = canvas.light.sun
    canvas.shadow(x - spread - sun * spread, x + spread - sun * spread, z - 1.2, z + 1.6, 0.8)
    trunk = height - 1.2 * spread
    canvas.card(x, z, ((-0.2, 0), (0.2, 0), (0.12, trunk), (-0.12, trunk)), BARK, id_)
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


def draw_pole(
    canvas: Canvas,
    x: float,
    z: float,
    height: float,
    radius: float = 0.07,
    color: Color = STEEL,
    label: str = "pole",
) -> None:
    """A pole, darker on its left half."""
    canvas.bar(x, z, -radius, 0, radius, height, color, ID[label])
    canvas.bar(x, z, -radius, 0, 0, height, color, None, 0.75)


def draw_street_lamp(canvas: Canvas, x: float, z: float, side: int) -> None:
    """A lamp whose arm reaches over the road."""
    draw_pole(canvas, x, z, 6.2, 0.08)
    canvas.bar(x, z, min(0, -side * 1.3), 6.1, max(0, -side * 1.3), 6.25, STEEL, ID["pole"])
    canvas.bar(x - side * 1.3, z, -0.4, 6.02, 0.4, 6.22, STEEL, ID["pole"])
    canvas.lamp(x - side * 1.3, 6.05, z, 0.17, LAMP, 1.3)
    if canvas.light.lamps:
        canvas.glow(x - side * 1.6, 0.1, z, 3.2, (120, 98, 60), 0.22)


def draw_sign(canvas: Canvas, x: float, z: float, kind: int) -> None:
    """A traffic sign on its pole; kind 0..3: round, triangular, square, a board."""
    id_ = ID["traffic sign"]
    draw_pole(canvas, x, z, 2.4, 0.05)
    if kind == 0:  # no entry, speed limits
        canvas.disc(x, 2.6, z, 0.44, 0.44, RED, id_)
        canvas.disc(x, 2.6, z, 0.3, 0.3, WHITE)
    elif kind == 1:  # give way, warning
        canvas.card(x, z, ((-0.52, 2.2), (0.52, 2.2), (0, 3.1)), RED, id_)
        canvas.card(x, z, ((-0.3, 2.32), (0.3, 2.32), (0, 2.85)), WHITE)
    elif kind == 2:  # parking, crossing
        canvas.bar(x, z, -0.42, 2.2, 0.42, 3.04, (30, 84, 170), id_)
        canvas.bar(x, z, -0.12, 2.35, 0.12, 2.9, WHITE)
    else:  # a board with the way to other towns
        canvas.bar(x, z, -0.9, 2.1, 0.9, 3.2, (232, 196, 50), id_)
        canvas.bar(x, z, -0.7, 2.75, 0.5, 2.95, (40, 40, 40))
        canvas.bar(x, z, -0.7, 2.35, 0.2, 2.55, (40, 40, 40))


def draw_traffic_light(canvas: Canvas, x: float, z: float, phase: int) -> None:
    """A traffic light; phase 0..2: red, yellow, green."""
    draw_pole(canvas, x, z, 3.3, 0.07, (70, 74, 76))
    canvas.bar(x, z, -0.24, 2.4, 0.24, 3.6, (36, 38, 38), ID["traffic light"])
    for i, color in enumerate(((240, 40, 30), (250, 180, 40), (60, 220, 120))):
        if i == phase:
            canvas.lamp(x, 3.38 - 0.38 * i, z, 0.16, color, 0.5)
        else:
            canvas.disc(x, 3.38 - 0.38 * i, z, 0.15, 0.15, color, None, 0.32)


def draw_bin(canvas: Canvas, x: float, z: float, kind: int) -> None:
    """What stands around as 'static'; kind 0..2: a bin, a bollard, a box."""
    color = ((52, 92, 62), (60, 62, 66), (196, 160, 40))[kind]
    half, top = ((0.32, 1.15), (0.12, 1.0), (0.4, 1.35))[kind]
    canvas.shadow(x - half, x + half, z - 0.1, z + 0.6)
    canvas.bar(x, z, -half, 0, half, top, color, ID["static"])
    canvas.bar(x, z, -half * 1.1, top - 0.12, half * 1.1, top, color, ID["static"], 0.7)


def draw_pole_group(canvas: Canvas, x: float, z: float) -> None:
    """Three poles close together: a label of its own."""
    for dx in (-0.22, 0.0, 0.22):
        draw_pole(canvas, x + dx, z, 2.6 - abs(dx) * 3, 0.06, label="polegroup")


def draw_person(canvas: Canvas, x: float, z: float, height: float, step: float) -> None:
    """Someone who walks, the feet `step` before and behind."""
    id_, k = canvas.new("person"), height / 1.75
    coat, trousers, skin = canvas.pick(CLOTHES), canvas.pick(CLOTHES), canvas.pick(SKIN)
    canvas.shadow(x - 0.3, x + 0.3, z - 0.2, z + 0.3)
    for foot, shade in ((-step, 0.6), (step, 0.75)):
        leg = ((foot - 0.08, 0), (foot + 0.1, 0), (0.15, 0.88 * k), (-0.15, 0.88 * k))
        canvas.card(x, z, leg, trousers, id_, shade)
    arms = ((-0.3, 0.8), (-0.24, 1.45), (0.24, 1.45), (0.3, 0.8), (0.2, 0.8), (-0.2, 0.8))
    canvas.card(x, z, [(dx, y * k) for dx, y in arms], coat, id_, 0.82)
    canvas.bar(x, z, -0.17, 0.78 * k, 0.17, 1.47 * k, coat, id_)
    canvas.disc(x, 1.62 * k, z, 0.13, 0.15 * k, skin, id_)
    canvas.disc(x, 1.68 * k, z, 0.13, 0.09 * k, canvas.pick(((40, 30, 24), (110, 78, 40))))


def draw_dog(canvas: Canvas, x: float, z: float) -> None:
    """A dog: what moves and has no name in Cityscapes is 'dynamic'."""
    id_, color = ID["dynamic"], canvas.pick(((90, 66, 46), (40, 38, 38), (190, 160, 120)))
    for dx in (-0.26, -0.16, 0.18, 0.28):
        canvas.bar(x, z, dx - 0.04, 0, dx + 0.04, 0.3, color, id_, 0.7)
    canvas.bar(x, z, -0.34, 0.26, 0.34, 0.52, color, id_)
    canvas.disc(x + 0.4, 0.58, z, 0.16, 0.13, color, id_)


def draw_bicycle(canvas: Canvas, x: float, z: float, across: bool, color: Color) -> None:
    """A bicycle, seen from the side (across) or from behind."""
    id_ = canvas.new("bicycle")
    if not across:
        canvas.bar(x, z, -0.05, 0, 0.05, 0.7, RUBBER, id_)
        canvas.bar(x, z, -0.07, 0.6, 0.07, 0.95, color, id_)
        canvas.bar(x, z, -0.28, 0.98, 0.28, 1.06, STEEL, id_)
        return
    for dx in (-0.52, 0.52):
        canvas.disc(x + dx, 0.34, z, 0.35, 0.34, RUBBER, id_)
        canvas.disc(x + dx, 0.34, z, 0.26, 0.25, (150, 148, 146))
    frame = ((-0.52, 0.3), (0.0, 0.26), (0.5, 0.34), (0.4, 0.95), (0.32, 0.72), (-0.2, 0.7))
    canvas.card(x, z, frame, color, id_)
    canvas.card(x, z, ((-0.26, 0.38), (0.0, 0.34), (0.26, 0.66), (-0.16, 0.64)), (150, 148, 146))
    canvas.bar(x, z, -0.32, 0.84, -0.06, 0.92, RUBBER, id_)
    canvas.bar(x, z, 0.28, 0.98, 0.5, 1.04, STEEL, id_)


def draw_motorcycle(canvas: Canvas, x: float, z: float, color: Color) -> None:
    """A motorcycle from behind."""
    id_ = canvas.new("motorcycle")
    canvas.shadow(x - 0.4, x + 0.4, z - 0.2, z + 1.8)
    body = ((-0.16, 0.3), (0.16, 0.3), (0.3, 0.6), (0.22, 0.92), (-0.22, 0.92), (-0.3, 0.6))
    canvas.bar(x, z, -0.1, 0, 0.1, 0.5, RUBBER, id_)
    canvas.card(x, z, ((-0.2, 0.9), (0.2, 0.9), (0.12, 1.24), (-0.12, 1.24)), GLASS, id_)
    canvas.card(x, z, body, color, id_)
    canvas.bar(x, z, -0.2, 0.86, 0.2, 0.96, RUBBER, id_)  # the seat
    canvas.bar(x, z, -0.42, 1.0, 0.42, 1.06, STEEL, id_)
    for dx in (-0.42, 0.42):
        canvas.disc(x + dx, 1.16, z, 0.09, 0.07, STEEL, id_, 0.7)
    canvas.lamp(x, 0.8, z, 0.09, RED, 0.25)


def draw_rider(canvas: Canvas, x: float, z: float, across: bool, motor: bool) -> None:
    """A rider and what they ride: two things, two labels."""
    coat, skin, color = canvas.pick(CLOTHES), canvas.pick(SKIN), canvas.pick(CAR_COLORS)
    canvas.shadow(x - 0.5, x + 0.5, z - 0.1, z + 0.5)
    if motor:
        draw_motorcycle(canvas, x, z, color)
    else:
        draw_bicycle(canvas, x, z, across, color)
    id_, sideways = canvas.new("rider"), across and not motor
    if sideways:
        leg = ((-0.28, 0.9), (-0.02, 0.94), (0.14, 0.2), (0.0, 0.18))
        back = ((-0.3, 0.86), (-0.02, 0.86), (0.42, 1.06), (0.3, 1.45), (0.12, 1.5), (-0.14, 1.3))
    else:
        leg = ((-0.24, 0.4), (-0.12, 0.4), (0.12, 0.4), (0.24, 0.4), (0.2, 0.95), (-0.2, 0.95))
        back = ((-0.2, 0.85), (0.2, 0.85), (0.32, 1.1), (0.22, 1.5), (-0.22, 1.5), (-0.32, 1.1))
    head = 0.26 if sideways else 0.0
    canvas.card(x, z, leg, (50, 54, 70), id_)
    canvas.card(x, z, back, coat, id_)
    canvas.disc(x + head, 1.64, z, 0.13, 0.16, skin, id_)
    canvas.disc(x + head, 1.71, z, 0.15, 0.11, color, id_)  # the helmet


def _visible_flank(x: float, half: float) -> float | None:
    """The x of the flank that the camera sees of a thing at x; None from straight behind."""
    if x - half > 0.1:
        return x - half
    return x + half if x + half < -0.1 else None


def _draw_wheels(canvas: Canvas, flank: float, positions: Sequence[float], radius: float) -> None:
    ring = ((1, 0), (0.7, 0.7), (0, 1), (-0.7, 0.7), (-1, 0), (-0.7, -0.7), (0, -1), (0.7, -0.7))
    for z in positions:
        for r, color in ((radius, RUBBER), (radius * 0.55, STEEL)):
            canvas.polygon([(flank, radius + r * dy, z + r * dz) for dz, dy in ring], color)


def draw_car(canvas: Canvas, x: float, z: float, toward: bool, size: float) -> None:
    """A car that drives towards the camera, or away; size 1 is 4.3 m long."""
    id_, color = canvas.new("car"), canvas.pick(CAR_COLORS)
    half, belt, top, length = 0.88 * size, 0.86 * size, 1.45 * size, 4.3 * size
    hood, slope, trunk = (1.1, 0.75, 0.2) if toward else (0.15, 0.45, 1.2)
    nose, roof0, roof1, tail = z + hood, z + hood + slope, z + length - trunk - 0.6, z + length
    canvas.shadow(x - half - 0.15, x + half + 0.15, z - 0.25, tail + 0.2, 1.6)
    flank = _visible_flank(x, half)
    if flank is not None:
        inner = x + (flank - x) * 0.76
        shade = 0.62 * canvas.sunny(1 if x > 0 else -1)
        canvas.wall(flank, z, tail, 0.0, 0.3, RUBBER, id_)
        canvas.wall(flank, z, tail, 0.24, belt, color, id_, shade)
        cabin = [(flank, belt, nose), (inner, top, roof0), (inner, top, roof1)]
        canvas.polygon([*cabin, (flank, belt, tail - trunk)], color, id_, shade)
        low, high = belt + 0.04, top - 0.1
        glass = [(flank, low, nose + 0.3), (inner, high, roof0 + 0.15), (inner, high, roof1 - 0.1)]
        canvas.polygon([*glass, (flank, low, tail - trunk - 0.25)], GLASS, None, 0.8)
        _draw_wheels(canvas, flank, (z + 0.75, tail - 0.8), 0.33)
    inset = half * 0.76
    canvas.floor(x - inset, x + inset, roof0, roof1, color, id_, top, 1.1)
    pane = [(x - half, belt, nose), (x + half, belt, nose)]
    canvas.polygon([*pane, (x + inset, top, roof0), (x - inset, top, roof0)], color, id_, 0.95)
    pane = [(x - half * 0.88, belt + 0.03, nose), (x + half * 0.88, belt + 0.03, nose)]
    brow = [(x + inset * 0.88, top - 0.09, roof0), (x - inset * 0.88, top - 0.09, roof0)]
    canvas.polygon(pane + brow, GLASS)
    canvas.polygon([pane[0], brow[1], ((pane[0][0] + x) / 2, belt + 0.03, nose)], GLASS, None, 1.5)
    canvas.floor(x - half, x + half, z, nose, color, id_, belt, 1.12)
    canvas.bar(x, z, -half, 0, 0.24 - half, 0.4, RUBBER, id_)
    canvas.bar(x, z, half - 0.24, 0, half, 0.4, RUBBER, id_)
    face = ((-half, 0.22), (half, 0.22), (half, belt - 0.1), (half * 0.95, belt))
    canvas.card(x, z, (*face, (-half * 0.95, belt), (-half, belt - 0.1)), color, id_)
    canvas.bar(x, z, -half, 0.22, half, 0.36, (48, 48, 52))
    canvas.bar(x, z, -0.27, 0.42, 0.27, 0.54, WHITE)  # the plate
    for edge in (-1, 1):
        if toward:
            canvas.lamp(x + edge * half * 0.76, belt - 0.22, z, 0.13, LAMP, 0.7)
        else:
            canvas.bar(x + edge * half * 0.84, z, -0.12, belt - 0.3, 0.12, belt - 0.1, RED)
            canvas.lamp(x + edge * half * 0.84, belt - 0.2, z, 0.1, RED, 0.35)
    if toward:
        canvas.bar(x, z, -half * 0.5, belt - 0.28, half * 0.5, belt - 0.14, (40, 40, 44))


_LARGE_VEHICLES = {  # half width, height, length in metres, colours
    "truck": (1.2, 3.4, 8.0, ((206, 206, 204), (50, 84, 140), (206, 120, 44), (84, 110, 84))),
    "bus": (1.25, 3.0, 11.0, ((214, 170, 40), (180, 40, 44), (220, 220, 222))),
    "train": (1.2, 3.4, 26.0, ((224, 206, 150), (40, 120, 80), (190, 44, 48))),
    "caravan": (1.1, 2.5, 5.0, ((236, 232, 222), (226, 226, 230))),
    "trailer": (0.9, 1.5, 3.0, ((96, 108, 120), (130, 96, 66))),
}


def draw_large_vehicle(canvas: Canvas, name: str, x: float, z: float, toward: bool) -> None:
    """Bus, truck, train (tram), caravan, trailer: boxes that differ in size, colour and windows."""
    half, top, length, colors = _LARGE_VEHICLES[name]
    id_, color = canvas.new(name), canvas.pick(colors)
    tail, flank, base = z + length, _visible_flank(x, half), 0.35
    windows = name in ("bus", "train", "caravan")
    canvas.shadow(x - half - 0.2, x + half + 0.2, z - 0.4, tail, 1.6)
    if flank is not None:
        shade = 0.68 * canvas.sunny(1 if x > 0 else -1)
        canvas.wall(flank, z, tail, 0.0, base + 0.1, RUBBER, id_)
        canvas.wall(flank, z, tail, base, top, color, id_, shade)
        if windows:
            canvas.wall(flank, z + 0.5, tail - 0.5, top * 0.45, top * 0.82, GLASS, None, 0.9)
            for i in range(1, int(length / 1.6)):
                post = z + i * 1.6
                canvas.wall(flank, post, post + 0.15, top * 0.45, top * 0.82, color, None, shade)
            if canvas.light.lamps and name != "caravan":
                inside = [(flank, top * y, zz) for y, zz in ((0.5, z), (0.8, z), (0.8, tail))]
                canvas.veil([*inside, (flank, top * 0.5, tail)], canvas.warm, 150)
        _draw_wheels(canvas, flank, (z + 1.2, tail - 1.5), 0.45)
    canvas.bar(x, z, -half, 0, 0.3 - half, 0.5, RUBBER, id_)
    canvas.bar(x, z, half - 0.3, 0, half, 0.5, RUBBER, id_)
    canvas.bar(x, z, -half, base, half, top, color, id_)
    canvas.bar(x, z, -half, base, half, base + 0.2, (50, 50, 54))
    if toward or windows:
        width = half * (0.6 if name == "caravan" else 0.88)
        canvas.bar(x, z, -width, top * 0.42, width, top * 0.78, GLASS)
        gleam = ((-width, top * 0.42), (0, top * 0.78), (-width, top * 0.78))
        canvas.card(x, z, gleam, GLASS, None, 1.4)
    elif name == "truck":  # the doors
        canvas.bar(x, z, -half * 0.92, base + 0.35, half * 0.92, top - 0.15, color, None, 0.88)
        canvas.bar(x, z, -0.03, base + 0.35, 0.03, top - 0.15, (60, 60, 60))
    if name in ("bus", "train"):  # the line's number
        canvas.bar(x, z, -half * 0.6, top * 0.83, half * 0.6, top * 0.95, (40, 36, 30))
        canvas.bar(x, z, -half * 0.4, top * 0.85, half * 0.3, top * 0.92, (255, 190, 60))
    for edge in (-1, 1):
        canvas.lamp(x + edge * half * 0.8, base + 0.4, z, 0.13, LAMP if toward else RED, 0.5)


# --- what lines the street ------------------------------------------------------------------------

_Facade = Callable[[float, float], Point]  # metres along a facade, height -> point in space


def _pane(place: _Facade, left: float, right: float, low: float, high: float) -> list[Point]:
    return [place(left, low), place(right, low), place(right, high), place(left, high)]


def _draw_windows(canvas: Canvas, place: _Facade, length: float, floors: int, shade: float) -> None:
    """Windows of one facade, `length` metres long."""
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
                frame = _pane(place, left - 0.12, right + 0.12, y - 0.2, top + 0.12)
                canvas.polygon(frame, canvas.city.trim, None, shade)
            pane, brightness = _pane(place, left, right, y, top), lit[column][floor]
            if brightness < canvas.light.lit_windows and not door:
                canvas.polygon(pane, canvas.warm, None, 1.0 - 0.7 * brightness)
            else:
                color = (92, 66, 50) if door else GLASS
                canvas.polygon(pane, color, None, shade * (0.85 + 0.4 * brightness))


def draw_building(
    canvas: Canvas,
    side: int,
    x: float,
    z0: float,
    z1: float,
    tallness: float,
    awning: bool,
    corner: bool,
) -> None:
    """A house along the street, from z0 to z1.

    tallness: 0..1, from the least to the most floors that the city has; awning: above a shop;
    corner: windows in the end wall too, which faces a park or a side street.
    """
    city, id_ = canvas.city, ID["building"]
    floors = city.floors[0] + int(tallness * (city.floors[1] - city.floors[0] + 1))
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
        _draw_windows(canvas, lambda a, y: (x + side * a, y, z0), 11.0, floors, front_shade)
    canvas.wall(x, z0, z1, 0, top, color, id_, wall_shade)
    canvas.wall(x, z0, z1, 0, 0.6, STONE, None, wall_shade * 0.8)
    canvas.wall(x, z0, z1, 3.2, 3.5, city.trim, None, wall_shade * 0.9)
    _draw_windows(canvas, lambda a, y: (x, y, z0 + a), z1 - z0, floors, wall_shade)
    if awning:
        out, cloth = x - side * 1.1, canvas.pick(CAR_COLORS)
        edge = [(x, 3.1, z0 + 0.5), (x, 3.1, z1 - 0.5), (out, 2.6, z1 - 0.5), (out, 2.6, z0 + 0.5)]
        canvas.polygon(edge, cloth, id_, wall_shade)
        canvas.wall(out, z0 + 0.5, z1 - 0.5, 2.4, 2.6, cloth, id_, wall_shade * 0.8)
    rim = x - side * 0.3
    canvas.wall(rim, z0, z1, top - 0.35, top + 0.1, city.trim, id_, wall_shade * 0.92)


def _draw_bush(canvas: Canvas, x: float, z: float, height: float) -> None:
    color = canvas.pick(canvas.city.foliage)
    for _ in range(5):
        dx, size = (canvas.style.random() - 0.5) * height, 0.5 + 0.3 * canvas.style.random()
        shade = 0.7 + 0.25 * canvas.style.random()
        radius = height * size * 0.7
        canvas.disc(x + dx, radius * 0.8, z, radius, radius, color, ID["vegetation"], shade)


def _draw_fence(canvas: Canvas, x: float, z0: float, z1: float) -> None:
    canvas.wall(x, z0, z1, 0, 1.5, (92, 98, 92), ID["fence"], 0.8)
    z = z0
    while z < min(z1, 40):
        canvas.wall(x, z, z + 0.1, 0.1, 1.6, (206, 206, 196))
        z += 0.35
    for y in (0.2, 1.3):
        canvas.wall(x, z0, z1, y, y + 0.1, (206, 206, 196))


def _draw_garden_wall(canvas: Canvas, x: float, z0: float, z1: float) -> None:
    side = 1 if x > 0 else -1
    shade = canvas.sunny(side)
    canvas.bar(x, z0, min(0, 0.4 * side), 0, max(0, 0.4 * side), 2.1, STONE, ID["wall"], 0.8)
    canvas.wall(x, z0, z1, 0, 2.0, STONE, ID["wall"], shade * 0.9)
    for y in (0.5, 1.0, 1.5):
        canvas.wall(x, z0, z1, y, y + 0.05, STONE, None, 0.7)
    canvas.wall(x, z0, z1, 1.9, 2.1, STONE, ID["wall"], 1.15)


def _draw_hedge(canvas: Canvas, x: float, z0: float, z1: float) -> None:
    color, z = canvas.city.foliage[0], z1
    canvas.wall(x, z0, z1, 0, 1.3, color, ID["vegetation"], 0.75)
    while z > z0:
        y = 1.2 + 0.15 * canvas.style.random()
        canvas.disc(x, y, z, 0.45, 0.35, color, ID["vegetation"], 0.9)
        z -= 0.7 + z / 40


def draw_park(canvas: Canvas, side: int, x: float, z0: float, z1: float, edge: int) -> None:
    """Trees on grass from z0 to z1; edge 0..3: behind a fence, a wall, a hedge, a fence."""
    canvas.floor(x, x + side * 40, z0, z1, GRASS, ID["terrain"])
    z = z1 - 1.0
    while z > z0 + 1:
        for row in (13.0, 7.0):
            offset, height = canvas.style.random() * 2, 4.5 + 2.5 * canvas.style.random()
            draw_tree(canvas, x + side * (row + offset), z, height, 2.6)
        _draw_bush(canvas, x + side * 3.0, z, 1.3)
        z -= 5.0 if z < 50 else 9.0
    (_draw_fence, _draw_garden_wall, _draw_hedge, _draw_fence)[edge](canvas, x + side * 0.3, z0, z1)


def draw_guard_rail(canvas: Canvas, x: float, z: float) -> None:
    """One post and the rail to the next: a piece at a time, so that people can stand behind it."""
    canvas.bar(x, z, -0.05, 0, 0.05, 0.6, STEEL, ID["guard rail"], 0.7)
    canvas.wall(x, z, z + 2.5, 0.4, 0.8, (176, 180, 184), ID["guard rail"])
    canvas.wall(x, z, z + 2.5, 0.57, 0.62, (120, 124, 128))


def draw_bridge(canvas: Canvas, z: float, left: float, right: float) -> None:
    """A bridge across the street, which lies between left and right."""
    canvas.shadow(left, right, z - 1, z + 9, 1.6)
    for x in (left - 0.4, right + 0.4):
        canvas.bar(x, z, -0.5, 0, 0.5, 5.4, STONE, ID["bridge"], 0.75)
    canvas.floor(left - 30, right + 30, z, z + 9, (110, 106, 100), ID["bridge"], 5.0)
    canvas.bar(0, z, left - 30, 5.0, right + 30, 6.6, (164, 160, 152), ID["bridge"])
    canvas.bar(0, z, left - 30, 5.0, right + 30, 5.25, (164, 160, 152), None, 0.6)
    canvas.bar(0, z, left - 30, 6.6, right + 30, 7.5, (110, 124, 120), ID["bridge"], 0.9)


def _draw_tunnel(canvas: Canvas, z: float, left: float, right: float) -> None:
    canvas.bar(0, z, left - 40, 0, right + 40, 9.0, (148, 140, 128), ID["tunnel"], 0.9)
    arch = [(left, 0), (left, 4.5), (left + 2, 6.2), (right - 2, 6.2), (right, 4.5), (right, 0)]
    canvas.card(0, z, arch, (24, 22, 24), ID["tunnel"])
    for dx in range(int(left) + 1, int(right), 2):
        canvas.lamp(dx, 5.6, z, 0.12, WARM)


def draw_street_end(canvas: Canvas, kind: int, left: float, right: float) -> None:
    """What closes the view; kind 0: houses across the street, 1: trees, 2: a tunnel under them."""
    if kind == 0:
        for i in range(-4, 5):
            storeys = int(canvas.style.random() * 4)
            height = 7.0 + 3.1 * storeys
            color, x = canvas.pick(canvas.city.facades), i * 12.0
            canvas.bar(x, FAR, -6, 0, 6, height, color, ID["building"], 0.85)
            if canvas.city.gables:
                gable = ((-6, height), (6, height), (0, height + 4))
                canvas.card(x, FAR, gable, canvas.city.roof, ID["building"])
            _draw_windows(canvas, lambda a, y, x=x: (x - 6 + a, y, FAR), 12.0, 2 + storeys, 0.8)
        return
    for i in range(-4, 5):
        height = 7.0 + 7 * canvas.style.random()
        draw_tree(canvas, i * 9.0, FAR - (i % 2), height, 8.0)
        canvas.bar(i * 9.0, FAR - 2, -6, 0, 6, 5, canvas.city.foliage[0], ID["vegetation"], 0.7)
    if kind == 2:
        _draw_tunnel(canvas, FAR - 40, left, right)


def draw_balloon(canvas: Canvas, u: float) -> None:
    """A hot-air balloon: Cityscapes has no name for it, so it is 'unlabeled'."""
    x, y, z, color = (u - 0.5) * 24, 25.0, 100.0, canvas.pick(((220, 70, 50), (240, 180, 50)))
    canvas.disc(x, y, z, 4.2, 4.6, color, ID["unlabeled"])
    canvas.disc(x, y, z, 1.6, 4.6, (250, 240, 220))
    canvas.bar(x, z, -0.8, y - 7.4, 0.8, y - 6.2, (120, 84, 50), ID["unlabeled"])
