"""Figures: what they show is read back from matplotlib's own objects."""

import matplotlib

matplotlib.use("Agg")

import math
from base64 import b64decode
from io import BytesIO

import matplotlib.pyplot as plt
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from spade.generator import SpadeBlock, SpadeGenerator
from utils import diagrams, plots
from utils.diagrams import (
    Box,
    show_diagram,
    show_fcn,
    show_generator,
    show_painter,
    show_spade_block,
    show_spade_layer,
    show_training_step,
)
from utils.images import read_image
from utils.labels import COLORS, label_ids_to_colors
from utils.plots import (
    error_map,
    instance_colors,
    overlay,
    score_colors,
    show_grid,
    show_history,
    show_legend,
)

LABEL_IDS = torch.tensor([[7, 7, 7], [26, 26, 23]], dtype=torch.uint8)
IMAGE_U8 = torch.arange(18, dtype=torch.uint8).reshape(3, 2, 3)


@pytest.fixture(autouse=True)
def no_figures_are_left():
    plt.close("all")
    yield
    plt.close("all")


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "PICTURES", tmp_path / "out" / "pictures")
    return tmp_path / "out" / "pictures"


def shown(axis):
    """The array (3, H, W) that an axis shows."""
    return torch.as_tensor(axis.get_images()[0].get_array().copy()).permute(2, 0, 1)


def the_figure():
    (number,) = plt.get_fignums()
    return plt.figure(number)


def test_overlay_by_hand():
    grey = torch.full((3, 2, 3), 100, dtype=torch.uint8)
    laid = overlay(grey, LABEL_IDS, opacity=0.25)
    assert laid.shape == (3, 2, 3) and laid.dtype == torch.uint8
    # Road is (128, 64, 128): three quarters of 100 and a quarter of that.
    assert laid[:, 0, 0].tolist() == [107, 91, 107]
    assert torch.equal(overlay(IMAGE_U8, LABEL_IDS, opacity=0), IMAGE_U8)
    assert torch.equal(overlay(IMAGE_U8, LABEL_IDS, opacity=1), label_ids_to_colors(LABEL_IDS))


def test_a_grid_shows_photos_maps_and_masks(pictures):
    mask = LABEL_IDS == 7
    show_grid({"photo": [IMAGE_U8, IMAGE_U8.flip(-1)], "map": [LABEL_IDS, mask]}, ["one", "two"])
    axes = the_figure().axes
    assert len(axes) == 4 and [axis.get_title() for axis in axes] == ["one", "two", "", ""]
    assert torch.equal(shown(axes[1]), IMAGE_U8.flip(-1))
    assert torch.equal(shown(axes[2]), label_ids_to_colors(LABEL_IDS))
    assert torch.equal(shown(axes[3]), mask.to(torch.uint8).mul(255).expand(3, -1, -1))
    texts = [[text.get_text() for text in axis.texts] for axis in axes]
    assert texts == [["photo"], [], ["map"], []]
    assert not pictures.exists()


def test_a_copy_that_cannot_be_saved_is_a_warning(pictures):
    pictures.parent.touch()  # a file in the way of the folder
    with pytest.warns(UserWarning, match=r"a grid\.jpg was not saved, everything else continues: "):
        show_grid({"a": [IMAGE_U8]}, name="a grid")
    assert torch.equal(shown(the_figure().axes[0]), IMAGE_U8)


def test_rows_of_unequal_length(pictures):
    show_grid({"a": [IMAGE_U8], "b": [IMAGE_U8, LABEL_IDS, LABEL_IDS]}, name="a grid")
    axes = the_figure().axes
    assert [len(axis.get_images()) for axis in axes] == [1, 0, 0, 1, 1, 1]
    picture = read_image(pictures / "a grid.jpg")
    assert 1000 < picture.shape[2] <= 1100 and picture.float().std() > 10


def pixels_of(figure):
    """What a figure looks like, image_u8 (3, H, W)."""
    figure.set_dpi(plots.DPI)
    figure.canvas.draw()
    pixels = torch.frombuffer(bytearray(figure.canvas.buffer_rgba()), dtype=torch.uint8)
    width, height = figure.canvas.get_width_height()
    return pixels.reshape(height, width, 4)[..., :3].permute(2, 0, 1)


