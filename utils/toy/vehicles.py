"""Draw bicycles, motorcycles, riders, cars and large vehicles of the toy streets.

Every drawing function takes the canvas and the position of the vehicle's nearest point.
"""

from collections.abc import Sequence
from typing import NamedTuple

from utils.toy.canvas import Canvas
from utils.toy.styles import (
    CAR_COLORS,
    CLOTHES,
    GLASS,
    LAMP,
    RED,
    RUBBER,
    SKIN,
    STEEL,
    WHITE,
    Color,
)


def draw_bicycle(canvas: Canvas, x: float, z: float, across: bool, color: Color) -> None:
    """Draw a bicycle, seen from the side (across) or from behind."""
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
    """Draw a motorcycle, seen from behind."""
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
    """Draw a rider and the bicycle or motorcycle, which are two instances with two labels."""
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
    """The x of the flank that the camera sees of a thing at x; None if it sees the end only."""
    if x - half > 0.1:
        return x - half
    return x + half if x + half < -0.1 else None


_RIM = (
    (1, 0), (0.87, 0.5), (0.5, 0.87), (0, 1), (-0.5, 0.87), (-0.87, 0.5),
    (-1, 0), (-0.87, -0.5), (-0.5, -0.87), (0, -1), (0.5, -0.87), (0.87, -0.5),
)  # fmt: skip


def _draw_wheels(canvas: Canvas, flank: float, positions: Sequence[float], radius: float) -> None:
    for z in positions:
        ring = _RIM if z < 40 else _RIM[::2]
        for r, color in ((radius, RUBBER), (radius * 0.58, STEEL), (radius * 0.2, RUBBER)):
            canvas.polygon([(flank, radius + r * dy, z + r * dz) for dz, dy in ring], color)


class _Body(NamedTuple):
    """The outline of a car from its side, in metres."""

    hood: float
    screen: float  # how far the windscreen leans back
    deck: float  # length behind the rear window: long with a boot
    rear: float  # how far the rear window leans forward
    belt: float  # height of the windows' lower edge
    top: float


_HATCHBACK = _Body(1.1, 0.75, 0.15, 0.5, 0.86, 1.45)
_SEDAN = _Body(1.15, 0.75, 0.8, 0.65, 0.85, 1.4)
_ESTATE = _Body(1.15, 0.7, 0.08, 0.25, 0.86, 1.46)
_VAN = _Body(0.7, 0.6, 0.04, 0.12, 1.02, 1.9)
_BODIES = (*3 * (_HATCHBACK,), *4 * (_SEDAN,), *2 * (_ESTATE,), _VAN)  # equally likely


def _draw_flank(
    canvas: Canvas,
    x: float,
    flank: float,
    ends: tuple[float, float, float, float, float, float],
    body: _Body,
    color: Color,
    id_: int,
) -> None:
    """Draw a car's side; ends: z of the ends and, between them, of the window."""
    z, base0, roof0, roof1, base1, tail = ends
    inner = x + (flank - x) * 0.76
    shade = 0.62 * canvas.sunny(1 if x > 0 else -1)
    canvas.wall(flank, z, tail, 0.0, 0.3, RUBBER, id_)
    canvas.wall(flank, z, tail, 0.24, body.belt, color, id_, shade)
    cabin = [(flank, body.belt, base0), (inner, body.top, roof0), (inner, body.top, roof1)]
    canvas.polygon([*cabin, (flank, body.belt, base1)], color, id_, shade)
    low, high = body.belt + 0.04, body.top - 0.1
    glass = [(flank, low, base0 + 0.3), (inner, high, roof0 + 0.15), (inner, high, roof1 - 0.1)]
    canvas.polygon([*glass, (flank, low, base1 - 0.25)], GLASS, None, 0.8)
    if z < 35:  # details that are too fine to be seen farther away
        middle = (roof0 + roof1) / 2
        pillar = [(flank, low, middle), (inner, high, middle), (inner, high, middle + 0.12)]
        canvas.polygon([*pillar, (flank, low, middle + 0.12)], color, None, shade)
        canvas.wall(flank, z, tail, body.belt - 0.2, body.belt, color, None, shade * 1.16)
        canvas.wall(flank, z, tail, 0.24, 0.36, color, None, shade * 0.7)
    _draw_wheels(canvas, flank, (z + 0.75, tail - 0.8), 0.33)


