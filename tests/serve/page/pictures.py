"""The pictures of the page in the documentation: `python tests/serve/page/pictures.py bench/results/page`. They are of
the embedded model, some of this project's documentation and a manual of three pages. It takes a minute where nothing
else runs."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))

from browsing import chromium_path
from page import serving, wait
from papers import manual

DOCS = Path(__file__).resolve().parents[3] / "docs"
SHOWN = ("README.md", "asking.md", "library.md", "models.md", "search.md")
QUESTION = "What is the gasket made of?"
COLOURS = 256
WAIT_MS = 600_000
"""What anything may take: this machine may be busy."""


def main(folder: Path) -> None:
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    with serving() as url, sync_playwright() as playwright:
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=chromium_path(), args=flags, timeout=WAIT_MS)

        def opened(width: int = 1280, height: int = 800, scheme: str = "light") -> Any:
            context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            context.set_default_timeout(WAIT_MS)
            page = context.new_page()
            page.goto(f"{url}/page/")
            page.wait_for_selector(".empty h2")
            return page

        def keep(page: Any, name: str) -> None:
            page.mouse.move(0, 0)
            page.wait_for_timeout(700)
            small(page.screenshot(), folder / f"{name}.png")
            print(name, flush=True)

        page = opened()
        keep(page, "empty")
        make_library(page)
        ask(page)
        ask(page)  # what was read the first time is reused
        open_source(page)
        keep(page, "answer")
        page.click(".tab-libraries")
        page.wait_for_selector(".documents tbody tr")
        page.set_input_files(".drop input", file("notes.pdf", b"%PDF-1.4 this is none"))
        page.wait_for_selector(".upload.failed")
        keep(page, "libraries")

        others: dict[str, tuple[Any, Callable[[Any], None]]] = {
            "dark": (opened(scheme="dark"), open_source),
            "narrow": (opened(420, 800), lambda page: None),
        }
        for name, (page, then) in others.items():
            ask(page)
            then(page)
            keep(page, name)
        chromium.close()


def make_library(page: Any) -> None:
    """Make a library of a manual and some documentation, as one does; ends before the question."""
    page.click("text=Make a library")
    page.fill(".new input", "handbooks")
    page.press(".new input", "Enter")
    page.wait_for_selector(".title .name:text-is('handbooks')")
    files = [file("p40-pump.pdf", manual()), *(file(name, (DOCS / name).read_bytes()) for name in SHOWN)]
    page.set_input_files(".drop input", files)
    wait(lambda: page.locator(".documents tbody tr").count() == len(files))
    page.wait_for_selector(".upload", state="detached")
    page.click("text=Ask it")


def ask(page: Any) -> None:
    """Ask, and wait for the answer."""
    page.fill(".question textarea", QUESTION)
    page.press(".question textarea", "Enter")
    page.wait_for_selector(".stop:visible")
    page.wait_for_selector(".go:visible")
    page.wait_for_selector(".cite")


def open_source(page: Any) -> None:
    """Open what the answer's first mark cites."""
    page.click(".cite >> nth=0")
    page.wait_for_selector(".source mark")


def file(name: str, content: bytes) -> dict[str, Any]:
    """A file as a browser is handed it."""
    kind = "application/pdf" if name.endswith(".pdf") else "text/markdown"
    return {"name": name, "mimeType": kind, "buffer": content}


def small(png: bytes, file: Path) -> None:
    """Write a picture in few colours: it has few."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, kmeans=2, dither=Image.Dither.NONE)
    picture.save(file, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
