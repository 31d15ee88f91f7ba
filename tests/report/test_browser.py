"""report.html in Debian's chromium, as people open it: from a file, with and without JavaScript, on paper."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from bake.report.html import html
from tests.report.extremes import INTERRUPTED, LARGE, MINIMAL, noise, with_pictures
from tests.report.samples import FAILED, GOOD, HOSTILE

pytestmark = pytest.mark.integration

AXE = Path(__file__).parent / "browser/node_modules/axe-core/axe.min.js"
CHROMIUM = shutil.which("chromium")
SAMPLES = {
    "good": GOOD,
    "failed": FAILED,
    "hostile": HOSTILE,
    "interrupted": INTERRUPTED,
    "minimal": MINIMAL,
    "large": LARGE,
}
SCREEN = {"width": 1280, "height": 860}
PHONE = {"width": 360, "height": 740}
FOCUSABLE = "a[href], button, input, select, summary, [tabindex='0']"


@dataclass
class Opened:
    """A report in a tab, and everything that the tab did which it should not."""

    page: Page
    url: str
    wrong: list[str] = field(default_factory=list)

    def checks(self) -> list[str]:
        """The anchors of the checks that are shown."""
        ids: list[str] = self.page.locator(".check:visible").evaluate_all("all => all.map(one => one.id)")
        return ids


Open = Callable[..., Opened]


@cache
def rendered(name: str) -> str:
    """The page of a sample; its pictures are there, and are those of the report."""
    report, files = with_pictures(SAMPLES[name], noise(64))
    return html(report, files)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's chromium, headless."""
    if not CHROMIUM:
        pytest.skip("chromium is not installed; `make test` installs it")
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Open a sample from file://; `options` are those of a browser context."""
    contexts = []

    def opens(name: str, anchor: str = "", **options: Any) -> Opened:
        file = tmp_path / f"{name}.html"
        file.write_text(rendered(name), encoding="utf-8")
        contexts.append(context := browser.new_context(**{"viewport": SCREEN, **options}))
        context.set_default_timeout(20_000)
        tab = Opened(context.new_page(), file.as_uri())
        tab.page.on("console", lambda message: tab.wrong.append(f"console: {message.text}"))
        tab.page.on("pageerror", lambda error: tab.wrong.append(f"error: {error}"))
        tab.page.on("request", lambda request: _note_request(tab, request.url))
        tab.page.on(
            "dialog", lambda dialog: (tab.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss())
        )
        tab.page.goto(tab.url + anchor)
        return tab

    yield opens
    for context in contexts:
        context.close()


def _note_request(tab: Opened, url: str) -> None:
    if not url.startswith("data:") and url.partition("#")[0] != tab.url:
        tab.wrong.append(f"request: {url}")


