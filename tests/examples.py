"""Tensors that several test modules take for photos and maps."""

import torch


def noise(*shape, seed=0, low=0, high=256):
    """Random numbers low..high - 1, uint8: the same ones every time."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, shape, generator=generator, dtype=torch.uint8)
