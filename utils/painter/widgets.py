"""Widgets: the painter of notebook 07, and the explorers of notebooks 03 to 05.

    StreetPainter({"toy": generator}, {"empty": empty_street(generator.size)})
    explore_classes(scenes, generator)
    explore_feedback(pipeline, scenes)

A widget only shows things and takes clicks: painting.py and utils.pipeline do the work, and don't
need it.  It uses what ipywidgets 7 (Colab) and 8 share.  In Colab anywidget itself turns the custom
widget manager on, without which only ipywidgets' own widgets are shown.
"""

import base64
import html
import io
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import anywidget
import ipywidgets
import torch
import traitlets
from PIL import Image

from spade import SpadeGenerator
from spade.generator import MEAN_STYLE
from utils.labels import BENCHMARK_NAMES, COLORS, label_ids_to_colors
from utils.painter.painting import (
    PAINTINGS,
    Painting,
    at_size,
    class_id,
    class_names,
    daylight,
    draw_street,
    remove_class,
    save_street,
    styles_by_city,
    swap_class,
)
from utils.pipeline import Pipeline, agreement
from utils.scenes import Scenes
from utils.segmentation import SegmentationNet

REMOVED = "nothing (removed)"
TRUE_MAP = "the true map"


def png(picture: torch.Tensor) -> bytes:
    """image_u8 (3, H, W), or label_ids (H, W) in their colours, as the bytes of a PNG file."""
    image_u8 = label_ids_to_colors(picture) if picture.dim() == 2 else picture
    file = io.BytesIO()
    Image.fromarray(image_u8.movedim(0, -1).cpu().numpy()).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _url(picture: torch.Tensor) -> str:
    # Text, not bytes, because every front end transmits it unchanged.
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()


# ------------------------------------------------------------------------------ the painter


def paint_events(painting: Painting, events: Sequence[dict]) -> None:
    """Apply what the mouse did to a painting, in order.

    Args:
        painting: it is changed.
        events: each has "do" and what that needs: "paint" (name, size, points), "erase" (size,
            points), "fill" (name, point), "undo", "start over".  A stroke that goes on where the
            one before it ended has "continues": True.

    Raises ValueError: something else to do, or see the methods of Painting.
    """
    for event in events:
        do, continues = event["do"], event.get("continues", False)
        if do == "paint":
            painting.paint(event["points"], event["name"], event["size"], continues)
        elif do == "erase":
            painting.erase(event["points"], event["size"], continues)
        elif do == "fill":
            painting.fill(event["point"], event["name"])
        elif do == "undo":
            painting.undo()
        elif do == "start over":
            painting.start_over()
        else:
            raise ValueError(
                f"There is no {do!r}: expected paint, erase, fill, undo or start over."
            )


class PaintCanvas(anywidget.AnyWidget):
    """The part of the painter that is drawn by painter.js.

    Attributes:
        size: (width, height) of the map in pixels.
        brushes: (class name, "#rrggbb") of each brush.
        map_url, picture_url: the pictures shown, as data: addresses.
        message: a line below them.
        request: what the browser asks for: {"number": ..., "events": see paint_events}.
        answered: the number of the last request that was dealt with; the browser waits for it.
    """

    _esm = Path(__file__).with_name("painter.js")
    _css = Path(__file__).with_name("painter.css")

    size = traitlets.List(traitlets.Int()).tag(sync=True)
    brushes = traitlets.List().tag(sync=True)
    map_url = traitlets.Unicode().tag(sync=True)
    picture_url = traitlets.Unicode().tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)
    request = traitlets.Dict().tag(sync=True)
    answered = traitlets.Float().tag(sync=True)


