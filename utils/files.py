"""Files that are there whole, or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]  # the folder of the README


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Call write(temporary path) and move the result to path; the folder is made.

    An error, or a kill, leaves what was at path before as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because a rename is atomic only within one file system.
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        write(Path(name))
        # mkstemp makes files private; give this one the rights that open() would have given.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
