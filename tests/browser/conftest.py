"""A JupyterLab, a browser and a page of it for each test."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from helpers.warm_kernels import warm_kernels

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from browser.lab import LabPage, LabServer

OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
"""Nothing comes from anywhere else: widgets and saved pages work without a network."""
PICTURES = Path(__file__).parents[2] / "runs" / "browser"


@pytest.fixture(scope="package")
def browser() -> Iterator["Browser"]:
    """Chromium, without its sandbox for root, who may not use it."""
    missing = [name for name in ("playwright", "jupyterlab") if find_spec(name) is None]
    if missing:
        _not_here(f"{' and '.join(missing)} not installed: pip install -e '.[notebook,dev]'")
    from playwright.sync_api import sync_playwright

    from browser.lab import find_browser

    path = find_browser()
    if path is None:
        _not_here("no Chromium is installed (Debian's package is called chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0, args=[OFFLINE])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def lab_server(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator["LabServer"]:
    """JupyterLab as `caap-lab lab` starts it; after the browser, since nothing is started without one."""
    from browser.lab import LabServer

    with ExitStack() as held:
        forks = sys.platform != "win32"
        warm = held.enter_context(warm_kernels(tmp_path_factory.mktemp("jupyter"))) if forks else None
        server = LabServer(tmp_path_factory.mktemp("lab"), warm)
        held.callback(server.stop)
        yield server


@pytest.fixture
def lab(lab_server: "LabServer", browser: "Browser", request: pytest.FixtureRequest) -> Iterator["LabPage"]:
    """A page of JupyterLab; its last state is kept as a picture in runs/browser."""
    from browser.lab import LabPage

    page = LabPage(lab_server, browser, PICTURES)
    yield page
    page.screenshot(re.sub(r"\W+", "_", request.node.name))
    page.finish()


@pytest.fixture(scope="module")
def lab_page(lab_server: "LabServer", browser: "Browser") -> Iterator["LabPage"]:
    """A page of JupyterLab for all tests of a file: a kernel that has loaded a model need not do so for each."""
    from browser.lab import LabPage

    page = LabPage(lab_server, browser, PICTURES)
    yield page
    page.finish()


def _not_here(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
