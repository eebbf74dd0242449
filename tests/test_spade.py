import copy
import json
import math
import os
import pickle
import zlib
from pathlib import Path

import numpy
import pytest
import torch
import torch.nn.functional as F
from examples import equal

import spade
from spade.fast import fast_forward
from spade.normalization import SPADE, SpectralNormConv2d, fold_spectral_norm
from spade.semantics import categories, label_codes
from utils.labels import ID

GOLDEN = Path(__file__).parent / "golden"  # figures of the published code
GENERATORS = {
    "more": {"upsampling": "more"},
    "normal": {"upsampling": "normal"},
    "most": {"upsampling": "most"},
    "vae": {"upsampling": "more", "z_dim": 256},
}


def golden(name):
    with numpy.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def weights_from_key(key, shape):
    """The rule by which the golden figures' weights were made."""
    rng = numpy.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith("running_var"):
        values = 0.5 + rng.random(shape)
    elif len(shape) == 1:
        values = 0.1 * rng.standard_normal(shape)
    else:
        values = rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    return torch.as_tensor(values, dtype=torch.float32)


def with_golden_weights(network, figures):
    state = {}
    for key, value in network.state_dict().items():
        stored = figures.get(f"uv/{key}")
        state[key] = weights_from_key(key, value.shape) if stored is None else stored
    network.load_state_dict(state)
    return network.eval()


def small_generator(**settings):
    """Two channels wide, for 64x64; sane singular vectors, so that outputs differ by pixel."""
    settings = {"ngf": 2, "hidden": 8, "size": (64, 64)} | settings
    generator = with_golden_weights(spade.SpadeGenerator(**settings), {})
    for module in generator.modules():
        if isinstance(module, SpectralNormConv2d):
            for _ in range(20):
                module.power_iteration()
    return generator


def random_label_ids(*shape):
    coarse = torch.randint(0, 34, shape, generator=torch.Generator().manual_seed(1))
    return coarse.repeat_interleave(8, -1).repeat_interleave(8, -2).to(torch.uint8)


@pytest.fixture(scope="module")
def generator():
    return small_generator()


# ------------------------------------------------------------------------------ semantics


def test_semantics_by_hand():
    label_ids = torch.full((4, 5), 7, dtype=torch.uint8)
    label_ids[1, 2] = 26
    planes = spade.semantics(label_ids)
    assert planes.shape == (1, 36, 4, 5) and planes.dtype == torch.float32
    assert planes[0, 26].nonzero().tolist() == [[1, 2]]
    assert planes[0, 7].sum() == 19
    assert (planes[0, :35].sum(0) == 1).all()
    # The odd pixel and its four neighbours, not the diagonal ones, not the rim.
    assert planes[0, 35].nonzero().tolist() == [[0, 2], [1, 1], [1, 2], [1, 3], [2, 2]]


def test_instances_draw_edges_between_objects_of_one_class():
    label_ids = torch.full((2, 2, 4), 26)  # two cars, side by side in the second map only
    instance_ids = torch.tensor([[[26000] * 4] * 2, [[26000, 26000, 26001, 26001]] * 2])
    planes = spade.semantics(label_ids, instance_ids.int())
    assert planes[0, 35].sum() == 0
    assert planes[1, 35].tolist() == [[0, 1, 1, 0]] * 2


def test_semantics_without_edges(generator):
    label_ids = random_label_ids(8, 8)
    planes = spade.semantics(label_ids, edges=False)
    assert planes[0, 35].sum() == 0 < spade.semantics(label_ids)[0, 35].sum()
    assert torch.equal(planes[:, :35], spade.semantics(label_ids)[:, :35])
    without = generator.synthesize(label_ids, edges=False)
    # One object everywhere has no edges either.
    assert torch.equal(without, generator.synthesize(label_ids, torch.zeros_like(label_ids)))
    assert not torch.equal(without, generator.synthesize(label_ids))


def test_categories():
    names = ("road", "building", "pole", "vegetation", "sky", "person", "bicycle", "ego vehicle")
    label_ids = torch.tensor([[ID[name] for name in names]], dtype=torch.uint8)
    found = categories(spade.semantics(label_ids))
    assert found.shape == (1, 7, 1, 8)
    assert torch.equal(found[0, :, 0], torch.eye(7, 8))  # the last one is void: in none


