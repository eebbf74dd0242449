#!/usr/bin/env python3
"""Measure the fast generator's seconds, memory and multiplications against the plain forward().

    python benchmarks/spade.py --root FOLDER    # maps of CamVid val; 6 minutes, 3 GB of memory
    python benchmarks/spade.py                  # toy streets

The two sides of a row run in turn on the same maps, one map at a time, and the ratio is that of
their medians.  The plain side is forward() as published: in torch's default layout, with spectral
normalisation in each call.  Weights are random (or --weights); batch norm has the statistics of two
of the maps.
"""

import argparse
import copy
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from timing import in_turn, machine

import spade
from spade.fast import Neighbourhoods, fast_forward, stages
from spade.normalization import SpectralNormConv2d
from spade.semantics import label_codes
from utils.commands import width_and_height
from utils.images import pm1_to_u8
from utils.scenes import open_scenes

PRECISIONS = {"exact": torch.float32, "bf16": torch.bfloat16}


def make_generator(arguments: argparse.Namespace) -> spade.SpadeGenerator:
    """Make a generator in evaluation mode, with weights in torch's default layout."""
    torch.manual_seed(0)
    if arguments.weights:
        generator = spade.load_generator(arguments.weights, size=arguments.size)
        return generator.to(memory_format=torch.contiguous_format)
    generator = spade.SpadeGenerator(arguments.ngf, size=arguments.size, hidden=arguments.hidden)
    for module in generator.modules():
        if isinstance(module, SpectralNormConv2d):
            for _ in range(3):
                module.power_iteration()
    return generator.eval()


@torch.no_grad()
def calibrate(generator: spade.SpadeGenerator, label_ids: torch.Tensor) -> None:
    """Set batch norm's running statistics to those of these maps."""
    for module in generator.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all calls
            module.train()
    generator(spade.semantics(label_ids))
    generator.eval()


