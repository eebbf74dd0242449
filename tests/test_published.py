"""Published segmentation networks: the same label ids as by transformers alone, errors in words."""

import fnmatch
import json
import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import torch.nn.functional as F
import transformers
from huggingface_hub.utils import GatedRepoError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from test_spade import Code
from torch import Tensor

from utils import published
from utils.files import PROJECT
from utils.labels import BENCHMARK_IDS, BENCHMARK_NAMES, ID
from utils.photo_folder import settings_of
from utils.pipeline import agreement, load_pipeline
from utils.published import SHORT_NAMES, PublishedNet, load_published, load_segmenter
from utils.scenes import open_scenes
from utils.segmentation import SegmentationNet
from utils.weights import find_weights

SHUFFLED = [BENCHMARK_NAMES[i * 7 % 19] for i in range(19)]
SPELLED = {"traffic light": "Traffic_Light", "traffic sign": "trafficsign", "sky": "SKY"}
MEAN, STD = [0.1, 0.5, 0.8], [0.3, 0.2, 0.6]
WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing can be reached -> the list of what was asked for, empty at the end of a test."""
    asked = []

    def refuse(*address, **_):
        asked.append(address)
        raise OSError("there is no network here")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield asked
    assert asked == []


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a small SegFormer whose classes stand in another order."""
    folder = tmp_path_factory.mktemp("published") / "network"
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        depths=[1] * 4,
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        id2label=dict(enumerate(SPELLED.get(name, name) for name in SHUFFLED)),
    )
    network = transformers.SegformerForSemanticSegmentation(config)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            parameter.data *= 8  # so that maps have several classes
    network.save_pretrained(folder)
    transformers.SegformerImageProcessor(image_mean=MEAN, image_std=STD).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of saved that may be changed."""
    return shutil.copytree(saved, tmp_path / "network")


def change(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def photos(*shape) -> Tensor:
    """Smooth colours, (..., 3, H, W) uint8."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(shape[0] if len(shape) == 4 else 1, 3, 6, 8, generator=generator)
    smooth = F.interpolate(coarse, shape[-2:], mode="bicubic").clamp(0, 1)
    return (smooth * 255).to(torch.uint8).reshape(shape)


def by_hand(folder: Path, image_u8: Tensor, **settings) -> Tensor:
    """(3, H, W), multiples of 32 -> label ids (H, W), by transformers alone."""
    network = transformers.SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    values = processor(image_u8, do_resize=False, return_tensors="pt", **settings)
    with torch.no_grad():
        logits = network(**values).logits
    assert logits.shape[-1] == image_u8.shape[-1] // 4
    classes = F.interpolate(logits, image_u8.shape[-2:], mode="bilinear").argmax(1)[0]
    return torch.tensor([ID[name] for name in SHUFFLED])[classes]


@pytest.fixture(autouse=True)
def photos_of_any_height(monkeypatch):
    """Small photos, for speed: they are not enlarged but where a test says so."""
    monkeypatch.setattr(published, "LEAST_HEIGHT", 32)


def test_small_photos_are_enlarged(saved, monkeypatch):
    """A photo of 64x48 is seen as if it were one of 128x96, and its map has the photo's size."""
    network, image_u8 = load_published(f"hf:{saved}"), photos(3, 48, 64)
    enlarged = F.interpolate(image_u8[None].float(), (96, 128), mode="bilinear")
    expected = by_hand(saved, enlarged.round().to(torch.uint8)[0])
    seen_small = network.predict(image_u8)
    monkeypatch.setattr(published, "LEAST_HEIGHT", 96)
    label_ids = network.predict(image_u8)
    assert label_ids.shape == (48, 64)
    assert (
        agreement(label_ids, expected[::2, ::2]) > 0.9 > agreement(seen_small, expected[::2, ::2])
    )


@pytest.mark.parametrize(
    "pixels",
    [
        {},
        {"rescale_factor": 1 / 128},
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [90.0, 120, 99], "image_std": [50.0, 60, 70]},
    ],
)
def test_label_ids_as_by_transformers_alone(folder, pixels):
    change(folder / "preprocessor_config.json", **pixels)
    image_u8 = photos(3, 96, 160)
    network = load_segmenter(f"hf:{folder}")
    label_ids = network.predict(image_u8)
    assert label_ids.shape == (96, 160) and label_ids.dtype == torch.uint8
    assert set(label_ids.unique().tolist()) <= set(BENCHMARK_IDS) and len(label_ids.unique()) > 3
    assert agreement(label_ids, by_hand(folder, image_u8)) > 0.999
    assert isinstance(network, PublishedNet) and not network.training


def test_blue_first(folder):
    image_u8 = photos(3, 96, 160)
    as_rgb = load_published(f"hf:{folder}").predict(image_u8)
    transformers.MobileViTImageProcessor().save_pretrained(folder)
    label_ids = load_published(f"hf:{folder}").predict(image_u8)
    assert agreement(label_ids, by_hand(folder, image_u8, do_center_crop=False)) > 0.999
    assert agreement(label_ids, as_rgb) < 0.9


