"""Toy streets: procedurally drawn street scenes in the Cityscapes label space.

One drawing makes photo, label map and instance map: the canvas of utils.toy_drawing projects shapes
given in metres through one camera (x to the right, y up from the road, z ahead) and paints them,
far to near, into the photo and the instance map at once; the label map follows from the instance
map.  So the labels are exact, and there is nothing to download.

A street is a cross-section first (_Plan: road, tracks, parking, pavements).  On it come the ground,
what closes the view, and the houses; then all that stands or moves, listed as (z, how to draw it,
arguments) and sorted by distance; at last the camera's own bonnet and borders.  The photo is then
developed: clouds, the grain of each class's surface, the glow of lamps, sensor noise.

Separate random streams keep apart what must not disturb one another: the layout (where things
stand), the style (colours, crowns, lit windows) and the texture.  Size and time of day leave the
layout as it is; another city changes building heights and the number of trees only.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

from utils.labels import ID
from utils.toy_drawing import (
    CAR_COLORS,
    CITY_STYLES,
    FAR,
    GRASS,
    LIGHTS,
    NEAR,
    OVERSAMPLING,
    WHITE,
    Canvas,
    draw_balloon,
    draw_bicycle,
    draw_bin,
    draw_bridge,
    draw_building,
    draw_car,
    draw_dog,
    draw_guard_rail,
    draw_large_vehicle,
    draw_motorcycle,
    draw_park,
    draw_person,
    draw_pole,
    draw_pole_group,
    draw_rider,
    draw_sign,
    draw_street_end,
    draw_street_lamp,
    draw_traffic_light,
    draw_tree,
)

CITIES = tuple(CITY_STYLES)
TIMES_OF_DAY = tuple(LIGHTS)

LANE = 3.2  # metres

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

_Thing = tuple[float, Callable[..., None], tuple]  # z, drawing function, its arguments


class Street(NamedTuple):
    image_u8: torch.Tensor  # (3, H, W) uint8 RGB
    label_ids: torch.Tensor  # (H, W) uint8, 0..33
    instance_ids: torch.Tensor  # (H, W) int32, class*1000+n for things, the label id for the rest
    city: str
    time_of_day: str


# --- the layout -----------------------------------------------------------------------------------


class _Plan(NamedTuple):
    """The street's cross-section, as x in metres; the camera drives at x = 0.

    A side is -1 (left) or 1 (right); `pair[side > 0]` is what a pair holds for it.
    """

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

    def road_edge(self, side: int) -> float:
        return self.left if side < 0 else self.right

    def kerb(self, side: int) -> float:
        """Where the pavement begins: at the road, or beyond the track."""
        return self.left - self.track if side < 0 else self.right

    def houses(self, side: int) -> float:
        return self.kerb(side) + side * (self.walk[side > 0] + self.strip[side > 0])


def _plan_street(layout: np.random.Generator) -> _Plan:
    dice = layout.random(12)
    parking = (bool(dice[0] < 0.6), bool(dice[1] < 0.6))
    lanes = 1 + int(dice[2] < 0.35)
    left = -LANE / 2 - LANE * lanes - 2.2 * parking[0]
    right = LANE / 2 + 0.5 + 2.2 * parking[1]
    strip = tuple(1.4 + d if d < 0.32 else 0.0 for d in (dice[3], dice[4]))
    walk = (2.4 + 2.0 * dice[5], 2.4 + 2.0 * dice[6])
    crossing = 16 + 26 * dice[8] if dice[7] < 0.45 else 0.0
    return _Plan(left, right, 3.6 * (dice[9] < 0.2), parking, walk, strip, crossing)


def _plan_parking(plan: _Plan, layout: np.random.Generator) -> list[_Thing]:
    """What stands at the road's edges."""
    things = []
    for side in (-1, 1):
        x = plan.road_edge(side) - side * 1.15
        for z in np.arange(7.0, 80.0, 5.6):
            dice = layout.random(4)
            if not (plan.parking[side > 0] and plan.free(z, 6)):
                continue
            if dice[0] < 0.62:
                args = (x, z + dice[1] * 0.5, side < 0, 0.95 + 0.12 * dice[2])
                things.append((z, draw_car, args))
            elif dice[0] < 0.67:
                name = "caravan" if dice[3] < 0.4 else "trailer" if dice[3] < 0.9 else "truck"
                things.append((z, draw_large_vehicle, (name, x, z, side < 0)))
            elif dice[0] < 0.74:
                color = CAR_COLORS[int(len(CAR_COLORS) * dice[3])]
                things.append((z, draw_motorcycle, (x, z, color)))
    return things