def draw_car(canvas: Canvas, x: float, z: float, toward: bool, size: float) -> None:
    """Draw a car that drives towards the camera or away from it; size 1 is 4.3 m long."""
    id_, color = canvas.new("car"), canvas.pick(CAR_COLORS)
    body = _BODIES[int(canvas.detail.random() * len(_BODIES))]
    body = _Body(*(size * metres for metres in body))
    half, belt, top, tail = 0.88 * size, body.belt, body.top, z + 4.3 * size
    near, far = (body.hood, body.screen), (body.deck, body.rear)
    if not toward:
        near, far = far, near
    base0, base1 = z + near[0], tail - far[0]
    roof0, roof1 = base0 + near[1], base1 - far[1]
    canvas.shadow(x - half - 0.15, x + half + 0.15, z - 0.25, tail + 0.2, 1.6, top)
    flank = _visible_flank(x, half)
    if flank is not None:
        ends = (z, base0, roof0, roof1, base1, tail)
        _draw_flank(canvas, x, flank, ends, body, color, id_)
    inset = half * 0.76
    canvas.floor(x - inset, x + inset, roof0, roof1, color, id_, top, 1.1)
    pane = [(x - half, belt, base0), (x + half, belt, base0)]
    canvas.polygon([*pane, (x + inset, top, roof0), (x - inset, top, roof0)], color, id_, 0.95)
    pane = [(x - half * 0.88, belt + 0.03, base0), (x + half * 0.88, belt + 0.03, base0)]
    brow = [(x + inset * 0.88, top - 0.09, roof0), (x - inset * 0.88, top - 0.09, roof0)]
    canvas.polygon(pane + brow, GLASS)
    canvas.polygon([pane[0], brow[1], ((pane[0][0] + x) / 2, belt + 0.03, base0)], GLASS, None, 1.5)
    canvas.floor(x - half, x + half, z, base0, color, id_, belt, 1.12)
    _draw_car_end(canvas, x, z, half, belt, toward, color, id_)


def _draw_car_end(
    canvas: Canvas,
    x: float,
    z: float,
    half: float,
    belt: float,
    toward: bool,
    color: Color,
    id_: int,
) -> None:
    """Draw the near end of a car: its nose with headlights, or its tail with red lamps."""
    canvas.bar(x, z, -half, 0, 0.24 - half, 0.4, RUBBER, id_)
    canvas.bar(x, z, half - 0.24, 0, half, 0.4, RUBBER, id_)
    face = ((-half, 0.22), (half, 0.22), (half, belt - 0.1), (half * 0.95, belt))
    canvas.card(x, z, (*face, (-half * 0.95, belt), (-half, belt - 0.1)), color, id_)
    canvas.bar(x, z, -half, 0.22, half, 0.36, (48, 48, 52))
    canvas.bar(x, z, -half, 0.36, half, 0.5, color, None, 0.8)
    canvas.bar(x, z, -0.27, 0.42, 0.27, 0.54, WHITE)  # the plate
    for edge in (-1, 1):
        if toward:
            canvas.lamp(x + edge * half * 0.76, belt - 0.22, z, 0.13, LAMP, 0.7)
        else:
            lamp = x + edge * half * 0.88
            canvas.bar(lamp, z, -0.1, belt - 0.36, 0.1, belt - 0.08, RED, None, 0.8)
            canvas.lamp(lamp, belt - 0.16, z, 0.07, RED, 0.35)
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
    """Draw a bus, truck, train (tram), caravan or trailer, as a box with windows or doors."""
    half, top, length, colors = _LARGE_VEHICLES[name]
    id_, color = canvas.new(name), canvas.pick(colors)
    tail, flank, base = z + length, _visible_flank(x, half), 0.35
    windows = name in ("bus", "train", "caravan")
    canvas.shadow(x - half - 0.2, x + half + 0.2, z - 0.4, tail, 1.6, top)
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
