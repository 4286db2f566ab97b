"""A real JupyterLab in a real browser, for tests and for pictures of lessons.

`serve` starts one server on loopback, with settings of its own; `Lab.open_lesson` opens a notebook of
its folder in a page of its own and gives a `Lesson` to run and to look at.
"""

from __future__ import annotations

import ast
import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

from layerlab.doctor import find_chromium

START_TIMEOUT = 60
RUN_TIMEOUT = 240
"""Seconds. A lesson takes less than 60 on a quiet machine."""

BROWSER_ARGUMENTS = [
    "--no-sandbox",  # it needs rights that containers do not give
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing outside can be reached
]

# The server's own settings, as if a user had chosen them.
SETTINGS = {
    # The question whether to fetch news lies over the page.
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false"},
    # Cells outside the viewport would not be in the page.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}

# Each page would have the server look for half a second whether JupyterLab has to be built anew.
SERVER = {"ServerApp": {"tornado_settings": {"page_config_data": {"buildCheck": False}}}}

# What a reader sees when a widget cannot be shown, or when its callback raised.
FAILURES = re.compile(
    r"model not found|error (?:displaying|creating) widget|failed to load model class"
    r"|Traceback \(most recent call last\)",
    re.IGNORECASE,
)

# An address that ends in the notebook's path opens it too, but only after a second of waiting.
OPEN = """async (path) => {
    await window.jupyterapp.restored;
    await window.jupyterapp.commands.execute('docmanager:open', {path});
}"""

# "idle" is shown before the session is attached, and a run is then lost: wait for the kernel's own answer.
WAIT_UNTIL_READY = """async () => {
    const panel = window.jupyterapp.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.sessionContext.session.kernel.info;
}"""

RUN_ALL = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"

# A widget's view is drawn some time after its cell has run.
WIDGETS_ARE_DRAWN = "() => !document.querySelector('.jp-Notebook').innerText.includes('Loading widget')"

# What each cell shows to a reader, nested Output widgets included, and the errors among its outputs; but
# for cells that are meant to raise.
OUTPUTS = """() => window.jupyterapp.shell.currentWidget.content.widgets.flatMap((cell, index) => {
    if (cell.model.type !== 'code' || (cell.model.getMetadata('tags') ?? []).includes('raises-exception'))
        return [];
    const errors = cell.model.outputs.toJSON().filter(output => output.output_type === 'error');
    return [{
        number: index + 1,
        text: cell.outputArea.node.innerText,
        errors: errors.map(output => `${output.ename}: ${output.evalue}`),
    }];
})"""

EXECUTE = """async (expression) => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const reply = await kernel.requestExecute(
        {code: '', store_history: false, user_expressions: {value: expression}}).done;
    return reply.content.user_expressions?.value ?? reply.content;
}"""

# JupyterLab hands the messages of widgets to a thread of the kernel, and code to another. A message to a comm
# that is not there goes the widgets' way: when the kernel has passed over it, it has heard all before it.
WIDGETS_ARE_HEARD = """async () => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const comm = kernel.createComm('jupyter.widget', 'nobody');
    if (kernel.supportsSubshells && kernel.commsOverSubshells !== 'disabled') await comm.subshellStarted;
    await comm.send({}).done;
    comm.dispose();
}"""

CHANGE_THEME = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"
SPLASH = "#jupyterlab-splash"  # lies over the page while a theme is loaded
COLLAPSE_SIDEBAR = "() => window.jupyterapp.shell.collapseLeft()"
HEIGHT = "() => document.querySelector('.jp-WindowedPanel-inner').getBoundingClientRect().height"
SHOWS_ALL = """() => {
    const inner = document.querySelector('.jp-WindowedPanel-inner').getBoundingClientRect();
    const outer = document.querySelector('.jp-WindowedPanel-outer');
    outer.scrollTop = 0;
    const shown = outer.getBoundingClientRect();
    return shown.top <= inner.top && inner.bottom <= shown.bottom;
}"""
SHUT_DOWN = "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"

# Playwright itself sets no limit to how long a script may take.
WITHIN = """(argument) => Promise.race([
    (%s)(argument),
    new Promise((_, give_up) => setTimeout(() => give_up(new Error('no answer in %d s')), %d)),
])"""


class Lesson:
    """One notebook, open in JupyterLab in a page of its own."""

    def __init__(self, page: Page, url: str, path: str) -> None:
        self.page = page
        self.is_dark = False
        self.console_errors: list[str] = []
        """What the page logged as an error, and exceptions that no script caught."""
        self.outside_requests: list[str] = []
        """Addresses that the page asked for and that are not on this machine."""
        page.set_default_timeout(RUN_TIMEOUT * 1000)
        page.on("console", lambda m: self.console_errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.console_errors.append(f"uncaught: {error}"))
        page.on("request", lambda request: self._note_request(request.url))
        page.on("websocket", lambda socket: self._note_request(socket.url))
        page.goto(url)
        page.wait_for_function("() => window.jupyterapp")
        self.evaluate(OPEN, path)
        self.evaluate(WAIT_UNTIL_READY)

    def _note_request(self, url: str) -> None:
        parts = urlsplit(url)  # data: and blob: addresses have no host
        if parts.hostname not in (None, "127.0.0.1", "localhost"):
            self.outside_requests.append(url)

    def evaluate(self, script: str, argument: object = None) -> Any:
        """Call a JavaScript function in the page; a promise is awaited, but not for ever."""
        return self.page.evaluate(WITHIN % (script, RUN_TIMEOUT, RUN_TIMEOUT * 1000), argument)

    def run_all(self) -> None:
        """Run all cells; returns when the last has run, or one raised, and the widgets are drawn."""
        self.evaluate(RUN_ALL)
        self.kernel_eval("None")  # the kernel answers in order: what the cells' widgets sent is done
        self.page.wait_for_function(WIDGETS_ARE_DRAWN)

    def start_all(self) -> None:
        """Start running all cells, and return at once."""
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")

    def errors(self) -> list[str]:
        """List what a reader would see as an error in the outputs, each with the number of its cell."""
        found = []
        for cell in self.evaluate(OUTPUTS):
            found += [f"cell {cell['number']} raises {error}" for error in cell["errors"]]
            if not cell["errors"] and FAILURES.search(cell["text"]):
                found.append(f"cell {cell['number']} shows: {cell['text'].strip()}")
        return found

    def kernel_eval(self, expression: str) -> Any:
        """Evaluate a Python expression in the notebook's kernel; its value comes back through JSON.

        Whatever the page sent before has been done then.
        """
        self.evaluate(WIDGETS_ARE_HEARD)
        reply = self.evaluate(EXECUTE, f"__import__('json').dumps({expression})")
        if reply["status"] != "ok":
            raise RuntimeError(f"{expression}: {reply['ename']}: {reply['evalue']}")
        return json.loads(ast.literal_eval(reply["data"]["text/plain"]))

    def set_dark(self, dark: bool) -> None:
        """Change JupyterLab's theme, for as long as this lesson is open."""
        self.evaluate(CHANGE_THEME, "JupyterLab Dark" if dark else "JupyterLab Light")
        # Attached, not visible: this page's body has no height of its own.
        themed = f"body[data-jp-theme-light='{str(not dark).lower()}']"
        self.page.wait_for_selector(themed, state="attached")
        self.page.wait_for_selector(SPLASH, state="detached")
        self.is_dark = dark

    @contextmanager
    def all_in_view(self) -> Iterator[None]:
        """Make the window so high that it shows the whole notebook."""
        size = self.page.viewport_size
        assert size is not None  # the pages of `Lab` have a fixed size
        self.evaluate(COLLAPSE_SIDEBAR)
        self.page.set_viewport_size({**size, "height": int(self.evaluate(HEIGHT)) + 200})
        self.page.wait_for_function(SHOWS_ALL)  # JupyterLab lays its panels out some time later
        yield
        self.page.set_viewport_size(size)

    def screenshot(self, path: Path) -> None:
        """Take a picture of the whole notebook, not only of what the window shows."""
        with self.all_in_view():
            self.page.locator(".jp-WindowedPanel-inner").screenshot(path=path)

    def close(self) -> None:
        """End the kernel and close the page."""
        if self.is_dark:  # the server keeps the theme that was last chosen
            self.set_dark(False)
        self.evaluate(SHUT_DOWN)
        self.page.close()


class Lab:
    """A running server and the browser that looks at it."""

    def __init__(self, folder: Path, browser: Browser, address: str, token: str) -> None:
        self.folder = folder
        """Whose notebooks are served."""
        self.browser = browser
        self.address = address
        self.token = token

    def write_notebook(self, name: str, *cells: str) -> str:
        """Write a notebook of code cells into the folder; returns its name."""
        code: dict[str, Any] = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
        content = [{**code, "id": f"cell-{n}", "source": source} for n, source in enumerate(cells)]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = {"cells": content, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
        (self.folder / name).write_text(json.dumps(notebook))
        return name

    @contextmanager
    def open_lesson(
        self, name: str, *, width: int = 1280, height: int = 900, scale: int = 1
    ) -> Iterator[Lesson]:
        """Open a notebook of the server's folder; at the end, its kernel and page are gone.

        ``scale`` is how many pixels of a screenshot stand side by side for one of the page.
        """
        size = {"width": width, "height": height}
        page = self.browser.new_page(viewport=size, device_scale_factor=scale)
        # In a workspace of its own, no page sees what an earlier one left open.
        workspace = f"{self.address}/lab/workspaces/{secrets.token_hex(8)}"
        lesson = Lesson(page, f"{workspace}?token={self.token}", name)
        try:
            yield lesson
        finally:
            lesson.close()


def write_settings(folder: Path) -> None:
    """Write the server's settings as JupyterLab keeps a user's."""
    for plugin, values in SETTINGS.items():
        path = folder / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


@contextmanager
def serve(notebooks: Path, private: Path) -> Iterator[Lab]:
    """Run JupyterLab on a folder of notebooks, and a browser, until the block is left.

    Parameters
    ----------
    notebooks
        The folder: notebooks that are run in it are changed.
    private
        An empty folder for the server's own files, so that it neither reads nor writes a user's.

    Raises
    ------
    FileNotFoundError
        If there is no Chromium.
    """
    chromium = find_chromium()
    if chromium is None:
        raise FileNotFoundError("no Chromium or Chrome: install one, or set LAYERLAB_CHROMIUM to its path")
    token = secrets.token_hex(16)
    kinds = (
        "JUPYTER_CONFIG",
        "JUPYTER_DATA",
        "JUPYTER_RUNTIME",
        "JUPYTERLAB_SETTINGS",
        "JUPYTERLAB_WORKSPACES",
    )
    folders = {f"{kind}_DIR": private / kind.lower() for kind in kinds}
    folders["IPYTHONDIR"] = private / "ipython"
    for folder in folders.values():
        folder.mkdir(parents=True)
    write_settings(folders["JUPYTERLAB_SETTINGS_DIR"])
    (folders["JUPYTER_CONFIG_DIR"] / "jupyter_server_config.json").write_text(json.dumps(SERVER))
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={notebooks}"),
        *(f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True"),
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    with (private / "server.log").open("w") as log:
        server = subprocess.Popen(
            command,
            env=os.environ | {name: str(folder) for name, folder in folders.items()},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            address = wait_for_server(server, folders["JUPYTER_RUNTIME_DIR"], private / "server.log")
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER_ARGUMENTS)
                try:
                    yield Lab(notebooks, browser, address, token)
                finally:
                    browser.close()
        finally:
            server.terminate()
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def wait_for_server(server: subprocess.Popen[bytes], runtime: Path, log: Path) -> str:
    """Wait until the server has written down where it listens, and return that address."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and server.poll() is None:
        for found in runtime.glob("jpserver-*.json"):
            try:
                address: str = json.loads(found.read_text())["url"]
            except (json.JSONDecodeError, KeyError):
                continue  # half written
            return address.rstrip("/")
        time.sleep(0.05)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
