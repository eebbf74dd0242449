"""Toy streets: procedurally drawn street scenes in the Cityscapes label space.

Image, label map and instance map come from one drawing.  utils.toy.canvas projects shapes given in
metres through one camera (x to the right, y up from the road, z ahead) and paints them, far to
near, into the image and the instance map at the same time; the label map is computed from the
instance map.  Therefore the labels are exact, and nothing has to be downloaded.

A street is planned as a cross-section (_Plan: road, tracks, parking, pavements) and drawn in this
order: the ground with the shadows on it, the end of the street, and the houses; then all other
objects, as a list of (z, drawing function, arguments) sorted by distance; last the camera's own
bonnet and the borders of its picture.  utils.toy.photo then adds clouds, texture, light and
weather.  Colours and light are in utils.toy.styles, the drawing functions in utils.toy.buildings,
objects and vehicles.

Each part of a street has its own random stream, so that a change of one part leaves the others
alone: the layout (positions), the style (colours, crowns, lit windows), the texture, the air
(weather) and the detail (construction of houses and cars).  Size, time of day and weather do not
change the layout; the city changes only building heights and the number of trees.

A variable `uniform` holds random numbers, each uniform in 0..1.
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
from utils.toy.styles import CAR_COLORS, CITY_STYLES, GRASS, TIMES_OF_DAY, WEATHERS, WHITE, light_of
from utils.toy.vehicles import (
    draw_bicycle,
    draw_car,
    draw_large_vehicle,
    draw_motorcycle,
    draw_rider,
)

CITIES = tuple(CITY_STYLES)
__all__ = ["CITIES", "RENDERER_HASH", "TIMES_OF_DAY", "WEATHERS", "Street", "draw_street"]

# Part of the key of cached streets, because another version of this code may draw other streets.
RENDERER_HASH: str = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()

# Twenty equally likely entries: half of the streets are in clear weather, a tenth in fog.
_WEATHER_OF = ("clear",) * 10 + ("cloudy",) * 5 + ("rain",) * 3 + ("fog",) * 2

LANE = 3.2  # metres

_Thing = tuple[float, Callable[..., None], tuple]  # z, drawing function, its arguments


class Street(NamedTuple):
    """A drawn street and the facts about it."""

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
        """Whether z is free: not on the side street and not within `margin` metres before it."""
        return not (self.crossing and -margin < z - self.crossing < 8)

    def road_edge(self, side: int) -> float:
        return self.left if side < 0 else self.right

    def kerb(self, side: int) -> float:
        """Where the pavement begins: at the road, or beyond the track."""
        return self.left - self.track if side < 0 else self.right

    def houses(self, side: int) -> float:
        return self.kerb(side) + side * (self.walk[side > 0] + self.strip[side > 0])


def _plan_street(layout: np.random.Generator) -> _Plan:
    uniform = layout.random(12)
    parking = (bool(uniform[0] < 0.6), bool(uniform[1] < 0.6))
    lanes = 1 + int(uniform[2] < 0.35)
    left = -LANE / 2 - LANE * lanes - 2.2 * parking[0]
    right = LANE / 2 + 0.5 + 2.2 * parking[1]
    strip = tuple(1.4 + d if d < 0.32 else 0.0 for d in (uniform[3], uniform[4]))
    walk = (2.4 + 2.0 * uniform[5], 2.4 + 2.0 * uniform[6])
    crossing = 16 + 26 * uniform[8] if uniform[7] < 0.45 else 0.0
    return _Plan(left, right, 3.6 * (uniform[9] < 0.2), parking, walk, strip, crossing)


def _plan_parking(plan: _Plan, layout: np.random.Generator) -> list[_Thing]:
    """Plan the vehicles that are parked at the road's edges."""
    things = []
    for side in (-1, 1):
        x = plan.road_edge(side) - side * 1.15
        for z in np.arange(7.0, 80.0, 5.6):
            uniform = layout.random(4)
            if not (plan.parking[side > 0] and plan.free(z, 6)):
                continue
            if uniform[0] < 0.62:
                args = (x, z + uniform[1] * 0.5, side < 0, 0.95 + 0.12 * uniform[2])
                things.append((z, draw_car, args))
            elif uniform[0] < 0.67:
                name = "caravan" if uniform[3] < 0.4 else "trailer" if uniform[3] < 0.9 else "truck"
                things.append((z, draw_large_vehicle, (name, x, z, side < 0)))
            elif uniform[0] < 0.74:
                color = CAR_COLORS[int(len(CAR_COLORS) * uniform[3])]
                things.append((z, draw_motorcycle, (x, z, color)))
    return things