def test_semantics_refuses_what_would_crash_a_gpu():
    label_ids = torch.zeros(4, 6, dtype=torch.uint8)
    with pytest.raises(ValueError, match="255"):
        spade.semantics(torch.full((4, 6), 255))
    with pytest.raises(ValueError, match=r"instance_ids has shape \(6, 4\).*\(4, 6\): resize"):
        spade.semantics(label_ids, label_ids.t())
    with pytest.raises(ValueError, match=r"instance_ids has dtype torch.float32.*integers"):
        spade.semantics(label_ids, label_ids.float())


# ------------------------------------------------------------------------------ layers


def test_spade_layer_by_hand():
    layer = SPADE(channels=1, semantic_channels=1, hidden=1).eval()
    state = {key: torch.zeros_like(value) for key, value in layer.state_dict().items()}
    state["param_free_norm.running_mean"] += 2
    state["param_free_norm.running_var"] += 4 - 1e-5
    for name, weight, bias in [
        ("mlp_shared.0", 2, 1),
        ("mlp_gamma", 0.5, 1),
        ("mlp_beta", -1, 0.25),
    ]:
        state[f"{name}.weight"][0, 0, 1, 1] = weight
        state[f"{name}.bias"] += bias
    layer.load_state_dict(state)
    # normalized (6 - 2) / 2 = 2; features relu(2 + 1) = 3; gamma 2.5; beta -2.75; 2 * 3.5 - 2.75
    output = layer(torch.full((1, 1, 1, 1), 6.0), torch.ones(1, 1, 1, 1))
    assert output.item() == pytest.approx(4.25)


@pytest.mark.parametrize("z", [None, torch.tensor([[1.0, -2, 3]]), torch.eye(3)[:2]])
def test_spade_layer_is_its_formula(z):
    """With one latent for both maps, or one for each, which is one more input everywhere."""
    layer = with_golden_weights(SPADE(5, hidden=7, z_dim=None if z is None else 3), {})
    x, semantics = torch.randn(2, 5, 3, 4), torch.randn(2, 36, 6, 8)
    norm = layer.param_free_norm
    normalized = (x - norm.running_mean.reshape(1, 5, 1, 1)) / (
        norm.running_var.reshape(1, 5, 1, 1) + 1e-5
    ).sqrt()
    features = layer.mlp_shared[0](semantics[:, :, ::2, ::2])
    if z is not None:
        features += (z @ layer.mlp_style.weight.T)[:, :, None, None]
    features = F.relu(features)
    gamma, beta = layer.mlp_gamma(features), layer.mlp_beta(features)
    torch.testing.assert_close(layer(x, semantics, z), normalized * (1 + gamma) + beta)


def test_spectral_norm_learns_the_largest_singular_value_in_training_only():
    torch.manual_seed(0)  # some starts need more than 200 steps
    convolution = SpectralNormConv2d(3, 6, kernel_size=3, padding=1)
    x = torch.randn(1, 3, 5, 5)
    before = copy.deepcopy(convolution.eval().state_dict())
    convolution(x)
    assert torch.equal(convolution.weight_u, before["weight_u"])
    convolution.train()
    for _ in range(200):
        convolution(x)
    largest = torch.linalg.svdvals(convolution.normalized_weight().flatten(1))[0]
    assert largest.item() == pytest.approx(1, abs=1e-4)
    assert torch.equal(convolution.weight_orig, before["weight_orig"])


def test_spectral_norm_in_training_can_be_differentiated_and_copied():
    convolution = SpectralNormConv2d(3, 6, kernel_size=3)
    x = torch.randn(1, 3, 5, 5)
    # Two calls before one backward, as a discriminator does that sees fake and real photos.
    (convolution(x) - 2 * convolution(x + 1)).square().sum().backward()
    assert convolution.weight_orig.grad.abs().sum() > 0
    assert torch.equal(copy.deepcopy(convolution).weight_u, convolution.weight_u)


def test_spectral_norm_is_exact_under_autocast():
    convolution = SpectralNormConv2d(3, 6, kernel_size=3).eval()
    with torch.autocast("cpu", torch.bfloat16):
        weight = convolution.normalized_weight()
    assert torch.equal(weight, convolution.normalized_weight())


# ------------------------------------------------------------------------------ golden figures


