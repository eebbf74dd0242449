"""The label table agrees with cityscapesscripts, and wrong maps are named in words."""

import pytest
import torch
from cityscapesscripts.helpers.labels import labels as official

from utils import labels
from utils.labels import (
    camvid_ids_to_label_ids,
    check_id_values,
    check_instance_ids,
    check_label_ids,
    colors_contradict_ids,
    colors_to_label_ids,
    label_ids_to_train_ids,
    train_ids_to_label_ids,
)
from utils.labels import label_ids_to_colors as colors
from utils.toy.streets import draw_street

ALL_IDS = torch.arange(34, dtype=torch.uint8).reshape(2, 17)


def a_street(index: int = 0) -> torch.Tensor:
    return draw_street(9, index, size=(65, 33)).label_ids


def test_the_table_is_that_of_cityscapesscripts():
    known = [label for label in official if label.id >= 0]
    assert [label.id for label in labels.LABELS] == list(range(34)) == sorted(x.id for x in known)
    for label in known:
        assert labels.NAMES[label.id] == label.name and labels.ID[label.name] == label.id
        assert tuple(labels.COLORS[label.id].tolist()) == label.color
        assert labels.TRAIN_ID_OF_LABEL[label.id] == label.trainId


def test_train_ids_by_hand_and_both_ways():
    label_ids = torch.tensor([[7, 8, 0], [26, 33, 10]], dtype=torch.uint8)
    train_ids = label_ids_to_train_ids(label_ids)
    assert train_ids.tolist() == [[0, 1, 255], [13, 18, 255]] and train_ids.dtype == torch.uint8
    back = train_ids_to_label_ids(train_ids)
    assert back.tolist() == [[7, 8, 0], [26, 33, 0]] and back.dtype == torch.uint8
    train_ids = torch.tensor([*range(19), 255], dtype=torch.uint8)
    assert torch.equal(label_ids_to_train_ids(train_ids_to_label_ids(train_ids)), train_ids)
    back = train_ids_to_label_ids(label_ids_to_train_ids(ALL_IDS)).flatten().tolist()
    assert back == [i if i in labels.BENCHMARK_IDS else 0 for i in range(34)]


@pytest.mark.parametrize(
    ("value", "dtype"), [(19, torch.uint8), (254, torch.int64), (-1, torch.int32)]
)
def test_no_train_ids(value, dtype):
    with pytest.raises(ValueError, match=rf"^{value} is no train id: expected 0\.\.18, or 255"):
        train_ids_to_label_ids(torch.tensor([[3, value]], dtype=dtype))


