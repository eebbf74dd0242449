"""CamVid, Cityscapes and the SPADE generator, from a local server in the place of theirs."""

import getpass
import hashlib
import io
import json
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import time
import traceback
import types
from pathlib import Path

import pytest
import requests
import torch
from killed import SERVER
from local_server import DATA, PAGE, files
from requests.adapters import HTTPAdapter
from test_archives import a_member, a_zip

import spade
from utils import downloads, http_download
from utils.downloads import (
    download_camvid,
    download_cityscapes,
    download_spade_generator,
    git_tree_id,
)

PASSWORD = "correct-horse-battery"


def test_git_tree_id_is_what_git_says(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert git_tree_id(empty) == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # known to every git
    folder = tmp_path / "folder"
    folder.mkdir()
    contents = {"b.png": b"two", "a-1.png": DATA, "a.png": b"", "B.png": b"\n\r\n", "a/1.png": b"1"}
    (folder / "a").mkdir()
    for name, data in contents.items():
        (folder / name).write_bytes(data)

    def git(*arguments):
        command = ["git", "-c", "core.autocrlf=false", *arguments]
        return subprocess.check_output(command, cwd=folder, text=True).strip()

    git("init", "--quiet", f"--separate-git-dir={tmp_path / 'git'}")
    (folder / ".git").unlink()
    there = (f"--git-dir={tmp_path / 'git'}", f"--work-tree={folder}")
    git(*there, "add", ".")
    assert git_tree_id(folder) == git(*there, "write-tree")
    git(*there, "update-index", "--chmod=+x", "b.png")
    assert git_tree_id(folder, executable=["b.png"]) == git(*there, "write-tree")


@pytest.fixture
def camvid(site, tmp_path, monkeypatch):
    """A tiny CamVid at the server; its archive's bytes."""
    members, trees = {}, {}
    for name in downloads.CAMVID_TREES:
        folder = tmp_path / "original" / name
        folder.mkdir(parents=True)
        for i in range(2):
            data = random.Random(f"{name}{i}").randbytes(20_000)
            (folder / f"{i}.png").write_bytes(data)
            mode = stat.S_IFREG | 0o755 if (name, i) == ("val", 1) else 0
            members[a_member(f"{downloads.CAMVID_PREFIX}/{name}/{i}.png", mode)] = data
        trees[name] = git_tree_id(folder, ["1.png"] if name == "val" else [])
    members[f"{downloads.CAMVID_PREFIX}/train.txt"] = b"not checked, so not taken"
    data = a_zip(tmp_path / "camvid.zip", members).read_bytes()
    shutil.rmtree(tmp_path / "original")
    (tmp_path / "camvid.zip").unlink()
    monkeypatch.setattr(downloads, "CAMVID_TREES", trees)
    monkeypatch.setattr(downloads, "CAMVID_URL", site.add("/file.zip", data))
    return data


CAMVID_FILES = sorted(
    f"{split}{kind}/{i}.png"
    for split in ("train", "val", "test")
    for kind in ("", "annot")
    for i in (0, 1)
)


def test_camvid_comes_by_one_call(site, tmp_path, camvid, capsys):
    folder = tmp_path / "data" / "camvid"
    downloads.main(["camvid", "--folder", str(folder)])
    assert files(tmp_path) == [f"data/camvid/{name}" for name in CAMVID_FILES]
    assert os.listdir(folder.parent) == ["camvid"]
    assert (folder / "val/0.png").read_bytes() == random.Random("val0").randbytes(20_000)
    printed = capsys.readouterr().out
    assert printed.count("CC BY-NC 4.0") == 1 and downloads.CAMVID_URL in printed
    assert f"camvid is in {folder}" in printed

    assert download_camvid(folder) == folder
    assert len(site.ranges()) == 1 and capsys.readouterr().out == ""


def test_camvid_that_was_changed_is_refused(site, tmp_path, camvid, monkeypatch):
    right = downloads.CAMVID_TREES["valannot"]
    monkeypatch.setitem(downloads.CAMVID_TREES, "valannot", "0" * 40)
    with pytest.raises(ValueError, match=f"folder valannot differs .* {'0' * 40} was.* {right} ca"):
        download_camvid(tmp_path / "camvid")
    assert os.listdir(tmp_path) == []
    site.add("/file.zip", camvid[:-100])
    with pytest.raises(ValueError, match="not a whole zip file"):
        download_camvid(tmp_path / "camvid")
    site.add("/file.zip", PAGE)
    with pytest.raises(ValueError, match="sent a web page"):
        download_camvid(tmp_path / "camvid")
    assert os.listdir(tmp_path) == []


def test_camvid_folders_that_were_there(site, tmp_path, camvid):
    part = tmp_path / "part"
    (part / "train").mkdir(parents=True)
    (part / "train" / "mine.png").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="lacks trainannot, val, valannot, test, testannot"):
        download_camvid(part)
    assert files(part) == ["train/mine.png"] and site.ranges() == []

    for name in CAMVID_FILES:  # as `git clone` leaves it
        (tmp_path / "clone" / "CamVid" / name).parent.mkdir(parents=True, exist_ok=True)
    assert download_camvid(tmp_path / "clone") == tmp_path / "clone" and site.ranges() == []

    (tmp_path / "empty").mkdir()
    assert files(download_camvid(tmp_path / "empty")) == CAMVID_FILES


