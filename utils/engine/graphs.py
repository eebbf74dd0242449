"""CUDA graphs for training steps and inference, copies to a GPU that don't block, and constants.

    step = graphed(step, [optimizer], device)
    result = inferred(network, function, x)

A training step of a small network is thousands of short kernels, and launching them one by one
takes longer than running them.  A CUDA graph records the kernels once and launches all of them
together.  The step is written as if there were no graphs: everything about them is in this file.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

WARMUP_CALLS = 3  # before the capture: cuDNN and cuBLAS pick their algorithms in these
MAX_INFERENCES = 2  # captures of a network: each holds the memory of its intermediate results


def send(x: Tensor, device: torch.device) -> Tensor:
    """x on the device.  A copy to a GPU is queued there and does not block the CPU."""
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()  # only from pinned memory a copy runs in the background
    return x.to(device, non_blocking=device.type == "cuda")


@lru_cache(maxsize=64)
def constant(values: tuple, device: torch.device) -> Tensor:
    """Numbers, in tuples of tuples, as a float32 tensor that is made once for each device."""
    with torch.inference_mode(False):  # later callers may need gradients
        return torch.tensor(values, dtype=torch.float32, device=device)


def records(device: torch.device) -> bool:
    """Whether CUDA graphs are used on it: on a GPU, unless the environment has COURSE_RECORD=0."""
    return device.type == "cuda" and os.environ.get("COURSE_RECORD") != "0"


def graphed(step: Callable, optimizers: Sequence[Optimizer], device: torch.device) -> Callable:
    """Wrap a training step in a GraphedCallable.  The step is returned unchanged if records() is
    false, or if several processes train, because they exchange gradients within a step."""
    is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if is_distributed or not records(device):
        return step
    return partial(GraphedCallable(), step, optimizers)


def inferred(network: nn.Module, function: Callable, *tensors: Tensor):
    """Return function(*tensors), on a GPU by a graph if the environment has COURSE_RECORD=all.

    It is off by default until its speed on a GPU has been measured (by benchmarks/gpu.py).
    A graph reads weights from fixed addresses: changes in place take effect, and weights at other
    addresses get a new capture.  Everything else that the function reads must stay the same.

    Args:
        network: what the function computes with, in evaluation mode and without gradients, in the
            precision of the caller's autocast.  It keeps the MAX_INFERENCES captures used last.
    """
    device = tensors[0].device
    if not records(device) or os.environ.get("COURSE_RECORD") != "all":
        return function(*tensors)
    tensors = [x.contiguous() for x in tensors]  # one capture for all layouts
    of_network = _GRAPHED.setdefault(network, GraphedCallable(MAX_INFERENCES))
    half = torch.get_autocast_dtype(device.type), torch.is_autocast_enabled(device.type)
    weights = (x.data_ptr() for x in (*network.parameters(), *network.buffers()))
    # No cache: an outer autocast frees its half-precision copies of the weights, and a graph would
    # then read freed memory.
    with torch.autocast(device.type, *half, cache_enabled=False):
        return of_network(function, (), *tensors, kind=(*half, *weights))


class GraphedCallable:
    """Calls a step a few times, captures its kernels, and replays them from then on.

    Each shape of batch has a capture of its own.  Calls of an optimizer's step() are not captured,
    because learning rates change, and float16 skips some of the calls.  The kernels before the
    first call, between two calls, and after the last call are one graph each.

    Args:
        most: how many captures to keep, the most recently used ones; None keeps all.

    Args of a call:
        step: a function of tensors that returns a tensor, or a tuple or dict of tensors; results
            are copies, which no later call changes.  What Python does in the step happens at the
            capture only: the step must not read a number from the GPU, send anything to it, or
            branch on a value.
        optimizers: all whose step() it calls; it computes their gradients anew in each call.
        kind: a key that, together with the shapes of the tensors, identifies a capture.

    Raises RuntimeError if the step can't be captured, TypeError if it returns anything else.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture
    """

    def __init__(self, most: int | None = None):
        self._most, self._calls = most, Counter()
        self._captures: dict[tuple, _Capture] = {}  # what was used last is last

    def __call__(
        self, step: Callable, optimizers: Sequence[Optimizer], *tensors: Tensor, kind: tuple = ()
    ):
        kind = (*kind, *((x.shape, x.stride(), x.dtype) for x in tensors))
        if self._calls[kind] < WARMUP_CALLS:
            self._calls[kind] += 1
            with side_stream(tensors[0].device):
                return copies(step(*tensors))
        capture = self._captures.pop(kind, None)
        if capture is None:
            if len(self._captures) == self._most:
                oldest = next(iter(self._captures))
                del self._captures[oldest], self._calls[oldest]
            capture = _Capture(step, optimizers, tensors)
        self._captures[kind] = capture
        return capture.replay(tensors)


_GRAPHED: WeakKeyDictionary[nn.Module, GraphedCallable] = WeakKeyDictionary()


class _Capture:
    """The kernels of one function, as graphs with an optimizer's step between each two."""

    def __init__(self, step: Callable, optimizers: Sequence[Optimizer], tensors: Sequence[Tensor]):
        with torch.inference_mode(False):  # a later call may be outside of it
            self.inputs = [x.detach().clone() for x in tensors]
        self.graphs = [Graph()]
        self.updates: list[tuple[Optimizer, list]] = []
        # With these in place of step(), capturing changes no weight.
        steps = [partial(self._cut, optimizer) for optimizer in optimizers]
        with side_stream(tensors[0].device), _replaced(optimizers, steps):
            try:
                self.graphs[0].begin()
                # The copies give the last graph a kernel, even if the step ends with an update.
                self.outputs = copies(step(*self.inputs))
                self.graphs[-1].end()
            except BaseException as error:
                with contextlib.suppress(RuntimeError):
                    self.graphs[-1].end()  # else the GPU would refuse all that comes after it
                if not isinstance(error, RuntimeError):
                    raise
                raise RuntimeError(
                    f"A step could not be captured: {error}\nIf you have changed it, so that it "
                    "prints a number or sends something to the GPU, or if the GPU's memory is too "
                    "small, restart the kernel and work without graphs: "
                    'os.environ["COURSE_RECORD"] = "0".'
                ) from error

    def _cut(self, optimizer: Optimizer) -> None:
        """End a graph where the step would update the weights, and begin the next one."""
        self.graphs[-1].end()
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        # Each capture writes gradients of its own.
        self.updates.append((optimizer, [(p, p.grad) for p in parameters]))
        self.graphs.append(Graph())
        self.graphs[-1].begin()

    def replay(self, tensors: Sequence[Tensor]):
        for fixed, x in zip(self.inputs, tensors, strict=True):
            fixed.copy_(x)
        for graph, (optimizer, gradients) in zip(self.graphs, self.updates):
            graph.replay()
            for parameter, gradient in gradients:
                parameter.grad = gradient
            optimizer.step()
        self.graphs[-1].replay()
        return copies(self.outputs)


