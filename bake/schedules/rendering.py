"""Fill in the templates of definitions: `[[ … ]]` and `[% … %]`, for GitHub's own are `${{ … }}`."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).with_name("templates")


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        block_start_string="[%",
        block_end_string="%]",
        variable_start_string="[[",
        variable_end_string="]]",
        comment_start_string="[#",
        comment_end_string="#]",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - no HTML; values are quoted by `json`, or by the caller
    )
    environment.filters["json"] = functools.partial(json.dumps, ensure_ascii=False)
    return environment


def render(template: str, **values: Any) -> str:
    """A definition made of its template."""
    return _environment().get_template(template).render(**values)
