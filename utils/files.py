"""Atomic file writes, free disk space, and the number of usable cores."""

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]  # the folder of the README
# Networks trained on this machine.  Tests and the tool that writes the notebooks set an empty one.
RUNS = Path(os.environ.get("COURSE_RUNS", PROJECT / "runs"))
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # the second: the user's quota is used up


def usable_cores() -> int:
    """How many cores this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_room(folder: Path, needed: int, hint: str = "") -> None:
    """Raise disk_full() if folder's disk has less than that many bytes free."""
    if needed > shutil.disk_usage(folder).free:
        raise disk_full(folder, needed, hint)


def disk_full(folder: Path, needed: int | None, hint: str = "") -> OSError:
    """The error for a disk with too little room: what is free, what is needed, what to do."""
    free = f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB are free"
    more = "more than that is" if needed is None else f"{needed / 1e6:,.1f} MB more are"
    advice = f"make room, or choose a folder on another disk{hint}"
    return OSError(errno.ENOSPC, f"{free}, but {more} needed: {advice}", str(folder))


def write_atomically(
    path: str | Path, write: Callable[[Path], object], sole_writer: bool = False
) -> None:
    """Call write(temporary path) and move the result to path; the folder is made.

    After an error or a kill, path holds what it held before.

    Args:
        sole_writer: no other process writes to path.  The temporary file's name is then fixed, and
            the next call overwrites what a killed one left: for large files.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because a rename is atomic only within one file system.
    unique = "" if sole_writer else f".{uuid.uuid4().hex[:8]}"
    name = path.name
    if len(name) > 60:  # with .part it could be longer than the 255 bytes of a file's name
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    temporary = path.with_name(f".{name}{unique}.part")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def copy_may_fail(path: str | Path) -> Iterator[None]:
    """Turn an OSError inside into a warning that path was not saved.

    For copies of what is also shown, or kept elsewhere: a figure, a preview.
    """
    try:
        yield
    except OSError as error:
        warnings.warn(f"{path} was not saved, everything else continues: {error}", stacklevel=3)
