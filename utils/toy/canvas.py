"""The canvas of the toy streets, which paints image and instance map under one camera and light.

Positions are in metres, relative to the camera: x to the right of its path, y up from the road, z
ahead.  Later shapes hide earlier ones, so callers draw from far to near.  A side is -1 (left of
the camera's path) or 1 (right).

Corners are rounded to whole pixels before a shape is painted, and shapes are chosen so that all
versions of Pillow fill them alike (see _ring).  Therefore a street has the same pixels everywhere.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from utils.labels import ID
from utils.toy.styles import WARM, CityStyle, Color, Light

NEAR, FAR = 1.5, 130.0  # z in metres at which the street begins (behind the bonnet) and ends
OVERSAMPLING = 2  # everything is drawn larger by this factor; then photos are averaged, maps not
SHADE = (12, 12, 28)  # the colour of shadows

Point = tuple[float, float, float]  # x, y, z in metres
Outline = Sequence[tuple[float, float]]  # x and y of the corners
Pixel = tuple[int, int]


def _ring(pixels: list[Pixel]) -> list[Pixel]:
    """Change a polygon's corners so that every version of Pillow fills it alike.

    If both edges at a topmost or lowest corner lean to the same side, Pillow up to 11.0 fills the
    tip differently from Pillow 11.2 and later.  A second corner, one pixel below or above, gives
    the tip an upright edge, which all versions fill alike.  (Only 11.1 draws long slanted edges
    differently: about one pixel in ten thousand.)
    """
    (ax, ay), (bx, by) = pixels[-2:]
    for cx, cy in pixels:
        if (ay - by) * (cy - by) > 0 and (ax - bx) * (cx - bx) > 0 or (bx == cx and by == cy):
            break  # a leaning tip, or the same corner twice, which may hide one
        ax, ay, bx, by = bx, by, cx, cy
    else:
        return pixels
    corners = [pixel for i, pixel in enumerate(pixels) if pixel != pixels[i - 1]]
    if len(corners) < 2:
        return pixels
    ring = []
    (ax, ay), (bx, by) = corners[-2:]
    for cx, cy in corners:
        if (ay - by) * (cy - by) > 0 and (ax - bx) * (cx - bx) > 0:
            tip = (bx, by + (1 if cy > by else -1))
            steeper_before = abs((ax - bx) * (cy - by)) < abs((cx - bx) * (ay - by))
            ring += (tip, (bx, by)) if steeper_before else ((bx, by), tip)
        else:
            ring.append((bx, by))
        ax, ay, bx, by = bx, by, cx, cy
    return ring


def _sky(size: tuple[int, int], horizon: float, light: Light) -> Image.Image:
    bottom = max(int(horizon * size[1]), 1)
    down = np.minimum(np.arange(size[1]), bottom)[:, None]
    top, low = np.array(light.sky_top), np.array(light.sky_horizon)
    column = ((top * (bottom - down) + low * down) // bottom).astype(np.uint8)
    return Image.fromarray(np.repeat(column[:, None], size[0], axis=1))


class Canvas:
    """Image and instance map under one camera; all drawing functions paint through its methods.

    Args:
        size: (width, height) of the finished picture in pixels.
        layout, style, detail: random streams, see utils.toy.streets.
    """

    def __init__(
        self,
        size: tuple[int, int],
        city: CityStyle,
        light: Light,
        layout: np.random.Generator,
        style: np.random.Generator,
        detail: np.random.Generator,
    ):
        self.size = (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING)
        self.city, self.light, self.style, self.detail = city, light, style, detail
        # In units of the picture's height: a 2:1 picture is 2 wide and 1 high.
        uniform = layout.random(4).tolist()
        self.vanishing_x, self.horizon = 0.88 + 0.24 * uniform[0], 0.45 + 0.04 * uniform[1]
        self.focal, self.eye = 1.5 + 0.25 * uniform[2], 1.25 + 0.25 * uniform[3]
        self._centre = (self.vanishing_x * self.size[0] / 2, self.horizon * self.size[1])
        self._scale = (self.focal * self.size[0] / 2, self.focal * self.size[1])
        self.photo = _sky(self.size, self.horizon, light)
        self.instances = Image.new("I", self.size, ID["sky"])
        self._paint = ImageDraw.Draw(self.photo)
        self._glaze = ImageDraw.Draw(self.photo, "RGBA")
        self._mark = ImageDraw.Draw(self.instances)
        self._haze = (0.0, 0.0)  # finish_ground() adds the haze of the ground
        self._shadows = Image.new("L", self.size)
        self._shade = ImageDraw.Draw(self._shadows)
        # lit() multiplies every colour with the light; divided by it, WARM keeps its own colour.
        self.warm = tuple(int(c / k) for c, k in zip(WARM, light.color))
        # For each glow: pixel x and y, the id at this pixel, two radii in picture heights, colour,
        # and the pixel row of the lamp's foot.
        self.glows: list[tuple[int, int, int, float, float, Color, int]] = []
        self._count = Counter()

    def new(self, name: str) -> int:
        """Return the instance id of one more thing of this class."""
        self._count[name] += 1
        return ID[name] * 1000 + self._count[name] - 1

    def pick(self, choices: Sequence[Color]) -> Color:
        """Choose one of these colours by the style's random stream."""
        return choices[int(self.style.random() * len(choices))]

    def draw_night_sky(self, air: np.random.Generator) -> None:
        """Draw stars and a moon if the light has stars; their label stays sky."""
        uniform = air.random((60, 3)).tolist()
        if not self.light.stars:
            return
        width, height = self.size
        for u, v, k in uniform[1:]:
            x, y, bright = int(u * width), int(v * v * self.horizon * height), int(70 + 150 * k)
            star = (bright, bright, bright + 20)
            self._paint.rectangle((x, y, x + int(k > 0.5), y + 1), fill=star)
        x, y = (0.3 + 0.4 * uniform[0][0]) * width, (0.06 + 0.12 * uniform[0][1]) * height
        for part, color in ((15, (26, 30, 54)), (23, (48, 52, 74)), (34, (232, 230, 212))):
            r = height / part
            self._paint.ellipse((int(x - r), int(y - r), int(x + r), int(y + r)), fill=color)

    # --- camera and light -------------------------------------------------------------------------

    def at(self, x: float, y: float, z: float) -> Pixel:
        """Project a point in space to a pixel of the oversampled picture."""
        if z < NEAR:
            z = NEAR
        return (
            int(self._centre[0] + self._scale[0] * x / z),
            int(self._centre[1] + self._scale[1] * (self.eye - y) / z),
        )

    def _outline(self, points: Sequence[Point]) -> list[Pixel]:
        (cx, cy), (sx, sy), eye = self._centre, self._scale, self.eye
        pixels = []
        for x, y, z in points:  # as in at(), which is too slow to be called this often
            if z < NEAR:
                z = NEAR
            pixels.append((int(cx + sx * x / z), int(cy + sy * (eye - y) / z)))
        return _ring(pixels)

    def lit(self, color: Color, z: float, shade: float = 1.0) -> Color:
        """Return a surface colour under this light, with haze by distance."""
        haze = z * (self._haze[0] + self._haze[1] * z)
        far = haze / (1 + haze)
        near = (1 - far) * shade
        (red, green, blue), light, sky = color, self.light.color, self.light.sky_horizon
        red = int(red * light[0] * near + sky[0] * far)
        green = int(green * light[1] * near + sky[1] * far)
        blue = int(blue * light[2] * near + sky[2] * far)
        return min(red, 255), min(green, 255), min(blue, 255)

    def sunny(self, side: int) -> float:
        """Brightness of a wall on this side (-1 left, 1 right); the sun's side is in shade."""
        return 1.04 - 0.16 * self.light.contrast * self.light.sun * side

    def id_at(self, px: float, py: float) -> int:
        """The id that has been painted at this pixel so far."""
        return self.instances.getpixel((int(px), int(py)))

    # --- shapes in space --------------------------------------------------------------------------

    def polygon(
        self, points: Sequence[Point], color: Color, id_: int | None = None, shade: float = 1.0
    ) -> None:
        """Draw a polygon in space; without an id it is a detail of the image only."""
        ring = self._outline(points)
        self._paint.polygon(ring, fill=self.lit(color, points[0][2], shade))
        if id_ is not None:
            self._mark.polygon(ring, fill=id_)

    def card(
        self,
        x: float,
        z: float,
        outline: Outline,
        color: Color,
        id_: int | None = None,
        shade: float = 1.0,
    ) -> None:
        """Draw a polygon that faces the camera; outline: (dx, y) in metres from (x, 0, z)."""
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
        """Draw an upright rectangle that faces the camera; left and right are relative to x."""
        box = (*self.at(x + left, top, z), *self.at(x + right, bottom, z))
        self._paint.rectangle(box, fill=self.lit(color, z, shade))
        if id_ is not None:
            self._mark.rectangle(box, fill=id_)

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
        """Draw an upright ellipse that faces the camera; rx and ry are its radii."""
        px, py = self._centre[0] + self._scale[0] * x / z, self._scale[1] * (self.eye - y) / z
        py, rx, ry = py + self._centre[1], self._scale[0] * rx / z, self._scale[1] * ry / z
        if px - rx > self.size[0] or px + rx < 0 or py + ry < 0:
            return
        box = (int(px - rx), int(py - ry), int(px + rx), int(py + ry))
        self._paint.ellipse(box, fill=self.lit(color, z, shade))
        if id_ is not None:
            self._mark.ellipse(box, fill=id_)

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
        """Draw an upright rectangle along the street, at this x from z0 to z1."""
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
        """Draw a horizontal rectangle."""
        self.polygon([(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)], color, id_, shade)

    def screen(self, outline: Outline, color: Color, id_: int) -> None:
        """Draw a polygon in picture coordinates 0..1, not in space."""
        ring = _ring([(int(u * self.size[0]), int(v * self.size[1])) for u, v in outline])
        self._paint.polygon(ring, fill=color)
        self._mark.polygon(ring, fill=id_)

    # --- in the image only: lamps, shadows, haze --------------------------------------------------

    def lamp(
        self, x: float, y: float, z: float, radius: float, color: Color, glow: float = 0.0
    ) -> None:
        """Draw a lamp as a disc; when lamps are on, it also glows with this radius in metres."""
        on = self.light.lamps > 0
        box = (*self.at(x - radius, y + radius, z), *self.at(x + radius, y - radius, z))
        self._paint.ellipse(box, fill=color if on else self.lit(color, z))
        if on and glow:
            self.glow(x, y, z, glow, color)

    def glow(
        self, x: float, y: float, z: float, radius: float, color: Color, flat: float = 1.0
    ) -> None:
        """Note the light around a lamp, which is added last; flat < 1 for light on the ground."""
        (px, py), reach = self.at(x, y, z), radius * self.focal / z
        if 0 <= px < self.size[0] and 0 <= py < self.size[1]:
            foot = self.at(x, 0, z)[1]
            self.glows.append((px, py, self.id_at(px, py), reach, reach * flat, color, foot))

    def veil(self, points: Sequence[Point], color: Color, opacity: int) -> None:
        """Draw a translucent polygon."""
        fill = (*self.lit(color, points[0][2]), opacity)
        self._glaze.polygon(self._outline(points), fill=fill)

    def shadow(
        self, x0: float, x1: float, z0: float, z1: float, strength: float = 1.0, height: float = 0.0
    ) -> None:
        """Draw an octagon of shade under a thing of this height, longer away from the sun."""
        reach = -self.light.sun * self.light.cast * height
        x0, x1 = x0 + min(reach, 0), x1 + max(reach, 0)
        a, b, c, d = (x0 + (x1 - x0) * k for k in (0, 0.2, 0.8, 1))
        k, m = z0 + (z1 - z0) * 0.25, z0 + (z1 - z0) * 0.75
        ring = ((a, k), (b, z0), (c, z0), (d, k), (d, m), (c, z1), (b, z1), (a, m))
        fill = (*SHADE, min(int(self.light.shadow * strength), 255))
        self._glaze.polygon(self._outline([(x, 0, z) for x, z in ring]), fill=fill)

    def _cast(self, ring: Sequence[tuple[float, float]]) -> None:
        """Mark a piece of the ground as shadow; ring: x and z of its corners."""
        self._shade.polygon(self._outline([(x, 0, z) for x, z in ring]), fill=255)

    def _reach(self, height: float) -> tuple[float, float]:
        """Distance from a point's foot to its shadow, in x and z."""
        return -self.light.sun * self.light.cast * height, 0.4 * self.light.cast * height

    def cast_box(self, x0: float, x1: float, z0: float, z1: float, height: float) -> None:
        """Cast the shadow of a house; x0 is its wall at the street."""
        dx, dz = self._reach(height)
        if dx * (x0 - x1) > 0:  # away from the street it would fall on other houses
            front, back = [(x0, z0), (x0 + dx, z0 + dz), (x0 + dx, z1 + dz)], [(x1, z1), (x1, z0)]
            self._cast([*front, (x1 + dx, z1 + dz), *back])

    def cast_pole(self, x: float, z: float, height: float, radius: float) -> None:
        """Cast the shadow of a pole or a trunk."""
        dx, dz = self._reach(height)
        if dx:
            a, b = (x + radius, z - radius), (x - radius, z + radius)
            self._cast([a, b, (b[0] + dx, b[1] + dz), (a[0] + dx, a[1] + dz)])

    def cast_crown(self, x: float, z: float, height: float, radius: float) -> None:
        """Cast the shadow of a tree's crown, with bulges."""
        dx, dz = self._reach(height)
        if dx:
            ring = ((1, 0), (0.78, 0.6), (0.3, 0.8), (0, 1), (-0.6, 0.85), (-0.8, 0.5), (-1, 0),
                    (-0.85, -0.65), (-0.4, -0.8), (0, -1), (0.6, -0.75), (0.75, -0.5))  # fmt: skip
            self._cast([(x + dx + radius * u, z + dz + radius * v) for u, v in ring])

    def finish_ground(self) -> None:
        """Draw the cast shadows on the ground, and add haze by distance, row by row."""
        if self.light.cast:
            shadow = self._shadows.point([0] + [self.light.shadow * 5 // 4] * 255)
            self.photo.paste(SHADE, mask=shadow)
        fade = bytearray(self.size[1])
        for row in range(int(self._centre[1]) + 1, self.size[1]):
            z = self._scale[1] * self.eye / (row - self._centre[1])
            haze = z * (self.light.haze[0] + self.light.haze[1] * z)
            fade[row] = int(255 * haze / (1 + haze))
        mask = Image.frombytes("L", (1, self.size[1]), bytes(fade))
        mask = mask.resize(self.size, Image.Resampling.NEAREST)
        self.photo.paste(self.light.sky_horizon, mask=mask)
        self._haze = self.light.haze
