"""The upload button, without a browser: what it would send is set by hand."""

import sys
import tempfile
from datetime import datetime
from types import ModuleType, SimpleNamespace

import ipywidgets
import pytest
import torch
from examples import noise

from utils.images import read_photo, save_image
from utils.upload import UploadBox, uploaded_file

SIZE = (64, 32)


@pytest.fixture
def photo(tmp_path):
    """A photo's file, larger than SIZE and of another shape."""
    return save_image(noise(3, 60, 90), tmp_path / "street.png")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder that temporary files are made in."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def in_version_8(name, content):
    file = {"name": name, "type": "image/png", "size": len(content), "content": content}
    return (file | {"last_modified": datetime(2026, 1, 1)},)


def in_version_7(name, content):
    return {name: {"metadata": {"name": name, "size": len(content)}, "content": bytes(content)}}


@pytest.mark.parametrize("value", [in_version_8, in_version_7])
def test_a_file_of_either_version(value):
    made = value("a <b>.jpg", memoryview(b"\xff\xd8"))
    assert uploaded_file(made) == ("a <b>.jpg", b"\xff\xd8")
    nothing = type(made)()
    assert uploaded_file(nothing) is None


def upload(box, name, content):
    """What the browser does, with the installed ipywidgets."""
    if int(ipywidgets.__version__.split(".")[0]) >= 8:
        box.button.value = in_version_8(name, memoryview(content))
    else:
        box.button.metadata, box.button.data = [{"name": name}], [content]
        box.button._counter += 1


def test_a_photo_is_shown(photo, temporary):
    shown = []
    box = UploadBox(shown.append, SIZE)
    upload(box, "street.png", photo.read_bytes())
    assert len(shown) == 1 and torch.equal(shown[0], read_photo(photo, SIZE))
    assert box.sentence.value == "street.png"
    assert not list(temporary.iterdir()), "nothing is left"


def test_what_is_no_photo_is_told_in_a_sentence(photo, temporary):
    shown = []
    box = UploadBox(shown.append, SIZE)
    upload(box, "notes & <more>.jpg", b"Dear diary")
    assert box.sentence.value.startswith("notes &amp; &lt;more&gt;.jpg can't be read as a picture")
    assert "it is a text" in box.sentence.value
    upload(box, "half.png", photo.read_bytes()[:200])
    assert box.sentence.value.startswith("half.png can't be read as a picture: it is cut short")
    upload(box, "nothing.jpg", b"")
    assert "it is empty" in box.sentence.value
    assert not shown and not list(temporary.iterdir())
    upload(box, "street.png", photo.read_bytes())
    assert len(shown) == 1 and box.sentence.value == "street.png"


@pytest.mark.parametrize("error", [ValueError, OSError, RuntimeError])
def test_an_error_while_showing_is_told(photo, temporary, error):
    def show(image_u8):
        raise error("the disk is full")

    box = UploadBox(show, SIZE)
    upload(box, "street.png", photo.read_bytes())
    assert box.sentence.value == "the disk is full" and not list(temporary.iterdir())


def test_in_colab_a_large_photo_has_a_button(photo, temporary, monkeypatch):
    shown = []

    def upload_file(path):
        with open(path, "wb") as file:
            file.write(photo.read_bytes())

    colab = ModuleType("google.colab")
    colab.files = SimpleNamespace(upload_file=upload_file)
    monkeypatch.setitem(sys.modules, "google", ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    box = UploadBox(shown.append, SIZE)
    assert not shown, "nothing is asked for before the click"
    assert box.sentence.value == "up to 1 MB (first button)"
    box.buttons[1].click()
    assert torch.equal(shown[0], read_photo(photo, SIZE)) and not list(temporary.iterdir())

    def cancelled(path):
        raise ValueError("File has not been uploaded")

    colab.files.upload_file = cancelled
    box.buttons[1].click()
    assert len(shown) == 1 and box.sentence.value == "File has not been uploaded"


def test_elsewhere_there_is_one_button():
    box = UploadBox(print, SIZE)
    assert box.buttons == [box.button] and box.sentence.value == "up to 10 MB"
    assert (box.button.accept, box.button.multiple) == ("image/*", False)
    assert repr(box) == "UploadBox()"
