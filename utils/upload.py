"""A button that takes a photo from the reader's machine into a notebook, in Jupyter and in Colab.

    UploadBox(lambda image_u8: show_grid({"": [image_u8]}), size=(256, 128))

A FileUpload sends a file in one message.  Jupyter drops the connection if a message has 10 MB or
more (github.com/jupyter-widgets/ipywidgets/issues/2522), Colab if it has 1 MB (issue 3452).  In
Colab a second button therefore calls Colab's own upload, which sends a file in small pieces.
"""

import html
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
from IPython.display import clear_output
from torch import Tensor

from utils.images import read_photo


def uploaded_file(value: tuple | dict) -> tuple[str, bytes] | None:
    """FileUpload.value as (name, content); None if nothing has been uploaded.

    ipywidgets 8 gives a tuple of dicts, 7 a dict {name: {"content": ..., "metadata": ...}}.
    """
    files = [{"name": x} | value[x] for x in value] if isinstance(value, dict) else value
    return (files[-1]["name"], bytes(files[-1]["content"])) if files else None


class UploadBox(ipywidgets.VBox):
    """A button to upload a photo with, and below it what show() prints and draws.

    Args:
        show: called with each photo, cropped to the aspect of size and resized: image_u8 (3, H, W).
            If it raises ValueError, OSError or RuntimeError, or the file can't be read, the message
            is shown below the button.
        size: (width, height) of image_u8.
    """

    def __init__(self, show: Callable[[Tensor], object], size: tuple[int, int]):
        self._show, self._size, wide = show, size, {"width": "auto"}
        self.button = ipywidgets.FileUpload(
            accept="image/*", multiple=False, description="Upload a photo", layout=wide
        )
        self.button.observe(self._on_upload, "value")
        self.buttons, most = [self.button], "10 MB"
        if "google.colab" in sys.modules:
            large = ipywidgets.Button(description="Upload a photo of 1 MB or more", layout=wide)
            large.on_click(self._on_large_upload)
            self.buttons, most = [self.button, large], "1 MB (first button)"
        self.sentence, self.output = ipywidgets.HTML(f"up to {most}"), ipywidgets.Output()
        super().__init__([ipywidgets.HBox(self.buttons), self.sentence, self.output])

    def _on_upload(self, change) -> None:
        if file := uploaded_file(change["new"]):
            self._receive(file[0], lambda path: path.write_bytes(file[1]))

    def _on_large_upload(self, button) -> None:
        from google.colab import files  # its upload blocks until a file is chosen, or cancelled

        self._receive("the photo", lambda path: files.upload_file(str(path)))

    def _receive(self, name: str, save: Callable[[Path], object]) -> None:
        self._say(f"{name} ...")
        with self.output, tempfile.TemporaryDirectory() as folder:
            clear_output()
            path = Path(folder, "photo")
            try:  # in here, because an Output shows the traceback of an error that leaves it
                save(path)
                clear_output()
                self._show(read_photo(path, self._size))
                plt.show()  # a figure is shown by itself only when a cell ends
                self._say(name)
            except (OSError, ValueError, RuntimeError) as error:  # Runtime: the GPU is full, say
                plt.close("all")
                clear_output()
                self._say(str(error).replace(str(path), name))

    def _say(self, sentence: str) -> None:
        self.sentence.value = html.escape(sentence, quote=False)

    def __repr__(self) -> str:  # the same for every ipywidgets: committed outputs hold it
        return "UploadBox()"
