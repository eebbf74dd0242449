"""Painting street maps: the functions (painting) and the widgets (widgets)."""

from utils.painter.painting import (
    Painting,
    class_names,
    daylight,
    draw_street,
    empty_street,
    save_street,
    stroke_mask,
    swap_class,
)

__all__ = [
    "Painting",
    "class_names",
    "daylight",
    "draw_street",
    "empty_street",
    "save_street",
    "stroke_mask",
    "swap_class",
]
