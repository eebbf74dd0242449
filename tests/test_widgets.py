"""The painter and the explorers, without a browser: what it would send is sent by hand."""

import base64
import subprocess
import sys

import anywidget
import ipywidgets
import pytest
import torch
from networks import a_generator

from utils.images import read_image, read_map
from utils.labels import ID, label_ids_to_colors
from utils.painter.painting import (
    Painting,
    draw_street,
    empty_street,
    remove_class,
    styles_by_city,
    swap_class,
)
from utils.painter.widgets import (
    REMOVED,
    TRUE_MAP,
    Explorer,
    PaintCanvas,
    StreetPainter,
    explore_classes,
    explore_feedback,
    paint_events,
    png,
)
from utils.pipeline import Pipeline
from utils.scenes import open_scenes

SIZE = (128, 64)
EMPTY = empty_street(SIZE)
STROKE = {"do": "paint", "name": "car", "size": 9, "points": [[20, 40], [50, 40]]}


@pytest.fixture(scope="module")
def generator():
    return a_generator(styles=("noon", "night"))


@pytest.fixture
def painter(generator, tmp_path):
    other = a_generator(1, (256, 128), styles=())
    starts = {"empty": EMPTY, "upside down": EMPTY.flip(0)}
    return StreetPainter({"first": generator, "large": other}, starts, folder=tmp_path / "saved")


def ask(painter, *events):
    """What the browser does: a request, and the answer to it -> the message shown."""
    number = painter.canvas.answered + 1
    painter.canvas.request = {"number": number, "events": list(events)}
    assert painter.canvas.answered == number, "a browser without an answer waits for ever"
    return painter.canvas.message


def shown(url, path):
    """The picture in a data: address, read as any browser would."""
    head, data = url.split(",")
    assert head == "data:image/png;base64"
    path.write_bytes(base64.b64decode(data))
    return read_image(path)


# ------------------------------------------------------------------------------ the painter


def test_events_do_what_the_methods_do():
    by_events, by_hand = Painting(EMPTY), Painting(EMPTY)
    rest = STROKE | {"points": [[50, 40], [50, 60]], "continues": True}
    erase = {"do": "erase", "size": 5, "points": [[30, 40]]}
    fill = {"do": "fill", "name": "wall", "point": [1, 1]}
    paint_events(by_events, [STROKE, rest, erase, fill])
    by_hand.paint([(20, 40), (50, 40)], "car", 9)
    by_hand.paint([(50, 40), (50, 60)], "car", 9, continues=True)
    by_hand.erase([(30, 40)], 5)
    by_hand.fill((1, 1), "wall")
    assert torch.equal(by_events.label_ids, by_hand.label_ids)
    paint_events(by_events, [{"do": "undo"}] * 3)
    assert torch.equal(by_events.label_ids, EMPTY), "two pieces of one stroke are one step"
    paint_events(by_events, [STROKE, {"do": "start over"}])
    assert torch.equal(by_events.label_ids, EMPTY)
    with pytest.raises(ValueError, match="no 'smudge': expected paint"):
        paint_events(by_events, [{"do": "smudge"}])


def test_the_painter_shows_what_it_holds(painter, generator, tmp_path):
    def check():
        ids, street = painter.label_ids, painter.image_u8
        assert torch.equal(shown(painter.canvas.map_url, tmp_path / "a"), label_ids_to_colors(ids))
        assert torch.equal(shown(painter.canvas.picture_url, tmp_path / "b"), street)
        assert torch.equal(street, draw_street(generator, ids, "noon"))

    check()
    before = painter.image_u8
    assert ask(painter, STROKE) == ""
    assert painter.label_ids[40, 35] == ID["car"] and painter.label_ids[40, 80] == EMPTY[40, 80]
    assert not torch.equal(painter.image_u8, before)
    check()
    painter.painting.fill((1, 1), "wall")  # in a cell, not with the mouse
    painter.refresh()
    check()


def test_brushes_have_the_official_colours(painter):
    brushes = dict(painter.canvas.brushes)
    assert len(brushes) == 19 and brushes["road"] == "#804080" and brushes["car"] == "#00008e"


def test_errors_are_shown_and_answered(painter):
    before = painter.label_ids
    assert ask(painter, {"do": "undo"}) == "There is nothing left to undo."
    assert "no class 'cra'" in ask(painter, STROKE | {"name": "cra"})
    assert "brush has size 0" in ask(painter, STROKE | {"size": 0})
    assert torch.equal(painter.label_ids, before)
    assert ask(painter, STROKE) == "", "a message goes when the next thing works"


def test_what_cannot_be_done_takes_nothing_else_with_it(painter):
    message = ask(painter, {"do": "undo"}, STROKE, {"do": "fill", "name": "wall", "point": [1, 1]})
    assert message == "There is nothing left to undo."
    assert painter.label_ids[40, 35] == ID["car"] and painter.label_ids[1, 1] == ID["wall"]


