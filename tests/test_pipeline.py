"""Photo -> map -> photo -> map: each stage gets what the one before it made."""

import pytest
import torch
from examples import equal, noise
from networks import a_pipeline

import spade
from utils import photo_folder
from utils.images import save_image, u8_to_pm1
from utils.photo_folder import settings_of
from utils.pipeline import Pipeline, agreement, load_pipeline
from utils.segmentation import save_segmentation

FIELDS = ("image_u8", "label_ids", "generated_u8", "generated_label_ids")


@pytest.fixture(scope="module")
def styled():
    """A pipeline whose generator has a latent and two styles."""
    made = a_pipeline((64, 64), z_dim=3)
    styles = {"noon": torch.tensor([3.0, 0, 0]), "night": torch.tensor([0, -3.0, 3])}
    made.generator.styles = styles
    return made


def maps(*shape):
    return noise(*shape, low=7, high=34)


@pytest.mark.parametrize("batch", [(), (2,)])
def test_run(pipeline, batch):
    image_u8 = noise(*batch, 3, 64, 128)
    result = pipeline.run(image_u8)
    assert result.image_u8 is image_u8
    assert result.generated_u8.shape == (*batch, 3, 64, 128)
    assert result.label_ids.shape == result.generated_label_ids.shape == (*batch, 64, 128)
    assert all(getattr(result, field).dtype == torch.uint8 for field in FIELDS)
    assert torch.equal(result.label_ids, pipeline.segmenter.predict(image_u8))
    assert torch.equal(result.generated_u8, pipeline.generator.synthesize(result.label_ids))
    seen = pipeline.segmenter.predict(result.generated_u8)
    assert torch.equal(result.generated_label_ids, seen)


def test_each_round_starts_where_the_one_before_it_ended(pipeline):
    rounds = pipeline.feedback(noise(2, 3, 64, 64), rounds=3)
    assert len(rounds) == 3
    for before, after in zip(rounds, rounds[1:], strict=False):
        assert after.image_u8 is before.generated_u8
        assert after.label_ids is before.generated_label_ids
        assert equal(after, pipeline.run(before.generated_u8))


def test_agreement_by_hand():
    one = torch.tensor([[7, 7, 26], [23, 23, 0]], dtype=torch.uint8)
    other = torch.tensor([[7, 8, 26], [0, 23, 0]], dtype=torch.uint8)
    assert agreement(one, other).shape == () and agreement(one, other) == pytest.approx(4 / 6)
    shares = agreement(torch.stack([one, one, other]), torch.stack([one, other, 33 - other]))
    assert shares.shape == (3,) and shares.dtype == torch.float32
    torch.testing.assert_close(shares, torch.tensor([1, 4 / 6, 0]))
    with pytest.raises(ValueError, match=r"shapes \(4, 5\) and \(5, 4\): expected the same"):
        agreement(torch.zeros(4, 5), torch.zeros(5, 4))


# ----------------------------------------------------------------------- from a map, with a style


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_a_given_map_takes_the_place_of_the_predicted_one(pipeline, dtype):
    image_u8, label_ids = noise(2, 3, 64, 64), maps(2, 64, 64)
    result = pipeline.run(image_u8, label_ids.to(dtype))
    assert result.image_u8 is image_u8
    assert torch.equal(result.label_ids, label_ids) and result.label_ids.dtype == torch.uint8
    assert torch.equal(result.generated_u8, pipeline.generator.synthesize(label_ids))
    without_photo = pipeline.feedback(None, 2, label_ids)
    assert without_photo[0].image_u8 is None
    assert torch.equal(without_photo[0].generated_u8, result.generated_u8)
    assert equal(without_photo[1], pipeline.run(result.generated_u8))


def test_any_map_that_a_network_predicts_is_drawn(pipeline, monkeypatch):
    label_ids = torch.arange(16, dtype=torch.uint8).repeat(1, 64, 4)
    with pytest.raises(ValueError, match="looks like train ids"):
        pipeline.run(None, label_ids)
    monkeypatch.setattr(pipeline.segmenter, "predict", lambda image_u8: label_ids)
    assert torch.equal(pipeline.run(noise(1, 3, 64, 64)).label_ids, label_ids)


def test_what_a_pipeline_refuses(pipeline):
    with pytest.raises(ValueError, match="rounds is 0: expected 1 or more"):
        pipeline.feedback(noise(3, 64, 64), 0)
    with pytest.raises(ValueError, match="precision is 'fp16': expected exact or bf16"):
        Pipeline(pipeline.segmenter, pipeline.generator, precision="fp16")
    with pytest.raises(ValueError, match="nothing to start from: pass image_u8, label_ids"):
        pipeline.run(None)
    with pytest.raises(ValueError, match="the map to start from holds the value 255"):
        pipeline.run(None, torch.full((64, 64), 255))


def test_a_style_and_a_precision_reach_every_generated_photo(styled):
    label_ids = maps(2, 64, 64)
    z = styled.generator.style("night")
    night = Pipeline(styled.segmenter, styled.generator, z, "bf16")
    one, two = night.feedback(None, 2, label_ids)
    draw = styled.generator.synthesize
    assert torch.equal(one.generated_u8, draw(label_ids, z=z, precision="bf16"))
    assert torch.equal(two.generated_u8, draw(two.label_ids, z=z, precision="bf16"))
    assert not torch.equal(one.generated_u8, styled.run(None, label_ids).generated_u8)