@pytest.mark.parametrize(
    "shape, columns, factor",
    [((128, 256), 4, 1), ((256, 512), 4, 1), ((128, 256), 3, 1), ((37, 50), 2, 10)],
)
@pytest.mark.parametrize("names", [["photo", "map"], [""]])
def test_a_grid_shows_its_pictures_pixel_by_pixel(shape, columns, factor, names):
    generator = torch.Generator().manual_seed(0)
    several = len(names), columns, *shape
    maps = torch.randint(0, 34, several, generator=generator, dtype=torch.uint8)
    show_grid({name: maps[i] for i, name in enumerate(names)}, list("abcd"[:columns]))
    drawn, across = pixels_of(the_figure()), factor * shape[1] + plots.GAP
    left = drawn.shape[2] + plots.GAP - columns * across
    for line in range(len(names)):
        for column in range(columns):
            top = plots.TITLES_HEIGHT + line * (factor * shape[0] + plots.GAP)
            x = left + column * across
            seen = drawn[:, top : top + factor * shape[0], x : x + factor * shape[1]]
            expected = label_ids_to_colors(maps[line, column])
            expected = expected.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
            assert torch.equal(seen, expected), (line, column)


def test_a_photo_that_is_not_enlarged_stays_as_it_is():
    generator = torch.Generator().manual_seed(0)
    photo = torch.randint(0, 256, (3, 64, 600), generator=generator, dtype=torch.uint8)
    show_grid({"": [photo]})
    assert torch.equal(pixels_of(the_figure()), photo)


def test_few_colours_are_stored_as_png_and_photos_as_jpeg():
    generator = torch.Generator().manual_seed(0)
    show_grid({"": [torch.randint(0, 256, (3, 64, 600), generator=generator, dtype=torch.uint8)]})
    ((kind, photo),) = plots.encoded(the_figure()).items()
    assert kind == "image/jpeg" and Image.open(BytesIO(b64decode(photo))).size == (600, 64)
    plt.close("all")
    ids = torch.arange(34, dtype=torch.uint8).repeat_interleave(64).expand(64, -1)[:, :1000]
    show_grid({"": [ids]})
    ((kind, stored),) = plots.encoded(the_figure()).items()
    picture = Image.open(BytesIO(b64decode(stored))).convert("RGB")
    assert kind == "image/png"
    assert torch.equal(pil_to_tensor(picture), label_ids_to_colors(ids))


def test_a_notebook_stores_figures_as_encoded_does():
    shell = InteractiveShell.instance()
    plots.setup_notebook()
    show_legend(LABEL_IDS)
    data, _ = shell.display_formatter.format(the_figure())
    assert set(data) == {"text/plain", "image/png"}
    assert data["image/png"] == plots.encoded(the_figure())["image/png"]


def test_an_error_map_by_hand():
    true_ids = torch.tensor([[7, 7, 0]], dtype=torch.uint8)  # 0 is not scored
    predicted_ids = torch.tensor([[7, 26, 26]], dtype=torch.uint8)
    expected = torch.stack([torch.full((3,), 255), COLORS[26].long(), torch.zeros(3).long()], dim=1)
    assert error_map(predicted_ids, true_ids)[:, 0].tolist() == expected.tolist()


def test_things_have_colours_of_their_own_and_all_else_is_grey():
    instance_ids = torch.tensor([[7, 23, 26000, 26001, 26001]])
    colors = instance_colors(instance_ids)[:, 0].T.tolist()
    assert colors[0] == colors[1] == [216] * 3 and colors[3] == colors[4]
    assert len({tuple(color) for color in colors}) == 3


def test_a_diagram_has_its_boxes_and_arrows():
    boxes = {"a": Box(0, 0, "photo"), "b": Box(1, 0, "network", "learns"), "c": Box(1, 1, "map")}
    show_diagram(boxes, [("a", "b"), ("b", "c", "scores")])
    (axis,) = the_figure().axes
    texts = [text.get_text() for text in axis.texts if text.get_text()]
    assert texts == ["photo", "network", "map", "scores"] and len(axis.patches) == 3


