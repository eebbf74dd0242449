"""A GPU for machines without one.  It stays for the rest of the process: see test_gpu.py.

Its tensors say that they are on the device "pretended" and hold their numbers on the CPU.  Like
those of a real GPU they refuse to be mixed with the CPU's, or to become numpy arrays: so what one
forgot to move is found.  Speed and rounding are the CPU's.
"""

import os

import torch
import torch.utils.backend_registration as registration
from pretended_graph import tensors_in
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = "pretended"
aten = torch.ops.aten
# On a GPU, too, these take tensors of both kinds.
MAY_MIX = {
    aten._to_copy.default,
    aten.copy_.default,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}


class OnGpu(Tensor):
    """A tensor on the pretended GPU; `numbers` is the one that is computed with."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, numbers: Tensor):
        return Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=torch.device(DEVICE, 0),
            requires_grad=numbers.requires_grad,
        )

    def __init__(self, numbers: Tensor):
        self.numbers = numbers

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return compute(operator, args, kwargs or {})

    # What tensors can do beside torch's operators:

    def __deepcopy__(self, memo: dict) -> "OnGpu":
        if id(self) not in memo:
            copied = self.detach().clone().requires_grad_(self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                copied._is_param = True
            memo[id(self)] = copied
        return memo[id(self)]

    def __reduce_ex__(self, protocol):
        return self.numbers.detach().__reduce_ex__(protocol)  # as read again onto the CPU

    def __format__(self, specification: str) -> str:
        return format(self.item(), specification)

    def tolist(self) -> list:
        return self.numbers.tolist()

    def numpy(self, **_):
        raise TypeError("can't convert a tensor on a GPU to numpy: copy it to the CPU first")

    __array__ = numpy


class Dispatch(TorchDispatchMode):
    """Sees the operators that no tensor of the GPU takes part in: they may make one."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        return compute(operator, args, kwargs or {})


def compute(operator, args: tuple, kwargs: dict):
    """Call one of torch's operators on the CPU; what comes out is where a GPU would have it."""
    inputs = tensors_in((args, kwargs))
    on_gpu = [x for x in inputs if isinstance(x, OnGpu)]
    on_cpu = [x for x in inputs if not isinstance(x, OnGpu)]
    stray = [x for x in on_cpu if x.dim()]  # a single number may be anywhere
    may_mix = operator in MAY_MIX
    if operator is aten.index.Tensor:  # indices on the CPU will do, but not the other way round
        may_mix = isinstance(args[0], OnGpu)
    if on_gpu and stray and not may_mix:
        shapes = [[tuple(x.shape) for x in tensors] for tensors in (on_gpu, stray)]
        raise RuntimeError(f"{operator}: {shapes[0]} are on the GPU, {shapes[1]} on the CPU")
    device = kwargs.get("device")
    if device is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    plain = mapped(lambda x: x.numbers if isinstance(x, OnGpu) else x, (args, kwargs))
    results = operator(*plain[0], **plain[1])
    goes_to_gpu = on_gpu if device is None else torch.device(device).type == DEVICE
    known = {id(x.numbers): x for x in on_gpu} | {id(x): x for x in on_cpu}  # changed in place

    def placed(x):
        if not isinstance(x, Tensor) or not goes_to_gpu:
            return x
        return known[id(x)] if id(x) in known else OnGpu(x)

    return mapped(placed, results)


def mapped(change, tree):
    """Nested tuples, lists and dicts with all that they hold changed."""
    if type(tree) in (tuple, list):
        return type(tree)(mapped(change, part) for part in tree)
    if type(tree) is dict:
        return {name: mapped(change, part) for name, part in tree.items()}
    return change(tree)


class Backend(registration._DummyBackendModule):
    """What torch and accelerate ask a kind of device."""

    manual_seed_all = set_device = synchronize = staticmethod(lambda *_: None)

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def install() -> None:
    """From here on there is such a GPU, and Accelerate takes it."""
    os.environ["ACCELERATE_TORCH_DEVICE"] = DEVICE
    library = torch.library.Library("_", "IMPL")
    library.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    registration._setup_privateuseone_for_python_backend(DEVICE, Backend())
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch.tensor, torch.as_tensor = made_there(torch.tensor), made_there(torch.as_tensor)
    install.kept = library, Dispatch()
    install.kept[1].__enter__()


def made_there(make):
    """torch.tensor() and torch.as_tensor() fill new memory without an operator."""

    def made(data, *, device=None, **settings):
        x = make(data, **settings)
        return x if device is None else x.to(device)

    return made