class StreetPainter(ipywidgets.VBox):
    """Paint a label map with the mouse and see the street that a generator makes of it.

    Args:
        generators: by the names that they are chosen by.  The map has the first one's size; for
            one of another size it is resized.
        starts: label_ids (H, W) to start from, by name; each has the shape of the picture.
        brushes: the classes that can be painted.
        folder: where "Save" puts map and picture.

    Attributes:
        painting: the Painting; after changing it in a cell, call refresh().
        canvas, controls: the parts that are clicked; the latter by name.
        label_ids: (H, W) uint8, the map as it is now.
        image_u8: (3, H, W) uint8, the street as it is now.

    Raises ValueError: no generator, start or brush; an unknown class; a start map of another shape.
    """

    def __init__(
        self,
        generators: dict[str, SpadeGenerator],
        starts: dict[str, torch.Tensor],
        brushes: Sequence[str] = BENCHMARK_NAMES,
        folder: str | Path = PAINTINGS,
    ):
        for what, given in (("generator", generators), ("start", starts), ("brush", brushes)):
            if not given:
                raise ValueError(f"There is no {what}: give the painter at least one.")
        colors = ["#{:02x}{:02x}{:02x}".format(*COLORS[class_id(name)]) for name in brushes]
        self._generators, self._folder = generators, Path(folder)
        size = next(iter(generators.values())).size
        self._starts = {
            name: at_size(ids, size, f"the start map {name!r}") for name, ids in starts.items()
        }
        self.painting = Painting(next(iter(self._starts.values())))

        self.controls = {
            "start": ipywidgets.Dropdown(description="start from", options=list(starts)),
            "generator": ipywidgets.Dropdown(description="generator", options=list(generators)),
            "city": ipywidgets.Dropdown(description="city"),
            "hour": ipywidgets.Dropdown(description="hour"),
            "name": ipywidgets.Text(description="name", value="my street"),
            "save": ipywidgets.Button(
                description="Save map and picture", icon="save", layout={"width": "auto"}
            ),
        }
        self.canvas = PaintCanvas(size=list(size), brushes=list(zip(brushes, colors)))
        start, generator, city, hour, name, save = self.controls.values()
        super().__init__([_row(start, generator, city, hour), self.canvas, _row(name, save)])
        self._offer_styles()
        start.observe(self._on_start, "value")
        generator.observe(self._on_generator, "value")
        city.observe(self._on_city, "value")
        hour.observe(self._on_hour, "value")
        save.on_click(lambda button: self._try(self._save))
        self.canvas.observe(self._on_request, "request")
        self.refresh()

    @property
    def label_ids(self) -> torch.Tensor:
        return self.painting.label_ids

    @property
    def _generator(self) -> SpadeGenerator:
        return self._generators[self.controls["generator"].value]

    def refresh(self) -> None:
        """Show the painting and draw its street.

        Raises ValueError: the generator refuses the map.
        """
        self.canvas.map_url = _url(self.label_ids)
        self._draw()

    def _draw(self) -> None:
        city, hour = (self.controls[name].value for name in ("city", "hour"))
        style = self._styles[city][hour]
        self.image_u8 = draw_street(self._generator, self.label_ids, style)
        self.canvas.picture_url = _url(self.image_u8)

    def _save(self) -> None:
        self._draw()  # so that map and picture fit, even if the last picture failed
        name = self.controls["name"].value
        files = save_street(self.label_ids, self.image_u8, name, self._folder)
        self.canvas.message = f"Saved in {self._folder}: {', '.join(file.name for file in files)}"

    def _on_request(self, change) -> None:
        with self.canvas.hold_sync():  # the answer goes out all at once
            try:
                # One by one, so that an event that fails does not stop the others.
                events = [[event] for event in change["new"]["events"]]
                self._try(*(partial(paint_events, self.painting, x) for x in events), self.refresh)
            finally:
                self.canvas.answered = change["new"]["number"]

    def _on_start(self, change) -> None:
        self._try(lambda: self.painting.start_over(self._starts[change["new"]]), self.refresh)

    def _offer_styles(self) -> None:
        """Offer the generator's cities, and the hours of the chosen one: by daylight at first."""
        self._styles, bright = styles_by_city(self._generator), daylight(self._generator)
        city, hour = next((c, h) for c, x in self._styles.items() for h in x if x[h] == bright)
        self._is_offering = True  # so that no picture is drawn in between
        _offer(self.controls["city"], list(self._styles), city)
        _offer(self.controls["hour"], list(self._styles[self.controls["city"].value]), hour)
        self._is_offering = False

    def _on_generator(self, change) -> None:
        self._offer_styles()
        self._try(self._draw)

    def _on_city(self, change) -> None:
        if not self._is_offering:
            self._is_offering = True
            _offer(self.controls["hour"], list(self._styles[change["new"]]))
            self._is_offering = False
            self._try(self._draw)

    def _on_hour(self, change) -> None:
        if not self._is_offering:
            self._try(self._draw)

    def _try(self, *actions: Callable[[], None]) -> None:
        """Call all of them; errors are shown below the map, where a callback's traceback is not."""
        self.canvas.message = ""
        for action in actions:
            try:
                action()
            except (ValueError, OSError, RuntimeError) as error:  # Runtime: the GPU is full, say
                self.canvas.message = str(error)

    def __repr__(self) -> str:  # the same for every ipywidgets: committed outputs hold it
        width, height = self.painting.size
        return f"StreetPainter({width}x{height})"


