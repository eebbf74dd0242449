"""Learning rates that differ from part to part of a network."""

from torch import nn
from torch.optim import Optimizer


def shares_of_rate(network: nn.Module, backbone: float) -> list[dict]:
    """Parameters for an optimizer: those of network.encoder learn at that share of the rate."""
    if backbone == 1:
        return [{"params": network.parameters()}]
    parts = (network.encoder, backbone), (network.head, 1.0)
    return [{"params": part.parameters(), "share": share} for part, share in parts]


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Give each group its share of the rate; all of it if it has none."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)
