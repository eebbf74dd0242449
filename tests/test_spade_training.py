"""The losses of SPADE by hand, and a training that can be interrupted."""

import copy
import sys

import pytest
import torch

import spade
from spade import training
from spade.losses import (
    PerceptualLoss,
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    split_judgement,
)
from spade.training import save_preview, train_spade, training_batch, xavier_start
from utils import scenes as scenes_module
from utils.cache import cached
from utils.images import read_image, u8_to_pm1
from utils.scenes import open_scenes
from utils.segmentation import SegmentationNet, save_segmentation


def judgement(*scores):
    """One scale a score: a layer of zeros, then the score."""
    return [[torch.zeros(1, 2, 3, 3), torch.tensor(score).reshape(1, 1, 1, -1)] for score in scores]


# ------------------------------------------------------------------------------ losses


def test_split_judgement():
    both = [[torch.arange(8.0).reshape(4, 2)], [torch.arange(4.0), torch.ones(4, 1, 5)]]
    fake, real = split_judgement(both)
    assert fake[0][0].tolist() == [[0, 1], [2, 3]] and real[0][0].tolist() == [[4, 5], [6, 7]]
    assert fake[1][0].tolist() == [0, 1] and real[1][0].tolist() == [2, 3]
    assert [len(scale) for scale in fake] == [len(scale) for scale in real] == [1, 2]


def test_hinge_discriminator_by_hand():
    # Fake: -2 costs nothing, 0 costs 1.  Real: 3 costs nothing, -1 costs 2.
    fake, real = judgement([-2.0, 0.0]), judgement([3.0, -1.0])
    assert hinge_discriminator(fake, real).item() == pytest.approx(0.5 + 1)
    # A second scale that is perfect halves the mean.
    fake, real = judgement([-2.0, 0.0], [-1.0]), judgement([3.0, -1.0], [1.0])
    assert hinge_discriminator(fake, real).item() == pytest.approx(0.75)


def test_hinge_generator_by_hand():
    assert hinge_generator(judgement([-2.0, 0.0])).item() == pytest.approx(1)
    assert hinge_generator(judgement([-2.0, 0.0], [5.0])).item() == pytest.approx(-2)


def test_feature_matching_by_hand():
    fake = [[torch.tensor([1.0, 2.0]), torch.tensor([0.0]), torch.tensor([9.0])]] * 2
    real = [[torch.tensor([0.0, 0.0]), torch.tensor([4.0]), torch.tensor([0.0])]] * 2
    assert feature_matching(fake, fake).item() == 0
    # 1.5 + 4 in each of the two scales; the last layer is the score and does not count.
    assert feature_matching(fake, real).item() == pytest.approx(5.5)


def test_feature_matching_moves_the_fake_only():
    fake, real = ([[torch.ones(2, requires_grad=True), torch.ones(1)]] for _ in range(2))
    feature_matching([[fake[0][0] * 2, fake[0][1]]], real).backward()
    assert fake[0][0].grad.tolist() == [1, 1] and real[0][0].grad is None


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    return SegmentationNet("resnet18")


def photos(seed=0):
    return torch.rand(2, 3, 33, 47, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_perceptual_loss(segmenter):
    perceptual = PerceptualLoss(copy.deepcopy(segmenter))
    one, other = photos(0).requires_grad_(), photos(1)
    assert perceptual(one, one.detach()).item() == 0
    loss = perceptual(one, other)
    near = perceptual(one, (0.9 * one + 0.1 * other).detach())
    assert loss.shape == () and 0 < near.item() < 0.5 * loss.item()
    loss.backward()
    assert one.grad.abs().sum() > 0


def test_perceptual_loss_reads_the_first_three_stages(segmenter):
    perceptual = PerceptualLoss(copy.deepcopy(segmenter))
    names = [[type(layer).__name__ for layer in stage] for stage in perceptual.stages]
    assert names == [
        ["Conv2d", "BatchNorm2d", "ReLU"],
        ["MaxPool2d", "Sequential"],
        ["Sequential"],
    ]
    assert perceptual.stages[2][0][0].conv1.out_channels == 128  # layer2


def test_perceptual_loss_is_frozen(segmenter):
    perceptual = PerceptualLoss(copy.deepcopy(segmenter).train())
    before = copy.deepcopy(perceptual.state_dict())
    assert perceptual.train() is perceptual and not any(x.training for x in perceptual.modules())
    torch.nn.Sequential(perceptual).train()
    assert not any(x.training for x in perceptual.modules())
    assert not any(parameter.requires_grad for parameter in perceptual.parameters())
    perceptual(photos(0), photos(1))
    assert all(torch.equal(value, before[key]) for key, value in perceptual.state_dict().items())


# ------------------------------------------------------------------------------ the start


def test_xavier_start():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(30, 50, 3), torch.nn.BatchNorm2d(50))
    xavier_start(network)
    assert network[0].weight.std().item() == pytest.approx(0.02 * (2 / (9 * 80)) ** 0.5, rel=0.05)
    assert not network[0].bias.any() and (network[1].weight == 1).all()


