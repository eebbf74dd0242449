"""Downloads of one file, from a local server that stalls, cuts and lies."""

import errno
import hashlib
import shutil
import types
from pathlib import Path

import pytest
from local_server import DATA, PAGE, files

from utils.http_download import download

MD5 = hashlib.md5(DATA).hexdigest()


def test_a_file_comes_whole_and_is_not_downloaded_again(site, tmp_path):
    url = site.add("/file.zip", DATA)
    path = download(url, tmp_path / "new" / "file.zip", md5=MD5)
    assert path.read_bytes() == DATA and files(tmp_path) == ["new/file.zip"]
    assert download(url, path) == download(url, path, md5=MD5) == path
    assert site.ranges() == [None]
    assert download(site.add("/empty", b""), tmp_path / "empty").read_bytes() == b""


@pytest.mark.parametrize("chunked", [False, True], ids=["cut", "cut without a length"])
def test_it_goes_on_where_it_stopped(site, tmp_path, chunked):
    url = site.add("/file.zip", DATA, {"stop": 150_000, "chunked": chunked}, {})
    path = download(url, tmp_path / "file.zip", md5=MD5)
    assert path.read_bytes() == DATA and files(tmp_path) == ["file.zip"]
    first, second = site.ranges()
    assert first is None and 100_000 < int(second[len("bytes=") : -1]) <= 150_000


def test_a_stalled_connection_is_given_up(site, tmp_path):
    stalling = []  # connections that the server still holds when the second request comes

    def second(handler):
        stalling.append(site.stalling)
        return {}

    # The server stalls for longer than timeout, and for less than download()'s default of 30 s.
    url = site.add("/file.zip", DATA, {"stop": 150_000, "stall": 20}, second)
    path = download(url, tmp_path / "file.zip", md5=MD5, timeout=0.3)
    assert path.read_bytes() == DATA and stalling == [1]
    first, second = site.ranges()
    assert first is None and 100_000 < int(second[len("bytes=") : -1]) <= 150_000


def test_progress_gives_new_attempts(site, tmp_path):
    stops = [{"stop": stop} for stop in (70_000, 140_000, 210_000, 280_000)]
    path = download(site.add("/file.zip", DATA, *stops, {}), tmp_path / "file.zip", attempts=1)
    assert path.read_bytes() == DATA and len(site.ranges()) == 5


@pytest.mark.parametrize(
    "part, answers, ranges",
    [
        (b"", [{}], [None]),
        (b"", [{"status": 503, "data": PAGE, "kind": "text/html"}, {}], [None, None]),
        (b"", [{"stop": 150_000}, {"knows_range": False}], None),
        (b"", [{"stop": 150_000}, {"shift": 1000}, {}], None),  # starts over, too
        (b"", [{"stop": 100_000}, {"piece": 150_000}, {}], None),
        (DATA, [{}], ["bytes=300000-"]),
        (DATA + b"?", [{}], ["bytes=300001-", None]),
        (b"x" * 1000, [{}], ["bytes=1000-", None]),
    ],
    ids="older overloaded no_range wrong_range pieces whole_part long_part wrong_part".split(),
)
def test_the_right_file_comes(site, tmp_path, part, answers, ranges):
    """Whatever lies there already, and however the server answers."""
    (tmp_path / "file.zip").write_bytes(b"an older version")
    if part:
        (tmp_path / ".file.zip.part").write_bytes(part)
    path = download(site.add("/file.zip", DATA, *answers), tmp_path / "file.zip", md5=MD5)
    assert path.read_bytes() == DATA and files(tmp_path) == ["file.zip"]
    assert site.ranges() == ranges if ranges else len(site.ranges()) == len(answers)


def test_what_stays_cut_is_kept_for_a_later_call(site, tmp_path):
    (tmp_path / "file.zip").write_bytes(b"an older version")
    url = site.add("/file.zip", DATA, {"stop": 150_000})
    with pytest.raises(ConnectionError, match=r"2 attempts in a row .*call again: \d+ bytes are"):
        download(url, tmp_path / "file.zip", md5=MD5, attempts=2)
    assert (tmp_path / "file.zip").read_bytes() == b"an older version"
    assert files(tmp_path) == [".file.zip.part", "file.zip"]

    site.add("/file.zip", DATA)
    download(url, tmp_path / "file.zip", md5=MD5)
    assert (tmp_path / "file.zip").read_bytes() == DATA and files(tmp_path) == ["file.zip"]
    assert site.ranges()[-1] is not None


