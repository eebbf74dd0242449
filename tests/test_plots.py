"""Figures: what they show is read back from matplotlib's own objects."""

import matplotlib

matplotlib.use("Agg")

import math

import matplotlib.pyplot as plt
import pytest
import torch

from utils import plots
from utils.diagrams import Box, show_diagram, show_painter
from utils.images import read_image
from utils.labels import COLORS, label_ids_to_colors
from utils.plots import (
    error_map,
    instance_colors,
    overlay,
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
    assert picture.shape[2] == 1100 and picture.float().std() > 10


def test_each_picture_keeps_its_shape():
    show_grid({"a": [torch.zeros(3, 30, 90, dtype=torch.uint8)] * 2}, titles=["one", "two"])
    figure = the_figure()
    box = figure.axes[1].get_window_extent()
    assert box.width / box.height == pytest.approx(3, rel=0.05)


def test_no_picture_is_shown_smaller_than_it_is():
    show_grid({"a": [torch.zeros(3, 256, 512, dtype=torch.uint8)] * 4})
    boxes = [axis.get_window_extent() for axis in the_figure().axes]
    assert all(box.width * plots.DPI / the_figure().dpi >= 511 for box in boxes)


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


def test_class_shares():
    plots.show_class_shares(LABEL_IDS)
    (axis,) = the_figure().axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["road", "car", "sky"]
    assert [bar.get_height() for bar in axis.patches] == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    assert axis.get_yscale() == "log"


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
