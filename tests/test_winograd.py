"""Against torch's own convolution in double precision."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from spade.fast import winograd


def example(batch=1, height=8, width=6, in_channels=5, out_channels=3):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(batch, height, width, in_channels, generator=random)
    weight = torch.randn(out_channels, in_channels, 3, 3, generator=random)
    return x, weight, torch.randn(out_channels, generator=random)


def multiplications(compute):
    """How many multiplications compute() does in convolutions and matrix products."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        compute()
    return counter.get_total_flops() // 2  # it counts each addition, too


@pytest.mark.parametrize("tiles", [1, 5, 128])
@pytest.mark.parametrize(
    "shape", [{}, {"batch": 3}, {"height": 2, "width": 2}, {"height": 2, "width": 40}], ids=str
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_a_convolution(shape, tiles, layout, monkeypatch):
    monkeypatch.setattr(winograd, "TILES", tiles)
    x, weight, bias = example(**shape)
    found = winograd.convolution(x, weight.contiguous(memory_format=layout), bias)
    images = x.permute(0, 3, 1, 2).double()
    expected = F.conv2d(images, weight.double(), bias.double(), padding=1).permute(0, 2, 3, 1)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
