"""What keeps a GPU from waiting for Python: data sent without a stop, kernels started as one."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache

import torch
from torch import Tensor

ORDINARY_CALLS = 3  # before a recording: libraries choose their ways in the first ones


def send(x: Tensor, device: torch.device) -> Tensor:
    """x on that device.  A GPU gets it when it has done what it was asked before; nobody waits."""
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()  # only from there it is copied in the background
    return x.to(device, non_blocking=device.type == "cuda")


@lru_cache(maxsize=64)
def constant(values: tuple, device: torch.device) -> Tensor:
    """Numbers, in tuples of tuples, as a float32 tensor that stays on its device."""
    with torch.inference_mode(False):  # whoever asks first, others may need it for gradients
        return torch.tensor(values, dtype=torch.float32, device=device)


class Recorder:
    """Calls a function of tensors, and tells a GPU to start all of its kernels at once.

    A training step of a small network is thousands of short kernels; to start them one by one takes
    longer than they run.  After ORDINARY_CALLS with tensors of one shape they are recorded, and
    from then on played (a CUDA graph).  Elsewhere than on a GPU, among several processes, and where
    the environment has COURSE_RECORD=0, each call is an ordinary one.

    Args:
        parameters: whose gradients the function computes, anew in each call.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture
    """

    def __init__(self, parameters: Iterable[Tensor]):
        self._parameters = list(parameters)
        self._calls: Counter = Counter()
        self._recordings: dict[tuple, _Recording] = {}

    def __call__(
        self, function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """What function(*tensors) returns; the next call overwrites it.

        Args:
            function: the same each time.  What Python does in it happens at the recording only: it
                must not ask for a number, send anything to the GPU, or take another way.

        Raises RuntimeError if the function does what can't be recorded.
        """
        # It is not kept: whose method it is would keep this one, and with it the GPU's memory.
        if not (tensors[0].is_cuda and _is_alone() and os.environ.get("COURSE_RECORD") != "0"):
            return function(*tensors)
        shapes = tuple((x.shape, x.stride(), x.dtype) for x in tensors)
        if self._calls[shapes] < ORDINARY_CALLS:
            self._calls[shapes] += 1
            stream = _stream(tensors[0].device)
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                outputs = function(*tensors)
            torch.cuda.current_stream().wait_stream(stream)
            return outputs
        if shapes not in self._recordings:
            self._recordings[shapes] = _Recording(function, self._parameters, tensors)
        return self._recordings[shapes].play(tensors)


class _Recording:
    def __init__(self, function, parameters, tensors):
        self.inputs = [x.clone() for x in tensors]
        self.graph = torch.cuda.CUDAGraph()
        before = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(self.graph, stream=_stream(tensors[0].device)):
                self.outputs = function(*self.inputs)
        except RuntimeError as error:
            raise RuntimeError(
                f"A training step could not be recorded: {error}\nIf you have changed the step, so "
                "that it prints a number or sends something to the GPU, train without recordings: "
                'os.environ["COURSE_RECORD"] = "0".'
            ) from error
        finally:
            torch.cuda.set_stream(before)  # after an error it would be the other one
        # Each recording writes gradients of its own.
        self.gradients = [(parameter, parameter.grad) for parameter in parameters]

    def play(self, tensors):
        for fixed, x in zip(self.inputs, tensors, strict=True):
            fixed.copy_(x)
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.outputs


@lru_cache(maxsize=8)
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # one for all: libraries keep memory for each


def _is_alone() -> bool:
    """Several processes talk to each other in the middle of a step."""
    return not (torch.distributed.is_available() and torch.distributed.is_initialized())
