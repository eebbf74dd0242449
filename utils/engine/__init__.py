"""What both trainings share: accelerator, precision, CUDA graphs, synchronised batch norm."""

from utils.engine.accelerator import make_accelerator
from utils.engine.precision import evaluation_mode, precision_of_gpu

__all__ = ["evaluation_mode", "make_accelerator", "precision_of_gpu"]
