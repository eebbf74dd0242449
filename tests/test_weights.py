import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spade import load_generator, save_generator
from utils import weights
from utils.files import PROJECT
from utils.segmentation import SegmentationNet, load_segmentation, save_segmentation
from utils.weights import (
    differing,
    find_weights,
    licence_of,
    load_checkpoint,
    load_metadata,
    load_torch_file,
    load_weights,
    pack_state,
    save_checkpoint,
    save_weights,
    unpack_state,
)


def a_state():
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(5, 4, 3, 3, generator=generator),
        "linear.weight": 100 * torch.randn(3, 7, generator=generator),
        "conv.bias": torch.randn(5, generator=generator),
        "norm.running_var": torch.tensor([1e-7, 1.0, 1e6]),  # beyond float16 on both sides
        "norm.num_batches_tracked": torch.tensor(123456789012),
    }


def test_pack_by_hand():
    weight = torch.tensor([[127.0, -127.0, 63.4], [0.0, 0.0, 0.0], [0.254, 0.0, 0.002]])
    packed = pack_state({"w": weight})
    assert packed["w"].tolist() == [[127, -127, 63], [0, 0, 0], [127, 0, 1]]
    torch.testing.assert_close(packed["w.scale"], torch.tensor([1.0, 1.0, 0.002]))
    torch.testing.assert_close(unpack_state(packed)["w"][2], weight[2])
    with pytest.raises(ValueError, match="w holds infinite values or NaN.*diverged"):
        pack_state({"w": torch.tensor([[1.0, float("nan")]])})


def test_small_weights_are_packed_in_16_bits():
    state = {"small": torch.randn(3, 4), "large": torch.randn(4, 4), "bias": torch.randn(3)}
    packed = pack_state(state, small=16)
    assert packed["small"].dtype == torch.float16 and packed["large"].dtype == torch.int8
    assert "small.scale" not in packed and "large.scale" in packed
    unpacked = unpack_state(packed)
    assert all(x.dtype == torch.float32 for x in unpacked.values())
    torch.testing.assert_close(unpacked["small"], state["small"], rtol=1e-3, atol=1e-6)


def test_pack_error_is_at_most_half_a_scale():
    state = a_state()
    packed = pack_state(state)
    unpacked = unpack_state(packed)
    assert unpacked.keys() == state.keys()
    for key in ("conv.weight", "linear.weight"):
        assert packed[key].dtype == torch.int8
        assert unpacked[key].dtype == torch.float32
        error = (unpacked[key] - state[key]).abs().flatten(1).amax(1)
        largest = state[key].abs().flatten(1).amax(1)
        assert (error <= largest / 127 * 0.5001).all()
    for key in ("conv.bias", "norm.running_var", "norm.num_batches_tracked"):
        assert torch.equal(unpacked[key], state[key])


def test_a_parameter_that_is_called_scale_survives():
    state = {"norm.scale": torch.ones(3), "norm": torch.ones(3)}
    assert unpack_state(pack_state(state)).keys() == state.keys()


@pytest.mark.parametrize("compact", [False, True])
def test_save_and_load(tmp_path, compact):
    state, metadata = a_state(), {"classes": 34, "size": [256, 128], "score": 0.5}
    path = tmp_path / "new folder" / f"{'w' * 243}.safetensors"  # as long as names can be
    save_weights(path, state, metadata, compact=compact)
    loaded, loaded_metadata = load_weights(path)
    assert loaded_metadata == metadata == load_metadata(path)
    expected = unpack_state(pack_state(state)) if compact else state
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)
    assert os.listdir(path.parent) == [path.name]


def test_other_peoples_files_have_no_metadata(tmp_path):
    save_file({"w": torch.ones(2, dtype=torch.float16)}, tmp_path / "w.safetensors")
    state, metadata = load_weights(tmp_path / "w.safetensors")
    assert metadata == {} and state["w"].dtype == torch.float32
    with pytest.raises(ValueError, match=r"weights\.pth should end in \.safetensors"):
        save_weights(tmp_path / "weights.pth", {}, {})


