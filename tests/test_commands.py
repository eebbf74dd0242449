"""Commands end with a sentence, not with a traceback."""

import argparse
import io
import sys

import pytest

from utils.commands import exit_status, width_and_height


@pytest.mark.parametrize("text", ["256", "256x", "256*128", "-256x128", "256x128x3", ""])
def test_what_is_no_size(text, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=width_and_height)
    assert parser.parse_args(["--size=256x128"]).size == (256, 128)
    with pytest.raises(SystemExit):
        parser.parse_args([f"--size={text}"])
    assert f"{text!r}: expected WIDTHxHEIGHT, 256x128 for example" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error, status, told",
    [
        (None, 0, ""),
        (FileNotFoundError("a.png is not there"), 1, "a.png is not there\n"),
        (ValueError("There is no schedule"), 1, "There is no schedule\n"),
        (FloatingPointError("The loss is nan"), 1, "The loss is nan\n"),
        (KeyboardInterrupt(), 130, "Interrupted; the same command continues.\n"),
    ],
)
def test_how_a_command_ends(error, status, told, capsys):
    def command():
        if error is not None:
            raise error

    assert exit_status(command) == status
    assert capsys.readouterr().err == told


def test_a_code_page_without_these_letters(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), "cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    assert exit_status(lambda: print("wrote 結果/a\udcdf.png", flush=True)) == 0
    assert console.buffer.getvalue().strip() == rb"wrote \u7d50\u679c/a\udcdf.png"


def test_other_errors_are_ours():
    with pytest.raises(TypeError):
        exit_status(lambda: 1 + "1")
