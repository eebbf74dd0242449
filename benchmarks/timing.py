"""Shared by the benchmarks: timing several sides in turn, storing results, naming the machine."""

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project, not installed

from utils.files import PROJECT, usable_cores, write_atomically

# Steps of a training in each round.  On a GPU more are needed, because they are short compared with
# the preparations before the first step.
STEPS = 50 if torch.cuda.is_available() else 4


def in_turn(rounds: int, **sides: Callable[[], object]) -> list[float]:
    """Return the median seconds of each side, after one round that is not timed."""
    seconds = {name: [] for name in sides}
    # Not progress(): the benchmarks hide the bars of what they time.
    for number in tqdm(range(rounds + 1), "rounds", leave=False):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return [statistics.median(values) for values in seconds.values()]


@contextlib.contextmanager
def another_python(
    program: str, *arguments: str, folder: str | Path = PROJECT, **more: str
) -> Iterator[Callable[[str], list[str]]]:
    """Run a program in a new Python on a CPU, and kill it in the end -> ask(line), which sends a
    line to its stdin and returns the words of the line that it answers.

    Args:
        folder: where it runs, and imports from.
        more: in its environment.  How threads wait is not inherited: utils has set it here.
    """
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "COURSE_PROGRESS": "0"}
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        environment.pop(name, None)
    environment |= {"PYTHONPATH": str(folder)} | more
    command = [sys.executable, "-c", program, *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=folder, env=environment, **pipes)

    def ask(line: str) -> list[str]:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        return process.stdout.readline().split()

    try:
        yield ask
    finally:
        process.kill()
        process.wait()


def store(path: Path, about: str, **results: list) -> None:
    """Write results as JSON, with a description and the machine."""
    text = json.dumps({"about": about, "machine": machine(), **results}, indent=1) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def store_by(key: str, path: Path, about: str, row: dict) -> None:
    """Store one row in a file of rows; it takes the place of the row with the same key.

    Each row names its own machine, since the rows may have been measured on several.
    """
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    rows = [other for other in rows if other[key] != row[key]] + [row | {"machine": machine()}]
    rows.sort(key=lambda other: other[key])
    text = json.dumps({"about": about, "rows": rows}, indent=1) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def machine() -> str:
    """Describe used cores, processor, GPU, Python and torch in one line."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    cores, threads = usable_cores(), torch.get_num_threads()
    used = f"{cores} cores" if threads >= cores else f"{threads} of {cores} cores"
    python = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{used}, {_processor()}{gpu}, {python}"


def _processor() -> str:
    facts = Path("/proc/cpuinfo")  # platform.processor() is empty on Linux
    lines = facts.read_text().splitlines() if facts.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
