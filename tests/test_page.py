"""The page that paints in any browser: built once, and used in a headless Chromium."""

import base64
import json
import random
import shutil
import zlib
from functools import partial
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from browser import SECONDS, chromium
from examples import noise
from local_server import local_site
from PIL import Image

import spade
from tools import build_page
from tools.setup_cell import REPOSITORY
from utils.files import PROJECT
from utils.images import crop_to_aspect, read_image, read_map, resize_map, save_image
from utils.labels import BENCHMARK_NAMES, COLORS, ID, label_ids_to_colors
from utils.painter import Painting, class_names, empty_street
from utils.painter.widgets import paint_events
from utils.scenes import open_scenes

SIZE = (256, 128)
TOY, REAL = "toy streets", "real streets"
# How far things on the page move by themselves: https://web.dev/articles/cls
SHIFTS = """
globalThis.shifts = 0;
new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) shifts += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""
SKY, ROAD, CAR = ID["sky"], ID["road"], ID["car"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page's folder."""
    if not build_page.RUNTIME_COPY.is_dir() and shutil.which("npm") is None:
        pytest.skip("needs npm, which fetches onnxruntime-web: sudo apt-get install npm")
    return build_page.build(tmp_path_factory.mktemp("site"), runtime="local")


@pytest.fixture(scope="module")
def described(site):
    """What the page knows of each generator, by title."""
    content = json.loads((site / "site.json").read_text(encoding="utf-8"))
    return {generator["title"]: generator for generator in content["generators"]}


@pytest.fixture(scope="module")
def generators():
    return {title: spade.load_generator(p) for title, p in build_page.find_generators().items()}


@pytest.fixture(scope="module")
def maps():
    """Ten maps, (10, H, W): seven of toy streets, two of California, one of noise."""
    toy = open_scenes("toy", "val", size=SIZE)[:7]
    paths = sorted((build_page.STREETS / "california" / "maps").glob("*.png"))[:2]
    california = [resize_map(crop_to_aspect(read_map(path), SIZE), SIZE) for path in paths]
    squares = resize_map(noise(8, 16, high=34), SIZE)
    maps = torch.stack([*(scene.label_ids for scene in toy), *california, squares])
    return maps[[0, 1, 2, 7, 8, 3, 4, 5, 6, 9]]  # a toy street or more among every five


# ------------------------------------------------------------------------------ without a browser


def test_the_graph_computes_what_synthesize_does(site, described, generators, maps):
    for title, generator in generators.items():
        file = site / described[title]["file"]
        assert file.stat().st_size == described[title]["bytes"] <= 7_000_000
        assert str(PROJECT).encode() not in file.read_bytes(), "nobody's folders"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        graph = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
        # Two toy streets, one of California, and noise; the browser draws all ten.
        for label_ids, style in zip(maps[[0, 1, 3, 9]], list(generator.styles)[::-1]):
            z = generator.style(style)
            feeds = {"label_ids": label_ids[None].numpy(), "z": z.numpy()}
            (drawn,) = graph.run(["image_u8"], feeds)
            check_equal(drawn, generator.synthesize(label_ids, z=z))


def check_equal(drawn: np.ndarray, image_u8: torch.Tensor) -> None:
    """A picture (H, W, 3) of the page against Python's (3, H, W): what was promised."""
    difference = np.abs(drawn.astype(int) - image_u8.permute(1, 2, 0).numpy())
    assert difference.max() <= 2 and difference.mean() < 0.5


def latent(entry: dict) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(entry["z"]), "<f4").copy())


def test_the_page_has_every_style(described, generators):
    toy = described[TOY]
    assert toy["lists"] == ["City", "Hour"] and toy["style"] == ["Backsteinhafen", "noon"]
    styles = {tuple(entry["names"]): latent(entry) for entry in toy["styles"]}
    assert len(styles) == (6 + 1) * (4 + 1)
    named = generators[TOY].styles
    assert torch.equal(styles["Glasquai", "dusk"], named["Glasquai, dusk"])
    assert torch.equal(styles["Glasquai", "any"], named["Glasquai"])
    assert torch.equal(styles["any", "dusk"], named["dusk"])
    assert not styles["any", "any"].any()
    hours = [hour for city, hour in styles if city == "Glasquai"]
    assert hours == ["morning", "noon", "dusk", "night", "any"]


