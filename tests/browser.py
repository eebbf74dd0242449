"""Pages in a headless Chromium, and notebooks in a real JupyterLab in one: what test_browser.py and
test_page.py work with.

Chromium is the machine's own (Debian: apt-get install chromium); playwright only drives it.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Without a sandbox, because root has none in a container; the rest keeps it off the network.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = {
    # every cell is in the page, not only those on the screen
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}
SECONDS = 120  # that something may take on a busy machine
RUN_SECONDS = 300  # that all cells of a notebook may


def find_browser() -> str | None:
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def jupyter_lab(root: Path, own: Path):
    """A JupyterLab server of the notebooks in root -> (address, token).

    It keeps its settings, and whatever it writes, in the folder `own`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(8)
    for plugin, value in SETTINGS.items():
        file = own / "settings" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value))
    environment = dict(
        os.environ,
        JUPYTERLAB_SETTINGS_DIR=str(own / "settings"),
        JUPYTERLAB_WORKSPACES_DIR=str(own / "workspaces"),
        JUPYTER_CONFIG_DIR=str(own / "config"),
        JUPYTER_RUNTIME_DIR=str(own / "runtime"),
        JUPYTER_DATA_DIR=str(own / "data"),
        IPYTHONDIR=str(own / "ipython"),
    )
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}"),
        *(f"--IdentityProvider.token={token}", "--expose-app-in-browser"),
    ]
    log = own / "lab.log"
    with open(log, "w") as output:
        server = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=root
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + SECONDS
        while not _answers(f"{address}/api/status?token={token}"):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")
            time.sleep(0.2)
        yield address, token
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def chromium(browser: str, profile: Path):
    """A headless Chromium -> playwright's context, whose pages share the window's size."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=browser,
            headless=True,
            args=FLAGS,
            viewport={"width": 1300, "height": 1100},
        )
        context.set_default_timeout(1000 * SECONDS)
        try:
            yield context
        finally:
            context.close()


class LabNotebook:
    """A notebook that is open in JupyterLab, in a page of its own.

    Attributes:
        page: playwright's page.
        complaints: JavaScript errors that nobody caught.
    """

    def __init__(self, context, address: str, token: str, path: str):
        self.page = page = context.new_page()
        self.complaints = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(f"{address}/lab/workspaces/w{secrets.token_hex(3)}/tree/{path}?token={token}")
        # A Run All that is given before the kernel is connected gets lost, and the circle that says
        # "idle" is there earlier: ask the session itself.
        page.wait_for_function(
            """() => {
                const context = window.jupyterapp?.shell?.currentWidget?.sessionContext;
                const kernel = context?.session?.kernel;
                return context?.isReady && kernel?.status === 'idle'
                    && kernel?.connectionStatus === 'connected';
            }"""
        )
        page.evaluate("jupyterapp.shell.collapseLeft()")

    def run_all(self) -> None:
        """Run all cells; AssertionError if one failed or did not run."""
        # the promise ends with the last cell, or with the first one that fails
        self.page.evaluate(
            """() => {
                const run = jupyterapp.commands.execute('notebook:run-all-cells');
                run.finally(() => (window.allRan = true));
            }"""
        )
        self.page.wait_for_function("window.allRan", timeout=1000 * RUN_SECONDS)
        errors = self.page.locator(
            "[data-mime-type='application/vnd.jupyter.error'],"
            " [data-mime-type='application/vnd.jupyter.stderr']"
        )
        assert not errors.count(), "\n".join(errors.all_inner_texts())
        prompts = self.page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()
        assert all(re.fullmatch(r"\[\d+\]:", prompt.strip()) for prompt in prompts), prompts

    def python(self, expression: str) -> str:
        """What an expression is in the notebook's kernel, as text."""
        return self.page.evaluate(
            """async (code) => {
                const {kernel} = jupyterapp.shell.currentWidget.sessionContext.session;
                const future = kernel.requestExecute({code, store_history: false});
                let text = '';
                future.onIOPub = ({content}) => {
                    text += content.text ?? content.evalue ?? '';
                };
                await future.done;
                return text.trim();
            }""",
            f"print({expression})",
        )

    def move(self, target, *points: tuple[float, float]) -> None:
        """Move the mouse over an element, to points that are shares of its width and height."""
        for x, y in points:
            box = target.bounding_box()
            place = box["x"] + x * box["width"], box["y"] + y * box["height"]
            self.page.mouse.move(*place, steps=20)

    def click(self, target, point: tuple[float, float]) -> None:
        """Click at a point of an element, a share of its width and height."""
        self.move(target, point)
        self.page.mouse.down()
        self.page.mouse.up()

    def settle(self) -> None:
        """Wait until what the browser sent has been answered, and nothing is left to be sent."""
        self.page.wait_for_function("document.querySelector('.painter').dataset.waiting === 'no'")
