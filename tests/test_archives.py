"""Zip archives: read where they lie, and never trusted.  (Unpacking: test_downloads.)"""

import multiprocessing
import pickle
import zipfile

import pytest

from utils import archives
from utils.archives import zipped_files

FORK = multiprocessing.get_context("fork")


def a_zip(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_read_where_they_lie(compression, tmp_path):
    content = {"b/2.png": b"two" * 500, "a/1.png": b"one", "readme": b""}
    path = a_zip(tmp_path / "a.zip", content | {"a/": b""}, compression)
    files = zipped_files(str(path))
    assert list(files) == list(content)  # as they lie there, without the folder
    assert {name: file.read_bytes() for name, file in files.items()} == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]
    again = pickle.loads(pickle.dumps(files["b/2.png"]))
    assert again.read_bytes() == content["b/2.png"] and str(path) in str(again)


def test_processes_that_read_at_once_do_not_disturb_one_another(tmp_path):
    """An open file that two processes inherit has one position for both."""
    content = {f"{i}": bytes([i]) * (1 << 20) for i in range(12)}
    files = zipped_files(a_zip(tmp_path / "a.zip", content, zipfile.ZIP_STORED))
    files["0"].read_bytes()  # open here, before the others are made
    with FORK.Pool(3) as pool:
        found = pool.map(archives.ZippedFile.read_bytes, [*files.values()] * 3, chunksize=1)
    assert found == [*content.values()] * 3


def test_reads_are_few_and_large(tmp_path, monkeypatch):
    """On a mounted drive each read costs, however small it is."""
    reads = []

    class Counting(archives.io.FileIO):
        def readinto(self, buffer):
            count = super().readinto(buffer)
            reads.append(count)
            return count

    content = {f"{i:03d}": bytes([i]) * 30_000 for i in range(100)}
    files = zipped_files(a_zip(tmp_path / "a.zip", content, zipfile.ZIP_STORED))
    monkeypatch.setattr(archives.io, "FileIO", Counting)
    assert [file.read_bytes() for file in files.values()] == [*content.values()]
    assert len(reads) < 10  # 100 members of 30 kB each


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "C:\\evil", "a\\evil"])
def test_hostile_names_are_refused(name, tmp_path):
    path = a_zip(tmp_path / "a.zip", {"good": b"1", name: b"2"})
    with pytest.raises(ValueError, match="which is no plain file inside"):
        zipped_files(path)


def test_what_is_no_archive(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.zip is not there"):
        zipped_files(tmp_path / "none.zip")
    path = a_zip(tmp_path / "a.zip", {"a": b"one" * 1000})
    whole = path.read_bytes()
    for content in (whole[:-30], b"<html>login</html>", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.zip is not a whole zip file.*download it once"):
            zipped_files(path)


def test_a_damaged_member(tmp_path):
    path = a_zip(tmp_path / "a.zip", {"a": b"one" * 1000, "b": b"two"}, zipfile.ZIP_STORED)
    files = zipped_files(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"oneoneone", b"oneTWOone", 1))
    with pytest.raises(ValueError, match=r"a\.zip, member a, is not a whole zip file.*CRC"):
        files["a"].read_bytes()
    assert files["b"].read_bytes() == b"two"
