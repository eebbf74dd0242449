"""Compare two maps of a street: how far they agree, by chance too, and after many rounds.

comparison = compare(first_ids, second_ids)             # maps before and after SPADE
maps = maps_by_round(pipeline, image_u8, rounds=10)     # (11, B, H, W)
agreement_with(maps, maps[0])                           # (11, B): what is left of the first
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.intervals import Interval, by_photo, interval
from utils.labels import NAMES, NUM_LABELS, instance_edges
from utils.metrics import BoundaryResult, BoundaryScore, SegmentationResult, SegmentationScore
from utils.pipeline import Pipeline, agreement
from utils.progress import progress


@dataclass(frozen=True)
class MapComparison:
    """The agreement of the second maps of a set of scenes with the first ones.

    Attributes:
        agreement: (B,) float: share of the pixels with the same label in both, for each scene.
        segmentation: mIoU, IoU by class ..., the first maps taken as the truth.
        boundary: how well the outlines fit, and how long they are: true_length is that of the first
            maps, predicted_length that of the second.
    """

    agreement: Tensor
    segmentation: SegmentationResult
    boundary: BoundaryResult

    def __str__(self) -> str:
        # the spread of a single scene is 0, not NaN
        spread = self.agreement.std(correction=0)
        return (
            f"agreement {self.agreement.mean():.3f} ±{spread:.3f}, "
            f"mIoU {self.segmentation.miou:.3f}, boundary F-score {self.boundary.f_score:.3f}"
        )


def compare(first_ids: Tensor, second_ids: Tensor) -> MapComparison:
    """Score the second maps against the first.

    Args:
        first_ids, second_ids: (B, H, W) label ids 0..33; both of the same shape, on any device.

    Raises ValueError if the shapes differ, or if the maps hold anything but label ids.
    """
    first_ids, second_ids = first_ids.cpu(), second_ids.cpu()
    segmentation, boundary = SegmentationScore(), BoundaryScore()
    for first, second in zip(first_ids.split(16), second_ids.split(16)):  # bounded memory
        segmentation.update(second, first)
        boundary.update(second, first)
    shares = agreement(first_ids, second_ids)
    return MapComparison(shares, segmentation.compute(), boundary.compute())


def controls(label_ids: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Control maps, whose agreement with a scene's map is due to chance.

    Args:
        label_ids: (B, H, W), maps of at least two scenes.

    Returns:
        "another scene": each map is the next scene's, a street like any other;
        "shuffled": each map's own pixels in random places: its classes, and nothing else.
    """
    if label_ids.dim() != 3 or len(label_ids) < 2:
        raise ValueError(
            f"The maps have shape {tuple(label_ids.shape)}: expected (B, H, W) with two scenes or "
            "more, so that there is another one to compare with."
        )
    flat = label_ids.flatten(1)
    noise = torch.rand(flat.shape, generator=torch.Generator().manual_seed(seed))
    shuffled = flat.gather(1, noise.argsort(1).to(flat.device)).reshape(label_ids.shape)
    return {"another scene": label_ids.roll(1, 0), "shuffled": shuffled}


def soften(label_ids: Tensor) -> Tensor:
    """Round off the outlines of maps: each pixel gets the most frequent label of its 3x3 pixels.

    Args:
        label_ids: (B, H, W), label ids 0..33.

    Returns:
        (B, H, W) uint8.  At the rim, only pixels inside the map count.
    """
    planes = F.one_hot(label_ids.long(), NUM_LABELS).movedim(-1, 1).float()  # (B, 34, H, W)
    shares = F.avg_pool2d(planes, 3, stride=1, padding=1, count_include_pad=False)
    return shares.argmax(1).to(torch.uint8)


@dataclass(frozen=True)
class OutlineComparison:
    """What became of the first maps' outlines in the second maps, with intervals over photos.

    Attributes:
        length: length of the second outlines / length of the first - 1; negative: shorter.
        f_score: boundary F-score, 1 where all outlines lie on the first ones, see BoundaryScore.
        on_outlines: agreement on the pixels of the first outlines, 0..1.
    """

    length: Interval
    f_score: Interval
    on_outlines: Interval

    def __str__(self) -> str:
        low, high = 100 * self.length.low, 100 * self.length.high
        return (
            f"length {100 * self.length.value:+5.1f} % ({low:+.1f} to {high:+.1f}), "
            f"F {self.f_score}, agreement on outlines {self.on_outlines}"
        )


