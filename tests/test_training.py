"""The training loop: it learns, it can be interrupted, and it leaves things as it found them."""

import copy
import functools
import math
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from examples import equal
from killed import killed_and_resumed

from utils import training
from utils.cache import cached
from utils.engine import make_accelerator
from utils.engine import precision as modes
from utils.engine.rates import set_rate, shares_of_rate
from utils.engine.run import LossLog, Run
from utils.labels import ID
from utils.meanings import as_named_by, kinds_to_learn, meanings_checksum, possible_labels
from utils.overlap import overlap_loss
from utils.scenes import open_scenes
from utils.segmentation import SegmentationNet, load_segmentation
from utils.training import (
    HISTORY_KEYS,
    Recipe,
    balanced_weights,
    epoch_batches,
    epoch_steps,
    evaluate,
    pixel_loss,
    segmentation_step,
    train,
    training_batch,
)


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    """Six toy streets, drawn once."""
    return six_streets(tmp_path_factory.mktemp("cache"))


def six_streets(folder):
    return cached(open_scenes("toy", "train", size=(64, 32))[:6], folder)


def with_pixels(scenes, image_u8, label_ids):
    """The first scenes, as many as there are pixels, with these in place of their own."""
    others = scenes[: len(label_ids)]
    others.batch = lambda indices: tuple(x[torch.as_tensor(indices)] for x in (image_u8, label_ids))
    return others


@functools.cache
def made_once(seed, backbone, head):
    torch.manual_seed(seed)
    return SegmentationNet(backbone, head)


def a_network(seed=0, backbone="resnet18", head="fcn"):
    return copy.deepcopy(made_once(seed, backbone, head))


def a_small_network(seed=0):
    """One whose checkpoints are a quarter as large, for trainings that write many of them."""
    return a_network(seed, "efficientnet_lite0")


def trained(
    network, train_scenes, val_scenes, folder=None, precision="fp32", class_weights=None, **options
):
    """train() with the recipe's options by name."""
    recipe = Recipe(**options)
    return train(network, train_scenes, val_scenes, recipe, folder, precision, class_weights)


Process = namedtuple("Process", "process_index num_processes device")
ALONE = Process(0, 1, torch.device("cpu"))
ONE = {"epochs": 1, "batch_size": 2}  # a short training, and one that learns more
TWO = {"epochs": 2, "batch_size": 2, "learning_rate": 1e-3}


# ------------------------------------------------------------------------------ batches


def test_batches_by_hand():
    batches = epoch_batches(count=7, batch_size=3, seed=0, epoch=0)
    assert [len(batch) for batch in batches] == [3, 3]
    assert len(set(torch.cat(batches).tolist())) == 6  # each scene once, one left over
    assert set(torch.cat(batches).tolist()) < set(range(7))
    torch.manual_seed(99)
    again = epoch_batches(7, 3, 0, 0)
    assert equal(batches, again)
    orders = [torch.cat(epoch_batches(20, 20, *x)).tolist() for x in [(0, 0), (0, 1), (1, 0)]]
    assert orders[0] != orders[1] != orders[2] != orders[0], "of another seed or epoch"
    with pytest.raises(ValueError, match="There are 3 scenes, fewer than a batch of 4: take more"):
        epoch_batches(3, 4, 0, 0)


# ------------------------------------------------------------------------------ learning


def test_four_scenes_are_learnt_by_heart(streets):
    four = streets[:4]
    network = a_network()
    before, untrained = evaluate(network, four)
    history = trained(network, four, four[:1], epochs=10, batch_size=4, learning_rate=1e-3)
    after, result = evaluate(network, four)
    assert 2 < history["train_loss"][0] < 6  # about log(34), that of a blind guess
    assert history["train_loss"][-1] < 0.4 * history["train_loss"][0]
    assert after < 0.5 * before and result.accuracy > untrained.accuracy + 0.3


def test_the_history(streets, capsys):
    network = a_network()
    history = trained(network, streets[:2], streets, epochs=2, batch_size=2)
    assert tuple(history) == HISTORY_KEYS
    assert all(len(figures) == 2 for figures in history.values())
    assert history["scenes"] == ["toy 64x32"] * 2
    assert all(isinstance(x, float) for key in HISTORY_KEYS[1:] for x in history[key])
    assert min(history["seconds"]) > 0 and 0 <= history["val_miou"][1] <= 1
    loss, result = evaluate(network, streets, batch_size=2)
    assert history["val_loss"][1] == pytest.approx(loss, rel=1e-4)
    assert history["val_accuracy"][1] == pytest.approx(result.accuracy, abs=0.01)
    assert capsys.readouterr().out.count("mIoU") == 2


