"""What lies where, with a GPU: the pipeline and both trainings on a pretended one.

And that a training step in CUDA graphs is the ordinary one: on a GPU, and with pretended graphs."""

import copy
import functools
import gc
import weakref
from pathlib import Path

import pretended_graph
import pytest
import torch
import torch.utils.backend_registration as registration
from killed import run_in_process
from networks import a_pipeline
from torch import nn

import spade
from spade import load_generator
from spade.perceptual import PerceptualLoss
from spade.semantics import label_codes
from spade.styles import StyleClassifier, named_styles, style_labels
from spade.training import Recipe, train_spade
from utils import training
from utils.augmentation import Augmentation
from utils.cache import cached
from utils.engine import graphs, precision_of_gpu
from utils.images import save_image
from utils.painter.painting import draw_street, remove_class
from utils.photo_folder import run_folder
from utils.pipeline import Pipeline, load_pipeline
from utils.scenes import open_scenes
from utils.segmentation import SegmentationNet
from utils.training import balanced_weights, train
from utils.weights import find_weights

# (precision, is it on a GPU?)
ON_GPU = [pytest.param(x, True, marks=pytest.mark.gpu) for x in ("fp32", "bf16", "fp16")]
PRECISIONS = [("fp32", False), ("bf16", False), *ON_GPU]
# With the data set.  Of streets, labels may mean several classes.
TRAININGS = [("fp32", False, "toy"), ("bf16", False, "streets")]
TRAININGS += [
    pytest.param(*x.values, dataset, marks=x.marks)
    for x in ON_GPU
    for dataset in ("toy", "streets")
]


def test_a_training_that_is_over_holds_nothing(tmp_path, monkeypatch):
    """On a GPU that would be the memory of its graphs, until Python happens to look for it."""
    pretended_graph.install(monkeypatch)
    scenes = cached(open_scenes("toy", "train", size=(64, 64))[:4], tmp_path)
    segmenter = SegmentationNet("resnet18")
    generator = spade.SpadeGenerator(2, "normal", 3, (64, 64), 4)
    judge, encoder = spade.MultiscaleDiscriminator(ndf=2), spade.Encoder(ngf=2, z_dim=3)
    gc.collect()
    gc.disable()
    try:
        train(segmenter, scenes, scenes[:2], training.Recipe(epochs=3, batch_size=2))
        recipe = Recipe(pictures=12, batch_size=2, style_weight=1, head_start=12)
        classifier = StyleClassifier(style_labels(scenes)[0], z_dim=3)
        train_spade(generator, judge, scenes, recipe, encoder, classifier=classifier)
        assert pretended_graph.PretendedGraph.made > 4
        kinds = graphs.GraphedCallable, graphs._Capture, pretended_graph.PretendedGraph
        assert not [x for x in gc.get_objects() if type(x) in kinds]
    finally:
        gc.enable()
    parameters = [x for part in (segmenter, generator, judge, encoder) for x in part.parameters()]
    assert all(x.grad is None for x in parameters)


def trained_twice(monkeypatch, train, is_on_gpu):
    """What train() returns when its steps are graphs, and when they are not."""
    if not is_on_gpu:
        ordinary = train()
        pretended_graph.install(monkeypatch)
        graphed = train()
        assert pretended_graph.PretendedGraph.replays > 0
        return graphed, ordinary
    replays, replay = [], graphs.Graph.replay
    monkeypatch.setattr(graphs.Graph, "replay", lambda x: replays.append(x) or replay(x))
    graphed, count = train(), len(replays)
    monkeypatch.setattr(graphs, "WARMUP_CALLS", 10**9)
    ordinary = train()
    assert count > 0 and len(replays) == count
    return graphed, ordinary


