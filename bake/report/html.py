"""Write report.html: one file that opens without a network, and without JavaScript.

All text comes from machines and people, so it is untrusted: Jinja escapes it, `visible` shows what is unseen,
and the page's policy runs no script and no style but its own two, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bake.report import cold_start, drawing, page
from bake.report.model import Report
from bake.report.pictures import Shown
from bake.report.pictures import shown as prepare
from bake.report.text import visible

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
LIMIT = 1_000_000
"""Bytes of the page, less than which it stays."""
REQUIREMENTS = "../../../docs/requirements.md"
"""Where requirement ids lead: from a run directory (`.bake/runs/ID/`) of a checkout to its docs."""


@dataclass(frozen=True)
class Caps:
    """How much of what can be long is shown; the rest is counted, and is in report.json."""

    text: int
    """Characters of one text."""
    log: int
    """Characters of a log's end, and of the plan."""
    rows: int
    """Lines of a list."""
    checks: int
    """Checks of one group."""
    evidence: int
    """Comparisons of one check."""


LEVELS = (
    Caps(text=4000, log=12_000, rows=3500, checks=400, evidence=30),
    Caps(text=4000, log=3_000, rows=3500, checks=400, evidence=10),
    Caps(text=1500, log=2_000, rows=1000, checks=100, evidence=5),
    Caps(text=300, log=1_000, rows=200, checks=30, evidence=3),
    Caps(text=80, log=200, rows=20, checks=6, evidence=1),
)
"""From a report of usual size to one whose every list is endless."""


def html(report: Report, pictures: Mapping[str, bytes]) -> str:
    """Render the report. `pictures` has the PNGs by their file names; what is missing is told on the page.

    The page has less than LIMIT bytes: of what is very long, only a part is shown, and the page says so.
    """
    shown = tuple(prepare(picture, pictures) for picture in report.pictures[:2])
    text = ""
    for caps in LEVELS:
        text = _render(report, shown, caps)
        if len(text.encode()) < LIMIT:
            break
    return text


def _render(report: Report, shown: tuple[Shown, ...], caps: Caps) -> str:
    environment = _environment(caps)
    css, js = (environment.get_template(f"report.{kind}").render() for kind in ("css", "js"))
    all_rows = page.rows(report.checks)
    return environment.get_template("report.html.j2").render(
        report=report,
        caps=caps,
        pictures=shown,
        rows=all_rows,
        groups=page.groups(all_rows, caps.checks),
        failures=page.failures(all_rows),
        not_run=page.not_run(all_rows),
        waivers=page.waivers(report, all_rows),
        inventory=page.image_inventory(report),
        timelines=drawing.timelines(report.timeline),
        cold_start=cold_start,
        slices=drawing.slices(report.disk),
        plan=json.dumps(report.plan, indent=1, ensure_ascii=False) if report.plan else "",
        requirements=REQUIREMENTS,
        page=page,
        style_hash=_hash(css),
        script_hash=_hash(js),
    )


def _hash(text: str) -> str:
    """The source expression of a Content-Security-Policy for an inline element."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


@cache
def _environment(caps: Caps) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup, escape

    def finalize(value: Any) -> Any:
        return (
            visible(value, caps.text) if isinstance(value, str) and not isinstance(value, Markup) else value
        )

    def tail(text: str) -> Markup:
        return escape(visible(text, caps.log, keep="end"))

    def head(text: str) -> Markup:
        return escape(visible(text, caps.log))

    def parts(text: str) -> list[tuple[bool, str]]:
        return code_parts(visible(text, caps.text))

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "tail": tail,
        "head": head,
        "size": size,
        "duration": duration,
        "moment": moment,
        "money": money,
        "code_parts": parts,
    }
    environment.tests |= {"link": is_link}
    return environment


def size(number: int) -> str:
    """Bytes for people, in powers of 1000 as disks and the Hub have them.

    >>> size(33_745_689_731)
    '33.7 GB'
    """
    value = float(number)
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(0.012), duration(9.03), duration(192), duration(7260)
    ('12 ms', '9.0 s', '3 min 12 s', '2 h 01 min')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds > 0 else "0 s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def moment(text: str) -> str:
    """A time of RFC 3339 for people; what is none stays as it is.

    >>> moment("2026-11-29T03:07:03Z")
    '2026-11-29 03:07:03 UTC'
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = "UTC" if found.utcoffset() is not None and not found.utcoffset() else found.strftime("%z")
    return f"{found:%Y-%m-%d %H:%M:%S} {zone}".rstrip()


def money(dollars: float | None) -> str:
    """Dollars, or that nobody knows the price."""
    return "not known" if dollars is None else f"${dollars:,.2f}"


def is_link(url: str) -> bool:
    """Whether a URL of a machine may become a link: nothing but http and https."""
    return re.fullmatch(r"https?://[^\s\"'<>\\]+", url) is not None


def code_parts(text: str) -> list[tuple[bool, str]]:
    """Split text at its `code`: pairs of whether it is code, and the text.

    >>> code_parts("Lock it: `passwd --lock`.")
    [(False, 'Lock it: '), (True, 'passwd --lock'), (False, '.')]
    """
    pieces = re.split(r"`([^`\n]+)`", text)
    return [(number % 2 == 1, piece) for number, piece in enumerate(pieces) if piece]