def unfold(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", SAMPLES)
def test_it_opens_from_a_file_and_nothing_goes_wrong(opened: Open, name: str, scheme: str) -> None:
    tab = opened(name, color_scheme=scheme)
    unfold(tab.page)
    tab.page.evaluate("scrollTo(0, document.body.scrollHeight)")
    assert tab.page.locator("h1").is_visible()
    assert tab.page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    assert tab.wrong == []


@pytest.mark.parametrize("name", ["good", "failed", "interrupted"])
def test_the_first_screen_answers_a_reviewer(opened: Open, name: str) -> None:
    """Venue, verdict, image, what changed, what failed and why, what was waived by whom."""
    tab = opened(name)
    parts = [
        "strong:text-is('REHEARSAL')",
        ".banner li >> nth=0",
        "h1",
        ".facts",
        "#card-since",
        ".waivers li",
    ]
    parts += [".failures li"] if name == "failed" else []
    parts += [".left"] if name == "interrupted" else []
    for part in parts:
        box = tab.page.locator(part).bounding_box()
        assert box, part
        assert box["y"] + box["height"] <= SCREEN["height"], part
    assert re.match("REHEARSAL", tab.page.title())


def test_filters_narrow_the_checks_and_say_how_many_are_left(opened: Open) -> None:
    tab = opened("large")
    page, found = tab.page, tab.page.locator("#found")
    assert found.text_content() == ""
    page.get_by_role("checkbox", name="passed").uncheck()
    assert tab.checks() == ["security.check_3", "security.check_3@booted"]
    assert found.text_content() == "2 of 128 shown"
    assert page.locator(".group:visible").count() == 1
    page.get_by_label("Moment").select_option("booted")
    assert tab.checks() == ["security.check_3@booted"]
    page.get_by_label("Severity").select_option("critical")
    assert tab.checks() == []
    page.get_by_label("Severity").press("Escape")
    assert len(tab.checks()) == 128


def test_search_looks_into_titles_ids_and_evidence(opened: Open) -> None:
    tab = opened("good")
    search = tab.page.get_by_label("Search")
    for words, ids in {
        "private KEY": ["security.private_keys"],
        "worker.ready": ["worker.ready"],
        "the probe secrets": ["security.private_keys"],
        "ready time": ["performance.ready_time"],
        "no such words": [],
    }.items():
        search.fill(words)
        assert tab.checks() == ids
    search.fill("")
    assert len(tab.checks()) == 7


def test_a_deep_link_unfolds_its_evidence_and_shows_it(opened: Open) -> None:
    tab = opened("large", "#disk.check_5@booted")
    tab.page.wait_for_function("document.activeElement.parentElement?.id === 'disk.check_5@booted'")
    assert tab.page.locator("[id='disk.check_5@booted'] .evidence").is_visible()
    assert _on_screen(tab.page.locator("[id='disk.check_5@booted']"))
    assert tab.page.locator(".check[open]").count() == 1


def test_a_link_to_a_check_shows_it_although_a_filter_hides_it(opened: Open) -> None:
    tab = opened("failed")
    tab.page.get_by_label("Search").fill("no such check")
    tab.page.locator(".failures a").click()
    check = tab.page.locator("[id='users.no_passwords']")
    check.locator(".evidence").wait_for(state="visible")
    assert _on_screen(check)


def _on_screen(locator: Locator) -> bool:
    """Whether it begins on the screen, once the browser has scrolled."""
    script = "one => { const y = one.getBoundingClientRect().y; return y >= 0 && y < innerHeight }"
    return bool(locator.evaluate(script))


def test_a_keyboard_reaches_everything_and_unfolds_evidence(opened: Open) -> None:
    page = opened("good").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    reachable = page.locator(FOCUSABLE).evaluate_all(
        "all => all.filter(one => one.checkVisibility({ contentVisibilityAuto: true })).length"
    )
    assert reachable > 40
    page.evaluate("window.seen = new Set([document.activeElement])")
    for _ in range(reachable - 1):
        page.keyboard.press("Tab")
        assert page.evaluate("seen.add(document.activeElement); document.activeElement !== document.body")
    assert page.evaluate("seen.size") == reachable
    summary = page.locator("[id='security.private_keys'] > summary")
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("[id='security.private_keys'] .evidence").is_visible()
    assert summary.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"


def test_unfold_all_shows_the_evidence_of_every_check(opened: Open) -> None:
    page = opened("failed").page
    page.get_by_role("button", name="Unfold all").click()
    assert page.locator(".check:not([open])").count() == 0
    page.get_by_role("button", name="Fold all").click()
    assert page.locator(".check[open]").count() == 0


@pytest.mark.parametrize("name", SAMPLES)
def test_without_javascript_nothing_is_missing_but_the_filter(opened: Open, name: str) -> None:
    tab = opened(name, java_script_enabled=False)
    page = tab.page
    assert page.locator("#tools:visible").count() == 0
    assert page.locator(".check").count() == page.locator(".check:visible").count()
    for number in range(min(page.locator(".check").count(), 3)):
        page.locator(".check > summary").nth(number).click()
        assert page.locator(".check .body").nth(number).is_visible()
    assert tab.wrong == []


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_on_paper_all_evidence_is_there_and_what_is_of_no_use_is_not(opened: Open, scripts: bool) -> None:
    page = opened("failed", java_script_enabled=scripts).page
    page.emulate_media(media="print")
    evidence = page.locator(".check .evidence")
    assert evidence.count() == 4
    for number in range(evidence.count()):
        box = evidence.nth(number).bounding_box()
        assert box
        assert box["height"] > 10
    assert page.locator("nav:visible, #tools:visible").count() == 0


def test_it_prints_to_pages_of_paper(opened: Open, tmp_path: Path) -> None:
    page = opened("large").page
    before = page.locator("details[open]").count()
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    pages = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "report.pdf").read_bytes()))
    assert 10 <= pages <= 40
    assert page.locator("details[open]").count() == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "large"])
def test_axe_finds_nothing(opened: Open, name: str, scheme: str) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed; `make test` installs it")
    page = opened(name, color_scheme=scheme).page
    unfold(page)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    told = [
        f"{one['impact']} {one['id']}: {one['help']}: {node['html'][:200]}"
        for one in found["violations"]
        for node in one["nodes"]
    ]
    assert told == []
    assert len(found["passes"]) > 20


@pytest.mark.parametrize("name", SAMPLES)
def test_a_phone_needs_no_scrolling_sideways(opened: Open, name: str) -> None:
    page = opened(name, viewport=PHONE).page
    unfold(page)
    wide = page.evaluate(
        "[...document.querySelectorAll('main *, .top *')].filter(one => !one.closest('.sr, svg, pre')"
        " && one.getBoundingClientRect().right > innerWidth + 0.5).map(one => one.outerHTML.slice(0, 150))"
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_it_is_light_and_dark_as_the_reader_has_it(opened: Open, tmp_path: Path) -> None:
    means = []
    for scheme in ("light", "dark"):
        file = tmp_path / f"{scheme}.png"
        opened("good", color_scheme=scheme).page.screenshot(path=file)
        with Image.open(file) as image:
            pixels = image.convert("L").resize((64, 64)).tobytes()
        means.append(sum(pixels) / len(pixels))
    light, dark = means
    assert light > 200
    assert dark < 70


def test_what_a_machine_writes_stays_text(opened: Open) -> None:
    tab = opened("hostile")
    unfold(tab.page)
    tab.page.wait_for_load_state("load")
    assert tab.page.locator("script").count() == 1
    assert tab.page.locator("img").evaluate_all(
        "all => all.every(one => one.src.startsWith('data:image/webp'))"
    )
    assert tab.page.locator(".check b:text-is('bold'), h1:text-is('x')").count() == 0
    for text in ("<script>alert(1)</script>", "<b>bold</b> & \\u202eright to left", "</details><h1>x"):
        assert tab.page.get_by_text(text).first.is_visible()
    assert tab.wrong == []


def test_a_script_that_got_in_all_the_same_would_not_run(opened: Open) -> None:
    """The policy is the second wall: the first is that nothing gets in."""
    tab = opened("good")
    tab.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"alert(1)\">')")
    tab.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'alert(2)'}))"
    )
    tab.page.wait_for_function("document.images[document.images.length - 1].complete")
    assert len(tab.wrong) >= 2
    assert not [one for one in tab.wrong if one.startswith("dialog")]
