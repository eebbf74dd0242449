"""Tensors that several test modules take for photos and maps, and when two of them are equal."""

import torch


def noise(*shape, seed=0, low=0, high=256):
    """Random numbers low..high - 1, uint8: the same ones every time."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, shape, generator=generator, dtype=torch.uint8)


def equal(one, other):
    """Whether two dataclasses, or named tuples, hold the same tensors and other values."""
    values = (x if isinstance(x, tuple) else vars(x).values() for x in (one, other))
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(*values, strict=True)
    )
