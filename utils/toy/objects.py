"""Draw trees, poles, lamps, signs, street furniture and people of the toy streets.

Every drawing function takes the canvas and the position of the object's nearest point.
"""

from utils.labels import ID
from utils.toy.canvas import Canvas
from utils.toy.styles import (
    BARK,
    CLOTHES,
    HAIR,
    LAMP,
    RED,
    RUBBER,
    SKIN,
    STEEL,
    TROUSERS,
    WHITE,
    Color,
)


def draw_tree(canvas: Canvas, x: float, z: float, height: float, spread: float) -> None:
    """Draw a tree whose crown has the radius `spread` and its centre at `height`."""
    id_, random = ID["vegetation"], canvas.style.random
    color = canvas.pick(canvas.city.foliage)
    sun = canvas.light.sun * canvas.light.contrast
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
    """Draw a pole, darker on its left half."""
    canvas.bar(x, z, -radius, 0, radius, height, color, ID[label])
    canvas.bar(x, z, -radius, 0, 0, height, color, None, 0.75)


def draw_street_lamp(canvas: Canvas, x: float, z: float, side: int) -> None:
    """Draw a lamp whose arm reaches over the road."""
    draw_pole(canvas, x, z, 6.2, 0.08)
    canvas.bar(x, z, min(0, -side * 1.3), 6.1, max(0, -side * 1.3), 6.25, STEEL, ID["pole"])
    canvas.bar(x - side * 1.3, z, -0.4, 6.02, 0.4, 6.22, STEEL, ID["pole"])
    canvas.lamp(x - side * 1.3, 6.05, z, 0.17, LAMP, 1.3)
    if canvas.light.lamps:
        canvas.glow(x - side * 1.6, 0.1, z, 3.2, (120, 98, 60), 0.22)


def draw_sign(canvas: Canvas, x: float, z: float, kind: int) -> None:
    """Draw a traffic sign on its pole; kind 0..3: round, triangular, square, a board."""
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
    else:  # a direction board
        canvas.bar(x, z, -0.9, 2.1, 0.9, 3.2, (232, 196, 50), id_)
        canvas.bar(x, z, -0.7, 2.75, 0.5, 2.95, (40, 40, 40))
        canvas.bar(x, z, -0.7, 2.35, 0.2, 2.55, (40, 40, 40))


def draw_traffic_light(canvas: Canvas, x: float, z: float, phase: int) -> None:
    """Draw a traffic light; phase 0..2: red, yellow, green."""
    draw_pole(canvas, x, z, 3.3, 0.07, (70, 74, 76))
    canvas.bar(x, z, -0.24, 2.4, 0.24, 3.6, (36, 38, 38), ID["traffic light"])
    for i, color in enumerate(((240, 40, 30), (250, 180, 40), (60, 220, 120))):
        if i == phase:
            canvas.lamp(x, 3.38 - 0.38 * i, z, 0.16, color, 0.5)
        else:
            canvas.disc(x, 3.38 - 0.38 * i, z, 0.15, 0.15, color, None, 0.32)


def draw_bin(canvas: Canvas, x: float, z: float, kind: int) -> None:
    """Draw an object with the label 'static'; kind 0..2: a bin, a bollard, a box."""
    color = ((52, 92, 62), (60, 62, 66), (196, 160, 40))[kind]
    half, top = ((0.32, 1.15), (0.12, 1.0), (0.4, 1.35))[kind]
    canvas.shadow(x - half, x + half, z - 0.1, z + 0.6)
    canvas.bar(x, z, -half, 0, half, top, color, ID["static"])
    canvas.bar(x, z, -half * 1.1, top - 0.12, half * 1.1, top, color, ID["static"], 0.7)


def draw_pole_group(canvas: Canvas, x: float, z: float) -> None:
    """Draw three poles close together, which have the label 'polegroup'."""
    for dx in (-0.22, 0.0, 0.22):
        draw_pole(canvas, x + dx, z, 2.6 - abs(dx) * 3, 0.06, label="polegroup")


def draw_person(canvas: Canvas, x: float, z: float, height: float, step: float) -> None:
    """Draw a walking person whose feet are `step` metres in front and behind."""
    id_, k = canvas.new("person"), height / 1.75
    coat, trousers, skin = canvas.pick(CLOTHES), canvas.pick(TROUSERS), canvas.pick(SKIN)
    hair = canvas.pick(HAIR)
    canvas.shadow(x - 0.3, x + 0.3, z - 0.2, z + 0.3)
    for foot, shade in ((-step, 0.7), (step, 0.9)):
        leg = ((foot - 0.08, 0), (foot + 0.1, 0), (0.15, 0.88 * k), (-0.15, 0.88 * k))
        canvas.card(x, z, leg, trousers, id_, shade)
        canvas.bar(x, z, foot - 0.1, 0, foot + 0.15, 0.09, RUBBER, id_)
    arms = ((-0.3, 0.8), (-0.24, 1.42), (0.24, 1.42), (0.3, 0.8), (0.2, 0.8), (-0.2, 0.8))
    canvas.card(x, z, [(dx, y * k) for dx, y in arms], coat, id_, 0.76)
    for dx in (-0.26, 0.26):
        canvas.disc(x + dx, 0.78 * k, z, 0.06, 0.07, skin, id_)
    canvas.bar(x, z, -0.06, 1.4 * k, 0.06, 1.55 * k, skin, id_, 0.8)
    chest = ((-0.19, 0.72), (0.19, 0.72), (0.17, 1.4), (0.1, 1.47), (-0.1, 1.47), (-0.17, 1.4))
    canvas.card(x, z, [(dx, y * k) for dx, y in chest], coat, id_)
    canvas.disc(x, 1.62 * k, z, 0.115, 0.15 * k, skin, id_)
    canvas.disc(x, 1.7 * k, z, 0.125, 0.09 * k, hair, id_)


def draw_dog(canvas: Canvas, x: float, z: float) -> None:
    """Draw a dog; Cityscapes has no class for it, so its label is 'dynamic'."""
    id_, color = ID["dynamic"], canvas.pick(((90, 66, 46), (40, 38, 38), (190, 160, 120)))
    for dx in (-0.26, -0.16, 0.18, 0.28):
        canvas.bar(x, z, dx - 0.04, 0, dx + 0.04, 0.3, color, id_, 0.7)
    canvas.bar(x, z, -0.34, 0.26, 0.34, 0.52, color, id_)
    canvas.disc(x + 0.4, 0.58, z, 0.16, 0.13, color, id_)


def draw_bush(canvas: Canvas, x: float, z: float, height: float) -> None:
    """Draw a bush of overlapping discs."""
    color = canvas.pick(canvas.city.foliage)
    for _ in range(5):
        dx, size = (canvas.style.random() - 0.5) * height, 0.5 + 0.3 * canvas.style.random()
        shade = 0.7 + 0.25 * canvas.style.random()
        radius = height * size * 0.7
        canvas.disc(x + dx, radius * 0.8, z, radius, radius, color, ID["vegetation"], shade)
