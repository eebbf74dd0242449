"""What lies where, with a GPU: the pipeline and both trainings on a pretended one.

And on a real one, if there is one, that a recorded training is the ordinary one."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.utils.backend_registration as registration
from torch import nn

import spade
from spade.losses import LossWeights, PerceptualLoss
from spade.styles import StyleClassifier, style_labels
from spade.training import Recipe, named_styles, train_spade
from utils.augmentation import Augmentation
from utils.cache import cached
from utils.engine import graphs as gpu
from utils.files import PROJECT
from utils.images import save_image
from utils.painter.painting import draw_street, remove_class
from utils.photo_folder import run_folder
from utils.pipeline import load_pipeline
from utils.scenes import open_scenes
from utils.segmentation import SegmentationNet
from utils.training import balanced_weights, train


def test_a_training_that_is_over_holds_nothing(tmp_path):
    """On a GPU that would be the memory of its recordings, until Python happens to look for it."""
    scenes = cached(open_scenes("toy", "train", size=(64, 64))[:4], tmp_path)
    segmenter = SegmentationNet("resnet18")
    generator = spade.SpadeGenerator(2, "normal", 3, (64, 64), 4)
    judge, encoder = spade.MultiscaleDiscriminator(ndf=2), spade.Encoder(ngf=2, z_dim=3)
    gc.collect()
    gc.disable()
    try:
        train(segmenter, scenes, scenes[:2], epochs=1, batch_size=2)
        train_spade(generator, judge, scenes, 4, encoder, recipe=Recipe(batch_size=2))
        assert not [x for x in gc.get_objects() if type(x) is gpu.Recorder]
    finally:
        gc.enable()
    parameters = [x for part in (segmenter, generator, judge, encoder) for x in part.parameters()]
    assert all(x.grad is None for x in parameters)


def trained_twice(monkeypatch, train):
    """What train() returns when its steps are recorded, and when they are not."""
    played, play = [], gpu._Recording.play
    monkeypatch.setattr(gpu._Recording, "play", lambda *given: played.append(given) or play(*given))
    recorded, count = train(), len(played)
    monkeypatch.setattr(gpu, "ORDINARY_CALLS", 10**9)
    ordinary = train()
    assert count > 0 and len(played) == count
    return recorded, ordinary


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_recorded_training_of_segmentation_is_an_ordinary_one(tmp_path, monkeypatch, precision):
    scenes = [cached(open_scenes("toy", s, size=(64, 64))[:16], tmp_path) for s in ("train", "val")]

    def trained():
        torch.manual_seed(0)
        network = SegmentationNet("resnet18")
        # Whole batches and halved ones: two recordings take turns.
        history = train(
            network, *scenes, epochs=8, batch_size=4, learning_rate=1e-3, half_size=0.4,
            class_weights=balanced_weights(scenes[0]), precision=precision,
        )  # fmt: skip
        return history["train_loss"]

    recorded, ordinary = trained_twice(monkeypatch, trained)
    assert recorded == pytest.approx(ordinary, rel=0.1)
    assert recorded[-1] < 0.7 * recorded[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_recorded_training_of_spade_is_an_ordinary_one(tmp_path, monkeypatch, precision):
    scenes = cached(open_scenes("toy", "train", size=(64, 64))[:8], tmp_path)
    # Learning slowly, because two trainings of a GAN part soon, whatever is different in the last
    # digit: each step's losses are of its own batch, and of weights that are nearly the same.
    recipe = Recipe(
        batch_size=4, learning_rate=1e-5, weights=LossWeights(style=1), head_start=40, average=0.5
    )

    def trained():
        def weights():
            parts = [nn.utils.parameters_to_vector(x.parameters()) for x in (generator, judge)]
            return [part.detach().cpu() for part in parts]

        torch.manual_seed(0)
        perceptual = PerceptualLoss.of_segmentation(SegmentationNet("resnet18"), texture=1)
        generator, encoder = (
            spade.SpadeGenerator(4, "normal", 3, (64, 64), 8, styled_layers=True, grain=True),
            spade.Encoder(ngf=2, z_dim=3),
        )
        judge = spade.MultiscaleDiscriminator(ndf=4)
        before = weights()
        history = train_spade(
            generator,
            judge,
            scenes,
            80,
            encoder,
            perceptual,
            recipe,
            StyleClassifier(style_labels(scenes)[0], z_dim=3),
            precision=precision,
        )
        moves = [now - then for now, then in zip(weights(), before, strict=True)]
        return torch.tensor(list(history.values())), moves  # (losses, steps), the way they went

    (recorded, moves), (ordinary, same_moves) = trained_twice(monkeypatch, trained)
    for one, other in zip(moves, same_moves, strict=True):
        assert torch.cosine_similarity(one, other, 0) > 0.9
        assert one.norm().item() == pytest.approx(other.norm().item(), rel=0.05)
    assert recorded.shape == (6, 20) and (recorded[1] - recorded[1].mean()).abs().max() > 0.1
    torch.testing.assert_close(recorded, ordinary, rtol=0.03, atol=0.03)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_each_shape_has_a_recording_with_gradients_of_its_own(monkeypatch):
    layer = nn.Linear(3, 1, bias=False).cuda()

    def gradients(x):
        layer.zero_grad()
        loss = layer(x).sum()
        loss.backward()
        return (loss.detach(),)

    recorder = gpu.Recorder(layer.parameters())
    for number in range(12):
        x = torch.full((2 + number % 2, 3), float(number), device="cuda")
        (loss,) = recorder(gradients, x)
        assert torch.allclose(layer.weight.grad, x.sum(0, keepdim=True))
        assert loss.item() == pytest.approx(layer(x).sum().item(), rel=1e-3)
        with torch.no_grad():
            layer.weight += 0.1  # in place, as an optimizer does
    assert len(recorder._recordings) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_photo_to_photo_on_a_gpu_is_what_it_is_on_the_cpu():
    scene = open_scenes("toy", "val", size=(256, 128))[0]
    one, other = (
        load_pipeline("toy", "toy", device=device).run(scene.image_u8) for device in ("cuda", "cpu")
    )
    assert one.generated_u8.is_cuda
    assert (one.label_ids.cpu() == other.label_ids).float().mean() > 0.999
    assert (one.generated_u8.cpu().int() - other.generated_u8.int()).abs().float().mean() < 1


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch can't pretend to have a GPU",
)
def test_the_course_on_a_gpu(tmp_path):
    command = [sys.executable, __file__, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {"moved", "pipeline", "segmentation", "generator"} <= set(done.stdout.split("\n"))


def main(folder: Path) -> None:
    import pretended_gpu  # not every torch has what it needs

    pretended_gpu.install()
    what_is_not_moved_is_found()
    print("moved")
    augment_on_the_cpu()
    photo_to_photo(folder)
    print("pipeline")
    train_a_segmentation_network(folder)
    print("segmentation")
    train_a_generator(folder)
    print("generator")


def what_is_not_moved_is_found() -> None:
    x = torch.ones(2, 3).to("pretended")
    assert (x + 1).device.type == "pretended" and x.cpu().sum() == 6
    x += x
    assert x.sum().item() == 12
    for mistake in (lambda: x + torch.ones(3), lambda: torch.ones(3)[x.long()], lambda: x.numpy()):
        with pytest.raises((RuntimeError, TypeError), match="CPU"):
            mistake()


def augment_on_the_cpu() -> None:
    """torchvision's kinds of tensors can't be made of pretended ones (test_augmentation.py has a
    test for real ones)."""
    augment = Augmentation.__call__

    def elsewhere(self, *pixels, seeds):
        return tuple(
            x.to(pixels[0].device) for x in augment(self, *(x.cpu() for x in pixels), seeds=seeds)
        )

    Augmentation.__call__ = elsewhere


def photo_to_photo(folder: Path) -> None:
    pipeline = load_pipeline("toy", "toy")
    scene = open_scenes("toy", "val", size=pipeline.generator.size)[0]
    for result in pipeline.feedback(scene.image_u8[None], 2):
        assert result.generated_u8.device.type == result.label_ids.device.type == "pretended"
    named = load_pipeline("toy", "toy", style="Sonnental, dusk").run(None, scene.label_ids)
    on_cpu = load_pipeline("toy", "toy", style="Sonnental, dusk", device="cpu")
    drawn = on_cpu.run(None, scene.label_ids).generated_u8  # by the fast path
    assert (named.generated_u8.cpu().int() - drawn.int()).abs().max() <= 2
    draw_street(pipeline.generator, remove_class(scene.label_ids, "car"), "dusk")
    (folder / "photos").mkdir()
    save_image(scene.image_u8, folder / "photos" / "street.png")
    assert run_folder(pipeline, folder / "photos", folder / "out").new == 1


def train_a_segmentation_network(folder: Path) -> None:
    scenes = [
        cached(open_scenes("toy", s, size=(64, 64))[:8], folder / "cache") for s in ("train", "val")
    ]
    for epochs in (1, 2):  # the second goes on from the first's checkpoint
        network = SegmentationNet("resnet18", "unet")
        settings = {"batch_size": 4, "class_weights": balanced_weights(scenes[0]), "half_size": 0.5}
        history = train(network, *scenes, epochs=epochs, folder=folder / "unet", **settings)
        assert len(history["seconds"]) == epochs
        assert next(network.parameters()).device.type == "pretended"


def train_a_generator(folder: Path) -> None:
    scenes = cached(open_scenes("toy", "train", size=(64, 64))[:8], folder / "cache")
    perceptual = PerceptualLoss.of_segmentation(SegmentationNet("resnet18"), texture=1)
    recipe = Recipe(batch_size=4, schedule="constant", weights=LossWeights(style=1), head_start=8)
    for pictures in (4, 8):
        networks = (
            spade.SpadeGenerator(2, "normal", 3, (64, 64), 4, styled_layers=True, grain=True),
            spade.MultiscaleDiscriminator(ndf=2),
            spade.Encoder(ngf=2, z_dim=3),
        )
        history = train_spade(
            *networks[:2],
            scenes,
            pictures,
            networks[2],
            perceptual,
            recipe,
            StyleClassifier(style_labels(scenes)[0], z_dim=3),
            folder=folder / "generator",
            preview=scenes[:2],
        )
        assert len(history["style"]) == pictures // 4
        assert all(next(part.parameters()).device.type == "pretended" for part in networks)
    assert "dusk" in named_styles(networks[2], scenes)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
