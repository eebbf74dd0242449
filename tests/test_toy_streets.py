"""Toy streets: pure, in the Cityscapes label space, and as varied as they claim to be."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from examples import equal

from utils.labels import ID, LABELS, NUM_LABELS, check_label_ids
from utils.toy.streets import CITIES, TIMES_OF_DAY, WEATHERS, Street, draw_street

PROJECT = Path(__file__).parent.parent

# Shares of the labelled pixels in Cityscapes' fine annotations.
CITYSCAPES_SHARES = {
    "road": 0.37, "building": 0.23, "vegetation": 0.16, "car": 0.07, "sidewalk": 0.06,
    "sky": 0.04, "fence": 0.009, "wall": 0.0066, "pole": 0.012, "traffic light": 0.002,
    "traffic sign": 0.0055, "terrain": 0.012, "person": 0.012, "rider": 0.0014, "truck": 0.0027,
    "bus": 0.0024, "train": 0.0023, "motorcycle": 0.001, "bicycle": 0.004,
}  # fmt: skip


@pytest.fixture(scope="module")
def streets() -> list[Street]:
    """Small ones, for what is counted over many."""
    return [draw_street(0, index, size=(128, 64)) for index in range(48)]


def test_the_same_arguments_draw_the_same_street() -> None:
    first = draw_street(3, 5, size=(64, 32))
    draw_street(3, 6, size=(64, 32))
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 the global state is the point
    assert equal(first, draw_street(3, 5, size=(64, 32)))
    for seed, index in ((3, 6), (4, 5), (5, 3)):
        other = draw_street(seed, index, size=(64, 32))
        assert not torch.equal(first.image_u8, other.image_u8)
        assert not torch.equal(first.label_ids, other.label_ids)


@pytest.mark.parametrize("size", [(256, 128), (32, 16), (33, 17), (100, 100), (40, 90)])
def test_shapes_dtypes_and_ranges(size: tuple[int, int]) -> None:
    street = draw_street(0, 1, size=size)
    width, height = size
    assert street.image_u8.shape == (3, height, width) and street.image_u8.dtype == torch.uint8
    assert street.label_ids.shape == (height, width) and street.label_ids.dtype == torch.uint8
    assert street.instance_ids.shape == (height, width)
    assert street.instance_ids.dtype == torch.int32
    assert int(street.label_ids.max()) < NUM_LABELS
    check_label_ids(street.label_ids)
    assert street.city in CITIES and street.time_of_day in TIMES_OF_DAY
    assert street.weather in WEATHERS
    for tensor in street[:3]:
        assert tensor.is_contiguous()


def test_a_smaller_picture_shows_the_same_street() -> None:
    large, small = draw_street(0, 2, size=(256, 128)), draw_street(0, 2, size=(128, 64))
    agreement = (large.label_ids[::2, ::2] == small.label_ids).float().mean()
    assert agreement > 0.93  # outlines fall on other pixels
    difference = large.image_u8.float().mean((1, 2)) - small.image_u8.float().mean((1, 2))
    assert difference.abs().max() < 3


@pytest.mark.parametrize("fact, names", [("time_of_day", TIMES_OF_DAY), ("weather", WEATHERS)])
def test_hour_and_weather_change_the_photo_only(fact: str, names: tuple[str, ...]) -> None:
    streets = [draw_street(0, 7, size=(128, 64), **{fact: name}) for name in names]
    assert [getattr(street, fact) for street in streets] == list(names)
    for field in set(Street._fields) - {"image_u8", fact}:
        assert all(equal(getattr(x, field), getattr(streets[0], field)) for x in streets)
    assert len({street.image_u8.numpy().tobytes() for street in streets}) == len(names)
    if fact == "time_of_day":
        light = dict(zip(names, [street.image_u8.float().mean().item() for street in streets]))
        assert max(light, key=light.get) == "noon" and light["night"] < 0.6 * light["noon"]


def test_another_city_keeps_the_road() -> None:
    cities = [draw_street(0, 7, size=(128, 64), city=name) for name in CITIES]
    roads = torch.stack([street.label_ids == ID["road"] for street in cities])
    assert (roads.all(0).sum() / roads.any(0).sum()) > 0.85
    assert len({street.image_u8.numpy().tobytes() for street in cities}) == len(CITIES)
    assert [street.city for street in cities] == list(CITIES)


def test_naming_what_the_seed_chose_changes_nothing() -> None:
    free = draw_street(1, 4, size=(64, 32))
    assert equal(free, draw_street(1, 4, (64, 32), free.city, free.time_of_day, free.weather))


def test_instances_are_things_and_agree_with_the_labels(streets: list[Street]) -> None:
    for street in streets:
        label_ids, instance_ids = street.label_ids.int(), street.instance_ids
        things = torch.tensor([label.hasInstances for label in LABELS])[label_ids]
        assert torch.equal(things, instance_ids >= 1000)
        assert torch.equal(instance_ids[things] // 1000, label_ids[things])
        assert torch.equal(instance_ids[~things], label_ids[~things])
    cars = [x for x in streets[2].instance_ids.unique().tolist() if x // 1000 == ID["car"]]
    assert len(cars) > 1


def test_all_classes_where_they_belong(streets: list[Street]) -> None:
    for street in streets:
        assert not (street.label_ids[:28] == ID["road"]).any()
        assert not (street.label_ids[36:] == ID["sky"]).any()
    seen = torch.stack([street.label_ids for street in streets]).unique().numel()
    assert seen >= 30, "nearly every class occurs"


def test_shares_are_those_of_cityscapes_within_a_factor_of_three(streets: list[Street]) -> None:
    pixels = torch.stack([street.label_ids for street in streets]).flatten().long()
    counts = torch.bincount(pixels, minlength=NUM_LABELS).double()
    total = sum(counts[ID[name]] for name in CITYSCAPES_SHARES)
    for name, expected in CITYSCAPES_SHARES.items():
        share = float(counts[ID[name]] / total)
        assert expected / 3 < share < expected * 3, f"{name}: {share:.4f}, expected {expected}"


def test_every_city_hour_and_weather(streets: list[Street]) -> None:
    assert {street.city for street in streets} == set(CITIES)
    assert {street.time_of_day for street in streets} == set(TIMES_OF_DAY)
    assert len({(street.city, street.time_of_day) for street in streets}) >= 20
    counts = {name: sum(street.weather == name for street in streets) for name in WEATHERS}
    for name, share in zip(WEATHERS, (0.5, 0.25, 0.15, 0.1), strict=True):
        assert abs(counts[name] / len(streets) - share) < 0.11, counts


def test_unknown_names_and_small_sizes_are_told() -> None:
    with pytest.raises(ValueError, match="'Atlantis' is no city.*" + ", ".join(CITIES)):
        draw_street(0, 0, city="Atlantis")
    with pytest.raises(ValueError, match="'tea' is no time of day.*" + ", ".join(TIMES_OF_DAY)):
        draw_street(0, 0, time_of_day="tea")
    with pytest.raises(ValueError, match="'hail' is no weather.*" + ", ".join(WEATHERS)):
        draw_street(0, 0, weather="hail")
    with pytest.raises(ValueError, match="size is 31x16: expected 32x16 or more"):
        draw_street(0, 0, size=(31, 16))


# --- equal on every machine -----------------------------------------------------------------------

# Of images, label maps and instance maps.  They are the same with numpy 1.26 and 2.4, with Pillow
# 10.1 to 13.0 (except 11.1), with and without AVX.  After a deliberate change of the renderer, look
# at new pictures and replace these by what digests() returns.
GOLDEN_DIGESTS = (
    "d4a567bc4966ba856156e81b900aba5f2424739d65693566f57485053c226484",
    "ab6e70b172f09a8369e5ad0a228e5f21f88c282dae2bc179d9aad2cb069d0945",
    "178a6b2630962a5b75a0f54681025986868694339ae49ae2c8e9065ecbc52296",
)


def digests() -> tuple[str, ...]:
    """sha256 over the photos, the label maps and the instance maps of one street per weather and
    hour, at sizes that are rescaled in different ways.
    """
    sums = [hashlib.sha256() for _ in range(3)]
    for i, weather in enumerate(WEATHERS):
        for k, time_of_day in enumerate(TIMES_OF_DAY):
            size = (96, 48) if k % 2 else (64, 33)
            street = draw_street(7, 4 * i + k, size, None, time_of_day, weather)
            for sum_, tensor in zip(sums, street[:3], strict=True):
                sum_.update(tensor.numpy().tobytes())
    return tuple(sum_.hexdigest() for sum_ in sums)


def test_streets_are_those_that_other_machines_draw() -> None:
    assert digests() == GOLDEN_DIGESTS


def test_streets_do_not_depend_on_the_processor() -> None:
    """numpy takes other code paths where wide vector instructions are missing."""
    used = np.show_config("dicts")["SIMD Extensions"].get("found", [])
    if not used:
        pytest.skip("this processor has nothing that numpy could do without")
    script = "from test_toy_streets import digests; print(*digests())"
    environment = {"NPY_DISABLE_CPU_FEATURES": " ".join(used), "PYTHONPATH": str(PROJECT)}
    printed = subprocess.check_output(
        [sys.executable, "-c", script], cwd=PROJECT / "tests", env=os.environ | environment
    )
    assert tuple(printed.decode().split()) == GOLDEN_DIGESTS
