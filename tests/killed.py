"""Work in new processes, killed at random moments and run again.

COURSE_KILLS=20 in the environment kills more often.
"""

import contextlib
import multiprocessing
import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

# Processes are forked from a server that has imported the modules, but not computed anything.
SERVER = multiprocessing.get_context("forkserver")
MODULES = ["spade.stages", "utils.stages", "utils.photo_folder", "utils.downloads"]
SERVER.set_forkserver_preload(MODULES)
KILLS = int(os.environ.get("COURSE_KILLS", "2"))


def killed_and_resumed(work: Callable[[Path], object], folder: Path) -> tuple[Path, Iterator[Path]]:
    """Run work(folder) without a kill -> its folder; and folders where it was killed twice.

    work is a function of a test module; it runs in new processes.
    """
    run_in_process(_nothing, folder / "warm")  # only starts the server
    start = time.monotonic()
    run_in_process(work, folder / "whole")
    seconds = time.monotonic() - start

    def others() -> Iterator[Path]:
        moments, kills = random.Random(0), 0
        for number in range(0, KILLS, 2):
            place = folder / f"killed{number}"
            # Each time before its half: what is left when it begins again takes longer than that.
            for _ in range(2):
                kills += run_in_process(work, place, moments.random() / 2 * seconds)
            run_in_process(work, place)
            yield place
        assert kills, "each process finished before it could be killed"

    return folder / "whole", others()


def run_in_process(
    work: Callable[[Path], object], folder: Path, seconds: float | None = None
) -> bool:
    """Run work(folder) in a new process, and kill it and its own processes after these seconds ->
    whether it was killed.

    Raises AssertionError if it ended with an error.
    """
    errors = folder.with_name(f"{folder.name}.errors.txt")
    process = SERVER.Process(target=_noting, args=(work, folder, errors))
    process.start()
    process.join(seconds)
    was_killed = process.is_alive()
    with contextlib.suppress(ProcessLookupError):  # killed before it had a group, or it is over
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
    if not was_killed and process.exitcode:
        raise AssertionError(errors.read_text() if errors.exists() else process.exitcode)
    return was_killed


def _noting(work: Callable[[Path], object], folder: Path, errors: Path) -> None:
    os.setpgrp()
    # Its own processes start as in a user's; with a server each, they would take seconds.
    multiprocessing.set_start_method(None, force=True)
    try:
        work(folder)
    except BaseException:
        errors.write_text(traceback.format_exc())
        raise


def _nothing(folder: Path) -> None:
    pass