def _plan_traffic(plan: _Plan, layout: np.random.Generator) -> list[_Thing]:
    """Plan the traffic on the lanes, on the track and over the crossing."""
    things = []
    lanes = [(0.0, False), (-LANE, True)] + [(-2 * LANE, True)] * (plan.left < -10)
    for x, toward in lanes:
        z = 9.0 if toward else 12.0
        while z < 80:
            uniform = layout.random(5)
            z += 2 + 26 * uniform[0]
            room = 6
            if uniform[1] < 0.62:
                args = (x + 0.3 * uniform[2], z, toward, 0.97 + 0.12 * uniform[3])
                things.append((z, draw_car, args))
            elif uniform[1] < 0.77:
                name = "truck" if uniform[4] < 0.33 else "bus"
                things.append((z + 6, draw_large_vehicle, (name, x, z + 6, toward)))
                room = 14
            else:
                args = (x - 0.7 if toward else x + 0.7, z, False, bool(uniform[4] < 0.3))
                things.append((z, draw_rider, args))
            z += room
    uniform = layout.random(6)
    if plan.track and uniform[0] < 0.75:
        z = 20 + 26 * uniform[1]
        args = ("train", plan.left - plan.track / 2, z, True)
        things.append((z, draw_large_vehicle, args))
    if plan.crossing:
        for i, u in enumerate(uniform[2:5]):
            if u < 0.5:
                x = plan.left + (plan.right - plan.left) * (0.15 + 0.3 * i + u * 0.4)
                z = plan.crossing - 2.0 - 0.1 * i
                things.append((z, draw_person, (x, z, 1.6 + 0.3 * u, 0.22)))
        if uniform[5] < 0.5:
            x, z = plan.left + 2 + 6 * uniform[5], plan.crossing + 3
            things.append((z, draw_rider, (x, z, True, False)))
    return things


def _plan_furniture(
    plan: _Plan, side: int, greenery: float, layout: np.random.Generator
) -> list[_Thing]:
    """Plan the trees, lamps, signs and people along one pavement."""
    things = []
    row, middle = plan.kerb(side) + side * 0.7, plan.houses(side) - side * 0.9
    for place in np.arange(7.0, 70.0, 3.5):
        uniform = layout.random(8)
        z, kind = place + 1.5 * uniform[0], uniform[1]
        if not plan.free(z, 1):
            continue
        if kind < 0.28:
            if uniform[2] < greenery + 0.1:
                args = (row + side * 0.3, z, 4.4 + 2 * uniform[3], 1.7 + 1.0 * uniform[4])
                things.append((z, draw_tree, args))
        elif kind < 0.39:
            things.append((z, draw_street_lamp, (row, z, side)))
        elif kind < 0.52:
            things.append((z, draw_sign, (row, z, int(4 * uniform[2]))))
        elif kind < 0.59:
            things.append((z, draw_bin, (row, z, int(3 * uniform[2]))))
        elif kind < 0.69:
            color = CAR_COLORS[int(len(CAR_COLORS) * uniform[2])]
            things.append((z, draw_bicycle, (row + side * 0.3, z, True, color)))
        elif kind < 0.75:
            things.append((z, draw_pole, (row, z, 4 + 3 * uniform[2])))
        elif kind < 0.77:
            things.append((z, draw_pole_group, (row, z)))
        if uniform[5] < 0.3:
            args = (middle, z + 0.4, 1.55 + 0.35 * uniform[6], 0.05 + 0.2 * uniform[7])
            things.append((z + 0.4, draw_person, args))
            if uniform[6] < 0.12:
                things.append((z + 0.3, draw_dog, (middle - side * 0.7, z + 0.3)))
    if plan.crossing:
        z, phase = plan.crossing - 3.8, int(layout.random() * 3)
        things.append((z, draw_traffic_light, (plan.kerb(side) + side * 0.4, z, phase)))
    return things


# --- the ground and the houses --------------------------------------------------------------------


def _draw_ground(canvas: Canvas, plan: _Plan, uniform: np.ndarray) -> None:
    """Draw everything that is flat: grass, pavements, road and tracks."""
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
            if uniform[0] < 0.3:
                canvas.floor(start, start + side * 2.2, NEAR, FAR, (128, 116, 112), ID["parking"])
            canvas.floor(start - 0.06, start + 0.06, NEAR, FAR, WHITE, shade=0.9)
    _draw_ground_details(canvas, plan, uniform)


def _draw_ground_details(canvas: Canvas, plan: _Plan, uniform: np.ndarray) -> None:
    """Draw the details of the ground: repairs, a yard, the side street, lane markings."""
    road = canvas.city.road
    if uniform[1] < 0.4:  # mended asphalt
        x, z = -3 + 3 * uniform[2], 7 + 10 * uniform[3]
        canvas.floor(x, x + 1.6, z, z + 4, road, shade=0.8)
    if uniform[1] > 0.75:  # a yard's entrance, neither road nor pavement
        x, z = plan.houses(1), 8 + 20 * uniform[2]
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
    corner: bool  # nothing hides the house's near end wall
    uniform: np.ndarray


