"""README's moving pictures: the styles on the way, and the files."""

import pytest
import torch
from PIL import Image

import spade
from tools.record_moving_pictures import BETWEEN, MAX_BYTES, RECORDINGS, TOY_STOPS, journey, save
from utils.files import PROJECT
from utils.weights import find_weights


def test_a_journey_goes_through_every_style_and_back():
    generator = spade.SpadeGenerator(ngf=1, hidden=1, size=(64, 64), z_dim=2)
    generator.styles = {"noon": torch.tensor([0.0, 1.0]), "night": torch.tensor([2.0, 1.0])}
    names, latents = zip(*journey(generator, ["noon", "night"]), strict=True)
    steps = BETWEEN + 1
    assert len(names) == 2 * steps and all(z.shape == (1, 2) for z in latents)
    assert latents[0].tolist() == [[0, 1]] and latents[steps].tolist() == [[2, 1]]
    assert latents[-1][0, 0] == pytest.approx(2 / steps)
    near = -(-steps // 2)  # as many frames are nearer to the first style
    assert names == ("noon",) * near + ("night",) * steps + ("noon",) * (steps - near)


def test_the_generator_has_the_styles_of_the_journey():
    styles = spade.load_generator(find_weights("generator", "toy")).styles
    assert set(TOY_STOPS) <= set(styles)


def test_a_moving_picture_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tools.record_moving_pictures.PROJECT", tmp_path)
    frames = [(Image.new("RGB", (16, 8), color), 90) for color in ("red", "blue", "green")]
    save(frames, tmp_path / "a.webp")
    assert capsys.readouterr().out == "a.webp: 3 frames, 0.00 MB\n"
    with Image.open(tmp_path / "a.webp") as picture:
        assert picture.size == (16, 8) and picture.n_frames == 3 and picture.info["loop"] == 0
    monkeypatch.setattr("tools.record_moving_pictures.MAX_BYTES", 10)
    with pytest.raises(ValueError, match=r"a\.webp has \d+ bytes, expected at most 10: record"):
        save(frames, tmp_path / "a.webp")


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_recorded_pictures(name):
    path = PROJECT / "docs" / f"{name}.webp"
    assert path.stat().st_size <= MAX_BYTES == 1_500_000
    with Image.open(path) as picture:
        assert picture.n_frames > 40 and picture.width > 800 and picture.info["loop"] == 0
    assert f"(docs/{name}.webp)" in (PROJECT / "README.md").read_text(encoding="utf-8")