def compare_outlines(
    first_ids: Tensor, second_ids: Tensor, names: Sequence[str] | None = None
) -> OutlineComparison:
    """Compare the outlines of the second maps with those of the first.

    Args:
        first_ids, second_ids: (B, H, W) label ids 0..33, of two scenes or more.
        names: of the scenes, where several may come from one photo, see utils.intervals.by_photo().
    """
    first_ids, second_ids = first_ids.cpu(), second_ids.cpu()
    rows = torch.stack([_outline_counts(*pair) for pair in zip(first_ids, second_ids)])
    if names is not None:
        rows = by_photo(rows, names)

    def length(rows: Tensor) -> Tensor:
        second, first = rows.sum(0)[:2]
        return second / first - 1

    def on_outlines(rows: Tensor) -> Tensor:
        same, edges = rows.sum(0)[2:4]
        return same / edges

    def f_score(rows: Tensor) -> float:
        score = BoundaryScore()
        score.counts, score.pixels = rows.sum(0)[4:].reshape(score.counts.shape), 1
        return score.compute().f_score

    return OutlineComparison(*(interval(f, rows) for f in (length, f_score, on_outlines)))


def _outline_counts(first_ids: Tensor, second_ids: Tensor) -> Tensor:
    """Of one scene (H, W): outline pixels of both maps, hits on outlines, and BoundaryScore's."""
    score = BoundaryScore()
    score.update(second_ids, first_ids)
    edges = instance_edges(first_ids[None].int())[0]
    hits = torch.stack([((first_ids == second_ids) & edges).sum(), edges.sum()])
    return torch.cat([score.outline, hits, score.counts.flatten()]).double()


def agreement_by_distance(first_ids: Tensor, second_ids: Tensor, furthest: int = 8) -> Tensor:
    """Agreement by how far a pixel is from the nearest outline of the first map.

    Args:
        first_ids, second_ids: (B, H, W) label ids.
        furthest: the largest distance with an entry of its own, in pixels along each axis.

    Returns:
        (furthest + 1, B) float: entry d for the pixels at distance d, 0 being those on an outline,
        the last for all pixels at least that far away; NaN where a scene has no such pixels.
    """
    same = (first_ids == second_ids).float()
    within = instance_edges(first_ids.int())  # (B, H, W), grows with the distance
    ring, rows = within, []
    for distance in range(furthest + 1):
        if distance == furthest:
            ring = ring | ~within
        rows.append((same * ring).sum((-2, -1)) / ring.sum((-2, -1)))  # (B,), 0 / 0 is NaN
        wider = F.max_pool2d(within.float(), 3, stride=1, padding=1) > 0
        ring, within = wider & ~within, wider
    return torch.stack(rows)


# ----------------------------------------------------------------------------- round after round


def maps_by_round(
    pipeline: Pipeline,
    image_u8: Tensor | None,
    rounds: int,
    label_ids: Tensor | None = None,
    batch_size: int = 8,
) -> Tensor:
    """Run several rounds of feedback on batches of scenes, with a progress bar.

    Args:
        image_u8: (B, 3, H, W): the photos to start from, or None.
        label_ids: (B, H, W), label ids 0..33: the maps to start from, true ones for example; the
            photos are then used for their style only, if the pipeline has an encoder.
        batch_size: how many scenes go through at a time.

    Returns:
        label_ids (rounds + 1, B, H, W) uint8 on the CPU: the first maps, and those of each round.
    """
    starts = image_u8 if label_ids is None else label_ids
    if starts is None:
        raise ValueError("There is nothing to start from: pass image_u8 or label_ids.")
    maps = []
    for part in progress(torch.arange(len(starts)).split(batch_size), f"{rounds} rounds"):
        photos, ids = (None if start is None else start[part] for start in (image_u8, label_ids))
        results = pipeline.feedback(photos, rounds, ids)
        seen = [results[0].label_ids, *(result.generated_label_ids for result in results)]
        maps.append(torch.stack(seen).cpu())
    return torch.cat(maps, 1)


def agreement_with(maps: Tensor, first_ids: Tensor) -> Tensor:
    """Agreement of the maps of each round (R, B, H, W) with one set of maps (B, H, W) -> (R, B)."""
    return agreement(maps, first_ids.expand_as(maps))


def class_shares(label_ids: Tensor) -> Tensor:
    """Share of the pixels that each label has, 0..1: (..., B, H, W) -> (..., 34)."""
    flat = label_ids.flatten(-3).long()
    rows = flat.reshape(-1, flat.shape[-1])
    counts = torch.stack([row.bincount(minlength=NUM_LABELS) for row in rows])
    return (counts / flat.shape[-1]).reshape(*flat.shape[:-1], NUM_LABELS)


def died_out(shares: Tensor, left: float = 0.1) -> dict[str, float]:
    """The classes that end with less than `left` times their first share of the pixels.

    Args:
        shares: (R, 34), as class_shares() gives them for the maps of all rounds.

    Returns:
        name -> last share / first share; the class with the largest first share comes first.
    """
    start, end = shares[0], shares[-1]
    by_share = start.argsort(descending=True, stable=True).tolist()
    parts = {NAMES[i]: (end[i] / start[i]).item() for i in by_share if start[i] > 0}
    return {name: part for name, part in parts.items() if part < left}
