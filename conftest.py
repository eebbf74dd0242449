"""For unit tests and notebooks alike: nbval's kernels inherit pytest's environment."""

from tools.run_notebooks import set_kernel_environment


def pytest_configure(config):
    set_kernel_environment()
