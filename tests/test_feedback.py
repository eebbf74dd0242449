"""Two maps of one street compared, and many rounds."""

import math

import pytest
import torch
from examples import noise

from utils.feedback import (
    agreement_by_distance,
    agreement_with,
    class_shares,
    compare,
    compare_outlines,
    controls,
    died_out,
    maps_by_round,
    soften,
)
from utils.intervals import Interval
from utils.labels import ID
from utils.metrics import BoundaryScore, SegmentationScore
from utils.pipeline import Pipeline, agreement

ROAD, SKY, CAR = ID["road"], ID["sky"], ID["car"]


def half_sky(width=8, height=8, rows=4):
    label_ids = torch.full((height, width), ROAD, dtype=torch.uint8)
    label_ids[:rows] = SKY
    return label_ids


def random_maps(*shape):
    return noise(*shape, low=7, high=34)


def test_compare_by_hand():
    first = torch.stack([half_sky(), half_sky()])
    second = torch.stack([half_sky(), half_sky(rows=5)])  # 8 of 64 pixels of the second scene
    result = compare(first, second)
    torch.testing.assert_close(result.agreement, torch.tensor([1, 56 / 64]))
    assert result.segmentation.iou["sky"] == pytest.approx(64 / 72)
    assert result.segmentation.miou == pytest.approx((64 / 72 + 56 / 64) / 2)
    assert result.boundary.true_length == result.boundary.predicted_length == 32 / 128
    assert result.boundary.f_score == 1, "an outline one pixel off is near enough"
    assert str(result).startswith("agreement 0.938 ±0.062, mIoU 0.882, boundary F-score 1.000")


def test_compare_counts_over_all_scenes_whatever_the_batches():
    first, second = random_maps(20, 6, 7), random_maps(21, 6, 7)[1:]
    result = compare(first, second)
    segmentation, boundary = SegmentationScore(), BoundaryScore()
    for score in (segmentation, boundary):
        score.update(second, first)
    assert result.segmentation.miou == segmentation.compute().miou
    assert result.boundary.f_score == boundary.compute().f_score
    with pytest.raises(ValueError, match="expected the same"):
        compare(first, second[:-1])
    assert "±0.000" in str(compare(first[:1], second[:1])), "one scene"


def test_controls():
    first = random_maps(3, 40, 50)
    chance = controls(first)
    assert torch.equal(chance["another scene"], torch.stack([first[2], first[0], first[1]]))
    shuffled = chance["shuffled"]
    assert torch.equal(shuffled.flatten(1).sort(1)[0], first.flatten(1).sort(1)[0])
    assert torch.equal(shuffled, controls(first)["shuffled"])
    assert not torch.equal(shuffled, controls(first, seed=1)["shuffled"])
    # Pixels in random places agree as often as two draws from the classes do.
    assert agreement(first, shuffled).mean() == pytest.approx(1 / 27, abs=0.01)
    for too_few in (first[0], first[:1]):
        with pytest.raises(ValueError, match="with two scenes or more"):
            controls(too_few)


def test_agreement_by_distance_by_hand():
    first = half_sky(height=10, rows=5)[None].repeat(2, 1, 1)  # outline: rows 4 and 5
    second = first.clone()
    second[0, 4] = ROAD
    second[1, 0, :2] = CAR
    by_distance = agreement_by_distance(first, second, furthest=3)
    expected = [[0.5, 1], [1, 1], [1, 1], [1, 30 / 32]]  # rows 3 and 6, 2 and 7, then 4 rows
    torch.testing.assert_close(by_distance, torch.tensor(expected))
    far = agreement_by_distance(first, second, furthest=6)
    assert far[4].tolist() == [1, 14 / 16] and far[5].isnan().all() and far[6].isnan().all()
    flat = torch.full((1, 4, 4), ROAD)
    assert agreement_by_distance(flat, flat, 2)[:, 0].tolist()[2] == 1, "no outline at all"
    assert math.isnan(agreement_by_distance(flat, flat, 2)[0, 0])


