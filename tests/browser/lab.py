"""A real JupyterLab and a real Chromium, for tests that press keys and look."""

import ast
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
from nbconvert import HTMLExporter
from playwright.sync_api import Browser, Locator, LocatorAssertions, expect

from helpers.tied_process import PATIENCE, start_tied
from helpers.warm_kernels import NAME as WARM

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 180
"""Longest wait for anything: only a test that fails waits so long, and a busy machine may take many times the usual."""
expect.set_options(timeout=SECONDS * 1000)


def find_browser() -> str | None:
    """The program of a Chromium, as Linux distributions call it."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


class LabServer:
    """`caap-lab lab` in a folder of its own, with nobody's settings; it ends with the process that started it.

    Args:
        home: The folder.
        warm: A folder of `warm_kernels`, which the notebooks run in then.
    """

    token = "browser-test"

    def __init__(self, home: Path, warm: Path | None = None) -> None:
        self.kernel = WARM if warm else "python3"
        self.folder = home / "work"
        self.settings = home / "settings"
        self.runtime = home / "runtime"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        folders = {
            "JUPYTER_CONFIG_DIR": home / "config",
            "JUPYTER_DATA_DIR": home / "data",
            "JUPYTER_RUNTIME_DIR": self.runtime,
            "JUPYTERLAB_SETTINGS_DIR": self.settings,
            "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
            "IPYTHONDIR": home / "ipython",
            **({"JUPYTER_PATH": warm} if warm else {}),
        }
        root = ["--allow-root"] if os.name == "posix" and os.geteuid() == 0 else []
        command = [sys.executable, "-m", "caap_lab.cli", "lab", "--dir", self.folder, "--port", str(port), "--"]
        command += ["--no-browser", "--expose-app-in-browser", *root]
        self._log_path = home / "jupyter.log"
        with self._log_path.open("w") as log:
            self._process = start_tied(
                command,
                env={**os.environ, **{name: str(path) for name, path in folders.items()}, "JUPYTER_TOKEN": self.token},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        limit = time.monotonic() + SECONDS
        while time.monotonic() < limit and self._process.poll() is None:
            with suppress(OSError):
                self.request("status")
                return
            time.sleep(0.1)
        raise RuntimeError(f"JupyterLab did not start:\n{self.log()}")

    def request(self, path: str, method: str = "GET") -> Any:
        """An answer of the server's REST interface."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}/api/{path}", headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return json.loads(answer.read() or "null")

    def kernels(self) -> set[str]:
        """Identifiers of those that run."""
        return {kernel["id"] for kernel in self.request("kernels")}

    def end_kernels(self, others: set[str]) -> None:
        """End all kernels but others'."""
        for kernel in self.kernels() - others:
            self.request(f"kernels/{kernel}", "DELETE")

    def log(self) -> str:
        return self._log_path.read_text()

    def stop(self) -> None:
        """End the server, which ends its kernels."""
        self._process.terminate()
        try:
            self._process.wait(3 * PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def write(self, name: str, cells: list[str]) -> Path:
        """A notebook of code cells, with its kernel named, so that JupyterLab does not ask for one."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source) for source in cells],
            metadata={"kernelspec": {"name": self.kernel, "display_name": self.kernel, "language": "python"}},
        )
        path = self.folder / name
        nbformat.write(notebook, path)
        return path


RUN_ALL = """async () => {
    await jupyterapp.commands.execute('notebook:run-all-cells');
    const outputs = jupyterapp.shell.currentWidget.model.sharedModel.cells.flatMap(cell => cell.outputs ?? []);
    return outputs.filter(output => output.output_type === 'error').map(error => error.traceback.join('\\n'));
}"""
KERNEL_VALUE = """async (expression) => {
    const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const request = {code: '', silent: true, user_expressions: {value: expression}};
    return (await kernel.requestExecute(request).done).content.user_expressions.value;
}"""
HOLDS_STILL = """async (element) => {
    const place = () => { const r = element.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]; };
    const pause = () => new Promise(done => setTimeout(done, 50));
    let before = place();
    for (let same = 0; same < 4;) {
        await pause();
        const now = place();
        same = now.every((value, i) => value === before[i]) ? same + 1 : 0;
        before = now;
    }
    return before;
}"""
IS_OPEN = "name => window.jupyterapp?.shell?.currentWidget?.context?.path === name"
CURRENT = "jupyterapp.shell.currentWidget"


class LabPage:
    """One page with JupyterLab in it, and at most one notebook open."""

    def __init__(self, server: LabServer, browser: Browser, pictures: Path) -> None:
        self.server = server
        self._others_kernels = server.kernels()
        self.pictures = pictures
        self.errors: list[str] = []
        self.page = browser.new_page(viewport={"width": 1280, "height": 900})
        self.page.set_default_timeout(SECONDS * 1000)
        # anywidget gives a widget two seconds to load, which are too few on a busy machine.
        self.page.add_init_script(
            "const soon = AbortSignal.timeout; AbortSignal.timeout = (ms) => soon.call(AbortSignal, 30 * ms);"
        )
        self.page.on("pageerror", lambda error: self.errors.append(f"{error}\n{error.stack}"))

    def open(self, *cells: str, name: str = "test.ipynb") -> None:
        """Write a notebook of these code cells, open it and run it."""
        self.server.write(name, list(cells))
        self.show(name)
        self.run_all()

    def show(self, name: str = "test.ipynb") -> None:
        """Open a notebook as it lies in the file, in a fresh page."""
        self.page.goto(f"{self.server.url}/lab/tree/{name}?reset&token={self.server.token}")
        self.page.wait_for_function(IS_OPEN, arg=name)
        self.page.evaluate(f"{CURRENT}.context.ready")

    def run_all(self) -> None:
        """Run all cells and wait for the last; an error in a cell fails."""
        self.page.evaluate(f"{CURRENT}.sessionContext.ready")
        failed = self.page.evaluate(RUN_ALL)
        assert not failed, "\n".join(failed)

    def value(self, expression: str) -> Any:
        """What an expression is in the kernel, for values that Python's literals can write."""
        answer = self.page.evaluate(KERNEL_VALUE, expression)
        assert answer["status"] == "ok", f"{expression}: {answer}"
        return ast.literal_eval(answer["data"]["text/plain"])

    def wait_for(self, expression: str, wanted: Any) -> None:
        """Wait until an expression has this value in the kernel."""
        limit = time.monotonic() + SECONDS
        while (value := self.value(expression)) != wanted:
            assert time.monotonic() < limit, f"{expression} is {value!r}, not {wanted!r}"
            self.page.wait_for_timeout(50)

    def run(self, code: str) -> None:
        """Run statements in the kernel, which is done with them when this returns."""
        self.value(f"exec({code!r}, globals())")

    def expect(self, element: Locator) -> LocatorAssertions:
        """What an element will be soon: the kernel knows of a change before the page shows it."""
        return expect(element)

    def until(self, script: str, arg: Any = None) -> None:
        """Wait until a function of the page is true."""
        self.page.wait_for_function(script, arg=arg)

    def click(self, element: Locator, across: float, down: float) -> None:
        """Click at a share of an element's width and height, wherever it is by then."""
        size = element.evaluate("element => [element.clientWidth, element.clientHeight]")
        element.click(position={"x": across * size[0], "y": down * size[1]})

    def box(self, element: Locator) -> tuple[float, float, float, float]:
        """Left, top, width and height on the page, in pixels, once the page has stopped moving it."""
        element.scroll_into_view_if_needed()
        left, top, width, height = element.evaluate(HOLDS_STILL)
        return left, top, width, height

    @property
    def output(self) -> Locator:
        """The outputs of all cells."""
        return self.page.locator(".jp-Notebook .jp-OutputArea-output")

    def save(self) -> None:
        self.execute("docmanager:save")

    def to_html(self, path: Path, name: str = "test.ipynb") -> None:
        """Write the saved notebook as nbconvert's HTML."""
        page, _ = HTMLExporter().from_filename(str(self.server.folder / name))
        path.write_text(page)

    def close(self) -> None:
        """Close the notebook and end its kernel."""
        self.page.evaluate(f"{CURRENT}.sessionContext.shutdown()")
        self.execute("application:close")

    def reopen(self, name: str = "test.ipynb") -> None:
        """Save, close and open again: outputs come from the file, and no kernel knows the widgets."""
        self.save()
        self.close()
        self.show(name)
        self.page.evaluate(f"{CURRENT}.sessionContext.ready")
        self.page.evaluate(f"{CURRENT}.sessionContext.session.kernel.info")  # a new kernel has answered

    def execute(self, command: str, **arguments: Any) -> None:
        """Run one of JupyterLab's commands; menus are slower and change between versions."""
        self.page.evaluate(
            "([id, args]) => jupyterapp.commands.execute(id, args).then(() => null)", [command, arguments]
        )

    def theme(self, name: str) -> None:
        """ "dark" or "light"."""
        self.execute("apputils:change-theme", theme=f"JupyterLab {name.title()}")
        self.page.wait_for_function("name => document.body.dataset.jpThemeLight === String(name === 'light')", arg=name)

    def width(self, pixels: int) -> None:
        self.page.set_viewport_size({"width": pixels, "height": 900})

    def screenshot(self, name: str) -> Path:
        """A picture of the page, to be looked at."""
        self.pictures.mkdir(parents=True, exist_ok=True)
        path = self.pictures / f"{name}.png"
        self.page.screenshot(path=path)
        return path

    def finish(self) -> None:
        """Close the page and end its kernels; JavaScript errors that nobody caught fail the test."""
        self.page.close()
        self.server.end_kernels(self._others_kernels)
        for path in self.server.settings.rglob("*.jupyterlab-settings"):
            path.unlink()  # the theme
        assert not self.errors, "\n".join(self.errors)