def _plan_traffic(plan: _Plan, layout: np.random.Generator) -> list[_Thing]:
    """What moves along the lanes, on the track and over the crossing."""
    things = []
    lanes = [(0.0, False), (-LANE, True)] + [(-2 * LANE, True)] * (plan.left < -10)
    for x, toward in lanes:
        z = 9.0 if toward else 12.0
        while z < 80:
            dice = layout.random(5)
            z += 2 + 26 * dice[0]
            room = 6
            if dice[1] < 0.62:
                args = (x + 0.3 * dice[2], z, toward, 0.97 + 0.12 * dice[3])
                things.append((z, draw_car, args))
            elif dice[1] < 0.77:
                name = "truck" if dice[4] < 0.33 else "bus"
                things.append((z + 6, draw_large_vehicle, (name, x, z + 6, toward)))
                room = 14
            else:
                args = (x - 0.7 if toward else x + 0.7, z, False, bool(dice[4] < 0.3))
                things.append((z, draw_rider, args))
            z += room
    dice = layout.random(6)
    if plan.track and dice[0] < 0.75:
        z = 20 + 26 * dice[1]
        args = ("train", plan.left - plan.track / 2, z, True)
        things.append((z, draw_large_vehicle, args))
    if plan.crossing:
        for i, u in enumerate(dice[2:5]):
            if u < 0.5:
                x = plan.left + (plan.right - plan.left) * (0.15 + 0.3 * i + u * 0.4)
                z = plan.crossing - 2.0 - 0.1 * i
                things.append((z, draw_person, (x, z, 1.6 + 0.3 * u, 0.22)))
        if dice[5] < 0.5:
            x, z = plan.left + 2 + 6 * dice[5], plan.crossing + 3
            things.append((z, draw_rider, (x, z, True, False)))
    return things


def _plan_furniture(
    plan: _Plan, side: int, greenery: float, layout: np.random.Generator
) -> list[_Thing]:
    """Trees, lamps, signs, people along one pavement."""
    things = []
    row, middle = plan.kerb(side) + side * 0.7, plan.houses(side) - side * 0.9
    for place in np.arange(7.0, 70.0, 3.5):
        dice = layout.random(8)
        z, kind = place + 1.5 * dice[0], dice[1]
        if not plan.free(z, 1):
            continue
        if kind < 0.28:
            if dice[2] < greenery + 0.1:
                args = (row + side * 0.3, z, 4.4 + 2 * dice[3], 1.7 + 1.0 * dice[4])
                things.append((z, draw_tree, args))
        elif kind < 0.39:
            things.append((z, draw_street_lamp, (row, z, side)))
        elif kind < 0.52:
            things.append((z, draw_sign, (row, z, int(4 * dice[2]))))
        elif kind < 0.59:
            things.append((z, draw_bin, (row, z, int(3 * dice[2]))))
        elif kind < 0.69:
            color = CAR_COLORS[int(len(CAR_COLORS) * dice[2])]
            things.append((z, draw_bicycle, (row + side * 0.3, z, True, color)))
        elif kind < 0.75:
            things.append((z, draw_pole, (row, z, 4 + 3 * dice[2])))
        elif kind < 0.77:
            things.append((z, draw_pole_group, (row, z)))
        if dice[5] < 0.3:
            args = (middle, z + 0.4, 1.55 + 0.35 * dice[6], 0.05 + 0.2 * dice[7])
            things.append((z + 0.4, draw_person, args))
            if dice[6] < 0.12:
                things.append((z + 0.3, draw_dog, (middle - side * 0.7, z + 0.3)))
    if plan.crossing:
        z, phase = plan.crossing - 3.8, int(layout.random() * 3)
        things.append((z, draw_traffic_light, (plan.kerb(side) + side * 0.4, z, phase)))
    return things


# --- the ground and the houses --------------------------------------------------------------------


