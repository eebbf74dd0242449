"""What may be committed: little enough, nobody's pictures, nobody's paths."""

import csv
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tools.setup_cell import linked

ROOT = Path(__file__).resolve().parents[1]
MAX_BYTES = 64_000_000
# 0001TP_006690.png, 0006R0_f00930.png, 0016E5_00390.png, Seq05VD_f00000.png
CAMVID = re.compile(r"(?:\d{4}(?:TP|R0|E5)|Seq05VD)_f?\d+\w*\.(?:png|jpe?g)$", re.I)
# aachen_000000_000019_leftImg8bit.png and all that belongs to it
CITYSCAPES = re.compile(r"[a-z-]+_\d{6}_\d{6}_(?:leftImg8bit|gtFine|gtCoarse)\w*\.\w+$", re.I)
HOME_PATH = re.compile(r"/(?:home|Users)/\w|/roo[t]/\w|[A-Z]:\\Users\\\w")


@pytest.fixture(scope="module")
def tracked():
    """The tracked files that exist in the working tree."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout, not an unpacked archive")
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode()
    paths = [ROOT / name for name in names.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_small_enough_to_clone(tracked):
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in tracked}
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    assert sum(sizes.values()) < MAX_BYTES, f"the largest: {largest}"


def test_no_pictures_of_the_data_sets(tracked):
    named = [p for p in tracked if CAMVID.search(p.name) or CITYSCAPES.search(p.name)]
    assert not named, f"their licences forbid or restrict this: {named}"


def test_data_holds_only_its_readme_and_small_weights(tracked):
    inside = {p.relative_to(ROOT / "data") for p in tracked if (ROOT / "data") in p.parents}
    others = {p for p in inside if p.parts[0] not in ("weights", "streets")} - {Path("README.md")}
    assert not others
    assert not {p for p in inside if p.suffix in {".pth", ".pt", ".ckpt"}}, "never shipped"


def test_streets_holds_only_what_is_listed(tracked):
    """Photos with a licence that allows it, each with its map, and the texts that say so."""
    folder = ROOT / "data" / "streets"
    with open(folder / "scenes.csv", newline="") as file:
        photos = [folder / line["photo"] for line in csv.DictReader(file)]
    assert {photo.parts[-3] for photo in photos} == {"karlsruhe", "karlsruhe_more", "california"}
    maps = [photo.parents[1] / "maps" / f"{photo.stem}.png" for photo in photos]
    texts = [folder / name for name in ("README.md", "scenes.csv", "blurred.csv")]
    assert {p for p in tracked if folder in p.parents} == {*photos, *maps, *texts}


def test_no_home_paths_in_text(tracked):
    for path in tracked:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or weights
        found = HOME_PATH.search(text) if path != Path(__file__).resolve() else None
        assert not found, f"{path.relative_to(ROOT)}: {found.group()}"


@pytest.mark.parametrize("address", ["", "https://github.com/ada/streets"])
def test_the_first_page_is_short(address):
    lines = linked((ROOT / "README.md").read_text(encoding="utf-8"), address).splitlines()
    assert len(lines) <= 120
    first_screen = "\n".join(lines[:20])
    assert "![" in first_screen and "docs/painting.webp" in first_screen
    assert "`make demo`" in first_screen
    assert ("Paint now" in first_screen) == ("in Colab" in first_screen) == bool(address)


@pytest.mark.parametrize("name", ["README.md", "benchmarks/README.md", "data/README.md"])
def test_links_lead_to_files_and_headings(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)", text)
    assert len(links) > 5
    for place, heading in links:
        target = (ROOT / name).parent / place if place else ROOT / name
        assert target.exists(), place
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.M)
            assert heading in {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}


def test_no_placeholder_stands_for_an_address(tracked):
    for path in tracked:
        if path.suffix in {".md", ".ipynb", ".py", ".yml", ".html", ".js", ".cff", ".txt"}:
            text = path.read_text(encoding="utf-8")
            assert "github.com/OWNE" + "R" not in text, path.relative_to(ROOT)


@pytest.mark.parametrize(
    "pattern, found, passed",
    [
        (CAMVID, "0001TP_006690.png 0006R0_f00930.jpg 0016E5_00390.png", "04_pipeline_photo.jpg"),
        (CAMVID, "Seq05VD_f00000_L.png", "seq.png"),
        (CITYSCAPES, "aachen_000000_000019_leftImg8bit.png ulm_000001_000019_gtFine_polygons.json",
         "cityscapes_generator_keys.json"),
        (CITYSCAPES, "bad-honnef_000001_000020_gtFine_labelIds.png", "labelIds.png"),
        (HOME_PATH, "/home/ada/data", "home/"),
    ],
)  # fmt: skip
def test_what_the_patterns_find(pattern, found, passed):
    assert all(map(pattern.search, found.split())) and not pattern.search(passed)


def test_the_citation_says_what_the_licence_says():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["title"] and citation["abstract"] and citation["message"]
    assert licence.splitlines()[0] == f"{citation['license']} License"
    (author,) = citation["authors"]
    assert author["name"] in licence
    assert not {"url", "repository-code", "doi"} & set(citation), "there is no public address yet"