@pytest.mark.parametrize("name", GENERATORS)
def test_golden_generator(name):
    figures = golden(f"generator_{name}")
    generator = spade.SpadeGenerator(ngf=4, size=(256, 128), **GENERATORS[name])
    generator = with_golden_weights(generator, figures)
    semantics = spade.semantics(figures["label_ids"], figures["instance_ids"])
    assert torch.equal(semantics[0, 35].bool(), figures["edges"])
    with torch.no_grad():
        image_pm1 = generator(semantics, figures.get("z"))
    torch.testing.assert_close(image_pm1[0], figures["image"], atol=1e-5, rtol=0)
    codes = label_codes(figures["label_ids"], figures["instance_ids"])
    image_pm1 = fast_forward(generator, codes, figures.get("z"))
    torch.testing.assert_close(image_pm1[0], figures["image"], atol=1e-5, rtol=0)


def test_golden_encoder():
    figures = golden("encoder")
    encoder = with_golden_weights(spade.Encoder(ngf=4), figures)
    with torch.no_grad():
        mu, logvar = encoder(figures["image"][None])
    torch.testing.assert_close(mu[0], figures["mu"], atol=1e-5, rtol=0)
    torch.testing.assert_close(logvar[0], figures["logvar"], atol=1e-5, rtol=0)


def test_golden_discriminator():
    figures = golden("discriminator")
    discriminator = with_golden_weights(spade.MultiscaleDiscriminator(ndf=4), figures)
    semantics = spade.semantics(figures["label_ids"], figures["instance_ids"])
    with torch.no_grad():
        scales = discriminator(semantics, figures["image"][None])
    assert [len(layers) for layers in scales] == [5, 5]
    for i, layers in enumerate(scales):
        for j, output in enumerate(layers):
            expected = figures[f"scale{i}/layer{j}"]
            torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------ generator


def test_forward_is_between_minus_one_and_one(generator):
    with torch.no_grad():
        image_pm1 = generator(spade.semantics(random_label_ids(8, 16)))
    assert image_pm1.shape == (1, 3, 64, 128) and image_pm1.dtype == torch.float32
    assert -1 <= image_pm1.min() < -0.1 and 0.1 < image_pm1.max() <= 1


def test_synthesize_a_batch_is_its_single_maps(generator):
    label_ids = random_label_ids(2, 8, 8)
    together = generator.synthesize(label_ids)
    assert together.shape == (2, 3, 64, 64) and together.dtype == torch.uint8
    assert together.float().std() > 10
    alone = generator.synthesize(label_ids[1])
    assert alone.shape == (3, 64, 64)
    assert (together[1].int() - alone.int()).abs().max() <= 1
    assert not torch.equal(together[0], together[1])


def test_synthesize_leaves_the_generator_as_it_was():
    generator = small_generator().train()
    generator.up_3.eval()
    before = copy.deepcopy(generator.state_dict())
    generator.synthesize(random_label_ids(8, 8))
    with pytest.raises(ValueError, match="multiples of 64"):
        generator.synthesize(torch.zeros(64, 100, dtype=torch.uint8))
    assert generator.training and generator.up_2.norm_0.training and not generator.up_3.training
    assert equal(before, generator.state_dict())


def test_precision(generator):
    label_ids = random_label_ids(8, 8)
    exact, bf16 = (generator.synthesize(label_ids, precision=x).int() for x in ("exact", "bf16"))
    assert 0 < (exact - bf16).abs().float().mean() < 5
    with pytest.raises(ValueError, match="precision is 'fp8': expected exact or bf16"):
        generator.synthesize(label_ids, precision="fp8")


@pytest.mark.parametrize("more", [{}, {"styled_layers": True}, {"grain": True}], ids=str)
def test_latent(more):
    generator = small_generator(z_dim=3, **more)
    label_ids = random_label_ids(2, 8, 8)
    z = torch.tensor([[0.0, 0, 0], [3, -3, 3]])
    drawn = generator.synthesize(label_ids, z=z)
    mean = generator.synthesize(label_ids)
    assert torch.equal(drawn[0], mean[0]) and not torch.equal(drawn[1], mean[1])
    with pytest.raises(ValueError, match=r"z has shape \(3,\), expected \(2, 3\)"):
        generator.synthesize(label_ids, z=z[0])
    with pytest.raises(ValueError, match="128x64.*has a latent.*resize the map to 64x64"):
        generator.synthesize(random_label_ids(8, 16))


