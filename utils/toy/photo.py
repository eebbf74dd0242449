"""Finish a painted toy street: add clouds, surface texture, lamps, wet ground, rain and noise.

Arrays are only added, multiplied and compared, because numpy rounds these operations alike on every
machine, unlike exp or sin.  Pictures are only resized and box-blurred, which Pillow computes in
integers.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from utils.labels import ID
from utils.toy.canvas import OVERSAMPLING, Canvas

BILINEAR, BOX = Image.Resampling.BILINEAR, Image.Resampling.BOX

# For each label: strength of the fine and of the blotchy texture, and reflectivity when it is wet.
_FINE_GRAIN = np.full(34, 0.05, np.float32)
_BLOTCHES = np.full(34, 0.03, np.float32)
_MIRRORS = np.zeros(34, np.float32)
for _name, _fine, _blotchy, _mirror in (
    ("road", 0.07, 0.05, 1.0), ("sidewalk", 0.06, 0.05, 0.7), ("parking", 0.08, 0.05, 0.9),
    ("ground", 0.1, 0.1, 0.4), ("rail track", 0.16, 0.1, 0.5), ("building", 0.045, 0.05, 0.0),
    ("wall", 0.1, 0.1, 0.0), ("vegetation", 0.26, 0.24, 0.0), ("terrain", 0.13, 0.14, 0.1),
    ("sky", 0.0, 0.05, 0.0), ("car", 0.02, 0.02, 0.0), ("rectification border", 0.0, 0.0, 0.0),
    ("out of roi", 0.0, 0.0, 0.0), ("ego vehicle", 0.01, 0.03, 0.0),
):  # fmt: skip
    _FINE_GRAIN[ID[_name]], _BLOTCHES[ID[_name]], _MIRRORS[ID[_name]] = _fine, _blotchy, _mirror


def _draw_glow(canvas: Canvas) -> tuple[Image.Image, Image.Image]:
    """Draw the light around all lamps, and their reflections on wet ground, at a small size."""
    light = canvas.light
    if light.lamps > 0.5:
        canvas.glow(-0.5, 0.0, 7.0, 3.4, (120, 110, 84), 0.22)  # the camera's own headlights
    glow, streaks = Image.new("RGB", (128, 64)), Image.new("RGB", (256, 64))
    paint, smear = ImageDraw.Draw(glow), ImageDraw.Draw(streaks)
    # A lamp is hidden if another thing has been painted over it.
    visible = [lamp for lamp in canvas.glows if canvas.id_at(*lamp[:2]) == lamp[2]]
    for ring in (1.0, 0.75, 0.5, 0.25):  # faint outer rings before bright inner ones
        for px, py, _, rx, ry, color, foot in visible:
            x, y = px * 128 / canvas.size[0], py * 64 / canvas.size[1]
            strength = light.lamps * (1.1 - ring)
            fill = tuple(int(c * strength) for c in color)
            rx_, ry_ = max(rx * 64 * ring, 0.5), max(ry * 64 * ring, 0.5)
            paint.ellipse([int(k) for k in (x - rx_, y - ry_, x + rx_, y + ry_)], fill=fill)
            if light.wet and rx == ry:
                drop = (2 * foot - py) * 64 / canvas.size[1]
                narrow, long = rx * 40 * ring, max((foot - py) * 40 / canvas.size[1], 3) + 2
                box = (2 * x - narrow, drop - long * ring, 2 * x + narrow, drop + long * ring)
                smear.ellipse([int(k) for k in box], fill=fill)
    glow = glow.filter(ImageFilter.BoxBlur(2)).filter(ImageFilter.BoxBlur(1))
    return glow, streaks.filter(ImageFilter.BoxBlur(1))


def _mirror(photo: np.ndarray, horizon: int) -> np.ndarray:
    """Mirror the picture above the horizon into the part below it, blurred along the columns."""
    height, width = photo.shape[:2]
    above = Image.fromarray(np.clip(photo[:horizon], 0, 255).astype(np.uint8))
    above = above.resize((max(width // 5, 1), 6), BOX)
    above = above.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    below = np.zeros_like(photo)
    below[horizon:] = np.asarray(above.resize((width, height - horizon), BILINEAR))
    return below


def _rain(size: tuple[int, int], air: np.random.Generator) -> np.ndarray:
    """Draw strokes of rain, (H, W, 1) in 0..1."""
    strokes = Image.new("L", size)
    draw = ImageDraw.Draw(strokes)
    for u, v, length, bright in air.random((110, 4)).tolist():
        x, y = int(u * size[0]), int((v * 1.1 - 0.1) * size[1])
        down = int((0.04 + 0.06 * length) * size[1])
        draw.line((x, y, x - down // 6, y + down), fill=int(24 + 40 * bright))
    return np.asarray(strokes).astype(np.float32)[..., None] / np.float32(255)


def develop(
    canvas: Canvas, label_ids: np.ndarray, texture: np.random.Generator, air: np.random.Generator
) -> np.ndarray:
    """Return the finished image of a canvas.

    Args:
        canvas: with everything painted on it.
        label_ids: (H, W) uint8, at the finished size.
        texture, air: random streams, for surfaces and for the weather.

    Returns (H, W, 3) uint8.
    """
    height, width = label_ids.shape
    light = canvas.light
    photo = np.asarray(canvas.photo.reduce(OVERSAMPLING)).astype(np.float32)

    def noise(rows: int, columns: int) -> np.ndarray:  # (H, W) in -1..1, from a grid of this size
        grain = texture.integers(0, 256, (rows, columns), dtype=np.uint8)
        grain = Image.fromarray(grain).resize((width, height), BILINEAR)
        return np.asarray(grain).astype(np.float32) / np.float32(127.5) - 1

    cloud = np.float32(light.sky_horizon) * np.float32(1.08)
    cover = noise(10, 14) + np.float32(0.5) * noise(20, 28) + np.float32(light.clouds)
    cover = np.where(label_ids == ID["sky"], np.clip(cover, 0, 0.7), 0)[..., None]
    photo += cover * (cloud - photo)
    blotches = noise(28, 56)
    gain = _FINE_GRAIN[label_ids] * noise(128, 256) + _BLOTCHES[label_ids] * blotches
    if light.haze[1]:  # fog: pixels of nearly its colour are far away, and show no texture
        distance = np.abs(photo - np.float32(light.sky_horizon)).max(2)
        gain *= np.minimum(distance / np.float32(140), 1)
    photo *= (1 + gain)[..., None]
    streaks = None
    if light.lamps:
        glow, streaks = _draw_glow(canvas)
        photo += np.asarray(glow.resize((width, height), BILINEAR))
    if light.wet:
        horizon = max(int(canvas.horizon * height), 1)
        wet = _MIRRORS[label_ids] * np.float32(light.wet) * (1 + np.float32(0.5) * blotches)
        wet = np.clip(wet, 0, 1)[..., None]
        mirrored = _mirror(photo, horizon) * np.float32(0.55) - photo * np.float32(0.5)
        photo += wet * (mirrored + np.asarray(streaks.resize((width, height), BILINEAR)))
        pale = np.float32(light.sky_horizon) * np.float32(0.8) + 40
        photo += _rain((width, height), air) * (pale - photo)
    sensor = texture.integers(-4, 5, (height, width, 3), dtype=np.int8)
    return np.clip(photo + sensor, 0, 255).astype(np.uint8)
