"""The style classifier: which city, and which time of day, does a latent stand for?"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from utils.scenes import Scenes


class StyleClassifier(nn.Module):
    """A linear layer that reads a photo's city and time of day from its latent.

    The encoder and it learn together, so that whatever names a style is in the latent, and in
    directions of its own: then the mean latent of a city stands for that city.

    Args:
        classes: for each attribute of a photo, the names that it can have; see style_labels().
        z_dim: numbers in the latent.

    No part of the published SPADE.
    """

    def __init__(self, classes: Sequence[Sequence[str]], z_dim: int):
        super().__init__()
        self.classes = [list(names) for names in classes]
        self.score = nn.Linear(z_dim, sum(map(len, self.classes)))
        # From zero: until it knows something, it asks nothing of the encoder.
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, z: Tensor) -> list[Tensor]:
        """z (B, z_dim) -> for each attribute scores (B, number of its classes)."""
        return list(self.score(z).split([len(names) for names in self.classes], dim=1))


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
            "them; take more scenes, or give styles a weight of 0."
        )
    classes = [sorted(set(column)) for column in columns]
    labels = [
        [names.index(name) for name in column]
        for names, column in zip(classes, columns, strict=True)
    ]
    return classes, torch.tensor(labels).T
