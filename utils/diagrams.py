"""Diagrams of the networks and of their training: boxes with arrows, drawn by matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt

from utils.plots import FIGURE_WIDTH

# Fill colours by what a box stands for.
FILLS = {"data": "#e8f0fe", "learns": "#fde9d0", "fixed": "#eeeeee", "loss": "#f9d6d5"}


@dataclass(frozen=True)
class Box:
    """A box of a diagram.

    Attributes:
        x, y: of its centre, in columns and rows; y grows downwards.
        text: in it; lines are separated by newlines.
        kind: one of FILLS: "data", a network that "learns", something "fixed", or a "loss".
        width: in columns.
    """

    x: float
    y: float
    text: str
    kind: str = "data"
    width: float = 0.8


def show_diagram(
    boxes: dict[str, Box], arrows: Sequence[tuple[str, str] | tuple[str, str, str]]
) -> None:
    """Draw boxes and the arrows between them.

    Args:
        boxes: by name.
        arrows: names of two boxes each, and a text beside the arrow if there is one.

    Raises KeyError for an arrow to a box that is not there.
    """
    half = 0.36  # of a box's height, in rows
    left = min(box.x - box.width / 2 for box in boxes.values()) - 0.1
    right = max(box.x + box.width / 2 for box in boxes.values()) + 0.1
    top, bottom = (f(box.y for box in boxes.values()) for f in (min, max))
    rows = bottom - top + 1.1
    figure, axis = plt.subplots(figsize=(FIGURE_WIDTH, min(0.95 * rows, 7)))
    figure.subplots_adjust(left=0, right=1, bottom=0, top=1)
    axis.set(xlim=(left, right), ylim=(bottom + 0.55, top - 0.55))
    axis.set_axis_off()
    for box in boxes.values():
        corner = box.x - box.width / 2, box.y - half
        color = FILLS[box.kind]
        axis.add_patch(plt.Rectangle(corner, box.width, 2 * half, fc=color, ec="#555555", lw=1))
        axis.text(box.x, box.y, box.text, ha="center", va="center", fontsize=10)
    for start, end, *label in arrows:
        a, b = boxes[start], boxes[end]
        if abs(a.y - b.y) < 2 * half:  # side by side
            sign = 1 if b.x > a.x else -1
            tail, tip = (a.x + sign * a.width / 2, a.y), (b.x - sign * b.width / 2, b.y)
        else:
            sign = 1 if b.y > a.y else -1
            tail, tip = (a.x, a.y + sign * half), (b.x, b.y - sign * half)
        style = {"arrowstyle": "-|>", "color": "#555555", "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", tip, tail, arrowprops=style)
        if label:
            middle = (tail[0] + tip[0]) / 2, (tail[1] + tip[1]) / 2
            background = {"fc": "white", "ec": "none", "pad": 1}
            axis.text(*middle, label[0], ha="center", va="center", fontsize=9, bbox=background)


def show_training_step() -> None:
    """One step of training: forward, loss, backward, step."""
    boxes = {
        "photo": Box(0, 0, "photo"),
        "network": Box(1.2, 0, "network\n(weights)", "learns"),
        "scores": Box(2.4, 0, "scores of\n34 labels"),
        "loss": Box(3.6, 0, "loss\n(one number)", "loss"),
        "map": Box(4.8, 0, "true\nlabel map"),
        "gradients": Box(2.9, 1.1, "a gradient for\neach weight", "loss", 1.0),
        "optimizer": Box(1.2, 1.1, "optimizer\n(Adam)", "fixed"),
    }
    arrows = [
        ("photo", "network"),
        ("network", "scores", "1 forward"),
        ("scores", "loss"),
        ("map", "loss"),
        ("loss", "gradients", "2 backward"),
        ("gradients", "optimizer"),
        ("optimizer", "network", "3 step"),
    ]
    show_diagram(boxes, arrows)


def show_fcn() -> None:
    """The FCN of notebook 02: an encoder, a 1x1 convolution at each stride, scores added up."""
    strides = (2, 4, 8, 16, 32)
    boxes = {"photo": Box(0, 0, "photo\nstride 1"), "map": Box(0, 2.2, "scores\nof all pixels")}
    arrows = []
    for x, stride in enumerate(strides, 1):
        boxes |= {
            f"features {stride}": Box(x, 0, f"features\nstride {stride}", "learns"),
            f"score {stride}": Box(x, 1.1, "1x1\nconvolution", "learns"),
            f"sum {stride}": Box(x, 2.2, f"scores\nstride {stride}"),
        }
        before = f"features {stride // 2}" if x > 1 else "photo"
        below = f"sum {stride // 2}" if x > 1 else "map"
        arrows += [
            (before, f"features {stride}"),
            (f"features {stride}", f"score {stride}"),
            (f"score {stride}", f"sum {stride}", "" if stride == 32 else "+"),
            (f"sum {stride}", below, "x2"),
        ]
    show_diagram(boxes, [arrow if arrow[-1] else arrow[:2] for arrow in arrows])
