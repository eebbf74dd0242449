"""Batch norm over several processes: what one process with the whole batch computes."""

import pytest
import torch
import torch.distributed as dist
from killed import SERVER
from timm.layers import BatchNormAct2d
from torch import nn

from utils.backbones import BACKBONES
from utils.engine.batch_norm import (
    SyncedBatchNorm2d,
    SyncedBatchNormAct2d,
    synchronize_batch_norm,
)
from utils.segmentation import SegmentationNet


def networks():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)
    return nn.Sequential(*layers, BatchNormAct2d(4, act_layer=nn.ReLU6))


def the_batch():
    return torch.randn(4, 3, 5, 7, generator=torch.Generator().manual_seed(1)) * 3 + 20


def learn(network, x):
    """One step's gradients for a loss that differs in every pixel."""
    weights = torch.linspace(-1, 1, 4 * 4 * 3 * 5).reshape(4, 4, 3, 5)
    y = network(x)
    part = weights if len(x) == 4 else weights[dist.get_rank() :: 2]
    (y.square() * part).sum().backward()
    return y.detach(), [p.grad.clone() for p in network.parameters()], network.state_dict()


def one_of_two(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    network = synchronize_batch_norm(networks())
    torch.save(learn(network, the_batch()[rank::2]), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_compute_what_one_does(tmp_path):
    processes = [SERVER.Process(target=one_of_two, args=(rank, tmp_path)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    y, gradients, state = learn(networks(), the_batch())
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for rank, (part, _, its_state) in enumerate(results):
        torch.testing.assert_close(part, y[rank::2], atol=1e-5, rtol=1e-5)
        for key, value in state.items():
            torch.testing.assert_close(its_state[key], value, atol=1e-5, rtol=1e-5)
    # Each process has its part of the loss: the gradients add up.
    for whole, first, second in zip(gradients, results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(first + second, whole, atol=1e-4, rtol=1e-4)


def test_alone_it_is_plain_batch_norm_and_keeps_its_keys():
    plain, synced = networks(), synchronize_batch_norm(networks())
    assert type(synced[1]) is type(synced[2]) is SyncedBatchNorm2d
    assert type(synced[3]) is SyncedBatchNormAct2d
    assert synced.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(synced(the_batch()), plain(the_batch()))
    assert torch.equal(synced.eval()(the_batch()), plain.eval()(the_batch()))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_all_batch_norms_of_our_networks_are_known(backbone):
    with torch.device("meta"):  # without weights
        network = synchronize_batch_norm(SegmentationNet(backbone, "unet"))
    norms = [x for x in network.modules() if isinstance(x, nn.BatchNorm2d)]
    assert len(norms) > 10 and all(isinstance(x, SyncedBatchNorm2d) for x in norms)
