"""The order of the tests, and what several of them start."""

import gc
from pathlib import Path

import pytest
from browser import find_browser
from local_server import local_site

# The modules of a group run in one process under pytest-xdist: those that wait for a browser, and
# those that share a server of processes.  All other modules follow, the longest ones first.
GROUPS = {
    "browser": "page browser",
    "processes": "stages gpu training cache photo_folder downloads batch_norm",
}
LONGEST = " ".join([*GROUPS.values(), "gpu_benchmark spade_training colab run_notebooks"]).split()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    import torch  # here, because the process that only hands tests out does without

    for item in items:
        if "browser" in item.fixturenames:
            item.add_marker("browser")
            item.add_marker("slow")
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem.removeprefix("test_"), len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            module = super()._split_scope(nodeid)
            name = Path(module).stem.removeprefix("test_")
            return next((x for x, members in GROUPS.items() if name in members.split()), module)

    return Groups(config, log)


def pytest_collection_finish():
    """Searches for garbage pass over what was imported: with torch, each takes half a second."""
    gc.collect()
    gc.freeze()


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
    from networks import a_pipeline

    return a_pipeline()


@pytest.fixture(scope="session")
def segmenter(pipeline):
    return pipeline.segmenter