def test_nobody_listens(site, tmp_path):
    with pytest.raises(ConnectionError, match="http://127.0.0.1:1/file is still incomplete"):
        download("http://127.0.0.1:1/file", tmp_path / "file", attempts=2)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "kind, page",
    [("text/html; charset=utf-8", b"<!-- sorry -->" + PAGE), ("application/octet-stream", PAGE)],
)
def test_a_web_page_instead_of_the_file(site, tmp_path, kind, page):
    url = site.add("/file.zip", page, {"kind": kind})
    with pytest.raises(ValueError, match=r"sent a web page \(Quota & exceeded\) .*quota .*login"):
        download(url, tmp_path / "file.zip")
    assert files(tmp_path) == [] and len(site.ranges()) == 1


def test_a_web_page_leaves_the_part_alone(site, tmp_path):
    part = tmp_path / ".file.zip.part"
    part.write_bytes(DATA[:1000])
    url = site.add("/file.zip", PAGE, {"kind": "text/html", "knows_range": False})
    with pytest.raises(ValueError, match="sent a web page"):
        download(url, tmp_path / "file.zip")
    assert part.read_bytes() == DATA[:1000]


@pytest.mark.parametrize("had_part", [False, True])
def test_wrong_bytes(site, tmp_path, had_part):
    if had_part:
        (tmp_path / ".file.zip.part").write_bytes(DATA[:1000])
    wrong = DATA[:-1] + b"?"
    url = site.add("/file.zip", wrong)
    (tmp_path / "file.zip").write_bytes(b"an older version")
    with pytest.raises(ValueError) as raised:
        download(url, tmp_path / "file.zip", md5=MD5)
    for words in (url, MD5, hashlib.md5(wrong).hexdigest(), "expected", "try again"):
        assert words in str(raised.value)
    assert files(tmp_path) == ["file.zip"] and len(site.ranges()) == 1 + had_part
    assert (tmp_path / "file.zip").read_bytes() == b"an older version"


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_is_not_asked_again(site, tmp_path, status):
    url = site.add("/file.zip", b"no", {"status": status})
    with pytest.raises(ConnectionError, match=rf"file.zip is not available: .* answered {status} "):
        download(url, tmp_path / "file.zip")
    assert files(tmp_path) == [] and len(site.ranges()) == 1


def test_a_length_that_is_too_long(site, tmp_path):
    url = site.add("/file.zip", DATA, {"length": len(DATA) + 1000, "knows_range": False})
    with pytest.raises(ConnectionError, match="is still incomplete"):
        download(url, tmp_path / "file.zip", attempts=2)
    assert files(tmp_path) == [".file.zip.part"]


def test_a_length_that_is_too_short(site, tmp_path):
    url = site.add("/file.zip", DATA, {"length": len(DATA) - 1000})
    with pytest.raises(ValueError, match=f"{MD5} was expected"):
        download(url, tmp_path / "file.zip", md5=MD5)
    assert files(tmp_path) == []


def test_a_full_disk_is_noticed_before_the_download(site, tmp_path, monkeypatch):
    (tmp_path / ".file.zip.part").write_bytes(DATA[:100_000])
    url = site.add("/file.zip", DATA)
    usage = types.SimpleNamespace(free=199_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match=r"0.2 MB are free, but 0.2 MB more are needed") as raised:
        download(url, tmp_path / "file.zip")
    assert raised.value.errno == errno.ENOSPC and raised.value.filename == str(tmp_path)
    assert files(tmp_path) == [".file.zip.part"]
    usage.free = 200_000
    assert download(url, tmp_path / "file.zip").read_bytes() == DATA


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' /dev/full")
def test_a_disk_that_fills_up_on_the_way(site, tmp_path):
    (tmp_path / ".file.zip.part").symlink_to("/dev/full")
    url = site.add("/file.zip", DATA, {"chunked": True})
    with pytest.raises(OSError, match="more than that is needed: make room") as raised:
        download(url, tmp_path / "file.zip")
    assert raised.value.errno == errno.ENOSPC and not (tmp_path / "file.zip").exists()


def test_the_bar_follows_the_course_switch(site, tmp_path, monkeypatch, capsys):
    url = site.add("/file.zip", DATA)
    for shown in ("0", "1"):
        monkeypatch.setenv("COURSE_PROGRESS", shown)
        download(url, tmp_path / shown)
        assert ("downloading" in capsys.readouterr().err) == (shown == "1")
