"""Show how two reports differ as one page, which opens without a network and runs no script."""

from __future__ import annotations

import base64
import hashlib
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from bake.report.difference import difference
from bake.report.model import Change, Report
from bake.report.text import visible

TEMPLATES = Path(__file__).parent / "templates"
MOST = 1000
"""Rows of one kind, and characters of one text: a machine's names may be endless."""


def html(a: Report, b: Report) -> str:
    """Render the page. All text of machines is escaped, and what is unseen in it is shown."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def harmless(value: Any) -> Any:
        if value is None:
            return "–"
        if isinstance(value, str) and not isinstance(value, Markup):
            return visible(value, MOST)
        return value

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = environment.get_template("report.css").render()
    changes = difference(a, b)
    return environment.get_template("difference.html.j2").render(
        a=a,
        b=b,
        changes=changes,
        kinds=by_kind(changes.changes),
        most=MOST,
        style_hash=_hash(style),
    )


def by_kind(changes: tuple[Change, ...]) -> list[tuple[str, list[Change]]]:
    """Kind -> its changes, in the order of the kinds."""
    return [(kind, list(them)) for kind, them in groupby(changes, key=attrgetter("kind"))]


def _hash(text: str) -> str:
    """The source expression of a Content-Security-Policy for an inline element."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
