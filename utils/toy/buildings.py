"""Draw the houses, parks, fences, walls, bridges and tunnels of the toy streets.

A facade is drawn in its own plane: a `_Facade` maps metres along it and height to a point in space.
"""

from collections.abc import Callable
from typing import NamedTuple

from utils.labels import ID
from utils.toy.canvas import FAR, Canvas, Point
from utils.toy.objects import draw_bush, draw_tree
from utils.toy.styles import CAR_COLORS, GLASS, GRASS, STEEL, STONE, WARM, CityStyle, Color

_Facade = Callable[[float, float, float], Point]  # metres along, height, metres out -> x, y, z


class _House(NamedTuple):
    """The construction of one house, drawn from its city's shares, see CityStyle."""

    floors: int
    color: Color
    window: tuple[float, float, float]  # width, height, spacing in metres
    accent: Color  # of awnings, shop signs, shutters
    shop: bool
    balconies: bool
    bars: bool
    shutters: bool
    glass: bool
    courses: bool


def _storeys(city: CityStyle, tallness: float) -> int:
    return city.floors[0] + int(tallness * (city.floors[1] - city.floors[0] + 1))


def house_height(city: CityStyle, tallness: float) -> float:
    """Height of the eaves in metres; tallness: 0..1, as for draw_building()."""
    return 3.1 * _storeys(city, tallness) + 0.8


def _build_house(canvas: Canvas, tallness: float) -> _House:
    city, uniform = canvas.city, canvas.detail.random(10).tolist()
    width, height, spacing = city.window
    spacing *= 0.9 + 0.35 * uniform[0]
    tone = 0.93 + 0.12 * uniform[1]
    color = tuple(min(int(c * tone), 255) for c in canvas.pick(city.facades))
    shares = (city.shops, city.balconies, city.bars, city.shutters, city.glass, city.courses)
    traits = (bool(u < share) for u, share in zip(uniform[4:], shares, strict=True))
    window = (width * (0.88 + 0.24 * uniform[2]), height, spacing)
    accent = CAR_COLORS[int(uniform[3] * len(CAR_COLORS))]
    return _House(_storeys(city, tallness), color, window, accent, *traits)


def _pane(
    place: _Facade, left: float, right: float, low: float, high: float, out: float = 0.0
) -> list[Point]:
    corners = (left, low), (right, low), (right, high), (left, high)
    return [place(along, height, out) for along, height in corners]


def _draw_balcony(
    canvas: Canvas, place: _Facade, left: float, right: float, y: float, shade: float
) -> None:
    """Draw a balcony, seen from below and from its near end."""
    id_, trim, out = ID["building"], canvas.city.trim, 0.9
    slab = [place(left, y, 0), place(right, y, 0), place(right, y, out), place(left, y, out)]
    canvas.polygon(slab, trim, id_, shade * 0.55)
    end = [place(left, y, 0), place(left, y, out), place(left, y + 1, out), place(left, y + 1, 0)]
    canvas.polygon(end, trim, id_, shade * 0.66)
    canvas.polygon(_pane(place, left, right, y, y + 1.0, out), trim, id_, shade * 0.84)
    canvas.polygon(_pane(place, left, right, y + 0.9, y + 1.05, out), trim, None, shade * 1.05)


def _draw_window(
    canvas: Canvas,
    place: _Facade,
    house: _House,
    box: tuple[float, float, float, float],  # left, right, low, high in metres
    brightness: float,
    shade: float,
    fine: bool,
) -> None:
    left, right, low, high = box
    trim, pane = canvas.city.trim, _pane(place, left, right, low, high)
    if fine and not house.glass:  # a frame and a sill would vanish in the distance
        frame = _pane(place, left - 0.12, right + 0.12, low - 0.2, high + 0.12)
        canvas.polygon(frame, trim, None, shade)
    if brightness < canvas.light.lit_windows:
        canvas.polygon(pane, canvas.warm, None, 1.0 - 0.7 * brightness)
    else:
        gleam = 0.9 + 0.9 * brightness if house.glass else 0.85 + 0.4 * brightness
        canvas.polygon(pane, GLASS, None, shade * gleam)
    if not fine:
        return
    if house.bars:
        middle, top = (left + right) / 2, low + 0.62 * (high - low)
        upright = _pane(place, middle - 0.04, middle + 0.04, low, high)
        canvas.polygon(upright, trim, None, shade * 0.95)
        canvas.polygon(_pane(place, left, right, top - 0.04, top + 0.04), trim, None, shade * 0.95)
    if house.shutters:
        wing = (right - left) * 0.45
        for start in (left - wing - 0.06, right + 0.06):
            leaf = _pane(place, start, start + wing, low - 0.05, high + 0.05)
            canvas.polygon(leaf, house.accent, None, shade * 0.8)


