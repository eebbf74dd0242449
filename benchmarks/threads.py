#!/usr/bin/env python3
"""How long threads that wait for each other should look for the others before they sleep.

    python benchmarks/threads.py                   # some ten minutes

Photos of real streets go through the pipeline, and a segmentation network is trained, in processes
that take turns and differ only in how often a waiting thread looks: as often as torch's libgomp
does by itself, as often as utils/__init__.py sets it, and never.  First nothing else runs, then a
process that keeps one core busy, then another training on all cores, whose threads wait as torch's
do by themselves.  On Linux only.
"""

import argparse
import contextlib
import statistics

from timing import another_python, machine

# What is imported first (utils sets the number only before torch reads it), and a wait policy.
SIDES = {"torch's own": ("torch", {}), "utils": ("utils", {})}
SIDES |= {"never": ("utils", {"OMP_WAIT_POLICY": "passive"})}
WORK = """
import sys, time
import torch
import torch.nn.functional as F
from utils.pipeline import load_pipeline
from utils.scenes import open_scenes
from utils.segmentation import SegmentationNet

pipeline = load_pipeline("streets", "streets", device="cpu")
scenes = open_scenes("streets", "val", size=pipeline.generator.size)
image_u8, label_ids = scenes.batch(range(6))
network = SegmentationNet("efficientnet_lite0", "unet").train()
optimizer = torch.optim.Adam(network.parameters(), 1e-4)

def photos():
    for photo in image_u8:
        pipeline.run(photo)

def training():
    loss = F.cross_entropy(network(image_u8), label_ids.long())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
ANSWERS = """
for line in sys.stdin:
    start = time.perf_counter()
    globals()[line.strip()]()
    print(time.perf_counter() - start, flush=True)
"""
TASKS = {"photos": "6 photos through the pipeline", "training": "a training step"}
BESIDE = {
    "nothing else": "",
    "one core is busy": "while True: pass",
    "another training runs": f"import torch\n{WORK}\nwhile True: training()",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(f"{machine()}\n\n{'median seconds (slowest)':54}" + "".join(f"{x:>22}" for x in SIDES))
    with contextlib.ExitStack() as stack:
        sides = [
            stack.enter_context(another_python(f"import {first}\n{WORK}{ANSWERS}", **more))
            for first, more in SIDES.values()
        ]
        for what, program in BESIDE.items():
            with another_python(program):
                for task, title in TASKS.items():
                    times = [[] for _ in sides]
                    for number in range(rounds + 1):  # the first is not counted
                        for ask, seconds in zip(sides, times, strict=True):
                            taken = float(*ask(task))
                            seconds += [taken] * (number > 0)
                    row = "".join(f"{statistics.median(x):14.2f} ({max(x):5.2f})" for x in times)
                    print(f"{title + ', ' + what:54}{row}", flush=True)


if __name__ == "__main__":
    main()
