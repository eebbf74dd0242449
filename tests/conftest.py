"""The order of the tests, and what several of them start."""

import os
import subprocess
import sys

import pytest
import torch
from local_server import local_site

from utils.files import PROJECT

LONGEST = tuple(
    f"test_{name}.py" for name in ("browser", "page", "training", "spade_training", "cache")
)


def pytest_collection_modifyitems(items):
    """The longest modules first: no worker is left with one of them while the other rests."""
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    items.sort(key=lambda item: (*LONGEST, item.path.name).index(item.path.name))


@pytest.fixture
def site():
    """The local server that downloads come from."""
    with local_site() as site:
        yield site


@pytest.fixture
def in_two_processes():
    """Run a module's command line, "-m utils.training ...", in two processes of one thread each.

    Returns what they print, if they succeed.
    """

    def run(*line: str) -> str:
        launch = "-m accelerate.commands.launch --cpu --num_processes 2 --num_machines 1"
        launch += " --mixed_precision no --dynamo_backend no"
        done = subprocess.run(
            [sys.executable, *launch.split(), *line],
            cwd=PROJECT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "COURSE_PROGRESS": "0"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run