def test_every_photo_in_its_own_style(styled):
    torch.manual_seed(0)
    encoder = spade.Encoder(ngf=2, z_dim=3).eval()
    pipeline = Pipeline(styled.segmenter, styled.generator, encoder=encoder)
    image_u8, label_ids = noise(2, 3, 64, 64), maps(2, 64, 64)
    with torch.no_grad():
        z = encoder(u8_to_pm1(image_u8))[0]
    draw = styled.generator.synthesize
    one, two = pipeline.feedback(image_u8, 2)
    assert torch.equal(one.generated_u8, draw(one.label_ids, z=z))
    assert torch.equal(two.generated_u8, draw(two.label_ids, z=z)), "the first photo's style stays"
    assert torch.equal(pipeline.run(image_u8, label_ids).generated_u8, draw(label_ids, z=z))
    assert agreement(pipeline.run(image_u8[1]).generated_u8, one.generated_u8[1]).min() > 0.98
    assert torch.equal(pipeline.run(None, label_ids).generated_u8, draw(label_ids))
    assert settings_of(pipeline)["style"] != settings_of(styled)["style"]


def test_stream(pipeline):
    image_u8 = noise(5, 3, 64, 64)
    asked = []
    batches = (asked.append(batch) or batch for batch in image_u8.split(2))
    results = pipeline.stream(batches)
    assert equal(next(results), pipeline.run(image_u8[:2])) and len(asked) == 1, "one at a time"
    assert [len(result.label_ids) for result in results] == [2, 1]


def test_settings_tell_what_changes_the_results(styled):
    segmenter, generator = styled.segmenter, styled.generator
    settings = settings_of(styled)
    assert settings == settings_of(Pipeline(segmenter, generator))
    noon = settings_of(Pipeline(segmenter, generator, generator.style("noon")))
    night = settings_of(Pipeline(segmenter, generator, generator.style("night"), "bf16"))
    changed = [{key for key in settings if one[key] != settings[key]} for one in (noon, night)]
    assert changed == [{"style"}, {"style", "precision"}] and noon["style"] != night["style"]
    bias = generator.conv_img.bias
    with torch.no_grad():
        bias += 1e-3
        assert settings_of(styled)["generator"] != settings["generator"]
        bias -= 1e-3


def test_load_pipeline_from_files(styled, tmp_path):
    generator, segmenter = tmp_path / "generator.safetensors", tmp_path / "net.safetensors"
    spade.save_generator(styled.generator, generator)
    save_segmentation(styled.segmenter, segmenter)
    loaded = load_pipeline(segmenter, str(generator), "night", "bf16", device="cpu")
    assert torch.equal(loaded.z, styled.generator.style("night")) and loaded.precision == "bf16"
    label_ids = maps(64, 64)
    expected = styled.generator.synthesize(label_ids, z=loaded.z, precision="bf16")
    assert agreement(loaded.run(None, label_ids).generated_u8, expected).min() > 0.98
    with pytest.raises(ValueError, match="no style 'dusk'; its styles: "):
        load_pipeline(segmenter, generator, "dusk")
    with pytest.raises(FileNotFoundError, match="encoder that reads a photo's style is not beside"):
        load_pipeline(segmenter, generator)
    assert load_pipeline(segmenter, generator, "mean").encoder is None
    spade.save_encoder(spade.Encoder(ngf=2, z_dim=3), tmp_path / "encoder.safetensors")
    assert load_pipeline(segmenter, generator).encoder.settings["z_dim"] == 3


def test_a_generator_without_a_latent_has_a_single_style(pipeline, tmp_path):
    generator, segmenter = tmp_path / "generator.safetensors", tmp_path / "net.safetensors"
    spade.save_generator(pipeline.generator, generator)
    save_segmentation(pipeline.segmenter, segmenter)
    for style in ("photo", "mean"):
        loaded = load_pipeline(segmenter, generator, style)
        assert loaded.encoder is None and loaded.z is None
    with pytest.raises(FileNotFoundError, match="no generator weights for atlantis yet"):
        load_pipeline(segmenter, "atlantis")


# ----------------------------------------------------------------------------- the command


@pytest.fixture
def command(styled, tmp_path, monkeypatch):
    """python -m utils.photo_folder on three photos of which one is broken -> its exit status."""
    asked = []
    monkeypatch.setattr(photo_folder, "load_pipeline", lambda *args: asked.append(args) or styled)
    for name in ("a", "b"):
        save_image(noise(3, 40, 90), tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")

    def run(*options):
        return photo_folder.main([str(tmp_path / "in"), "--out", str(tmp_path / "out"), *options])

    run.asked = asked
    return run


def test_command(command, tmp_path, capsys):
    options = ("--style", "night", "--precision", "bf16", "--generator", "toy")
    assert command(*options) == 1, "a photo could not be read"
    assert command.asked == [("streets", "toy", "night", "bf16")]
    printed = capsys.readouterr()
    assert "2 photos done (2 now" in printed.out and "index.html" in printed.out
    assert "skipped: " in printed.err and "broken.jpg can't be read" in printed.err
    (tmp_path / "in" / "broken.jpg").unlink()
    assert command() == 0
    assert command.asked[1] == ("streets", "streets", "photo", "exact"), "those for real photos"
    assert "2 photos done (0 now)" in capsys.readouterr().out


def test_command_says_what_is_wrong(command, capsys, monkeypatch):
    assert command("--batch-size", "0") == 1
    assert capsys.readouterr().err == "batch_size is 0: expected 1 or more.\n"

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(photo_folder.Pipeline, "run", interrupted)
    assert command() == 130
    assert "the same command continues" in capsys.readouterr().out