def test_styles_without_pairs_are_one_list():
    generator = spade.SpadeGenerator(ngf=1, hidden=1, size=(64, 64), z_dim=1)
    generator.styles = {name: torch.ones(1) for name in ("Cambridge", "day", "dusk")}
    lists = build_page.style_lists(generator)
    assert lists["lists"] == ["Style"] and lists["style"] == ("day",)
    names = [entry["names"] for entry in lists["styles"]]
    assert names == [("day",), ("dusk",), ("Cambridge",), ("mean",)]
    # With pairs, a city that was seen at one hour only has no other.
    names = ("Cambridge", "day", "dusk", "Cambridge, day", "Cambridge, dusk", "Karlsruhe")
    generator.styles = {name: torch.full((1,), float(i)) for i, name in enumerate(names)}
    styles = {
        entry["names"]: latent(entry).item()
        for entry in build_page.style_lists(generator)["styles"]
    }
    assert styles["Karlsruhe", "any"] == 5 and ("Karlsruhe", "day") not in styles
    assert styles["Cambridge", "dusk"] == 4 and styles["any", "dusk"] == 2


def test_gaps_of_a_map_are_filled_from_their_borders():
    label_ids = torch.tensor([[0, 0, 0, 7], [0, 0, 0, 7], [0, 0, 0, 7], [23, 0, 0, 0]]).byte()
    filled = build_page.without_gaps(label_ids)
    assert filled.dtype == torch.uint8 and filled.unique().tolist() == [7, 23]
    assert torch.equal(filled[label_ids > 0], label_ids[label_ids > 0])
    assert filled[0].tolist() == [7, 7, 7, 7] and filled[2, 0] == filled[3, 1] == 23
    nothing = torch.zeros(2, 2, dtype=torch.uint8)
    assert torch.equal(build_page.without_gaps(nothing), nothing)


def test_generators_are_what_the_folder_holds(tmp_path):
    for name in ("zoo", "toy", "streets"):
        (tmp_path / f"generator_{name}.safetensors").touch()
    assert list(build_page.find_generators(tmp_path)) == [REAL, TOY, "zoo"]
    with pytest.raises(FileNotFoundError, match="holds no generator_"):
        build_page.find_generators(tmp_path / "none")


def test_a_generator_that_the_page_cannot_use(tmp_path):
    generator = spade.SpadeGenerator(ngf=1, hidden=1, size=(64, 64))
    with pytest.raises(ValueError, match="no latent, and the page offers styles"):
        build_page.export_generator(generator, tmp_path / "a.onnx", {})


def test_a_generator_that_is_too_large(tmp_path, monkeypatch):
    class Exported:  # in place of what torch.onnx.export() makes, which takes seconds
        model = SimpleNamespace(graph=[])

        def save(self, path, external_data):
            path.write_bytes(bytes(7_000_001))

    monkeypatch.setattr(torch.onnx, "export", lambda *arguments, **settings: Exported())
    generator = spade.SpadeGenerator(1, "normal", 2, (32, 32), 1)
    with pytest.raises(ValueError, match="has 7,000,001 bytes, expected at most 7,000,000: take"):
        build_page.export_generator(generator, tmp_path / "a.onnx", {})