def download_camvid_from(url, folder):
    """In a new process, which knows nothing of the local server."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    downloads.CAMVID_URL = url
    download_camvid(folder)


def test_camvid_after_a_kill_goes_on(site, tmp_path, camvid):
    site.add("/file.zip", camvid, {"stop": 150_000, "stall": 30}, {})
    part = tmp_path / ".camvid.part" / ".archive.zip.part"
    arguments = downloads.CAMVID_URL, tmp_path / "camvid"
    process = SERVER.Process(target=download_camvid_from, args=arguments)
    process.start()
    try:
        until = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size > 100_000):
            assert process.is_alive() and time.monotonic() < until
            time.sleep(0.01)
    finally:
        process.kill()
        process.join()
    assert os.listdir(tmp_path) == [".camvid.part"]
    size = part.stat().st_size

    assert files(download_camvid(tmp_path / "camvid")) == CAMVID_FILES
    assert os.listdir(tmp_path) == ["camvid"] and site.ranges() == [None, f"bytes={size}-"]


class ToLocalSite(HTTPAdapter):
    """Takes what is meant for the Cityscapes site to the local one."""

    def __init__(self, url):
        super().__init__()
        self.url = url

    def send(self, request, **options):
        local = request.copy()
        local.url = request.url.replace(downloads.CITYSCAPES_SITE, self.url)
        return super().send(local, **options)


@pytest.fixture
def cityscapes(site, monkeypatch):
    """A small Cityscapes site, to which every session leads."""

    def log_in(handler):
        if site.posts and f"username=me&password={PASSWORD}&submit=Login".encode() in site.posts:
            return {"status": 302, "headers": {"Set-Cookie": "login=1", "Location": "/"}}
        return {"kind": "text/html", "data": PAGE}

    def members_only(answer):
        def check(handler):
            if "login=1" in handler.headers.get("Cookie", ""):
                return answer
            return {"kind": "text/html", "data": PAGE}

        return check

    names = ["gtFine_trainvaltest.zip", "leftImg8bit_trainvaltest.zip", "other.zip"]
    listed = [{"name": name, "packageID": str(i), "size": "1MB"} for i, name in enumerate(names)]
    site.add("/login", b"", log_in)
    site.add("/downloads/?list", json.dumps(listed).encode(), members_only({}))
    site.zips = []
    for i in range(3):
        buffer = io.BytesIO()
        a_zip(buffer, {f"{i}.png": random.Random(i).randbytes(200_000)})
        site.zips.append(buffer.getvalue())
        md5 = hashlib.md5(site.zips[i]).hexdigest()
        site.add(f"/md5-sum/?packageID={i}", f"{md5}  {names[i]}\n".encode(), members_only({}))
        site.add(f"/file-handling/?packageID={i}", site.zips[i], members_only({}))

    class Session(requests.Session):
        def __init__(self):
            super().__init__()
            self.mount(downloads.CITYSCAPES_SITE, ToLocalSite(site.url))

    monkeypatch.setattr(requests, "Session", Session)


@pytest.fixture
def typed(monkeypatch):
    """What is typed at the prompts; a prompt that should not come fails."""

    def type_in(username=None, password=None):
        def answer(text):
            assert text is not None, "nothing should have been asked"
            return lambda prompt: text

        monkeypatch.setattr("builtins.input", lambda prompt: answer(username)(prompt))
        monkeypatch.setattr(getpass, "getpass", lambda prompt: answer(password)(prompt))

    type_in()
    return type_in


def assert_untold(folder, capsys, error=None):
    """The password is in no output, no file, and nothing that an exception of ours carries."""
    printed = capsys.readouterr()
    told = printed.out + printed.err
    for path in Path(folder).rglob("*"):
        told += path.name + (path.read_bytes().decode("latin-1") if path.is_file() else "")
    while error is not None:
        told += repr(error) + repr(vars(error)) + "".join(traceback.format_exception(error))
        told += repr(vars(getattr(error, "request", None) or Exception()))
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename in (downloads.__file__, http_download.__file__):
                told += repr(frame.f_locals)
        error = error.__cause__ or error.__context__
    assert PASSWORD not in told


def test_cityscapes_comes_as_whole_zip_files(site, tmp_path, cityscapes, typed, capsys):
    typed("me", PASSWORD)
    site.scripts["/file-handling/?packageID=1"][1].insert(0, {"stop": 100_000})
    folder = tmp_path / "cityscapes"
    downloads.main(["cityscapes", "--folder", str(folder)])
    assert files(folder) == ["gtFine_trainvaltest.zip", "leftImg8bit_trainvaltest.zip"]
    assert (folder / "leftImg8bit_trainvaltest.zip").read_bytes() == site.zips[1]
    assert site.ranges("/file-handling/?packageID=1")[1].startswith("bytes=")
    assert len(site.posts) == 1
    assert_untold(tmp_path, capsys)

    typed()
    count = len(site.requests)
    assert download_cityscapes(folder) == folder
    assert len(site.requests) == count
    # A half that another program left under the final name is not taken for the whole.
    (folder / "gtFine_trainvaltest.zip").write_bytes(site.zips[0][:1000])
    typed("me", PASSWORD)
    download_cityscapes(folder)
    assert (folder / "gtFine_trainvaltest.zip").read_bytes() == site.zips[0]


NO_LIST = "sent no list of packages"
OTHERS = {"data": b'[{"name": "gtFine.zip", "packageID": "0"}]'}


@pytest.mark.parametrize(
    "path, answers, error, words",
    [
        ("/login", [{}, {}], PermissionError, "did not accept the user name or password"),
        ("/login", [{}, {"status": 500}], ConnectionError, "answered 500: try again later"),
        ("/login", [{}, {"silent": True}], ConnectionError, "answered .*: try again later"),
        ("/downloads/?list", [{"kind": "text/html"}], ConnectionError, NO_LIST),
        ("/downloads/?list", [{"data": b'[{"name": 1}]'}], ConnectionError, NO_LIST),
        ("/downloads/?list", [OTHERS], ValueError, "no other.zip for this account, only gtFine.z"),
        ("/md5-sum/?packageID=2", [{}], ConnectionError, "sent no MD5 sum of other.zip"),
        ("/md5-sum/?packageID=2", [{"status": 500}], ConnectionError, "packageID=2 did not answer"),
        ("/md5-sum/?packageID=2", [{"data": b"0" * 32}], ValueError, "md5 0{32} was expected"),
        ("/file-handling/?packageID=2", [{}], ValueError, r"a web page \(Quota & exceeded\)"),
    ],
)
def test_cityscapes_site_that_answers_something_else(
    site, tmp_path, cityscapes, typed, capsys, path, answers, error, words
):
    typed(password=PASSWORD)
    site.add(path, PAGE, *answers)
    with pytest.raises(error, match=words) as raised:
        download_cityscapes(tmp_path, ["other.zip"], username="me")
    assert len(site.posts) == 1 and files(tmp_path) == []
    assert_untold(tmp_path, capsys, raised.value)


@pytest.fixture
def colab(monkeypatch):
    """A stand-in for google.colab; its secrets.  The notebook may not read those that are None."""
    secrets = {}

    def get(name):
        if secrets[name] is None:
            raise PermissionError(name)
        return secrets[name]

    module = types.ModuleType("google.colab")
    errors = {"SecretNotFoundError": KeyError, "NotebookAccessError": PermissionError}
    module.userdata = types.SimpleNamespace(get=get, **errors)
    monkeypatch.setitem(sys.modules, "google.colab", module)
    return secrets


def test_cityscapes_with_the_secrets_of_colab(tmp_path, cityscapes, typed, colab, capsys):
    colab.update(CITYSCAPES_USERNAME="me", CITYSCAPES_PASSWORD=PASSWORD)
    download_cityscapes(tmp_path / "a", ["other.zip"])
    colab["CITYSCAPES_PASSWORD"] = None  # there, but this notebook may not read it
    typed(password=PASSWORD)
    download_cityscapes(tmp_path / "b", ["other.zip"])
    assert files(tmp_path) == ["a/other.zip", "b/other.zip"]
    assert_untold(tmp_path, capsys)


def test_cityscapes_password_is_never_typed_visibly(
    site, tmp_path, cityscapes, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"me\n{PASSWORD}\n"))
    monkeypatch.setattr(getpass, "getpass", getpass.fallback_getpass)  # where there is no terminal
    with pytest.raises(PermissionError, match="no terminal to type .*CITYSCAPES_PASSWORD"):
        download_cityscapes(tmp_path, username="me")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(PermissionError, match="no terminal to type"):
        download_cityscapes(tmp_path)
    assert site.posts == []


# ------------------------------------------------------------------------------ the SPADE generator


@pytest.fixture(scope="module")
def weights():
    """Bytes of a tiny generator in the published format."""
    buffer = io.BytesIO()
    torch.save(spade.SpadeGenerator(ngf=1, hidden=2, size=(64, 64)).state_dict(), buffer)
    return buffer.getvalue()


@pytest.fixture
def places(site, tmp_path, monkeypatch, weights):
    """Stand-ins for the three places: a Drive without the file, Hugging Face, a busy gdown."""
    drive = tmp_path / "MyDrive" / "latest_net_G.pth"
    monkeypatch.setattr(downloads, "SPADE_ON_DRIVE", (drive,))
    monkeypatch.setattr(downloads, "SPADE_URL", site.add("/file.zip", weights))

    class Places(types.ModuleType):
        data, error, asked = None, None, []

        def download(self, id, output, quiet):
            self.asked.append(id)
            if self.error:
                raise self.error
            if self.data is not None:
                Path(output).write_bytes(self.data)

        def put_on_drive(self, data):
            drive.parent.mkdir()
            drive.write_bytes(data)

    gdown = Places("gdown")
    monkeypatch.setitem(sys.modules, "gdown", gdown)
    return gdown


GENERATOR_FILES = ["latest_net_G.pth", "latest_net_G.pth.sha256"]


def test_spade_comes_by_one_call(site, tmp_path, places, weights, capsys):
    path = tmp_path / "new" / "latest_net_G.pth"
    assert download_spade_generator(path) == path
    assert path.read_bytes() == weights and files(path.parent) == GENERATOR_FILES
    recorded = (tmp_path / "new/latest_net_G.pth.sha256").read_text()
    assert recorded == f"{hashlib.sha256(weights).hexdigest()}  latest_net_G.pth\n"
    assert spade.load_generator(path).settings["ngf"] == 1
    printed = capsys.readouterr().out
    assert printed.count("CC BY-NC-SA 4.0") == 1 and downloads.SPADE_URL in printed

    assert download_spade_generator(path) == path
    assert len(site.ranges()) == 1 and capsys.readouterr().out == "" and not places.asked


def test_spade_is_found_on_the_mounted_drive(site, tmp_path, places, weights, capsys):
    places.put_on_drive(weights)
    path = download_spade_generator(tmp_path / "latest_net_G.pth")
    assert path.read_bytes() == weights and site.requests == []
    assert f"from {tmp_path / 'MyDrive'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": 404}, "answered 404"),
        ({"kind": "text/html", "data": PAGE}, r"sent a web page \(Quota & exceeded\)"),
        ({"data": DATA}, "/file.zip is truncated or no PyTorch weight file"),
    ],
)
def test_spade_from_the_next_place(site, tmp_path, places, weights, capsys, answer, words):
    site.add("/file.zip", weights, answer)
    places.put_on_drive(weights[:1000])
    places.data = weights
    path = download_spade_generator(tmp_path / "latest_net_G.pth")
    assert path.read_bytes() == weights and places.asked == [downloads.SPADE_DRIVE_ID]
    printed = capsys.readouterr().out
    assert re.search(words, printed) and "MyDrive/latest_net_G.pth is truncated" in printed
    assert printed.count("failed: ") == 2 and "candidate" not in printed


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (None, None, "gdown brought no file"),
        (None, RuntimeError("Too many\n users viewed it"), "gdown: Too many users viewed"),
        (PAGE, None, "is a web page, not weights"),
        (None, "not installed", "pip install gdown"),
    ],
)
def test_spade_that_nobody_has(site, tmp_path, places, capsys, monkeypatch, data, error, words):
    site.add("/file.zip", b"", {"status": 403})
    if error == "not installed":
        monkeypatch.setitem(sys.modules, "gdown", None)
    places.data, places.error = data, error
    path = tmp_path / "G" / "latest_net_G.pth"
    with pytest.raises(ConnectionError) as raised:
        download_spade_generator(path)
    for part in (downloads.SPADE_PAGE, "in a browser", str(path), "bundled generator"):
        assert part in str(raised.value)
    assert words in capsys.readouterr().out and files(path.parent) == []


def test_spade_from_a_file_and_the_command_line(site, tmp_path, places, weights, capsys):
    (tmp_path / "mine.pth").write_bytes(weights)
    arguments = ["spade", "--folder", str(tmp_path / "G"), "--source"]
    downloads.main([*arguments, str(tmp_path / "mine.pth")])
    assert files(tmp_path / "G") == GENERATOR_FILES and site.requests == []
    assert f"the generator is {tmp_path / 'G' / 'latest_net_G.pth'}" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "G")
    with pytest.raises(FileNotFoundError, match=r"no file .*yours.pth: check the path"):
        downloads.main([*arguments, str(tmp_path / "yours.pth")])
    (tmp_path / "cut.pth").write_bytes(weights[:2000])
    with pytest.raises(ValueError, match=r"/cut.pth is truncated"):
        downloads.main([*arguments, str(tmp_path / "cut.pth")])
    assert files(tmp_path / "G") == [] and site.requests == []


def test_spade_of_another_hash_is_refused(site, tmp_path, places, weights, capsys):
    path = download_spade_generator(tmp_path / "G" / "latest_net_G.pth")
    state = torch.load(path) | {"conv_img.bias": torch.ones(3)}
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"not the file that came first, .*sha256 .* was expected"):
        download_spade_generator(path)
    # It stays as it was, and the same goes for what comes anew.
    assert files(path.parent) == GENERATOR_FILES
    places.data = path.read_bytes()
    path.unlink()
    site.add("/file.zip", weights, {"data": places.data})
    with pytest.raises(ConnectionError, match="None of 2 places"):
        download_spade_generator(path)
    assert capsys.readouterr().out.count("not the file that came first") == 2
    site.add("/file.zip", weights)
    assert download_spade_generator(path).read_bytes() == weights


def test_spade_that_was_put_there_by_hand_is_checked(site, tmp_path, places, weights):
    path = tmp_path / "G" / "latest_net_G.pth"
    path.parent.mkdir()
    path.write_bytes(PAGE)
    with pytest.raises(ValueError, match="is a web page, not weights"):
        download_spade_generator(path)
    path.write_bytes(weights)
    download_spade_generator(path)
    assert files(path.parent) == GENERATOR_FILES and site.requests == []
