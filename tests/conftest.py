"""The order of the tests, and what several of them start."""

import pytest
import torch
from browser import find_browser
from local_server import local_site
from networks import a_pipeline

LONGEST = "browser page stages training spade_training gpu cache".split()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """The longest modules first: no worker is left with one of them while the other rests."""
    for item in items:
        if "browser" in item.fixturenames:
            item.add_marker("browser")
            item.add_marker("slow")
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    items.sort(key=lambda item: [*LONGEST, item.path.stem[5:]].index(item.path.stem[5:]))


@pytest.fixture(scope="session")
def browser():
    """The path of a Chromium; tests that use it are marked above."""
    pytest.importorskip("playwright", reason="needs playwright: pip install playwright")
    return find_browser() or pytest.skip("needs a browser: sudo apt-get install chromium")


@pytest.fixture
def site():
    """The local server that downloads come from."""
    with local_site() as site:
        yield site


@pytest.fixture(scope="session")
def pipeline():
    """Not to be changed, like its networks."""
    return a_pipeline()


@pytest.fixture(scope="session")
def segmenter(pipeline):
    return pipeline.segmenter
