#!/usr/bin/env python3
"""Record README's two moving pictures anew: docs/painting.webp, docs/noon_to_night.webp.

    python tools/record_moving_pictures.py                   # both; needs chromium, and npm once
    python tools/record_moving_pictures.py noon_to_night     # one of them

painting.webp is the page in a headless Chromium, used by a script: every frame is a screenshot,
and the time that the network takes is left out.  noon_to_night.webp is one map, drawn by both
generators in the styles that are named and in those between them.  What the generator of real
streets draws is CC BY-NC-SA 4.0, as the generator is; the map is from the Drive.ai Sample Dataset,
CC BY 4.0.
"""

import argparse
import io
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project, not installed
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from browser import chromium, find_browser
from local_server import local_site

import spade
from tools import build_page
from utils.files import PROJECT
from utils.images import read_map
from utils.weights import find_weights

MAX_BYTES = 1_500_000
START = "California 1"

# ------------------------------------------------------------------------------ painting a street

WINDOW = {"width": 920, "height": 760}
STEP, REST = 90, 900  # milliseconds that a frame is shown

# A ring where the mouse is, which screenshots don't show; and no line that names seconds.
POINTER = """
document.querySelector(".status").style.display = "none";
const ring = document.body.appendChild(document.createElement("div"));
Object.assign(ring.style, {
    position: "fixed", width: "20px", height: "20px", margin: "-10px", borderRadius: "50%",
    border: "2px solid white", background: "#1a5fd080", boxShadow: "0 0 3px black",
    pointerEvents: "none", zIndex: 9, left: "0", top: "0",
});
addEventListener("pointermove", ({ clientX, clientY }) =>
    Object.assign(ring.style, { left: `${clientX}px`, top: `${clientY}px` }));
"""


class Recorder:
    """The page, and the frames that were taken of it: [(picture, milliseconds)]."""

    def __init__(self, page):
        self.page = page
        self.frames: list[tuple[Image.Image, int]] = []
        tools = page.get_by_role("group", name="classes to paint").bounding_box()
        box = page.locator("main").bounding_box()
        bottom = tools["y"] + tools["height"] + 14
        self.clip = box | {"height": bottom - box["y"]}

    def take(self, milliseconds: int = STEP) -> None:
        """Wait for the picture of what was painted, then take a frame."""
        self.page.locator("body[data-waiting=no]").wait_for()
        content = self.page.screenshot(clip=self.clip)
        self.frames.append((Image.open(io.BytesIO(content)).convert("RGB"), milliseconds))

    def go(self, x: float, y: float) -> None:
        """Move the mouse to a point of the map, shares of its width and height."""
        box = self.page.locator("canvas.painter-map").bounding_box()
        self.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])

    def press(self, button: str) -> None:
        place = self.page.get_by_role("button", name=button, exact=True)
        place.hover()
        self.take(2 * STEP)
        place.click()
        self.take(4 * STEP)

    def brush(self, name: str, size: int) -> None:
        self.page.get_by_label("brush size in pixels").fill(str(size))
        self.press(name)

    def stroke(self, *points: tuple[float, float], steps: int = 5) -> None:
        """Paint from point to point, with a frame at each step."""
        self.go(*points[0])
        self.take()
        self.page.mouse.down()
        for (x0, y0), (x1, y1) in zip(points, points[1:]):
            for step in range(1, steps + 1):
                share = step / steps
                self.go(x0 + share * (x1 - x0), y0 + share * (y1 - y0))
                self.take()
        self.page.mouse.up()

    def choose(self, **lists: str) -> None:
        for name, option in lists.items():
            self.page.locator(f"#{name}").select_option(option)
        self.take(REST)


def paint(record: Recorder) -> None:
    """What is painted into California 1, and how it is drawn then."""
    record.take(REST)
    record.brush("building", 26)
    record.stroke((0.02, 0.2), (0.02, 0.44), (0.12, 0.44), (0.12, 0.26), (0.2, 0.36), (0.2, 0.44))
    record.take(REST)
    record.brush("vegetation", 15)
    record.stroke((0.27, 0.42), (0.33, 0.33), (0.31, 0.46), (0.26, 0.48))
    record.take(REST)
    record.brush("car", 14)
    record.stroke((0.47, 0.66), (0.58, 0.66), steps=4)
    record.brush("car", 9)
    record.stroke((0.49, 0.59), (0.56, 0.59), steps=3)
    record.take(REST)
    record.press("Fill")
    record.press("terrain")
    record.go(0.79, 0.54)
    record.take(2 * STEP)
    record.page.mouse.down()
    record.page.mouse.up()
    record.take(REST)
    record.page.mouse.move(0, 0)
    options = record.page.locator("#city option").evaluate_all("all => all.map((o) => o.value)")
    for city in options[1:]:
        if city != build_page.ANY:
            record.choose(city=city)
    record.choose(generator=build_page.TITLES["toy"])
    for hour in ("dusk", "night"):
        record.choose(hour=hour)
    record.take(REST)


