"""The page about the course: its links, its figures and its commands."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

import spade.stages
import utils.stages
from utils.exercises import EXERCISES

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def course():
    """The page about the course as a whole."""
    return (ROOT / "docs" / "course.md").read_text(encoding="utf-8")


def test_links_of_the_course_page_lead_somewhere(course):
    for target in re.findall(r"\]\(([^)\s]+)\)", course):
        if target.startswith("https://"):
            continue
        name, _, heading = target.partition("#")
        text = (ROOT / "docs" / name).read_text(encoding="utf-8") if name else course
        headings = re.findall(r"^#+ (.*)$", text, re.M)
        anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
        assert not heading or heading in anchors, target


def test_the_course_page_names_every_notebook_and_counts_the_exercises(course):
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert f"(../notebooks/{path.name})" in course, path.name
    assert f"There are {len(EXERCISES)} exercises with a check" in course
    terms = re.findall(r"^\| ([^|*]+) \| [A-Z0-9].*\. \|$", course.split("## References")[0], re.M)
    assert len(terms) > 50 and len(set(terms)) == len(terms)


def test_sections_and_exercises_that_the_course_page_names_exist(course):
    """Such as "04, sections 1 to 3", or "[06 Train your own SPADE](...), exercise 2"."""
    places = r"\d(?:(?:,| to| and|, and) \d\b)*"
    named = re.findall(rf"\b(0\d)\b[^,;|\n]*, (section|exercise)s? ({places})", course)
    assert len(named) > 30
    for number, kind, numbers in named:
        (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        heading = {"section": r"^## (\d+)\. ", "exercise": r"^\*\*(\d+)\. "}[kind]
        there = set(re.findall(heading, texts, re.M))
        assert set(re.findall(r"\d", numbers)) <= there, f"{number}, {kind} {numbers}"


def test_what_the_course_page_says_of_persons_is_the_stored_figure(course):
    (said,) = re.findall(r"reads persons with an IoU of ([\d.]+) at 512x256", course)
    stored = (ROOT / "benchmarks" / "real_streets.txt").read_text(encoding="utf-8")
    (measured,) = re.findall(r"^  person +([\d.]+)", stored.split("of 512x256)")[1], re.M)
    assert float(said) == pytest.approx(float(measured), abs=0.005)


@pytest.mark.parametrize("module", [utils.stages, spade.stages], ids=["utils", "spade"])
def test_trainings_of_the_course_page_are_accepted(module, course):
    stages = []
    training = dataclasses.replace(
        module.TRAINING, train=lambda stage, *given: stages.append(stage)
    )
    package = module.__name__.split(".")[0]
    joined = course.replace("\\\n", " ")
    commands = re.findall(rf"^    python -m {package}\.training (.*)$", joined, re.M)
    for command in commands:
        training.main("", command.split())
    assert commands and len(stages) == len(commands)