@pytest.mark.parametrize("grain", [False, True])
def test_grain_makes_a_wall_uneven(grain):
    generator, inputs = small_generator(z_dim=3, grain=grain), []
    generator.up_3.register_forward_pre_hook(lambda block, args: inputs.append(args[0]))
    with torch.no_grad():
        generator(spade.semantics(torch.full((64, 64), 11)))
    cells = inputs[0].unflatten(2, (-1, 2)).unflatten(4, (-1, 2))  # of 2x2 pixels, just doubled
    uneven = (cells.amax((3, 5)) - cells.amin((3, 5))).min()
    assert uneven > 0 if grain else uneven == 0


def test_sizes_and_settings_that_do_not_work(generator):
    with pytest.raises(ValueError, match="no latent: leave z out"):
        generator.synthesize(random_label_ids(8, 8), z=torch.zeros(1, 256))
    message = r"size 500x250 .*multiples of 64; the nearest are 448 or 512 wide and 192 or 256 high"
    with pytest.raises(ValueError, match=message):
        generator.synthesize(torch.zeros(250, 500, dtype=torch.uint8))
    with pytest.raises(ValueError, match="multiples of 32; the nearest are 32 wide and 64 high"):
        spade.SpadeGenerator(ngf=1, upsampling="normal", size=(10, 64))
    with pytest.raises(ValueError, match="upsampling is 'max', expected \"normal\""):
        spade.SpadeGenerator(ngf=1, upsampling="max")
    for setting in ("styled_layers", "grain"):
        with pytest.raises(ValueError, match="styled_layers and grain need a latent: set z_dim"):
            spade.SpadeGenerator(ngf=1, **{setting: True})
    with pytest.raises(ValueError, match=r"shape \(1, 35, 64, 64\), expected \(B, 36, H, W\)"):
        generator(torch.zeros(1, 35, 64, 64))


def test_folding_keeps_the_output(generator):
    semantics = spade.semantics(random_label_ids(8, 8))
    folded = fold_spectral_norm(copy.deepcopy(generator))
    assert not any("weight_orig" in key for key in folded.state_dict())
    assert folded.up_0.conv_s.bias is None
    with torch.no_grad():
        torch.testing.assert_close(folded(semantics), generator(semantics), atol=1e-6, rtol=0)


# ------------------------------------------------------------------------------ files


def outputs_are_equal(one, other, atol=0.0):
    semantics = spade.semantics(random_label_ids(8, 8))
    with torch.no_grad():
        torch.testing.assert_close(one(semantics), other(semantics), atol=atol, rtol=0)


def test_published_keys_at_full_size(tmp_path):
    shapes = json.loads((GOLDEN / "cityscapes_generator_keys.json").read_text())
    assert len(shapes) == 234
    # One number expanded to each shape: a file of kilobytes with 93 million parameters.
    state = {key: torch.tensor(0.5).expand(shape) for key, shape in shapes.items()}
    torch.save(state, tmp_path / "latest_net_G.pth")
    generator = spade.load_generator(tmp_path / "latest_net_G.pth")
    assert {key: list(value.shape) for key, value in generator.state_dict().items()} == shapes
    assert round(sum(p.numel() for p in generator.parameters()) / 1e6, 2) == 93.05
    assert not generator.training and all(p.requires_grad for p in generator.parameters())


@pytest.mark.parametrize("name", GENERATORS)
def test_settings_follow_from_shapes(name, tmp_path):
    settings = GENERATORS[name]
    size = (128, 128)
    generator = small_generator(size=size, **settings)
    torch.save(generator.state_dict(), tmp_path / "G.pth")
    loaded = spade.load_generator(tmp_path / "G.pth", settings["upsampling"], size)
    assert loaded.settings == generator.settings
    label_ids = random_label_ids(16, 16)
    assert torch.equal(loaded.synthesize(label_ids), generator.synthesize(label_ids))


@pytest.mark.parametrize("zipped", [True, False])  # False: the format of 2019, as published
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("folded", [True, False])
def test_kinds_of_published_files(generator, zipped, prefix, folded, tmp_path):
    source = fold_spectral_norm(copy.deepcopy(generator)) if folded else generator
    state = {prefix + key: value for key, value in source.state_dict().items()}
    torch.save(state, tmp_path / "G.pth", _use_new_zipfile_serialization=zipped)
    same_layout = copy.deepcopy(source).to(memory_format=torch.channels_last)
    outputs_are_equal(spade.load_generator(tmp_path / "G.pth", size=(64, 64)), same_layout)


