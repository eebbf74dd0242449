"""For unit tests and notebooks alike: nbval's kernels inherit pytest's environment."""

import os

from tools.run_notebooks import KERNEL_ENVIRONMENT


def pytest_configure(config):
    for name, value in KERNEL_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