@pytest.mark.parametrize("precision, is_on_gpu, dataset", TRAININGS)
def test_a_graphed_training_of_segmentation_is_an_ordinary_one(
    tmp_path, monkeypatch, precision, is_on_gpu, dataset
):
    scenes = [
        cached(open_scenes(dataset, split, size=(64, 64)).evenly_spaced(count), tmp_path)
        for split, count in (("train", 16), ("val", 4))
    ]
    # Whole batches and halved ones: two captures take turns.
    recipe = training.Recipe(
        epochs=8 if is_on_gpu else 2, batch_size=4, learning_rate=1e-3, half_size=0.4,
        schedule="cosine",
    )  # fmt: skip

    def trained():
        torch.manual_seed(0)
        network = SegmentationNet("resnet18")
        weights = balanced_weights(scenes[0])
        history = train(network, *scenes, recipe, precision=precision, class_weights=weights)
        return history["train_loss"], network.state_dict()

    (graphed, its_weights), (ordinary, weights) = trained_twice(monkeypatch, trained, is_on_gpu)
    if is_on_gpu:
        assert graphed == pytest.approx(ordinary, rel=0.1)
        assert graphed[-1] < 0.7 * graphed[0]
    else:
        assert graphed == ordinary
        assert all(torch.equal(its_weights[key], weights[key]) for key in weights)


@pytest.mark.parametrize("precision, is_on_gpu", PRECISIONS)
def test_a_graphed_training_of_spade_is_an_ordinary_one(
    tmp_path, monkeypatch, precision, is_on_gpu
):
    scenes = cached(open_scenes("toy", "train", size=(64, 64))[:8], tmp_path)
    # Learning slowly, because two trainings of a GAN part soon, whatever is different in the last
    # digit: each step's losses are of its own batch, and of weights that are nearly the same.
    recipe = Recipe(
        pictures=80 if is_on_gpu else 16, batch_size=4, learning_rate=1e-5, style_weight=1,
        head_start=40, average=0.5,
    )  # fmt: skip

    def trained():
        def weights():
            return [
                torch.cat([x.detach().cpu().flatten() for x in part.parameters()])
                for part in (generator, judge)
            ]

        torch.manual_seed(0)
        perceptual = PerceptualLoss.of_segmentation(SegmentationNet("resnet18"), texture=1)
        generator, encoder = (
            spade.SpadeGenerator(4, "normal", 3, (64, 64), 8, styled_layers=True, grain=True),
            spade.Encoder(ngf=2, z_dim=3),
        )
        judge = spade.MultiscaleDiscriminator(ndf=4)
        before = weights()
        classifier = StyleClassifier(style_labels(scenes)[0], z_dim=3)
        networks = encoder, perceptual, classifier
        history = train_spade(generator, judge, scenes, recipe, *networks, precision=precision)
        moves = [now - then for now, then in zip(weights(), before, strict=True)]
        return torch.tensor(list(history.values())), moves  # (losses, steps), the way they went

    (graphed, moves), (ordinary, same_moves) = trained_twice(monkeypatch, trained, is_on_gpu)
    assert graphed.shape == (6, recipe.pictures // 4)
    assert (graphed[1] - graphed[1].mean()).abs().max() > 0.1
    if not is_on_gpu:
        assert torch.equal(graphed, ordinary)
        assert all(map(torch.equal, moves, same_moves))
        return
    for one, other in zip(moves, same_moves, strict=True):
        assert torch.cosine_similarity(one, other, 0) > 0.9
        assert one.norm().item() == pytest.approx(other.norm().item(), rel=0.05)
    torch.testing.assert_close(graphed, ordinary, rtol=0.03, atol=0.03)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    if request.param == "cpu":
        pretended_graph.install(monkeypatch)
    return request.param


def test_each_shape_has_a_capture_with_gradients_of_its_own(device):
    layer = nn.Linear(3, 1, bias=False).to(device)
    same = copy.deepcopy(layer)

    def step(layer, optimizer, x):
        loss = layer(x).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach(), "after": layer(x).detach()}

    def steps_of(layer):
        optimizer = torch.optim.Adam(layer.parameters(), 0.1)
        return functools.partial(step, layer, optimizer), optimizer

    step_of_layer, optimizer = steps_of(layer)
    graphed = graphs.graphed(step_of_layer, [optimizer], torch.device(device))
    plain, other = steps_of(same)
    results, expected = [], []
    for number in range(14):
        for group in (*optimizer.param_groups, *other.param_groups):
            group["lr"] = 0.1 / (1 + number)
        x = torch.full((2 + number % 2, 3), 1 / (1 + number), device=device)
        results.append(graphed(x))
        expected.append(plain(x))
        assert torch.allclose(layer.weight.grad, same.weight.grad)
        assert torch.allclose(layer.weight, same.weight, atol=1e-6)
    # What came first has not been overwritten; and what follows an update sees new weights.
    for result, plainly in zip(results, expected, strict=True):
        torch.testing.assert_close(result, plainly)
    assert "step" not in vars(optimizer), "the optimizer's own step is back"