def test_maps_are_mirrored_with_their_photos(streets, monkeypatch):
    """Photos that are their own maps: the loss would see it if only one of both were mirrored."""

    class Reader(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(50.0))

        def forward(self, image_u8):
            one_hot = torch.nn.functional.one_hot(image_u8[:, 0].long(), 34)
            return self.scale * one_hot.movedim(-1, 1).float()

    label_ids = streets.batch(range(4))[1]
    four = with_pixels(streets, label_ids[:, None].repeat(1, 3, 1, 1), label_ids)
    reader, accelerator = Reader(), make_accelerator()
    optimizer = torch.optim.SGD(reader.parameters(), lr=0.0)
    log = LossLog(accelerator, Run(None, {}))
    for seed in range(4):
        for _, *batch in epoch_steps(four, Recipe(batch_size=2, seed=seed), 0, accelerator, log):
            loss = segmentation_step(reader, optimizer, accelerator, None, *batch)
            assert loss.item() == pytest.approx(0, abs=1e-6)


# ------------------------------------------------------------------------------ evaluation


def test_evaluation_restores_modes_and_changes_nothing(streets):
    network = a_network().train()
    network.encoder.bn1.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    loss, result = evaluate(network, streets, batch_size=4)  # an odd batch at the end
    assert network.training and network.head.training and not network.encoder.bn1.training
    assert equal(before, network.state_dict())
    in_one, same = evaluate(network, streets)
    assert loss == pytest.approx(in_one, rel=1e-4)
    assert result.accuracy == pytest.approx(same.accuracy, abs=0.01)


# ------------------------------------------------------------------------------ loss and batches


def test_pixel_loss_by_hand():
    scores = torch.zeros(1, 34, 1, 2)
    scores[0, 7, 0, 0] = math.log(67)  # the first pixel: 67 against 33 times 1
    label_ids = torch.tensor([[[7, 26]]])
    first, second = math.log(100 / 67), math.log(34)
    assert pixel_loss(scores, label_ids).item() == pytest.approx((first + second) / 2)
    weights = torch.ones(34)
    weights[7], weights[26] = 3, 0  # divided by the pixels all the same
    loss = pixel_loss(scores.bfloat16(), label_ids, weights).item()
    assert loss == pytest.approx(3 * first / 2, abs=0.01)


def test_loss_of_what_a_label_may_mean():
    """CamVid's car may be a truck, and the probability of both is what counts."""
    scores = torch.zeros(2, 34, 1, 3)
    scores[:, ID["truck"], 0, 0] = math.log(67)
    label_ids = torch.tensor([[[ID["car"], ID["sky"], ID["unlabeled"]]]] * 2)
    possible = possible_labels(["camvid", "exact"], torch.device("cpu"))
    weights = torch.ones(34)
    weights[0] = 0
    loss = pixel_loss(scores, label_ids, weights, possible).item()
    camvid = math.log(100 / (67 + 2)) + math.log(34)  # car, truck or bus
    exact = math.log(100) + math.log(34)
    assert loss == pytest.approx((camvid + exact) / 6)
    exact_only = possible[1:].expand(2, 34, 34)
    plain, same = pixel_loss(scores, label_ids), pixel_loss(scores, label_ids, possible=exact_only)
    assert plain.item() == pytest.approx(same.item())
    assert possible_labels(["exact", "exact"], torch.device("cpu")) is None


def test_overlap_by_hand():
    """Road is seen in all 5 pixels, 4 of which are road; of two car pixels one is seen."""
    seen = torch.tensor([[[7, 7, 7, 7], [26, 7, 7, 7]]])
    label_ids = torch.tensor([[[7, 7, 7, 7], [26, 26, 0, 0]]])
    scores = 40.0 * F.one_hot(seen, 34).movedim(-1, 1)
    loss = overlap_loss(scores, label_ids).item()
    assert loss == pytest.approx(1 - (4 / 5 + 1 / 2) / 2, abs=1e-4), "unlabeled pixels don't count"
    trucks = torch.where(seen == 26, ID["truck"], seen)
    scores = 40.0 * F.one_hot(trucks, 34).movedim(-1, 1)
    camvid = possible_labels(["camvid"], torch.device("cpu"))
    assert overlap_loss(scores, label_ids, camvid).item() == pytest.approx(loss, abs=1e-4)
    assert overlap_loss(scores, label_ids).item() > loss + 0.2


def test_the_overlap_is_a_part_of_the_loss(streets):
    two, still = streets[:2], ONE | {"learning_rate": 0}
    without, added = (
        trained(a_network(), two, two, **still, overlap=overlap)["train_loss"][0]
        for overlap in (0, 2)
    )
    assert 0 < added - without <= 2