def test_a_batch_equals_its_photos_alone(saved):
    network, image_u8 = load_published(f"hf:{saved}").train(), photos(2, 3, 64, 96)
    label_ids = network.predict(image_u8)
    assert label_ids.shape == (2, 64, 96) and network.training, "its mode stays"
    alone = torch.stack([network.predict(one) for one in image_u8])
    assert agreement(label_ids, alone).min() > 0.999
    assert not torch.equal(label_ids[0], label_ids[1])


def test_an_odd_size_is_continued_at_its_rim(saved):
    network, image_u8 = load_published(f"hf:{saved}"), photos(3, 130, 250)
    label_ids = network.predict(image_u8)
    assert label_ids.shape == (130, 250)
    rows, columns = torch.arange(160).clamp(max=129), torch.arange(256).clamp(max=249)
    continued = by_hand(saved, image_u8[:, rows][:, :, columns])
    assert agreement(label_ids, continued[:130, :250]) > 0.999


def test_what_is_no_photo(saved):
    with pytest.raises(ValueError, match=r"shape \(1, 3, 31, 64\): expected image_u8 .*least 32"):
        load_published(f"hf:{saved}").predict(torch.zeros(3, 31, 64, dtype=torch.uint8))


def test_the_pipeline_with_a_published_network(saved, folder):
    pipeline = load_pipeline(f"hf:{saved}", "toy", device="cpu")
    image_u8 = open_scenes("toy", "val", size=(256, 128))[0].image_u8
    result = pipeline.run(image_u8)
    assert torch.equal(result.label_ids, pipeline.segmenter.predict(image_u8))
    assert result.generated_u8.shape == (3, 128, 256)
    seen = pipeline.segmenter.predict(result.generated_u8)
    assert torch.equal(result.generated_label_ids, seen)
    change(folder / "preprocessor_config.json", rescale_factor=1 / 128)
    other = load_pipeline(f"hf:{folder}", "toy", device="cpu")
    assert settings_of(other)["segmenter"] != settings_of(pipeline)["segmenter"]


def test_networks_of_this_project_are_read_as_before():
    path = find_weights("segmentation", "toy")
    for network in map(load_segmenter, ("toy", path, str(path))):
        assert isinstance(network, SegmentationNet) and not network.training
    with pytest.raises(FileNotFoundError) as caught:
        load_pipeline("atlantis", "toy")
    assert "no segmentation weights for atlantis yet" in str(caught.value)
    assert '"segformer", or "hf:ORGANISATION/NAME"' in str(caught.value)


def test_transformers_is_imported_when_it_is_needed():
    lines = (PROJECT / "utils" / "published.py").read_text().splitlines()
    assert "        import transformers" in lines
    assert not [x for x in lines if x.startswith(("import transformers", "from transformers"))]


# ----------------------------------------------------------------------------- from the hub


@pytest.fixture
def hub(saved, tmp_path, monkeypatch):
    """A hub that has one network -> its folder, to be changed; .downloaded are file names."""
    remote = shutil.copytree(saved, tmp_path / "remote")
    cache, downloaded = tmp_path / "cache", []
    cache.mkdir()

    def snapshot_download(name, allow_patterns):
        for path in sorted(remote.iterdir()):
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
                downloaded.append(path.name)
                shutil.copy(path, cache)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return SimpleNamespace(remote=remote, downloaded=downloaded)


def test_a_network_from_the_hub(hub, saved, capsys):
    (hub.remote / "pytorch_model.bin").write_bytes(b"not needed")
    network, image_u8 = load_segmenter("hf:some-one/net.v1"), photos(3, 64, 64)
    assert agreement(network.predict(image_u8), by_hand(saved, image_u8)) > 0.999
    assert hub.downloaded == ["config.json", "preprocessor_config.json", WEIGHTS]
    says = "The licence of some-one/net.v1 could not be read in a model card: see "
    assert capsys.readouterr().out == says + "https://huggingface.co/some-one/net.v1.\n"


def test_the_short_name_and_its_licence_and_half_precision_pickled(hub, saved, capsys):
    state = {key: x.half() for key, x in load_file(hub.remote / WEIGHTS).items()}
    torch.save(state, hub.remote / "pytorch_model.bin")
    (hub.remote / WEIGHTS).unlink()
    (hub.remote / "README.md").write_text("---\nlicense: other\ntags:\n- vision\n---\n# A card\n")
    change(hub.remote / "config.json", dtype="float16", torch_dtype="float16")
    network, image_u8 = load_segmenter("segformer"), photos(3, 64, 64)
    assert {x.dtype for x in network.parameters()} == {torch.float32}
    assert agreement(network.predict(image_u8), by_hand(saved, image_u8)) > 0.95
    assert hub.downloaded[-2:] == ["preprocessor_config.json", "pytorch_model.bin"]
    assert capsys.readouterr().out == (
        f"The licence of {SHORT_NAMES['segformer']} is, as its model card says, other "
        "(NVIDIA Source Code License for SegFormer: non-commercial, research or evaluation): see "
        "https://huggingface.co/nvidia/segformer-b0-finetuned-cityscapes-1024-1024.\n"
    )