def test_a_step_that_cannot_be_captured_is_named(monkeypatch):
    pretended_graph.install(monkeypatch)
    refuse_a_step("cpu")


@pytest.mark.gpu
def test_a_step_that_a_gpu_cannot_capture_is_named(tmp_path):
    """In a process of its own, because torch 2.11 and 2.12 capture nothing more after it."""
    run_in_process(refuse_a_step_of_a_gpu, tmp_path)


def refuse_a_step_of_a_gpu(_: Path) -> None:
    refuse_a_step("cuda")


def refuse_a_step(device: str) -> None:
    layer = nn.Linear(3, 1).to(device)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)

    def step(x):
        loss = layer(x).sum()
        optimizer.zero_grad()
        loss.backward()
        print(f"the loss is {loss.item()}")  # a line that somebody adds
        optimizer.step()
        return loss.detach()

    x = torch.ones(2, 3, device=device)
    graphed = graphs.graphed(step, [optimizer], x.device)
    for _ in range(graphs.WARMUP_CALLS):
        graphed(x)
    before = layer.weight.clone()
    with pytest.raises(RuntimeError, match='could not be captured: (.|\n)*COURSE_RECORD"] = "0"'):
        graphed(x)
    assert torch.equal(layer.weight, before) and "step" not in vars(optimizer)
    step(x)
    assert not torch.equal(layer.weight, before)


def test_an_interrupted_capture_is_ended(device):
    layer, calls = nn.Linear(3, 1).to(device), []
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)

    def step(x):
        loss = layer(x).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        calls.append(1)
        if len(calls) == graphs.WARMUP_CALLS + 1:
            raise KeyboardInterrupt  # the Stop button, just then
        return loss.detach()

    x = torch.ones(2, 3, device=device)
    graphed = graphs.graphed(step, [optimizer], x.device)
    for _ in range(graphs.WARMUP_CALLS):
        graphed(x)
    with pytest.raises(KeyboardInterrupt):
        graphed(x)
    before = graphed(x).item()  # captured anew; a stream that still captures would refuse it
    assert graphed(x).item() < before and torch.cuda.is_available() == (x + 1).is_cuda


@torch.no_grad()
def test_inference_by_graphs(device, monkeypatch):
    monkeypatch.setenv("COURSE_RECORD", "all")
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(device).eval()
    inputs = [torch.rand(count, 3, 5, 6, device=device) for count in (1, 2, 3)]
    found, expected = [], []

    def draw(network, x):
        found.append(graphs.inferred(network, network, x))
        expected.append(network(x))

    for x in inputs * 2:
        for _ in range(graphs.WARMUP_CALLS + 2):
            draw(network, x)
    network[0].weight.mul_(2)  # in place
    draw(network, inputs[2])
    network[0].weight = nn.Parameter(torch.ones_like(network[0].weight))
    for number in range(2 * graphs.WARMUP_CALLS + 4):
        with torch.autocast(device, torch.bfloat16, enabled=number % 2 == 1):
            with torch.inference_mode(number % 4 < 2):
                draw(network, inputs[0] / (1 + number))
    assert found[-1].dtype == torch.bfloat16 and found[-2].dtype == torch.float32
    torch.testing.assert_close(found, expected)  # no later call has overwritten a result
    captures = graphs._GRAPHED[network]._captures
    assert len(captures) == graphs.MAX_INFERENCES == 2
    kept = weakref.ref(network)
    del network, captures
    gc.collect()
    assert kept() is None


