"""Which classes a label may mean: data sets divide the classes differently.

CamVid's maps label a truck as "car", a wall as "building" and a traffic light as "sign".  A network
that learns from them must not learn that a truck is a car.  Therefore the loss of a pixel is that
of all labels together that its label may mean (utils.training.pixel_loss), and before a prediction
is scored, "truck" is replaced by "car" in it (utils.metrics.SegmentationScore).
"""

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from utils.engine.graphs import send
from utils.labels import ID, NUM_LABELS

EXACT = "exact"  # every label means itself: toy streets, Cityscapes, maps drawn by hand

# What each name in a map may mean besides itself.  Only labels of which some data set has exact
# examples are listed: a network could not distinguish two labels without examples, and would choose
# between them at random.  For the same reason a loss uses this table only if some of the training
# maps are exact.  No label is listed for two common names: it would be predicted wherever these two
# are hard to distinguish, because it would always be right (as "parking" for road and sidewalk).
_ALSO = {
    "camvid": {
        "building": "wall, bridge",
        "vegetation": "terrain",
        "traffic sign": "traffic light",
        "car": "truck, bus",
        "rider": "bicycle, motorcycle",
    },
    # Maps made by a network, which often confuses rare classes.
    "network": {
        "wall": "fence, building",
        "truck": "car, bus",
        "bus": "truck, car",
        "train": "bus, truck, building",
        "motorcycle": "bicycle",
    },
}


def _table(also: dict[str, str]) -> Tensor:
    table = torch.eye(NUM_LABELS, dtype=torch.bool)
    for name, others in also.items():
        table[ID[name], [ID[other] for other in others.split(", ")]] = True
    return table


# (34, 34) bool: in row l the labels that l may mean.
MEANINGS = {EXACT: torch.eye(NUM_LABELS, dtype=torch.bool)} | {
    kind: _table(also) for kind, also in _ALSO.items()
}


_MOST = max(int(table.sum(1).max()) for table in MEANINGS.values())  # labels that one may mean


def kinds_to_learn(kinds: Sequence[str]) -> Sequence[str]:
    """The kinds of training maps that a loss has to know: none if all are exact, or none is."""
    return kinds if EXACT in kinds and set(kinds) != {EXACT} else ()


def meanings_checksum(kinds: Sequence[str]) -> int | None:
    """A number that differs for other meanings; None if a loss uses none."""
    learned = sorted(set(kinds_to_learn(kinds)) - {EXACT})
    return zlib.crc32(repr([_ALSO[kind] for kind in learned]).encode()) if learned else None


def possible_labels(kinds: Sequence[str], device: torch.device) -> Tensor | None:
    """The tables of several maps -> (B, 34, 34) bool, or None if all of them are exact."""
    if all(kind == EXACT for kind in kinds):
        return None
    return send(torch.stack([MEANINGS[kind] for kind in kinds]), device)


def of_meant(values: Tensor, label_ids: Tensor, possible: Tensor | None, fill: float) -> Tensor:
    """For every pixel the values of all labels that its own may mean -> (B, N, H, W).

    Args:
        values: (B, 34, H, W), of all labels: scores, or probabilities.
        label_ids: (B, H, W), 0..33.
        possible: see possible_labels(); with None N is 1.
        fill: the value in the places that are left over for a label that may mean fewer than N.
    """
    if possible is None:
        return values.gather(1, label_ids[:, None].long())
    is_meant, meant = possible.to(torch.uint8).topk(_MOST)  # (B, 34, N)
    maps = torch.arange(len(label_ids), device=label_ids.device)[:, None, None]
    at_pixels = (x[maps, label_ids.long()].movedim(-1, 1) for x in (is_meant, meant))
    is_meant, meant = at_pixels  # (B, N, H, W)
    return values.gather(1, meant).masked_fill(is_meant == 0, fill)


def as_named_by(kinds: Sequence[str], label_ids: Tensor) -> Tensor:
    """Replace predicted classes by the names that each map uses: for CamVid a truck is a car.

    Args:
        kinds: of each map, a key of MEANINGS.
        label_ids: (B, H, W), any integers.

    Returns:
        The label ids with these replacements.
    """
    if "camvid" not in kinds:
        return label_ids
    words = torch.arange(NUM_LABELS).repeat(len(kinds), 1)
    for row, kind in zip(words, kinds):
        for name, others in _ALSO["camvid"].items() if kind == "camvid" else ():
            row[[ID[other] for other in others.split(", ")]] = ID[name]
    words = send(words.to(label_ids.dtype), label_ids.device)
    return words.gather(1, label_ids.flatten(1).long()).view_as(label_ids)
