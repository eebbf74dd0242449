"""Verified, atomic downloads over HTTP; interrupted ones are resumed."""

import contextlib
import functools
import hashlib
import itertools
import os
import re
import time
from html import unescape
from pathlib import Path

import requests

from utils.files import DISK_FULL, check_room, disk_full
from utils.progress import progress

BLOCK = 1 << 16  # bytes that are read at once
PAUSE = 1.0  # seconds before the second attempt; doubled for each further one


class _Interrupted(Exception):
    """The file is incomplete, and another attempt may help."""


_WORTH_ANOTHER_ATTEMPT = (
    _Interrupted,
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)


def download(
    url: str,
    path: str | Path,
    *,
    md5: str | None = None,
    session: requests.Session | None = None,
    attempts: int = 5,
    timeout: float = 30,
) -> Path:
    """Download one file to path, where it appears only when it is complete and verified.

    Until then it grows beside path as .NAME.part, which a later call resumes if the server supports
    HTTP Range.  Without a hash only the length is checked, and the part is assumed to be of the
    same file.  An existing file is kept if its hash fits, or none is known.

    Args:
        url, path: from where, and the file's final name; its folder is made.
        md5: hexadecimal, if it is known.
        session: one that is logged in, where a site asks for it.
        attempts: how many attempts in a row may bring nothing new.
        timeout: seconds without a byte after which the connection counts as stalled.

    Raises:
        ConnectionError: the server refuses, or the attempts are used up.
        ValueError: a web page came instead of the file, or the hash differs.
        OSError: the disk has too little room.
    """
    path = Path(path)
    if path.is_file() and not hash_difference(path, "md5", md5):
        return path
    part = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    own = requests.Session() if session is None else contextlib.nullcontext(session)
    with own as session:
        for is_second_try in (False, True):
            resumed = _fetch(session, url, part, attempts, timeout)
            difference = hash_difference(part, "md5", md5)
            if not difference:
                os.replace(part, path)
                return path
            part.unlink()
            if is_second_try or not resumed:
                break  # else the part may have been another file's: once more from zero
    raise ValueError(
        f"{url} is not the file that was expected: {difference}.  It was deleted; try again later "
        "or from another network, and if it stays so, the file has changed at its source."
    )


def _fetch(session, url: str, part: Path, attempts: int, timeout: float) -> bool:
    """Download until part is complete -> whether it was resumed."""
    largest, failures, resumed = size_of(part), 0, False
    while True:
        resumed = resumed or size_of(part) > 0
        try:
            _fetch_once(session, url, part, timeout)
            return resumed
        except _WORTH_ANOTHER_ATTEMPT as error:
            size = size_of(part)
            failures = 0 if size > largest else failures + 1
            largest = max(largest, size)
            if failures >= attempts:
                raise ConnectionError(
                    f"{url} is still incomplete: {attempts} attempts in a row brought nothing new "
                    f"({error}).  Check the network and call again: {size} bytes are kept in "
                    f"{part}, and the download continues from there."
                ) from error
            print(f"The download was interrupted ({error}); trying again ...", flush=True)
        time.sleep(min(PAUSE * 2 ** max(failures - 1, 0), 30))


def _fetch_once(session, url: str, part: Path, timeout: float) -> None:
    """One request for the bytes that part lacks, or for all if the server knows no Range."""
    have = size_of(part)
    # With compression, lengths and ranges would not be those of the file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
        status = response.status_code
        start, total = _range(response)
        if status == 416 and have and total == have:
            return  # complete: an earlier call was killed before it renamed the file
        if (status == 416 and have) or (status == 206 and start != have):
            part.unlink()
            raise _Interrupted(f"the server does not go on at byte {have}")
        if status in (408, 425, 429) or status >= 500:
            raise _Interrupted(f"the server answered {status} {response.reason}")
        if status not in (200, 206):
            raise ConnectionError(
                f"{url} is not available: the server answered {status} {response.reason}.  Check "
                "the address (404), or if your account or network may have the file (401, 403)."
            )
        blocks = response.iter_content(BLOCK)
        first = next(blocks, b"")
        _refuse_web_page(url, response, first, is_start=status == 200)
        have = have if status == 206 else 0
        if total is not None:
            # The bytes of part are kept or overwritten.
            check_room(part.parent, total - size_of(part))
        try:
            name = part.stem.removeprefix(".")
            bar = progress(None, f"downloading {name}", total, have, unit="B")
            with open(part, "ab" if have else "wb") as file, bar:
                for block in itertools.chain([first], blocks):
                    file.write(block)
                    bar.update(len(block))
        except OSError as error:
            if error.errno in DISK_FULL:
                needed = None if total is None else total - size_of(part)
                raise disk_full(part.parent, needed) from error
            raise
    if total is not None and size_of(part) != total:
        raise _Interrupted(f"{size_of(part)} of {total} bytes came")


def _range(response) -> tuple[int, int | None]:
    """Where the body starts in the file, and the file's length, None if the server does not say."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    content_range = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)", content_range)
    start, total = match.groups() if match else (None, None)
    return int(start or -1), int(total) if total else None


def _refuse_web_page(url: str, response, first: bytes, is_start: bool) -> None:
    kind = response.headers.get("Content-Type", "").lower()
    starts_like_one = re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head)\b", first, re.I)
    if not kind.startswith("text/html") and not (is_start and starts_like_one):
        return
    title = re.search(rb"<title[^>]*>(.*?)</title", first, re.I | re.S)
    words = unescape(title[1].decode("utf-8", "replace")).split() if title else ["no title"]
    name = "".join(c for c in " ".join(words) if c.isprintable())[:80]
    raise ValueError(
        f"{url} sent a web page ({name}) instead of the file: probably a quota is used up, the "
        "site wants a login, or the network shows a page of its own first (hotel, campus).  Open "
        "the address in a browser, then call again."
    )


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def hash_difference(path: Path, name: str, expected: str | None) -> str:
    """How the hash of that name differs from the expected one, in words; "" if it does not."""
    found = hash_of(path, name) if expected else None
    return f"{name} {expected} was expected, {found} came" if found != expected else ""


def hash_of(path: Path, name: str) -> str:
    found = hashlib.new(name, usedforsecurity=False)
    with (
        open(path, "rb") as file,
        progress(None, f"checking {name}", size_of(path), unit="B") as bar,
    ):
        for block in iter(functools.partial(file.read, 1 << 20), b""):
            found.update(block)
            bar.update(len(block))
    return found.hexdigest()
