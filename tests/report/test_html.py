"""report.html, without a browser: what it says, what it leaves out, and that it stays small and harmless."""

from __future__ import annotations

import base64
import hashlib
import html as entities
import io
import re
import unicodedata
from datetime import date
from html.parser import HTMLParser

import pytest
from PIL import Image

from bake.checks.result import Waiver
from bake.report import page, pictures
from bake.report.html import LIMIT, code_parts, duration, html, is_link, moment, money, size
from bake.report.model import Change, Changes, Log, Note, Package, Report, Venue
from tests.report.extremes import INTERRUPTED, LARGE, MINIMAL, noise, with_pictures
from tests.report.samples import CHECKS, FAILED, GOOD, HOSTILE, SEALED, WAIVER, check

ALL = {
    "good": GOOD,
    "failed": FAILED,
    "hostile": HOSTILE,
    "interrupted": INTERRUPTED,
    "minimal": MINIMAL,
    "large": LARGE,
}
OPTIONAL = [
    name for name, field in Report.model_fields.items() if not field.is_required() and name != "report"
]


class Page(HTMLParser):
    """What a browser would read: elements, attributes and text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]

    def section(self, name: str) -> str:
        """The text of one section, on one line."""
        found = re.search(rf'<section id="{name}".*?(?=<section id=|</main>)', self.source, re.S)
        assert found
        return re.sub(r"\s+", " ", entities.unescape(re.sub(r"<[^>]*>", " ", found[0])))


@pytest.fixture(params=ALL, ids=str)
def any_page(request: pytest.FixtureRequest) -> Page:
    return Page(html(ALL[request.param], {}))


def test_every_report_has_one_title_one_heading_and_anchors_that_occur_once(any_page: Page) -> None:
    tags = [tag for tag, _ in any_page.elements]
    assert (tags.count("title"), tags.count("h1"), tags.count("main")) == (1, 1, 1)
    ids = any_page.values("id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in any_page.values("href") if link.startswith("#")} <= set(ids)


def test_every_report_asks_nothing_of_a_network(any_page: Page) -> None:
    assert not [url for url in any_page.values("src") if not url.startswith("data:image/webp;base64,")]
    assert not {"iframe", "object", "embed", "base"} & {tag for tag, _ in any_page.elements}
    assert "@import" not in any_page.source
    assert "url(" not in any_page.source


def test_the_policy_allows_the_pages_own_style_and_script_alone(any_page: Page) -> None:
    policy = next(value for value in any_page.values("content") if "default-src" in value)
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        inlined = re.findall(rf"<{tag}>(.*?)</{tag}>", any_page.source, re.S)
        assert len(inlined) == 1
        digest = base64.b64encode(hashlib.sha256(inlined[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not any_page.values("style")
    assert not [name for _, names in any_page.elements for name in names if name.startswith("on")]


def test_every_report_is_plain_text_in_utf_8(any_page: Page) -> None:
    any_page.source.encode()
    bad = [letter for letter in any_page.source if unicodedata.category(letter) in ("Cc", "Cf", "Cs")]
    assert set(bad) <= {"\n", "\t"}


def test_the_same_report_gives_the_same_page() -> None:
    assert html(GOOD, {}) == html(GOOD, {})


@pytest.mark.parametrize("name", OPTIONAL)
def test_each_part_of_a_report_may_be_absent(name: str) -> None:
    other = WAIVER.model_copy(update={"check": "users.other"})
    whole = GOOD.model_copy(update={"waivers": (WAIVER, other)})
    without = whole.model_copy(
        update={name: Report.model_fields[name].get_default(call_default_factory=True)}
    )
    assert Page(html(without, {})).elements != Page(html(whole, {})).elements


def test_a_rehearsal_is_called_one_in_title_and_banner_and_a_bake_on_aws_nowhere() -> None:
    rehearsal = html(GOOD, {})
    assert "<title>REHEARSAL · good · ami-0c0ffee0c0ffee001" in rehearsal
    assert '<div class="banner">' in rehearsal
    assert all(entities.escape(difference) in rehearsal for difference in GOOD.venue.differences)
    aws = html(GOOD.model_copy(update={"venue": Venue(name="AWS"), "image": None}), {})
    assert "<title>AWS · good · no image" in aws
    assert not re.search(r"rehears|stand-in", re.sub(r"<style>.*?</style>", "", aws, flags=re.S), re.I)


def test_everything_about_a_check_is_on_the_page() -> None:
    shown = Page(html(FAILED, {}))
    for one in FAILED.checks:
        about = one.about
        texts = [about.title, about.source, about.cis or "", one.reason, *one.base, *about.requirements]
        texts += [text for piece in one.evidence for text in (piece.expected, piece.found, piece.by)]
        assert [text for text in texts if text not in shown.text] == []
        assert one.id in shown.values("id")
    assert "passwd --lock NAME" in shown.text


def test_failed_checks_stand_before_passed_ones_and_moments_have_anchors_of_their_own() -> None:
    rows = page.rows([check(), check(moment="booted", outcome="failed", reason="found root"), check()])
    assert [row.anchor for row in rows] == [
        "users.no_passwords",
        "users.no_passwords@booted",
        "users.no_passwords@sealed",
    ]
    assert [row.check.outcome for row in page.groups(rows, 9)[0].rows] == ["failed", "passed", "passed"]
    assert [row.check.outcome for row in page.groups(rows, 1)[0].rows] == ["failed"]


@pytest.mark.parametrize("name", ["users.<script>", 'users." onclick="', "users. \x00", "users." + "x" * 999])
def test_an_anchor_is_harmless_whatever_a_check_is_called(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._@-]{1,80}", page.rows([check(name)])[0].anchor)


@pytest.mark.parametrize(
    ("until", "said"),
    [
        (date(2027, 1, 31), "63 days left"),
        (date(2026, 11, 30), "1 day left"),
        (date(2026, 11, 29), "last day"),
        (date(2026, 11, 28), "ended 1 day before this run"),
        (date(2026, 11, 19), "ended 10 days before this run"),
    ],
)
def test_a_waiver_says_who_approved_it_and_how_long_it_counts(until: date, said: str) -> None:
    waiver = WAIVER.model_copy(update={"until": until})
    shown = Page(html(GOOD.model_copy(update={"waivers": (waiver,), "checks": ()}), {})).text
    assert said in re.sub(r"\s+", " ", shown)
    assert waiver.approved_by in shown
    assert waiver.risk in shown


def test_a_waiver_that_nothing_needs_says_so() -> None:
    unneeded = Waiver(**{**WAIVER.model_dump(), "check": "users.no_passwords"})
    assert "(not needed: passed)" in html(GOOD.model_copy(update={"waivers": (unneeded,)}), {})
    assert "(not needed" not in html(GOOD, {})
    unknown = Waiver(**{**WAIVER.model_dump(), "check": "users.unknown"})
    assert "(nothing of this name was checked)" in html(GOOD.model_copy(update={"waivers": (unknown,)}), {})


def test_the_waiver_of_a_vulnerability_is_listed_with_the_others() -> None:
    assert GOOD.scan
    waiver = WAIVER.model_copy(update={"check": "CVE-2026-0001", "reason": "not reachable from the network"})
    vulnerability = GOOD.scan.vulnerabilities[0].model_copy(update={"waiver": waiver})
    scan = GOOD.scan.model_copy(update={"vulnerabilities": (vulnerability,)})
    report = GOOD.model_copy(update={"scan": scan, "waivers": (), "checks": ()})
    (found,) = page.waivers(report, ())
    assert (found.waiver, found.note) == (waiver, "")
    assert Page(html(report, {})).text.count("not reachable from the network") == 2


def test_changes_that_were_not_meant_are_findings_and_on_the_first_screen() -> None:
    shown = Page(html(GOOD, {}))
    machine = shown.section("machine")
    assert "3 changes, of which 1 not meant" in machine
    assert machine.index("/usr/bin/newgidmap") < machine.index("flux-worker.service")
    assert "1 change on the machine" in shown.text.split("Filter")[0]


def test_many_packages_do_not_hide_a_new_user() -> None:
    some = [Change(kind="package", name=f"p{number}", before="1", after="2") for number in range(50)]
    user = Change(kind="user", name="guest", before=None, after="1001")
    changes = Changes(before="a", after="b", changes=(*some, user))
    assert page.foremost(changes, 3)[0] == user
    assert len(page.foremost(changes, 3)) == 3


def test_what_no_scanner_looked_at_is_never_called_free_of_vulnerabilities() -> None:
    assert GOOD.scan
    unscanned = Page(html(GOOD.model_copy(update={"scan": None}), {})).section("scan")
    assert "Not scanned" in unscanned
    nothing = GOOD.scan.model_copy(update={"vulnerabilities": ()})
    clean = Page(html(GOOD.model_copy(update={"scan": nothing}), {})).section("scan")
    assert "Not covered program : the scanner says nothing about them" in clean
    assert "knows of none in what was covered (deb, python)" in clean
    blind = nothing.model_copy(update={"covered": (), "not_covered": ("deb",)})
    unseen = Page(html(GOOD.model_copy(update={"scan": blind}), {})).section("scan")
    assert "knows of none" not in unseen


def test_what_does_not_apply_is_never_green() -> None:
    source = html(GOOD.model_copy(update={"checks": CHECKS[3:4]}), {})
    assert 'class="mark passed"' not in source
    assert CHECKS[3].reason in Page(source).text


def test_a_picture_is_webp_of_at_most_150_kb_and_bound_by_its_hash() -> None:
    png = noise(800)
    report, files = with_pictures(GOOD, png)
    shown = Page(html(report, files))
    images = [base64.b64decode(uri.partition(",")[2]) for uri in shown.values("src")]
    assert len(images) == 2
    assert all(image[8:12] == b"WEBP" and len(image) <= 150_000 for image in images)
    assert hashlib.sha256(png).hexdigest() in shown.text
    assert "Not the picture of this report" not in shown.text
    assert "Not the picture of this report" in html(report, {"first-image.png": noise(64, 2)})


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "was not there when this report was written"),
        ({"first-image.png": b"no picture"}, "is no readable PNG"),
        ({"first-image.png": noise(64)[:900]}, "is no readable PNG"),
    ],
    ids=["missing", "other", "cut"],
)
def test_a_picture_that_cannot_be_shown_is_told(files: dict[str, bytes], said: str) -> None:
    shown = Page(html(GOOD, files))
    assert said in shown.section("images")
    assert not shown.values("src")


def test_a_picture_of_any_size_and_mode_becomes_small() -> None:
    target = io.BytesIO()
    Image.new("LA", (3000, 2), 7).save(target, "PNG")
    assert len(pictures.webp(target.getvalue())) < 2_000
    assert len(pictures.webp(noise(400), most=3_000)) <= 3_000


def test_the_page_stays_below_1_mb_with_3000_packages_and_two_pictures() -> None:
    report, files = with_pictures(LARGE, noise(800))
    source = html(report, files)
    assert len(source.encode()) < LIMIT
    assert source.count("lib-package-with-a-long-name-") == 3000


@pytest.mark.integration
def test_the_page_stays_below_1_mb_when_everything_is_endless() -> None:
    long = "<&\x00\u202e" * 2_000
    packages = tuple(Package(kind="deb", name=f"{n}{long[:500]}", version=long[:500]) for n in range(4_000))
    changes = tuple(Change(kind=f"kind{n}", name=long[:300], before=long, after="b") for n in range(500))
    endless = LARGE.model_copy(
        update={
            "checks": (check(title=long, reason=long, outcome="failed"), *LARGE.checks * 6),
            "inventories": (SEALED.model_copy(update={"packages": packages}),),
            "changed_on_machine": Changes(before=long, after=long, changes=changes),
            "logs": tuple(Log(file=f"{n}.log", bytes=9, tail=long) for n in range(40)),
            "notes": tuple(Note(text=long, warning=False) for _ in range(100)),
            "plan": {"long": [long] * 9},
        }
    )
    report, files = with_pictures(endless, noise(512))
    source = html(report, files)
    assert len(source.encode()) < LIMIT
    assert "more packages" in source
    assert "checks of this group are in" in source


def test_a_log_keeps_its_end() -> None:
    log = Log(file="a.log", bytes=9, tail="begin\n" + "line\n" * 9000 + "the end\n")
    source = html(GOOD.model_copy(update={"logs": (log,)}), {})
    assert "the end" in source
    assert "begin" not in source
    assert "characters before this left out" in source


def test_what_machines_write_adds_no_element() -> None:
    plain, hostile = Page(html(GOOD, {})), Page(html(HOSTILE, {}))
    assert {tag for tag, _ in hostile.elements} == {tag for tag, _ in plain.elements}
    tags = [tag for tag, _ in hostile.elements]
    assert (tags.count("script"), tags.count("img"), tags.count("h1")) == (1, 0, 1)
    for text in ("<script>alert(1)</script>", "1\\x00\\x1b[31m", "a\\u202egnp.exe", "]]>--><!--"):
        assert text in hostile.text


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "https://a b", "//x", ""])
def test_only_a_web_address_becomes_a_link(url: str) -> None:
    assert not is_link(url)
    assert GOOD.weights
    weights = GOOD.weights.model_copy(update={"licence_url": url})
    assert url not in Page(html(GOOD.model_copy(update={"weights": weights}), {})).values("href")
    assert is_link("https://example.com/a?b=c#d")


def test_a_run_without_an_image_says_why_and_what_is_left() -> None:
    shown = Page(html(INTERRUPTED, {})).text
    for text in (
        "no AMI came of this run",
        "Ctrl-C",
        "Left behind",
        "aws ec2 terminate-instances",
        "Attempt 2",
    ):
        assert text in shown
    assert "Not recorded of the base AMI: sysctl, ports" in re.sub(r"\s+", " ", shown)


def test_the_stages_of_a_start_are_a_table() -> None:
    text = Page(html(GOOD, {})).section("cold-start")
    assert "it took 58.0 s (cold_start.max_seconds: 120), 1.9 times the floor" in text
    assert "warm (beside) 9.0 s 40.0 s 3.0 GB 75.0 MB/s 30.0 s 1.33 start on cuda" in text
    assert "First reads: 75.0 MB/s, 3.0 GB by the warm-up. flux-worker.service was restarted once." in text


def test_figures_for_people() -> None:
    assert [size(number) for number in (536, 430_386, 33_745_689_731)] == ["536 bytes", "430.4 kB", "33.7 GB"]
    times = [duration(seconds) for seconds in (0, 0.012, 9.03, 192, 7260)]
    assert times == ["0 s", "12 ms", "9.0 s", "3 min 12 s", "2 h 01 min"]
    assert moment("2026-11-29T03:07:03Z") == "2026-11-29 03:07:03 UTC"
    assert moment("2026-11-29T03:07:03+01:00") == "2026-11-29 03:07:03 +0100"
    assert moment("yesterday") == "yesterday"
    assert (money(None), money(1234.5)) == ("not known", "$1,234.50")
    assert code_parts("a `b` c") == [(False, "a "), (True, "b"), (False, " c")]
    assert code_parts("a `b") == [(False, "a `b")]
