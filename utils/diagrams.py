"""Diagrams of the networks and of their training: boxes with arrows, drawn by matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
from torch import Tensor, nn

from utils.labels import label_ids_to_colors
from utils.plots import DPI, FIGURE_WIDTH, GAP, pixel_axes

# What a box stands for: its fill colour, and what the key below a diagram calls it.
KINDS = {
    "data": ("#e8f0fe", "data"),
    "learns": ("#fde9d0", "is trained"),
    "fixed": ("#eeeeee", "is not trained"),
    "loss": ("#f9d6d5", "loss"),
    "update": ("#d9ead3", "change of the weights"),
}
OUTLINE = {"ec": "#555555", "lw": 1}
HALF = 0.36  # of a box's height, in rows
KEY_HEIGHT = 24  # pixels


@dataclass(frozen=True)
class Box:
    """A box of a diagram.

    Attributes:
        x, y: of its centre, in columns and rows; y grows downwards.
        text: in it; lines are separated by newlines.
        kind: one of KINDS.
        width: in columns.
    """

    x: float
    y: float
    text: str
    kind: str = "data"
    width: float = 0.8


def show_diagram(
    boxes: dict[str, Box], arrows: Sequence[tuple[str, str] | tuple[str, str, str]]
) -> None:
    """Draw boxes, the arrows between them, and a key of their colours.

    Args:
        boxes: by name.
        arrows: names of two boxes each, and a text beside the arrow if there is one.

    Raises KeyError for an arrow to a box that is not there.
    """
    left = min(box.x - box.width / 2 for box in boxes.values()) - 0.1
    right = max(box.x + box.width / 2 for box in boxes.values()) + 0.1
    top, bottom = (f(box.y for box in boxes.values()) for f in (min, max))
    width, height = FIGURE_WIDTH * DPI, round(95 * (bottom - top + 1))
    figure = plt.figure(figsize=(FIGURE_WIDTH, (height + KEY_HEIGHT) / DPI))
    axis = pixel_axes(figure, 0, 0, width, height)
    axis.set(xlim=(left, right), ylim=(bottom + 0.5, top - 0.5))
    for box in boxes.values():
        corner = box.x - box.width / 2, box.y - HALF
        axis.add_patch(plt.Rectangle(corner, box.width, 2 * HALF, fc=KINDS[box.kind][0], **OUTLINE))
        axis.text(box.x, box.y, box.text, ha="center", va="center", fontsize=10)
    for start, end, *label in arrows:
        _draw_arrow(axis, boxes[start], boxes[end], *label)
    used = {box.kind for box in boxes.values()}
    colors, names = zip(*(look for kind, look in KINDS.items() if kind in used))
    samples = [plt.Rectangle((0, 0), 1, 1, fc=color, **OUTLINE) for color in colors]
    style = {"loc": "lower center", "ncols": len(names), "frameon": False, "fontsize": 9}
    figure.legend(samples, names, borderpad=0, **style)


def _draw_arrow(axis: plt.Axes, a: Box, b: Box, label: str = "") -> None:
    """Draw an arrow from a to b, and its label above it or, if it points up or down, beside it."""
    if abs(a.y - b.y) < 2 * HALF:  # side by side
        sign = 1 if b.x > a.x else -1
        tail, tip = (a.x + sign * a.width / 2, a.y), (b.x - sign * b.width / 2, b.y)
        beside, where = (0, 2), {"ha": "center", "va": "bottom"}
    else:
        sign = 1 if b.y > a.y else -1
        tail, tip = (a.x, a.y + sign * HALF), (b.x, b.y - sign * HALF)
        beside, where = (6, 0), {"ha": "left", "va": "center"}
    style = {"arrowstyle": "-|>", "color": "#555555", "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", tip, tail, arrowprops=style)
    if label:
        middle = (tail[0] + tip[0]) / 2, (tail[1] + tip[1]) / 2
        axis.annotate(label, middle, beside, textcoords="offset points", fontsize=9, **where)


def _arrows(ways: str) -> list[tuple[str, str]]:
    """Read "a b, b c" as arrows from a to b and from b to c."""
    return [tuple(way.split()) for way in ways.split(", ")]


def show_training_step() -> None:
    """One step of training: forward, loss, backward, step."""
    boxes = {
        "photo": Box(0, 0, "photo"),
        "network": Box(1.2, 0, "network\n(weights)", "learns"),
        "scores": Box(2.4, 0, "scores of\n34 labels"),
        "loss": Box(3.6, 0, "loss\n(one number)", "loss"),
        "map": Box(4.8, 0, "true\nlabel map"),
        "gradients": Box(3.6, 1.1, "a gradient for\neach weight", width=1),
        "optimizer": Box(1.2, 1.1, "optimizer\n(Adam)", "fixed"),
    }
    arrows = [
        ("photo", "network"),
        ("network", "scores", "1 forward"),
        ("scores", "loss"),
        ("map", "loss"),
        ("loss", "gradients", "2 backward"),
        ("gradients", "optimizer"),
        ("optimizer", "network", "3 step"),
    ]
    show_diagram(boxes, arrows)


def show_fcn() -> None:
    """The FCN of notebook 02: an encoder, a 1x1 convolution at each stride, scores added up.

    The enlargements, "x2", are transposed convolutions, which are trained, too.
    """
    strides = (2, 4, 8, 16, 32)
    boxes = {"photo": Box(0, 0, "photo\nstride 1"), "map": Box(0, 2.2, "scores\nof all pixels")}
    arrows = []
    for x, stride in enumerate(strides, 1):
        boxes |= {
            f"features {stride}": Box(x, 0, f"encoder:\nstride {stride}", "learns"),
            f"score {stride}": Box(x, 1.1, "1x1\nconvolution", "learns"),
            f"sum {stride}": Box(x, 2.2, f"scores\nstride {stride}"),
        }
        before = f"features {stride // 2}" if x > 1 else "photo"
        below = f"sum {stride // 2}" if x > 1 else "map"
        arrows += [
            (before, f"features {stride}"),
            (f"features {stride}", f"score {stride}"),
            (f"score {stride}", f"sum {stride}", "" if stride == 32 else "+"),
            (f"sum {stride}", below, "x2"),
        ]
    show_diagram(boxes, [arrow if arrow[-1] else arrow[:2] for arrow in arrows])


def show_spade_layer() -> None:
    """Draw a SPADE layer: what happens to the features, and what comes from the label map."""
    boxes = {
        "x": Box(0, 0, "features x\n(C, h, w)"),
        "norm": Box(1.2, 0, "batch norm:\nmean 0, deviation 1", "fixed", 1.1),
        "scale": Box(2.6, 0, "times\n(1 + gamma)", "fixed"),
        "shift": Box(3.8, 0, "plus\nbeta", "fixed"),
        "out": Box(5, 0, "features\n(C, h, w)"),
        "gamma": Box(2.6, 1, "3x3 convolution:\ngamma (C, h, w)", "learns", 1.1),
        "beta": Box(3.8, 1, "3x3 convolution:\nbeta (C, h, w)", "learns", 1.1),
        "hidden": Box(3.2, 2, "3x3 convolution, ReLU:\nhidden layer", "learns", 1.4),
        "map": Box(1.2, 2, "label map, shrunk to h x w:\n36 planes", "data", 1.5),
    }
    ways = "x norm, norm scale, scale shift, shift out, map hidden, hidden gamma, hidden beta, "
    show_diagram(boxes, _arrows(ways + "gamma scale, beta shift"))


def show_spade_block() -> None:
    """Draw a residual block of the generator: two SPADE layers and convolutions, and a shortcut."""
    boxes = {
        "x": Box(0, 0.5, "features x"),
        "norm_0": Box(1.1, 1, "SPADE\nnorm_0", "learns"),
        "conv_0": Box(2.2, 1, "leaky ReLU,\n3x3: conv_0", "learns"),
        "norm_1": Box(3.3, 1, "SPADE\nnorm_1", "learns"),
        "conv_1": Box(4.4, 1, "leaky ReLU,\n3x3: conv_1", "learns"),
        "sum": Box(5.5, 0.5, "sum", "fixed"),
        "shortcut": Box(
            2.75, 0, "shortcut: x itself, or, if the number of channels changes,\n"
            "SPADE (norm_s) and a 1x1 convolution (conv_s)", "learns", 3.2,
        ),
        "map": Box(2.75, 2, "label map"),
    }  # fmt: skip
    ways = "x norm_0, norm_0 conv_0, conv_0 norm_1, norm_1 conv_1, conv_1 sum, x shortcut, "
    show_diagram(boxes, _arrows(ways + "shortcut sum, map norm_0, map norm_1, map shortcut"))


def show_generator(generator: nn.Module) -> None:
    """Draw a generator: its blocks with their sizes and channels, and the map that each one sees.

    Args:
        generator: a SpadeGenerator without a latent.
    """
    width, height = (side // generator.factor for side in generator.size)
    first = f"fc: 3x3\nconvolution\n{width}x{height}"
    boxes = {"start": Box(0, 0, first, "learns"), "map": Box(0, 1, f"map\n{width}x{height}")}
    arrows, before = [("map", "start")], "start"
    for column, (name, enlargement) in enumerate(generator.enlargements.items(), 1):
        width, height = width * enlargement, height * enlargement
        channels = len(getattr(generator, name).conv_1.bias)
        boxes[name] = Box(column, 0, f"{name}\n{width}x{height}\n{channels} ch.", "learns")
        boxes[f"map {name}"] = Box(column, 1, f"map\n{width}x{height}")
        arrows += [(before, name), (f"map {name}", name)]
        before = name
    boxes["image"] = Box(len(boxes) // 2, 0, "3x3 conv.,\ntanh:\nimage", "learns")
    show_diagram(boxes, [*arrows, (before, "image")])


def show_discriminator() -> None:
    """Draw the discriminator of two scales: what goes in, its layers, and what comes out."""
    boxes = {
        "map": Box(-0.2, 0, "label map\n36 planes", width=1.06),
        "image": Box(-0.2, 1, "photo or\ngenerated image", width=1.06),
        "both": Box(1, 0.5, "joined:\n39 planes"),
        "1": Box(2, 0, "4x4, stride 2\nndf channels", "learns"),
        "2": Box(3, 0, "4x4, stride 2\n2 ndf", "learns"),
        "3": Box(4, 0, "4x4, stride 2\n4 ndf", "learns"),
        "4": Box(5, 0, "4x4, stride 1\n8 ndf", "learns"),
        "5": Box(6, 0, "4x4, stride 1\n1 channel", "learns"),
        "score": Box(7.1, 0, "a score for\neach patch", width=1),
        "half": Box(2, 1, "half the size", "fixed"),
        "coarse": Box(4.5, 1, "five layers of the same kind, with other weights", "learns", 3.8),
        "coarse score": Box(7.1, 1, "a score for each\nlarger patch", width=1),
    }
    ways = "map both, image both, both 1, 1 2, 2 3, 3 4, 4 5, 5 score, both half, half coarse"
    show_diagram(boxes, [*_arrows(ways), ("coarse", "coarse score")])


def show_adversarial_step() -> None:
    """Draw a step of the training: the generator's half above, the discriminator's below."""
    boxes = {
        "given": Box(0, 0, "photo,\nlabel map"),
        "network": Box(1.1, 0, "encoder and\ngenerator", "learns"),
        "image": Box(2.2, 0, "generated\nimage"),
        "judge": Box(3.3, 0, "discriminator", "fixed"),
        "losses": Box(4.6, 0, "hinge, matching,\nperceptual, KL", "loss", 1),
        "step": Box(5.9, 0, "step of encoder\nand generator", "update", 1),
        "given 2": Box(1.1, 1, "photo,\nlabel map"),
        "image 2": Box(2.2, 1, "both, the image\nas a constant"),
        "judge 2": Box(3.3, 1, "discriminator", "learns"),
        "losses 2": Box(4.6, 1, "hinge", "loss", 1),
        "step 2": Box(5.9, 1, "step of the\ndiscriminator", "update", 1),
    }
    row = ["given", "network", "image", "judge", "losses", "step"]
    arrows = [*zip(row, row[1:]), ("image", "image 2"), ("given 2", "image 2")]
    row = ["image 2", "judge 2", "losses 2", "step 2"]
    show_diagram(boxes, [*arrows, *zip(row, row[1:])])


def show_encoder() -> None:
    """Draw the encoder, and how a latent is drawn from what it says of a photo."""
    boxes = {
        "photo": Box(0, 0.5, "photo"),
        "layers": Box(1.1, 0.5, "six convolutions\nof stride 2", "learns", 0.9),
        "says": Box(2.3, 0.5, "mean, log variance\nof each number of z", width=1.1),
        "kl": Box(2.3, 1.6, "KL: how far from\nmean 0, variance 1", "loss", 1.1),
        "noise": Box(3.6, 1.6, "random noise", width=1),
        "z": Box(3.6, 0.5, "z = mean +\ndeviation x noise", width=1),
        "map": Box(4.8, 1.6, "label map"),
        "generator": Box(4.8, 0.5, "generator", "learns"),
        "image": Box(5.9, 0.5, "generated\nimage"),
    }
    ways = "photo layers, layers says, says z, says kl, noise z, z generator, map generator, "
    show_diagram(boxes, _arrows(ways + "generator image"))


def show_pixel_discriminator() -> None:
    """Draw the discriminator that classifies every pixel."""
    boxes = {
        "image": Box(0, 0, "photo or\ngenerated image", width=1),
        "backbone": Box(1.2, 0, "ImageNet\nnetwork, frozen", "fixed", 1),
        "maps": Box(2.4, 0, "feature maps of\nstrides 32 to 2", width=1),
        "decoder": Box(3.6, 0, "decoder: six\nresidual blocks", "learns", 1),
        "scores": Box(4.8, 0, "35 scores for\neach pixel", width=1),
        "loss": Box(6.2, 0, "right: the label for a\nphoto, else \u201cfake\u201d", "loss", 1.3),
    }
    row = list(boxes)
    show_diagram(boxes, [*zip(row, row[1:])])


def show_painter(
    lists: dict[str, str],
    brushes: Sequence[tuple[str, str]],
    label_ids: Tensor,
    image_u8: Tensor,
) -> None:
    """Draw the painter of notebook 07 as it looks, for pages on which no widget lives.

    Args:
        lists: description -> what is chosen, of each list of choices.
        brushes: (class name, "#rrggbb") of each.
        label_ids, image_u8: (H, W) and (3, H, W) uint8, the map and its street.
    """
    side, high = (2 * length for length in reversed(label_ids.shape))
    full, lines = 2 * side + GAP, -(-len(brushes) // 10)
    figure = plt.figure(figsize=(full / DPI, (40 + high + GAP + 28 * lines) / DPI))
    top = pixel_axes(figure, 0, 0, full, 32)
    top.set(xlim=(0, len(lists)), ylim=(0, 1))
    for place, (description, chosen) in enumerate(lists.items()):
        top.add_patch(plt.Rectangle((place + 0.32, 0.08), 0.66, 0.84, fc="white", ec="#999999"))
        top.text(place + 0.3, 0.5, description, ha="right", va="center", fontsize=9)
        top.text(place + 0.34, 0.5, chosen, va="center", fontsize=9)
    left = pixel_axes(figure, 0, 40, side, high)
    left.imshow(label_ids_to_colors(label_ids).permute(1, 2, 0).numpy(), interpolation="nearest")
    right = pixel_axes(figure, side + GAP, 40, side, high)
    right.imshow(image_u8.permute(1, 2, 0).numpy(), interpolation="lanczos")
    bottom = pixel_axes(figure, 0, 40 + high + GAP, full, 28 * lines)
    bottom.set(xlim=(0, 10), ylim=(lines, 0))
    for place, (brush, color) in enumerate(brushes):
        x, y = place % 10, place // 10
        bottom.add_patch(plt.Rectangle((x + 0.03, y + 0.12), 0.16, 0.76, color=color))
        bottom.text(x + 0.24, y + 0.5, brush, va="center", fontsize=9)
