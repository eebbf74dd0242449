"""Scores worked out by hand, and equal to those of the Cityscapes benchmark's own code."""

import math

import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official

from utils.images import save_image
from utils.labels import BENCHMARK_IDS, NAMES
from utils.metrics import BoundaryScore, SegmentationScore


def score(predicted_ids, true_ids):
    result = SegmentationScore()
    result.update(predicted_ids, true_ids)
    return result.compute()


def random_maps(seed, shape=(4, 33, 47)):
    """Truth with all 34 ids, and a prediction that is right in about half of the pixels."""
    generator = torch.Generator().manual_seed(seed)
    true_ids, guess = torch.randint(0, 34, (2, *shape), generator=generator, dtype=torch.uint8)
    right = torch.rand(shape, generator=generator) < torch.linspace(0.2, 0.8, shape[-1])
    return torch.where(right, true_ids, guess), true_ids


def test_by_hand():
    true_ids = torch.tensor([[7, 7, 7, 7], [23, 23, 0, 0]], dtype=torch.uint8)
    predicted_ids = torch.tensor([[7, 7, 7, 23], [23, 0, 7, 0]], dtype=torch.uint8)
    result = score(predicted_ids, true_ids)
    # Road: 3 hits, 4 in the truth, 3 predicted where the truth counts.  Sky: 1 of 2, 2 predicted.
    assert result.iou["road"] == pytest.approx(3 / 4)
    assert result.iou["sky"] == pytest.approx(1 / 3)
    assert result.miou == pytest.approx((3 / 4 + 1 / 3) / 2)
    assert result.accuracy == pytest.approx(4 / 6)
    assert result.accuracy_with_void == pytest.approx(5 / 8)
    assert math.isnan(result.iou["car"]) and len(result.iou) == 19
    assert str(result) == "mIoU 0.542, pixel accuracy 0.667 (0.625 with void pixels)"


def test_void_pixels_count_nowhere_but_in_their_own_figure():
    predicted_ids, true_ids = random_maps(1)
    result = score(predicted_ids, true_ids)
    void = ~torch.isin(true_ids, torch.tensor(BENCHMARK_IDS))
    changed = score(predicted_ids.masked_fill(void, 26), true_ids)
    assert changed.miou == result.miou and changed.accuracy == result.accuracy
    assert changed.iou == result.iou
    assert changed.accuracy_with_void < result.accuracy_with_void


def test_a_class_that_is_predicted_but_does_not_occur():
    true_ids = torch.full((3, 5), 7, dtype=torch.uint8)
    predicted_ids = true_ids.clone()
    predicted_ids[0, 0] = 26
    result = score(predicted_ids, true_ids)
    assert result.miou == pytest.approx(14 / 15) and math.isnan(result.iou["car"])


def test_nothing_but_void():
    result = score(*[torch.zeros(3, 5, dtype=torch.uint8)] * 2)
    assert math.isnan(result.miou) and math.isnan(result.accuracy)
    assert result.accuracy_with_void == 1


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_the_benchmarks_own_script(seed, tmp_path):
    """Their script reads the same maps from files."""
    predicted_ids, true_ids = random_maps(seed)
    files = [
        [str(save_image(ids, tmp_path / f"{kind}{i}.png")) for i, ids in enumerate(maps)]
        for kind, maps in (("predicted", predicted_ids), ("true", true_ids))
    ]
    arguments = official.args
    arguments.evalInstLevelScore = arguments.evalPixelAccuracy = arguments.JSONOutput = False
    arguments.quiet = True
    theirs = official.evaluateImgLists(*files, arguments)
    result = score(predicted_ids, true_ids)
    expected = {name: theirs["classScores"][name] for name in result.iou}
    assert result.iou == pytest.approx(expected, abs=1e-12)
    mean = theirs["averageScoreClasses"]
    assert 0.2 < result.miou < 0.6 and result.miou == pytest.approx(mean, abs=1e-12)


def test_updates_in_pieces_equal_one_update():
    predicted_ids, true_ids = random_maps(2)
    pieces = SegmentationScore()
    pieces.update(predicted_ids[0], true_ids[0])
    pieces.update(predicted_ids[1:3, :20], true_ids[1:3, :20].int())
    pieces.update(predicted_ids[1:3, 20:].long(), true_ids[1:3, 20:])
    pieces.compute()  # looking does not disturb
    pieces.update(predicted_ids[3:], true_ids[3:])
    assert pieces.compute() == score(predicted_ids, true_ids)


