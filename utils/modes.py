"""Evaluation mode for a while."""

import contextlib

from torch import nn


@contextlib.contextmanager
def evaluation_mode(network: nn.Module):
    """Evaluation mode inside; after it, each part is in the mode that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