# ------------------------------------------------------------------------------ batches


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    scenes = open_scenes("toy", "train", size=(64, 64))[:6]
    return cached(scenes, tmp_path_factory.mktemp("cache"))


def test_a_batch_depends_on_its_step_only(streets):
    planes, image_pm1 = training_batch(streets, step=5, batch_size=3, seed=0)
    assert planes.shape == (3, 36, 64, 64) and image_pm1.shape == (3, 3, 64, 64)
    assert image_pm1.dtype == torch.float32 and -1 <= image_pm1.min() < image_pm1.max() <= 1
    torch.manual_seed(7)
    training_batch(streets, 4, 3, 0)
    again = training_batch(streets, 5, 3, 0)
    assert torch.equal(again[0], planes) and torch.equal(again[1], image_pm1)
    for step, seed in ((6, 0), (5, 1)):
        assert not torch.equal(training_batch(streets, step, 3, seed)[1], image_pm1)


def test_batches_are_mirrored_as_a_whole_and_see_instances_at_times(streets):
    one = streets[:1]
    scene = one[0]
    photo = u8_to_pm1(scene.image_u8)[None]
    expected = {
        instances: spade.semantics(scene.label_ids, scene.instance_ids if instances else None)
        for instances in (True, False)
    }
    assert not torch.equal(expected[True], expected[False])  # the scene has instances to see
    kinds = []
    for step in range(40):
        planes, image_pm1 = training_batch(one, step, 1, 0)
        mirrored = not torch.equal(image_pm1, photo)
        if mirrored:
            planes, image_pm1 = planes.flip(-1), image_pm1.flip(-1)
        assert torch.equal(image_pm1, photo)
        instances = torch.equal(planes, expected[True])
        assert torch.equal(planes, expected[instances])
        kinds.append((mirrored, instances))
    assert all(3 <= kinds.count(kind) <= 20 for kind in set(kinds)) and len(set(kinds)) == 4


# ------------------------------------------------------------------------------ training


def tiny_networks(seed=0):
    torch.manual_seed(seed)
    generator = spade.SpadeGenerator(ngf=2, hidden=4, upsampling="more", size=(64, 64))
    return generator, spade.MultiscaleDiscriminator(ndf=2)


def state_of(networks):
    return [copy.deepcopy(network.state_dict()) for network in networks]


