"""Kill work at random moments and run it again.  COURSE_KILLS=20 for more kills."""

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Processes are forked from a server that has imported the modules, but not computed anything.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["spade.stages", "utils.stages", "utils.photo_folder"])
KILLS = int(os.environ.get("COURSE_KILLS", "2"))


def killed_and_resumed(
    work: Callable[[Path], object], folder: Path, times: int = 1
) -> tuple[Path, Iterator[Path]]:
    """Run work(folder) without a kill -> its folder; and folders where it was killed and repeated.

    Args:
        work: a function of a test module; it runs in new processes.
        times: number of kills before it may finish.
    """
    _run(os.getcwd, folder / "warm")  # only starts the server
    start = time.monotonic()
    _run(work, folder / "whole")
    seconds = time.monotonic() - start

    def others() -> Iterator[Path]:
        nonlocal seconds
        moments, kills = random.Random(0), 0
        for number in range(KILLS):
            place = folder / f"killed{number}"
            share = (number + moments.random()) / KILLS  # early and late ones, however few
            for _ in range(times):
                start = time.monotonic()
                if _run(work, place, share * seconds):
                    kills += 1
                else:  # it finished earlier than the first run
                    seconds = time.monotonic() - start
            _run(work, place)
            yield place
        assert kills, "each process finished before it could be killed"

    return folder / "whole", others()


def _run(work: Callable, folder: Path, seconds: float | None = None) -> bool:
    """Run work(folder) in a new process, and kill it after these seconds -> whether it was killed.

    Raises AssertionError if it ended with an error.
    """
    arguments = () if work is os.getcwd else (folder,)
    process = SERVER.Process(target=work, args=arguments)
    process.start()
    process.join(seconds)
    was_killed = process.is_alive()
    process.kill()
    process.join()
    assert was_killed or process.exitcode == 0
    return was_killed
