"""Trainings from a shell: single options, and recipes of several stages."""

import contextlib
import itertools
import os
import runpy
import socket
import sys
import warnings

import pytest
import torch
from killed import SERVER, killed_and_resumed

import spade
from spade import stages as spade_stages
from utils import scenes, stages
from utils.images import u8_to_imagenet
from utils.recipes import read_recipe
from utils.segmentation import load_segmentation, save_segmentation
from utils.weights import load_weights

TOY_COUNTS = {"train": 4, "val": 3, "test": 1}


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch):
    monkeypatch.setattr(scenes, "TOY_COUNTS", TOY_COUNTS)


# ------------------------------------------------------------------------------ segmentation


def test_every_option_of_the_segmentation_command_arrives(tmp_path, monkeypatch):
    given = {}

    def record(network, train_scenes, val_scenes, *others):
        given.update(network=network, counts=(len(train_scenes), len(val_scenes)))
        given.update(datasets=(train_scenes.dataset, val_scenes.dataset))
        names = ("recipe", "folder", "precision", "class_weights")
        given.update(zip(names, others, strict=True))
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "train", record)
    # Those of the recipe are fields of the stage itself: one of them is enough.
    line = "--size 64x32 --scenes 3 --val-scenes 1 --backbone resnet18 --head unet --epochs 7"
    line += " --dataset streets+toy --val-dataset streets --freeze-backbone --balance 0.5"
    line += " --ignore-unlabeled --precision bf16"
    line += f" --cache {tmp_path / 'cache'} --out {tmp_path / 'out'}"
    with pytest.raises(KeyboardInterrupt):
        stages.main(line.split())
    network, weights = given.pop("network"), given.pop("class_weights")
    assert network.settings["head"] == "unet" and network.is_frozen
    assert weights[0] == 0 and weights[7] < weights[17], "road is common, poles are rare"
    assert given.pop("recipe").epochs == 7
    assert given.pop("datasets") == ("streets+toy", "streets")
    assert given == {"counts": (3, 1), "folder": tmp_path / "out", "precision": "bf16"}


