"""Evaluation mode and numeric precision."""

import contextlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn


@contextlib.contextmanager
def evaluation_mode(network: nn.Module):
    """Evaluation mode inside; after it, each part is in the mode that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def restored(accelerator: Accelerator, networks: Sequence[nn.Module], optimizers: Sequence):
    """On exit, even after an error, prepared networks compute in float32 and hold no gradients.

    Accelerate puts the precision of a training into their forward(), where it would stay; and
    gradients would go on taking a GPU's memory.
    """
    try:
        yield
    finally:
        for network in networks:
            accelerator.unwrap_model(network, keep_fp32_wrapper=False)
        for optimizer in optimizers:
            optimizer.zero_grad()


def half_precision(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Autocast to a 16-bit dtype on a GPU; with float32, and on every CPU, autocast is off."""
    is_half = dtype != torch.float32
    return torch.autocast(device.type, dtype if is_half else None, is_half and device.type != "cpu")


def precision_of_gpu() -> str:
    """The precision to use on this machine: "bf16" or "fp16" on a GPU, "fp32" without one.

    GPUs from before 2020, such as a T4, have no bfloat16 instructions.
    """
    if not torch.cuda.is_available():
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def warn_of_emulation(precision: str, device: torch.device) -> None:
    """Warn where "bf16" is asked of a processor or GPU without bfloat16 instructions."""
    if precision != "bf16":
        return
    if device.type == "cpu" and _emulates_bfloat16():
        warnings.warn(
            "This processor has no bfloat16 instructions and emulates them: a training takes 2 to "
            "13 times as long as in float32.",
            stacklevel=3,
        )
    if device.type == "cuda" and precision_of_gpu() != "bf16":
        warnings.warn(
            'This GPU has no bfloat16 instructions and emulates them: "fp16" is faster.',
            stacklevel=3,
        )


def _emulates_bfloat16() -> bool:
    facts = Path("/proc/cpuinfo")  # only on Linux; only x86 processors have a line "flags" in it
    lines = facts.read_text().splitlines() if facts.is_file() else []
    flags = next((line.split() for line in lines if line.startswith("flags")), None)
    if flags is None:  # x86 processors with bfloat16 instructions also have AVX-512
        return torch.backends.cpu.get_cpu_capability() == "AVX2"
    return not {"avx512_bf16", "amx_bf16"} & set(flags)
