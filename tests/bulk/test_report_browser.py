"""The page of ``qsit report`` in headless chromium, with the network off."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qsit_plugin.bulk.report import report
from qsit_plugin.bulk.store import Store
from tests.bulk.brightness import ABOUT, score
from tests.bulk.conftest import picture
from tests.bulk.test_report import HOSTILE, OTHER

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = [
    what
    for what, there in (("playwright", importlib.util.find_spec("playwright")), ("chromium", CHROMIUM))
    if not there
]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")

IMAGES = 10_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """``visit(path)`` -> the page, offline; at the end nothing was asked for but the file, and nothing was complained
    of."""
    asked: list[str] = []
    complaints: list[str] = []
    context = browser.new_context(offline=True, color_scheme="light", viewport={"width": 1200, "height": 900})
    tab = context.new_page()
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))

    def opened(path: Path) -> Any:
        tab.goto(path.as_uri())
        tab.wait_for_selector(".row")
        return tab

    yield opened
    context.close()  # the page's policy forbids eval, so wait_for_function does not work in it
    assert [url for url in asked if not url.startswith("data:")] == asked[:1] and asked[0].startswith("file:")
    assert complaints == []


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 10,000 images by two models, of which two have pictures."""
    folder = tmp_path_factory.mktemp("large")
    for number in (0, IMAGES - 1):
        picture(folder / "album" / f"{number:05}.png", number)
    answers = [
        {"path": str(folder / "album" / "00007.png"), "question": "What is it?", "text": "A sharp photo of a cat."}
    ]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers), "utf-8")
    for about, gain in ((ABOUT, 0.0), (OTHER, 0.01)):
        with Store(folder / "s.sqlite", about) as store:
            for number in range(IMAGES):
                sha256 = hashlib.sha256(b"%d" % number).digest()
                store.put_image(str(folder / "album" / f"{number:05}.png"), 1, 1, sha256)
                level = ("bad", "poor", "fair", "good", "excellent")[number * 5 // IMAGES]
                record = {"score": number / IMAGES + gain, "level": level, "std": 0.1, "level_mass": 1.0}
                record |= {"probabilities": dict.fromkeys(("excellent", "good", "fair", "poor", "bad"), 0.2)}
                store.put_result(sha256, record | {"width": 16, "height": 12, "dtype": "float32", "engine": "none"})
    report(folder / "s.sqlite", folder / "r.html", recipe=1, against="2", answers=folder / "a.jsonl")
    return folder / "r.html"


def names(tab: Any) -> list[str]:
    """Of the rows in sight, from the top."""
    found = tab.eval_on_selector_all(
        ".row", "rows => rows.map(r => [parseFloat(r.style.top), r.querySelector('p').textContent])"
    )
    return [name for _, name in sorted(found)]


def test_of_ten_thousand_rows_those_in_sight_are_in_the_document(visit, large: Path) -> None:
    tab = visit(large)
    assert tab.inner_text("#count") == "10,000 of 10,000 images"
    assert names(tab)[0] == "00000.png" and len(names(tab)) < 40
    tab.focus("#list")
    tab.keyboard.press("End")
    assert names(tab)[-1] == "09999.png" and len(names(tab)) < 40
    tab.evaluate("document.getElementById('list').scrollTop = 5000 * 72")
    tab.wait_for_selector("text=05000.png")
    assert len(names(tab)) < 40
    assert tab.evaluate("document.querySelectorAll('img').length") <= 6


def test_search_level_range_and_sorting_narrow_the_list(visit, large: Path) -> None:
    tab = visit(large)
    tab.fill("#words", "CAT sharp")
    assert tab.inner_text("#count") == "1 of 10,000 images" and names(tab) == ["00007.png"]
    assert "A sharp photo of a cat." in tab.inner_text(".row")
    tab.click("button[type=reset]")
    tab.wait_for_selector("#count:has-text('10,000 of')")
    tab.select_option("#level", label="good")
    tab.fill("#low", "0.75")
    assert tab.inner_text("#count") == "500 of 10,000 images"
    tab.select_option("#sort", label="best first")
    assert names(tab)[0] == "07999.png"
    tab.fill("#words", "no such name")
    assert tab.inner_text("#count") == "0 of 10,000 images" and names(tab) == []
    tab.click("button[type=reset]")
    tab.click("#histogram button:nth-child(50)")
    assert tab.inner_text("#count") == "200 of 10,000 images"


def test_two_runs_stand_with_their_intervals(visit, large: Path) -> None:
    tab = visit(large)
    text = tab.inner_text("#pairs")
    assert "+0.010 (95 %: +0.010 to +0.010)" in text and "100.0 %" in text and "10,000" in text
    assert "second run 0.010, +0.010" in tab.inner_text(".row >> nth=0")


def test_the_keyboard_reaches_everything(visit, large: Path) -> None:
    tab = visit(large)
    tab.keyboard.press("/")
    tab.keyboard.type("0000")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowDown")
    chosen = tab.locator(".row[aria-selected=true]")
    assert "00001.png" in chosen.inner_text()
    assert tab.get_attribute("#list", "aria-activedescendant") == chosen.get_attribute("id")
    tab.keyboard.press("Enter")
    assert tab.is_visible("dialog") and "0.0001, bad" in tab.inner_text("dialog")
    tab.keyboard.press("Escape")
    assert not tab.is_visible("dialog")
    tab.keyboard.press("s")
    assert names(tab)[0] == "00009.png", "best first, of 00000 to 00009"


def test_light_and_dark_follow_the_system_until_one_is_chosen(visit, large: Path) -> None:
    tab = visit(large)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(ground)
    tab.emulate_media(color_scheme="dark")
    dark = tab.evaluate(ground)
    tab.keyboard.press("d")
    assert light != dark and tab.evaluate(ground) == light
    tab.click("#theme")
    assert tab.evaluate(ground) == dark


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_hostile_names_are_shown_as_they_are_and_run_nothing(visit, tmp_path: Path) -> None:
    for seed, name in enumerate(HOSTILE):
        picture(tmp_path / "album" / name, seed)
    score(tmp_path / "s.sqlite", tmp_path / "album", about=ABOUT | {"model": "</script><script>alert(1)</script>"})
    report(tmp_path / "s.sqlite", tmp_path / "r.html")
    tab = visit(tmp_path / "r.html")
    assert set(names(tab)) == set(HOSTILE)
    assert tab.evaluate("document.querySelectorAll('script').length") == 3
    tab.evaluate("Promise.all([...document.images].map(image => image.decode()))")
    for at in range(len(HOSTILE)):
        tab.focus("#list")
        tab.keyboard.press("Home")
        for _ in range(at):
            tab.keyboard.press("ArrowDown")
        tab.keyboard.press("Enter")
        link = tab.locator("dialog a").evaluate("link => decodeURIComponent(link.href)")
        assert link == f"file://{tmp_path}/album/{tab.text_content('dialog h2')}"
        tab.keyboard.press("Escape")


def test_a_link_leads_to_the_image(visit, tmp_path: Path) -> None:
    picture(tmp_path / "al bum" / "a#?%41 ü.png", 1)
    score(tmp_path / "s.sqlite", tmp_path / "al bum")
    (tmp_path / "pages").mkdir()
    report(tmp_path / "s.sqlite", tmp_path / "pages" / "r.html")
    tab = visit(tmp_path / "pages" / "r.html")
    tab.click(".row")
    assert tab.locator("dialog a").evaluate("link => link.href") == (tmp_path / "al bum" / "a#?%41 ü.png").as_uri()