def plain(generator: spade.SpadeGenerator, label_ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return pm1_to_u8(generator(spade.semantics(label_ids)))


def seconds_each(rounds: int, maps: list, sides: dict) -> list[float]:
    """Return the median seconds per map of each side."""
    over_all = {
        name: lambda run=run: [run(label_ids) for label_ids in maps] for name, run in sides.items()
    }
    return [seconds / len(maps) for seconds in in_turn(rounds, **over_all)]


def row(work: str, ours: str, other: str, verdict: str) -> None:
    print(f"{work:52} {ours:>12} {other:>12}   {verdict}", flush=True)


def seconds_row(work: str, ours: float, other: float, least: float) -> None:
    row(work, f"{ours:.3f} s", f"{other:.3f} s", f"{other / ours:5.2f}x (at least {least:g})")


def peak_bytes(side: str, arguments: argparse.Namespace) -> int:
    """Measure the peak memory of one call beyond the weights, in a new process."""
    process = [sys.executable, __file__, *arguments.given, "--peak", side]
    return int(subprocess.run(process, check=True, capture_output=True, text=True).stdout)


def measure_peak(side: str, generator: spade.SpadeGenerator, label_ids: torch.Tensor) -> int:
    if side != "plain":
        generator.to(memory_format=torch.channels_last)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    status = Path("/proc/self/status")

    def kilobytes(name):
        return next(int(x.split()[1]) for x in status.open() if x.startswith(name))

    before = kilobytes("VmRSS")
    if side == "plain":
        plain(generator, label_ids)
    else:
        generator.synthesize(label_ids, precision=side)
    return 1024 * (kilobytes("VmHWM") - before)


def print_multiplications(generator: spade.SpadeGenerator, maps: list[torch.Tensor]) -> None:
    """Print the multiplications per picture of forward() and of the fast way, by resolution."""
    print("\n1e9 multiplications a picture, and what tables leave of them")
    print("             distinct neighbourhoods        gamma and beta          other")
    print("     size      3x3       5x5           plain      left         convolutions")
    sums = [0.0, 0.0, 0.0]
    for name, step, _ in stages(generator):
        block = getattr(generator, name)
        around = [Neighbourhoods(label_codes(x)[:, ::step, ::step]) for x in maps]
        pixels = around[0].small_of.numel()
        small, large = (
            statistics.mean(len(numbers) for numbers in kind) / pixels
            for kind in ([a.small for a in around], [a.large[0] for a in around])
        )
        norms = [x for part, x in block.named_children() if part.startswith("norm")]
        two = sum(2 * norm.mlp_gamma.weight.numel() for norm in norms)  # gamma and beta
        first = sum(norm.mlp_shared[0].weight.numel() for norm in norms)
        convolutions = [x for name, x in block.named_children() if name.startswith("conv")]
        rest = sum(x.weight_orig.numel() for x in convolutions) * pixels / 1e9
        before = (first + two) * pixels / 1e9
        # With tables the hidden layer is a sum of columns, without multiplications.
        products = [len(a.small) if a.repeat else pixels for a in around]
        after = two * statistics.mean(products) / 1e9
        sums = [x + y for x, y in zip(sums, (before, after, rest))]
        height, width = around[0].small_of.shape[1:]
        print(
            f"{f'{width}x{height}':>9} {small:8.1%}  {large:8.1%}      {before:10.2f}{after:10.2f}"
            f" {after / before:7.0%} {rest:10.2f}"
        )
    before, after, rest = sums
    print(
        f"{'all':>9} {'':24}{before:10.2f}{after:10.2f} {after / before:7.0%} {rest:10.2f}"
        f"    together {before + rest:.0f} -> {after + rest:.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", help="CamVid's folder; toy streets without it")
    parser.add_argument("--weights", help="a generator's file, for example data/weights/...")
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", default="512x256", type=width_and_height, help="WIDTHxHEIGHT")
    parser.add_argument("--ngf", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--peak", choices=("plain", "exact", "bf16"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.given = sys.argv[1:]

    dataset = "camvid" if arguments.root else "toy"
    scenes = open_scenes(dataset, "val", arguments.root, arguments.size)
    scenes = scenes.evenly_spaced(arguments.pictures)
    maps = [scenes[i].label_ids for i in range(len(scenes))]
    generator = make_generator(arguments)
    if arguments.peak:
        print(measure_peak(arguments.peak, generator, maps[0]))
        return
    print(f"{machine()}, {torch.get_num_threads()} threads")
    print(f"{scenes}, {len(maps)} maps; {arguments.weights or 'random weights'}", end=", ")
    print(f"ngf {generator.settings['ngf']}, hidden {generator.settings['hidden']}\n")

    if not arguments.weights:
        calibrate(generator, torch.stack(maps[:2]))
    fast = copy.deepcopy(generator).to(memory_format=torch.channels_last)
    sides = {
        "plain": lambda x: plain(generator, x),
        "exact": lambda x: fast.synthesize(x),
        "bf16": lambda x: fast.synthesize(x, precision="bf16"),
    }
    row("one picture on the CPU", "fast", "plain", "")
    other, exact, bf16 = seconds_each(arguments.rounds, maps, sides)
    seconds_row("exact", exact, other, 2.5)
    seconds_row("bf16", bf16, other, 4)
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 34, maps[0].shape, generator=random)
    other, exact, bf16 = seconds_each(1, [noise], sides)
    seconds_row("exact, another id in every pixel", exact, other, 0.9)
    seconds_row("bf16, another id in every pixel", bf16, other, 0.9)

    differences, decibels = [], []
    for label_ids in [*maps, noise]:
        with torch.no_grad():
            expected = generator(spade.semantics(label_ids))
        exact, bf16 = (
            fast_forward(fast, label_codes(label_ids), dtype=dtype).float()
            for dtype in PRECISIONS.values()
        )
        size = expected.max() - expected.min()
        differences.append(float((exact - expected).abs().max() / size))
        decibels.append(float(10 * torch.log10(4 / (bf16 - exact).square().mean())))
    verdict = f"{max(differences):.1e} of the output's range (at most 1e-4)"
    row("exact against plain, largest difference, with noise", "", "", verdict)
    verdict = f"PSNR {statistics.mean(decibels[:-1]):.1f} dB, worst {min(decibels[:-1]):.1f}"
    row("bf16 against exact", "", "", f"{verdict}, noise {decibels[-1]:.1f} (at least 40)")
    peaks = {side: peak_bytes(side, arguments) / 1e6 for side in sides}
    for side in PRECISIONS:
        ours, other = peaks[side], peaks["plain"]
        verdict = f"{ours / other:5.2f}x (at most 1)"
        row(f"{side}, peak memory beyond the weights", f"{ours:.0f} MB", f"{other:.0f} MB", verdict)
    print_multiplications(generator, maps)


if __name__ == "__main__":
    main()
