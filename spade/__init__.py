"""SPADE: semantic image synthesis with spatially-adaptive normalization.

An independent implementation of Park et al., CVPR 2019, arXiv:1903.07291.  It can load the
published weights.
"""

import utils  # noqa: F401  before torch, which reads what it sets

from .checkpoint import load_encoder, load_generator, save_encoder, save_generator
from .discriminator import MultiscaleDiscriminator
from .encoder import Encoder
from .generator import SpadeGenerator
from .semantics import semantics

__all__ = [
    "Encoder",
    "MultiscaleDiscriminator",
    "SpadeGenerator",
    "load_encoder",
    "load_generator",
    "save_encoder",
    "save_generator",
    "semantics",
]
