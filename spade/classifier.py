"""The style classifier: which city, and which time of day, does a photo show?"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from utils.scenes import Scenes


class StyleClassifier(nn.Module):
    """A small classifier that learns from the real photos what the generator is then held to.

    Four convolutions, whose last map is averaged over the photo: colours and patterns count, not
    where things stand, which is the label map's business.

    Args:
        classes: for each attribute of a photo, the names that it can have; see style_labels().
        width: of the first layer.

    Source: the auxiliary classifier of Odena et al., ICML 2017, arXiv:1610.09585, here beside the
    discriminator.  No part of the published SPADE.
    """

    def __init__(self, classes: Sequence[Sequence[str]], width: int = 16):
        super().__init__()
        self.classes = [list(names) for names in classes]
        widths = [3, width, 2 * width, 4 * width, 8 * width]
        layers = []
        for in_channels, out_channels in zip(widths, widths[1:]):
            layers += [nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1)]
            layers += [nn.BatchNorm2d(out_channels), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.score = nn.Linear(widths[-1], sum(map(len, self.classes)))

    def forward(self, image_pm1: Tensor) -> list[Tensor]:
        """image_pm1 (B, 3, H, W) -> for each attribute scores (B, number of its classes)."""
        scores = self.score(self.layers(image_pm1).mean((2, 3)))
        return list(scores.split([len(names) for names in self.classes], dim=1))


def style_labels(scenes: Scenes) -> tuple[list[list[str]], Tensor]:
    """The attributes that make a scene's style, its city and its time of day, as classes.

    An attribute that is the same everywhere is left out.

    Returns:
        For each attribute its classes, sorted; and labels, (len(scenes), number of attributes)
        long, the places of the scenes' own in them.

    Raises ValueError if no attribute is left.
    """
    pairs = [(scene.city, scene.time_of_day) for scene in scenes]
    columns = [column for column in zip(*pairs, strict=True) if len(set(column)) > 1]
    if not columns:
        raise ValueError(
            "All scenes have the same city and the same time of day: a style can't be told from "
            "them; take more scenes, or a style_weight of 0."
        )
    classes = [sorted(set(column)) for column in columns]
    labels = [
        [names.index(name) for name in column]
        for names, column in zip(classes, columns, strict=True)
    ]
    return classes, torch.tensor(labels).T
