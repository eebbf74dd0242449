"""Intervals over scenes, and mIoU over classes that occur often enough."""

import pytest
import torch

from utils.intervals import (
    by_photo,
    confusions,
    interval,
    labels_in,
    mean_iou,
    pixel_accuracy,
)
from utils.labels import ID
from utils.metrics import SegmentationScore

ROAD, SKY, CAR = ID["road"], ID["sky"], ID["car"]


def maps(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    true_ids, predicted_ids = torch.randint(0, 34, (2, 6, 8, 16), generator=generator)
    predicted_ids[:, :5] = true_ids[:, :5]
    return predicted_ids.to(torch.uint8), true_ids.to(torch.uint8)


def test_counts_of_all_scenes_give_the_scores_of_the_benchmark():
    predicted_ids, true_ids = maps()
    score = SegmentationScore()
    score.update(predicted_ids, true_ids)
    counts = confusions(predicted_ids, true_ids)
    assert counts.shape == (6, 34, 34) and counts.sum() == true_ids.numel()
    assert mean_iou(counts).item() == pytest.approx(score.compute().miou)
    assert pixel_accuracy(counts).item() == pytest.approx(score.compute().accuracy)


def test_rare_labels_are_left_out():
    true_ids = torch.full((3, 2, 2), ROAD, dtype=torch.uint8)
    true_ids[0, 0] = CAR
    true_ids[:2, 1, 1] = SKY
    counts = confusions(true_ids, true_ids)
    assert labels_in(counts) == [ROAD, SKY, CAR]
    assert labels_in(counts, at_least=2) == [ROAD, SKY]


def test_the_scenes_of_one_photo_are_one_row():
    rows, names = torch.tensor([[1.0, 2], [3, 4], [5, 6]]), ["a_left", "b", "a_right"]
    assert by_photo(rows, names).tolist() == [[6, 8], [3, 4]]
    assert by_photo(rows, names, mean=True).tolist() == [[3, 4], [3, 4]]
    assert torch.equal(by_photo(rows, ["a", "b", "c"]), rows)


def test_a_label_means_what_the_scenes_map_calls_it():
    true_ids = torch.full((1, 2, 2), CAR, dtype=torch.uint8)
    predicted_ids = torch.full_like(true_ids, ID["truck"])
    assert mean_iou(confusions(predicted_ids, true_ids)) == 0
    assert mean_iou(confusions(predicted_ids, true_ids, ["camvid"])) == 1


def test_the_interval_of_a_mean_is_as_wide_as_its_standard_error_says():
    values = torch.randn(400, generator=torch.Generator().manual_seed(1))
    found = interval(torch.mean, values)
    error = (values.std() / 20).item()
    assert found.value == pytest.approx(values.mean().item())
    assert found.value - found.low == pytest.approx(1.96 * error, rel=0.15)
    assert found.high - found.value == pytest.approx(1.96 * error, rel=0.15)
    assert str(found).count(".") == 3


def test_a_difference_is_taken_of_the_same_scenes():
    values = torch.randn(50, generator=torch.Generator().manual_seed(2))
    found = interval(lambda x, y: (x - y).mean(), values + 0.5, values)
    assert found.low == pytest.approx(0.5) and found.high == pytest.approx(0.5)


@pytest.mark.parametrize("rows", [(torch.ones(1),), (torch.ones(3), torch.ones(2))])
def test_too_few_or_unequal_scenes_are_refused(rows):
    with pytest.raises(ValueError, match="the same number of scenes"):
        interval(lambda *x: x[0].mean(), *rows)
