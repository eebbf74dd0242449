"""The running mean of a network's weights, which gives better pictures than the last weights."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class RunningMean(AveragedModel):
    """torch's AveragedModel of weights and buffers, with an update that does not block on a GPU.

    Args:
        keep: share of the mean that an update keeps, 0..1; less in the first updates, to forget
            the start.
    """

    def __init__(self, network: nn.Module, keep: float):
        super().__init__(network, use_buffers=True)
        self.keep = keep

    @torch.no_grad()
    def update_parameters(self, network: nn.Module) -> None:
        """Take the network's weights and buffers into the mean."""
        count = int(self.n_averaged)  # it lies on the CPU
        kept = min(self.keep, (1 + count) / (10 + count)) if count else 0.0
        means = [*self.module.parameters(), *self.module.buffers()]
        current = [*network.parameters(), *network.buffers()]
        floats = [x.is_floating_point() for x in means]
        torch._foreach_lerp_(  # all at once
            [x for x, is_float in zip(means, floats) if is_float],
            [x for x, is_float in zip(current, floats) if is_float],
            1 - kept,
        )
        for mean, x, is_float in zip(means, current, floats):
            if not is_float:  # batch norm's counters
                mean.copy_(x)
        self.n_averaged += 1
