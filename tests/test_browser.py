"""Painter, explorer and upload in a real browser: what the mouse does, and what is then seen."""

import json
import shutil
from pathlib import Path

import ipywidgets
import nbformat
import pytest
from browser import SECONDS, LabNotebook, chromium, jupyter_lab
from nbformat.v4 import new_code_cell, new_notebook

from tools.run_notebooks import clean  # which also names the kernel

ROOT = Path(__file__).resolve().parents[1]

# What follows the painter of notebook 07, in the same kernel.
EXPLORERS = """\
import torch
from utils.labels import NAMES
from utils.painter import class_names
from utils.pipeline import load_pipeline
from utils.painter.widgets import explore_classes, explore_feedback, png
pipeline = load_pipeline("toy", "toy")
toy_scenes = open_scenes("toy", "val", size=pipeline.generator.size)[:2]
feedback = explore_feedback(pipeline, toy_scenes, rounds=3)
display(feedback)
classes = explore_classes(toy_scenes, pipeline.generator)
display(classes)"""

UPLOAD = """\
from utils.plots import show_grid
from utils.upload import UploadBox
real = load_pipeline("streets", "streets")
def show(image_u8):
    stages = list(vars(real.run(image_u8)).values())
    show_grid({"photo": stages[:2], "generated": stages[2:]})
    print("a photo of", *image_u8.shape)
upload = UploadBox(show, real.generator.size)
display(upload)"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the project, so that nothing is written into the real one."""
    folder = tmp_path_factory.mktemp("project")
    for package in ("utils", "spade"):
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    (folder / "data").mkdir()
    for name in ("weights", "streets"):
        (folder / "data" / name).symlink_to(ROOT / "data" / name)
    (folder / "notebooks").mkdir()
    notebook = nbformat.read(ROOT / "notebooks" / "07_paint_a_street.ipynb", as_version=4)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    sources = sources[: sources.index("display(painter)") + 1]
    # The notebook's own test runs those that only show pictures, or take times.
    sources = [x for x in sources if "show_grid(" not in x and "seconds" not in x]
    cells = [new_code_cell(source) for source in (*sources, EXPLORERS, UPLOAD)]
    nbformat.write(clean(new_notebook(cells=cells)), folder / "notebooks" / "widgets.ipynb")
    return folder


@pytest.fixture(scope="module")
def notebook(browser, folder, tmp_path_factory):
    """The notebook, open and run; what one test does, the next one finds."""
    if int(ipywidgets.__version__.split(".")[0]) < 8:
        pytest.skip("JupyterLab 4 shows the widgets of ipywidgets 8; ipywidgets 7 is Colab's")
    own = tmp_path_factory.mktemp("browser")
    with (
        jupyter_lab(folder, own / "lab") as (address, token),
        chromium(browser, own / "profile") as context,
    ):
        notebook = LabNotebook(context, address, token, "notebooks/widgets.ipynb")
        notebook.run_all()
        yield notebook
        assert not notebook.complaints


def outputs(notebook, code):
    """What is below the cell with this code."""
    cell = notebook.page.locator(".jp-CodeCell").filter(has_text=code)
    return cell.locator(".jp-Cell-outputWrapper")


def changed(locator, before, attribute="src"):
    """Wait until an element's attribute is not what it was -> what it is now."""
    locator.page.wait_for_function(
        "([element, name, before]) => element[name] !== before",
        arg=[locator.element_handle(), attribute, before],
        timeout=1000 * SECONDS,
    )
    return locator.evaluate(f"element => element.{attribute}")


def test_a_stroke_changes_map_and_picture(notebook):
    painter, page = notebook, notebook.page
    canvas, picture = page.locator("canvas.painter-map"), page.locator("img.painter-picture")
    canvas.scroll_into_view_if_needed()
    empty = picture.get_attribute("src")
    page.get_by_role("button", name="building", exact=True).click()

    # not let go of yet: the picture follows while the mouse is down
    painter.move(canvas, (0.1, 0.2))
    page.mouse.down()
    painter.move(canvas, (0.4, 0.2), (0.4, 0.3))
    half_way = changed(picture, empty)
    painter.move(canvas, (0.4, 0.4), (0.1, 0.4))
    page.mouse.up()
    changed(picture, half_way)
    painter.settle()

    # Python holds the map that was painted, and shows the picture that it made of it
    width, height = json.loads(painter.python("list(generator.size)"))
    under = [(0.1, 0.2), (0.25, 0.2), (0.4, 0.3), (0.25, 0.4), (0.1, 0.4)]
    places = [(int(y * height), int(x * width)) for x, y in under]
    names = painter.python(f"*(NAMES[painter.label_ids[place]] for place in {places})")
    assert names.split() == ["building"] * 5
    assert painter.python("NAMES[painter.label_ids[-1, -1]]") != "building"
    painted = picture.get_attribute("src")
    assert painted == painter.python("painter.canvas.picture_url")
    # and the canvas shows the map itself, in exact colours: building is (70, 70, 70)
    x, y = int(0.25 * width), int(0.2 * height)
    color = canvas.evaluate(f"c => [...c.getContext('2d').getImageData({x}, {y}, 1, 1).data]")
    assert color == [70, 70, 70, 255]

    # all of it is one stroke
    page.get_by_role("button", name="Undo", exact=True).click()
    assert changed(picture, painted) == empty


