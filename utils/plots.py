"""Pictures for the notebooks: grids of photos and maps, class legends, training curves.

Each show_ function draws one figure, which a notebook displays when the cell ends.
"""

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO

import matplotlib.pyplot as plt
import torch
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.colors import hsv_to_rgb
from matplotlib.ticker import MaxNLocator
from matplotlib_inline.backend_inline import set_matplotlib_formats
from PIL import Image
from torch.nn.functional import interpolate

from utils.files import PROJECT, copy_may_fail, write_atomically
from utils.labels import (
    BENCHMARK_IDS,
    COLORS,
    ID,
    NAMES,
    label_counts,
    label_ids_to_colors,
)

PICTURES = PROJECT / "out" / "pictures"
DPI = 100
FIGURE_WIDTH = 11  # inches, which is about the width of a notebook's column
# In a grid, in pixels: room for the names of rows, for titles, and between pictures.  JPEG stores
# blocks of 8x8 pixels: with multiples of 8 no block holds an edge of a picture, which saves 7 %.
NAMES_WIDTH, TITLES_HEIGHT, GAP = 32, 24, 8
JPEG = {"quality": 88, "optimize": True, "progressive": True}
FEW_COLORS = 4000  # charts have up to 2,000, a photo of 256x128 more than 10,000

# Who moves on a street, in colours that can be told apart: in the official ones car, truck, bus,
# train, caravan and trailer are six dark blues.
TRAFFIC = {
    "person": (220, 20, 60), "rider": (255, 140, 0), "bicycle": (150, 75, 0),
    "motorcycle": (240, 90, 200), "car": (30, 100, 220), "truck": (120, 40, 160),
    "bus": (0, 150, 130), "train": (20, 20, 20), "caravan": (130, 200, 40),
    "trailer": (250, 210, 40),
}  # fmt: skip
TRAFFIC_IDS = tuple(ID[name] for name in TRAFFIC)
TRAFFIC_COLORS = torch.full_like(COLORS, 225)  # (34, 3) RGB, all else light grey
TRAFFIC_COLORS[list(TRAFFIC_IDS)] = torch.tensor(list(TRAFFIC.values()), dtype=torch.uint8)


def setup_notebook() -> None:
    """Choose how notebooks store figures: as encoded() does."""
    plt.rcParams["figure.dpi"] = DPI
    plt.rcParams["savefig.dpi"] = DPI
    set_matplotlib_formats()  # none of matplotlib's own
    display = InteractiveShell.instance().display_formatter
    display.mimebundle_formatter.for_type(plt.Figure, encoded)


def encoded(figure: plt.Figure) -> dict[str, str]:
    """Encode a figure as JPEG, or as PNG with a palette if it has few colours and is smaller so.

    Charts, diagrams and maps are smaller as PNG, and sharp; photos are several times smaller as
    JPEG.

    Returns:
        MIME type -> the file in base64, as notebooks store it.
    """
    figure.canvas.draw()
    pixels, size = figure.canvas.buffer_rgba(), figure.canvas.get_width_height()
    picture = Image.frombuffer("RGBA", size, pixels).convert("RGB")
    files = {"image/jpeg": _file(picture, "JPEG", **JPEG)}
    if picture.getcolors(FEW_COLORS):
        files["image/png"] = _file(picture.quantize(256), "PNG", optimize=True)
    smallest = min(files, key=lambda kind: len(files[kind]))
    return {smallest: files[smallest]}


def _file(picture, kind, **options):
    file = BytesIO()
    picture.save(file, kind, **options)
    return b64encode(file.getvalue()).decode()


def pixel_axes(figure: plt.Figure, left: int, top: int, width: int, height: int) -> plt.Axes:
    """Axes without a frame, at pixels of the figure counted from its left and upper edge.

    A picture of the same size, or of a whole fraction of it, is shown in them pixel by pixel.
    """
    across, down = figure.get_size_inches() * DPI
    # Matplotlib up to 3.10 draws a pixel more of a picture that rounding has made a little wider.
    width, bottom, height = (1 - 1e-9) * width, top + height, (1 - 1e-9) * height
    axes = figure.add_axes((left / across, 1 - bottom / down, width / across, height / down))
    axes.set_axis_off()
    return axes


