#!/usr/bin/env python3
"""Draw README's pictures of real streets anew: docs/real_street.jpg and docs/cities.jpg.

    python tools/draw_pictures.py

Both start from docs/california_0109.jpg, a photo that no network has learned from (drive.ai Sample
Dataset, CC BY 4.0).  What the networks draw is CC BY-NC-SA 4.0, as they are.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project, not installed

from utils.files import PROJECT
from utils.images import read_photo, resize_image, resize_map, save_image
from utils.labels import label_ids_to_colors
from utils.pipeline import load_pipeline

PHOTO = PROJECT / "docs" / "california_0109.jpg"
SHOWN = (512, 256)  # width and height of each picture


def map_shown(label_ids: torch.Tensor) -> torch.Tensor:
    """label_ids (H, W) -> the map in colours at the size in which it is shown."""
    return label_ids_to_colors(resize_map(label_ids, SHOWN))


def grid(rows: list[list[torch.Tensor]]) -> torch.Tensor:
    return torch.cat([torch.cat(row, dim=-1) for row in rows], dim=-2)


def main() -> None:
    pipeline = load_pipeline("streets", "streets")
    generator = pipeline.generator
    photo_u8 = read_photo(PHOTO, SHOWN)
    result = pipeline.run(resize_image(photo_u8, generator.size))
    real = [
        [photo_u8, map_shown(result.label_ids)],
        [resize_image(result.generated_u8, SHOWN), map_shown(result.generated_label_ids)],
    ]
    save_image(grid(real), PROJECT / "docs" / "real_street.jpg")
    cities = list(generator.styles)
    images = [
        resize_image(generator.synthesize(result.label_ids, z=generator.style(name)), SHOWN)
        for name in cities
    ]
    rows = [images[start : start + 2] for start in range(0, len(images), 2)]
    save_image(grid(rows), PROJECT / "docs" / "cities.jpg")
    print(f"docs/real_street.jpg, and docs/cities.jpg: {', '.join(cities)}")


if __name__ == "__main__":
    main()
