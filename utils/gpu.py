"""What keeps a GPU from waiting for Python: data sent without a stop, kernels started as one."""

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


class Recorded:
    """A function of tensors whose kernels a GPU is told to start all at once.

    A training step of a small network is thousands of short kernels; to start them one by one takes
    longer than they run.  After ORDINARY_CALLS with tensors of one shape they are recorded, and
    from then on played (a CUDA graph).

    Args:
        function: takes tensors, returns a tuple of tensors.  What Python does in it happens at the
            recording only: it must not ask for a number, send anything to the GPU, or do other
            things than the last time.  What it returns is overwritten by the next call.
        parameters: whose gradients it computes, anew in each call.
        alone: False if it talks to other processes; then it is called as it is, as on a CPU.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture
    """

    def __init__(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        parameters: Iterable[Tensor],
        alone: bool = True,
    ):
        self._function, self._parameters, self._alone = function, list(parameters), alone
        self._stream: torch.cuda.Stream | None = None
        self._calls: Counter = Counter()
        self._recordings: dict[tuple, _Recording] = {}

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        if not (self._alone and tensors[0].is_cuda):
            return self._function(*tensors)
        self._stream = self._stream or torch.cuda.Stream()
        shapes = tuple((x.shape, x.stride(), x.dtype) for x in tensors)
        if self._calls[shapes] < ORDINARY_CALLS:
            self._calls[shapes] += 1
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                outputs = self._function(*tensors)
            torch.cuda.current_stream().wait_stream(self._stream)
            return outputs
        if shapes not in self._recordings:
            self._recordings[shapes] = _Recording(
                self._function, self._parameters, tensors, self._stream
            )
        return self._recordings[shapes].play(tensors)


class _Recording:
    def __init__(self, function, parameters, tensors, stream):
        self.inputs = [x.clone() for x in tensors]
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=stream):
            self.outputs = function(*self.inputs)
        # Each recording writes gradients of its own.
        self.gradients = [(parameter, parameter.grad) for parameter in parameters]

    def play(self, tensors):
        for fixed, x in zip(self.inputs, tensors, strict=True):
            fixed.copy_(x)
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.outputs
