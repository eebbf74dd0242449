"""The processes and the device that a training runs on."""

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from utils.engine.batch_norm import synchronize_batch_norm
from utils.engine.precision import warn_of_emulation
from utils.weights import SCALER

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}  # our names -> Accelerate's


def make_accelerator(precision: str = "fp32", batch_size: int = 0) -> Accelerator:
    """Return Accelerate's processes and device, in "fp32", "bf16" or (on GPUs) "fp16".

    Warns if precision is "bf16" and the processor or GPU has no bfloat16 instructions.
    Raises ValueError for another precision, for fp16 without a GPU, and for a batch that can't be
    divided evenly among the processes.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}: expected {', '.join(PRECISIONS)}.")
    # Accelerate keeps the first precision of a process, but a notebook may use several.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=PRECISIONS[precision])
    if precision == "fp16" and accelerator.scaler is None:  # it would compute in float32
        raise ValueError(
            f'precision "fp16" needs a GPU, and this is the {accelerator.device.type}: take '
            '"fp32", or "bf16" where the processor has instructions for it.'
        )
    warn_of_emulation(precision, accelerator.device)
    processes = accelerator.num_processes
    if batch_size % processes:
        raise ValueError(f"A batch of {batch_size} can't be shared among {processes} processes.")
    return accelerator


def place(accelerator: Accelerator, *networks: nn.Module) -> None:
    """Move networks to the device, in place, in the layout that convolutions are fastest in.

    Several processes share the statistics of their batch norms.
    """
    for network in networks:
        if accelerator.num_processes > 1:
            synchronize_batch_norm(network)
        network.to(accelerator.device, memory_format=torch.channels_last)


def scaler_of(accelerator: Accelerator) -> dict:
    """float16's gradient scaler as a part of a checkpoint, by its name; {} in other precisions."""
    return {} if accelerator.scaler is None else {SCALER: accelerator.scaler}
