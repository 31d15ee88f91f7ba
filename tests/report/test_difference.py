"""How two reports differ, as values and as one page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from bake.report.changes import NOT_COMPARED
from bake.report.difference import called, difference
from bake.report.difference_html import html
from bake.report.model import Report
from tests.report.samples import BASE, CHECKS, FAILED, GOOD, HOSTILE, WAIVER, check

LATER = GOOD.model_copy(update={"venue": GOOD.venue.model_copy(update={"name": "AWS"})})


def found(a: Report, b: Report) -> dict[tuple[str, str], tuple[str | None, str | None]]:
    return {(one.kind, one.name): (one.before, one.after) for one in difference(a, b).changes}


def updated(part: str, **fields: Any) -> Report:
    """GOOD with other values in one of its parts."""
    return GOOD.model_copy(update={part: getattr(GOOD, part).model_copy(update=fields)})


def test_a_report_does_not_differ_from_itself() -> None:
    for report in (GOOD, FAILED, HOSTILE):
        assert difference(report, report).changes == ()


VOLUME = GOOD.image.volumes[0]
PLAIN = {"size_gib": 90, "encrypted": False, "kms_key": None}
SPANS = {span.name: span for span in GOOD.timeline}


def with_time(name: str, seconds: float) -> Report:
    spans = (*(span for span in GOOD.timeline if span.name != name), SPANS[name])
    return GOOD.model_copy(
        update={"timeline": (*spans[:-1], SPANS[name].model_copy(update={"seconds": seconds}))}
    )


@pytest.mark.parametrize(
    ("other", "key", "expected"),
    [
        (LATER, ("run", "venue"), ("REHEARSAL", "AWS")),
        (updated("run", bake_version="0.2.0"), ("run", "bake"), ("0.1.0", "0.2.0")),
        (updated("image", boot_mode="uefi"), ("image", "boot mode"), ("uefi-preferred", "uefi")),
        (updated("image", public=True), ("image", "public"), ("no", "yes")),
        (
            updated("image", volumes=(VOLUME.model_copy(update=PLAIN),)),
            ("image", "volume /dev/sda1"),
            (f"80 GiB gp3, encrypted by {VOLUME.kms_key}", "90 GiB gp3, not encrypted"),
        ),
        (
            updated("image", launch_permissions=("all",)),
            ("image", "may be launched by"),
            ("210987654321", "all"),
        ),
        (updated("weights", precision="int8"), ("weight", "precision"), ("bf16", "int8")),
        (
            updated("weights", files=GOOD.weights.files[:1]),
            ("weight", "file vae/diffusion_pytorch_model.safetensors"),
            ("sha256:" + "ab" * 32 + ", 167666902 bytes", None),
        ),
        (
            GOOD.model_copy(update={"checks": (CHECKS[0], check(outcome="failed"), *CHECKS[2:])}),
            ("check", "users.no_passwords (sealed)"),
            ("passed", "failed"),
        ),
        (
            GOOD.model_copy(update={"waivers": ()}),
            ("waiver", WAIVER.check),
            (f"until 2027-01-31, approved by reviewer@example.com: {WAIVER.reason}", None),
        ),
        (
            updated("scan", vulnerabilities=()),
            ("vulnerability", "CVE-2026-0001 openssl"),
            ("high", None),
        ),
        (with_time("provision", 300.0), ("time", "provision"), ("160 s", "300 s")),
        (with_time("prefetch", 20.0), ("time", "prefetch (on the builder)"), ("90 s", "20 s")),
        (updated("cold_start", seconds=98.0), ("time", "cold start"), ("58 s", "98 s")),
        (updated("cost", dollars=1.2), ("cost", "of the run"), ("$0.58", "$1.20")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) and None not in value else "",
)  # fmt: skip
def test_each_part_is_compared(other: Report, key: tuple[str, str], expected: tuple[str, str]) -> None:
    assert found(GOOD, other) == {key: expected}


@pytest.mark.parametrize(
    "other",
    [
        with_time("verify", 17.0),  # most of it, but not ten seconds
        with_time("provision", 175.0),  # fifteen seconds, but not a fifth
        updated("cost", dollars=0.60),
        updated("cold_start", seconds=63.0),
        updated("scan", at="2026-12-01T00:00:00Z"),
    ],
    ids=["few seconds", "a small share", "a few cents", "about as soon", "another day"],
)
def test_noise_is_no_difference(other: Report) -> None:
    assert difference(GOOD, other).changes == ()


def test_what_is_on_the_image_is_compared_at_the_same_moment() -> None:
    newer = GOOD.inventories[1].model_copy(update={"units": {"ssh.service": "disabled"}})
    other = GOOD.model_copy(update={"inventories": (BASE.model_copy(update={"units": {}}), newer)})
    assert found(GOOD, other) == {
        ("unit", "ssh.service"): ("enabled", "disabled"),
        ("unit", "flux-worker.service"): ("enabled", None),
    }


def test_without_a_moment_in_common_nothing_is_compared_and_that_is_said() -> None:
    one = GOOD.model_copy(update={"inventories": (BASE,)})
    other = GOOD.model_copy(update={"inventories": GOOD.inventories[1:]})
    assert found(one, other) == {("inventory", NOT_COMPARED): ("base", "sealed")}
    nothing = GOOD.model_copy(update={"inventories": ()})
    assert found(one, nothing) == {("inventory", NOT_COMPARED): ("base", None)}
    assert found(nothing, nothing) == {}


def test_a_report_is_called_by_its_image_or_its_run() -> None:
    assert called(GOOD) == "ami-0c0ffee0c0ffee001 (rehearsal)"
    assert called(LATER) == "ami-0c0ffee0c0ffee001"
    assert called(FAILED) == "run 20261129-030709-9572df (rehearsal)"


class Outline(HTMLParser):
    """Checks that what is opened is closed, and gathers text and tags."""

    VOID = frozenset({"meta", "link", "br", "img", "hr"})
    # Their end may be left out.
    OPEN = frozenset({"dt", "dd", "tr", "td", "th", "p", "li"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag not in self.VOID | self.OPEN:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.OPEN:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("pair", [(GOOD, FAILED), (GOOD, HOSTILE), (HOSTILE, GOOD), (GOOD, GOOD)])
def test_the_page_is_whole_and_runs_nothing(pair: tuple[Report, Report]) -> None:
    page = html(*pair)
    outline = Outline(page)
    assert not {"script", "img", "link", "iframe", "b"} & set(outline.tags)
    assert not re.search("[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200f]", page)
    assert "REHEARSAL" in outline.text
    assert len(page) < 1_000_000


def test_the_page_names_every_difference() -> None:
    text = Outline(html(GOOD, FAILED)).text
    for one in difference(GOOD, FAILED).changes:
        assert one.name in text
        assert (one.before or "–") in text
    assert "Nothing differs" in Outline(html(GOOD, GOOD)).text


def test_the_page_allows_its_own_style_alone() -> None:
    page = html(GOOD, FAILED)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert "default-src 'none'" in policy[1]
    style = page[page.index("<style>") + 7 : page.index("</style>")]
    assert hash_of(style) in policy[1]


def hash_of(text: str) -> str:
    import base64
    import hashlib

    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_an_endless_list_is_cut_and_counted() -> None:
    many = GOOD.inventories[1].model_copy(update={"users": {f"user{n}": "1" for n in range(3000)}})
    page = html(GOOD, GOOD.model_copy(update={"inventories": (BASE, many)}))
    assert "2,001 more" in page  # the user of the samples is gone, too
    assert len(page) < 1_000_000
