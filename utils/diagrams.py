"""Diagrams of the networks and of their training: boxes with arrows, drawn by matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
from torch import Tensor

from utils.labels import label_ids_to_colors
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


def show_painter(
    lists: dict[str, str],
    brushes: Sequence[tuple[str, str]],
    label_ids: Tensor,
    image_u8: Tensor,
) -> None:
    """Draw the painter of notebook 07 as it looks, for pages on which no widget lives.

    Args:
        lists: description -> what is chosen, of each list of choices.
        brushes: (class name, "#rrggbb") of each.
        label_ids, image_u8: (H, W) and (3, H, W) uint8, the map and its street.
    """
    figure = plt.figure(figsize=(FIGURE_WIDTH, 3.9))
    top = figure.add_axes((0, 0.9, 1, 0.1), xlim=(0, len(lists)), ylim=(0, 1))
    for place, (description, chosen) in enumerate(lists.items()):
        top.add_patch(plt.Rectangle((place + 0.32, 0.15), 0.66, 0.7, fc="white", ec="#999999"))
        top.text(place + 0.3, 0.5, description, ha="right", va="center", fontsize=9)
        top.text(place + 0.34, 0.5, chosen, va="center", fontsize=9)
    for side, picture in enumerate((label_ids_to_colors(label_ids), image_u8)):
        axis = figure.add_axes((0.5 * side + 0.002, 0.19, 0.496, 0.7))
        smooth = ("nearest", "lanczos")[side]
        axis.imshow(picture.permute(1, 2, 0).numpy(), aspect="auto", interpolation=smooth)
        axis.set_axis_off()
    bottom = figure.add_axes((0, 0, 1, 0.18), xlim=(0, 10), ylim=(-(-len(brushes) // 10), 0))
    for place, (brush, color) in enumerate(brushes):
        x, y = place % 10, place // 10
        bottom.add_patch(plt.Rectangle((x + 0.03, y + 0.15), 0.16, 0.7, color=color))
        bottom.text(x + 0.22, y + 0.5, brush, va="center", fontsize=9)
    for axis in (top, bottom):
        axis.set_axis_off()
