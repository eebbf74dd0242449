"""The segmentation network: shapes, starting weights, files."""

import copy
from urllib.error import URLError

import pytest
import torch
from torchvision import models

from utils import segmentation
from utils.segmentation import SegmentationNet, load_segmentation, save_segmentation
from utils.weights import save_weights


def photos(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def seeded_network(output_stride):
    torch.manual_seed(0)
    return SegmentationNet(output_stride=output_stride).eval()


@pytest.fixture(scope="module")
def networks():
    """One for each output stride, with the same weights in the backbone; not to be changed."""
    return {output_stride: seeded_network(output_stride) for output_stride in (8, 16, 32)}


@pytest.fixture(scope="module")
def network(networks):
    return networks[32]


# ------------------------------------------------------------------------------ shapes


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("size", [(33, 47), (32, 64)])
def test_scores_at_full_size(networks, output_stride, size):
    height, width = size
    network = networks[output_stride]
    with torch.no_grad():
        scores = network(photos(2, 3, height, width))
        cells = network.backbone(torch.zeros(1, 3, height, width))
    assert scores.shape == (2, 34, height, width) and scores.dtype == torch.float32
    rows, columns = (-(-side // output_stride) for side in size)
    assert cells.shape == (1, 512, rows, columns)
    assert scores.isfinite().all() and not torch.equal(scores[0], scores[1])


def test_predict(network):
    image_u8 = photos(2, 3, 33, 47)
    label_ids = network.predict(image_u8)
    assert label_ids.shape == (2, 33, 47) and label_ids.dtype == torch.uint8
    assert label_ids.max() < 34 and not label_ids.requires_grad
    alone = network.predict(image_u8[1])
    assert alone.shape == (33, 47)
    # Sums in another order may decide a tie otherwise.
    assert (alone == label_ids[1]).float().mean() > 0.99
    with torch.no_grad():
        assert torch.equal(network(image_u8).argmax(1).to(torch.uint8), label_ids)


def test_predict_by_hand(network):
    """With a score of zero everywhere, the bias decides."""
    network = copy.deepcopy(network)
    torch.nn.init.zeros_(network.score.weight)
    torch.nn.init.zeros_(network.score.bias)
    network.upscale.bias.data[26] = 1
    assert (network.predict(photos(3, 33, 47)) == 26).all()


def test_predict_leaves_modes_and_statistics_as_they_were(network):
    network = copy.deepcopy(network).train()
    network.backbone[1].eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.predict(photos(3, 33, 47))
    with pytest.raises(ValueError):
        network.predict(photos(3, 8, 8))
    assert network.training and network.score.training and not network.backbone[1].training
    assert network.backbone[4][0].bn1.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("shape", [(1, 3, 31, 64), (1, 4, 64, 64), (3, 64, 64)])
def test_what_is_no_batch_of_photos(network, shape):
    with pytest.raises(
        ValueError, match=r"shape \(.*expected image_u8 \(B, 3, H, W\).* at least 32"
    ):
        network(photos(*shape))


def test_photos_in_another_range(network):
    with pytest.raises(ValueError, match=r"got torch\.float32: expected image_u8.*pm1_to_u8\(\)"):
        network.predict(torch.zeros(3, 64, 64))


def test_unknown_settings():
    with pytest.raises(ValueError, match="no backbone 'vgg': expected resnet34"):
        SegmentationNet(backbone="vgg")
    with pytest.raises(ValueError, match="no head 'unet': expected 'fcn'"):
        SegmentationNet(head="unet")
    with pytest.raises(ValueError, match="output_stride is 4: expected 8, 16 or 32"):
        SegmentationNet(output_stride=4)


# ------------------------------------------------------------------------------ starting weights


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_imagenet_weights_fit(networks, output_stride):
    with torch.device("meta"):  # shapes only
        official = models.resnet34().state_dict()
    own = networks[output_stride].backbone.state_dict()
    # The backbone is the same layers, numbered; only the fully connected one is gone.
    expected = [value.shape for key, value in official.items() if not key.startswith("fc.")]
    assert [value.shape for value in own.values()] == expected
    assert [key.split(".", 1)[1] for key in own if key[:2] in ("4.", "5.", "6.", "7.")] == [
        key.split(".", 1)[1] for key in official if key.startswith("layer")
    ]


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilation_computes_what_strides_compute_and_more(networks, output_stride):
    """Without its strides the backbone gives the same features, and those between them."""
    x = torch.randn(1, 3, 79, 110, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        coarse, fine = (
            copy.deepcopy(networks[stride].backbone).double()(x.double())  # rounding apart
            for stride in (32, output_stride)
        )
    step = 32 // output_stride
    assert fine.shape[-1] > coarse.shape[-1]
    torch.testing.assert_close(fine[..., ::step, ::step], coarse)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_upscaling_starts_bilinear(networks, output_stride):
    network = networks[output_stride]
    cells = torch.arange(34.0).reshape(1, 34, 1, 1).expand(1, 34, 5, 6)
    with torch.no_grad():
        scores = network.upscale(cells)
    s = output_stride
    assert scores.shape == (1, 34, 5 * s, 6 * s)
    inside = scores[:, :, s:-s, s:-s]
    torch.testing.assert_close(inside, torch.arange(34.0).reshape(1, 34, 1, 1).expand_as(inside))
    # A ramp stays a ramp, as with bilinear resizing.
    ramp = torch.arange(6.0).expand(1, 34, 5, 6)
    resized = torch.nn.functional.interpolate(ramp, scale_factor=s, mode="bilinear")
    with torch.no_grad():
        scores = network.upscale(ramp)
    torch.testing.assert_close(scores[..., s:-s, s:-s], resized[..., s:-s, s:-s])


def test_pretrained_takes_the_weights_that_torchvision_gives(monkeypatch):
    torch.manual_seed(3)
    official = models.resnet34()
    asked = []

    def build(weights=None):
        asked.append(weights)
        return official

    name = models.ResNet34_Weights.IMAGENET1K_V1
    monkeypatch.setitem(segmentation.BACKBONES, "resnet34", (build, name))
    network = SegmentationNet(pretrained=True, output_stride=32)
    assert asked == [name]
    assert torch.equal(network.backbone[0].weight, official.conv1.weight)


@pytest.mark.parametrize("error", [URLError("no route to host"), ConnectionResetError("reset")])
def test_no_network(error, monkeypatch):
    def build(weights=None):
        raise error

    name = models.ResNet34_Weights.IMAGENET1K_V1
    monkeypatch.setitem(segmentation.BACKBONES, "resnet34", (build, name))
    message = r"ImageNet weights of resnet34 could not be downloaded .*resnet34-.*\.pth into "
    with pytest.raises(RuntimeError, match=message + r".*checkpoints, or .*pretrained=False"):
        SegmentationNet(pretrained=True)


# ------------------------------------------------------------------------------ files


@pytest.mark.parametrize(
    ("compact", "history"),
    [(False, {"train_loss": [3.5, 2.0], "val_miou": [0.1, 0.2]}), (True, None)],
)
def test_save_and_load(network, compact, history, tmp_path):
    path = tmp_path / "runs" / "segmentation.safetensors"
    save_segmentation(network, path, history, compact)
    loaded, loaded_history = load_segmentation(path)
    assert loaded_history == (history or {}) and loaded.settings == network.settings
    assert not loaded.training
    image_u8 = photos(1, 3, 33, 47)
    with torch.no_grad():
        expected, scores = network(image_u8), loaded(image_u8)
    if compact:
        assert 0 < (scores - expected).abs().mean() < 0.1 * expected.std()
        assert path.stat().st_size < 0.26 * 4 * sum(x.numel() for x in network.parameters())
    else:
        assert torch.equal(scores, expected)


def test_files_of_another_kind(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match=r"no weight file .*a\.safetensors"):
        load_segmentation(path)
    state = {"score.weight": torch.zeros(1)}
    for metadata, kind in (({}, "not given"), ({"kind": "generator"}, "generator")):
        save_weights(path, state, metadata)
        message = rf"a\.safetensors holds no segmentation network \(kind: {kind}\).*notebook 02"
        with pytest.raises(ValueError, match=message):
            load_segmentation(path)


def test_files_that_do_not_fit(network, tmp_path):
    path = tmp_path / "a.safetensors"
    metadata = {"kind": "segmentation", "settings": network.settings, "history": {}}
    few = {"score.weight": network.score.weight, "score.bias": network.score.bias}
    save_weights(path, few, metadata)
    with pytest.raises(
        ValueError, match=r"a\.safetensors does not fit a network .*another version"
    ):
        load_segmentation(path)
    save_weights(path, few | {"score.bias": torch.zeros(19)}, metadata)
    with pytest.raises(ValueError, match=r"size mismatch for score\.bias.*\[19\]"):
        load_segmentation(path)
    metadata["settings"] = network.settings | {"backbone": "resnet18"}
    save_weights(path, few, metadata)
    with pytest.raises(ValueError, match=r"a\.safetensors does not .*no backbone 'resnet18'"):
        load_segmentation(path)