class Graph:
    """One CUDA graph of what is called on the current stream; its kernels first run in replay()."""

    def __init__(self):
        self._graph = torch.cuda.CUDAGraph()
        self._capture = contextlib.ExitStack()

    def begin(self) -> None:
        stream = torch.cuda.current_stream()
        self._capture.enter_context(torch.cuda.graph(self._graph, stream=stream))

    def end(self) -> None:
        """Does nothing if the capture has ended already."""
        self._capture.close()

    def replay(self) -> None:
        self._graph.replay()


def copies(results):
    """Copies of a tensor, or of all tensors in a tuple or dict; TypeError for anything else."""
    if isinstance(results, Tensor):
        return results.clone()
    if isinstance(results, dict):
        return {name: copies(result) for name, result in results.items()}
    if isinstance(results, (tuple, list)):
        return tuple(copies(result) for result in results)
    raise TypeError(
        f"A step returned {results!r}: expected a tensor, or a tuple or dict of tensors."
    )


@contextlib.contextmanager
def _replaced(optimizers: Sequence[Optimizer], steps: Sequence[Callable]) -> Iterator[None]:
    """Other functions in the place of the optimizers' step()."""
    for optimizer, step in zip(optimizers, steps, strict=True):
        optimizer.step = step  # hides the class's method
    try:
        yield
    finally:
        for optimizer in optimizers:
            del optimizer.step


@contextlib.contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """Use a side stream, as the default one can't be captured; each stream waits for the other."""
    side, current = _stream(device), torch.cuda.current_stream()
    side.wait_stream(current)
    try:
        with torch.cuda.stream(side):
            yield
        current.wait_stream(side)
    finally:
        torch.cuda.set_stream(current)  # a failed capture leaves the side stream as the current one


@lru_cache(maxsize=8)
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # one for all: libraries keep memory for each