def test_what_can_not_be_used_is_not_downloaded(hub):
    change(hub.remote / "config.json", id2label={"0": "cat", "1": "dog"}, label2id=None)
    with pytest.raises(ValueError, match="cat, dog; "):
        load_segmenter("hf:someone/pets")
    assert hub.downloaded == ["config.json", "preprocessor_config.json"]


def test_no_hub(no_network):
    with pytest.raises(OSError) as caught:
        load_pipeline("hf:no-one/nothing", "toy")
    assert str(caught.value).startswith(
        "https://huggingface.co/no-one/nothing could not be downloaded: "
    )
    assert "; connect to the internet, or pass a folder with its files." in str(caught.value)
    no_network.clear()


@pytest.mark.parametrize(
    "kind, why",
    [
        (RepositoryNotFoundError, "there is no such repository, and no such folder here"),
        (GatedRepoError, "accept its terms there, then call hf auth login"),
    ],
)
def test_the_hub_refuses(kind, why, monkeypatch):
    def snapshot_download(*_, **__):
        raise kind.__new__(kind)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(OSError, match=f"huggingface.co/a/b could not be downloaded: {why}"):
        load_segmenter("hf:a/b")


# ----------------------------------------------------------------------------- the licence


@pytest.mark.parametrize(
    "card, says",
    [
        ("---\nlicense: mit\n---\n", "is, as its model card says, mit"),
        ("---\nlicense: other\nlicense_name: my\n---\n", "is, as its model card says, other my"),
        ("---\ntags: [a]\n---\n", "could not be read in a model card"),
        ("---\nlicense: [\n---\n", "could not be read in a model card"),
        (None, "could not be read in a model card"),
    ],
)
def test_the_licence_of_a_folder(folder, card, says, capsys):
    if card:
        (folder / "README.md").write_text(card)
    load_published(f"hf:{folder}")
    assert capsys.readouterr().out == f"The licence of {folder} {says}: see {folder}.\n"


# ----------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    "source", ["hf:", "hf:segformer", "hf:/no/such/folder", "hf:a/b/c", "hf:./a"]
)
def test_a_name_that_is_none(source):
    with pytest.raises(ValueError, match=f"'{source}': expected .segformer., or .hf:ORGANIS"):
        load_segmenter(source)


def test_no_transformers(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match="needs the package transformers, .*pip install"):
        load_segmenter(f"hf:{saved}")
    assert isinstance(load_segmenter("toy"), SegmentationNet), "which needs none"


ADE = [f"thing {i}" for i in range(150)]


@pytest.mark.parametrize(
    "names, message",
    [
        (ADE, f'{", ".join(ADE[:25])} and 125 more; "segformer" is one that works'),
        (ADE[:25], f'{", ".join(ADE[:25])}; "segformer" is one that works'),
        (SHUFFLED[:-1] + SHUFFLED[:1], ", ".join(SHUFFLED[1:-1])),
        (SHUFFLED + ["license plate"], "sky"),
    ],
)
def test_other_classes(folder, names, message):
    change(folder / "config.json", id2label={str(i): name for i, name in enumerate(names)})
    with pytest.raises(ValueError) as caught:
        load_published(f"hf:{folder}")
    assert "has other classes than the 19 of Cityscapes' benchmark: " in str(caught.value)
    assert message in str(caught.value) and "thing 25" not in str(caught.value)


def test_a_network_of_another_kind(folder):
    transformers.Mask2FormerConfig(id2label=dict(enumerate(SHUFFLED))).save_pretrained(folder)
    with pytest.raises(ValueError, match="'mask2former': expected .*AutoModelForSemanticSegm"):
        load_published(f"hf:{folder}")


@pytest.mark.parametrize(
    "name, kind", [("config.json", "AutoConfig"), (WEIGHTS, "AutoModelForSemanticSegmentation")]
)
def test_files_that_are_not_there_or_damaged(folder, name, kind):
    for damage in (lambda path: path.write_bytes(b"{ damaged"), Path.unlink):
        damage(folder / name)
        with pytest.raises(ValueError, match=f'{kind} can\'t read .*undamaged.*"segformer" is one'):
            load_published(f"hf:{folder}")


def test_a_network_without_its_head(folder):
    state = load_file(folder / WEIGHTS)
    del state["decode_head.classifier.weight"], state["decode_head.classifier.bias"]
    save_file(state, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(ValueError, match="lacks 2 of its .*decode_head.classifier.bias for exam"):
        load_published(f"hf:{folder}")


def test_code_of_a_repository_is_not_run(folder, tmp_path):
    ran = tmp_path / "ran"
    torch.save({"decode_head.classifier.bias": Code(ran)}, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(ValueError, match="AutoModelForSemanticSegmentation can't read"):
        load_published(f"hf:{folder}")
    (folder / "code.py").write_text(f"open({str(ran)!r}, 'w')\nclass Config: pass\n")
    change(folder / "config.json", model_type="own", auto_map={"AutoConfig": "code.Config"})
    with pytest.raises(ValueError, match="AutoConfig can't read"):
        load_published(f"hf:{folder}")
    assert not ran.exists()
