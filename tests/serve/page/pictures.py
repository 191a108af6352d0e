"""The pictures of the page in the documentation: `python tests/serve/page/pictures.py docs/images`. They are of the
embedded model, this project's documentation and a manual of three pages."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))

from browsing import chromium_path
from page import serving, wait
from papers import manual

ROOT = Path(__file__).resolve().parents[3]
QUESTION = "What is the torque limit of the bolts?"
COLOURS = 192


def main(folder: Path) -> None:
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    with serving() as url, sync_playwright() as playwright:
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=chromium_path(), args=flags)

        def opened(width: int = 1280, height: int = 800, scheme: str = "light") -> Any:
            page = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
            page.set_default_timeout(300_000)
            page.goto(f"{url}/page/")
            page.wait_for_selector(".empty h2")
            page.wait_for_timeout(800)
            return page

        def keep(page: Any, name: str) -> None:
            page.wait_for_timeout(700)
            small(page.screenshot(), folder / f"{name}.png")

        page = opened()
        page.click(".tab-libraries")
        page.fill(".new input", "handbooks")
        page.press(".new input", "Enter")
        page.wait_for_selector(".title .name:text-is('handbooks')")
        page.click(".tab-ask")
        page.wait_for_selector("text=This library is empty")
        keep(page, "empty")
        page.click(".tab-libraries")
        files = [{"name": "p40-pump.pdf", "mimeType": "application/pdf", "buffer": manual()}]
        files += [
            {"name": file.name, "mimeType": "text/markdown", "buffer": file.read_bytes()}
            for file in sorted((ROOT / "docs").glob("*.md"))[:6]
        ]
        page.set_input_files(".drop input", files)
        page.wait_for_selector(".upload")
        wait(lambda: page.locator(".documents tbody tr").count() == len(files))
        page.wait_for_selector(".upload", state="detached")

        page.click("text=Ask it")
        page.fill(".question textarea", QUESTION)
        page.press(".question textarea", "Enter")
        page.wait_for_selector(".cite")
        page.press(".question textarea", "Enter")
        page.wait_for_selector(".answer", state="detached")
        page.wait_for_selector(".cite")
        page.click(".cite >> nth=0")
        page.wait_for_selector(".source mark")
        page.mouse.move(0, 0)
        keep(page, "answer")

        page.click(".tab-libraries")
        page.wait_for_selector(".documents tbody tr")
        page.set_input_files(".drop input", [{"name": "notes.pdf", "mimeType": "application/pdf", "buffer": b"%PDF"}])
        page.wait_for_selector(".upload.failed")
        keep(page, "libraries")

        for name, width, height, scheme in (("dark", 1280, 800, "dark"), ("narrow", 420, 800, "light")):
            page = opened(width, height, scheme)
            page.click(".choice.library")
            page.click(".q-menu .q-item:has-text('handbooks')")
            page.fill(".question textarea", QUESTION)
            page.press(".question textarea", "Enter")
            page.wait_for_selector(".cite")
            if scheme == "dark":
                page.click(".cite >> nth=0")
                page.wait_for_selector(".source mark")
            keep(page, name)
        chromium.close()


def small(png: bytes, file: Path) -> None:
    """Write a picture in few colours: it has few."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(file, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
