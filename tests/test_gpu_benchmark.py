"""benchmarks/gpu.py without a GPU: tiny networks, pretended graphs, and parts that go wrong."""

import importlib
import sys
import time

import pretended_graph
import pytest
import torch

import spade  # before benchmarks/, which has a script of this name, is on the path
from utils.files import PROJECT

assert spade


@pytest.fixture
def pretended(monkeypatch):
    pretended_graph.install(monkeypatch)


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    monkeypatch.delitem(sys.modules, "gpu", raising=False)  # imported before graphs were pretended
    return importlib.import_module("gpu")


@pytest.mark.slow
def test_everything_is_measured(pretended, gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "BUNDLED", ("toy",))  # tiny networks are the same for both names
    monkeypatch.setattr(gpu.gc, "collect", lambda: None)  # tiny networks fill no memory
    with torch.compiler.set_stance("force_eager"):  # to compile takes as long as all the rest
        assert gpu.main(["--tiny", "--out", str(tmp_path / "out.txt")]) == 0
    text = (tmp_path / "out.txt").read_text(encoding="utf-8")
    assert all(f"\n{title}\n" in text for title, _, _ in gpu.PARTS)
    assert text.count("  ok ") == 13 and "MISSED" not in text and "cut after" not in text
    assert text.count(" 1.00x") >= 12, "a table for each network and size of batch"
    assert text.count("steps/s") == 4 and "all ok" in text
    assert pretended_graph.PretendedGraph.replays > 0


def test_parts_that_fail_or_take_too_long_do_not_stop_the_others(gpu, tmp_path, monkeypatch):
    def fails(work):
        raise RuntimeError("no such kernel")

    parts = (("Slow", 0.01, lambda _: time.sleep(60)), ("Wrong", 9, fails))
    parts += (("Last", 9, lambda work: work.report.check(True, "is reached")),)
    monkeypatch.setattr(gpu, "PARTS", parts)
    assert gpu.main(["--tiny", "--out", str(tmp_path / "out.txt")]) == 1
    text = (tmp_path / "out.txt").read_text(encoding="utf-8")
    assert "\nSlow\n  cut after 0 s\n\nWrong\n  MISSED RuntimeError: no such kernel\n" in text
    assert "\nLast\n  ok     is reached\n" in text and "1 checks or parts FAILED" in text
    gpu.main(["--tiny", "--minutes", "0", "--out", str(tmp_path / "out.txt")])
    assert "Last: left out, the time is up" in (tmp_path / "out.txt").read_text(encoding="utf-8")


def test_without_a_gpu(gpu, tmp_path):
    with pytest.raises(SystemExit, match="no GPU here: --tiny tries"):
        gpu.main(["--out", str(tmp_path / "out.txt")])
