"""Scores worked out by hand, and equal to those of the Cityscapes benchmark's own code."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official

from utils.labels import BENCHMARK_IDS, NAMES
from utils.metrics import SegmentationScore


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


def test_a_perfect_prediction():
    _, true_ids = random_maps(0)
    result = score(true_ids, true_ids)
    assert (result.miou, result.accuracy, result.accuracy_with_void) == (1, 1, 1)
    assert set(result.iou) == {NAMES[i] for i in BENCHMARK_IDS}


def test_void_pixels_count_nowhere_but_in_their_own_figure():
    predicted_ids, true_ids = random_maps(1)
    result = score(predicted_ids, true_ids)
    void = ~torch.isin(true_ids, torch.tensor(BENCHMARK_IDS))
    changed = score(predicted_ids.masked_fill(void, 26), true_ids)
    assert (changed.miou, changed.accuracy, changed.iou) == (
        result.miou,
        result.accuracy,
        result.iou,
    )
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
def test_equal_to_the_benchmarks_own_code(seed):
    predicted_ids, true_ids = random_maps(seed)
    result = score(predicted_ids, true_ids)
    confusion = np.zeros((34, 34), dtype=np.ulonglong)
    np.add.at(confusion, (true_ids.numpy().ravel(), predicted_ids.numpy().ravel()), 1)
    arguments = SimpleNamespace(evalLabels=list(range(34)))
    ious = {
        NAMES[i]: official.getIouScoreForLabel(i, confusion, arguments)
        for i in range(34)
        if not official.id2label[i].ignoreInEval
    }
    assert result.iou == pytest.approx(ious, abs=1e-12)
    expected = official.getScoreAverage(ious, arguments)
    assert 0.2 < result.miou < 0.6 and result.miou == pytest.approx(expected, abs=1e-12)


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
