"""The style reader: which city, and which time of day, does a photo show?"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from utils.scenes import Scenes


class StyleReader(nn.Module):
    """A small classifier that learns from the real photos what the generator is then held to.

    Four convolutions, whose last map is averaged over the photo: colours and patterns count, not
    where things stand, which is the label map's business.

    Args:
        names: for each question that can be asked of a photo, its possible answers; see
            answers_of().
        width: of the first layer.

    Source: the auxiliary classifier of Odena et al., ICML 2017, arXiv:1610.09585, here beside the
    discriminator.  No part of the published SPADE.
    """

    def __init__(self, names: Sequence[Sequence[str]], width: int = 16):
        super().__init__()
        self.names = [list(answers) for answers in names]
        widths = [3, width, 2 * width, 4 * width, 8 * width]
        layers = []
        for in_channels, out_channels in zip(widths, widths[1:]):
            layers += [nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1)]
            layers += [nn.BatchNorm2d(out_channels), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.score = nn.Linear(widths[-1], sum(map(len, self.names)))

    def forward(self, image_pm1: Tensor) -> list[Tensor]:
        """image_pm1 (B, 3, H, W) -> for each question scores (B, number of answers)."""
        scores = self.score(self.layers(image_pm1).mean((2, 3)))
        return list(scores.split([len(answers) for answers in self.names], dim=1))


def answers_of(scenes: Scenes) -> tuple[list[list[str]], Tensor]:
    """What there is to read from the photos of these scenes: their cities and times of day.

    A question that has the same answer everywhere is not asked.

    Returns:
        For each question its answers, sorted; and told, (len(scenes), number of questions) long,
        the places of the scenes' own answers in them.
    """
    pairs = [(scene.city, scene.time_of_day) for scene in scenes]
    columns = [column for column in zip(*pairs, strict=True) if len(set(column)) > 1]
    names = [sorted(set(column)) for column in columns]
    told = [
        [answers.index(name) for name in column]
        for answers, column in zip(names, columns, strict=True)
    ]
    return names, torch.tensor(told, dtype=torch.long).reshape(len(names), len(pairs)).T