def test_without_an_exact_map_every_label_means_itself():
    """Nothing would tell CamVid's walls from its buildings, if no map did."""
    assert kinds_to_learn(["camvid", "camvid"]) == () == kinds_to_learn(["exact"])
    assert kinds_to_learn(["camvid", "exact"]) == ["camvid", "exact"]
    checksums = [
        meanings_checksum(x) for x in (["camvid"], ["camvid", "exact"], ["network", "exact"])
    ]
    assert checksums[0] is None and len(set(checksums)) == 3


def test_scored_in_the_words_of_the_map(streets):
    """What CamVid calls a car is one, be it predicted as a truck; in an exact map it is wrong."""
    network, truck = a_network(), ID["truck"]
    label_ids = torch.full((2, 32, 64), ID["car"], dtype=torch.uint8)
    scenes = with_pixels(streets, streets.batch(range(2))[0], label_ids)
    scores = F.one_hot(torch.full((2, 32, 64), truck), 34).movedim(-1, 1).float()
    network.forward = lambda image_u8: scores
    for kind, accuracy in (("camvid", 1), ("exact", 0)):
        scenes.map_kinds = lambda indices, kind=kind: [kind] * len(indices)
        assert evaluate(network, scenes)[1].accuracy == accuracy
    words = as_named_by(["camvid", "network"], torch.tensor([[[truck, ID["wall"]]]] * 2))
    assert words.tolist() == [[[ID["car"], ID["building"]]], [[truck, ID["wall"]]]]


def test_each_part_learns_at_its_share_of_the_rate():
    network = a_network()
    for backbone, rates in ((0.25, [0.125, 0.5]), (1, [0.5])):
        optimizer = torch.optim.Adam(shares_of_rate(network, backbone))
        set_rate(optimizer, 0.5)
        assert [group["lr"] for group in optimizer.param_groups] == rates
        counts = [sum(x.numel() for x in group["params"]) for group in optimizer.param_groups]
        assert sum(counts) == sum(x.numel() for x in network.parameters()) and min(counts) > 0


def test_a_backbone_at_rate_zero_stays(streets):
    network = a_network()
    before = network.encoder.conv1.weight.clone()
    head = network.head.scores[0].weight.clone()
    trained(network, streets[:4], streets[:2], epochs=1, batch_size=4, backbone_rate=0)
    assert torch.equal(network.encoder.conv1.weight, before)
    assert not torch.equal(network.head.scores[0].weight, head)


def test_crops_have_a_size_of_their_own(streets):
    recipe = Recipe(crop=(64, 96), scale=0.5)
    image_u8, label_ids = training_batch(streets, torch.arange(2), ALONE, recipe, 0)
    assert image_u8.shape == (2, 3, 96, 64) and label_ids.shape == (2, 96, 64)


def test_balanced_weights(streets):
    label_ids = torch.full((2, 4, 4), 7, dtype=torch.uint8)
    label_ids[0, 0, :2] = 26  # 2 of 32
    streets = with_pixels(streets, label_ids, label_ids)
    weights = balanced_weights(streets)
    assert weights.shape == (34,) and weights.dtype == torch.float32
    car, road = 1 / math.log(1.02 + 1 / 16), 1 / math.log(1.02 + 15 / 16)
    assert (weights[26] / weights[7]).item() == pytest.approx(car / road, rel=1e-5)
    assert weights[label_ids.long()].mean().item() == pytest.approx(1)
    assert weights[13] > weights[26] > weights[7]
    roots = balanced_weights(streets, 0.5)
    assert (roots[26] / roots[7]).item() == pytest.approx((car / road) ** 0.5, rel=1e-5)


def test_a_part_of_a_batch_is_what_it_is_in_the_whole(streets):
    """However many processes share a batch, each scene is changed in the same way."""
    recipe = Recipe(scale=0.5, color=0.2, half_size=0.5)
    two = [Process(number, 2, torch.device("cpu")) for number in range(2)]
    for seed in range(4):
        whole, first, second = (
            training_batch(streets, torch.arange(6), process, recipe, seed)
            for process in (ALONE, *two)
        )
        for part, expected in ((first, 0), (second, 1)):
            assert torch.equal(part[0], whole[0][expected::2])
            assert torch.equal(part[1], whole[1][expected::2])


def test_half_size_batches(streets):
    recipe, shapes = Recipe(half_size=0.5), []
    for seed in range(40):
        image_u8, label_ids = training_batch(streets, torch.arange(2), ALONE, recipe, seed)
        assert image_u8.shape[-2:] == label_ids.shape[-2:] and image_u8.dtype == torch.uint8
        shapes.append(tuple(label_ids.shape[-2:]))
    assert set(shapes) == {(32, 64), (16, 32)} and 10 < shapes.count((16, 32)) < 30


