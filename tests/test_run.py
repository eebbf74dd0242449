"""Work that is kept in a folder: checkpoints, the journal, and the losses of a training."""

import math

import pytest
import torch
from torch import nn

from utils.engine import make_accelerator
from utils.engine.run import JOURNAL, READ_EVERY, LossLog, Run


def test_what_is_saved_comes_back(tmp_path):
    layer = nn.Linear(2, 1)
    run = Run(tmp_path / "run", {"seed": 0})
    assert not run.has_checkpoint and run.load({"layer": layer}) is None
    run.save({"layer": layer}, {"epochs": 3})
    other = nn.Linear(2, 1)
    again = Run(str(tmp_path / "run"), {"seed": 0})
    assert again.has_checkpoint and again.load({"layer": other}) == {"epochs": 3}
    assert torch.equal(other.weight, layer.weight)
    with pytest.raises(ValueError, match="another training, with seed 0; this one has seed 1: del"):
        Run(tmp_path / "run", {"seed": 1}).load({"layer": other})


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run(None, {})
    run.save({"layer": nn.Linear(2, 1)}, {})
    assert not run.has_checkpoint and run.load({}) is None and not list(tmp_path.iterdir())


def test_a_divergence_says_what_is_left(tmp_path):
    run = Run(tmp_path, {})
    assert "the training has diverged, and nothing was kept before it. Start" in str(
        run.diverged("X")
    )
    run.save({}, None)
    assert f"{tmp_path / 'last.pt'} holds the last good checkpoint" in str(run.diverged("X"))


def test_the_journal_drops_a_line_that_was_cut_short(tmp_path):
    run = Run(tmp_path / "out", {"precision": "exact"})
    assert run.items() == []
    run.add_items([{"photo": "a"}, {"photo": "b"}])
    run.add_items([{"photo": "c"}])
    path = tmp_path / "out" / JOURNAL
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    again = Run(tmp_path / "out", {"precision": "exact"})
    assert again.items() == [{"photo": "a"}, {"photo": "b"}]
    again.add_items([{"photo": "c"}])
    assert path.read_bytes() == whole
    with pytest.raises(ValueError, match="made with precision exact; this run has precision bf16"):
        Run(tmp_path / "out", {"precision": "bf16"}).items()
    path.write_bytes(b"")  # a full disk may leave it empty
    assert again.items() == [] and path.read_bytes() == whole[: whole.index(b"\n") + 1]


def test_losses_are_read_now_and_then(tmp_path):
    log = LossLog(make_accelerator(), Run(None, {}), history={"a": [1.0], "b": [2.0]})
    assert log.steps == 1
    for step in range(READ_EVERY - 1):
        log.add({"a": torch.tensor(float(step)), "b": torch.tensor(0.5)})
    assert log.steps == 1, "a look at each loss would make a GPU wait"
    log.add({"a": torch.tensor(7.0), "b": torch.tensor(0.5)})
    assert log.steps == 1 + READ_EVERY and log.history["a"][-2:] == [READ_EVERY - 2.0, 7.0]
    log.add({"a": torch.tensor(9.0), "b": torch.tensor(1.5)})
    assert log.means(2) == {"a": 8.0, "b": 1.0}
    assert log.means()["b"] == pytest.approx((2 + 0.5 * READ_EVERY + 1.5) / (2 + READ_EVERY))


def test_a_loss_that_is_nan_is_named_with_its_step(tmp_path):
    log = LossLog(make_accelerator(), Run(None, {}), " of epoch 3", {"a": [1.0], "b": [1.0]})
    for b in (2.0, math.inf, math.nan):
        log.add({"a": torch.tensor(1.0), "b": torch.tensor(b)})
    with pytest.raises(FloatingPointError, match="The b loss is inf in step 3 of epoch 3: the tra"):
        log.read()
    assert log.history == {"a": [1.0], "b": [1.0]}
