"""Augmentation: photo and map stay together, and the same seed gives the same pictures."""

import pytest
import torch

from utils.augmentation import Augmentation

SIZE = (32, 16)


def a_batch(count=6, height=16, width=32):
    """Photos whose red channel is their own label map, so that what parts them shows."""
    generator = torch.Generator().manual_seed(0)
    label_ids = torch.randint(0, 34, (count, height // 4, width // 4), generator=generator)
    label_ids = label_ids.repeat_interleave(4, 1).repeat_interleave(4, 2).to(torch.uint8)
    image_u8 = torch.stack([label_ids, 255 - label_ids, label_ids // 2], dim=1)
    return image_u8, label_ids


def seeds(count=6, first=0):
    return list(range(100 * first, 100 * first + count))


def test_flips_by_hand():
    image_u8, label_ids = a_batch()
    both = Augmentation(SIZE, flip=1.0)(image_u8, label_ids, seeds=seeds())
    assert torch.equal(both[0], image_u8.flip(-1)) and torch.equal(both[1], label_ids.flip(-1))
    neither = Augmentation(SIZE, flip=0.0)(image_u8, label_ids, seeds=seeds())
    assert torch.equal(neither[0], image_u8) and torch.equal(neither[1], label_ids)
    some, _ = Augmentation(SIZE, flip=0.5)(*a_batch(40), seeds=seeds(40))
    flipped = (some != a_batch(40)[0]).flatten(1).any(1)
    assert 10 < int(flipped.sum()) < 30


def test_crops_keep_photo_and_maps_together():
    image_u8, label_ids = a_batch()
    instance_ids = label_ids.int() * 1000 + 7
    augment = Augmentation(SIZE, scale=(0.3, 0.9))
    photos, labels, instances = augment(image_u8, label_ids, instance_ids, seeds=seeds())
    assert photos.shape == image_u8.shape and photos.dtype == torch.uint8
    assert labels.shape == label_ids.shape and labels.dtype == torch.uint8
    assert instances.dtype == torch.int32 and torch.equal(instances, labels.int() * 1000 + 7)
    assert type(photos) is type(labels) is torch.Tensor
    assert not torch.equal(labels, label_ids)
    assert set(labels.unique().tolist()) <= set(label_ids.unique().tolist())
    # away from the edges of the cells, where the photo is blended and the map is not
    assert ((photos[:, 0].int() - labels.int()).abs() <= 1).float().mean() > 0.5


def test_crops_are_of_several_sizes():
    ramp = torch.arange(256, dtype=torch.uint8).expand(40, 3, 128, 256)  # brighter to the right
    (crops,) = Augmentation((256, 128), flip=0, scale=(0.25, 1.0))(ramp, seeds=seeds(40))
    shares = (crops[:, 0, 0, -1].int() - crops[:, 0, 0, 0].int()) / 255  # of the width
    assert shares.min() < 0.65 and shares.max() > 0.9 and shares.unique().numel() > 20


def test_all_colours_change_in_photos_only():
    grey = torch.tensor([100, 150], dtype=torch.uint8).repeat(40, 3, 4, 2)
    (changed,) = Augmentation((4, 4), flip=0, color=0.4)(grey, seeds=seeds(40))
    ratios = changed[:, 0, 0, 1] / changed[:, 0, 0, 0]  # brightness alone keeps it at 1.5
    assert ratios.min() < 1.4 and ratios.max() > 1.6
    orange = torch.tensor([200, 120, 40], dtype=torch.uint8)[:, None, None].expand(40, 3, 4, 4)
    (changed,) = Augmentation((4, 4), flip=0, color=0.4)(orange, seeds=seeds(40))
    red, green, blue = changed[:, :, 0, 0].float().T
    hues, saturations = (green - blue) / (red - blue), 1 - blue / red
    assert hues.max() - hues.min() > 0.1 and saturations.max() - saturations.min() > 0.1
    image_u8, label_ids = a_batch()
    photos, labels = Augmentation(SIZE, flip=0, color=0.4)(image_u8, label_ids, seeds=seeds())
    assert torch.equal(labels, label_ids) and not torch.equal(photos, image_u8)


def test_another_size_comes_out():
    photos, labels = Augmentation((20, 10), scale=(0.5, 1.0))(*a_batch(), seeds=seeds())
    assert photos.shape == (6, 3, 10, 20) and labels.shape == (6, 10, 20)
    photos, labels = Augmentation((20, 10))(*a_batch(), seeds=seeds())
    assert photos.shape == (6, 3, 10, 20) and labels.shape == (6, 10, 20)
    assert set(labels.unique().tolist()) <= set(a_batch()[1].unique().tolist())
    image_u8, label_ids = a_batch()  # the whole batch at once is what each picture alone is
    for index, seed in enumerate(seeds()):
        one = slice(index, index + 1)
        alone = Augmentation((20, 10))(image_u8[one], label_ids[one], seeds=[seed])
        assert torch.equal(photos[one], alone[0]) and torch.equal(labels[one], alone[1])


def test_only_the_seeds_decide():
    augment = Augmentation(SIZE, scale=(0.3, 1.0), color=0.2)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = augment(*a_batch(), seeds=seeds(first=5))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    again = augment(*a_batch(), seeds=seeds(first=5))
    other = augment(*a_batch(), seeds=seeds(first=6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    # Whatever else is in the batch: that is what lets several processes share one.
    image_u8, label_ids = a_batch()
    alone = augment(image_u8[3:5], label_ids[3:5], seeds=seeds(first=5)[3:5])
    assert all(torch.equal(a, b[3:5]) for a, b in zip(alone, first, strict=True))


@pytest.mark.gpu
def test_it_works_where_the_batch_is():
    batch = [x.cuda() for x in a_batch()]
    augment = Augmentation(SIZE, scale=(0.5, 1.0))
    on_gpu = augment(*batch, seeds=seeds())
    on_cpu = augment(*a_batch(), seeds=seeds())
    assert all(x.is_cuda for x in on_gpu)
    assert torch.equal(on_gpu[1].cpu(), on_cpu[1])


@pytest.mark.parametrize(
    "wrong", [{"scale": (0, 1)}, {"scale": (0.9, 0.5)}, {"scale": (1, 2)}, {"flip": 2}]
)
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        Augmentation(SIZE, **wrong)
    with pytest.raises(ValueError, match="6 pictures and 5 seeds: expected as many"):
        Augmentation(SIZE)(*a_batch(), seeds=seeds(5))
