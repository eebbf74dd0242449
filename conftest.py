"""For unit tests and notebooks alike: nbval's kernels inherit pytest's environment."""

import os

import pytest

from tools.run_notebooks import set_kernel_environment


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """With pytest-xdist's -n, one process runs all of a notebook's cells, or a module's tests."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist, config.option.loadscopereorder = "loadscope", False


def pytest_configure(config):
    set_kernel_environment()
    # A measured value out of its bounds is an error here (utils.exercises.check_value).
    os.environ["COURSE_STRICT"] = "1"
    # What is compared are a CPU's bits, and notebooks as they run without a GPU.
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