def test_elsewhere_a_step_is_an_ordinary_function(monkeypatch):
    def step(x):
        return x

    assert graphs.graphed(step, [], torch.device("cpu")) is step
    graphed = graphs.graphed(step, [], torch.device("cuda"))
    assert isinstance(graphed.func, graphs.GraphedCallable)
    with pytest.raises(TypeError, match="returned None: expected a tensor, or a tuple or dict"):
        graphs.copies(None)
    monkeypatch.setenv("COURSE_RECORD", "0")
    assert graphs.graphed(step, [], torch.device("cuda")) is step


@pytest.mark.gpu
def test_photo_to_photo_on_a_gpu_is_what_it_is_on_the_cpu():
    scene = open_scenes("toy", "val", size=(256, 128))[0]
    one, other = (
        load_pipeline("toy", "toy", device=device).run(scene.image_u8) for device in ("cuda", "cpu")
    )
    assert one.generated_u8.is_cuda
    assert (one.label_ids.cpu() == other.label_ids).float().mean() > 0.999
    assert (one.generated_u8.cpu().int() - other.generated_u8.int()).abs().float().mean() < 1


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["toy", "streets"])
def test_half_precision_and_graphs_on_a_gpu(name, monkeypatch):
    monkeypatch.setenv("COURSE_RECORD", "all")
    generator = load_generator(find_weights("generator", name)).cuda()
    label_ids = open_scenes("toy", "val", size=generator.size)[0].label_ids
    z = next(iter(generator.styles.values()))[None]
    images, dtypes = {}, set()
    for block in map(generator.get_submodule, generator.enlargements):
        block.register_forward_pre_hook(lambda _, x: dtypes.add(x[0].dtype))
    for precision in ("exact", precision_of_gpu()):
        dtypes.clear()
        draw = functools.partial(generator.synthesize, label_ids, z=z, precision=precision)
        replayed = [draw() for _ in range(graphs.WARMUP_CALLS + 2)][-1]
        with monkeypatch.context() as patch:
            patch.setenv("COURSE_RECORD", "0")
            assert (replayed.int() - draw().int()).abs().max() <= 1
        assert dtypes == {generator.dtype_of(precision)}  # autocast would enlarge in float32
        images[precision] = replayed.float()
    exact, half = images.values()
    assert 10 * torch.log10(255**2 / (exact - half).square().mean()) >= 40


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_how_a_gpu_draws_in_half_precision(dtype):
    """By autocast, on the CPU."""
    generator = load_generator(find_weights("generator", "toy"))
    codes = label_codes(open_scenes("toy", "val", size=generator.size)[0].label_ids)
    exact = generator._drawn(torch.float32, codes)
    with torch.autocast("cpu", dtype):
        half = generator._drawn(dtype, codes)
    assert half.dtype == dtype
    assert 10 * torch.log10(4 / (exact - half.float()).square().mean()) >= 40  # dB


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch can't pretend to have a GPU",
)
def test_the_course_on_a_gpu(tmp_path):
    run_in_process(the_course, tmp_path)


def the_course(folder: Path) -> None:
    import pretended_gpu  # not every torch has what it needs

    torch.set_num_threads(1)
    pretended_gpu.install()
    what_is_not_moved_is_found()
    augment_on_the_cpu()
    pipeline = load_pipeline("toy", "toy", style="Sonnental, dusk")
    photo_to_photo(pipeline, folder)
    photo_to_photo_by_graphs()
    train_a_segmentation_network(folder)
    train_a_generator(folder)


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