def test_maps_by_round(pipeline):
    image_u8 = noise(5, 3, 32, 64)
    maps = maps_by_round(pipeline, image_u8, rounds=2, batch_size=2)
    assert maps.shape == (3, 5, 32, 64) and maps.dtype == torch.uint8
    first, second = pipeline.feedback(image_u8[:2], 2)
    assert torch.equal(maps[0, :2], first.label_ids)
    assert torch.equal(maps[1, :2], second.label_ids)
    assert torch.equal(maps[2, :2], second.generated_label_ids)
    true_ids = random_maps(5, 32, 64)
    from_truth = maps_by_round(pipeline, None, 1, true_ids)
    assert torch.equal(from_truth[0], true_ids)
    assert torch.equal(from_truth[1], pipeline.run(None, true_ids).generated_label_ids)
    with pytest.raises(ValueError, match="nothing to start from"):
        maps_by_round(pipeline, None, 1)


def test_maps_by_round_from_true_maps_in_the_photos_styles(pipeline):
    asked = []

    class Spy(Pipeline):
        def feedback(self, image_u8, rounds, label_ids=None):
            asked.append((image_u8, label_ids))
            return super().feedback(image_u8, rounds, label_ids)

    image_u8, true_ids = torch.zeros(3, 3, 32, 64, dtype=torch.uint8), random_maps(3, 32, 64)
    image_u8 += torch.arange(3, dtype=torch.uint8)[:, None, None, None]
    spy = Spy(pipeline.segmenter, pipeline.generator)
    assert torch.equal(maps_by_round(spy, image_u8, 1, true_ids, batch_size=2)[0], true_ids)
    for image, start in zip(asked, (0, 2)):
        assert torch.equal(image[0], image_u8[start : start + 2])
        assert torch.equal(image[1], true_ids[start : start + 2])


def test_class_shares_and_what_died_out():
    start = torch.stack([half_sky(), half_sky()])
    start[0, 7, :5] = CAR
    end = start.clone()
    end[0, 7, :] = ROAD
    shares = class_shares(torch.stack([start, end]))  # two rounds of two scenes
    assert shares.shape == (2, 34)
    torch.testing.assert_close(shares.sum(1), torch.ones(2))
    assert shares[0, CAR] == pytest.approx(5 / 128) and shares[0, SKY] == pytest.approx(0.5)
    torch.testing.assert_close(class_shares(start), shares[0])
    assert agreement_with(torch.stack([start, end]), start).tolist() == [[1, 1], [1 - 5 / 64, 1]]
    assert died_out(shares) == {"car": 0}
    assert died_out(shares, left=1.01) == {"sky": 1, "car": 0}, "the road grew"


def test_softening_by_hand():
    crowd = torch.tensor([[[7, 7, 7], [7, 11, 11], [26, 26, 26]]], dtype=torch.uint8)
    assert soften(crowd)[0, 1, 1] == 7 and soften(crowd).dtype == torch.uint8
    poles = torch.full((1, 9, 12), ID["road"], dtype=torch.uint8)
    poles[..., 3], poles[..., 7:9] = ID["pole"], ID["pole"]
    thick = poles.clone()
    thick[..., 3] = ID["road"]
    assert torch.equal(soften(poles), thick)


def test_outlines_of_the_same_map_of_a_softer_and_of_a_moved_one():
    first_ids = torch.full((4, 32, 64), ID["road"], dtype=torch.uint8)
    first_ids[:, 8:24, 20:40] = ID["car"]
    first_ids[:, 10, 19] = ID["car"]  # a bump
    same = compare_outlines(first_ids, first_ids)
    assert vars(same) == {
        "length": Interval(0, 0, 0),
        "f_score": Interval(1, 1, 1),
        "on_outlines": Interval(1, 1, 1),
    }
    softer = compare_outlines(first_ids, soften(first_ids))
    assert softer.length.value < 0 and softer.f_score.value > 0.95
    moved = compare_outlines(first_ids, first_ids.roll(8, -1))
    assert abs(moved.length.value) < 0.02 and moved.f_score.value < softer.f_score.value
    assert moved.on_outlines.value < softer.on_outlines.value < 1
    assert "agreement on outlines 1.000" in str(same) and "+0.0 %" in str(same)


def test_outlines_of_scenes_from_one_photo_are_drawn_together():
    first_ids = torch.full((4, 32, 64), ID["road"], dtype=torch.uint8)
    first_ids[:, 8:24, 20:40] = ID["car"]
    second_ids = first_ids.clone()
    second_ids[::2] = first_ids[::2].roll(8, -1)
    names = ["a_left", "a_right", "b_left", "b_right"]
    together = compare_outlines(first_ids, second_ids, names).on_outlines
    apart = compare_outlines(first_ids, second_ids).on_outlines
    assert together.low == together.value == together.high == apart.value > apart.low
