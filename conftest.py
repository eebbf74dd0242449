"""For unit tests and notebooks alike: nbval's kernels inherit pytest's environment."""

import os

from tools.run_notebooks import set_kernel_environment


def pytest_configure(config):
    set_kernel_environment()
    # What is compared are a CPU's bits, and notebooks as they run without a GPU.
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