def test_a_generator_that_fails_is_told_and_the_next_picture_comes(painter, monkeypatch):
    def full(*arguments, **options):
        raise RuntimeError("CUDA out of memory")

    before = painter.canvas.picture_url
    with monkeypatch.context() as patch:
        patch.setattr("utils.painter.widgets.draw_street", full)
        assert ask(painter, STROKE) == "CUDA out of memory"
    assert painter.canvas.picture_url == before
    painter.controls["save"].click()  # what is saved belongs together
    assert painter.canvas.picture_url != before and "Saved in" in painter.canvas.message


def test_an_answer_goes_out_even_if_the_painter_is_broken(painter, monkeypatch):
    monkeypatch.setattr(painter, "refresh", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        painter.canvas.request = {"number": 7.0, "events": []}
    assert painter.canvas.answered == 7


def test_another_start_can_be_undone(painter):
    ask(painter, STROKE)
    painted = painter.label_ids
    painter.controls["start"].value = "upside down"
    assert torch.equal(painter.label_ids, EMPTY.flip(0))
    ask(painter, {"do": "undo"})
    assert torch.equal(painter.label_ids, painted), "a wrong click costs nobody their street"


def test_generator_and_style_are_chosen(painter, generator):
    noon = painter.image_u8
    painter.controls["hour"].value = "night"
    assert torch.equal(painter.image_u8, draw_street(generator, EMPTY, "night"))
    assert not torch.equal(painter.image_u8, noon)
    painter.controls["generator"].value = "large"  # twice the size, and no styles
    assert painter.image_u8.shape == (3, 128, 256)
    assert list(painter.controls["hour"].options) == ["any"]
    painter.controls["generator"].value = "first"  # what was chosen stays, where it can
    assert list(painter.controls["city"].options) == ["any"]
    assert list(painter.controls["hour"].options) == ["noon", "night", "any"]
    assert painter.controls["hour"].value == "any"
    assert torch.equal(painter.image_u8, draw_street(generator, EMPTY))


def test_a_city_offers_its_own_hours():
    names = ("noon", "Ulm", "Ulm, dusk", "Ulm, noon", "Bonn", "Cham, day", "Cham, dusk")
    cities = a_generator(2, styles=names)
    assert styles_by_city(cities) == {
        "Ulm": {"noon": "Ulm, noon", "dusk": "Ulm, dusk", "any": "Ulm"},
        "Bonn": {"any": "Bonn"},
        "Cham": {"day": "Cham, day", "dusk": "Cham, dusk"},
        "any": {"noon": "noon", "any": "mean"},
    }
    painter = StreetPainter({"cities": cities}, {"empty": EMPTY})
    city, hour = painter.controls["city"], painter.controls["hour"]
    assert (city.value, hour.value) == ("any", "noon")
    city.value = "Ulm"
    assert hour.value == "noon"
    assert torch.equal(painter.image_u8, draw_street(cities, EMPTY, "Ulm, noon"))
    hour.value = "dusk"
    city.value = "Cham"
    assert torch.equal(painter.image_u8, draw_street(cities, EMPTY, "Cham, dusk"))
    city.value = "Bonn"
    assert hour.options == ("any",)
    assert torch.equal(painter.image_u8, draw_street(cities, EMPTY, "Bonn"))


def test_the_button_saves_map_and_picture(painter, tmp_path):
    ask(painter, STROKE)
    painter.controls["name"].value = "corner"
    painter.controls["save"].click()
    assert "corner_labelIds.png" in painter.canvas.message
    assert torch.equal(read_map(tmp_path / "saved/corner_labelIds.png"), painter.label_ids)
    assert torch.equal(read_image(tmp_path / "saved/corner.png"), painter.image_u8)
    painter.controls["name"].value = "a/b"
    painter.controls["save"].click()
    assert "can't name a file" in painter.canvas.message


def test_what_the_painter_is_made_with(generator):
    painter = StreetPainter({"toy": generator}, {"large": empty_street((256, 128))})
    assert painter.label_ids.shape == (64, 128)
    with pytest.raises(ValueError, match="the start map 'square' is 64x64 .* makes 128x64"):
        StreetPainter({"toy": generator}, {"square": empty_street((64, 64))})
    with pytest.raises(ValueError, match="no generator: give"):
        StreetPainter({}, {"empty": EMPTY})
    with pytest.raises(ValueError, match="no start: give"):
        StreetPainter({"toy": generator}, {})
    with pytest.raises(ValueError, match="no class 'tree'"):
        StreetPainter({"toy": generator}, {"empty": EMPTY}, brushes=["tree"])


def test_in_colab_custom_widgets_are_turned_on():
    """Without this Colab shows an empty cell; anywidget promises to do it, once in a process."""
    program = """
import sys, types, anywidget
sys.modules["google.colab.output"] = output = types.ModuleType("google.colab.output")
output.enable_custom_widget_manager = lambda: print("turned on")
anywidget.AnyWidget()"""
    printed = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert printed == "turned on\n" and issubclass(PaintCanvas, anywidget.AnyWidget)


# ------------------------------------------------------------------------------ the explorers


@pytest.fixture(scope="module")
def scenes():
    return open_scenes("toy", "val", size=SIZE)[:3]


class Seeing(torch.nn.Module):
    """In place of a segmentation network: a function of the picture."""

    def __init__(self, predict):
        super().__init__()
        self.weight, self.predict = torch.nn.Parameter(torch.zeros(1)), predict


def brightness(image_u8):
    return (image_u8.float().mean(-3) / 8).to(torch.uint8)  # 0..31


def sky_above_road(image_u8):
    label_ids = torch.full_like(image_u8[..., 0, :, :], ID["road"])
    label_ids[..., : label_ids.shape[-2] // 2, :] = ID["sky"]
    return label_ids


def test_explore_classes_swaps_and_removes(scenes, generator):
    explorer = explore_classes(scenes, generator)
    label_ids, controls = scenes[0].label_ids, explorer.controls
    assert controls["name"].value in ("car", "road") and controls["becomes"].value == "bus"
    controls["name"].value = "vegetation"
    controls["becomes"].value = "building"
    swapped = swap_class(label_ids, "vegetation", "building")
    assert torch.equal(explorer.pictures["the map, changed"], swapped)
    street = explorer.pictures["the street, changed"]
    assert torch.equal(street, draw_street(generator, swapped, "noon"))
    assert bytes(explorer.images["the street, changed"].value) == png(street)
    controls["becomes"].value = REMOVED
    removed = remove_class(label_ids, "vegetation")
    assert torch.equal(explorer.pictures["the map, changed"], removed)
    assert "vegetation becomes nothing" in explorer.sentence.value
    controls["style"].value = "night"
    street = explorer.pictures["the street, changed"]
    assert torch.equal(street, draw_street(generator, removed, "night"))


def test_explore_classes_says_what_is_not_there(scenes, generator):
    explorer = explore_classes(scenes, generator)
    explorer.controls["name"].value = "train"
    explorer.controls["scene"].value = 1
    assert explorer.sentence.value.startswith("There is no train in this map: it holds ")
    assert torch.equal(explorer.pictures["the map, changed"], scenes[1].label_ids)


def test_explore_classes_with_a_network_that_looks(scenes, generator):
    explorer = explore_classes(scenes, generator, Seeing(sky_above_road))
    assert len(explorer.images) == 6
    assert (explorer.pictures["what it sees, changed"][-1] == ID["road"]).all()


def test_the_sentences_say_what_is_shown(scenes, generator):
    pipeline = Pipeline(Seeing(brightness), generator)
    explorer = explore_feedback(pipeline, scenes, rounds=3)
    explorer.controls["round"].value = 3
    results = pipeline.feedback(scenes[0].image_u8, 3)
    last = results[2].generated_label_ids
    before, first = (
        f"{(last == other).float().mean():.1%}"
        for other in (results[2].label_ids, results[0].label_ids)
    )
    assert before != first
    assert f"{before} of the pixels, with the first one in {first}" in explorer.sentence.value

    explorer = explore_classes(scenes, generator)
    explorer.controls["name"].value, explorer.controls["becomes"].value = "sky", "building"
    assert torch.equal(explorer.pictures["the map"], scenes[0].label_ids)
    share = (scenes[0].label_ids == ID["sky"]).float().mean()
    assert f"{share:.1%}" in explorer.sentence.value


def test_explore_feedback_goes_to_any_round(scenes, generator):
    pipeline = Pipeline(Seeing(sky_above_road), generator)
    explorer = explore_feedback(pipeline, scenes, rounds=3)
    explorer.controls["scene"].value = 2
    explorer.controls["round"].value = 3
    expected = pipeline.feedback(scenes[2].image_u8, 3)[2]
    for title, tensor in zip(explorer.images, vars(expected).values(), strict=True):
        assert torch.equal(explorer.pictures[title], tensor), title
        assert bytes(explorer.images[title].value) == png(tensor)
    assert explorer.sentence.value.startswith("Round 3: ")
    assert "100.0% of the pixels, with the first one in 100.0%" in explorer.sentence.value
    explorer.controls["round"].value = 1
    explorer.controls["start"].value = TRUE_MAP
    assert torch.equal(explorer.pictures["its map"], scenes[2].label_ids)


def test_an_explorers_errors_are_shown():
    def draw(number):
        if number == 2:
            raise ValueError("two is too much")
        return {"map": EMPTY}, f"number {number}"

    slider = ipywidgets.IntSlider(min=0, max=5)
    explorer = Explorer(draw, {"number": slider})
    slider.value = 2
    assert explorer.sentence.value == "two is too much"
    slider.value = 3
    assert explorer.sentence.value == "number 3"


def test_what_notebooks_store_is_the_same_everywhere(painter, scenes, generator):
    assert repr(painter) == "StreetPainter(128x64)"
    assert repr(explore_classes(scenes, generator)) == "Explorer(scene, name, becomes, style)"
