"""Batch norm whose statistics are those of the whole batch, however many processes share it."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d over the batches of all processes, which must be of one shape.

    torch's own SyncBatchNorm does the same on GPUs only; this one also works on CPUs, and its
    gradients are those of one process with the whole batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> the same shape."""
        if not self.training or not dist.is_initialized():
            return super().forward(x)
        processes, values = dist.get_world_size(), x.float()
        # The mean first: a variance as the difference of two large numbers would lose digits.
        mean = all_reduce(values.mean((0, 2, 3))) / processes  # (C,)
        centred = values - mean[:, None, None]
        variance = all_reduce(centred.square().mean((0, 2, 3))) / processes  # (C,)
        with torch.no_grad():
            count = processes * values[:, 0].numel()
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        normalized = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            normalized = normalized * self.weight[:, None, None] + self.bias[:, None, None]
        return normalized.to(x.dtype)


class SyncedBatchNormAct2d(SyncedBatchNorm2d):
    """The same for timm's BatchNormAct2d, in EfficientNets, which ends with an activation."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


# By the names of their types, so that timm is imported only where a network comes from it.
SYNCED = {"BatchNorm2d": SyncedBatchNorm2d, "BatchNormAct2d": SyncedBatchNormAct2d}


def synchronize_batch_norm(network: nn.Module) -> nn.Module:
    """Replace the class of each batch norm by its synchronized one, in place; its weights stay."""
    for module in network.modules():
        if synced := SYNCED.get(type(module).__name__):
            module.__class__ = synced
    return network
