#!/usr/bin/env python3
"""How long does the page take: to its first picture, and from a stroke to the next one?

    python benchmarks/page.py

In a headless Chromium, by onnxruntime-web's WebAssembly in one thread, from a local server.  Prints
what is kept in benchmarks/page.txt, and which of the promised times are met.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from timing import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from browser import chromium, find_browser
from local_server import local_site

from tools.build_page import RUNTIME_VERSION, build

FIRST, STROKE, AIM = 6.0, 1.5, 0.7  # seconds that were promised, and hoped for

# A short stroke, as the mouse would draw it -> milliseconds until its picture is there.
DRAW = """(x) => new Promise((resolve) => {
    const canvas = document.querySelector("canvas.painter-map");
    const start = performance.now();
    new MutationObserver((changes, observer) => {
        if (document.body.dataset.waiting !== "no") return;
        observer.disconnect();
        resolve(performance.now() - start);
    }).observe(document.body, { attributes: true, attributeFilter: ["data-waiting"] });
    const box = canvas.getBoundingClientRect();
    const [clientX, clientY] = [box.left + x * box.width, box.top + 0.7 * box.height];
    const pen = { clientX, clientY, buttons: 1, isPrimary: true, pointerId: 1 };
    canvas.setPointerCapture = () => {};  // there is no such pointer
    canvas.dispatchEvent(new PointerEvent("pointerdown", pen));
    canvas.dispatchEvent(new PointerEvent("pointerup", pen));
})"""


def first_picture(browser: str, address: str) -> float:
    """Seconds from opening the page to its first picture, with a new profile: no cache."""
    with tempfile.TemporaryDirectory() as profile, chromium(browser, Path(profile)) as context:
        page = context.new_page()
        start = time.perf_counter()
        page.goto(address, wait_until="commit")
        page.locator("body[data-pictures='1'][data-waiting=no]").wait_for()
        return time.perf_counter() - start


def strokes(browser: str, address: str, count: int) -> list[float]:
    """Seconds from a stroke to its picture, count times."""
    with tempfile.TemporaryDirectory() as profile, chromium(browser, Path(profile)) as context:
        page = context.new_page()
        page.goto(address)
        page.locator("body[data-pictures='1'][data-waiting=no]").wait_for()
        page.get_by_role("button", name="car", exact=True).click()
        page.evaluate(DRAW, 0.5)  # the second picture is still slow: code is being compiled
        return [page.evaluate(DRAW, 0.1 + 0.8 * i / count) / 1000 for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strokes", type=int, default=20)
    parser.add_argument("--openings", type=int, default=3)
    arguments = parser.parse_args()
    browser = find_browser()
    if browser is None:
        sys.exit("There is no browser: sudo apt-get install chromium")
    print(machine(), flush=True)
    print("building the page and opening it takes a minute ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder, local_site() as site:
        site.add_folder(build(Path(folder), "local"))
        url = f"{site.url}/"
        load = os.getloadavg()[0]  # the page itself is not in it yet
        with chromium(browser, Path(folder) / "profile") as context:
            version = context.browser.version
        openings = [first_picture(browser, url) for _ in range(arguments.openings)]
        seconds = strokes(browser, url, arguments.strokes)
        site = json.loads((Path(folder) / "site.json").read_text(encoding="utf-8"))
        generator = site["generators"][0]  # the one that the page opens with
    print(f"Chromium {version}, onnxruntime-web {RUNTIME_VERSION}, WebAssembly, one thread")
    print(f"what else runs on the machine: a load of {load:.1f}\n")
    print(f'the generator "{generator["title"]}": a file of {generator["bytes"] / 1e6:.2f} MB')
    print(
        f"opened without a cache, to the first picture: median of {len(openings)} "
        f"{median(openings):.2f} s, slowest {max(openings):.2f} s (at most {FIRST:g})"
    )
    print(
        f"stroke to a new picture of 256x128: median of {len(seconds)} {median(seconds):.2f} s, "
        f"slowest {max(seconds):.2f} s (at most {STROKE:g}, aim {AIM:g})"
    )


if __name__ == "__main__":
    main()