def test_fill_erase_and_start(notebook):
    painter, page = notebook, notebook.page
    canvas, picture = page.locator("canvas.painter-map"), page.locator("img.painter-picture")
    canvas.scroll_into_view_if_needed()
    empty = picture.get_attribute("src")
    page.get_by_role("button", name="Fill", exact=True).click()
    page.get_by_role("button", name="vegetation", exact=True).click()
    painter.click(canvas, (0.5, 0.1))
    filled = changed(picture, empty)
    assert painter.python("NAMES[painter.label_ids[0, 0]]") == "vegetation"
    page.get_by_role("button", name="Erase", exact=True).click()
    painter.move(canvas, (0.1, 0.1))
    page.mouse.down()
    painter.move(canvas, (0.9, 0.1))
    page.mouse.up()
    changed(picture, filled)
    painter.settle()
    assert painter.python("'sky' in class_names(painter.label_ids)") == "True"
    erased = picture.get_attribute("src")
    lists = outputs(notebook, "display(painter)").locator(".widget-dropdown")
    lists.filter(has_text="start from").locator("select").select_option(index=1)
    changed(picture, erased)
    is_start = painter.python("torch.equal(painter.label_ids, starts['an empty street'])")
    assert is_start == "True"

    # when nothing is left to undo, the painter says so
    message = page.locator(".painter-message")
    for _ in range(30):
        page.get_by_role("button", name="Undo", exact=True).click()
        painter.settle()
        if message.inner_text():
            break
    assert message.inner_text() == "There is nothing left to undo."


def test_an_explorers_slider_and_dropdown_change_its_pictures(notebook):
    page, explorers = notebook.page, outputs(notebook, "display(feedback)")
    pictures = explorers.locator("img")
    pictures.nth(7).wait_for()
    assert pictures.count() == 8

    generated = pictures.nth(2)
    before = generated.evaluate("element => element.src")
    slider = explorers.locator(".noUi-handle").first
    slider.focus()
    page.keyboard.press("ArrowRight")
    changed(generated, before)
    assert notebook.python("feedback.controls['round'].value") == "2"
    assert seen(generated) == notebook.python(
        "list(png(feedback.pictures['the photo that SPADE draws']))"
    )

    street = pictures.nth(7)
    before = street.evaluate("element => element.src")
    explorers.locator(".widget-dropdown", has_text="becomes").locator("select").select_option("sky")
    changed(street, before)
    assert seen(street) == notebook.python("list(png(classes.pictures['the street, changed']))")


def test_a_photo_is_uploaded(notebook, tmp_path):
    page, upload = notebook.page, outputs(notebook, "display(upload)")
    button = upload.get_by_role("button", name="Upload a photo")
    pictures = upload.locator("img")

    def choose(path):
        with page.expect_file_chooser() as chooser:
            button.click()
        chooser.value.set_files(path)

    photo = min((ROOT / "data" / "streets" / "california" / "photos").glob("*.jpg"))
    choose(photo)
    pictures.wait_for()
    assert pictures.count() == 1 and pictures.evaluate("e => e.naturalWidth") > 800
    upload.get_by_text("a photo of 3 128 256", exact=True).wait_for()
    upload.get_by_text(photo.name, exact=True).wait_for()

    # another picture takes the place of the first one
    before = pictures.evaluate("e => e.src")
    other = max(photo.parent.glob("*.jpg"))
    choose(other)
    page.wait_for_function(
        "([outputs, before]) => outputs.querySelector('img')?.src.length > 9"
        " && outputs.querySelector('img').src !== before",
        arg=[upload.element_handle(), before],
    )
    upload.get_by_text(other.name, exact=True).wait_for()  # the last thing that it says
    assert pictures.count() == 1

    # a text is told from a photo, and no picture of the photo before stays beside the sentence
    (tmp_path / "no photo.jpg").write_text("Dear diary")
    choose(tmp_path / "no photo.jpg")
    upload.get_by_text("no photo.jpg can't be read as a picture: it is a text").wait_for()
    assert pictures.count() == 0 and "Traceback" not in upload.inner_text()

    choose(photo)
    pictures.wait_for()


def seen(image):
    """The bytes of the file that an <img> shows, as Python writes a list."""
    return str(
        image.evaluate("async e => [...new Uint8Array(await (await fetch(e.src)).arrayBuffer())]")
    )
