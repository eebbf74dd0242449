#!/usr/bin/env python3
"""Execute notebooks and write them the one way they are committed.

    python tools/run_notebooks.py notebooks/*.ipynb            # execute, clean, write in place
    python tools/run_notebooks.py --out FOLDER notebooks/*     # the same, written elsewhere
    python tools/run_notebooks.py --clean-only notebooks/*     # after saving in JupyterLab

A deterministic notebook comes out the same, byte for byte, every time: execution counts 1..n, no
timestamps, no widget state, fixed cell ids, pictures as JPEG or PNG.
"""

import argparse
import atexit
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import ipykernel.kernelspec
import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.commands import print_in_any_code_page
from utils.files import write_atomically

# What the kernels see here and under pytest (conftest.py), unless the caller has set it: no
# progress bars; and a fixed number of threads, on which the last digits of sums depend.
KERNEL_ENVIRONMENT = {"COURSE_PROGRESS": "0", "OMP_NUM_THREADS": "2"}

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
CELL_METADATA = {"tags", "cellView"}  # cellView: Colab's form cells


def set_kernel_environment():
    """Let kernels see KERNEL_ENVIRONMENT, and an empty folder instead of runs/.

    A training that is complete is not trained again, and own networks go before the bundled ones:
    a notebook would show something else than in a fresh clone.
    """
    for name, value in KERNEL_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "COURSE_RUNS" not in os.environ:
        folder = tempfile.mkdtemp(prefix="course_runs_")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["COURSE_RUNS"] = folder


class _ThisPython(KernelSpecManager):
    """Knows one kernel, the running interpreter, whatever kernels the user has installed."""

    def get_kernel_spec(self, kernel_name):
        return self.kernel_spec_class(
            resource_dir=ipykernel.kernelspec.RESOURCES, **ipykernel.kernelspec.get_kernel_dict()
        )


class _ThisPythonManager(AsyncKernelManager):
    def _kernel_spec_manager_default(self):
        return _ThisPython(parent=self)


def execute(notebook, folder, timeout=600):
    """Run all cells of a notebook in a kernel of this very Python, and keep their outputs.

    Args:
        notebook: the nbformat notebook; changed in place.
        folder: the kernel's working directory.
        timeout: seconds allowed for one cell.

    Returns:
        The notebook.

    Raises:
        nbclient's CellExecutionError, CellTimeoutError or DeadKernelError; KeyboardInterrupt.
    """
    set_kernel_environment()
    # not store_widget_state=False: nbclient 0.11 then fails on an Output widget
    client = NotebookClient(
        notebook,
        kernel_manager_class=_ThisPythonManager,
        kernel_name="python3",
        timeout=timeout,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],  # no word about a kernel without encryption
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        return client.execute()
    except AssertionError as error:
        if client.km is not None:
            raise
        raise KeyboardInterrupt from error  # nbclient has ended the kernel, and lost it


def clean(notebook):
    """Bring a notebook to its committed form, in place: what is random or personal goes."""
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    if "accelerator" in notebook.metadata:  # Colab: open with a GPU
        metadata["accelerator"] = notebook.metadata["accelerator"]
    notebook.metadata = nbformat.from_dict(metadata)
    for number, cell in enumerate(notebook.cells):
        kept = {key: value for key, value in cell.metadata.items() if key in CELL_METADATA}
        cell.metadata = nbformat.from_dict(kept)
        cell["id"] = f"cell-{number:02d}"
        for output in cell.get("outputs", []):
            if "data" in output:
                output.data.pop(WIDGET_VIEW, None)  # shows nothing without the state, dropped above
                if "image/jpeg" in output.data:  # a PIL picture comes as JPEG and as PNG
                    output.data.pop("image/png", None)
                output.metadata = nbformat.from_dict({})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return notebook


def main(arguments=None):
    """The command line; returns the exit status, 1 at the first notebook that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--clean-only", action="store_true", help="write without executing")
    parser.add_argument("--out", type=Path, help="write into this folder; the originals stay")
    parser.add_argument("--timeout", type=float, default=600, help="seconds allowed for one cell")
    options = parser.parse_args(arguments)
    names = [path.name for path in options.notebooks]
    if options.out and len(set(names)) < len(names):
        parser.error("two notebooks have the same name: give them different folders for --out")

    for path in options.notebooks:
        notebook = nbformat.read(path, as_version=4)
        target = options.out / path.name if options.out else path
        start = time.perf_counter()
        if not options.clean_only:
            print(f"{path.name} ...", end=" ", flush=True)
            try:
                execute(notebook, path.parent, options.timeout)
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                print(f"failed, nothing written\n\n{error}", file=sys.stderr)
                return 1
            except KeyboardInterrupt:
                print("interrupted, nothing written", file=sys.stderr)
                return 130
        text = nbformat.writes(clean(notebook)) + "\n"
        write_atomically(target, lambda part, text=text: part.write_text(text, encoding="utf-8"))
        seconds = time.perf_counter() - start
        print(f"{target}: {seconds:.1f} s, {len(text.encode()) // 1000} kB", flush=True)
    return 0


if __name__ == "__main__":
    print_in_any_code_page()
    sys.exit(main())