def _offer(control: ipywidgets.Dropdown, options: list[str], preferred: str | None = None) -> None:
    """Give a list new options; what was chosen stays where it can, else the preferred or first."""
    kept = control.value
    control.options = options
    control.value = next(x for x in (kept, preferred, options[0]) if x in options)


def _row(*children: ipywidgets.Widget) -> ipywidgets.HBox:
    """Side by side, or one below the other where the page is narrow."""
    return ipywidgets.HBox(children, layout=ipywidgets.Layout(flex_flow="row wrap"))


# ------------------------------------------------------------------------------ the explorers


class Explorer(ipywidgets.VBox):
    """Controls, and pictures below them that change with every control.

    Args:
        draw: called with the controls' values by name, gives the pictures by title, image_u8
            (3, H, W) or label_ids (H, W), and a sentence about them; the titles stay the same.  Its
            ValueErrors are shown in place of the sentence.
        controls: ipywidgets by the name of draw's argument.

    Attributes:
        controls: as given.
        pictures: title -> the tensor shown, as it is now.
        images: title -> the ipywidgets.Image that shows it.
        sentence: the ipywidgets.HTML below, which breaks long lines.
    """

    def __init__(
        self,
        draw: Callable[..., tuple[dict[str, torch.Tensor], str]],
        controls: dict[str, ipywidgets.Widget],
    ):
        self.draw, self.controls = draw, controls
        self.pictures, self.sentence = {}, ipywidgets.HTML()
        for control in controls.values():
            control.observe(self._refresh, "value")
        pictures, sentence = draw(**self._values())
        # two beside each other, as wide as the page lets them be
        half = ipywidgets.Layout(width="49%", max_width="560px", margin="2px")
        whole = ipywidgets.Layout(width="100%")
        self.images = {title: ipywidgets.Image(format="png", layout=whole) for title in pictures}
        self._show(pictures, sentence)
        boxes = [
            ipywidgets.VBox([ipywidgets.Label(title), image], layout=half)
            for title, image in self.images.items()
        ]
        rows = [ipywidgets.HBox(boxes[i : i + 2]) for i in range(0, len(boxes), 2)]
        super().__init__([_row(*controls.values()), *rows, self.sentence])

    def _values(self) -> dict:
        return {name: control.value for name, control in self.controls.items()}

    def _refresh(self, change) -> None:
        self.sentence.value = "Computing ..."
        try:
            self._show(*self.draw(**self._values()))
        except ValueError as error:
            self.sentence.value = html.escape(str(error), quote=False)

    def _show(self, pictures: dict[str, torch.Tensor], sentence: str) -> None:
        self.pictures, self.sentence.value = pictures, html.escape(sentence, quote=False)
        for title, picture in pictures.items():
            self.images[title].value = png(picture)

    def __repr__(self) -> str:  # the same for every ipywidgets: committed outputs hold it
        return f"Explorer({', '.join(self.controls)})"