def _draw_ground_floor(
    canvas: Canvas, place: _Facade, house: _House, length: float, shade: float
) -> None:
    """Draw shop windows under the shop's sign."""
    lit = canvas.light.lamps > 0.5
    canvas.polygon(_pane(place, 0.3, length - 0.3, 0.1, 3.3), canvas.city.trim, None, shade * 0.5)
    canvas.polygon(_pane(place, 0.3, length - 0.3, 2.75, 3.4), house.accent, None, shade)
    count = max(int(length / 2.6), 1)
    step = (length - 0.8) / count
    for i in range(count):
        door = i == count // 2
        left, right = 0.5 + i * step, 0.3 + (i + 1) * step
        pane = _pane(place, left, right, 0.15 if door else 0.6, 2.65)
        canvas.polygon(pane, canvas.warm if lit else GLASS, None, 0.75 if lit else shade * 1.25)
        if lit:  # shelves and goods
            canvas.polygon(_pane(place, left, right, 0.6, 1.0), canvas.warm, None, 0.4)
            for k, high in ((0.12, 1.9), (0.4, 1.5), (0.62, 2.1)):
                a, b = left + (right - left) * k, left + (right - left) * (k + 0.2)
                canvas.polygon(_pane(place, a, b, 0.6, high), canvas.warm, None, 0.28 + 0.4 * k)
        else:  # the sky's reflection
            gleam = [place(left, 2.65, 0), place(left, 1.7, 0), place(left + step * 0.5, 2.65, 0)]
            canvas.polygon(gleam, GLASS, None, shade * 1.6)


def _draw_facade(
    canvas: Canvas, place: _Facade, house: _House, length: float, shade: float
) -> None:
    """Draw the windows, doors, shops and balconies of a facade that is `length` metres long."""
    width, height, spacing = house.window
    columns = max(1, int((length - 0.6) / spacing))
    if house.glass:
        spacing, height = length / columns, 2.75
        width = spacing - 0.2
    margin = (length - columns * spacing + spacing - width) / 2
    lit = canvas.style.random((columns, house.floors)).tolist()
    if house.shop:
        _draw_ground_floor(canvas, place, house, length, shade)
    for column in reversed(range(columns)):  # along the street: from far to near
        left = margin + column * spacing
        right = left + width
        near, far = canvas.at(*place(left, 0, 0)), canvas.at(*place(right, 0, 0))
        if max(near[0], far[0]) < 0 or min(near[0], far[0]) > canvas.size[0]:
            continue
        fine = abs(near[0] - far[0]) > 0.02 * canvas.size[0]
        for floor in range(int(house.shop), house.floors):
            low = (0.4 if house.glass else 1.0) + 3.1 * floor if floor else 0.6
            high = low + height if floor else 2.6
            if canvas.at(*place(right, low, 0))[1] < 0 and canvas.at(*place(left, low, 0))[1] < 0:
                break
            if floor == 0 and column % 3 == 1:
                door = _pane(place, left, right, 0.1, 2.6)
                canvas.polygon(door, (92, 66, 50), None, shade * (0.85 + 0.4 * lit[column][0]))
                continue
            box = (left, right, low, high)
            _draw_window(canvas, place, house, box, lit[column][floor], shade, fine)
            if house.balconies and fine and floor and column % 3 != 2:
                _draw_balcony(canvas, place, left - 0.5, right + 0.5, low - 0.6, shade)


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
    """Draw a house along the street, from z0 to z1.

    Args:
        tallness: 0..1, from the fewest to the most floors of the city's houses.
        awning: with an awning over the pavement.
        corner: with windows in the near end wall, too, which faces a park or a side street.
    """
    city, id_ = canvas.city, ID["building"]
    house, top, back = _build_house(canvas, tallness), house_height(city, tallness), x + side * 11.0
    wall_shade, front_shade = canvas.sunny(side), 0.78
    front = [(x, 0, z0), (x, top, z0), (back, top, z0), (back, 0, z0)]
    if city.gables:
        ridge, peak = x + side * 5.5, top + 4.0
        front.insert(2, (ridge, peak, z0))
        eaves = [(x - side * 0.4, top, z0), (x - side * 0.4, top, z1)]
        canvas.polygon([*eaves, (ridge, peak, z1), (ridge, peak, z0)], city.roof, id_, wall_shade)
        canvas.bar(ridge, z0 + 2, -0.45, peak - 1, 0.45, peak + 1.2, city.roof, id_, 0.85)
    canvas.polygon(front, house.color, id_, front_shade)
    if corner:
        _draw_facade(
            canvas, lambda a, y, out: (x + side * a, y, z0 - out), house, 11.0, front_shade
        )
    _draw_wall(canvas, x, z0, z1, top, house, wall_shade)
    _draw_facade(canvas, lambda a, y, out: (x - side * out, y, z0 + a), house, z1 - z0, wall_shade)
    if awning:
        out, cloth = x - side * 1.1, house.accent
        edge = [(x, 3.1, z0 + 0.5), (x, 3.1, z1 - 0.5), (out, 2.6, z1 - 0.5), (out, 2.6, z0 + 0.5)]
        canvas.polygon(edge, cloth, id_, wall_shade)
        canvas.wall(out, z0 + 0.5, z1 - 0.5, 2.4, 2.6, cloth, id_, wall_shade * 0.8)
    rim = x - side * 0.3
    canvas.wall(rim, z0, z1, top - 0.35, top + 0.1, city.trim, id_, wall_shade * 0.92)


