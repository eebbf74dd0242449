"""Painting without a browser: strokes, filling, undo, classes, the picture and its files."""

import pytest
import torch
from networks import a_generator

from spade import SpadeGenerator
from utils.images import read_image, read_map
from utils.labels import ID, label_ids_to_colors
from utils.painter.painting import (
    Painting,
    class_id,
    class_names,
    daylight,
    draw_street,
    empty_street,
    fill_mask,
    remove_class,
    save_street,
    stroke_mask,
    swap_class,
)

ROAD, SKY, CAR, BUILDING = (ID[name] for name in ("road", "sky", "car", "building"))


def a_map(*rows):
    """A map written as words: s sky, r road, c car, b building."""
    ids = {"s": SKY, "r": ROAD, "c": CAR, "b": BUILDING}
    return torch.tensor([[ids[letter] for letter in row] for row in rows], dtype=torch.uint8)


def a_mask(*rows):
    return torch.tensor([[letter == "x" for letter in row] for row in rows])


@pytest.fixture(scope="module")
def generator():
    return a_generator()


# ------------------------------------------------------------------------------ classes


def test_a_wrong_class_name_is_answered_with_the_right_one():
    assert class_id("car") == 26
    for wrong, right in (("sidewlk", "sidewalk"), ("Car", "car"), ("zzz", "unlabeled, .*bicycle")):
        with pytest.raises(ValueError, match=f"no class '{wrong}': did you mean {right}"):
            class_id(wrong)


def test_class_names_come_largest_first():
    assert class_names(a_map("sss", "rrc", "rrr")) == ["road", "sky", "car"]


def test_swap_by_hand():
    label_ids = a_map("ssb", "rcc")
    swapped = swap_class(label_ids, "car", "bus")
    assert swapped.tolist() == [[SKY, SKY, BUILDING], [ROAD, ID["bus"], ID["bus"]]]
    assert swapped.dtype == torch.uint8 and torch.equal(label_ids, a_map("ssb", "rcc"))


def test_remove_fills_with_the_nearest_by_hand():
    label_ids = a_map("bbbbb", "bcccb", "rcccr", "rrrrr")
    assert torch.equal(remove_class(label_ids, "car"), a_map("bbbbb", "bbbbb", "rrrrr", "rrrrr"))
    assert torch.equal(label_ids, a_map("bbbbb", "bcccb", "rcccr", "rrrrr")), "left as it was"


def test_remove_reaches_into_a_gap_of_any_size():
    label_ids = torch.full((64, 128), CAR, dtype=torch.uint8)
    label_ids[0], label_ids[-1] = SKY, ROAD
    filled = remove_class(label_ids, "car")
    assert (filled[:32] == SKY).all() and (filled[32:] == ROAD).all()


@pytest.mark.parametrize("change", [remove_class, lambda ids, name: swap_class(ids, name, "bus")])
def test_a_class_that_is_not_there(change):
    with pytest.raises(ValueError, match="no train in this map: it holds road, sky"):
        change(a_map("ss", "rr", "rr"), "train")
    with pytest.raises(ValueError, match="no class 'cra': did you mean car"):
        change(a_map("ss", "rr"), "cra")


def test_removing_all_there_is():
    with pytest.raises(ValueError, match="road and nothing else"):
        remove_class(a_map("rr", "rr"), "road")


# ------------------------------------------------------------------------------ marks