def test_any_prediction_can_be_scored():
    """An untrained network may see nothing but void classes, which looks like train ids."""
    true_ids = torch.full((4, 6), 7, dtype=torch.uint8)
    void = torch.arange(6, dtype=torch.uint8).expand(4, 6)
    assert score(void, true_ids).accuracy == 0


def test_bad_input():
    true_ids = torch.full((4, 6), 7, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"prediction has shape \(6, 4\), the truth \(4, 6\)"):
        score(true_ids.T, true_ids)
    with pytest.raises(ValueError, match="^the truth holds the value 255"):
        score(true_ids, true_ids.masked_fill(true_ids == 7, 255))
    with pytest.raises(ValueError, match="^the prediction has dtype torch.float32"):
        score(true_ids.float(), true_ids)
    with pytest.raises(ValueError, match=r"nothing to score yet: call update\(\)"):
        SegmentationScore().compute()


def boundary_score(predicted_ids, true_ids, tolerance=None):
    result = BoundaryScore(tolerance)
    result.update(predicted_ids, true_ids)
    return result.compute()


def halves(column):
    """Road on the left of a column of 16, sky on the right of it."""
    label_ids = torch.full((8, 16), 23, dtype=torch.uint8)
    label_ids[:, :column] = 7
    return label_ids


def test_boundaries_by_hand():
    # The outlines are columns 7 and 8 in the truth, 9 and 10 in the prediction.
    assert boundary_score(halves(10), halves(8), tolerance=2).f_score == 1
    assert boundary_score(halves(8), halves(8), tolerance=0).f_score == 1
    assert boundary_score(halves(9), halves(8), tolerance=0).f_score == 0
    near = boundary_score(halves(10), halves(8), tolerance=1)
    assert near.f_score == 0 and set(near.by_class) == {NAMES[i] for i in BENCHMARK_IDS}
    assert near.predicted_length == near.true_length == pytest.approx(2 / 16)
    # A line of road in the sky: two outlines too many for road, which has one in the truth.
    striped = halves(8)
    striped[:, 12] = 7
    result = boundary_score(striped, halves(8), tolerance=1)
    assert result.by_class["road"] == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert result.by_class["sky"] == pytest.approx(2 * (1 / 3) / (4 / 3))
    assert math.isnan(result.by_class["car"])
    assert str(result).startswith("boundary F-score 0.583, outlines 31.2% of the pixels (truth 12")


def test_boundaries_of_the_truth_itself_and_of_nothing():
    _, true_ids = random_maps(0)
    assert boundary_score(true_ids, true_ids).f_score == pytest.approx(1)
    blank = torch.full_like(true_ids, 7)
    result = boundary_score(blank, true_ids)
    assert result.f_score == 0 and result.predicted_length == 0 < result.true_length


def test_void_has_no_boundaries_and_pieces_add_up():
    predicted_ids, true_ids = random_maps(1)
    void = ~torch.isin(true_ids, torch.tensor(BENCHMARK_IDS))
    result = boundary_score(predicted_ids, true_ids)
    pieces = BoundaryScore()
    for predicted, true in zip(predicted_ids, true_ids):
        pieces.update(predicted, true)
    assert pieces.compute() == result
    assert boundary_score(true_ids.masked_fill(void, 7), true_ids).f_score < 1
    nothing = torch.zeros(3, 5, dtype=torch.uint8)
    with pytest.raises(ValueError, match="nothing to score"):
        boundary_score(nothing, nothing)


def test_the_tolerance_follows_the_size():
    """0.75 % of the diagonal: one pixel for small maps, four for 512x256, and not five."""
    large = [torch.full((256, 512), 23, dtype=torch.uint8) for _ in range(3)]
    for label_ids, column in zip(large, (100, 104, 105)):
        label_ids[:, :column] = 7
    assert boundary_score(large[1], large[0]).f_score == 1
    assert boundary_score(large[2], large[0]).f_score < 1