def differing(one, other):
    pairs = [(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a]
    return sum(not torch.equal(a, b) for a, b in pairs)


def test_two_steps_change_the_weights_of_both(streets, segmenter):
    networks = tiny_networks()
    before = state_of(networks)
    perceptual = PerceptualLoss(copy.deepcopy(segmenter))
    frozen = copy.deepcopy(perceptual.state_dict())
    losses = train_spade(*networks, streets, 4, batch_size=2, perceptual=perceptual)
    assert len(losses) == 2
    assert set(losses[0]) == {"adversarial", "matching", "perceptual", "discriminator"}
    assert all(torch.tensor(list(step.values())).isfinite().all() for step in losses)
    assert losses[0]["perceptual"] > 0
    for network, state in zip(networks, before, strict=True):
        weights = [key for key, parameter in network.named_parameters() if parameter.dim() > 1]
        moved = [key for key in weights if not torch.equal(network.state_dict()[key], state[key])]
        assert moved == weights
    assert all(torch.equal(value, frozen[key]) for key, value in perceptual.state_dict().items())
    assert not networks[0].training
    assert all(parameter.requires_grad for parameter in networks[1].parameters())


@pytest.mark.parametrize("learner", ["generator", "discriminator"])
def test_each_network_learns_its_own_side(streets, learner):
    """One of them stands still: the other makes photos more alike, or tells them apart."""
    generator, discriminator = tiny_networks()
    rates = (4e-3, 0.0) if learner == "generator" else (0.0, 4e-3)
    optimizers = tuple(
        torch.optim.Adam(network.parameters(), rate, betas=(0.0, 0.9))
        for network, rate in zip((generator, discriminator), rates, strict=True)
    )
    batch = training_batch(streets, 0, 2, 0)
    accelerator = training.Accelerator()
    losses = [
        training.training_step(generator, discriminator, optimizers, None, *batch, accelerator)
        for _ in range(12)
    ]
    first, last = losses[0], losses[-1]
    if learner == "generator":
        assert last["matching"] < 0.75 * first["matching"]
    else:
        assert last["discriminator"] < 0.8 * first["discriminator"]
        # The generator's loss is the mean score of its photos, negated: they are scored lower.
        assert last["adversarial"] > first["adversarial"] + 0.2


def test_the_rates_fall_to_zero_over_the_second_half(streets, monkeypatch):
    rates = []

    def record(generator, discriminator, optimizers, *arguments):
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
        return {}

    monkeypatch.setattr(training, "training_step", record)
    train_spade(*tiny_networks(), streets, 4, batch_size=1)
    assert [x for x, _ in rates] == pytest.approx([1e-4, 1e-4, 1e-4, 0.5e-4])
    assert [x for _, x in rates] == pytest.approx([4e-4, 4e-4, 4e-4, 2e-4])


def test_interrupted_and_resumed_equals_uninterrupted(streets, tmp_path, monkeypatch, capsys):
    settings = {"pictures": 8, "batch_size": 2, "save_every": 2, "folder": tmp_path / "run"}
    whole = tiny_networks()
    expected = train_spade(*whole, streets, **settings | {"folder": None})
    assert capsys.readouterr().out == ""

    def interrupted(scenes, step, *arguments):
        if step == 3:
            raise KeyboardInterrupt
        return training_batch(scenes, step, *arguments)

    monkeypatch.setattr(training, "training_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_spade(*tiny_networks(), streets, **settings | {"save_every": 4})
    monkeypatch.undo()
    assert capsys.readouterr().out.startswith("4 pictures, ")  # so the third step was lost

    resumed = tiny_networks(seed=1)  # their own weights do not matter
    losses = train_spade(*resumed, streets, preview=streets[:2], **settings)
    assert losses == expected and len(losses) == 4
    assert differing(state_of(resumed), state_of(whole)) == 0
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["last.pt", "preview_000006.jpg", "preview_000008.jpg"]


def test_preview(streets, tmp_path):
    save_preview(tiny_networks()[0], streets[:3], tmp_path / "preview.png")
    picture = read_image(tmp_path / "preview.png")
    assert picture.shape == (3, 3 * 64, 3 * 64)
    assert torch.equal(picture[:, 64:128, :64], streets[1].image_u8)


# ------------------------------------------------------------------------------ from a shell


def test_the_command(segmenter, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scenes_module, "TOY_COUNTS", {"train": 4, "val": 2, "test": 1})
    save_segmentation(segmenter, tmp_path / "segmentation.safetensors")

    def run(*arguments):
        line = f"training --size 64x64 --ngf 2 --ndf 2 --hidden 4 --cache {tmp_path / 'cache'}"
        monkeypatch.setattr(sys, "argv", [*line.split(), *map(str, arguments)])
        training.main()

    few = ("--pictures", 2, "--batch-size", 2)
    run("--out", tmp_path / "one", "--perceptual", tmp_path / "segmentation.safetensors", *few)
    assert "perceptual" in capsys.readouterr().out
    one = spade.load_generator(tmp_path / "one" / "generator.safetensors")
    assert one.size == (64, 64) and one.settings["hidden"] == 4
    # Nothing is learnt from no pictures: the second run ends with the weights that it started from.
    times = {scene.time_of_day for scene in open_scenes("toy", "train", size=(64, 64))}
    start = tmp_path / "one" / "last.pt"
    run("--out", tmp_path / "two", "--start", start, "--pictures", 0, "--times-of-day", *times)
    two = spade.load_generator(tmp_path / "two" / "generator.safetensors")
    assert differing(state_of([one]), state_of([two])) == 0