@pytest.mark.parametrize("settings", [{"precision": "bf16"}, {"schedule": "cosine"}])
def test_options_are_used_and_leave_nothing_behind(streets, settings):
    plain, other = a_network(), a_network()
    few = {"epochs": 2, "batch_size": 3}
    expected = trained(plain, streets, streets[:2], **few)
    history = trained(other, streets, streets[:2], **few, **settings)
    assert history["train_loss"] == pytest.approx(expected["train_loss"], rel=0.05)
    assert history["train_loss"] != expected["train_loss"]
    assert other.head.scores[0].weight.dtype == torch.float32
    with torch.no_grad():  # forward() computes in float32 again
        scores = other.eval()(streets.batch([0])[0])
    assert not torch.equal(scores, scores.bfloat16().float())


def test_a_frozen_backbone_keeps_its_bits_and_the_head_learns(streets):
    network = a_network()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.freeze_backbone()
    trained(network, streets, streets[:2], epochs=1, batch_size=3, learning_rate=1e-2)
    same = {key: torch.equal(value, before[key]) for key, value in network.state_dict().items()}
    backbone = {key for key in same if key.startswith("encoder.")}
    assert {key for key in same if same[key]} == backbone
    assert network.head.training and not network.encoder.training  # its statistics would move


@pytest.mark.parametrize(
    "facts, capability, count",
    [
        ("model : 1\nflags\t: fpu avx512f avx512_vnni\n", "AVX512", 1),
        ("flags\t: fpu avx512f avx512_bf16\n", "AVX512", 0),
        (None, "AVX2", 1),  # no Linux
        (None, "AVX512", 0),
        ("Features : asimd bf16\n", "DEFAULT", 0),  # an ARM
    ],
)
def test_emulated_bfloat16_is_told(facts, capability, count, monkeypatch, recwarn, tmp_path):
    if facts is not None:
        (tmp_path / "cpuinfo").write_text(facts)
    monkeypatch.setattr(modes, "Path", lambda path: tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    make_accelerator("fp32")
    assert not recwarn
    make_accelerator("bf16")
    assert ["no bfloat16 instructions" in str(x.message) for x in recwarn] == [True] * count


@pytest.mark.parametrize(
    "is_there, is_new, precision",
    [(False, False, "fp32"), (True, True, "bf16"), (True, False, "fp16")],
)
def test_an_old_gpu_trains_in_float16(is_there, is_new, precision, monkeypatch, recwarn):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    # Asked without more, torch says yes for a T4, too, which emulates.
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or is_new,
    )
    assert modes.precision_of_gpu() == precision
    if is_there:
        modes.warn_of_emulation("bf16", torch.device("cuda"))
        assert ['"fp16" is faster' in str(x.message) for x in recwarn] == [True] * (not is_new)


def test_class_weights_and_half_sizes_reach_the_training(streets):
    plain, weighted = (
        trained(a_network(), streets, streets[:2], **ONE, class_weights=weights)["train_loss"]
        for weights in (None, torch.eye(34)[7])
    )
    assert weighted[0] < 0.9 * plain[0], "all pixels count, but only the road's cost anything"
    with pytest.raises(ValueError, match=r"shape \(2, 3, 16, 32\)"):
        trained(a_network(), streets, streets[:2], **ONE, half_size=1.0)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"precision": "fp16"}, '"fp16" needs a GPU, and this is the cpu: take "fp32", or'),
        ({"precision": "half"}, "precision is 'half': expected fp32, bf16, fp16"),
        ({"schedule": "step"}, "schedule is 'step': expected one of constant, cosine"),
    ],
)
def test_options_that_are_refused(streets, options, message):
    with pytest.raises(ValueError, match=message):
        trained(a_network(), streets, streets, **options)


# ------------------------------------------------------------------------------ interruption