@pytest.mark.parametrize("convert", [label_ids_to_train_ids, colors])
def test_no_label_ids(convert):
    with pytest.raises(ValueError, match=r"holds values 0\.\.255, expected 0\.\.33: .*check_label"):
        convert(torch.tensor([[0, 255]], dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"holds values 34\.\.34, expected 0\.\.33"):
        convert(torch.tensor([[34]]))
    with pytest.raises(ValueError, match=r"holds values -1\.\.7, expected 0\.\.33"):
        convert(torch.tensor([[7, -1]]))
    assert convert(torch.zeros(0, 5, dtype=torch.uint8)).numel() == 0


def test_camvid_ids():
    label_ids = camvid_ids_to_label_ids(torch.arange(12, dtype=torch.uint8).reshape(3, 4))
    assert label_ids.flatten().tolist() == [23, 11, 17, 7, 8, 21, 20, 13, 26, 24, 25, 0]
    assert label_ids.dtype == torch.uint8 and label_ids.shape == (3, 4)
    assert len(labels.CAMVID_NAMES) == 12 and labels.CAMVID_NAMES[3] == "road"
    with pytest.raises(ValueError, match=r"a\.png has shape \(3, 5\) and values up to 12, .*11"):
        camvid_ids_to_label_ids(torch.full((3, 5), 12), "a.png")
    with pytest.raises(ValueError, match=r"^the map has shape \(3, 5, 5\) .*expected CamVid ids"):
        camvid_ids_to_label_ids(torch.zeros(3, 5, 5, dtype=torch.uint8))


def test_colors_by_hand():
    image_u8 = colors(torch.tensor([[7, 26, 0]], dtype=torch.uint8))
    assert image_u8.shape == (3, 1, 3) and image_u8.dtype == torch.uint8
    assert image_u8[:, 0].T.tolist() == [[128, 64, 128], [0, 0, 142], [0, 0, 0]]


def test_colors_there_and_back():
    # The void classes share black, poles and groups of poles a grey: the first comes back.
    first = [0] * 5 + list(range(5, 18)) + [17] + list(range(19, 34))
    back = colors_to_label_ids(colors(ALL_IDS))
    assert back.flatten().tolist() == first
    assert back.dtype == torch.uint8
    street = a_street(1)
    batch = colors(torch.stack([street, street]))
    assert batch.shape == (2, 3, 33, 65)
    assert torch.equal(batch[1], colors(street))


def test_no_colors():
    image_u8 = colors(ALL_IDS)
    image_u8[:, 1, 2] = image_u8[:, 0, 9] = torch.tensor([1, 2, 3])
    message = r"a\.png holds the colour \(1, 2, 3\), which no .* class has; 2 of 34"
    with pytest.raises(ValueError, match=rf"{message} .*PNG, not .* JPEG.*nearest.*soft edges"):
        colors_to_label_ids(image_u8, "a.png")
    for wrong in (image_u8.permute(1, 2, 0), image_u8[0], image_u8.float(), image_u8[None]):
        with pytest.raises(ValueError, match=r"the picture is torch.* expected .*\(3, H, W\)"):
            colors_to_label_ids(wrong)


def test_a_few_blended_colours_become_void():
    ids = torch.full((40, 60), labels.ID["road"], dtype=torch.uint8)
    ids[:20] = labels.ID["sky"]
    image_u8 = colors(ids)
    image_u8[:, 20] = (image_u8[:, 19].float() * 0.3 + image_u8[:, 21] * 0.7).byte()
    with pytest.warns(UserWarning, match=r"^a\.png holds .* 60 of 2400 pixels .*become 0 \(unlab"):
        found = colors_to_label_ids(image_u8, "a.png")
    ids[20] = 0
    assert torch.equal(found, ids)


def test_the_colours_of_camvid():
    """Of its 32 classes, and SegNet's own for pavement: the same classes as SegNet's ids."""
    image_u8 = torch.tensor(
        [(128, 128, 128), (64, 192, 0), (0, 0, 64), (128, 64, 128), (0, 0, 192), (60, 40, 222),
         (192, 192, 0), (0, 64, 64), (64, 64, 128), (64, 128, 192), (192, 128, 64), (192, 0, 192),
         (0, 0, 0)], dtype=torch.uint8
    ).T[:, None]  # fmt: skip
    camvid_ids = torch.tensor([[0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10, 11]])
    assert torch.equal(colors_to_label_ids(image_u8), camvid_ids_to_label_ids(camvid_ids))
    colors = [color for group in labels.CAMVID_COLORS for color in group.split()]
    assert len(labels.CAMVID_COLORS) == 12 and len(colors) == len(set(colors)) == 34


def test_colours_that_contradict_their_places_in_a_palette():
    ids = torch.tensor([0, 7, 11, 23])
    colors = labels.COLORS[ids]
    assert not colors_contradict_ids(colors, ids)
    assert colors_contradict_ids(colors, torch.arange(4))
    assert colors_contradict_ids(colors[1:3], torch.tensor([2, 1]))
    blended = torch.cat([colors, (colors[1:] + colors[:-1]) // 2 + 1])
    assert colors_contradict_ids(blended, torch.arange(7))
    camvid = torch.tensor([(128, 128, 128), (128, 0, 0), (128, 64, 128), (0, 0, 192)]).byte()
    assert not colors_contradict_ids(camvid, torch.tensor([0, 1, 3, 4]))
    assert colors_contradict_ids(camvid, torch.arange(4))
    assert not colors_contradict_ids(camvid + 1, torch.arange(4))  # any other palette
    # Pascal VOC's palette, with which label maps are often saved: two of its colours are CamVid's.
    voc = torch.tensor([(128, 128, 128), (128, 64, 128)]).byte()
    assert not colors_contradict_ids(voc, torch.tensor([7, 21]))


def test_instance_ids_that_contradict_the_labels():
    label_ids = torch.tensor([[26, 26, 7, 0, 3, 33, 26]], dtype=torch.uint8)
    # A car, a group of cars, road, void with a class and an instance, a bicycle, a licence plate.
    instance_ids = torch.tensor([[26001, 26, 7, 24, 25003, 33999, 65535]])
    check_instance_ids(instance_ids, label_ids)
    check_instance_ids(label_ids.int(), label_ids)
    instance_ids[..., -1] = -1
    check_instance_ids(instance_ids, label_ids)
    message = r"^a\.png contradicts the label map in 3 of 7 pixels, for example 145 where .* is 26:"
    with pytest.raises(ValueError, match=message):
        check_instance_ids(instance_ids.clamp(min=0) % 256, label_ids, "a.png")
    for wrong in (24001, 25, 0):
        instance_ids[0, 0] = wrong
        with pytest.raises(ValueError, match="the instance map contradicts .*in 1 of 7 pixels"):
            check_instance_ids(instance_ids, label_ids)


def test_good_maps_pass():
    check_label_ids(ALL_IDS)
    check_label_ids(torch.zeros(5, 7, dtype=torch.uint8))
    for label in range(34):
        check_label_ids(torch.full((5, 7), label, dtype=torch.int32))
    for pair in ([7, 23], [0, 7], [7, 11], [0, 1], [2, 10], [0, 18]):
        check_label_ids(torch.tensor(pair).repeat(3, 4))
    check_label_ids(a_street().long())
    check_label_ids(torch.stack([a_street(i) for i in range(3)]))  # B = 3 is no colour map


def test_real_streets_pass_and_their_train_ids_do_not():
    for index in range(10):
        label_ids = a_street(index)
        check_label_ids(label_ids)
        with pytest.raises(ValueError, match="looks like train ids"):
            check_label_ids(label_ids_to_train_ids(label_ids))


def test_predictions_are_not_suspected_of_being_train_ids():
    train_ids = label_ids_to_train_ids(a_street()).clamp(max=18)
    with pytest.raises(ValueError, match="looks like train ids"):
        check_label_ids(train_ids)
    check_id_values(train_ids)
    with pytest.raises(ValueError, match="^a map holds the value 255"):
        check_id_values(label_ids_to_train_ids(torch.zeros(2, 2)), "a map")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (label_ids_to_train_ids, r"looks like train ids .*train_ids_to_label_ids\(\)"),
        (lambda s: label_ids_to_train_ids(torch.stack([s] * 3)), "looks like train ids"),
        (colors, r"looks like a colour map \(shape \(3, 33, 65\), .*colors_to_label_ids\(\)"),
        (lambda s: colors(s).permute(1, 2, 0), r"looks like a colour map \(shape \(33, 65, 3\)"),
        (lambda s: colors(s)[None], r"looks like a colour map \(shape \(1, 3, 33, 65\)"),
        (lambda s: s.masked_fill(s == 7, 255), "holds the value 255.*licence plate.*to 0"),
        (lambda s: torch.stack([s.masked_fill(s == 7, 255)] * 3), "holds the value 255"),
        (lambda s: s.float(), "has dtype torch.float32.*nearest-neighbour"),
        (lambda s: s == 7, "has dtype torch.bool, expected Cityscapes label ids"),
        (lambda s: s.int() - 12, r"holds values -\d+\.\.\d+, expected .* interpolation"),
        (lambda s: s.int() * 1000, r"holds values \d+\.\.\d+000, .*instance map"),
        (lambda s: torch.full_like(s, 34), r"holds values 34\.\.34"),
        (lambda s: s.flatten(), r"has shape \(2145,\), .*\(H, W\) or \(B, H, W\)"),
        (lambda s: s[None, None], r"has shape \(1, 1, 33, 65\)"),
        (lambda s: s[:0], r"is empty \(shape \(0, 65\)\)"),
    ],
)
def test_wrong_maps_are_named(change, message):
    with pytest.raises(ValueError, match=rf"^street\.png {message}"):
        check_label_ids(change(a_street()), "street.png")
    with pytest.raises(ValueError, match="^the label map"):
        check_label_ids(change(a_street()))