def record_painting() -> list[tuple[Image.Image, int]]:
    browser = find_browser()
    if browser is None:
        sys.exit("There is no browser: sudo apt-get install chromium")
    with (
        tempfile.TemporaryDirectory() as own,
        local_site() as server,
        chromium(browser, Path(own) / "profile") as context,
    ):
        server.add_folder(build_page.build(Path(own) / "site", "local"))
        page = context.new_page()
        page.set_viewport_size(WINDOW)
        page.goto(f"{server.url}/")
        page.locator("body[data-pictures='1'][data-waiting=no]").wait_for()
        if page.locator("#start").input_value() != START:
            sys.exit(f'The page does not open with "{START}": is its photo in data/streets?')
        page.evaluate(POINTER)
        record = Recorder(page)
        paint(record)
        return record.frames


# ------------------------------------------------------------------------------ through the styles

SHOWN = (416, 208)  # width and height of each street
BETWEEN = 6  # frames from one style to the next
# From noon to night and back, through four cities; beside each two of them a style of real streets.
TOY_STOPS = (
    "Sonnental, noon", "Sonnental, dusk", "Glasquai, dusk", "Glasquai, night",
    "Weissenau, night", "Weissenau, morning", "Tulpenried, morning", "Tulpenried, noon",
)  # fmt: skip


def journey(generator: spade.SpadeGenerator, stops: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """The nearest stop's name and the latent (1, z_dim) of each frame, round to the first stop."""
    for name, following in zip(stops, [*stops[1:], stops[0]], strict=True):
        for step in range(BETWEEN + 1):
            share = step / (BETWEEN + 1)
            z = torch.lerp(generator.style(name), generator.style(following), share)
            yield (name if share < 0.5 else following), z


def street_with_name(
    generator: spade.SpadeGenerator, label_ids: Tensor, name: str, z: Tensor
) -> Image.Image:
    image_u8 = generator.synthesize(label_ids, z=z)
    street = Image.fromarray(image_u8.permute(1, 2, 0).numpy()).resize(SHOWN, Image.BICUBIC)
    draw = ImageDraw.Draw(street, "RGBA")
    font = ImageFont.load_default(15)
    left, top, right, bottom = draw.textbbox((14, SHOWN[1] - 28), name, font)
    draw.rounded_rectangle((left - 6, top - 5, right + 6, bottom + 5), 5, (0, 0, 0, 150))
    draw.text((14, SHOWN[1] - 28), name, "white", font)
    return street


def record_noon_to_night() -> list[tuple[Image.Image, int]]:
    real, toy = (spade.load_generator(find_weights("generator", n)) for n in ("streets", "toy"))
    with tempfile.TemporaryDirectory() as own:
        build_page.write_starts(Path(own), real.size)
        label_ids = read_map(Path(own) / "maps" / f"{START.replace(' ', '_')}.png")
    names, count = list(real.styles), len(TOY_STOPS)
    real_stops = [names[number * len(names) // count] for number in range(count)]
    ways = journey(real, real_stops), journey(toy, TOY_STOPS)
    frames = []
    for number, stops in enumerate(zip(*ways, strict=True)):
        frame = Image.new("RGB", (2 * SHOWN[0] + 8, SHOWN[1]), "white")
        for column, (generator, (name, z)) in enumerate(zip((real, toy), stops, strict=True)):
            street = street_with_name(generator, label_ids, name, z)
            frame.paste(street, (column * (SHOWN[0] + 8), 0))
        frames.append((frame, STEP if number % (BETWEEN + 1) else REST))
    return frames


# ------------------------------------------------------------------------------ the files


def save(frames: list[tuple[Image.Image, int]], path: Path, whole: bool = True) -> None:
    """Write an animated WebP that repeats.

    Args:
        whole: store each frame by itself.  Otherwise some hold only what has changed, which is
            smaller, but misses slow changes of colour for a few frames.

    Raises:
        ValueError: it has more than MAX_BYTES.
    """
    (first, _), *others = frames
    durations = [milliseconds for _, milliseconds in frames]
    first.save(
        path,
        save_all=True,
        append_images=[frame for frame, _ in others],
        duration=durations,
        loop=0,
        quality=60 if whole else 80,
        kmin=0 if whole else 3,
        kmax=1 if whole else 5,
    )
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{path} has {path.stat().st_size:,} bytes, expected at most {MAX_BYTES:,}: record "
            "fewer frames."
        )
    print(f"{path.relative_to(PROJECT)}: {len(frames)} frames, {path.stat().st_size / 1e6:.2f} MB")


RECORDINGS = {"painting": (record_painting, False), "noon_to_night": (record_noon_to_night, True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=" or ".join(RECORDINGS))
    for name in parser.parse_args().names or RECORDINGS:
        print(f"recording {name}, which takes up to a minute ...", flush=True)
        record, whole = RECORDINGS[name]
        save(record(), PROJECT / "docs" / f"{name}.webp", whole)


if __name__ == "__main__":
    main()
