"""The page about the course: its links, its figures and its commands."""

import dataclasses
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
