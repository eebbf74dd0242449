"""Untrained networks for several test modules."""

import torch

from spade import SpadeGenerator
from utils.pipeline import Pipeline
from utils.segmentation import SegmentationNet


def a_generator(seed=0, size=(128, 64), styles=("noon", "night")):
    """A small untrained generator with these styles, without a latent if there are none."""
    torch.manual_seed(seed)
    z_dim = 6 if styles else None
    generator = SpadeGenerator(ngf=4, z_dim=z_dim, size=size, hidden=4, max_channels=8).eval()
    generator.styles = {name: torch.randn(6) for name in styles}
    return generator


def a_pipeline(size=(64, 32), z_dim=None):
    """Two untrained networks; without a latent, for any multiple of 32 pixels."""
    torch.manual_seed(0)
    generator = SpadeGenerator(ngf=2, hidden=4, upsampling="normal", size=size, z_dim=z_dim)
    return Pipeline(SegmentationNet("resnet18"), generator)
