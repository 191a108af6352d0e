"""The page in Chromium, as people use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from browsing import Browser
from longreach.serve.keys import KeyStore
from papers import manual

pytestmark = pytest.mark.thorough
Served = Callable[..., str]
SAYS = "The torque limit of the bolts is 25 Nm."


def open_with_a_document(page: Any) -> None:
    """Make a library with one document, and go to where it is asked."""
    make_library(page)
    put(page, "pump.txt", SAYS.encode())
    in_list(page, "pump.txt").wait_for()
    page.click("text=Ask it")


def make_library(page: Any, name: str = "manuals") -> None:
    page.click(".tab-libraries")
    page.fill(".new input", name)
    page.press(".new input", "Enter")
    page.wait_for_selector(f".title .name:text-is('{name}')")


def put(page: Any, name: str, content: bytes, kind: str = "text/plain") -> None:
    page.set_input_files(".drop input", {"name": name, "mimeType": kind, "buffer": content})


def in_list(page: Any, name: str) -> Any:
    return page.locator(".documents tbody .name", has_text=name)


def ask(page: Any, question: str = "What is the torque limit?") -> None:
    page.fill(".question textarea", question)
    page.press(".question textarea", "Enter")


def test_from_an_empty_server_to_the_cited_words_and_back(browser: Browser, served: Served) -> None:
    url = served(0.4)
    page = browser.page(url)
    page.wait_for_url("**/page/")
    page.click("text=Make a library")
    make_library(page)
    put(page, "pump.pdf", manual(), "application/pdf")
    page.wait_for_selector(".upload [role=progressbar]")
    in_list(page, "pump.pdf").wait_for()
    page.wait_for_selector(".upload", state="detached")
    assert page.locator(".disk b").count() == 3

    page.click("text=Ask it")
    ask(page)
    page.wait_for_function(_HALF_WRITTEN)
    page.wait_for_selector(".answer")
    assert SAYS in page.inner_text(".answer").replace("\n", " ")
    assert page.locator(".meter dd").count() == 6
    assert page.locator(".passages .score").count() > 0

    page.click(".answer .cite >> nth=0")
    page.wait_for_selector(".source mark")
    assert "25 Nm" in page.inner_text(".source mark")
    assert page.inner_text(".source .where").startswith("page 2")
    assert page.locator(".page-number", has_text="Page 2").count() == 1
    page.wait_for_function(_IN_SIGHT)
    page.keyboard.press("Escape")
    page.wait_for_selector(".source", state="hidden")
    assert page.evaluate("document.activeElement.matches('.cite')")

    page.click(".tab-libraries")
    page.click(".documents .danger")
    page.click(".dialog .main")
    in_list(page, "pump.pdf").wait_for(state="detached")
    assert httpx.get(f"{url}/v1/libraries/manuals/documents").json()["documents"] == []


_HALF_WRITTEN = """() => {
  const written = document.querySelector(".written:not(.hidden)")?.innerText ?? "";
  return written.includes("The torque") && !written.includes("25 Nm.");
}"""
_IN_SIGHT = """() => {
  const mark = document.querySelector(".source mark").getBoundingClientRect();
  const page = document.querySelector(".source .page").getBoundingClientRect();
  return mark.top >= page.top && mark.bottom <= page.bottom;
}"""


def test_nothing_is_asked_of_any_other_machine(browser: Browser, served: Served, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "frontier.html").write_text(_CURIOUS, encoding="utf-8")
    browser.asked.clear()
    page = browser.page(served())
    open_with_a_document(page)
    ask(page)
    page.click(".cite")
    page.wait_for_selector(".source mark")
    page.click(".tab-frontier")
    frame = page.frame_locator(".frame")
    frame.locator("#told", has_text="refused too").wait_for()
    assert page.evaluate("window.reached") is None
    assert {urlsplit(address).hostname for address in browser.asked if "://" in address} == {"127.0.0.1"}


_CURIOUS = """<!doctype html><p id="told"></p><script>
try { parent.reached = document.cookie } catch { told.textContent = "refused" }
fetch("/v1/libraries").then(() => { told.textContent = "fetched" }, () => { told.textContent += " too" })
</script>"""


def test_names_and_texts_are_never_more_than_text(browser: Browser, served: Served) -> None:
    name = "<img src=x onerror=hit()>{{hit()}}'\".txt"
    evil = '<script>hit()</script><b onclick="hit()">\\`${hit()}`</b> {{constructor.constructor("hit()")()}}'
    url = served()
    page = browser.page(url)
    page.evaluate("() => { window.hits = 0; window.hit = () => { window.hits += 1 } }")
    make_library(page)
    put(page, name, f"{evil} {SAYS} {evil}".encode())
    in_list(page, "<img src=x").wait_for()
    kept = httpx.get(f"{url}/v1/libraries/manuals/documents").json()["documents"][0]["id"]
    assert in_list(page, "<img src=x").inner_text() == kept
    page.click(".documents .danger")
    page.wait_for_selector(".dialog p:has-text('{{hit()}}')")
    page.click("text=Keep it")
    page.wait_for_selector(".dialog", state="detached")
    page.click("text=Ask it")
    ask(page, evil + " torque limit?")
    page.click(".cite >> nth=0")
    page.wait_for_selector(".source mark")
    assert page.inner_text(".source .name") == kept
    assert evil in page.inner_text(".source .text")
    assert page.evaluate("window.hits") == 0
    assert page.locator(".views script, .views img, .views [onclick]").count() == 0


def test_what_cannot_be_read_says_why(browser: Browser, served: Served) -> None:
    page = browser.page(served())
    make_library(page)
    put(page, "broken.pdf", b"%PDF-1.4 this is none", "application/pdf")
    page.wait_for_selector(".upload.failed .reason")
    assert page.inner_text(".upload.failed .name") == "broken.pdf"
    page.click(".upload.failed button")
    page.wait_for_selector(".upload", state="detached")


def test_a_key_opens_its_own_libraries_until_it_is_revoked(browser: Browser, served: Served, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "serve")
    _, own = keys.create("owner", write=True)
    _, reads = keys.create("reader", libraries=["notes"])
    url = served()
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {own}"}) as client:
        for name in ("notes", "secret"):
            assert client.post("/v1/libraries", json={"name": name}).status_code == 201

    page = browser.page(f"{url}/page/")
    page.wait_for_url("**/page/sign-in")
    page.fill("#key", "lr-0-wrong")
    page.click("text=Sign in >> nth=-1")
    page.wait_for_selector(".complaint:has-text('no good key')")
    page.fill("#key", reads)
    page.press("#key", "Enter")
    page.wait_for_url("**/page/")
    page.click(".tab-libraries")
    page.wait_for_selector(".entry")
    assert page.locator(".entry").all_inner_texts() == ["notes"]
    assert page.locator(".drop, .new:visible, .title .danger").count() == 0
    page.click(".tab-frontier")
    page.wait_for_selector("text=Not for this key")
    assert reads not in page.url

    keys.revoke("reader")
    page.click(".tab-ask")
    page.wait_for_url("**/page/sign-in")
    assert "notes" not in page.content()


def test_a_question_can_be_stopped_and_asked_anew(browser: Browser, served: Served) -> None:
    page = browser.page(served(1.0))
    open_with_a_document(page)
    ask(page)
    page.wait_for_selector(".written:not(.hidden)")
    page.click(".stop")
    page.wait_for_selector(".go:visible")
    assert page.locator(".answer").count() == 0
    ask(page)
    page.wait_for_selector(".answer")
    assert page.locator(".answer").count() == 1


def test_the_keyboard_is_enough_and_narrow_and_dark_are_kept(browser: Browser, served: Served) -> None:
    url = served()
    page = browser.page(url, viewport={"width": 390, "height": 780}, color_scheme="dark")
    make_library(page)
    put(page, "pump.txt", SAYS.encode())
    in_list(page, "pump.txt").wait_for()
    page.locator(".tab-libraries").focus()
    page.keyboard.press("/")
    page.wait_for_function("document.activeElement.matches('.question textarea')")
    page.keyboard.type("What is the torque limit?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".answer")
    page.locator(".cite >> nth=0").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".source mark")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing stands out at the side"
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("Escape")
    page.wait_for_selector(".source", state="hidden")
    page.click(".theme")
    page.click(".theme")
    page.reload()
    page.wait_for_selector(".theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


def test_what_was_answered_stays_until_something_else_is_asked(browser: Browser, served: Served) -> None:
    page = browser.page(served())
    open_with_a_document(page)
    ask(page)
    page.click(".cite >> nth=0")
    page.wait_for_selector(".source mark")
    ask(page, " ")
    page.wait_for_selector(".q-notification:has-text('type a question first')")
    assert page.locator(".answer").count() == 1
    assert page.locator(".source mark").count() == 1
