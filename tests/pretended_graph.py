"""CUDA graphs for machines without a GPU: utils.engine.graphs can be tested on a CPU.

What is called between begin() and end() has no effect, as in a capture; replay() calls the same
operators on the same memory.
"""

import contextlib
import os

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from utils.engine import graphs


class PretendedGraph:
    made = replays = 0  # of all of them

    def __init__(self):
        PretendedGraph.made += 1

    def begin(self) -> None:
        self._notes = _Notes()
        self._notes.__enter__()

    def end(self) -> None:
        if self._notes.is_open:
            self._notes.__exit__(None, None, None)

    @torch.no_grad()
    def replay(self) -> None:
        PretendedGraph.replays += 1
        for operator, arguments, settings, results in self._notes.calls:
            again = _tensors(operator(*arguments, **settings))
            for result, x in zip(results, again, strict=True):
                if result.untyped_storage().data_ptr() != x.untyped_storage().data_ptr():
                    result.copy_(x)  # else a view, or what was changed in place


class _Notes(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls, self.before, self.is_open = [], [], False

    def __enter__(self):
        self.is_open = True
        return super().__enter__()

    def __exit__(self, *error):
        self.is_open = False
        super().__exit__(*error)
        with torch.no_grad():
            for x, values in reversed(self.before):
                x.copy_(values)

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if operator is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        # Batch norm changes its running statistics, which its schema does not say.
        if operator._schema.is_mutable or "batch_norm" in str(operator):
            self.before += [(x, x.clone()) for x in _tensors((args, kwargs))]
        results = operator(*args, **kwargs)
        self.calls.append((operator, args, kwargs, _tensors(results)))
        return results


def _tensors(tree) -> list[Tensor]:
    """Those on the pretended GPU (pretended_gpu.py) are replaced by the ones they hold."""
    return [getattr(x, "numbers", x) for x in tensors_in(tree)]


def tensors_in(tree) -> list[Tensor]:
    """The tensors in nested tuples, lists and dicts; torch's own search takes most of a test."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, (tuple, list)):
        return []
    return [x for part in tree for x in tensors_in(part)]


def install(monkeypatch) -> None:
    """Record pretended graphs, on every device, unless the environment has COURSE_RECORD=0.

    The second call of a function is recorded: here no library tries algorithms in the first ones.
    """
    PretendedGraph.made = PretendedGraph.replays = 0
    monkeypatch.setattr(graphs, "WARMUP_CALLS", 1)
    monkeypatch.setattr(graphs, "Graph", PretendedGraph)
    monkeypatch.setattr(graphs, "side_stream", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(graphs, "records", lambda _: os.environ.get("COURSE_RECORD") != "0")