def show_grid(
    rows: dict[str, Sequence[torch.Tensor]],
    titles: Sequence[str] | None = None,
    name: str | None = None,
) -> None:
    """A grid of pictures, one named row each, shown pixel by pixel.

    If there is room, all are enlarged by a whole factor: photos smoothly, maps by repeating pixels.
    Four pictures of 256x128 fit side by side into a notebook's column.

    Args:
        rows: row name -> pictures: image_u8 (3, H, W), or label_ids (H, W) that are shown in the
            Cityscapes colours, or bool (H, W) shown black and white.
        titles: one for each column.
        name: also save the figure as out/pictures/<name>.jpg; a warning says if it can't be.
    """
    columns = max(len(pictures) for pictures in rows.values())
    height, width = next(iter(rows.values()))[0].shape[-2:]
    left, top = NAMES_WIDTH if any(rows) else 0, TITLES_HEIGHT if titles else 0
    room = (FIGURE_WIDTH * DPI - left + GAP) // columns - GAP
    factor = max(room // width, 1)
    width, height = factor * width, factor * height
    across, down = width + GAP, height + GAP
    full = left + columns * across - GAP, top + len(rows) * down - GAP
    figure = plt.figure(figsize=[side / DPI for side in full])
    lefts, tops = range(left, full[0], across), range(top, full[1], down)
    axes = [[pixel_axes(figure, x, y, width, height) for x in lefts] for y in tops]
    for line, (row, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=False):
            smooth = "lanczos" if picture.dim() == 3 else "nearest"
            axis.imshow(_as_rgb(picture), interpolation=smooth, aspect="auto")
        beside = -GAP / width, 0.5
        line[0].text(
            *beside, row, transform=line[0].transAxes, rotation=90, ha="right", va="center"
        )
    for axis, title in zip(axes[0], titles or (), strict=False):
        axis.set_title(title, fontsize=10)
    _save(figure, name)


def overlay(image_u8: torch.Tensor, label_ids: torch.Tensor, opacity: float = 0.5) -> torch.Tensor:
    """image_u8 (3, H, W) with the colours of its label_ids (H, W) laid over it -> image_u8."""
    colors = label_ids_to_colors(label_ids)
    return (image_u8 * (1 - opacity) + colors * opacity).round().to(torch.uint8)


def error_map(predicted_ids: torch.Tensor, true_ids: torch.Tensor) -> torch.Tensor:
    """Show where a predicted map (H, W) is wrong -> image_u8 (3, H, W).

    Right pixels are white, wrong ones have the colour of the predicted label, and pixels whose true
    label the benchmark does not score are black.
    """
    picture = label_ids_to_colors(predicted_ids)  # (3, H, W)
    picture = torch.where(predicted_ids == true_ids, torch.full_like(picture, 255), picture)
    is_scored = torch.isin(true_ids, torch.tensor(BENCHMARK_IDS, device=true_ids.device))
    return torch.where(is_scored, picture, torch.zeros_like(picture))


def instance_colors(instance_ids: torch.Tensor) -> torch.Tensor:
    """Colour an instance map (H, W): each thing differently, all else light grey -> image_u8."""
    numbers, places = instance_ids.unique(return_inverse=True)
    hues = torch.arange(len(numbers)) * 0.618034 % 1  # so that neighbours in the list differ
    shades = 0.9 - 0.4 * (hues * 7 % 1)
    hsv = torch.stack([hues, torch.full_like(hues, 0.75), shades], dim=1)
    colors = torch.from_numpy(hsv_to_rgb(hsv.numpy()))  # (N, 3)
    colors[numbers < 1000] = 0.85
    return (colors * 255).to(torch.uint8)[places].permute(2, 0, 1)


def traffic_colors(label_ids: torch.Tensor) -> torch.Tensor:
    """Colour who moves on a street, (H, W), as TRAFFIC_COLORS does -> image_u8 (3, H, W)."""
    return label_ids_to_colors(label_ids, TRAFFIC_COLORS)


def show_legend(label_ids: torch.Tensor, colors: torch.Tensor = COLORS) -> None:
    """The colours and names of the labels that occur in a map or in several, largest first.

    Args:
        colors: (34, 3) RGB, a colour for each label.
    """
    present = list(label_counts(label_ids))
    lines = -(-len(present) // 6)
    figure = plt.figure(figsize=(FIGURE_WIDTH, 28 * lines / DPI))
    axis = pixel_axes(figure, 0, 0, FIGURE_WIDTH * DPI, 28 * lines)
    axis.set(xlim=(0, 6), ylim=(lines, 0))
    for place, label in enumerate(present):
        x, y = place % 6, place // 6
        color = (colors[label] / 255).tolist()
        axis.add_patch(plt.Rectangle((x + 0.02, y + 0.15), 0.16, 0.7, color=color))
        axis.text(x + 0.22, y + 0.5, f"{label} {NAMES[label]}", va="center", fontsize=9)


def show_class_shares(label_ids: torch.Tensor, name: str | None = None) -> None:
    """A bar for each label that occurs in the maps, largest first, with its share in per cent."""
    counts = label_counts(label_ids)
    shares = [100 * count / label_ids.numel() for count in counts.values()]
    figure, axis = plt.subplots(figsize=(FIGURE_WIDTH, 3.2))
    colors = (COLORS[list(counts)] / 255).numpy()
    bars = axis.bar(range(len(counts)), shares, color=colors, edgecolor="gray")
    axis.bar_label(bars, [f"{x:.1f}" if x >= 0.05 else "<0.1" for x in shares], fontsize=8)
    axis.set(ylabel="% of the pixels")
    axis.margins(x=0.01, y=0.12)
    _name_bars(axis, [NAMES[i] for i in counts])
    axis.grid(axis="y", alpha=0.3)
    _save(figure, name, tight=True)


def show_history(
    history: dict[str, list], restarts: Sequence[int] = (), name: str | None = None
) -> None:
    """Training and validation loss, and validation mIoU and accuracy, over the epochs.

    A line marks where training went on with other scenes, see utils.training.train.

    Args:
        restarts: numbers of epochs after which another stage began, which are marked as well.
    """
    epochs = range(1, len(history["train_loss"]) + 1)
    figure, (losses, scores) = plt.subplots(1, 2, figsize=(FIGURE_WIDTH, 3))
    losses.plot(epochs, history["train_loss"], "o-", markersize=3, label="training (running mean)")
    losses.plot(epochs, history["val_loss"], "o-", markersize=3, label="validation")
    losses.set(xlabel="epoch", ylabel="cross-entropy", ylim=(0, None))
    scores.plot(epochs, history["val_accuracy"], "o-", markersize=3, label="pixel accuracy")
    scores.plot(epochs, history["val_miou"], "o-", markersize=3, label="mIoU")
    scores.set(xlabel="epoch", ylabel="validation", ylim=(0, 1))
    trained_on = history["scenes"]
    changes = [i for i in range(1, len(trained_on)) if trained_on[i] != trained_on[i - 1]]
    for axis in (losses, scores):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        for change in [*changes, *restarts]:
            axis.axvline(change + 0.5, color="gray", linestyle="--", linewidth=1)
        axis.legend()
        axis.grid(alpha=0.3)
    _save(figure, name, tight=True)


def show_class_scores(
    scores: dict[str, dict[str, float]], ylabel: str = "IoU", name: str | None = None
) -> None:
    """Bars for each class that occurs, best first by the first of the named series.

    Args:
        scores: series name -> class name -> 0..1, NaN for a class that does not occur; as the iou
            of utils.metrics.SegmentationResult.
        ylabel: what the values are.
    """
    first = next(iter(scores.values()))
    classes = sorted((c for c in first if first[c] == first[c]), key=first.get, reverse=True)
    figure, axis = plt.subplots(figsize=(FIGURE_WIDTH, 3.2))
    width = 0.8 / len(scores)
    for place, (series, values) in enumerate(scores.items()):
        left = [i + (place - (len(scores) - 1) / 2) * width for i in range(len(classes))]
        axis.bar(left, [values[c] for c in classes], width, label=series)
    axis.set(ylabel=ylabel, ylim=(0, 1))
    axis.margins(x=0.01)
    _name_bars(axis, classes)
    axis.grid(axis="y", alpha=0.3)
    # Above the bars, which reach up to 1.
    place = {"loc": "lower right", "bbox_to_anchor": (1, 0.99), "borderaxespad": 0}
    axis.legend(ncols=len(scores), frameon=False, **place)
    _save(figure, name, tight=True)


def show_curves(
    panels: dict[str, dict[str, Sequence[float]]],
    xlabel: str,
    ylabel: str,
    first: int = 1,
    name: str | None = None,
) -> None:
    """Named curves, a panel for each group of them.

    Args:
        panels: title -> label -> values.  Labels that agree up to a comma, such as "ImageNet,
            seed 0", share a colour, and one entry of the legend.
        first: the number of the first value.
    """
    width = FIGURE_WIDTH * (1 if len(panels) > 1 else 0.6)
    figure, axes = plt.subplots(1, len(panels), figsize=(width, 2.6), squeeze=False)
    groups = list(dict.fromkeys(x.split(",")[0] for curves in panels.values() for x in curves))
    for axis, (title, curves) in zip(axes[0], panels.items(), strict=True):
        named = set()
        for label, values in curves.items():
            group = label.split(",")[0]
            steps = range(first, first + len(values))
            shown = {"color": f"C{groups.index(group)}", "markersize": 3}
            axis.plot(steps, values, "o-", label=None if group in named else group, **shown)
            named.add(group)
        axis.set(title=title, xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend()
        axis.grid(alpha=0.3)
    _save(figure, name, tight=True)


def show_confusion(counts: dict[str, Sequence[float]], name: str | None = None) -> None:
    """What the pixels of some classes are taken for, in per cent of each class's pixels.

    Args:
        counts: class -> how many of its pixels were predicted as each of the 34 labels.  Labels
            that are no such class are added up as "others".
    """
    own = [ID[label] for label in counts]
    rows = torch.tensor(list(counts.values())).double()  # (classes, 34)
    others = rows.sum(1) - rows[:, own].sum(1)
    shares = torch.cat([rows[:, own], others[:, None]], 1) / rows.sum(1, keepdim=True) * 100
    figure, axis = plt.subplots(figsize=(FIGURE_WIDTH * 0.7, 0.32 * len(own) + 1.2))
    axis.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for y, row in enumerate(shares.tolist()):
        for x, share in enumerate(row):
            color = "white" if share > 55 else "black" if share >= 0.5 else "gray"
            axis.text(x, y, f"{share:.0f}", ha="center", va="center", fontsize=9, color=color)
    _name_bars(axis, [*counts, "others"])
    pixels = [f"{label} ({int(n):,} pixels)" for label, n in zip(counts, rows.sum(1))]
    axis.set_yticks(range(len(own)), pixels)
    axis.set(xlabel="predicted", ylabel="true")
    _save(figure, name, tight=True)


def show_models(rows: Sequence[dict], name: str | None = None) -> None:
    """Speed and mIoU of networks: a point for each, as large as its number of parameters.

    Args:
        rows: of benchmarks/segmentation_models.json: backbone, head, miou, parameters and
            pictures_a_second of each network.
    """
    figure, axis = plt.subplots(figsize=(FIGURE_WIDTH * 0.6, 3.2))
    for head in dict.fromkeys(row["head"] for row in rows):
        own = [row for row in rows if row["head"] == head]
        speeds, scores = ([row[key] for row in own] for key in ("pictures_a_second", "miou"))
        axis.plot(speeds, scores, "-", alpha=0.3)
        axis.scatter(speeds, scores, [row["parameters"] / 2e5 for row in own], label=head)
        # The first head's names at the right, all others' below: points lie close.
        beside, side = ((9, 0), "left") if head == rows[0]["head"] else ((0, -15), "center")
        for row, *point in zip(own, speeds, scores, strict=True):
            on_white = {"bbox": {"fc": "white", "ec": "none", "pad": 0, "alpha": 0.7}}
            style = {"textcoords": "offset points", "ha": side, "va": "center"} | on_white
            axis.annotate(row["backbone"], point, beside, **style)
    axis.margins(0.2)
    axis.set(xlabel="pictures a second", ylabel="mIoU")
    axis.set_title("area of a point: number of parameters", fontsize=10)
    axis.legend(title="head")
    axis.grid(alpha=0.3)
    _save(figure, name, tight=True)


def show_losses(
    history: dict[str, Sequence[float]], points: int = 100, name: str | None = None
) -> None:
    """The losses of a training of SPADE, a panel each, as means over equal parts of it.

    Args:
        history: loss -> its values in the order of the training, as spade.training returns them.
        points: how many parts.
    """
    figure, axes = plt.subplots(1, len(history), figsize=(FIGURE_WIDTH, 2.4), squeeze=False)
    for axis, (loss, values) in zip(axes[0], history.items(), strict=True):
        stretches = torch.tensor(values).tensor_split(min(points, len(values)))
        places = [(i + 0.5) / len(stretches) for i in range(len(stretches))]
        axis.plot(places, [stretch.mean().item() for stretch in stretches])
        axis.set(title=loss, xlabel="share of the training")
        axis.grid(alpha=0.3)
    _save(figure, name, tight=True)


def show_spread(
    curves: dict[str, torch.Tensor],
    xlabel: str,
    ylabel: str,
    first: int = 1,
    lowest: float = 0,
    name: str | None = None,
) -> None:
    """Named curves with their spread: the mean over scenes, and a band that holds 80 % of them.

    Args:
        curves: (R, B) shares, 0..1: a value for each step and scene; NaN for a scene without one.
        first: the number of the first step.
        lowest: where the axis of the shares begins; it ends at 1.
    """
    figure, axis = plt.subplots(figsize=(FIGURE_WIDTH * 0.6, 3.2))
    for label, values in curves.items():
        steps = range(first, first + len(values))
        low, high = values.nanquantile(torch.tensor([0.1, 0.9]), dim=1).numpy()
        shown = {"markersize": 4, "label": label, "clip_on": False}  # also whole points at 1
        (line,) = axis.plot(steps, values.nanmean(1).numpy(), "o-", **shown)
        axis.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel=xlabel, ylabel=ylabel, ylim=(lowest, 1))
    axis.legend(fontsize=9)
    axis.grid(alpha=0.3)
    _save(figure, name, tight=True)


def show_class_rounds(
    shares: dict[str, torch.Tensor],
    classes: int = 19,
    photos: torch.Tensor | None = None,
    name: str | None = None,
) -> None:
    """What is left of the classes that change most, round after round: a row a class.

    Args:
        shares: title -> (R, 34) shares of the labels, as utils.feedback.class_shares() gives them:
            one panel each.
        classes: how many rows, the most frequent class on top.
        photos: (34,), in how many photos each label occurs, which is shown behind its name.
    """
    starts = torch.stack([values[0] for values in shares.values()])  # (panels, 34)
    ends = torch.stack([values[-1] for values in shares.values()])
    changes = ((ends / starts).clamp(max=2) - 1).abs()
    changes = changes.where(starts > 0, -1).amax(0)  # (34,), -1: not there at the start
    labels = changes.argsort(descending=True, stable=True)[:classes]
    labels = labels[changes[labels] >= 0]
    labels = labels[starts[:, labels].amax(0).argsort(descending=True, stable=True)]
    figure, axes = plt.subplots(
        1, len(shares), figsize=(FIGURE_WIDTH, 0.25 * len(labels) + 0.9), squeeze=False, sharey=True
    )
    for axis, (title, values) in zip(axes[0], shares.items()):
        left = (values / values[0])[:, labels].T  # (classes, R); 0 / 0 stays white
        image = axis.imshow(left.numpy(), cmap="RdYlBu", vmin=0, vmax=2, aspect="auto")
        axis.set(title=title, xlabel="round")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    numbers = ["" if photos is None else f" ({int(photos[i])})" for i in labels]
    names = [NAMES[i] + number for i, number in zip(labels.tolist(), numbers)]
    axes[0, 0].set_yticks(range(len(labels)), names)
    figure.tight_layout()
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_ticks([0, 1, 2], labels=["gone", "as many pixels\nas at the start", "twice or more"])
    _save(figure, name)


def show_channels(rows: dict[str, torch.Tensor], columns: int, name: str | None = None) -> None:
    """The channels of activations (C, H, W) that vary most, one named row each, dark to bright."""
    pictures = {}
    for row, activations in rows.items():
        chosen = activations[activations.flatten(1).std(1).argsort(descending=True)[:columns]]
        low, high = (f(chosen.flatten(1), 1)[:, None, None] for f in (torch.amin, torch.amax))
        gray = ((chosen - low) / (high - low).clamp(min=1e-9) * 255).to(torch.uint8)
        pictures[row] = list(gray[:, None].expand(-1, 3, -1, -1))
    show_grid(pictures, name=name)


def _name_bars(axis, names):
    """Write long names below bars, or below the columns of a table, each ending at its tick."""
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")


def _as_rgb(picture: torch.Tensor):
    """image_u8 (3, H, W), label_ids (H, W) or bool (H, W) -> an array (H, W, 3) for imshow."""
    if picture.dtype == torch.bool:
        picture = picture.to(torch.uint8).mul(255).expand(3, -1, -1)
    elif picture.dim() == 2:
        picture = label_ids_to_colors(picture)
    return picture.permute(1, 2, 0).cpu().numpy()


def _save(figure: plt.Figure, name: str | None, tight: bool = False) -> None:
    if tight:
        figure.tight_layout()
    if name is not None:
        path = PICTURES / f"{name}.jpg"
        with copy_may_fail(path):
            options = {"format": "jpg", "dpi": DPI, "pil_kwargs": JPEG}
            write_atomically(path, lambda part: figure.savefig(part, **options))


def score_colors(scores: torch.Tensor, size: tuple[int, int], limit: float = 1.0) -> torch.Tensor:
    """Colour a grid of scores (h, w): orange above 0, white at 0, blue below -> image_u8.

    Args:
        size: (width, height) of the result; each score becomes a rectangle.
        limit: scores from here on, and from -limit down, have the full colour.
    """
    shares = (scores.detach().cpu() / (2 * limit) + 0.5).clamp(0, 1)
    colors = torch.from_numpy(plt.get_cmap("PuOr_r")(shares.numpy()))[..., :3]  # (h, w, 3)
    picture = (colors * 255).round().to(torch.uint8).permute(2, 0, 1)
    return interpolate(picture[None], (size[1], size[0]))[0]