def photo_to_photo(pipeline: Pipeline, folder: Path) -> None:
    scene = open_scenes("toy", "val", size=pipeline.generator.size)[0]
    for result in pipeline.feedback(scene.image_u8[None], 2):
        assert result.generated_u8.device.type == result.label_ids.device.type == "pretended"
    named = pipeline.run(None, scene.label_ids)
    on_cpu = load_pipeline("toy", "toy", style="Sonnental, dusk", device="cpu")
    drawn = on_cpu.run(None, scene.label_ids).generated_u8  # by the fast path
    assert (named.generated_u8.cpu().int() - drawn.int()).abs().max() <= 2
    draw_street(pipeline.generator, remove_class(scene.label_ids, "car"), "dusk")
    (folder / "photos").mkdir()
    save_image(scene.image_u8, folder / "photos" / "street.png")
    assert run_folder(pipeline, folder / "photos", folder / "out").new == 1


def photo_to_photo_by_graphs() -> None:
    small = a_pipeline(size=(64, 64))
    pipeline = Pipeline(small.segmenter.to("pretended"), small.generator.to("pretended"))
    scenes = open_scenes("toy", "val", size=pipeline.generator.size)
    photos = [scenes[number].image_u8 for number in range(2)]
    plain = [pipeline.run(image_u8) for image_u8 in photos]
    with pytest.MonkeyPatch.context() as patch:
        pretended_graph.install(patch)
        patch.setenv("COURSE_RECORD", "all")
        # Two calls of the segmentation network in a run, one of the generator.
        again = [pipeline.run(image_u8) for image_u8 in photos * (graphs.WARMUP_CALLS + 1)]
        assert pretended_graph.PretendedGraph.made == 2
        assert pretended_graph.PretendedGraph.replays >= 2
    for one, other in zip(again[-2:], plain, strict=True):
        for field in ("label_ids", "generated_u8", "generated_label_ids"):
            assert torch.equal(getattr(one, field).cpu(), getattr(other, field).cpu())


def train_a_segmentation_network(folder: Path) -> None:
    scenes = [
        cached(open_scenes("streets", split, size=(64, 64)).evenly_spaced(8), folder / "cache")
        for split in ("train", "val")
    ]
    for epochs in (1, 2):  # the second goes on from the first's checkpoint
        network = SegmentationNet("resnet18", "unet")
        recipe = training.Recipe(epochs=epochs, batch_size=4, half_size=0.5)
        weights = balanced_weights(scenes[0])
        history = train(network, *scenes, recipe, folder / "unet", class_weights=weights)
        assert len(history["seconds"]) == epochs
        assert next(network.parameters()).device.type == "pretended"


def train_a_generator(folder: Path) -> None:
    scenes = cached(open_scenes("toy", "train", size=(64, 64))[:8], folder / "cache")
    perceptual = PerceptualLoss.of_segmentation(SegmentationNet("resnet18"), texture=1)
    for pictures in (4, 8):
        recipe = Recipe(
            pictures=pictures, batch_size=4, schedule="constant", style_weight=1, head_start=8
        )
        networks = (
            spade.SpadeGenerator(2, "normal", 3, (64, 64), 4, styled_layers=True, grain=True),
            spade.MultiscaleDiscriminator(ndf=2),
            spade.Encoder(ngf=2, z_dim=3),
        )
        generator, judge, encoder = networks
        classifier = StyleClassifier(style_labels(scenes)[0], z_dim=3)
        others = encoder, perceptual, classifier, folder / "generator"
        history = train_spade(generator, judge, scenes, recipe, *others, preview=scenes[:2])
        assert len(history["style"]) == pictures // 4
        assert all(next(part.parameters()).device.type == "pretended" for part in networks)
    assert any("dusk" in name for name in named_styles(networks[2], scenes))
