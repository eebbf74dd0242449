"""The training loop: it learns, it can be interrupted, and it leaves things as it found them."""

import sys

import pytest
import torch
from torchvision import models

from utils import scenes, segmentation, training
from utils.augmentation import Augmentation
from utils.scenes import open_scenes
from utils.segmentation import SegmentationNet, load_segmentation
from utils.training import HISTORY_KEYS, epoch_batches, evaluate, train, train_one_epoch


@pytest.fixture(scope="module")
def streets():
    """Six toy streets, drawn once."""
    return Drawn(open_scenes("toy", "train", size=(64, 32))[:6])


class Drawn:
    """Scenes in memory, with as much of their interface as training needs."""

    dataset, size = "toy", (64, 32)

    def __init__(self, scenes):
        self.image_u8, self.label_ids = scenes.batch(range(len(scenes)))

    def __len__(self):
        return len(self.image_u8)

    def batch(self, indices):
        indices = torch.as_tensor(indices)
        return self.image_u8[indices], self.label_ids[indices]

    def first(self, count):
        part = object.__new__(Drawn)
        part.image_u8, part.label_ids = self.image_u8[:count], self.label_ids[:count]
        return part


def a_network(seed=0):
    torch.manual_seed(seed)
    return SegmentationNet(output_stride=16)


@pytest.fixture
def shallow(monkeypatch):
    """A ResNet of a quarter of the weights, where it does not matter how well it learns."""

    def build():
        return models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1])

    monkeypatch.setitem(segmentation.BACKBONES, "resnet34", (build, None))


def same_weights(one, other):
    pairs = zip(one.state_dict().items(), other.state_dict().values(), strict=True)
    return [key for (key, value), expected in pairs if not torch.equal(value, expected)] == []


# ------------------------------------------------------------------------------ batches


def test_batches_by_hand():
    batches = epoch_batches(count=7, batch_size=3, seed=0, epoch=0)
    assert [len(batch) for batch in batches] == [3, 3]
    assert len(set(torch.cat(batches).tolist())) == 6  # each scene once, one left over
    assert set(torch.cat(batches).tolist()) < set(range(7))
    torch.manual_seed(99)
    again = epoch_batches(7, 3, 0, 0)
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))


def test_another_seed_or_epoch_is_another_order():
    orders = {
        tuple(torch.cat(epoch_batches(20, 20, *x)).tolist()) for x in [(0, 0), (0, 1), (1, 0)]
    }
    assert len(orders) == 3


def test_fewer_scenes_than_a_batch(streets, shallow):
    with pytest.raises(ValueError, match="There are 3 scenes, fewer than a batch of 4: take more"):
        epoch_batches(3, 4, 0, 0)
    with pytest.raises(ValueError, match="There are 6 scenes, fewer than a batch of 32"):
        train(a_network(), streets, streets, epochs=1)


# ------------------------------------------------------------------------------ learning


def test_four_scenes_are_learnt_by_heart(streets):
    four = streets.first(4)
    network = a_network()
    before, untrained = evaluate(network, four)
    history = train(network, four, four.first(1), epochs=10, batch_size=4, learning_rate=1e-3)
    after, result = evaluate(network, four)
    assert 2 < history["train_loss"][0] < 6  # about log(34), that of a blind guess
    assert history["train_loss"][-1] < 0.4 * history["train_loss"][0]
    assert after < 0.5 * before and result.accuracy > untrained.accuracy + 0.3


def test_the_history(streets, shallow, capsys):
    network = a_network()
    history = train(network, streets.first(2), streets, epochs=2, batch_size=2)
    assert tuple(history) == HISTORY_KEYS
    assert all(len(figures) == 2 for figures in history.values())
    assert history["scenes"] == ["toy 64x32"] * 2
    assert all(isinstance(x, float) for key in HISTORY_KEYS[1:] for x in history[key])
    assert min(history["seconds"]) > 0 and 0 <= history["val_miou"][1] <= 1
    loss, result = evaluate(network, streets, batch_size=2)
    assert history["val_loss"][1] == pytest.approx(loss, rel=1e-4)
    assert history["val_accuracy"][1] == pytest.approx(result.accuracy, abs=0.01)
    assert capsys.readouterr().out.count("mIoU") == 2


