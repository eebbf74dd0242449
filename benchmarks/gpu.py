#!/usr/bin/env python3
"""Check and measure on a GPU, in under eight minutes, what the project computes there.

    python benchmarks/gpu.py --out gpu.txt            # every line is written as it is measured
    python benchmarks/gpu.py --out gpu.txt --tiny     # tiny networks, to try it out; also on a CPU

Checks come first: half precision against float32, recorded graphs against ordinary calls, losses of
training steps.  Then come figures: the sides of a table run in turn, and the ratios are those of
their medians.  Half precision is bfloat16, or float16 on a GPU without it (a T4).  float32 is as
torch computes it by default, with TF32 in convolutions where the GPU has it.  Each part has a time
limit; one that reaches it is cut, and says so.

"plain" is written as one would without this project: float32, torch's default layout, no graphs,
and in a training tensors in memory.  "ours" is what the project does, with batches from the cache.
"""

import argparse
import contextlib
import copy
import functools
import gc
import operator
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import torch
from segmentation import OurLoop, PlainLoop
from spade_training import Networks, PlainRecipe
from timing import machine
from torch import Tensor
from torch.autograd import DeviceType

import spade
from spade.fast import fast_forward, tables
from spade.normalization import find_singular_vectors
from spade.pixel_discriminator import PixelDiscriminator
from spade.semantics import label_codes
from spade.training import (
    Recipe,
    VariationalGenerator,
    adversarial_step,
    make_optimizers,
    training_batch,
)
from utils.cache import cached
from utils.engine.accelerator import make_accelerator, place
from utils.engine.averaging import RunningMean
from utils.engine.graphs import WARMUP_CALLS, graphed, inferred
from utils.engine.precision import half_precision, precision_of_gpu
from utils.files import PROJECT
from utils.images import pm1_to_u8
from utils.pipeline import Pipeline, load_pipeline
from utils.scenes import open_scenes
from utils.segmentation import SegmentationNet, load_segmentation
from utils.weights import find_weights

BUNDLED = ("toy", "streets")
LEAST_DB = 40.0
LARGEST_LOSS_DIFFERENCE = 1e-3
TO_CAPTURE = WARMUP_CALLS + 2  # calls after which a graph has been captured and replayed
SLOWEST = 12  # kernels that the part "Kernels" lists