def test_onnxruntime_web_is_checked_and_asked_of_npm(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="is not the one of onnxruntime-web 1"):
        build_page.fetch_runtime(tmp_path)
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(npm))
    with pytest.raises(ValueError, match=r"npm could not fetch .* \(no network\): check the conn"):
        build_page.fetch_runtime(tmp_path / "copy")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="fetched by npm, and there is none: install"):
        build_page.fetch_runtime(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_the_published_page_takes_one_version_from_a_cdn():
    runtime = build_page.describe_runtime(build_page.RUNTIME_CDN)
    for kind in runtime.values():
        for file in (kind["module"], kind["binary"]):
            assert file["url"].startswith("https://cdn.jsdelivr.net/npm/onnxruntime-web@1.")
            assert file["integrity"].startswith("sha384-")


def test_the_workflow_builds_what_it_publishes():
    workflow = yaml.safe_load((PROJECT / ".github" / "workflows" / "pages.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert any("make page" in step.get("run", "") for step in steps)
    (published,) = (s["with"]["path"] for s in steps if "upload-pages" in s.get("uses", ""))
    assert PROJECT / published == build_page.SITE


# ------------------------------------------------------------------------------ in a browser


class StreetPage:
    """The page, open in Chromium.

    Attributes:
        page: playwright's page.
        complaints: JavaScript errors that nobody caught.
    """

    def __init__(self, context, address: str, script: str = ""):
        """script: what runs before the page's own."""
        self.page = context.new_page()
        self.complaints = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.add_init_script(script)
        self.page.goto(address)

    def drawn(self, action=None) -> np.ndarray:
        """Do something that asks for a picture, wait for it -> (H, W, 3) uint8.

        Without an action, wait for the page's first one, which may be there already.
        """
        before = 0
        self.page.bring_to_front()  # a page in the background draws and answers slowly
        if action is not None:
            before = int(self.page.locator("body").get_attribute("data-pictures"))
            action()
        # A locator's wait looks every half a second only, this one at each frame.
        self.page.wait_for_function(
            "before => document.body.dataset.waiting === 'no'"
            " && document.body.dataset.pictures !== before",
            arg=str(before),
            timeout=1000 * SECONDS,
        )
        return self.picture()

    def picture(self) -> np.ndarray:
        return self.pixels("canvas.painter-picture")

    def pixels(self, canvas: str) -> np.ndarray:
        """What a canvas shows, (H, W, 3) uint8."""
        width, height, rgba = self.page.locator(canvas).evaluate(
            """canvas => {
                const { width, height } = canvas;
                const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
                let text = "";
                for (const byte of data) text += String.fromCharCode(byte);
                return [width, height, btoa(text)];
            }"""
        )
        array = np.frombuffer(base64.b64decode(rgba), np.uint8)
        return array.reshape(height, width, 4)[..., :3].copy()

    def saved(self, button: str, folder):
        """The file that a button saves."""
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name=button, exact=True).click()
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path

    def label_ids(self, folder) -> torch.Tensor:
        """The map, and the canvas shows it in its colours."""
        self.page.mouse.move(0, 0)  # the brush's outline is no part of it
        ids = read_map(self.saved("Save map", folder))
        shown = torch.from_numpy(self.pixels("canvas.painter-map")).permute(2, 0, 1)
        assert torch.equal(shown, label_ids_to_colors(ids))
        return ids

    def choose(self, **lists: str) -> None:
        for name, option in lists.items():
            self.page.locator(f"#{name}").select_option(option)

    def click(self, button: str) -> None:
        self.page.get_by_role("button", name=button, exact=True).click()

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where on the screen a share of the map's width and height lies."""
        box = self.page.locator("canvas.painter-map").bounding_box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def drag(self, *points: tuple[float, float]) -> None:
        self.page.mouse.move(*self.place(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.place(*point), steps=10)
        self.page.mouse.up()

    def message(self, part: str) -> str:
        """Wait for a sentence with that in it, told as trouble -> the sentence."""
        sentence = self.page.locator("#message.trouble").filter(has_text=part)
        sentence.wait_for(timeout=1000 * SECONDS)
        return sentence.inner_text()


@pytest.fixture(scope="module")
def server(site):
    """The local server of the page's files."""
    with local_site() as server:
        server.add_folder(site)
        yield server


# In place of a generator, which takes half a second for a picture: the map's colours, and z makes
# them brighter or darker.
IN_COLORS = """
<ir_version: 8, opset_import: ["": 17]>
colors (uint8[1,H,W] label_ids, float[1,Z] z) => (uint8[H,W,3] image_u8)
<float[34,3] table = {COLORS}, int64[1] first = {0}, float half = {0.5}>
{
    rows = Squeeze(label_ids, first)
    ids = Cast<to = 7>(rows)
    plain = Gather<axis = 0>(table, ids)
    mean = ReduceMean<keepdims = 0>(z)
    light = Sigmoid(mean)
    share = Mul(light, half)
    factor = Add(share, half)
    scaled = Mul(plain, factor)
    image_u8 = Cast<to = 2>(scaled)
}
"""


@pytest.fixture(scope="module")
def quick_server(site):
    """The same page with graphs that draw at once, for what does not depend on the picture."""
    content = json.loads((site / "site.json").read_text(encoding="utf-8"))
    colors = ", ".join(f"{value:.1f}" for value in COLORS.flatten().tolist())
    model = onnx.parser.parse_model(IN_COLORS.replace("COLORS", colors))
    onnx.checker.check_model(model)
    graph = model.SerializeToString()
    for generator in content["generators"]:
        generator["bytes"] = len(graph)
    with local_site() as server:
        server.add_folder(site)
        for generator in content["generators"]:
            server.add(f"/{generator['file']}", graph)
        server.add("/site.json", json.dumps(content).encode(), {"kind": "application/json"})
        yield server


@pytest.fixture(scope="module")
def address(server):
    return f"{server.url}/"


@pytest.fixture(scope="module")
def context(browser, tmp_path_factory):
    with chromium(browser, tmp_path_factory.mktemp("profile")) as context:
        yield context


@pytest.fixture(scope="module")
def real(context, address):
    """The page with its first picture; what one test does, the next one finds."""
    street = StreetPage(context, address, script=SHIFTS)
    street.drawn()
    yield street
    assert not street.complaints


@pytest.fixture(scope="module")
def opened(context, quick_server):
    """The same with pictures that are there at once."""
    street = StreetPage(context, f"{quick_server.url}/")
    street.drawn()
    yield street
    assert not street.complaints


def test_it_opens_with_a_real_street(real, site):
    page, picture = real.page, real.picture()
    assert page.locator("#generator").input_value() == REAL
    assert page.locator("#start").input_value() == "California 1"
    assert page.get_by_role("button", name="car", exact=True, pressed=True).count() == 1
    start_ids = read_map(site / "maps" / "California_1.png")
    shown = torch.from_numpy(real.pixels("canvas.painter-map")).permute(2, 0, 1)
    assert torch.equal(shown, label_ids_to_colors(start_ids)) and (start_ids > 0).all()
    assert picture.std() > 20, "more than one colour"
    assert page.locator("#project-line").is_visible() == bool(REPOSITORY)
    assert page.evaluate("shifts") < 0.02, "nothing moves when it is loaded"


def test_pictures_are_those_of_synthesize(real, described, generators, maps, tmp_path):
    files = [
        save_image(label_ids, tmp_path / f"{number}_labelIds.png")
        for number, label_ids in enumerate(maps)
    ]
    choices = {  # of three styles, each one choice away from the one before
        REAL: [{}, {"city": "Cambridge"}, {"hour": "dusk"}],
        TOY: [{}, {"hour": "night"}, {"city": "Glasquai"}],
    }
    for title, first in ((REAL, 0), (TOY, 5)):  # five of the maps each
        latents = {tuple(x["names"]): latent(x) for x in described[title]["styles"]}
        real.drawn(lambda title=title: real.choose(generator=title))
        seen = set()
        # The next map begins with the style that is chosen already.
        for number, (begins, ends) in enumerate([(0, 1), (1, 2), (2, 2), (2, 2), (2, 2)], first):
            load = partial(real.page.set_input_files, "#load-map", files[number])
            for place in range(begins, ends + 1):
                choose = partial(real.choose, **choices[title][place])
                drawn = real.drawn(load if place == begins else choose)
                names = tuple(real.page.locator(x).input_value() for x in ("#city", "#hour"))
                z = latents[names][None]
                check_equal(drawn, generators[title].synthesize(maps[number], z=z))
                seen.add(names)
        assert len(seen) == 3
        licence = real.page.locator("#licence").inner_text()
        assert ("CC BY-NC-SA 4.0, not for commercial use" in licence) == (title == REAL)


def test_strokes_filling_and_undo_are_those_of_python(opened):
    """200 random events, after each of which both have the same map."""
    draw, (width, height) = random.Random(0), (96, 48)
    start = empty_street((width, height))
    painting, maps, events = Painting(start), [], []

    def point():  # also outside of the map, and on pixels' borders
        x, y = draw.uniform(-20, width + 20), draw.uniform(-20, height + 20)
        return [round(x * 2) / 2, round(y * 2) / 2] if draw.random() < 0.3 else [x, y]

    kinds = ["paint"] * 6 + ["continue"] * 3 + ["erase"] * 2 + ["fill"] * 3 + ["undo"] * 4
    while len(events) < 200:
        kind = draw.choice([*kinds, "start over", "smudge"]) if events else "undo"
        event = {"do": kind, "name": draw.choice([*BENCHMARK_NAMES, "sky", "auto"])}
        if kind == "continue":
            event |= {"do": draw.choice(["paint", "erase"]), "continues": True}
        if event["do"] in ("paint", "erase"):
            event["points"] = [point() for _ in range(draw.randint(1, 4))]
            event["size"] = draw.choice([0, 1, 1, 2, 3, 7, 12.5, 30, 64, 300])
        if kind == "fill":
            event["point"] = point()
        events.append(event)
        try:
            paint_events(painting, [event])
        except ValueError:  # nothing to undo, a point outside, a brush of 0
            pass
        maps.append(painting.label_ids.numpy().tobytes())
    found = opened.page.evaluate(
        """async ([start, [width, height], idOf, events]) => {
            const { Painting } = await import("./painting.js");
            const ids = Uint8Array.from(atob(start), (letter) => letter.charCodeAt(0));
            const painting = new Painting({ ids, width, height }, idOf);
            return events.map((event) => {
                let sentence = "";
                try { painting.apply(event); } catch (error) { sentence = error.message; }
                return [btoa(String.fromCharCode(...painting.map.ids)), sentence];
            });
        }""",
        [base64.b64encode(start.numpy().tobytes()).decode(), [width, height], ID, events],
    )
    for number, (expected, (ids, _)) in enumerate(zip(maps, found, strict=True)):
        assert base64.b64decode(ids) == expected, f"event {number}: {events[number]}"
    sentences = {sentence for _, sentence in found}
    assert "There is nothing left to undo." in sentences
    assert any("expected paint" in sentence for sentence in sentences), "of smudge"
    assert "The brush has size 0: expected 1 to 256 pixels." in sentences
    assert any("is not in the map of 96x48 pixels" in sentence for sentence in sentences)
    assert 50 < len(set(maps)) and len(sentences) < 40, "most events do something"


def test_stroke_undo_erase_and_fill(opened, tmp_path):
    opened.drawn(lambda: opened.choose(start="an empty street"))
    empty_ids, empty = opened.label_ids(tmp_path), opened.picture()
    assert torch.equal(empty_ids, empty_street(SIZE))
    opened.click("car")
    stroke = (0.3, 0.8), (0.6, 0.8), (0.6, 0.6)
    painted = opened.drawn(lambda: opened.drag(*stroke))
    ids = opened.label_ids(tmp_path)
    assert [ids[int(y * 128), int(x * 256)] for x, y in [*stroke, (0.45, 0.8)]] == [CAR] * 4
    assert (painted != empty).any()

    opened.click("Erase")
    opened.drawn(lambda: opened.drag((0.3, 0.8), (0.45, 0.8)))
    ids = opened.label_ids(tmp_path)
    assert ids[int(0.8 * 128), int(0.4 * 256)] == ROAD and ids[int(0.6 * 128), 153] == CAR

    opened.click("Fill")
    opened.click("vegetation")
    opened.drawn(lambda: opened.page.mouse.click(*opened.place(0.5, 0.2)))
    assert opened.label_ids(tmp_path)[0, 0] == ID["vegetation"]

    for way in (
        lambda: opened.page.keyboard.press("Control+z"),
        lambda: opened.click("Undo"),
        lambda: opened.page.keyboard.press("Meta+Z"),
    ):
        undone = opened.drawn(way)
    assert torch.equal(opened.label_ids(tmp_path), empty_ids), "a stroke is one step"
    assert (undone == empty).all()
    opened.click("Paint")

    opened.drawn(lambda: opened.drag((0.1, 0.5), (0.2, 0.5)))
    opened.drawn(lambda: opened.click("Start over"))
    assert torch.equal(opened.label_ids(tmp_path), empty_ids)


def test_a_picture_follows_while_the_mouse_is_down(real):
    page = real.page
    real.click("bus")
    page.mouse.move(*real.place(0.2, 0.7))
    before = real.picture()
    page.mouse.down()
    half_way = real.drawn(lambda: page.mouse.move(*real.place(0.5, 0.7), steps=5))
    assert (half_way != before).any()
    page.mouse.move(*real.place(0.8, 0.7), steps=5)
    page.mouse.up()
    page.locator("body[data-waiting=no]").wait_for()
    real.drawn(lambda: real.click("Undo"))
    assert (real.picture() == before).all()


def test_a_thick_stroke_that_leaves_the_map(opened, tmp_path):
    page, canvas = opened.page, opened.page.locator("canvas.painter-map")
    page.get_by_label("brush size in pixels").fill("30")
    assert page.locator(".painter-size").inner_text() == "30 px"
    opened.click("Erase")
    opened.click("wall")  # now Erase is no longer on

    def stroke():
        page.mouse.move(*opened.place(0.9, 0.5))
        page.mouse.down()
        canvas.evaluate(  # a palm, or a second finger, in the upper left corner
            """canvas => {
                const { left: clientX, top: clientY } = canvas.getBoundingClientRect();
                const other = { clientX, clientY, buttons: 1, isPrimary: false, pointerId: 7 };
                canvas.dispatchEvent(new PointerEvent("pointermove", other));
            }"""
        )
        for point in ((1.05, 0.5), (1.05, 0.9), (0.9, 0.9)):
            page.mouse.move(*opened.place(*point), steps=10)
        page.mouse.up()

    opened.drawn(stroke)
    page.locator("body[data-waiting=no]").wait_for()
    walls = opened.label_ids(tmp_path) == ID["wall"]
    rows = walls[:, int(0.9 * 256)].nonzero()[:, 0].tolist()
    assert abs(rows[0] - (0.5 * 128 - 15)) <= 2, "15 pixels above the mouse"
    assert rows[-1] > 0.9 * 128, "the stroke went on outside of the map"
    assert not walls[:15, :15].any(), "only the first finger paints"
    opened.click("Fill")  # also the leftmost pixels
    opened.drawn(lambda: page.mouse.click(*opened.place(0.0005, 0.05)))
    assert opened.label_ids(tmp_path)[6, 0] == ID["wall"]
    opened.drawn(lambda: opened.click("Start over"))
    opened.click("Paint")


def test_style_and_start_change_the_picture(opened, tmp_path):
    opened.drawn(lambda: opened.choose(generator=TOY))
    noon = opened.drawn(lambda: opened.choose(hour="noon"))
    night = opened.drawn(lambda: opened.choose(hour="night"))
    assert (night != noon).any()
    opened.drawn(lambda: opened.choose(start="California 1"))
    assert "building" in class_names(opened.label_ids(tmp_path))
    credit = opened.page.locator("footer").inner_text()
    assert "Drive.ai Sample Dataset" in credit and "CC BY 4.0" in credit


def test_saved_and_loaded_again(opened, tmp_path):
    opened.drawn(lambda: opened.choose(start="toy street 2"))
    picture = opened.picture()
    ids = opened.label_ids(tmp_path)
    saved_u8 = read_image(opened.saved("Save picture", tmp_path))
    assert torch.equal(saved_u8, torch.from_numpy(picture).permute(2, 0, 1))
    scene = open_scenes("toy", "val", size=SIZE)[build_page.TOY_STARTS[1]]
    assert torch.equal(ids, scene.label_ids)

    def load(path):
        return lambda: opened.page.set_input_files("#load-map", path)

    opened.drawn(lambda: opened.choose(start="an empty street"))
    assert (opened.drawn(load(tmp_path / "my street_labelIds.png")) == picture).all()
    assert torch.equal(opened.label_ids(tmp_path), ids)
    large = resize_map(ids, (600, 300))
    save_image(large, tmp_path / "large.png")
    opened.drawn(load(tmp_path / "large.png"))
    assert torch.equal(opened.label_ids(tmp_path), resize_map(large, SIZE))
    opened.drawn(lambda: opened.click("Undo"))
    assert torch.equal(opened.label_ids(tmp_path), ids), "also a map that was loaded can be undone"
    assert opened.page.locator("#start").input_value() == "", "any start is another one"

    save_image(scene.image_u8, tmp_path / "photo.png")
    save_image(torch.full((128, 256), 255, dtype=torch.uint8), tmp_path / "ignored.png")
    save_image(ids[:, :200], tmp_path / "narrow.png")
    whole = (tmp_path / "my street_labelIds.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("Dear diary")
    for name, sentence in {
        "photo.png": "photo.png is a picture in colours, or of another bit depth: expected a map",
        "ignored.png": "ignored.png holds the value 255, and label ids are 0 to 33: expected",
        "narrow.png": "narrow.png is 200x128 pixels, and the painter's maps have the shape of 256",
        "cut.png": "cut.png is cut off or damaged: save or download it again.",
        "text.png": "text.png is no PNG file: expected a map that the painter saved",
    }.items():
        load(tmp_path / name)()
        opened.message(sentence)
    assert torch.equal(opened.label_ids(tmp_path), ids), "the map stays as it was"


def test_every_filter_of_png_is_undone(opened, tmp_path):
    ramp = torch.arange(60)[:, None] * torch.arange(90) // 150 % 34
    coarse = noise(15, 30, high=34).repeat_interleave(4, 0).repeat_interleave(3, 1)
    ids = torch.cat([noise(10, 90, high=34), ramp.byte(), coarse])
    path = tmp_path / "filtered.png"
    Image.fromarray(ids.numpy()).save(path, optimize=True)  # picks the filter for each row
    packed = path.read_bytes().split(b"IDAT")[1]
    rows = zlib.decompressobj().decompress(packed)
    assert set(rows[:: 1 + ids.shape[1]]) == set(range(5)), "each row begins with its filter"
    found = opened.page.evaluate(
        """async (file) => {
            const { decodeMap } = await import("./png.js");
            const bytes = Uint8Array.from(atob(file), (letter) => letter.charCodeAt(0));
            return [...(await decodeMap(bytes, "filtered.png")).ids];
        }""",
        base64.b64encode(path.read_bytes()).decode(),
    )
    assert found == ids.flatten().tolist()


def test_a_phone(context, quick_server):
    """320 pixels wide, and painted on with a finger."""
    street = StreetPage(context, f"{quick_server.url}/")
    page = street.page
    page.set_viewport_size({"width": 320, "height": 640})
    before = street.drawn()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320, "nothing to scroll aside"
    for button in page.locator("button, label.button").all():
        box = button.bounding_box()
        assert box["height"] >= 30 and 0 <= box["x"] and box["x"] + box["width"] <= 320
    texts = page.locator("select, label, button, p, figcaption").all()
    sizes = [text.evaluate("e => parseFloat(getComputedStyle(e).fontSize)") for text in texts]
    assert min(sizes) >= 13

    street.click("car")
    page.evaluate("scrollTo(0, 150)")
    devtools = context.new_cdp_session(page)

    def touch(kind, *points):
        places = [dict(zip("xy", street.place(*point))) for point in points]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    def finger():
        touch("touchStart", (0.3, 0.3))
        for step in range(1, 6):
            touch("touchMove", (0.3, 0.3 + 0.1 * step))  # downwards, as one scrolls
        touch("touchEnd")

    after = street.drawn(finger)
    assert (after != before).any()
    colors = street.pixels("canvas.painter-map")[40:100:10, int(0.3 * 256)]
    assert (colors == (0, 0, 142)).all(), "the finger paints, and does not scroll"
    assert not street.complaints
    page.close()


def test_names_for_those_who_do_not_see(opened):
    page = opened.page
    for name in ("Generator", "City", "Hour", "Start from", "Load map", "brush size in pixels"):
        assert page.get_by_label(name).count() == 1, name
    assert page.get_by_role("img", name="the label map, to be painted on").count() == 1
    assert page.get_by_role("img", name="the generated street").count() == 1
    opened.click("wall")
    assert page.get_by_role("button", name="wall", exact=True, pressed=True).count() == 1
    assert page.get_by_role("button", name="bus", exact=True, pressed=True).count() == 0
    assert "Nothing that you paint leaves your browser" in page.locator("footer").inner_text()


# ------------------------------------------------------------------------------ what can go wrong


def test_weights_that_are_cut_off(context, address, server, site, described):
    file = site / described[REAL]["file"]
    server.answer_once(file.name, data=file.read_bytes()[:3_000_000])
    street = StreetPage(context, address)
    size = f"{described[REAL]['bytes'] / 1e6:.1f} MB"
    sentence = street.message(f'The generator "{REAL}" could not be loaded: 3.0 of {size}')
    assert "(the file is cut off). Check the connection, then load this page again" in sentence
    assert not street.page.locator("#progress").is_visible()
    street.page.get_by_role("button", name="Save picture").click()
    street.message("There is no picture yet: wait until the first one is drawn.")
    street.drawn(lambda: street.choose(start="an empty street"))  # tried again
    assert street.page.locator("#message:not(.trouble)").inner_text().startswith("Drawn in")
    street.page.close()


def test_a_file_that_is_missing(context, address, server, described):
    server.answer_once(described[REAL]["file"].rpartition("/")[2], status=404)
    street = StreetPage(context, address)
    street.message(f"0.0 of {described[REAL]['bytes'] / 1e6:.1f} MB came (the server answered 404)")
    server.answer_once("site.json", status=503)
    street.page.reload()
    street.message("site.json could not be loaded (503): load this page again.")
    street.page.close()


def test_another_file_in_the_place_of_onnxruntime_web(context, address, server, site):
    file = site / "runtime" / "ort.wasm.bundle.min.mjs"
    server.answer_once(file.name, data=file.read_bytes() + b"// one line more")
    street = StreetPage(context, address)
    sentence = street.message("onnxruntime-web could not be loaded from runtime/ort.wasm")
    assert "or it is not the file that was expected" in sentence
    street.page.close()


def test_a_machine_without_webgpu(context, quick_server):
    """Chromium has no graphics card here; the way back is a tick."""
    street = StreetPage(context, f"{quick_server.url}/")
    street.drawn()
    street.page.get_by_label("draw on the graphics card").check()
    sentence = street.message("did not start")
    assert "take the tick at WebGPU away" in sentence
    street.drawn(lambda: street.page.get_by_label("draw on the graphics card").uncheck())
    street.page.close()


@pytest.mark.parametrize(
    "script, sentence",
    [
        ("WebAssembly.validate = () => false", "no WebAssembly with SIMD, in which the network"),
        ("delete globalThis.WebAssembly", "no WebAssembly with SIMD, in which the network"),
        ("delete globalThis.DecompressionStream", "no DecompressionStream, which reads the maps"),
        ("globalThis.Worker = class { postMessage() { this.onerror(); } }", "engine.js did not st"),
    ],
)
def test_a_browser_that_lacks_something(context, address, script, sentence):
    street = StreetPage(context, address, script=script)
    assert "browser" in street.message(sentence)
    assert not street.complaints
    street.page.close()
