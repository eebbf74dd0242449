"""requirements.txt, environment.yml and requirements-colab.txt say the same; Colab has the rest."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import utils

ROOT = Path(__file__).resolve().parents[1]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}  # where conda-forge's differ
OPENS_NOTEBOOKS = {"jupyterlab", "ipykernel"}  # Colab has its own way
IN_COLAB = {"anywidget", "accelerate", "safetensors", "timm", "tqdm", "filelock", "requests"}


def requirements(file_name):
    """{name: Requirement} of a requirements file, without the lines that include another."""
    lines = (line.split("#")[0].strip() for line in (ROOT / file_name).read_text().splitlines())
    parsed = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {requirement.name: requirement for requirement in parsed}


def conda_requirements():
    """(conda's, pip's) {name: Requirement} of environment.yml."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert set(environment) == {"name", "channels", "dependencies"}
    assert environment["channels"] == ["conda-forge"]
    *conda, pip = environment["dependencies"]
    assert set(pip) == {"pip"}, "the pip section comes last"
    return tuple({r.name: r for r in map(Requirement, lines)} for lines in (conda, pip["pip"]))


def test_environment_yml_equals_requirements_txt():
    conda, pip = conda_requirements()
    assert str(conda.pop("python").specifier) == ">=3.10"
    assert str(conda.pop("pip").specifier) == ""
    required = {
        CONDA_NAMES.get(name, name) if name not in pip else name: str(requirement.specifier)
        for name, requirement in requirements("requirements.txt").items()
    }
    assert {name: str(r.specifier) for name, r in {**conda, **pip}.items()} == required
    assert not set(conda) & set(pip)


def test_bounds_are_lower_bounds():
    for requirement in requirements("requirements.txt").values():
        # != leaves out a release that is known to be broken
        operators = sorted(s.operator for s in requirement.specifier)
        assert operators in ([">="], ["!=", ">="]), str(requirement)


@pytest.mark.parametrize("name", sorted(requirements("requirements.txt")))
def test_colab_keeps_its_own_packages(name):
    requirement = requirements("requirements.txt")[name]
    colabs = requirements("requirements-colab-versions.txt")
    if name in colabs:
        version = str(colabs[name].specifier).removeprefix("==").removesuffix(".*")
        assert requirement.specifier.contains(version)
    installed = requirements("requirements-colab.txt")
    assert (name in installed) is (name not in {*colabs, *IN_COLAB, *OPENS_NOTEBOOKS}), name
    assert name not in installed or installed[name].specifier == requirement.specifier


def test_colab_installs_nothing_else():
    assert set(requirements("requirements-colab.txt")) <= set(requirements("requirements.txt"))


def test_development_requirements_include_the_course():
    lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    assert "-r requirements.txt" in lines
    assert {"pytest", "nbval", "ruff"} <= set(requirements("requirements-dev.txt"))


@pytest.mark.parametrize(
    "given, expected",
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
@pytest.mark.parametrize("package", ["utils", "spade"])
def test_threads_soon_sleep_unless_told_otherwise(package, given, expected):
    """torch reads the number when it is imported, so our packages must set it before that."""
    names = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
    environment = {name: value for name, value in os.environ.items() if name not in names}
    code = f"""
import os, sys
class Finder:
    def find_spec(name, *_):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"))
            sys.exit()
sys.meta_path.insert(0, Finder)
import {package}, torch
"""
    command = [sys.executable, "-c", code]
    run = subprocess.run(
        command, cwd=ROOT, env=environment | given, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == expected


@pytest.mark.parametrize(
    "platform, wish, expected",
    [("darwin", None, "true"), ("darwin", "false", "false"), ("linux", None, None)],
)
def test_a_mac_computes_on_its_processor_unless_told_otherwise(
    platform, wish, expected, monkeypatch
):
    monkeypatch.setenv("ACCELERATE_USE_CPU", wish or "")  # so that it is as before afterwards
    if wish is None:
        monkeypatch.delenv("ACCELERATE_USE_CPU")
    monkeypatch.setattr(sys, "platform", platform)
    importlib.reload(utils)
    assert os.environ.get("ACCELERATE_USE_CPU") == expected
