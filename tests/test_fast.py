"""The accelerated generator against its plain forward()."""

import copy

import pytest
import torch
import torch.nn.functional as F
from test_spade import small_generator
from torch.utils.flop_counter import FlopCounterMode

import spade
from spade.fast import fast_forward, number_neighbourhoods, tables
from spade.normalization import SpectralNormConv2d, fold_spectral_norm
from spade.semantics import codes_to_planes, label_codes
from utils.toy.streets import draw_street


def street_ids(width, height, index=0):
    return draw_street(3, index, (width, height)).label_ids


def noise_ids(*shape):
    return torch.randint(0, 34, shape, generator=torch.Generator().manual_seed(2))


def plain_forward(generator, label_ids, instance_ids=None, z=None):
    with torch.no_grad():
        return copy.deepcopy(generator).eval()(spade.semantics(label_ids, instance_ids), z)


def assert_equal_to_plain(generator, label_ids, instance_ids=None, z=None):
    expected = plain_forward(generator, label_ids, instance_ids, z)
    found = fast_forward(generator, label_codes(label_ids, instance_ids), z)
    assert found.shape == expected.shape and found.dtype == torch.float32
    size = expected.max() - expected.min()
    assert size > 0.2
    assert (found - expected).abs().max() <= 1e-5 * size