class Report:
    """Lines, printed and appended to a file at once."""

    def __init__(self, path: Path):
        self.path, self.failures = path, 0
        path.write_text("")

    def __call__(self, line: str = "") -> None:
        print(line, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def check(self, is_met: bool, line: str) -> None:
        self.failures += not is_met
        self(f"  {'ok    ' if is_met else 'MISSED'} {line}")


class Work:
    """What is measured: networks of the published sizes, and the bundled ones."""

    full_size, size = (512, 256), (256, 128)  # of the full-size generator, of what is trained
    batches = (1, 8)  # of inference
    batch, segmentation_batch = 8, 32  # of trainings
    steps = 12  # of a training in a call, after which the GPU is waited for
    backbone = "resnet34"
    patience = 1  # how many times the time limits are as long
    is_tiny = False

    def __init__(self, report: Report):
        self.report = report
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.half = precision_of_gpu() if self.device.type == "cuda" else "bf16"

    @functools.cached_property
    def scenes(self):
        """The batches of a call for the training of the segmentation network."""
        count = self.steps * self.segmentation_batch
        scenes = open_scenes("toy", "train", size=self.size)[:count]
        return cached(scenes, PROJECT / "data" / "cache")

    def maps(self, count: int, size: tuple[int, int]) -> Tensor:
        """Toy maps (B, H, W), on the device."""
        scenes = open_scenes("toy", "val", size=size)
        return torch.stack([scenes[i].label_ids for i in range(count)]).to(self.device)

    @functools.cached_property
    def full_generator(self) -> spade.SpadeGenerator:
        """One of the published size (281e9 multiplications a picture) with random weights."""
        torch.manual_seed(0)
        generator = self.untrained_generator().to(self.device)
        find_singular_vectors(generator)
        norms = [x for x in generator.modules() if isinstance(x, torch.nn.BatchNorm2d)]
        for norm in norms:  # statistics of maps, as after a training
            norm.momentum = None
        with torch.no_grad():
            generator.train()(spade.semantics(self.maps(2, self.full_size)))
        return generator.eval().to(memory_format=torch.channels_last)

    def untrained_generator(self) -> spade.SpadeGenerator:
        return spade.SpadeGenerator(size=self.full_size)

    def generator(self, name: str) -> spade.SpadeGenerator:
        return spade.load_generator(find_weights("generator", name)).to(self.device)

    def segmenter(self, name: str) -> SegmentationNet:
        return load_segmentation(find_weights("segmentation", name))[0].to(self.device)

    def pipeline(self, name: str, precision: str) -> Pipeline:
        return load_pipeline(name, name, precision=precision, device=self.device)

    def discriminator(self, kind: str) -> torch.nn.Module | None:
        """None for the published one.  Random weights are as fast as others."""
        return PixelDiscriminator() if kind == "pixel" else None


class TinyWork(Work):
    """The same work with tiny networks, to try the script out."""

    full_size, size = (64, 64), (32, 32)
    batches = (1, 2)
    batch, segmentation_batch = 2, 4
    steps = 1
    backbone = "resnet18"
    patience = 20
    is_tiny = True

    def untrained_generator(self) -> spade.SpadeGenerator:
        return spade.SpadeGenerator(2, "normal", None, self.full_size, 4)

    def generator(self, name: str) -> spade.SpadeGenerator:
        torch.manual_seed(0)
        generator = spade.SpadeGenerator(2, "normal", 3, self.size, 4, styled_layers=True)
        generator.styles = {"one": torch.ones(3)}
        find_singular_vectors(generator)
        return generator.eval().to(self.device, memory_format=torch.channels_last)

    def segmenter(self, name: str) -> SegmentationNet:
        torch.manual_seed(0)
        return SegmentationNet("resnet18").eval().to(self.device)

    def pipeline(self, name: str, precision: str) -> Pipeline:
        return Pipeline(self.segmenter(name), self.generator(name), precision=precision)

    def discriminator(self, kind: str) -> torch.nn.Module | None:
        return PixelDiscriminator(widths=(4,) * 6) if kind == "pixel" else None


# ------------------------------------------------------------------------------------- measuring


class Cut(BaseException):
    """The time is up.  No Exception, because torch.compile catches those."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise Cut inside after so many seconds."""

    def stop(*_) -> None:
        raise Cut

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def without_graphs(run: Callable) -> Callable:
    def ordinary(*arguments):
        with patch.dict(os.environ, COURSE_RECORD="0"):
            return run(*arguments)

    return ordinary


def seconds_of(run: Callable, calls: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def seconds_in_turn(
    seconds: float, sides: dict[str, Callable], warm_up: int = TO_CAPTURE
) -> dict[str, float]:
    """Return the median seconds of a call of each side: 3 to 15 rounds in about `seconds`.

    With no seconds at all it is one round, which only tries the sides out.

    Args:
        warm_up: calls of each side before that.
    """
    for run in sides.values():
        seconds_of(run, warm_up)
    start = time.monotonic()
    once = {name: seconds_of(run) for name, run in sides.items()}
    # Short calls are repeated, so that what is timed takes a twentieth of a second.
    calls = max(1, min(int(0.05 / min(once.values())), int(seconds / 4 / sum(once.values()))))
    rounds, least = [once] if calls == 1 else [], 3 if seconds else 1
    while len(rounds) < 15 and (len(rounds) < least or time.monotonic() - start < seconds):
        rounds.append({name: seconds_of(run, calls) / calls for name, run in sides.items()})
    return {name: statistics.median(x[name] for x in rounds) for name in sides}


def table(
    work: Work,
    title: str,
    pictures: int,
    seconds: float,
    sides: dict[str, Callable],
    warm_up: int = TO_CAPTURE,
) -> None:
    """Print pictures a second of each side, and how many times that is the first side's."""
    if work.is_tiny:
        seconds, warm_up = 0, WARMUP_CALLS
    medians = seconds_in_turn(seconds, sides, warm_up)
    first = next(iter(medians.values()))
    work.report(f"  {title}, {pictures} a call; pictures a second")
    for name, median in medians.items():
        work.report(f"    {name:34} {pictures / median:10.2f} {first / median:7.2f}x")


def decibels(one: Tensor, other: Tensor) -> float:
    """The PSNR of two uint8 pictures."""
    return float(10 * torch.log10(255**2 / (one.float() - other.float()).square().mean()))


# ---------------------------------------------------------------------------------------- checks


def check_pictures(work: Work) -> None:
    """Half precision and graphs draw what float32 and ordinary calls draw."""
    generators = {"full size": work.full_generator}
    generators |= {name: work.generator(name) for name in BUNDLED}
    for name, generator in generators.items():
        maps = work.maps(2, generator.size)
        z = next((x[None].to(work.device) for x in generator.styles.values()), None)
        exact = generator.synthesize(maps, z=z)
        for precision in ("exact", work.half):
            draw = functools.partial(generator.synthesize, maps, z=z, precision=precision)
            ordinary = without_graphs(draw)()
            replayed = [draw() for _ in range(TO_CAPTURE)][-1]
            difference = int((ordinary.int() - replayed.int()).abs().max())
            line = f"{name}, {precision}: a graph differs by {difference} of 255 (at most 1)"
            work.report.check(difference <= 1, line)
        quality = decibels(replayed, exact)
        line = f"{name}, {work.half} against float32: {quality:.1f} dB (at least {LEAST_DB:g})"
        work.report.check(quality >= LEAST_DB, line)


def check_maps(work: Work) -> None:
    """Half precision and graphs find the labels that float32 and ordinary calls find."""
    for name in BUNDLED:
        network = work.segmenter(name)
        scenes = open_scenes("toy", "val", size=work.size)
        image_u8 = torch.stack([scenes[i].image_u8 for i in range(2)]).to(work.device)
        exact = without_graphs(network.predict)(image_u8)
        for precision, least in (("exact", 0.999), (work.half, 0.99)):
            with half_precision(work.device, spade.generator.PRECISIONS[precision]):
                maps = [network.predict(image_u8) for _ in range(TO_CAPTURE)][-1]
            share = float((maps == exact).float().mean())
            line = f"segmentation {name}, {precision} by graph: {share:.5f} of the labels"
            work.report.check(share >= least, f"{line} (at least {least:g})")


def losses_of(work: Work, kind: str, precision: str) -> dict[str, list[float]]:
    steps = OurSteps(work, kind, precision, learning_rate=1e-6)
    count = TO_CAPTURE + (1 if work.is_tiny else 3)
    found = [steps.step(*steps.batch(number)) for number in range(count)]
    return {name: [float(losses[name]) for losses in found] for name in found[0]}


def check_losses(work: Work) -> None:
    """Steps by graphs have the losses of ordinary ones; the weights move as slowly as possible."""
    for kind in DISCRIMINATORS:
        plain = without_graphs(losses_of)(work, kind, "fp32")
        for precision in ("fp32", work.half):
            losses = losses_of(work, kind, precision)
            largest = max(
                abs(one - other) / max(1, abs(other))
                for name in plain
                for one, other in zip(losses[name], plain[name], strict=True)
            )
            line = f"{kind} discriminator, {precision} by graphs: losses differ by {largest:.1e}"
            if precision == "fp32":
                is_met = largest <= LARGEST_LOSS_DIFFERENCE
                work.report.check(is_met, f"{line} (at most {LARGEST_LOSS_DIFFERENCE:g})")
            else:
                work.report(f"         {line} from float32")


# ------------------------------------------------------------------------------------- inference


def plain_pictures(generator: spade.SpadeGenerator, maps: Tensor, z: Tensor | None) -> Tensor:
    with torch.no_grad():
        return pm1_to_u8(generator(spade.semantics(maps, checked=True), z))


def generator_table(work: Work, title: str, fast: spade.SpadeGenerator, seconds: float) -> None:
    plain = copy.deepcopy(fast).to(memory_format=torch.contiguous_format)
    z = next((x[None].to(work.device) for x in fast.styles.values()), None)
    for count in work.batches:
        maps = work.maps(count, fast.size)
        draw = functools.partial(fast.synthesize, maps, z=z, checked=True)
        half = functools.partial(draw, precision=work.half)
        sides = {
            "plain float32": functools.partial(plain_pictures, plain, maps, z),
            "channels-last float32": without_graphs(draw),
            "channels-last float32, graph": draw,
            f"{work.half}": without_graphs(half),
            f"{work.half}, graph": half,
        }
        table(work, title, count, seconds, sides)
        free()


def full_size(work: Work) -> None:
    generator_table(work, "{}x{}".format(*work.full_size), work.full_generator, 15)
    del work.full_generator  # the memory of its graphs


def bundled_generators(work: Work) -> None:
    for name in BUNDLED:
        generator_table(work, f"generator {name}", work.generator(name), 3)


@torch.no_grad()
def by_tables(generator, maps: Tensor, z: Tensor | None, dtype: torch.dtype) -> Tensor:
    """spade/fast, made for a CPU; a GPU has no cache that its pieces would have to fit in."""
    with patch.multiple(tables, MAX_SCALED=1 << 60, MAX_PRODUCTS=1 << 60):
        return pm1_to_u8(fast_forward(generator, label_codes(maps, checked=True), z, dtype))


def tables_on_a_gpu(work: Work) -> None:
    generators = {"full size": work.full_generator, "toy": work.generator("toy")}
    for name, fast in generators.items():
        z = next((x[None].to(work.device) for x in fast.styles.values()), None)
        for count in work.batches:
            maps, dtype = work.maps(count, fast.size), fast.dtype_of(work.half)
            draw = functools.partial(fast.synthesize, maps, z=z, precision=work.half, checked=True)
            sides = {
                f"{work.half}, graph": draw,
                f"{work.half}, tables": functools.partial(by_tables, fast, maps, z, dtype),
            }
            table(work, name, count, 3, sides)
    del work.full_generator


def segmentation_inference(work: Work) -> None:
    for name in BUNDLED:
        plain, fast = work.segmenter(name), work.segmenter(name)
        plain.to(memory_format=torch.contiguous_format)
        scenes = open_scenes("toy", "val", size=work.size)
        for count in work.batches:
            image_u8 = torch.stack([scenes[i].image_u8 for i in range(count)]).to(work.device)

            def half(image_u8=image_u8, fast=fast):
                with half_precision(work.device, spade.generator.PRECISIONS[work.half]):
                    return fast.predict(image_u8)

            sides = {
                "plain float32": without_graphs(functools.partial(plain.predict, image_u8)),
                "float32, graph": functools.partial(plain.predict, image_u8),
                "channels-last float32, graph": functools.partial(fast.predict, image_u8),
                f"{work.half}": without_graphs(half),
                f"{work.half}, graph": half,
            }
            table(work, f"segmentation {name}", count, 3, sides)


def whole_pipeline(work: Work) -> None:
    for name in BUNDLED:
        exact, half = (work.pipeline(name, precision) for precision in ("exact", work.half))
        scenes = open_scenes("toy", "val", size=exact.generator.size)
        for count in work.batches:
            image_u8 = torch.stack([scenes[i].image_u8 for i in range(count)])
            sides = {
                "float32": without_graphs(functools.partial(exact.run, image_u8)),
                "float32, graphs": functools.partial(exact.run, image_u8),
                f"{work.half}, graphs": functools.partial(half.run, image_u8),
            }
            table(work, f"photo, map, image, map with {name}", count, 3, sides)


# -------------------------------------------------------------------------------------- training

DISCRIMINATORS = ("published", "pixel")


class PlainPixels(PlainRecipe):
    """The plain recipe with the discriminator of every pixel."""

    def generator_loss(self, planes, fake_pm1, real_pm1):
        losses = self.discriminator.generator_losses(planes, fake_pm1, real_pm1, None, None)
        return sum(losses.values())

    def discriminator_loss(self, planes, fake_pm1, real_pm1):
        judgement = self.discriminator(None, torch.cat([fake_pm1, real_pm1]))
        return self.discriminator.loss(judgement, planes, None)


class OurSteps(Networks):
    """A few steps of train_spade() a call, each with a batch from the cache.

    Args:
        is_compiled: the networks by torch.compile instead of graphs of the step.
    """

    def __init__(
        self,
        work: Work,
        kind: str,
        precision: str,
        is_compiled: bool = False,
        learning_rate: float = 1e-4,
    ):
        torch.manual_seed(0)
        super().__init__(work.size, work.discriminator(kind), work.is_tiny)
        self.steps, self.count, recipe = work.steps, work.batch, Recipe(learning_rate=learning_rate)
        self.accelerator = make_accelerator(precision)
        self.scenes = work.scenes.to(self.accelerator.device)
        network = VariationalGenerator(self.generator, self.encoder)
        learners = {"network": network, "discriminator": self.discriminator}
        place(self.accelerator, *learners.values(), self.perceptual)
        adams, self.averaged = make_optimizers(learners, recipe), RunningMean(network, 0.999)
        *trained, first, second = self.accelerator.prepare(*learners.values(), *adams.values())
        for part in trained:
            part.train()
        self.network, optimizers = network, [first, second]
        self.step = functools.partial(
            adversarial_step,
            network=trained[0],
            discriminator=trained[1],
            optimizers=optimizers,
            accelerator=self.accelerator,
            recipe=recipe,
            perceptual=self.perceptual,
        )
        if is_compiled:
            for part in (*trained, self.perceptual):
                part.compile(backend=compiler(work))
        else:
            self.step = graphed(self.step, optimizers, self.accelerator.device)
        self.number = 0

    def batch(self, number: int) -> tuple[Tensor, ...]:
        z_dim = self.generator.z_dim
        return training_batch(self.scenes, number, self.count, 0, z_dim, self.accelerator)

    def __call__(self) -> None:
        for _ in range(self.steps):
            self.step(*self.batch(self.number))
            self.averaged.update_parameters(self.network)
            self.number += 1


def compiler(work: Work) -> str:
    """torch.compile's default on a GPU; elsewhere the script is only tried out."""
    return "inductor" if work.device.type == "cuda" else "eager"


def spade_training(work: Work) -> None:
    for kind in DISCRIMINATORS:
        plain = PlainRecipe if kind == "published" else PlainPixels
        settings = {"discriminator": work.discriminator(kind), "is_tiny": work.is_tiny}
        # The one in half precision is made last: Accelerate's autocast goes by the latest.
        sides = {
            "plain float32": plain(work.size, work.scenes, work.batch, work.steps, **settings),
            "ours, fp32, graphs": OurSteps(work, kind, "fp32"),
            f"ours, {work.half}, graphs": OurSteps(work, kind, work.half),
        }
        title = f"SPADE training, {kind} discriminator"
        table(work, title, work.steps * work.batch, 20, sides, warm_up=2)
        del sides
        free()


def segmentation_training(work: Work) -> None:
    scenes, batch = work.scenes, work.segmentation_batch
    pixels = scenes.batch(range(len(scenes)))
    for head in ("fcn", "unet"):
        sides = {
            "plain float32": PlainLoop(head, *pixels, batch, work.backbone),
            "ours, fp32, graphs": OurLoop(head, "fp32", scenes, batch, work.backbone),
            f"ours, {work.half}, graphs": OurLoop(head, work.half, scenes, batch, work.backbone),
        }
        title = f"segmentation training, head {head}"
        table(work, title, len(scenes), 12, sides, warm_up=2)
        del sides
        free()


class CompiledLoop(OurLoop):
    """The same loop by torch.compile instead of graphs."""

    def __init__(self, work: Work, *arguments):
        with patch.dict(os.environ, COURSE_RECORD="0"):
            super().__init__(*arguments)
        self.network.compile(backend=compiler(work))


def graphs_or_compile(work: Work, title: str, graphs: Callable, compiled: Callable) -> None:
    """Print what each side costs before it is at full speed, and when the dearer one has caught up.

    Args:
        graphs, compiled: each makes a side.
    """
    sides, starts = {}, {}
    for name, make in (("graphs", graphs), ("torch.compile", compiled)):
        sides[name] = make()
        starts[name] = seconds_of(sides[name], 2)
    medians = seconds_in_turn(0 if work.is_tiny else 10, sides, warm_up=0)
    for name, median in medians.items():
        starts[name] = max(0.0, starts[name] - 2 * median)
        work.report(
            f"    {name:16} start {starts[name]:7.1f} s, then {work.steps / median:8.2f} steps/s"
        )
    saved = (medians["graphs"] - medians["torch.compile"]) / work.steps  # seconds
    later = starts["torch.compile"] - starts["graphs"]
    if saved > 0:
        verdict = f"torch.compile is ahead after {max(0.0, later) / saved:.0f} steps"
    else:
        verdict = "torch.compile is never ahead" if later >= 0 else "torch.compile starts faster"
    work.report(f"    {title}: {verdict}")
    del sides
    free()


def segmentation_compiled(work: Work) -> None:
    settings = "fcn", work.half, work.scenes, work.segmentation_batch, work.backbone
    make = functools.partial(OurLoop, *settings), functools.partial(CompiledLoop, work, *settings)
    graphs_or_compile(work, f"segmentation, {work.half}", *make)


def spade_compiled(work: Work) -> None:
    make = functools.partial(OurSteps, work, "published", work.half)
    graphs_or_compile(work, f"SPADE, {work.half}", make, functools.partial(make, is_compiled=True))


def generator_compiled(work: Work) -> None:
    """The full-size generator, whose operations between convolutions torch.compile joins."""
    fast, maps = work.full_generator, work.maps(work.batches[-1], work.full_size)
    compiled, dtype = copy.deepcopy(fast), fast.dtype_of(work.half)
    compiled.compile(backend=compiler(work))

    def images_u8(maps: Tensor) -> Tensor:
        planes = spade.semantics(maps, checked=True)
        return pm1_to_u8(compiled(planes.to(dtype, memory_format=torch.channels_last)))

    def draw() -> Tensor:
        with torch.no_grad(), torch.autocast(work.device.type, dtype):
            return inferred(compiled, images_u8, maps)

    work.report(f"    start {seconds_of(draw):.1f} s")
    sides = {
        "graph": functools.partial(fast.synthesize, maps, precision=work.half, checked=True),
        "torch.compile": without_graphs(draw),
        "torch.compile, graph": draw,
    }
    table(work, f"full size, {work.half}", len(maps), 5, sides)
    del work.full_generator


def kernels(work: Work) -> None:
    """Where the time goes without graphs: the slowest kernels; on a CPU, operations."""
    maps = work.maps(work.batches[-1], work.full_size)
    scenes, batch = work.scenes, work.segmentation_batch
    kind, on = DeviceType.CPU, "cpu"
    if work.device.type == "cuda":
        kind, on = DeviceType.CUDA, "device"
    of_row = operator.attrgetter(f"self_{on}_time_total")
    with patch.dict(os.environ, COURSE_RECORD="0"):
        runs = {
            "full-size generator": functools.partial(
                work.full_generator.synthesize, maps, precision=work.half, checked=True
            ),
            "SPADE training": OurSteps(work, "published", work.half),
            "segmentation training": OurLoop("fcn", work.half, scenes, batch, work.backbone),
        }
        for title, run in runs.items():
            run()
            with torch.profiler.profile() as profile:
                seconds_of(run)
            # Kernels themselves: the operations that launched them would count them a second time.
            rows = [x for x in profile.key_averages() if x.device_type == kind]
            rows = [x for x in rows if not x.is_user_annotation]
            total = sum(map(of_row, rows))
            work.report.check(total > 0, f"{title}: {total / 1e3:.1f} ms in all")
            for row in sorted(rows, key=of_row, reverse=True)[:SLOWEST]:
                work.report(f"      {of_row(row) / total:6.1%} {row.count:6} times {row.key[:70]}")
    del work.full_generator


def free() -> None:
    """What is no longer used, graphs in the first place, gives its memory back to the GPU."""
    gc.collect()
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    if torch.cuda.is_available():
        with contextlib.suppress(RuntimeError):  # torch 2.11 and 2.12, after a failed capture
            torch.cuda.empty_cache()


# Each with a time limit in seconds.  The time of all is limited, too: on a slow GPU the last ones
# are cut or left out.
PARTS = (
    ("Check: pictures", 60, check_pictures),
    ("Check: maps", 20, check_maps),
    ("Check: losses of the generator's training", 75, check_losses),
    ("Full-size generator", 95, full_size),
    ("Training SPADE", 110, spade_training),
    ("Training the segmentation network", 60, segmentation_training),
    ("Bundled generators", 40, bundled_generators),
    ("Tables of spade/fast on a GPU", 30, tables_on_a_gpu),
    ("Segmentation", 40, segmentation_inference),
    ("The whole pipeline", 40, whole_pipeline),
    ("Kernels", 25, kernels),
    ("Graphs or torch.compile: segmentation", 80, segmentation_compiled),
    ("Graphs or torch.compile: full-size generator", 90, generator_compiled),
    ("Graphs or torch.compile: SPADE", 160, spade_compiled),
)


def run_parts(work: Work, minutes: float) -> None:
    end = time.monotonic() + 60 * minutes * work.patience
    work.report(f"{work.scenes}")  # drawn here, before a part's time runs
    for title, seconds, part in PARTS:
        left = end - time.monotonic()
        if left < 5:
            work.report(f"\n{title}: left out, the time is up")
            continue
        work.report(f"\n{title}")
        try:
            with time_limit(limit := min(seconds * work.patience, left)):
                part(work)
        except Cut:
            work.report(f"  cut after {limit:.0f} s")
        except Exception as error:  # whatever it is: GPU time is scarce, so the rest runs
            work.report.check(False, f"{type(error).__name__}: {str(error).strip()[:500]}")
        free()


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a text file")
    parser.add_argument("--tiny", action="store_true", help="to try the script out")
    parser.add_argument("--minutes", type=float, default=7.5, help="for all parts together")
    arguments = parser.parse_args(given)
    if not (torch.cuda.is_available() or arguments.tiny):
        raise SystemExit("There is no GPU here: --tiny tries this script out without one.")
    os.environ["COURSE_PROGRESS"] = "0"  # no bars between the lines
    os.environ["COURSE_RECORD"] = "all"  # graphs of inference, too
    start, work = time.monotonic(), (TinyWork if arguments.tiny else Work)(Report(arguments.out))
    work.report(machine())
    has_tf32 = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    has_tf32 = has_tf32 and torch.backends.cudnn.allow_tf32
    tf32 = "TF32 in convolutions" if has_tf32 else "no TF32"
    work.report(f"half precision: {work.half}; float32: {tf32}{', tiny' * work.is_tiny}")
    run_parts(work, arguments.minutes)
    failed = f"{work.report.failures} checks or parts FAILED" if work.report.failures else "all ok"
    work.report(f"\n{failed}, {(time.monotonic() - start) / 60:.1f} minutes")
    return int(work.report.failures > 0)


if __name__ == "__main__":
    sys.exit(main())