def test_an_epoch_sees_every_scene_in_both_directions():
    """A network that records what it is shown instead of a real one."""

    class Recorder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(34))
            self.seen = []

        def forward(self, image_u8):
            self.seen.append(image_u8.clone())
            return self.bias[:, None, None].expand(len(image_u8), 34, *image_u8.shape[2:])

    class Ramp(Drawn):
        def __init__(self, count):
            columns = torch.arange(34, dtype=torch.uint8)
            self.label_ids = columns.expand(count, 3, 34).contiguous()
            self.image_u8 = columns.expand(count, 3, 3, 34).contiguous()

    network = Recorder()
    accelerator = training.Accelerator()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    batches = epoch_batches(40, 8, 0, 0)
    augment = Augmentation((34, 3))
    loss = train_one_epoch(
        network, optimizer, accelerator, Ramp(40), batches, [0.0] * 5, augment, 0
    )
    assert loss == pytest.approx(torch.tensor(34.0).log().item())  # all labels equally likely
    first = torch.cat(network.seen)[:, 0, 0, 0]
    assert network.training and set(first.tolist()) == {0, 33}
    assert 10 < (first == 33).sum() < 30  # about half of them


def test_maps_are_mirrored_with_their_photos(streets, monkeypatch):
    """Photos that are their own maps: the loss would see it if only one of both were mirrored."""

    class Reader(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(50.0))

        def forward(self, image_u8):
            one_hot = torch.nn.functional.one_hot(image_u8[:, 0].long(), 34)
            return self.scale * one_hot.movedim(-1, 1).float()

    four = streets.first(4)
    four.image_u8 = four.label_ids[:, None].repeat(1, 3, 1, 1)
    network = Reader()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    batches = epoch_batches(4, 2, 0, 0) * 4
    augment = Augmentation(four.size)
    rates = [0.0] * len(batches)
    accelerator = training.Accelerator()
    loss = train_one_epoch(network, optimizer, accelerator, four, batches, rates, augment, 0)
    assert loss == pytest.approx(0, abs=1e-6)


# ------------------------------------------------------------------------------ evaluation


def test_evaluation_restores_modes_and_changes_nothing(streets, shallow):
    network = a_network().train()
    network.backbone[1].eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    loss, result = evaluate(network, streets, batch_size=4)  # an odd batch at the end
    assert network.training and network.score.training and not network.backbone[1].training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    in_one, same = evaluate(network, streets)
    assert loss == pytest.approx(in_one, rel=1e-4)
    assert result.accuracy == pytest.approx(same.accuracy, abs=0.01)


# ------------------------------------------------------------------------------ interruption


def test_interrupted_and_resumed_equals_uninterrupted(streets, shallow, tmp_path, monkeypatch):
    settings = {"epochs": 3, "batch_size": 2}
    whole = a_network()
    expected = train(whole, streets, streets.first(2), **settings)

    first, calls = a_network(), []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:  # in the second epoch, after its training
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(training, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(first, streets, streets.first(2), folder=tmp_path / "run", **settings)
    monkeypatch.setattr(training, "evaluate", evaluate)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["last.pt"]

    resumed = a_network(seed=1)  # its own weights do not matter
    history = train(resumed, streets, streets.first(2), folder=tmp_path / "run", **settings)
    for key in HISTORY_KEYS[:-1]:  # all but the seconds
        assert history[key] == expected[key], key
    assert same_weights(resumed, whole)

    # A run that is complete has nothing left to do.
    again = a_network(seed=2)
    assert train(again, streets, streets, folder=tmp_path / "run", **settings) == history
    assert same_weights(again, whole)


# ------------------------------------------------------------------------------ from a shell


def test_the_command(shallow, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scenes, "TOY_COUNTS", {"train": 4, "val": 2, "test": 1})

    def run(*arguments):
        line = f"training --size 64x32 --epochs 1 --batch-size 2 --cache {tmp_path / 'cache'}"
        monkeypatch.setattr(sys, "argv", [*line.split(), *arguments])
        training.main()

    run("--out", str(tmp_path / "one"), "--output-stride", "32", "--learning-rate", "0")
    start = tmp_path / "one" / "segmentation.safetensors"
    assert f"wrote {start}" in capsys.readouterr().out
    network, history = load_segmentation(start)
    assert network.settings["output_stride"] == 32 and len(history["val_miou"]) == 1
    run(
        "--out",
        str(tmp_path / "two"),
        "--start",
        str(start),
        "--scenes",
        "2",
        "--learning-rate",
        "0",
    )
    other, joined = load_segmentation(tmp_path / "two" / "segmentation.safetensors")
    assert other.settings["output_stride"] == 8  # the start gives weights, not settings
    torch.testing.assert_close(other.score.weight, network.score.weight, atol=1e-5, rtol=0)
    assert joined["scenes"] == ["toy 64x32"] * 2  # what the start went through comes first
    assert joined["train_loss"][0] == history["train_loss"][0] != joined["train_loss"][1]
