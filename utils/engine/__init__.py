"""The parts that both trainings share: devices, precision, and runs that can be resumed."""

from utils.engine.accelerator import make_accelerator
from utils.engine.precision import evaluation_mode, precision_of_gpu
from utils.engine.run import Run

__all__ = ["Run", "evaluation_mode", "make_accelerator", "precision_of_gpu"]
