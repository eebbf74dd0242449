"""What the benchmarks share: two sides in turn, and the machine in a line."""

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project, not installed

from utils.files import usable_cores, write_atomically

# Of a training, in each round: seconds on a CPU.  On a GPU, what comes before the first step would
# outweigh so few.
STEPS = 50 if torch.cuda.is_available() else 4


def in_turn(rounds: int, **sides: Callable[[], object]) -> list[float]:
    """Median seconds of each side; before the first round each runs once for nothing."""
    seconds = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return [statistics.median(values) for values in seconds.values()]


def store(path: Path, about: str, **results: list) -> None:
    """Write results as JSON, with what they are about and the machine that they are from."""
    text = json.dumps({"about": about, "machine": machine(), **results}, indent=1) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def machine() -> str:
    """Cores that are used, processor, GPU, Python and torch in one line."""
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
