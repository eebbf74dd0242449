"""Zip archives: read where they lie, unpacked, and never trusted."""

import io
import multiprocessing
import pickle
import stat
import zipfile
from pathlib import Path

import pytest
from local_server import DATA, PAGE, files

from utils import archives
from utils.archives import extract, zipped_files

FORK = multiprocessing.get_context("fork")


def a_zip(path, members, compression=zipfile.ZIP_DEFLATED):
    """members: name (or ZipInfo) -> bytes; a list of pairs where a name occurs twice."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items() if isinstance(members, dict) else members:
            file.writestr(name, data)
    return path


def a_member(name, mode):
    """An entry with a Unix file type and rights."""
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    return member


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_read_where_they_lie(compression, tmp_path):
    content = {"b/2.png": b"two" * 500, "a/1.png": b"one", "readme": b""}
    path = a_zip(tmp_path / "a.zip", content | {"a/": b""}, compression)
    members = zipped_files(str(path))
    assert list(members) == list(content)  # as they lie there, without the folder
    assert {name: file.read_bytes() for name, file in members.items()} == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]
    again = pickle.loads(pickle.dumps(members["b/2.png"]))
    assert again.read_bytes() == content["b/2.png"] and str(path) in str(again)


def test_processes_that_read_at_once_do_not_disturb_one_another(tmp_path):
    """An open file that two processes inherit has one position for both."""
    content = {f"{i}": bytes([i]) * (1 << 20) for i in range(12)}
    members = zipped_files(a_zip(tmp_path / "a.zip", content, zipfile.ZIP_STORED))
    members["0"].read_bytes()  # open here, before the others are made
    with FORK.Pool(3) as pool:
        found = pool.map(archives.ZippedFile.read_bytes, [*members.values()] * 3, chunksize=1)
    assert found == [*content.values()] * 3


def test_reads_are_few_and_large(tmp_path, monkeypatch):
    """On a mounted drive each read costs, however small it is."""
    reads = []

    class Counting(io.FileIO):
        def readinto(self, buffer):
            count = super().readinto(buffer)
            reads.append(count)
            return count

    content = {f"{i:03d}": bytes([i]) * 30_000 for i in range(100)}
    members = zipped_files(a_zip(tmp_path / "a.zip", content, zipfile.ZIP_STORED))
    monkeypatch.setattr(io, "FileIO", Counting)
    assert [file.read_bytes() for file in members.values()] == [*content.values()]
    assert 0 < len(reads) < 10  # 100 members of 30 kB each


def test_an_archive_that_is_missing_or_damaged(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.zip is not there"):
        zipped_files(tmp_path / "none.zip")
    path = a_zip(tmp_path / "a.zip", {"a": b"one" * 1000, "b": b"two"}, zipfile.ZIP_STORED)
    members = zipped_files(path)
    content = path.read_bytes()
    for damaged in (content[:-30], b"<html>login</html>", b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.zip is not a whole zip file.*download it once"):
            zipped_files(path)
    path.write_bytes(content.replace(b"oneoneone", b"oneTWOone", 1))
    with pytest.raises(ValueError, match=r"a\.zip, member a, is not a whole zip file.*CRC"):
        members["a"].read_bytes()
    assert members["b"].read_bytes() == b"two"


def test_extract_takes_what_is_below_the_prefix(tmp_path):
    members = {"a/": b"", "a/b/": b"", "a/b/1.png": b"one", "a/b/c/2.png": b"two", "a/bc": b"no"}
    archive = a_zip(tmp_path / "a.zip", members | {"README": b"no"})
    taken = extract(archive, tmp_path / "in" / "b", "a/b")
    assert [member.filename for member in taken] == ["a/b/1.png", "a/b/c/2.png"]
    assert files(tmp_path) == ["a.zip", "in/b/1.png", "in/b/c/2.png"]
    assert (tmp_path / "in/b/c/2.png").read_bytes() == b"two"
    with pytest.raises(FileExistsError, match="is there already: move it away"):
        extract(archive, tmp_path / "in" / "b", "a/b")


@pytest.mark.parametrize(
    "name, mode",
    [
        *((name, 0) for name in ("../evil", "a/b/../../../evil", "/abs", "C:\\x", "a\\x", "a//b")),
        ("a/b/c:x", 0),
        ("a/b/link", stat.S_IFLNK | 0o777),
        ("a/b/pipe", stat.S_IFIFO | 0o666),
    ],
)
def test_a_hostile_archive_is_refused(tmp_path, name, mode):
    members = [("a/b/1.png", b"one"), (a_member(name, mode), b"/etc/passwd")]
    archive = a_zip(tmp_path / "a.zip", members)
    for take in (zipped_files, lambda path: extract(path, tmp_path / "x" / "b", "a/b")):
        with pytest.raises(ValueError, match="which is no plain file inside") as raised:
            take(archive)
        assert repr(name) in str(raised.value)
    assert files(tmp_path) == ["a.zip"] and not Path("/abs").exists()


def test_extract_refuses_a_bomb(tmp_path, monkeypatch):
    archive = a_zip(tmp_path / "a.zip", {"a/1": bytes(10_000), "a/2": bytes(10_000)})
    monkeypatch.setattr(archives, "LARGEST_ARCHIVE", 19_999)
    with pytest.raises(ValueError, match="2 files below a/, 20000 bytes in all"):
        extract(archive, tmp_path / "b", "a")
    monkeypatch.setattr(archives, "LARGEST_MEMBER", 9_999)
    with pytest.raises(ValueError, match="'a/1' of 10000 bytes, expected at most 9999"):
        extract(archive, tmp_path / "b", "a")
    assert files(tmp_path) == ["a.zip"]


def test_extract_refuses_what_is_not_whole(tmp_path):
    archive = a_zip(tmp_path / "a.zip", {"a/1": DATA}, zipfile.ZIP_STORED)
    whole = archive.read_bytes()
    both = [("a/1", b"file"), ("a/1/2/3", b"in a folder of that name")]
    crossed = a_zip(tmp_path / "double.zip", both).read_bytes()
    twice = [("a/1", b"one"), ("a/1", b"two")]
    with pytest.warns(UserWarning, match="Duplicate name"):
        doubled = a_zip(tmp_path / "double.zip", twice).read_bytes()
    for damaged in (whole[:-100], whole[:1000] + b"?" + whole[1001:], crossed, doubled, PAGE):
        archive.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a.zip is not a whole zip file .* once more"):
            extract(archive, tmp_path / "b", "a")
        assert files(tmp_path) == ["a.zip", "double.zip"] and not (tmp_path / "b").exists()
    with pytest.raises(ValueError, match="0 files below other/"):
        extract(a_zip(archive, {"a/1": b""}), tmp_path / "b", "other")