def _draw_ground(canvas: Canvas, plan: _Plan, dice: np.ndarray) -> None:
    """Grass, pavements, road and tracks: all that is flat."""
    road, pavement = canvas.city.road, canvas.city.pavement
    canvas.floor(-200, 200, NEAR, 400, GRASS, ID["terrain"])
    for side in (-1, 1):
        kerb, houses = plan.kerb(side), plan.houses(side)
        canvas.floor(kerb, houses + side * 0.2, NEAR, FAR, pavement, ID["sidewalk"])
        for z in range(3, 40, 2):  # joints between the slabs
            canvas.floor(kerb, houses, z, z + 0.06, pavement, shade=0.86)
        if plan.strip[side > 0]:
            inner = kerb + side * 0.3
            outer = inner + side * plan.strip[side > 0]
            canvas.floor(inner, outer, NEAR, FAR, GRASS, ID["terrain"])
    canvas.floor(plan.left, plan.right, NEAR, FAR, road, ID["road"])
    for x in (-0.9, 0.9, -LANE - 0.9, -LANE + 0.9):  # worn by tyres
        canvas.floor(x - 0.25, x + 0.25, NEAR, 80, road, shade=0.95)
    if plan.track:
        canvas.floor(plan.left - plan.track, plan.left, NEAR, FAR, (112, 100, 90), ID["rail track"])
        centre = plan.left - plan.track / 2
        for z in range(3, 45):
            canvas.floor(centre - 1.2, centre + 1.2, z, z + 0.25, (88, 74, 64))
        for x in (centre - 0.72, centre + 0.72):
            canvas.floor(x - 0.05, x + 0.05, NEAR, FAR, (186, 184, 180))
    for side in (-1, 1):
        kerb = plan.kerb(side)
        canvas.floor(kerb, kerb + side * 0.22, NEAR, FAR, pavement, ID["sidewalk"], shade=1.14)
        if plan.parking[side > 0]:
            start = plan.road_edge(side) - side * 2.2
            if dice[0] < 0.3:
                canvas.floor(start, start + side * 2.2, NEAR, FAR, (128, 116, 112), ID["parking"])
            canvas.floor(start - 0.06, start + 0.06, NEAR, FAR, WHITE, shade=0.9)
    _draw_ground_details(canvas, plan, dice)


def _draw_ground_details(canvas: Canvas, plan: _Plan, dice: np.ndarray) -> None:
    """What lies on the ground here and there: repairs, a yard, the side street, lane markings."""
    road = canvas.city.road
    if dice[1] < 0.4:  # mended asphalt
        x, z = -3 + 3 * dice[2], 7 + 10 * dice[3]
        canvas.floor(x, x + 1.6, z, z + 4, road, shade=0.8)
    if dice[1] > 0.75:  # a yard's entrance, neither road nor pavement
        x, z = plan.houses(1), 8 + 20 * dice[2]
        canvas.floor(x - plan.walk[1], x, z, z + 5, (176, 158, 120), ID["ground"])
    if plan.crossing:
        z = plan.crossing
        canvas.floor(-60, 60, z, z + 7, road, ID["road"])
        for x in range(int(plan.left) + 1, int(plan.right)):
            canvas.floor(x, x + 0.5, z - 3.4, z - 0.8, WHITE, shade=0.92)
    for x in (-LANE / 2, -LANE / 2 - LANE, -LANE / 2 - LANE * 2):
        for z in range(4, 90, 6):
            if x > plan.left + 1 and plan.free(z, 7):
                canvas.floor(x - 0.08, x + 0.08, z, z + 3, WHITE, shade=0.95)


def _draw_frontage(canvas: Canvas, plan: _Plan, side: int, layout: np.random.Generator) -> None:
    """Houses and parks along one side, painted from far to near."""
    x, spans = plan.houses(side), []
    z, corner = 2.0, False  # corner: nothing hides the near end wall of what stands here
    while z < FAR - 12:
        dice = layout.random(4)
        end = following = z + 9 + 9 * dice[0]
        if z < plan.crossing < end:  # a side street: build up to it, go on behind it
            end, following = plan.crossing, plan.crossing + 7
        end = max(end, z + 2)
        park = dice[1] < 0.12 + 0.3 * canvas.city.greenery
        spans.append((z, end, park, corner, dice))
        z, corner = following, park or end < following
    for z0, z1, park, corner, dice in reversed(spans):
        if park:
            draw_park(canvas, side, x, z0, z1, int(dice[2] * 4))
        else:
            draw_building(canvas, side, x, z0, z1, dice[3], dice[2] < 0.4, corner)


# --- the camera -----------------------------------------------------------------------------------


