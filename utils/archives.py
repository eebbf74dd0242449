"""Read files inside of zip archives that are not trusted, or unpack one folder of them.

    files = zipped_files("gtFine_trainvaltest.zip")     # {"gtFine/val/...": ZippedFile, ...}
    files["gtFine/val/..."].read_bytes()

Every member's name and size is checked before anything is read or written.
"""

import functools
import io
import os
import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from utils.files import check_room
from utils.progress import progress

# On a disk, one read of this size takes little longer than a small one, and on a mounted drive far
# less than many small ones.  Neighbouring members come from the same read.
_READ_BYTES = 4 << 20
LARGEST_MEMBER, LARGEST_ARCHIVE = 1 << 26, 1 << 31  # bytes unpacked; more is refused

# RuntimeError: encrypted.  FileExistsError, NotADirectoryError: two members of one name, or a file
# that is also a folder.
_NOT_WHOLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
_NOT_WHOLE += (FileExistsError, NotADirectoryError)
_DAMAGED = "{archive} is not a whole zip file ({error}): download it once more."


def plain_members(file: zipfile.ZipFile, prefix: str = "") -> list[zipfile.ZipInfo]:
    """List the files below prefix; raise if a member of the archive is unsafe.

    Raises:
        ValueError: any member has a name that leads out of the archive's own folders (absolute,
            "..", a drive or a backslash); one below prefix is a link or too large for a picture.
    """
    members = []
    for member in file.infolist():
        name = member.orig_filename
        parts = name.removesuffix("/").split("/")
        is_plain = not any(part in ("", ".", "..") or re.search(r"[\\:\0]", part) for part in parts)
        is_taken = name.startswith(prefix) and not member.is_dir()
        kind = stat.S_IFMT(member.external_attr >> 16)
        if not is_plain or (is_taken and kind not in (0, stat.S_IFREG)):
            raise ValueError(
                f"{file.filename} holds {name!r}, which is no plain file inside the archive's own "
                "folders: nothing was unpacked; delete the archive and get it from its source."
            )
        # zipfile never reads more of a member than this.
        if is_taken and member.file_size > LARGEST_MEMBER:
            raise ValueError(
                f"{file.filename} holds {name!r} of {member.file_size} bytes, expected at most "
                f"{LARGEST_MEMBER}: nothing was unpacked; get the archive from its source."
            )
        members += [member] if is_taken else []
    return members


class ZippedFile(NamedTuple):
    """One member of a zip archive; reads like a path, and may be sent to other processes."""

    archive: Path
    member: str
    crc: int
    size: int  # bytes, unpacked

    def read_bytes(self) -> bytes:
        """The member's content, checked against its checksum.

        Raises ValueError if the archive is damaged there.
        """
        try:
            # Processes that share an open file also share its position: one for each of them.
            return _open(self.archive, os.getpid()).read(self.member)
        except _NOT_WHOLE as error:
            raise ValueError(_DAMAGED.format(archive=self, error=error)) from error

    def __str__(self) -> str:
        return f"{self.archive}, member {self.member},"


@functools.lru_cache(maxsize=4)
def _open(archive: Path, process: int) -> zipfile.ZipFile:
    # With a large buffer the reads are large; zipfile itself asks for a few kB at a time.
    return zipfile.ZipFile(io.BufferedReader(io.FileIO(archive), _READ_BYTES))


def zipped_files(archive: str | Path) -> dict[str, ZippedFile]:
    """All files of a zip archive by their names, in the archive's order.

    Raises:
        FileNotFoundError: there is no such archive.
        ValueError: it is no zip archive, was cut short, or has an unsafe member, see
            plain_members().
    """
    archive = Path(archive)
    if not archive.is_file():
        raise FileNotFoundError(f"{archive} is not there: check the path, or download it.")
    try:
        with zipfile.ZipFile(archive) as file:
            members = plain_members(file)
    except _NOT_WHOLE as error:
        raise ValueError(_DAMAGED.format(archive=archive, error=error)) from error
    return {
        info.filename: ZippedFile(archive, info.filename, info.CRC, info.file_size)
        for info in sorted(members, key=lambda info: info.header_offset)
    }


def extract(archive: str | Path, folder: str | Path, prefix: str) -> list[zipfile.ZipInfo]:
    """Unpack the files of a zip archive below prefix into folder, which must not exist yet.

    folder appears only when everything is unpacked and all checksums fit.

    Returns:
        The members that were taken.

    Raises:
        ValueError: a member that leads out of the folder, is a link or too large; a damaged archive
            or one without anything below prefix.
        FileExistsError: folder is there.
        OSError: the disk has too little room.
    """
    folder, prefix = Path(folder), prefix.rstrip("/") + "/"
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: move it away to unpack {archive} anew.")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # what a killed process left
    try:
        with zipfile.ZipFile(archive) as file:
            members = plain_members(file, prefix)
            total = sum(member.file_size for member in members)
            if not members or total > LARGEST_ARCHIVE:
                raise ValueError(
                    f"{archive} holds {len(members)} files below {prefix}, {total} bytes in all; "
                    f"expected some, at most {LARGEST_ARCHIVE} bytes: nothing was unpacked; get "
                    "the archive from its source."
                )
            folder.parent.mkdir(parents=True, exist_ok=True)
            check_room(folder.parent, total)
            for member in progress(members, f"unpacking {folder.name}"):
                target = part / member.filename.removeprefix(prefix)
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open(member) as source, open(target, "xb") as copy:
                    shutil.copyfileobj(source, copy)
        os.replace(part, folder)
    except _NOT_WHOLE as error:
        raise ValueError(_DAMAGED.format(archive=archive, error=error)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return members