def explore_classes(
    scenes: Scenes, generator: SpadeGenerator, segmenter: SegmentationNet | None = None
) -> Explorer:
    """What if the cars were buses?  Swap or remove a class of a scene's map and see the street.

    Without widgets: utils.painter.painting.swap_class, remove_class and draw_street.

    Args:
        scenes: the streets to choose from, of the generator's shape.
        generator: what draws them.
        segmenter: also shows the map that this network sees in the changed street.
    """
    present = class_names(scenes[0].label_ids)
    known = [name for name in BENCHMARK_NAMES if name in present] or [BENCHMARK_NAMES[0]]
    controls = {
        "scene": _scene_choice(scenes),
        "name": ipywidgets.Dropdown(
            description="every",
            options=list(BENCHMARK_NAMES),
            value="car" if "car" in known else known[0],
        ),
        "becomes": ipywidgets.Dropdown(
            description="becomes", options=[REMOVED, *BENCHMARK_NAMES], value="bus"
        ),
        "style": ipywidgets.Dropdown(
            description="style",
            options=[*generator.styles, MEAN_STYLE],
            value=daylight(generator),
        ),
    }

    def draw(scene: int, name: str, becomes: str, style: str):
        label_ids = scenes[scene].label_ids
        try:
            if becomes == REMOVED:
                changed_ids = remove_class(label_ids, name)
            else:
                changed_ids = swap_class(label_ids, name, becomes)
            share = (label_ids == class_id(name)).float().mean()
            sentence = f"{name} becomes {becomes}: {share:.1%} of the pixels."
        except ValueError as error:  # no such class in this scene
            changed_ids, sentence = label_ids, str(error)
        pictures = {
            "the map": label_ids,
            "the street": draw_street(generator, label_ids, style),
            "the map, changed": changed_ids,
            "the street, changed": draw_street(generator, changed_ids, style),
        }
        if segmenter is not None:
            streets = [pictures["the street"], pictures["the street, changed"]]
            seen_ids = segmenter.predict(torch.stack(streets)).cpu()
            pictures["what the network sees"], pictures["what it sees, changed"] = seen_ids
        return pictures, sentence

    return Explorer(draw, controls)


def explore_feedback(pipeline: Pipeline, scenes: Scenes, rounds: int = 6) -> Explorer:
    """Feed a scene's picture back in, round after round, and go to any of the rounds.

    Without widgets: pipeline.feedback(image_u8, rounds)[round - 1], and with the true map as
    label_ids to start from that.

    Args:
        pipeline: segmentation network and generator.
        scenes: the streets to choose from, of the generator's shape.
        rounds: how many there are to look at, 1 or more.
    """

    @lru_cache(maxsize=8)
    def results_of(scene: int, start: str):
        label_ids = scenes[scene].label_ids if start == TRUE_MAP else None
        return pipeline.feedback(scenes[scene].image_u8, rounds, label_ids)

    def draw(scene: int, start: str, round: int):
        results = results_of(scene, start)
        result = results[round - 1]
        step, whole = (
            agreement(label_ids, result.generated_label_ids).item()
            for label_ids in (result.label_ids, results[0].label_ids)
        )
        pictures = {
            "the photo that goes in": result.image_u8,
            "its map": result.label_ids,
            "the photo that SPADE draws": result.generated_u8,
            "the map of that": result.generated_label_ids,
        }
        sentence = (
            f"Round {round}: the new map agrees with the one before in {step:.1%} of the pixels, "
            f"with the first one in {whole:.1%}."
        )
        return pictures, sentence

    controls = {
        "scene": _scene_choice(scenes),
        "start": ipywidgets.Dropdown(description="start from", options=["the photo", TRUE_MAP]),
        "round": ipywidgets.IntSlider(description="round", min=1, max=rounds, value=1),
    }
    return Explorer(draw, controls)


def _scene_choice(scenes: Scenes) -> ipywidgets.Dropdown:
    options = [(name, index) for index, name in enumerate(scenes.names)]
    return ipywidgets.Dropdown(description="scene", options=options, value=0)