@pytest.mark.parametrize(
    "draw, boxes, first", [(show_training_step, 7, "photo"), (show_fcn, 17, "photo\nstride 1")]
)
def test_diagrams_of_the_segmentation_network(draw, boxes, first):
    draw()
    (axis,) = the_figure().axes
    assert len(axis.patches) == boxes and axis.texts[0].get_text() == first


@pytest.mark.parametrize(
    "name, first, last",
    [
        ("discriminator", "label map", "larger patch"),
        ("adversarial_step", "photo", "discriminator"),
        ("encoder", "photo", "image"),
        ("pixel_discriminator", "photo", "fake”"),
    ],
)
def test_diagrams_of_the_adversarial_training(name, first, last):
    getattr(diagrams, f"show_{name}")()
    (axis,) = the_figure().axes
    texts = [text.get_text() for text in axis.texts if text.get_text()]
    assert texts[0].startswith(first) and texts[-1].endswith(last)
    figure = the_figure()
    figure.canvas.draw()
    inside = figure.bbox
    for text, box in zip((t for t in axis.texts if t.get_text()), axis.patches, strict=True):
        extent, around = text.get_window_extent(), box.get_window_extent()
        assert around.x0 <= extent.x0 and extent.x1 <= around.x1, text.get_text()
        assert inside.x0 <= around.x0 and around.x1 <= inside.x1


def test_scores_are_orange_above_zero_white_at_zero_and_blue_below():
    scores = torch.tensor([[-9.0, 0.0], [0.0, 2.0]])
    picture = score_colors(scores, (4, 6), limit=2)
    assert picture.shape == (3, 6, 4) and picture.dtype == torch.uint8
    red, _, blue = picture[:, 0, 0].tolist()
    assert blue > red and picture[:, 0, 3].min() > 240
    red, _, blue = picture[:, 5, 3].tolist()
    assert red > blue and torch.equal(picture[:, 3, 2], picture[:, 5, 3])


def test_the_legend_names_what_occurs_largest_first():
    show_legend(torch.stack([LABEL_IDS, LABEL_IDS]))
    (axis,) = the_figure().axes
    assert [text.get_text() for text in axis.texts] == ["7 road", "26 car", "23 sky"]
    colors = [tuple(patch.get_facecolor()[:3]) for patch in axis.patches]
    assert colors[1] == pytest.approx((COLORS[26] / 255).tolist())


def test_the_history(pictures):
    history = {
        "scenes": ["toy 64x32", "toy 64x32", "camvid 64x32"],
        "train_loss": [3.0, 2.0, 1.5],
        "val_loss": [3.1, 2.2, 2.0],
        "val_miou": [0.1, 0.2, 0.3],
        "val_accuracy": [0.5, 0.6, 0.7],
    }
    show_history(history, name="history")
    losses, scores = the_figure().axes
    curves = [list(line.get_ydata()) for line in losses.lines[:2]]
    assert curves == [[3.0, 2.0, 1.5], [3.1, 2.2, 2.0]]
    assert [list(line.get_xdata()) for line in scores.lines[:2]] == [[1, 2, 3]] * 2
    named = {line.get_label(): list(line.get_ydata()) for line in scores.lines[:2]}
    assert named == {"pixel accuracy": [0.5, 0.6, 0.7], "mIoU": [0.1, 0.2, 0.3]}
    for axis in (losses, scores):  # one line between the toy streets and CamVid
        assert [list(line.get_xdata()) for line in axis.lines[2:]] == [[2.5, 2.5]]
    assert (pictures / "history.jpg").is_file()
    plt.close("all")
    show_history(history, restarts=[1])
    assert [list(x.get_xdata()) for x in the_figure().axes[0].lines[2:]] == [[2.5, 2.5], [1.5, 1.5]]


def test_class_shares():
    plots.show_class_shares(LABEL_IDS)
    (axis,) = the_figure().axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["road", "car", "sky"]
    assert [bar.get_height() for bar in axis.patches] == pytest.approx([50, 100 / 3, 100 / 6])
    assert [text.get_text() for text in axis.texts] == ["50.0", "33.3", "16.7"]