def test_interrupted_and_resumed_equals_uninterrupted(streets, tmp_path, monkeypatch):
    whole = a_small_network()
    expected = trained(whole, streets[:4], streets[:2], **TWO)

    first, calls = a_small_network(), []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:  # in the second epoch, after its training
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(training, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(first, streets[:4], streets[:2], folder=tmp_path / "run", **TWO)
    monkeypatch.setattr(training, "evaluate", evaluate)
    kept = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert kept == ["best.safetensors", "last.pt"]

    resumed = a_small_network(seed=1)  # its own weights do not matter
    history = trained(resumed, streets[:4], streets[:2], folder=tmp_path / "run", **TWO)
    for key in HISTORY_KEYS[:-1]:  # all but the seconds
        assert history[key] == expected[key], key
    assert equal(resumed.state_dict(), whole.state_dict())

    # A run that is complete has nothing left to do.
    again = a_small_network(seed=2)
    assert trained(again, streets[:4], streets, folder=tmp_path / "run", **TWO) == history
    assert equal(again.state_dict(), whole.state_dict())


def test_an_interrupted_network_computes_in_float32_again(streets, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "evaluate", interrupted)
    network = a_network()
    with pytest.raises(KeyboardInterrupt):
        trained(network, streets[:2], streets[:2], **ONE | {"precision": "bf16"})
    same = a_network()
    same.load_state_dict(network.state_dict())
    image_u8 = streets.batch([0])[0]
    with torch.no_grad():
        scores = network.eval()(image_u8), same.eval()(image_u8)  # in two layouts
    torch.testing.assert_close(*scores, atol=1e-4, rtol=1e-4)


def train_in(folder):
    torch.set_num_threads(1)
    streets = six_streets(folder.parent / "cache")
    trained(a_small_network(), streets[:4], streets[:2], folder=folder, **TWO)


def the_end(folder):
    """All that the checkpoint holds but the seconds."""
    state = torch.load(folder / "last.pt", weights_only=True)
    state["record"].pop("seconds")
    return state


def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path):
    whole, others = killed_and_resumed(train_in, tmp_path)
    expected = the_end(whole)
    best, _ = load_segmentation(whole / "best.safetensors")
    for folder in others:
        assert equal(the_end(folder), expected)
        names = {path.name for path in folder.iterdir() if not path.name.endswith(".part")}
        assert names == {"best.safetensors", "last.pt"}
        kept, _ = load_segmentation(folder / "best.safetensors")
        assert equal(kept.state_dict(), best.state_dict())


def test_the_best_network_is_kept(streets, tmp_path, monkeypatch):
    scores = iter([0.2, 0.6, 0.4])

    def rated(*arguments):
        loss, result = evaluate(*arguments)
        return loss, type(result)(next(scores), result.accuracy, 0.0, {})

    monkeypatch.setattr(training, "evaluate", rated)
    three = TWO | {"epochs": 3}
    trained(a_small_network(), streets[:2], streets[:2], folder=tmp_path, **three)
    _, history = load_segmentation(tmp_path / "best.safetensors")
    assert history["val_miou"] == [0.2, 0.6]


def test_a_loss_that_is_no_number(streets, tmp_path, monkeypatch):
    calls = []

    def diverging(*arguments):
        calls.append(1)
        return pixel_loss(*arguments) * (math.nan if len(calls) == 4 else 1)  # 2 steps an epoch

    monkeypatch.setattr(training, "pixel_loss", diverging)
    result = training.SegmentationResult(0.5, 0.5, 0.5, {})
    monkeypatch.setattr(training, "evaluate", lambda *_: (1.0, result))
    message = r"training loss is nan in step 2 of epoch 2: .*last\.pt holds the last good check"
    with pytest.raises(FloatingPointError, match=message):
        trained(a_small_network(), streets[:4], streets[:2], folder=tmp_path, **TWO)
    assert len(the_end(tmp_path)["record"]["train_loss"]) == 1


def test_the_checkpoint_of_another_training(streets, tmp_path):
    lite, arguments = {"backbone": "efficientnet_lite0"}, ONE | {"folder": tmp_path}
    two = streets[:2]
    trained(a_small_network(), two, two, **arguments)
    before = (tmp_path / "last.pt").read_bytes()
    for network, options, was, now in (
        ({"backbone": "resnet18"}, {}, "backbone efficientnet_lite0", "backbone resnet18"),
        ({"head": "unet"}, {}, "head fcn", "head unet"),
        ({}, {"seed": 1}, "seed 0", "seed 1"),
        ({}, {"scale": 0.5}, "augmentation None", r"a.* flip 0.5, scale 0.5\.\.1, color 0"),
        ({}, {"class_weights": torch.ones(34)}, "class_weights None", r"c.* with checksum \w{8}"),
    ):
        message = rf"last\.pt is .* another training, with {was}; this one has {now}: delete"
        with pytest.raises(ValueError, match=message):
            trained(a_network(**lite | network), two, two, **options, **arguments)
    assert (tmp_path / "last.pt").read_bytes() == before
    # With a constant rate, more epochs only go on.
    history = trained(a_small_network(), two, two, **arguments | {"epochs": 2})
    assert len(history["val_loss"]) == 2