def _draw_wall(
    canvas: Canvas, x: float, z0: float, z1: float, top: float, house: _House, shade: float
) -> None:
    """Draw the wall along the street, with base, band and courses of stone."""
    canvas.wall(x, z0, z1, 0, top, house.color, ID["building"], shade)
    if canvas.light.haze[1]:  # in fog, in pieces, because each is paler than the one before
        for i in range(1, int((z1 - z0) / 4) + 1):
            canvas.wall(x, z0 + 4 * i, z1, 0, top, house.color, None, shade)
    if house.courses and z0 < 30:
        y = 1.0
        while y < top and canvas.at(x, y, z1)[1] > 0:
            canvas.wall(x, z0, z1, y, y + 0.06, house.color, None, shade * 0.84)
            y += 0.4 + z0 * 0.03
    canvas.wall(x, z0, z1, 0, 0.6, STONE, None, shade * 0.8)
    canvas.wall(x, z0, z1, 3.2, 3.5, canvas.city.trim, None, shade * 0.9)


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
    """Draw trees on grass from z0 to z1; edge 0..3: behind a fence, a wall, a hedge, a fence."""
    canvas.floor(x, x + side * 40, z0, z1, GRASS, ID["terrain"])
    z = z1 - 1.0
    while z > z0 + 1:
        for row in (13.0, 7.0):
            offset, height = canvas.style.random() * 2, 4.5 + 2.5 * canvas.style.random()
            draw_tree(canvas, x + side * (row + offset), z, height, 2.6)
        draw_bush(canvas, x + side * 3.0, z, 1.3)
        z -= 5.0 if z < 50 else 9.0
    (_draw_fence, _draw_garden_wall, _draw_hedge, _draw_fence)[edge](canvas, x + side * 0.3, z0, z1)


def draw_guard_rail(canvas: Canvas, x: float, z: float) -> None:
    """Draw one post and the rail to the next; nearer pieces then hide people behind them."""
    canvas.bar(x, z, -0.05, 0, 0.05, 0.6, STEEL, ID["guard rail"], 0.7)
    canvas.wall(x, z, z + 2.5, 0.4, 0.8, (176, 180, 184), ID["guard rail"])
    canvas.wall(x, z, z + 2.5, 0.57, 0.62, (120, 124, 128))


def draw_bridge(canvas: Canvas, z: float, left: float, right: float) -> None:
    """Draw a bridge across the street, which lies between left and right."""
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
    """Draw the end of the street; kind 0: houses across it, 1: trees, 2: trees over a tunnel."""
    if kind == 0:
        for i in range(-4, 5):
            storeys = int(canvas.style.random() * 4)
            height = 7.0 + 3.1 * storeys
            house, x = _build_house(canvas, 0.0)._replace(floors=2 + storeys, shop=False), i * 12.0
            canvas.bar(x, FAR, -6, 0, 6, height, house.color, ID["building"], 0.85)
            if canvas.city.gables:
                gable = ((-6, height), (6, height), (0, height + 4))
                canvas.card(x, FAR, gable, canvas.city.roof, ID["building"])
            _draw_facade(canvas, lambda a, y, out, x=x: (x - 6 + a, y, FAR - out), house, 12.0, 0.8)
        return
    for i in range(-4, 5):
        height = 7.0 + 7 * canvas.style.random()
        draw_tree(canvas, i * 9.0, FAR - (i % 2), height, 8.0)
        canvas.bar(i * 9.0, FAR - 2, -6, 0, 6, 5, canvas.city.foliage[0], ID["vegetation"], 0.7)
    if kind == 2:
        _draw_tunnel(canvas, FAR - 40, left, right)


def draw_balloon(canvas: Canvas, u: float) -> None:
    """Draw a hot-air balloon; Cityscapes has no class for it, so its label is 'unlabeled'."""
    x, y, z, color = (u - 0.5) * 24, 25.0, 100.0, canvas.pick(((220, 70, 50), (240, 180, 50)))
    canvas.disc(x, y, z, 4.2, 4.6, color, ID["unlabeled"])
    canvas.disc(x, y, z, 1.6, 4.6, (250, 240, 220))
    canvas.bar(x, z, -0.8, y - 7.4, 0.8, y - 6.2, (120, 84, 50), ID["unlabeled"])