def test_the_segmentation_command(tmp_path, capsys):
    def run(line):
        line += " --size 64x32 --backbone efficientnet_lite0 --freeze-backbone --epochs 1"
        line += " --batch-size 2 --cache"
        stages.main([*line.split(), str(tmp_path / "cache")])

    run(f"--out {tmp_path / 'one'} --finest-stride 32 --learning-rate 0")
    start = tmp_path / "one" / "segmentation.safetensors"
    assert f"wrote {start}" in capsys.readouterr().out
    network, history = load_segmentation(start)
    assert network.settings["finest_stride"] == 32 and len(history["val_miou"]) == 1
    (recipe,) = load_weights(start)[1]["recipe"]
    assert recipe["learning_rate"] == 0 and recipe["size"] == [64, 32]
    run(f"--out {tmp_path / 'two'} --start {start} --scenes 2 --learning-rate 0")
    other, joined = load_segmentation(tmp_path / "two" / "segmentation.safetensors")
    assert other.settings == network.settings  # which come with the weights
    weights = [x.head.scores[0].weight for x in (other, network)]
    torch.testing.assert_close(*weights, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="has finest_stride 32: leave --finest-stride 2 out"):
        run(f"--out {tmp_path / 'no'} --start {start} --finest-stride 2")
    assert joined["scenes"] == ["toy 64x32"] * 2  # what the start went through comes first
    assert joined["train_loss"][0] == history["train_loss"][0] != joined["train_loss"][1]
    run(f"--out {tmp_path / 'three'} --start {start} --head unet --learning-rate 0")
    unet, own = load_segmentation(tmp_path / "three" / "segmentation.safetensors")
    assert unet.settings["head"] == "unet" and len(own["val_miou"]) == 1  # a history of its own
    weights = [x.encoder.model.conv_stem.weight for x in (unet, network)]
    torch.testing.assert_close(*weights, atol=1e-5, rtol=0)
    run(f"--out {tmp_path / 'four'} --start {start} --learning-rate 0 --statistics 4")
    fresh, _ = load_segmentation(tmp_path / "four" / "segmentation.safetensors")
    image_u8, _ = scenes.open_scenes("toy", "train", size=(64, 32)).batch(range(4))
    seen = u8_to_imagenet(image_u8, network.backbone.mean, network.backbone.std)
    mean = fresh.encoder.model.conv_stem(seen).mean((0, 2, 3))
    torch.testing.assert_close(fresh.encoder.model.bn1.running_mean, mean, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(network.encoder.model.bn1.running_mean, mean, atol=1e-2)


# ------------------------------------------------------------------------------ SPADE


def test_every_option_of_the_spade_command_arrives(segmenter, tmp_path, monkeypatch):
    save_segmentation(segmenter, tmp_path / "s.safetensors")
    given = {}

    def record(*arguments, **options):
        names = "generator discriminator scenes recipe encoder perceptual classifier folder"
        names += " precision"
        given.update(zip(names.split(), arguments, strict=True), **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(spade_stages, "train_spade", record)
    line = "--size 128x64 --scenes 3 --ngf 2 --hidden 4 --max-channels 8 --z-dim 5 --ndf 3"
    line += " --upsampling normal --encoder-ngf 2 --pictures 9 --style-weight 6 --texture-weight 7"
    line += f" --precision bf16 --perceptual {tmp_path / 's.safetensors'}"
    line += f" --cache {tmp_path / 'cache'} --out {tmp_path / 'out'} "
    for option in ("--grain", "--styled-layers"):
        with pytest.raises(KeyboardInterrupt):
            spade_stages.main((line + option).split())
        settings = given["generator"].settings
        assert settings["grain"] == (option == "--grain") != settings["styled_layers"]
    expected = {"ngf": 2, "hidden": 4, "max_channels": 8, "z_dim": 5, "upsampling": "normal"}
    assert settings | expected == settings and settings["size"] == (128, 64)
    assert given["encoder"].settings == {"ngf": 2, "z_dim": 5}
    assert given["discriminator"].discriminator_0.model0[0].out_channels == 3
    assert len(given["scenes"]) == 3 and given["precision"] == "bf16"
    assert given["perceptual"].texture == 7 and given["folder"] == tmp_path / "out"
    assert given["classifier"] is not None
    assert (given["recipe"].pictures, given["recipe"].style_weight) == (9, 6)


def test_the_spade_command(segmenter, tmp_path, capsys):
    save_segmentation(segmenter, tmp_path / "segmentation.safetensors")

    def run(*arguments):
        line = "--ngf 2 --ndf 2 --hidden 4 --z-dim 4 --encoder-ngf 2"
        line += f" --cache {tmp_path / 'cache'} --batch-size 2"
        spade_stages.main([*line.split(), *map(str, arguments)])

    first = ("--size", "64x64", "--upsampling", "normal", "--pictures", 2)
    perceptual = ("--perceptual", tmp_path / "segmentation.safetensors", "--texture-weight", 2)
    run(*first, "--out", tmp_path / "one", *perceptual)
    assert "perceptual" in capsys.readouterr().out
    one = spade.load_generator(tmp_path / "one" / "generator.safetensors")
    assert one.size == (64, 64) and one.settings["hidden"] == 4 and one.styles
    assert spade.load_encoder(tmp_path / "one" / "encoder.safetensors").settings["z_dim"] == 4
    # It goes on at twice the size; nothing is learnt at a rate of 0, so the weights are the same.
    start = tmp_path / "one" / "last.pt"
    still = ("--learning-rate", 0, "--pictures", 2)
    run("--size", "128x128", "--out", tmp_path / "two", "--start", start, *still)
    two = spade.load_generator(tmp_path / "two" / "generator.safetensors")
    assert two.size == (128, 128) and two.upsampling == "more"
    current = torch.load(start, weights_only=True)["network"]
    assert torch.equal(two.conv_img.bias, current["generator.conv_img.bias"])
    with pytest.raises(ValueError, match="start_share is 0.5, but the stage starts from random"):
        run(*first, "--out", tmp_path / "no", "--start-share", 0.5)
    biases = []
    for share in (0, 0.5, 1):
        out = tmp_path / f"share {share}"
        run(*first, "--start", start, "--learning-rate", 0.1, "--start-share", share, "--out", out)
        biases.append(spade.load_generator(out / "generator.safetensors").fc.bias)
    torch.testing.assert_close(biases[2], one.fc.bias)
    assert (biases[0] - biases[2]).abs().max() > 0.01
    torch.testing.assert_close(biases[1], (biases[0] + biases[2]) / 2, atol=1e-3, rtol=0)
    run(*first, "--out", tmp_path / "three", "--z-dim", 0)
    assert sorted(x.name for x in (tmp_path / "three").iterdir())[0] == "generator.safetensors"


# ------------------------------------------------------------------------------ recipes


RECIPE = """
scenes = 4
ngf = 2
hidden = 4
z_dim = 4
encoder_ngf = 2
ndf = 2
batch_size = 2
save_every = 4

[[stages]]
name = "half"
size = "64x32"
upsampling = "normal"
style_weight = 1
head_start = 8
pictures = 12

[[stages]]
size = "128x64"
grain = true
pictures = 8
"""


def train_a_recipe(folder):
    torch.set_num_threads(1)
    scenes.TOY_COUNTS = TOY_COUNTS
    recipe, cache = folder.parent / "recipe.toml", folder.parent / "cache"
    spade_stages.main(["--recipe", str(recipe), "--cache", str(cache), "--out", str(folder)])


def test_a_recipe_killed_at_random_moments_ends_with_the_same_bits(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    whole, others = killed_and_resumed(train_a_recipe, tmp_path)
    pairs = itertools.product(("half/", ""), ("generator", "encoder"))
    names = [f"{folder}{name}.safetensors" for folder, name in pairs]
    expected = [(whole / name).read_bytes() for name in names]
    for folder in others:
        assert [(folder / name).read_bytes() for name in names] == expected
        assert (folder / "generator.toml").read_text() == RECIPE
    generator = spade.load_generator(whole / "generator.safetensors")
    assert [stage["name"] for stage in generator.recipe] == ["half", "2"]
    assert generator.recipe[0]["head_start"] == 8 and generator.recipe[1]["size"] == [128, 64]
    assert load_weights(whole / "encoder.safetensors")[1]["recipe"] == generator.recipe


def one_of_two(rank, port, commands, folder):
    """What each of two processes does that share a training, started as by Accelerate."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in numbers.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # about modules that are imported already
    scenes.TOY_COUNTS = TOY_COUNTS
    with open(folder / f"printed{rank}", "w") as file, contextlib.redirect_stdout(file):
        for module, line in commands.items():
            sys.argv = [module, *line, "--out", str(folder / "two" / module)]
            with pytest.raises(SystemExit, match="^0$"):
                runpy.run_module(module, run_name="__main__")


def test_two_processes_train_what_one_does(tmp_path, capsys):
    short = RECIPE.replace("pictures = 12", "pictures = 8").replace("pictures = 8", "pictures = 4")
    (tmp_path / "recipe.toml").write_text("learning_rate = 1e-4\n" + short)
    line = "--size 64x32 --backbone resnet18 --epochs 2 --batch-size 4 --scale 0.5 --learning-rate"
    cache = ["1e-3", "--cache", str(tmp_path / "cache")]
    recipe = ["--recipe", str(tmp_path / "recipe.toml")]
    commands = {"spade.training": recipe + cache[1:], "utils.training": line.split() + cache}
    for module, main in (("spade.training", spade_stages.main), ("utils.training", stages.main)):
        main([*commands[module], "--out", str(tmp_path / "one" / module)])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        given = free.getsockname()[1], commands, tmp_path
    processes = [SERVER.Process(target=one_of_two, args=(rank, *given)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    printed = "".join((tmp_path / f"printed{rank}").read_text() for rank in (0, 1))
    assert printed.count("epoch 1:") == printed.count("is finished: ") == 1  # not once a process
    assert printed.count("wrote ") == 3
    one, two = (
        load_segmentation(tmp_path / x / "utils.training" / "segmentation.safetensors")[1]
        for x in ("one", "two")
    )
    for key in ("train_loss", "val_loss", "val_miou", "val_accuracy"):
        assert two[key] == pytest.approx(one[key], abs=1e-3), key
    # The gradients of some biases are rounding errors, of which Adam makes whole steps: the two
    # trainings slowly drift apart.
    for folder, tolerance in (("half", 1e-3), (".", 0.02)):
        one, two = (
            spade.load_generator(tmp_path / x / "spade.training" / folder / "generator.safetensors")
            for x in ("one", "two")
        )
        assert list(one.history) == list(two.history) and list(one.styles) == list(two.styles)
        for name, values in one.history.items():
            expected = pytest.approx(values, rel=tolerance, abs=5e-3)
            assert two.history[name] == expected, (folder, name)
    assert two.size == (128, 64) and len(two.history["matching"]) == 2
    capsys.readouterr()
    spade_stages.main([*recipe, "--out", str(tmp_path / "two" / "spade.training")])
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'recipe.toml'} is finished: ")


@pytest.mark.parametrize(
    ("kind", "line", "message"),
    [
        (stages.Stage, "epochs = 0", "epochs is 0: expected 1 or more"),
        (stages.Stage, "val_scenes = 0", "val_scenes is 0: expected 1 or more"),
        (stages.Stage, "crop = [1, 2]", r"crop is \[1, 2\]: expected WIDTHxHEIGHT in quotes"),
        (stages.Stage, 'crop = "48x128"', "crop is 48x128: expected 64 or more"),
        (stages.Stage, "balance = nan", "balance is nan: expected 0 or more"),
        (stages.Stage, "backbone_rate = -1", "backbone_rate is -1.0: expected 0 or more"),
        (stages.Stage, "half_size = 2", "half_size is 2.0: expected 1 or less"),
        (stages.Stage, 'val_dataset = "camvid+"', r"is .camvid\+.: expected .*several joined by"),
        (spade_stages.Stage, "pictures = 4", "pictures is 4: expected at least a batch, 8"),
        (spade_stages.Stage, "save_every = 0", "save_every is 0: expected 1 or more"),
        (spade_stages.Stage, "scenes = -5", "scenes is -5: expected 1 or more"),
    ],
)
def test_what_a_stage_cannot_be(kind, line, message, tmp_path):
    (tmp_path / "recipe.toml").write_text(line)
    with pytest.raises(ValueError, match=message):
        read_recipe(tmp_path / "recipe.toml", kind)


def test_stages_whose_networks_differ_are_refused(tmp_path):
    out = tmp_path / "out"

    def refused(main, text):
        (tmp_path / "recipe.toml").write_text(text)
        with pytest.raises(ValueError) as raised:
            main(["--recipe", str(tmp_path / "recipe.toml"), "--out", str(out)])
        assert not out.exists()
        return str(raised.value)

    message = refused(spade_stages.main, RECIPE + "ngf = 3")
    assert 'stage "2" can\'t start from stage "half": the networks differ, with ngf 2' in message
    assert "ngf 3" in message
    message = refused(spade_stages.main, RECIPE + "ndf = 3")
    assert "ndf 2" in message and "ndf 3" in message
    # A discriminator of another width is none of what a generator's file holds.
    weights = 'start = ["half/generator.safetensors", "half/encoder.safetensors"]'
    message = refused(spade_stages.main, RECIPE + f"ndf = 3\nhidden = 5\n{weights}")
    assert "hidden 4" in message
    two = "[[stages]]\n[[stages]]\nname = 'b'\nbackbone = 'resnet50'"
    message = refused(stages.main, "backbone = 'resnet18'\n" + two)
    assert 'stage "b" can\'t start from stage "1": backbone is resnet18 there and resn' in message
    assert "backbone is resnet34 there and resnet50" in refused(stages.main, two)
