"""Photo -> map -> photo -> map: each stage gets what the one before it made."""

import pytest
import torch

import spade
from utils.pipeline import Pipeline, PipelineResult, agreement
from utils.segmentation import SegmentationNet

FIELDS = ("image_u8", "label_ids", "generated_u8", "generated_label_ids")


@pytest.fixture(scope="module")
def pipeline():
    torch.manual_seed(0)
    generator = spade.SpadeGenerator(ngf=2, hidden=4, size=(64, 64))
    return Pipeline(SegmentationNet("resnet18"), generator)


def photos(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def equal(one: PipelineResult, other: PipelineResult) -> bool:
    return all(torch.equal(getattr(one, field), getattr(other, field)) for field in FIELDS)


@pytest.mark.parametrize("batch", [(), (2,)])
def test_run(pipeline, batch):
    image_u8 = photos(*batch, 3, 64, 128)
    result = pipeline.run(image_u8)
    assert result.image_u8 is image_u8
    assert result.generated_u8.shape == (*batch, 3, 64, 128)
    assert result.label_ids.shape == result.generated_label_ids.shape == (*batch, 64, 128)
    assert all(getattr(result, field).dtype == torch.uint8 for field in FIELDS)
    assert torch.equal(result.label_ids, pipeline.segmenter.predict(image_u8))
    assert torch.equal(result.generated_u8, pipeline.generator.synthesize(result.label_ids))
    seen = pipeline.segmenter.predict(result.generated_u8)
    assert torch.equal(result.generated_label_ids, seen)


def test_run_is_the_first_round(pipeline):
    image_u8 = photos(3, 64, 64)
    (one,) = pipeline.feedback(image_u8, rounds=1)
    three = pipeline.feedback(image_u8, rounds=3)
    assert len(three) == 3
    assert equal(pipeline.run(image_u8), one) and equal(one, three[0])


def test_each_round_starts_where_the_one_before_it_ended(pipeline):
    rounds = pipeline.feedback(photos(2, 3, 64, 64), rounds=3)
    for before, after in zip(rounds, rounds[1:], strict=False):
        assert after.image_u8 is before.generated_u8
        assert after.label_ids is before.generated_label_ids
        assert equal(after, pipeline.run(before.generated_u8))


@pytest.mark.parametrize("rounds", [0, -1])
def test_no_rounds(pipeline, rounds):
    with pytest.raises(ValueError, match=f"rounds is {rounds}: expected 1 or more"):
        pipeline.feedback(photos(3, 64, 64), rounds)


def test_sizes_that_do_not_suit_the_generator(pipeline):
    with pytest.raises(
        ValueError, match="size 100x64 .*multiples of 64; the nearest are 64 or 128"
    ):
        pipeline.run(photos(3, 64, 100))


def test_agreement_by_hand():
    one = torch.tensor([[7, 7, 26], [23, 23, 0]], dtype=torch.uint8)
    other = torch.tensor([[7, 8, 26], [0, 23, 0]], dtype=torch.uint8)
    assert agreement(one, other).shape == () and agreement(one, other) == pytest.approx(4 / 6)
    shares = agreement(torch.stack([one, one, other]), torch.stack([one, other, 33 - other]))
    assert shares.shape == (3,) and shares.dtype == torch.float32
    torch.testing.assert_close(shares, torch.tensor([1, 4 / 6, 0]))


def test_maps_of_two_sizes():
    with pytest.raises(ValueError, match=r"shapes \(4, 5\) and \(5, 4\): expected the same"):
        agreement(torch.zeros(4, 5), torch.zeros(5, 4))
