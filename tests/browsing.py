"""A Chromium for tests, and servers with pages for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SERVED = Path(__file__).parent / "serve" / "page" / "served.py"
WAIT_MS = 120_000
"""What anything on the page may take: tests run beside others."""


@dataclass
class Browser:
    """A browser; `asked` are the addresses that its pages sent requests to."""

    chromium: Any
    asked: list[str]

    def page(self, url: str, **context: Any) -> Any:
        """A page of a person of its own at `url`."""
        made = self.chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **context})
        made.set_default_timeout(WAIT_MS)
        page = made.new_page()
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("websocket", lambda socket: self.asked.append(socket.url))
        page.on("dialog", lambda dialog: pytest.fail(f"the page opened a dialog: {dialog.message}"))
        page.goto(url)
        return page


def chromium_path() -> str | None:
    """Where a Chromium lies: LONGREACH_CHROMIUM, or on the path."""
    names = (os.environ.get("LONGREACH_CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium_path()
    if path is None:
        pytest.skip("there is no Chromium: install Debian's package chromium, or set LONGREACH_CHROMIUM to one")
    sync_api = pytest.importorskip("playwright.sync_api", reason="the tests of the page need playwright")
    with sync_api.sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=path, args=sandbox)
        yield Browser(chromium, [])
        chromium.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts servers in this test's folder: `served(pause=0.0)` gives the address."""
    pytest.importorskip("nicegui", reason="the page needs nicegui")
    started: list[subprocess.Popen[str]] = []

    def start(pause: float = 0.0) -> str:
        command = [sys.executable, str(SERVED), str(tmp_path), str(pause)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        started.append(process)
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "the server does not start"
        return address

    yield start
    for process in started:
        process.terminate()
        process.wait(timeout=60)