def test_who_moves_has_colours_of_its_own_and_all_else_is_grey(pictures):
    ids = torch.tensor(plots.TRAFFIC_IDS)
    colors = plots.traffic_colors(torch.cat([ids, torch.tensor([7, 11])])[None])[:, 0].T.int()
    distances = (colors[:10, None] - colors[None, :11]).abs().sum(-1)
    assert distances[~torch.eye(10, 11, dtype=torch.bool)].min() > 60
    assert colors[10:].tolist() == [[225] * 3] * 2
    show_legend(ids, plots.TRAFFIC_COLORS)
    (axis,) = the_figure().axes
    assert axis.patches[0].get_facecolor()[:3] == pytest.approx((colors[0] / 255).tolist())
    assert axis.texts[0].get_text() == "24 person"


def test_curves_that_agree_up_to_a_comma_share_a_colour():
    plots.show_curves(
        {"loss": {"a, seed 0": [3, 2], "a, seed 1": [3, 1], "b": [2, 2]}, "mIoU": {"b": [0, 1]}},
        "round",
        "value",
        first=0,
    )
    losses, miou = the_figure().axes
    assert [line.get_color() for line in losses.lines] == ["C0", "C0", "C1"]
    assert [text.get_text() for text in losses.get_legend().texts] == ["a", "b"]
    assert [list(line.get_ydata()) for line in losses.lines] == [[3, 2], [3, 1], [2, 2]]
    assert miou.lines[0].get_color() == "C1" and list(miou.lines[0].get_xdata()) == [0, 1]
    assert miou.get_title() == "mIoU"


def test_confusion_in_per_cent_of_each_row():
    counts = {"car": [0] * 34, "bus": [0] * 34}
    counts["car"][26], counts["car"][7] = 30, 10  # 7, the road, is no class of the matrix
    counts["bus"][26], counts["bus"][28] = 1, 1
    plots.show_confusion(counts)
    (axis,) = the_figure().axes
    assert [text.get_text() for text in axis.texts] == ["75", "0", "25", "50", "50", "0"]
    assert [x.get_text() for x in axis.get_xticklabels()] == ["car", "bus", "others"]
    assert [y.get_text() for y in axis.get_yticklabels()] == ["car (40 pixels)", "bus (2 pixels)"]


def test_class_scores():
    iou = {"road": 0.5, "car": math.nan, "sky": 0.75}
    plots.show_class_scores({"IoU": iou, "boundary F": {"road": 0.25, "car": math.nan, "sky": 1.0}})
    (axis,) = the_figure().axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["sky", "road"]
    assert [bar.get_height() for bar in axis.patches] == [0.75, 0.5, 1.0, 0.25]
    assert [text.get_text() for text in axis.get_legend().texts] == ["IoU", "boundary F"]


def test_losses_are_means_of_stretches():
    plots.show_losses({"kl": [1.0, 3.0, 5.0, 5.0], "matching": [2.0, 2.0, 2.0, 8.0]}, points=2)
    axes = the_figure().axes
    assert [axis.get_title() for axis in axes] == ["kl", "matching"]
    assert [list(axis.lines[0].get_ydata()) for axis in axes] == [[2, 5], [2, 5]]
    assert list(axes[0].lines[0].get_xdata()) == [0.25, 0.75]


def test_channels_that_vary_most_are_shown_dark_to_bright():
    activations = torch.zeros(3, 5, 7)
    activations[1] = torch.linspace(-3, 9, 35).reshape(5, 7)
    activations[2, 0, 0] = 1
    plots.show_channels({"layer": activations}, columns=2)
    first, second = (shown(axis) for axis in the_figure().axes)
    assert first.shape == (3, 5, 7) and (first[0].min(), first[0].max()) == (0, 255)
    assert first[0].flatten().tolist() == sorted(first[0].flatten().tolist())
    assert second[0].nonzero().tolist() == [[0, 0]]