@pytest.mark.parametrize("load", [load_weights, load_metadata, load_torch_file])
def test_files_that_are_no_weights(load, tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(FileNotFoundError, match=r"no weight file .*weights\.safetensors"):
        load(path)
    save_weights(path, a_state(), {})
    whole = path.read_bytes()
    for content, message in [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title>", "is a web page"),
        (whole[: len(whole) // 2], r"is truncated or no (safetensors|PyTorch weight) file"),
        (whole[:50], r"is truncated or no (safetensors|PyTorch weight) file"),
        (os.urandom(1000), r"is truncated or no (safetensors|PyTorch weight) file"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"weights\.safetensors {message}"):
            load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_weights_that_are_not_finite_are_refused(kind, value, tmp_path):
    path, state = tmp_path / f"weights.{kind}", a_state()
    state["norm.running_var"][1] = value
    if kind == "pth":
        torch.save({"network": state}, path)
    else:
        save_weights(path, state, {})
    message = r"weights\.\w+ holds NaN or infinite values \(in norm\.running_var\).*take an earlier"
    with pytest.raises(ValueError, match=message):
        (load_torch_file if kind == "pth" else load_weights)(path)


# ------------------------------------------------------------------------------ finding


def put(folder, name):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project that has no weights yet."""
    monkeypatch.setattr(weights, "PROJECT", tmp_path)
    monkeypatch.setattr(weights, "RUNS", tmp_path / "runs")
    return tmp_path


def test_find_weights_knows_the_published_generator(project):
    own = put(project, "data/weights/generator_cityscapes.safetensors")
    assert find_weights("generator", "cityscapes") == own
    published = put(project, "data/weights/latest_net_G.pth")
    assert find_weights("generator", "cityscapes") == published
    for network, dataset in (("generator", "toy"), ("segmentation", "cityscapes")):
        with pytest.raises(FileNotFoundError):
            find_weights(network, dataset)


@pytest.mark.parametrize(
    ("network", "dataset", "module"),
    [("segmentation", "toy", "utils.training"), ("generator", "camvid", "spade.training")],
)
def test_weights_that_are_not_there(network, dataset, module, project):
    name = f"{network}_{dataset}"
    places = rf"\S+/runs/{name}/{network}\.safetensors, \S+/data/weights/{name}\.safetensors.*"
    command = f"python -m {module} --dataset {dataset} --out runs/{name}"
    message = rf"no {network} weights for {dataset} yet \(looked for {places}\).*{command}.*README"
    with pytest.raises(FileNotFoundError, match=message):
        find_weights(network, dataset)
    with pytest.raises(ValueError, match="no network 'judge': expected segmentation, generator, e"):
        find_weights("judge", "toy")


def a_training():
    network = torch.nn.Linear(3, 2)
    return {"network": network, "optimizer": torch.optim.Adam(network.parameters())}


def test_a_checkpoint_brings_everything_back(tmp_path):
    parts, others = a_training(), a_training()
    parts["network"](torch.ones(1, 3)).sum().backward()
    parts["optimizer"].step()
    save_checkpoint(tmp_path / "last.pt", parts, {"loss": [0.5]}, {"size": 3})
    assert load_checkpoint(tmp_path / "last.pt", others, {"size": 3}) == {"loss": [0.5]}
    for key, tensor in parts["network"].state_dict().items():
        assert torch.equal(tensor, others["network"].state_dict()[key])
    assert others["optimizer"].state_dict()["state"][0]["step"] == 1


@pytest.mark.parametrize("inputs", [3, 4], ids=["without its optimizer", "another shape"])
def test_the_checkpoint_of_another_training_is_refused(inputs, tmp_path):
    parts = a_training()
    save_checkpoint(tmp_path / "last.pt", {"network": torch.nn.Linear(inputs, 2)}, [], {})
    with pytest.raises(ValueError, match=r"last\.pt is the checkpoint of another training"):
        load_checkpoint(tmp_path / "last.pt", parts, {})


@pytest.mark.parametrize("content", [{}, [], {"network": {}, "made_by": {}}])
def test_what_is_no_checkpoint_is_not_another_trainings(content, tmp_path):
    torch.save(content, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt is no checkpoint .* or a damaged one: .*move"):
        load_checkpoint(tmp_path / "last.pt", a_training(), {})


@pytest.mark.parametrize("before", [None, False, True], ids=["bf16", "fp16 on a CPU", "fp16"])
@pytest.mark.parametrize("now", [False, True], ids=["bf16", "fp16"])
def test_a_training_goes_on_in_another_precision(before, now, tmp_path):
    saved, parts = a_training(), a_training()
    if before is not None:
        saved["scaler"] = torch.amp.GradScaler("cpu", init_scale=8.0, enabled=before)
    if now:
        parts["scaler"] = torch.amp.GradScaler("cpu", init_scale=2.0)
    save_checkpoint(tmp_path / "last.pt", saved, {"epochs": 20}, {"seed": 0})
    assert load_checkpoint(tmp_path / "last.pt", parts, {"seed": 0}) == {"epochs": 20}
    assert torch.equal(parts["network"].weight, saved["network"].weight)
    if now:
        assert parts["scaler"].get_scale() == (8 if before else 2), "one that is there goes on"


def test_settings_that_differ_are_named():
    """Older checkpoints lack some settings, and hold the usual augmentation as a text."""
    mirrored, cropped = "flip 0.5, scale 1..1, color 0", "flip 0.5, scale 0.3..1, color 0"
    saved = {"width": 3, "augmentation": mirrored, "seed": 0}
    assert differing(saved, {"width": 3, "augmentation": None, "seed": 0, "frozen": False}) is None
    expected = "width 3, depth None", "width 4, depth 2"
    assert differing(saved, {"width": 4, "depth": 2, "seed": 0}) == expected
    expected = f"augmentation {mirrored}", f"augmentation {cropped}"
    assert differing(saved, {"augmentation": cropped}) == expected


def test_a_disk_that_fills_up_while_the_checkpoint_is_written(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, a_training(), [], {})
    whole = path.read_bytes()

    def fill(state, temporary):
        temporary.write_bytes(b"half")
        raise RuntimeError(message)

    monkeypatch.setattr(torch, "save", fill)
    message = "[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0"
    with pytest.raises(OSError, match="MB are free, but .* more are needed: make room"):
        save_checkpoint(path, a_training(), [], {})
    message = "CUDA error: an illegal memory access was encountered"
    with pytest.raises(RuntimeError, match=message):
        save_checkpoint(path, a_training(), [], {})
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match=r"0\.0 MB are free, but 0\.0 MB more are needed: make room"):
        save_checkpoint(path, a_training(), [], {})
    assert path.read_bytes() == whole and list(tmp_path.iterdir()) == [path]


def test_what_a_kill_leaves_of_a_checkpoint_is_used_up_by_the_next_one(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"

    def killed(state, temporary):
        temporary.write_bytes(b"half")
        left.append(temporary)
        monkeypatch.setattr(Path, "unlink", lambda *arguments, **options: None)
        raise KeyboardInterrupt

    left = []
    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(torch, "save", killed)
            save_checkpoint(path, a_training(), [], {})
        monkeypatch.undo()
    assert list(tmp_path.iterdir()) == left[:1]
    save_checkpoint(path, a_training(), [], {})
    assert list(tmp_path.iterdir()) == [path]


def test_own_trainings_go_before_what_is_bundled_and_short_ones_behind(project):
    for name in (
        "runs/notebook_02/segmentation_toy.safetensors",
        "data/weights/segmentation_toy.safetensors",
        "runs/segmentation_toy/segmentation.safetensors",
    ):
        place = put(project, name)
        assert find_weights("segmentation", "toy") == place


def test_an_encoder_comes_with_its_generator(project):
    bundled = put(project, "data/weights/encoder_toy.safetensors")
    put(project, "data/weights/generator_toy.safetensors")
    trained = put(project, "runs/generator_toy/encoder.safetensors")
    assert find_weights("encoder", "toy") == bundled
    put(project, "runs/generator_toy/generator.safetensors")
    assert find_weights("encoder", "toy") == trained
    with pytest.raises(FileNotFoundError, match="--dataset camvid --out runs/generator_camvid"):
        find_weights("encoder", "camvid")


# ------------------------------------------------------------------------------ licences


def test_networks_that_saw_photos_carry_their_licence(tmp_path):
    toy = {"name": "half", "dataset": "toy", "start": None}
    photos = toy | {"dataset": "camvid+streets"}
    assert licence_of([]) is None and licence_of([toy]) == "MIT"
    assert licence_of([photos]) == licence_of([toy, photos]) == "CC BY-NC-SA 4.0"
    save_segmentation(SegmentationNet("resnet18"), tmp_path / "a.safetensors", recipe=[photos])
    learned_on = toy | {"start": str(tmp_path / "a.safetensors")}
    assert licence_of([learned_on]) == "CC BY-NC-SA 4.0", "it has seen them before"
    assert licence_of([toy, learned_on]) == "CC BY-NC-SA 4.0"
    assert licence_of([toy | {"start": ["random"]}]) == "MIT"
    assert licence_of([toy, toy | {"start": ["half/last.pt"]}]) == "MIT", "its own first stage"
    assert licence_of([toy | {"start": ["elsewhere/last.pt"]}]) is None, "it does not say"


def test_a_licence_is_kept_when_a_network_is_saved_again(tmp_path):
    source = PROJECT / "data" / "weights" / "generator_streets.safetensors"
    generator = load_generator(source)
    save_generator(generator, tmp_path / "again.safetensors")
    assert load_generator(tmp_path / "again.safetensors").licence == "CC BY-NC-SA 4.0"
    network = SegmentationNet("resnet18")
    network.licence = generator.licence
    save_segmentation(network, tmp_path / "other.safetensors")
    assert load_segmentation(tmp_path / "other.safetensors")[0].licence == "CC BY-NC-SA 4.0"


def test_bundled_networks_that_saw_photos_say_so():
    paths = sorted((PROJECT / "data" / "weights").glob("*.safetensors"))
    others = [path for path in paths if path.stem.partition("_")[2] not in ("toy", "plain")]
    assert others
    for path in others:
        assert load_metadata(path)["licence"] == "CC BY-NC-SA 4.0", path.name