def _draw_frame(canvas: Canvas, dice: np.ndarray) -> None:
    """What belongs to the camera: the car's bonnet, and the borders of the rectified picture."""
    if dice[0] < 0.85:
        rise, dark = 0.05 + 0.05 * dice[1], canvas.lit((52, 54, 62), 1.0)
        curve = [(i / 20, (i / 10 - 1) ** 4) for i in range(21)]
        outline = [(u, 1 - rise * (1 - 0.85 * bend)) for u, bend in curve]
        canvas.screen([(0, 1.01), *outline, (1, 1.01)], dark, ID["ego vehicle"])
        light = canvas.lit((96, 100, 112), 1.0)
        band = [(u, v + 0.012) for u, v in outline[3:18]] + [(0.8, 1.01), (0.2, 1.01)]
        canvas.screen(band, light, ID["ego vehicle"])
        inner = [(u, v + 0.022) for u, v in outline[3:18]] + [(0.8, 1.02), (0.2, 1.02)]
        canvas.screen(inner, dark, ID["ego vehicle"])
    if dice[2] < 0.35:
        width = 0.006 + 0.006 * dice[3]
        for u in (0, 1 - width):
            column = ((u, 0), (u + width, 0), (u + width, 1), (u, 1))
            canvas.screen(column, (0, 0, 0), ID["rectification border"])
    if dice[4] < 0.35:
        for v in (0, 0.988):
            row = ((0, v), (1, v), (1, v + 0.012), (0, v + 0.012))
            canvas.screen(row, (0, 0, 0), ID["out of roi"])


def _draw_glow(canvas: Canvas) -> Image.Image:
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


def _develop(canvas: Canvas, label_ids: np.ndarray, texture: np.random.Generator) -> np.ndarray:
    """The finished photo (H, W, 3) uint8: clouds, grain by class, glow of lamps, sensor noise."""
    height, width = label_ids.shape
    photo = np.asarray(canvas.photo.reduce(OVERSAMPLING)).astype(np.float32)

    def noise(rows: int, columns: int) -> np.ndarray:  # (H, W) in -1..1, of this coarseness
        grain = texture.integers(0, 256, (rows, columns), dtype=np.uint8)
        grain = Image.fromarray(grain).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(grain).astype(np.float32) / 127.5 - 1

    cloud = np.float32(canvas.light.sky_horizon) * 1.08
    cover = noise(10, 14) + 0.5 * noise(20, 28) - 0.15
    cover = np.where(label_ids == ID["sky"], np.clip(cover, 0, 0.7), 0)[..., None]
    photo += cover * (cloud - photo)
    gain = _FINE_GRAIN[label_ids] * noise(128, 256) + _BLOTCHES[label_ids] * noise(28, 56)
    photo *= (1 + gain)[..., None]
    if canvas.light.lamps:
        glow = _draw_glow(canvas).resize((width, height), Image.Resampling.BILINEAR)
        photo += np.asarray(glow).astype(np.float32)
    sensor = texture.integers(-4, 5, (height, width, 3), dtype=np.int8)
    return np.clip(photo + sensor, 0, 255).astype(np.uint8)


# --- the whole ------------------------------------------------------------------------------------


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
    chosen_city = CITIES[int(style.random() * len(CITIES))]
    chosen_time = TIMES_OF_DAY[int(style.random() * len(TIMES_OF_DAY))]
    city = _known(city or chosen_city, CITIES, "city")
    time_of_day = _known(time_of_day or chosen_time, TIMES_OF_DAY, "time of day")

    canvas = Canvas(size, CITY_STYLES[city], LIGHTS[time_of_day], layout, style)
    plan, extras = _plan_street(layout), layout.random(16)
    _draw_ground(canvas, plan, extras[:4])
    if extras[4] < 0.15:
        draw_balloon(canvas, extras[5])
    draw_street_end(canvas, 2 if extras[6] < 0.06 else int(extras[6] < 0.65), plan.left, plan.right)
    for side, part in ((-1, parts[0]), (1, parts[1])):
        _draw_frontage(canvas, plan, side, part)
    things = _plan_parking(plan, parts[2]) + _plan_traffic(plan, parts[2])
    for side, part in ((-1, parts[3]), (1, parts[4])):
        things += _plan_furniture(plan, side, canvas.city.greenery, part)
    if extras[7] < 0.08:
        z = 30 + 30 * extras[8]
        things.append((z, draw_bridge, (z, plan.left, plan.right)))
    if extras[9] < 0.1:
        x, places = plan.kerb(-1) - 0.3, np.arange(4.0, 60.0, 2.5)
        things += [(z, draw_guard_rail, (x, z)) for z in places if plan.free(z, 3)]
    for _, draw, arguments in sorted(things, key=lambda thing: -thing[0]):
        draw(canvas, *arguments)
    _draw_frame(canvas, extras[10:])

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