def test_spread_is_the_mean_and_the_middle_80_percent(pictures):
    values = torch.linspace(0, 1, 11).expand(3, -1).clone()
    values[1, :] = math.nan  # no scene has such a step
    values[2, 0] = math.nan
    plots.show_spread({"kept": values}, "round", "share", first=0, lowest=0.1, name="spread")
    (axis,) = the_figure().axes
    assert axis.get_ylim() == (0.1, 1)
    (line,) = axis.get_lines()
    assert line.get_xdata().tolist() == [0, 1, 2]
    torch.testing.assert_close(torch.tensor(line.get_ydata()[[0, 2]]), torch.tensor([0.5, 0.55]))
    assert math.isnan(line.get_ydata()[1])
    parts = axis.collections[0].get_paths()  # before and after the gap
    rim = [y for part in parts for y in part.vertices[:, 1]]
    assert min(rim) == pytest.approx(0.1) and max(rim) == pytest.approx(0.91)
    assert axis.get_legend().get_texts()[0].get_text() == "kept"
    assert (pictures / "spread.jpg").is_file()


def test_class_rounds(pictures):
    shares = torch.zeros(3, 34)
    shares[:, 7] = torch.tensor([0.5, 0.6, 0.7])  # the road
    shares[:, 26] = torch.tensor([0.2, 0.1, 0.0])  # cars
    shares[1:, 25] = 0.1  # riders that were not there at the start
    others = torch.zeros(3, 34)
    others[:, 7] = 0.5
    others[:, 17] = torch.tensor([0.1, 0.1, 0.2])  # poles, in this panel alone
    plots.show_class_rounds({"a": shares, "b": others}, name="classes")
    first, second, bar = the_figure().axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["road", "car", "pole"]
    rows = torch.as_tensor(first.get_images()[0].get_array().filled(torch.nan))
    nothing = [torch.nan] * 3
    torch.testing.assert_close(
        rows, torch.tensor([[1, 1.2, 1.4], [1, 0.5, 0], nothing]), equal_nan=True
    )
    assert second.get_images()[0].get_array().shape == (3, 3), "the same classes"
    assert (pictures / "classes.jpg").is_file()
    plt.close("all")
    photos = torch.arange(34)
    plots.show_class_rounds({"a": shares}, classes=1, photos=photos)  # the one that changes most
    assert [label.get_text() for label in the_figure().axes[0].get_yticklabels()] == ["car (26)"]


def test_the_painter_in_a_picture():
    lists = {"start from": "empty", "hour": "noon"}
    show_painter(lists, [("car", "#00008e"), ("road", "#804080")], LABEL_IDS, IMAGE_U8)
    top, label_map, street, bottom = the_figure().axes
    assert [text.get_text() for text in top.texts] == ["start from", "empty", "hour", "noon"]
    assert torch.equal(shown(label_map), label_ids_to_colors(LABEL_IDS))
    assert torch.equal(shown(street), IMAGE_U8)
    assert [text.get_text() for text in bottom.texts] == ["car", "road"]
    assert bottom.patches[0].get_facecolor() == (0, 0, 0x8E / 255, 1)


def texts_of_the_diagram():
    (axis,) = the_figure().axes
    return [text.get_text() for text in axis.texts if text.get_text()]


def test_the_diagram_of_a_spade_layer_follows_its_forward():
    show_spade_layer()
    texts = texts_of_the_diagram()
    assert [text for text in texts if "gamma" in text or "hidden" in text] == [
        "times\n(1 + gamma)", "3x3 convolution:\ngamma (C, h, w)",
        "3x3 convolution, ReLU:\nhidden layer",
    ]  # fmt: skip


def test_the_diagram_of_a_block_names_its_modules():
    show_spade_block()
    texts = " ".join(texts_of_the_diagram())
    modules = dict(SpadeBlock(4, 2, hidden=2).named_children())
    assert len(modules) == 6 and all(name in texts for name in modules)


def test_the_diagram_of_a_generator_has_its_sizes_and_channels():
    show_generator(SpadeGenerator(4, "normal", None, (64, 32), 2, max_channels=16))
    texts = texts_of_the_diagram()
    assert texts[:2] == ["fc: 3x3\nconvolution\n2x1", "map\n2x1"]
    assert "head_0\n2x1\n16 ch." in texts and "up_3\n64x32\n4 ch." in texts
    assert texts.count("map\n64x32") == 1 and texts[-1] == "3x3 conv.,\ntanh:\nimage"