def _plan_frontage(plan: _Plan, greenery: float, layout: np.random.Generator) -> list[_Plot]:
    """Plan the houses and parks along one side, from near to far."""
    plots, z, corner = [], 2.0, False
    while z < FAR - 12:
        uniform = layout.random(4)
        end = following = z + 9 + 9 * uniform[0]
        if z < plan.crossing < end:  # a side street: the plot ends there, the next starts behind it
            end, following = plan.crossing, plan.crossing + 7
        end = max(end, z + 2)
        park = uniform[1] < 0.12 + 0.3 * greenery
        plots.append(_Plot(z, end, park, corner, uniform))
        z, corner = following, park or end < following
    return plots


def _draw_frontage(canvas: Canvas, side: int, x: float, plots: list[_Plot]) -> None:
    for z0, z1, park, corner, uniform in reversed(plots):
        if park:
            draw_park(canvas, side, x, z0, z1, int(uniform[2] * 4))
        else:
            draw_building(canvas, side, x, z0, z1, uniform[3], uniform[2] < 0.4, corner)


_SLENDER = {  # objects with the shadow of a pole: height and radius
    draw_street_lamp: (6.2, 0.1), draw_sign: (2.9, 0.12), draw_traffic_light: (3.5, 0.15),
    draw_pole: (5.0, 0.1), draw_person: (1.7, 0.22), draw_pole_group: (2.5, 0.25),
    draw_bin: (1.1, 0.25),
}  # fmt: skip


def _cast_shadows(
    canvas: Canvas, frontages: list[tuple[int, float, list[_Plot]]], things: list[_Thing]
) -> None:
    """Cast the shadows of houses, trees and poles on the ground."""
    for side, x, plots in frontages:
        for plot in plots:
            if not plot.park:
                height = house_height(canvas.city, plot.uniform[3])
                canvas.cast_box(x, x + side * 11.0, plot.z0, plot.z1, height)
    for z, draw, arguments in things:
        if draw is draw_tree:
            x, z, height, spread = arguments
            canvas.cast_crown(x, z, height, spread)
            canvas.cast_pole(x, z, height, 0.15)
        elif draw in _SLENDER:
            canvas.cast_pole(arguments[0], z, *_SLENDER[draw])


# --- the camera -----------------------------------------------------------------------------------


def _draw_frame(canvas: Canvas, uniform: np.ndarray) -> None:
    """Draw what belongs to the camera: the car's bonnet, and borders of the rectified picture."""
    if uniform[0] < 0.85:
        rise, dark = 0.05 + 0.05 * uniform[1], canvas.lit((52, 54, 62), 1.0)
        curve = [(i / 20, (i - 10) ** 4 / 10**4) for i in range(21)]
        outline = [(u, 1 - rise * (1 - 0.85 * bend)) for u, bend in curve]
        canvas.screen([(0, 1.01), *outline, (1, 1.01)], dark, ID["ego vehicle"])
        light = canvas.lit((96, 100, 112), 1.0)
        band = [(u, v + 0.012) for u, v in outline[3:18]] + [(0.8, 1.01), (0.2, 1.01)]
        canvas.screen(band, light, ID["ego vehicle"])
        inner = [(u, v + 0.022) for u, v in outline[3:18]] + [(0.8, 1.02), (0.2, 1.02)]
        canvas.screen(inner, dark, ID["ego vehicle"])
    if uniform[2] < 0.35:
        width = 0.006 + 0.006 * uniform[3]
        for u in (0, 1 - width):
            column = ((u, 0), (u + width, 0), (u + width, 1), (u, 1))
            canvas.screen(column, (0, 0, 0), ID["rectification border"])
    if uniform[4] < 0.35:
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
    """Draw the street scene of a seed and an index, with the same pixels on every machine.

    Args:
        seed, index: not negative; each pair gives another street.
        size: (width, height) in pixels, 32x16 at least; made for width = 2 * height.
        city: one of CITIES; None lets the seed choose.
        time_of_day: one of TIMES_OF_DAY; None lets the seed choose.
        weather: one of WEATHERS; None lets the seed choose.

    Raises ValueError for a smaller size and for unknown names.
    """
    if size[0] < 32 or size[1] < 16:
        raise ValueError(f"The street's size is {size[0]}x{size[1]}: expected 32x16 or more.")
    # One random stream for each part, so that a change of one part leaves the others alone.
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
    image_u8 = np.ascontiguousarray(photo.transpose(2, 0, 1))
    tensors = map(torch.from_numpy, (image_u8, label_ids, instance_ids))
    return Street(*tensors, city, time_of_day, weather)
