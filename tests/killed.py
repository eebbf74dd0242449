"""Work that is killed at random moments, and done again.  COURSE_KILLS=20 for more kills."""

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# A server that has imported what is needed, and not yet computed anything, forks the processes.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["spade.stages", "utils.stages", "utils.photo_folder"])
KILLS = int(os.environ.get("COURSE_KILLS", "2"))


def killed_and_resumed(
    work: Callable[[Path], object], folder: Path, times: int = 1
) -> tuple[Path, Iterator[Path]]:
    """work(a folder) undisturbed -> that folder; and folders where it was killed, and done again.

    Args:
        work: a function of a test module; it runs in processes of its own.
        times: kills in a row, before it may come to its end.
    """
    _run(os.getcwd, folder / "warm")  # does nothing, but starts the server
    start = time.monotonic()
    _run(work, folder / "whole")
    seconds = time.monotonic() - start

    def others() -> Iterator[Path]:
        moments, kills = random.Random(0), 0
        for number in range(KILLS):
            there = folder / f"killed{number}"
            share = (number + moments.random()) / KILLS  # early and late ones, however few
            kills += sum(_run(work, there, share * seconds) for _ in range(times))
            _run(work, there)
            yield there
        assert kills, "each process had come to its end"

    return folder / "whole", others()


def _run(work: Callable, folder: Path, seconds: float | None = None) -> bool:
    """In a process of its own -> whether it had to be killed."""
    arguments = () if work is os.getcwd else (folder,)
    process = SERVER.Process(target=work, args=arguments)
    process.start()
    process.join(seconds)
    was_killed = process.is_alive()
    process.kill()
    process.join()
    assert was_killed or process.exitcode == 0
    return was_killed