def test_a_published_file_in_half_precision_without_counts_of_batches(generator, tmp_path):
    state = {k: v.half() for k, v in generator.state_dict().items() if "num_batches" not in k}
    assert len(state) < len(generator.state_dict())
    torch.save(state, tmp_path / "G.pth")
    loaded = spade.load_generator(tmp_path / "G.pth", size=(64, 64))
    assert loaded.fc.weight.dtype == torch.float32
    outputs_are_equal(loaded, generator, atol=0.02)


@pytest.mark.parametrize("settings", [{}, {"upsampling": "most", "size": (128, 128), "z_dim": 5}])
def test_own_files_carry_their_settings(settings, tmp_path):
    generator = small_generator(**settings).train()
    spade.save_generator(generator, tmp_path / "G.safetensors")
    assert generator.training and "up_0.conv_0.weight_orig" in generator.state_dict()
    loaded = spade.load_generator(tmp_path / "G.safetensors")
    assert loaded.settings == generator.settings and not loaded.training
    label_ids = random_label_ids(*(side // 8 for side in loaded.size))
    folded = fold_spectral_norm(copy.deepcopy(generator)).to(memory_format=torch.channels_last)
    assert torch.equal(loaded.synthesize(label_ids), folded.synthesize(label_ids))


def test_compact_files(tmp_path):
    generator = small_generator(ngf=4, hidden=32)
    for compact in (False, True):
        spade.save_generator(generator, tmp_path / f"{compact}.safetensors", compact=compact)
    full, small = ((tmp_path / f"{x}.safetensors").stat().st_size for x in (False, True))
    assert small < full / 3
    loaded = spade.load_generator(tmp_path / "True.safetensors")
    label_ids = random_label_ids(8, 8)
    difference = loaded.synthesize(label_ids).float() - generator.synthesize(label_ids).float()
    assert 0 < difference.abs().mean() < 2  # grey levels


def remove(state, key):
    return {name: value for name, value in state.items() if name != key}


def of_planes(number):
    return small_generator(semantic_channels=number).state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: remove(s, "up_1.conv_0.bias"), r"up_1\.conv_0\.bias should be \(8,\).*missing"),
        (lambda s: s | {"up_9.x": torch.ones(2)}, r"up_9\.x \(2,\) should not be there"),
        (
            lambda s: s | {"conv_img.bias": torch.ones(4)},
            r"conv_img\.bias should be \(3,\) and is \(4,\); pass to load_generator the ups",
        ),
        (lambda s: remove(s, "fc.weight"), "holds no SPADE generator: expected keys such as"),
        (lambda s: {"discriminator_0.x": torch.ones(2)}, "found discriminator_0.x; the published"),
        (lambda s: {}, "found none"),
        (lambda s: {"epoch": 3, "state_dict": s}, "does not hold a state dict"),
        (lambda s: list(s), "does not hold a state dict"),
        (lambda s: of_planes(35), "without the instance-edge plane"),
        (lambda s: of_planes(184), "another data set: Cityscapes has 36"),
    ],
)
def test_state_dicts_that_do_not_fit(generator, change, message, tmp_path):
    torch.save(change(generator.state_dict()), tmp_path / "G.pth")
    with pytest.raises(ValueError, match=rf"G\.pth .*{message}"):
        spade.load_generator(tmp_path / "G.pth", size=(64, 64))


def test_wrong_upsampling_is_named(tmp_path):
    torch.save(small_generator(size=(128, 128)).state_dict(), tmp_path / "G.pth")
    with pytest.raises(ValueError, match=r"upsampling='most'.*up_4.*missing.*and \d+ more; pass"):
        spade.load_generator(tmp_path / "G.pth", upsampling="most", size=(128, 128))


class Code:
    """What a hostile pickle does: name a function to be called at loading."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["zip", "2019", "plain pickle"])
def test_pickled_code_is_not_executed(kind, tmp_path):
    content = {"fc.weight": Code(tmp_path / "executed")}
    path = tmp_path / "G.pth"
    if kind == "plain pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(ValueError, match=r"G\.pth holds pickled code, which was not executed"):
        spade.load_generator(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_files(generator, zipped, tmp_path):
    path = tmp_path / "G.pth"
    torch.save(generator.state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in (1, 10, 1000, 5000, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"G\.pth is truncated or no PyTorch weight file"):
            spade.load_generator(path, size=(64, 64))
