"""Toy streets: procedurally drawn street scenes in the Cityscapes label space.

One drawing makes photo, label map and instance map: the canvas of utils.toy.canvas projects shapes
given in metres through one camera (x to the right, y up from the road, z ahead) and paints them,
far to near, into the photo and the instance map at once; the label map follows from the instance
map.  So the labels are exact, and there is nothing to download.

A street is a cross-section first (_Plan: road, tracks, parking, pavements).  On it come the ground
with the shadows that fall on it, what closes the view, and the houses; then all that stands or
moves, listed as (z, how to draw it, arguments) and sorted by distance; at last the camera's own
bonnet and borders.  utils.toy.photo then develops the photo.  Colours and light are in
utils.toy.styles; what there is to draw in utils.toy.buildings, objects and vehicles.

Separate random streams keep apart what must not disturb one another: the layout (where things
stand), the style (colours, crowns, lit windows), the texture, the air (weather) and the detail (how
houses and cars are built).  Size, time of day and weather leave the layout as it is; another city
changes building heights and the number of trees only.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from utils.labels import ID
from utils.toy.buildings import (
    draw_balloon,
    draw_bridge,
    draw_building,
    draw_guard_rail,
    draw_park,
    draw_street_end,
    house_height,
)
from utils.toy.canvas import FAR, NEAR, OVERSAMPLING, Canvas
from utils.toy.objects import (
    draw_bin,
    draw_dog,
    draw_person,
    draw_pole,
    draw_pole_group,
    draw_sign,
    draw_street_lamp,
    draw_traffic_light,
    draw_tree,
)
from utils.toy.photo import develop
from utils.toy.styles import (
    CAR_COLORS,
    CITY_STYLES,
    GRASS,
    TIMES_OF_DAY,
    WEATHERS,
    WHITE,
    light_of,
)
from utils.toy.vehicles import (
    draw_bicycle,
    draw_car,
    draw_large_vehicle,
    draw_motorcycle,
    draw_rider,
)

CITIES = tuple(CITY_STYLES)
__all__ = ["CITIES", "RENDERER_HASH", "TIMES_OF_DAY", "WEATHERS", "Street", "draw_street"]

# A changed renderer draws other streets: this is a part of whatever is cached from them.
RENDERER_HASH: str = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()

# Twenty equally likely kinds: half of the streets are clear, every tenth lies in fog.
_WEATHER_OF = ("clear",) * 10 + ("cloudy",) * 5 + ("rain",) * 3 + ("fog",) * 2

LANE = 3.2  # metres

_Thing = tuple[float, Callable[..., None], tuple]  # z, drawing function, its arguments


class Street(NamedTuple):
    image_u8: torch.Tensor  # (3, H, W) uint8 RGB
    label_ids: torch.Tensor  # (H, W) uint8, 0..33
    instance_ids: torch.Tensor  # (H, W) int32, class*1000+n for things, the label id for the rest
    city: str
    time_of_day: str
    weather: str


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


class _Plot(NamedTuple):
    """A piece of ground along the pavement, from z0 to z1, with a house or a park."""

    z0: float
    z1: float
    park: bool
    corner: bool  # nothing hides the near end wall of what stands here
    dice: np.ndarray


def _plan_frontage(plan: _Plan, greenery: float, layout: np.random.Generator) -> list[_Plot]:
    """Houses and parks along one side, from near to far."""
    plots, z, corner = [], 2.0, False
    while z < FAR - 12:
        dice = layout.random(4)
        end = following = z + 9 + 9 * dice[0]
        if z < plan.crossing < end:  # a side street: build up to it, go on behind it
            end, following = plan.crossing, plan.crossing + 7
        end = max(end, z + 2)
        park = dice[1] < 0.12 + 0.3 * greenery
        plots.append(_Plot(z, end, park, corner, dice))
        z, corner = following, park or end < following
    return plots


def _draw_frontage(canvas: Canvas, side: int, x: float, plots: list[_Plot]) -> None:
    for z0, z1, park, corner, dice in reversed(plots):
        if park:
            draw_park(canvas, side, x, z0, z1, int(dice[2] * 4))
        else:
            draw_building(canvas, side, x, z0, z1, dice[3], dice[2] < 0.4, corner)


_SLENDER = {  # what casts the shadow of a pole: height and radius
    draw_street_lamp: (6.2, 0.1), draw_sign: (2.9, 0.12), draw_traffic_light: (3.5, 0.15),
    draw_pole: (5.0, 0.1), draw_person: (1.7, 0.22), draw_pole_group: (2.5, 0.25),
    draw_bin: (1.1, 0.25),
}  # fmt: skip


def _cast_shadows(
    canvas: Canvas, frontages: list[tuple[int, float, list[_Plot]]], things: list[_Thing]
) -> None:
    """The shadows of houses, trees and poles, all of which lie on the ground."""
    for side, x, plots in frontages:
        for plot in plots:
            if not plot.park:
                height = house_height(canvas.city, plot.dice[3])
                canvas.cast_box(x, x + side * 11.0, plot.z0, plot.z1, height)
    for z, draw, arguments in things:
        if draw is draw_tree:
            x, z, height, spread = arguments
            canvas.cast_crown(x, z, height, spread)
            canvas.cast_pole(x, z, height, 0.15)
        elif draw in _SLENDER:
            canvas.cast_pole(arguments[0], z, *_SLENDER[draw])


# --- the camera -----------------------------------------------------------------------------------


def _draw_frame(canvas: Canvas, dice: np.ndarray) -> None:
    """What belongs to the camera: the car's bonnet, and the borders of the rectified picture."""
    if dice[0] < 0.85:
        rise, dark = 0.05 + 0.05 * dice[1], canvas.lit((52, 54, 62), 1.0)
        curve = [(i / 20, (i - 10) ** 4 / 10**4) for i in range(21)]
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
    weather: str | None = None,
) -> Street:
    """Draw the street scene that belongs to these numbers: the same one on every machine.

    Args:
        seed, index: not negative; each pair is another street.
        size: (width, height) in pixels, 32x16 at least; made for width = 2 * height.
        city: one of CITIES; None lets the seed choose.
        time_of_day: one of TIMES_OF_DAY; None lets the seed choose.
        weather: one of WEATHERS; None lets the seed choose.

    Raises ValueError for a smaller size and for unknown names.
    """
    if size[0] < 32 or size[1] < 16:
        raise ValueError(f"a toy street of {size[0]}x{size[1]} pixels: 32x16 is the least.")
    # Streams of their own, so that what one part draws leaves the other parts as they were.
    layout = np.random.default_rng([seed, index])
    streams = (np.random.default_rng([seed, index, k]) for k in range(1, 10))
    style, texture, *parts, air, detail = streams
    chosen_city = CITIES[int(style.random() * len(CITIES))]
    chosen_time = TIMES_OF_DAY[int(style.random() * len(TIMES_OF_DAY))]
    city = _known(city or chosen_city, CITIES, "city")
    time_of_day = _known(time_of_day or chosen_time, TIMES_OF_DAY, "time of day")
    chosen_weather = _WEATHER_OF[int(air.random() * len(_WEATHER_OF))]
    weather = _known(weather or chosen_weather, WEATHERS, "weather")

    light = light_of(time_of_day, weather)
    canvas = Canvas(size, CITY_STYLES[city], light, layout, style, detail)
    plan, extras = _plan_street(layout), layout.random(16)
    frontages = [
        (side, plan.houses(side), _plan_frontage(plan, canvas.city.greenery, part))
        for side, part in ((-1, parts[0]), (1, parts[1]))
    ]
    things = _plan_parking(plan, parts[2]) + _plan_traffic(plan, parts[2])
    for side, part in ((-1, parts[3]), (1, parts[4])):
        things += _plan_furniture(plan, side, canvas.city.greenery, part)
    if extras[7] < 0.08:
        z = 30 + 30 * extras[8]
        things.append((z, draw_bridge, (z, plan.left, plan.right)))
    if extras[9] < 0.1:
        x, places = plan.kerb(-1) - 0.3, np.arange(4.0, 60.0, 2.5)
        things += [(z, draw_guard_rail, (x, z)) for z in places if plan.free(z, 3)]

    canvas.draw_night_sky(air)
    _draw_ground(canvas, plan, extras[:4])
    if light.cast:
        _cast_shadows(canvas, frontages, things)
    canvas.finish_ground()
    if extras[4] < 0.15:
        draw_balloon(canvas, extras[5])
    draw_street_end(canvas, 2 if extras[6] < 0.06 else int(extras[6] < 0.65), plan.left, plan.right)
    for frontage in frontages:
        _draw_frontage(canvas, *frontage)
    for _, draw, arguments in sorted(things, key=lambda thing: -thing[0]):
        draw(canvas, *arguments)
    _draw_frame(canvas, extras[10:])

    instance_ids = np.asarray(canvas.instances)[::OVERSAMPLING, ::OVERSAMPLING].astype(np.int32)
    label_ids = np.where(instance_ids >= 1000, instance_ids // 1000, instance_ids).astype(np.uint8)
    photo = develop(canvas, label_ids, texture, air)
    return Street(
        torch.from_numpy(np.ascontiguousarray(photo.transpose(2, 0, 1))),
        torch.from_numpy(label_ids),
        torch.from_numpy(instance_ids),
        city,
        time_of_day,
        weather,
    )
