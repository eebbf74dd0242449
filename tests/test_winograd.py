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


def test_by_hand():
    x = torch.arange(4.0).reshape(1, 2, 2, 1)
    weight = torch.arange(9.0).reshape(1, 1, 3, 3)
    # The upper left pixel: 0 * 4 + 1 * 5 + 2 * 7 + 3 * 8, and 10 for the bias.
    result = winograd.convolution(x, weight, torch.tensor([10.0]))
    assert result.shape == (1, 2, 2, 1) and result[0, 0, 0, 0] == 53


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


def test_it_multiplies_less_than_half_as_often():
    x, weight, bias = example(2, 32, 16, 128, 128)
    images = x.permute(0, 3, 1, 2)
    plain = multiplications(lambda: F.conv2d(images, weight, bias, padding=1))
    fast = multiplications(lambda: winograd.convolution(x, weight, bias))
    assert plain == 9 * 128 * 128 * x[..., 0].numel()
    assert fast < plain / 2  # 4 / 9, and a little more for the kernel
