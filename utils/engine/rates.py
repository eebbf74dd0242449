"""Learning rates that differ from part to part of a network."""

from torch import nn
from torch.optim import Optimizer


def shares_of_rate(*parts: tuple[nn.Module, float]) -> list[dict]:
    """Groups of parameters for an optimizer: each learns at its share of set_rate()'s rate."""
    return [{"params": part.parameters(), "share": share} for part, share in parts]


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Give each group its share of the rate; all of it if it has none."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1)