@pytest.mark.parametrize("size", [(128, 64), (256, 128), (50, 33)])
def test_the_empty_street_has_sky_above_road(size):
    label_ids = empty_street(size)
    assert label_ids.shape == (size[1], size[0]) and label_ids.dtype == torch.uint8
    assert (label_ids[0] == SKY).all() and label_ids[-1, size[0] // 2] == ROAD
    assert set(class_names(label_ids)) == {"sky", "road", "sidewalk"}
    assert torch.equal(label_ids, label_ids.flip(1))


def test_a_dab_and_a_line_by_hand():
    dab = a_mask(".....", "..x..", ".xxx.", "..x..", ".....")
    assert torch.equal(stroke_mask([(2.5, 2.5)], 2, (5, 5)), dab)
    line = a_mask("......", ".xxxx.", ".xxxx.", "......")
    assert torch.equal(stroke_mask([(1.5, 2), (4.5, 2)], 1.5, (4, 6)), line)
    assert torch.equal(stroke_mask([(4.5, 2), (1.5, 2)], 1.5, (4, 6)), line)


def test_the_line_between_two_points_has_no_gaps():
    # the mouse reports a fast stroke as a few points that are far apart
    fast = stroke_mask([(3, 5), (120, 60)], 3, (64, 128))
    assert fast.any(dim=0)[3:120].all()
    points = [(3 + 117 * i / 50, 5 + 55 * i / 50) for i in range(51)]
    assert torch.equal(stroke_mask(points, 3, (64, 128)), fast)


def test_a_stroke_is_the_union_of_its_pieces():
    points = [(41 * i % 128, 7 * i % 64) for i in range(20)]
    pieces = [stroke_mask(pair, 2, (64, 128)) for pair in zip(points, points[1:])]
    assert torch.equal(stroke_mask(points, 2, (64, 128)), torch.stack(pieces).any(0))


def test_the_smallest_brush_always_marks_something():
    for x in (2, 2.25, 2.5, 2.99):
        for y in (2, 2.25, 2.5, 2.99):
            assert stroke_mask([(x, y)], 1, (5, 5))[2, 2]


def test_strokes_may_leave_the_map():
    mask = stroke_mask([(-10, 2.5), (20, 2.5)], 1, (5, 5))
    assert torch.equal(mask, a_mask(".....", ".....", "xxxxx", ".....", "....."))
    assert not stroke_mask([(-10, -10)], 4, (5, 5)).any()


@pytest.mark.parametrize("size", [0, -3, 257, float("nan")])
def test_a_bad_brush_size(size):
    with pytest.raises(ValueError, match=f"brush has size {size}: expected 1 to 256"):
        stroke_mask([(1, 1)], size, (5, 5))


@pytest.mark.parametrize("points", [[], [1, 2], [(1, 2, 3)], [(1, float("nan"))]])
def test_what_are_no_points(points):
    with pytest.raises(ValueError, match="are no points: expected"):
        stroke_mask(points, 3, (5, 5))


def test_fill_stops_at_corners_and_other_classes():
    label_ids = a_map("rrsr", "sssr", "rsrr")
    assert torch.equal(fill_mask(label_ids, (0.5, 0.5)), a_mask("xx..", "....", "...."))
    assert torch.equal(fill_mask(label_ids, (3.9, 0)), a_mask("...x", "...x", "..xx"))
    assert torch.equal(label_ids, a_map("rrsr", "sssr", "rsrr")), "left as it was"


@pytest.mark.parametrize("point", [(-0.1, 0), (4, 0), (0, 3)])
def test_filling_outside_of_the_map(point):
    with pytest.raises(ValueError, match="not in the map of 4x3 pixels"):
        fill_mask(a_map("rrsr", "sssr", "rsrr"), point)


# ------------------------------------------------------------------------------ a painting


@pytest.fixture
def painting():
    return Painting(a_map("ssss", "ssss", "rrrr", "rrrr"))


def test_paint_erase_fill_by_hand(painting):
    painting.paint([(0.5, 0.5), (3.5, 0.5)], "building", size=1)
    assert torch.equal(painting.label_ids, a_map("bbbb", "ssss", "rrrr", "rrrr"))
    painting.erase([(0.5, 0.5), (1.5, 0.5)], size=1)
    assert torch.equal(painting.label_ids, a_map("ssbb", "ssss", "rrrr", "rrrr"))
    painting.fill((0, 3), "car")
    assert torch.equal(painting.label_ids, a_map("ssbb", "ssss", "cccc", "cccc"))
    assert painting.label_ids.dtype == torch.uint8 and painting.size == (4, 4)
    painting.start_over()
    assert torch.equal(painting.label_ids, painting.start_ids)


def test_undo_goes_back_step_by_step_to_the_start(painting):
    maps = [painting.label_ids]
    for act in (
        lambda: painting.paint([(0, 0)], "car", 2),
        lambda: painting.fill((3, 3), "terrain"),
        lambda: painting.erase([(0, 0)], 2),
        lambda: painting.start_over(a_map("bbbb", "bbbb", "bbbb", "bbbb")),
        lambda: painting.paint([(0, 0)], "car", 2),
    ):
        act()
        maps.append(painting.label_ids)
    while len(maps) > 1:
        assert torch.equal(painting.label_ids, maps.pop())
        painting.undo()
    assert torch.equal(painting.label_ids, maps[0])
    assert torch.equal(painting.start_ids, maps[0]), "undo brings the former start map back, too"
    with pytest.raises(ValueError, match="nothing left to undo"):
        painting.undo()


def test_the_pieces_of_a_stroke_are_undone_together(painting):
    painting.paint([(0, 0)], "car", 1)
    before = painting.label_ids
    painting.paint([(1, 1)], "bus", 1)
    painting.paint([(1, 1), (3, 1)], "bus", 1, continues=True)
    painting.paint([(3, 1), (3, 3)], "bus", 1, continues=True)
    painting.undo()
    assert torch.equal(painting.label_ids, before)


def test_a_map_that_was_handed_out_does_not_change(painting):
    given = a_map("ssss", "ssss", "rrrr", "rrrr")
    painting.start_over(given)
    handed_out = painting.label_ids
    kept = handed_out.clone()
    painting.paint([(0, 0), (3, 3)], "car", 2)
    painting.fill((0, 3), "terrain")
    assert torch.equal(handed_out, kept)
    given[:] = CAR  # and what the caller does to its own map changes nothing here
    assert torch.equal(painting.start_ids, kept)


def test_an_error_leaves_map_and_history_alone(painting):
    before = painting.label_ids
    for act in (
        lambda: painting.paint([(0, 0)], "auto", 3),
        lambda: painting.paint([(0, 0)], "car", 0),
        lambda: painting.fill((9, 9), "car"),
        lambda: painting.start_over(empty_street((8, 4))),
    ):
        with pytest.raises(ValueError):
            act()
    assert torch.equal(painting.label_ids, before)
    with pytest.raises(ValueError, match="nothing left to undo"):
        painting.undo()


def test_what_is_no_start_map(painting):
    with pytest.raises(ValueError, match=r"shape \(4, 8\), the painting \(4, 4\): resize"):
        painting.start_over(empty_street((8, 4)))
    with pytest.raises(ValueError, match="take one map of the batch"):
        Painting(empty_street((8, 4))[None])
    with pytest.raises(ValueError, match="the start map holds the value 255"):
        Painting(torch.full((4, 8), 255))


# ------------------------------------------------------------------------------ the picture


def test_draw_street_is_synthesize_in_a_style(generator):
    label_ids = empty_street((128, 64))
    plain = draw_street(generator, label_ids)
    assert plain.shape == (3, 64, 128) and plain.dtype == torch.uint8
    assert torch.equal(plain, generator.synthesize(label_ids))
    night = draw_street(generator, label_ids, "night")
    assert torch.equal(night, generator.synthesize(label_ids, z=generator.styles["night"][None]))
    assert not torch.equal(night, plain)
    both = draw_street(generator, torch.stack([label_ids, label_ids.flip(0)]), "night")
    assert both.shape == (2, 3, 64, 128) and (both[0].int() - night.int()).abs().max() <= 1


def test_draw_street_brings_a_map_to_the_generators_size(generator):
    small = draw_street(generator, empty_street((64, 32)))
    assert small.shape == (3, 64, 128)
    with pytest.raises(ValueError, match="the map is 96x64 .* makes 128x64: cut"):
        draw_street(generator, empty_street((96, 64)))


def test_daylight_is_the_style_of_a_bright_day_if_there_is_one():
    known = SpadeGenerator(ngf=1, hidden=1, size=(64, 64), z_dim=1)
    cases = {"Aha|dusk|day": "day", "night|noon|day": "noon", "night": "mean"}
    cases |= {"Aha, day|noon": "noon", "Oho|Aha, dusk|Aha, day": "Aha, day"}
    for names, expected in cases.items():
        known.styles = {name: torch.zeros(1) for name in names.split("|")}
        assert daylight(known) == expected


def test_saved_and_read_back(tmp_path):
    label_ids = empty_street((128, 64))
    image_u8 = torch.arange(3 * 64 * 128).reshape(3, 64, 128).to(torch.uint8)
    files = save_street(label_ids, image_u8, "my street", tmp_path / "new")
    assert [f.stem for f in files] == ["my street_labelIds", "my street_color", "my street"]
    assert torch.equal(read_map(files[0]), label_ids)
    assert torch.equal(read_image(files[1]), label_ids_to_colors(label_ids))
    assert torch.equal(read_image(files[2]), image_u8)


@pytest.mark.parametrize("name", ["", "  ", "../up", "a/b", "a\\b", "what?"])
def test_a_name_that_is_no_file_name(name, tmp_path):
    with pytest.raises(ValueError, match="can't name a file"):
        save_street(empty_street((8, 4)), torch.zeros(3, 4, 8, dtype=torch.uint8), name, tmp_path)
    assert not list(tmp_path.iterdir())