def multiplications(compute):
    """How many multiplications compute() does in convolutions and matrix products."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        compute()
    return counter.get_total_flops() // 2  # it counts each addition, too


# ------------------------------------------------------------------------------ numbers


def test_neighbourhoods_by_hand():
    members, number_of = number_neighbourhoods(torch.tensor([[[5, 5, 5, 5, 7]]]), count=9)
    nine = [9] * 3
    # Left end, twice in the middle, beside the 7, right end.
    expected = [[*nine, 9, 5, 5, *nine], [*nine, 5, 5, 5, *nine]]
    expected += [expected[1], [*nine, 5, 5, 7, *nine], [*nine, 5, 7, 9, *nine]]
    assert members.shape == (4, 9) and number_of.shape == (1, 1, 5)
    assert members[number_of[0, 0]].tolist() == expected


@pytest.mark.parametrize("count", [70, 2**22])  # of the second, three do not fit into 63 bits
def test_neighbourhoods_are_what_surrounds_each_pixel(count):
    numbers = noise_ids(3, 5, 7) % 3 + count - 3
    members, number_of = number_neighbourhoods(numbers, count)
    padded = F.pad(numbers, (1, 1, 1, 1), value=count).double()
    expected = F.unfold(padded[:, None], 3).transpose(1, 2).reshape(3, 5, 7, 9)
    assert torch.equal(members[number_of].double(), expected)
    assert len(members.unique(dim=0)) == len(members) == number_of.max() + 1


def test_codes_are_the_planes_in_one_number():
    label_ids = noise_ids(2, 8, 6) // 11 * 11
    planes = spade.semantics(label_ids)
    codes = label_codes(label_ids)
    assert codes.shape == (2, 8, 6) and codes.dtype == torch.int64
    assert torch.equal(codes, label_ids + 35 * planes[:, 35].long())
    assert torch.equal(codes_to_planes(codes), planes)


# ------------------------------------------------------------------------------ the same function


@pytest.mark.parametrize(
    "label_ids",
    [
        street_ids(256, 128),
        noise_ids(128, 128),
        torch.full((64, 128), 23),
        torch.cat([street_ids(128, 64), noise_ids(64, 128)]),
        torch.stack([street_ids(64, 64, index) for index in range(3)]),
        street_ids(192, 320),
    ],
    ids=["street", "noise", "constant", "street and noise", "batch", "odd start grid"],
)
def test_any_map(label_ids):
    assert_equal_to_plain(small_generator(), label_ids)


@pytest.mark.parametrize(
    "settings",
    [
        {"upsampling": "normal", "size": (32, 32)},
        {"upsampling": "most", "size": (128, 128)},
        {"z_dim": 3},
        {"z_dim": 3, "styled_layers": True},
        {"z_dim": 3, "grain": True},
        {"z_dim": 3, "grain": True, "upsampling": "normal", "size": (32, 32)},
        {"max_channels": 5},
        {"ngf": 8, "hidden": 16},
        {"ngf": 3, "hidden": 1},
    ],
    ids=str,
)
def test_any_generator(settings):
    generator = small_generator(**settings)
    z = torch.tensor([[0.5, -1, 2], [1, 0, -2]]) if "z_dim" in settings else None
    if "styled_layers" in settings or "grain" in settings:
        z = z / 8  # random layers amplify it: with a larger one float32 itself is 7e-5 off float64
    label_ids = torch.stack([street_ids(*generator.size, index) for index in range(2)])
    assert_equal_to_plain(generator, label_ids, z=z)


def test_instances():
    label_ids = torch.full((64, 64), 26)
    instance_ids = label_ids.clone()
    instance_ids[10:40, 32:] = 26001
    assert_equal_to_plain(small_generator(), label_ids, instance_ids)


def test_a_latent_of_zeros_is_none():
    generator, codes = small_generator(z_dim=3), label_codes(street_ids(64, 64))
    assert torch.equal(
        fast_forward(generator, codes), fast_forward(generator, codes, torch.zeros(1, 3))
    )


@pytest.mark.parametrize("share", [-1, 2], ids=["convolutions", "tables"])
def test_both_ways_and_small_pieces(share, monkeypatch):
    monkeypatch.setattr(tables, "MAX_DISTINCT_SHARE", share)
    monkeypatch.setattr(tables, "MAX_SCALED", 100)
    monkeypatch.setattr(tables, "MAX_PRODUCTS", 100)
    monkeypatch.setattr(tables, "MIN_CHANNELS", 3)
    label_ids = torch.stack([street_ids(64, 64), noise_ids(64, 64)])
    assert_equal_to_plain(small_generator(), label_ids)


def test_folded_and_negative_spectral_norms():
    generator, label_ids = small_generator(), street_ids(64, 64)
    assert_equal_to_plain(fold_spectral_norm(copy.deepcopy(generator)), label_ids)
    for module in generator.modules():
        if isinstance(module, SpectralNormConv2d):
            module.weight_u.neg_()
    assert_equal_to_plain(generator, label_ids)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_any_layout_of_the_weights(layout):
    assert_equal_to_plain(small_generator().to(memory_format=layout), street_ids(64, 64))


def test_loaded_generators_have_the_fast_layout(tmp_path):
    torch.save(small_generator(ngf=4).state_dict(), tmp_path / "G.pth")
    weight = spade.load_generator(tmp_path / "G.pth", size=(64, 64)).up_0.conv_0.weight_orig
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def test_bf16():
    generator, codes = small_generator(ngf=8, hidden=16), label_codes(street_ids(128, 64))
    exact, bf16 = (fast_forward(generator, codes, dtype=x) for x in (torch.float32, torch.bfloat16))
    assert bf16.dtype == torch.bfloat16
    error = (bf16.float() - exact).square().mean()
    assert 0 < error and 10 * torch.log10(4 / error) > 40  # dB; the range is 2


def test_it_multiplies_less_than_half_as_often():
    generator, label_ids = small_generator(ngf=8, hidden=16), street_ids(128, 64)
    plain = multiplications(lambda: generator(spade.semantics(label_ids)))
    fast = multiplications(lambda: fast_forward(generator, label_codes(label_ids)))
    assert 0 < fast < plain / 2


# ------------------------------------------------------------------------------ never stale


def in_place(generator):
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(1.1)


def through_data(generator):
    for parameter in generator.parameters():
        parameter.data.mul_(1.1)


def other_weights(generator):
    return {
        key: value * 1.1 if value.is_floating_point() else value
        for key, value in generator.state_dict().items()
    }


def another_step(generator):
    optimizer = torch.optim.SGD(generator.parameters(), lr=1e-3)
    generator.train()
    # A mean, as losses are: the step of a sum would drive the outputs to -1 and 1, where the
    # rounding of what comes before them counts a hundredfold.
    generator(spade.semantics(noise_ids(2, 64, 64))).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize(
    "change",
    [
        in_place,
        through_data,
        lambda g: g.load_state_dict(other_weights(g)),
        lambda g: g.load_state_dict(other_weights(g), assign=True),
        lambda g: g.up_3.norm_0.param_free_norm.running_mean.add_(1),
        another_step,
    ],
    ids=["in place", "data", "loaded", "assigned", "running mean", "training"],
)
def test_changed_weights_are_seen(change):
    generator, label_ids = small_generator(), street_ids(64, 64)
    before = generator.synthesize(label_ids)
    change(generator)
    assert not torch.equal(generator.synthesize(label_ids), before)
    assert_equal_to_plain(generator, label_ids)


# ------------------------------------------------------------------------------ synthesize


def test_synthesize_takes_the_fast_way_on_the_cpu(monkeypatch):
    generator, label_ids = small_generator().train(), street_ids(64, 64)
    expected = plain_forward(generator, label_ids)
    monkeypatch.setattr(generator, "forward", None)
    with torch.autocast("cpu", torch.bfloat16):  # somebody else's
        image_u8 = generator.synthesize(label_ids)
    assert ((expected[0] + 1) * 127.5 - image_u8).abs().max() < 0.501
    assert generator.training and generator.up_3.norm_0.training


def test_maps_that_a_generator_cannot_read():
    with pytest.raises(ValueError, match="The batch holds no label map: pass at least one"):
        small_generator()(torch.zeros(0, 36, 64, 64))
    with pytest.raises(ValueError, match=r"made for 35 planes"):
        small_generator(semantic_channels=35).synthesize(noise_ids(64, 64))
