"""The processes and the device that a training runs on."""

from accelerate import Accelerator
from accelerate.state import AcceleratorState

from utils.engine.precision import warn_of_emulation

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}  # our names -> Accelerate's
CHECK_EVERY = 20  # steps; looking at a loss makes a GPU wait


def make_accelerator(precision: str = "fp32", batch_size: int = 0) -> Accelerator:
    """The processes and the device to train on, in "fp32", "bf16" or (on GPUs) "fp16".

    Warns where processor or GPU have no bfloat16 instructions.
    Raises ValueError for another precision, or a batch that can't be shared among the processes.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}: expected {', '.join(PRECISIONS)}.")
    # Accelerate remembers the first precision of a process; in a notebook there may be another.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=PRECISIONS[precision])
    warn_of_emulation(precision, accelerator.device)
    processes = accelerator.num_processes
    if batch_size % processes:
        raise ValueError(f"A batch of {batch_size} can't be shared among {processes} processes.")
    return accelerator


def diverged(what: str, kept: str) -> FloatingPointError:
    """What to raise when a loss is no number any more: which, where, and what is left."""
    return FloatingPointError(
        f"{what}: the training has diverged, and {kept}. Start again with a smaller "
        'learning_rate, or with precision="fp32" if it was "fp16".'
    )
