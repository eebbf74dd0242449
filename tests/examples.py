"""Random photos and maps for several test modules, and a comparison of whatever holds tensors."""

import dataclasses

import torch


def noise(*shape, seed=0, low=0, high=256):
    """Random numbers low..high - 1, uint8: the same ones every time."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, shape, generator=generator, dtype=torch.uint8)


def equal(one, other):
    """Whether dataclasses, dicts, lists or tuples, also nested ones, hold the same values."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if dataclasses.is_dataclass(one):
        one, other = vars(one), vars(other)
    if isinstance(one, (dict, list, tuple)):
        keys = one.keys() if isinstance(one, dict) else range(len(one))
        return len(one) == len(other) and all(equal(one[key], other[key]) for key in keys)
    return one == other
