"""Options that several commands share."""

from __future__ import annotations

from typing import Any

import click

_TRUST = "bake.trust_guests"


def _note(context: click.Context, parameter: click.Parameter, given: Any) -> None:
    if given:
        context.meta[_TRUST] = True  # `meta` is shared by the contexts of a group and its commands


trust_guests = click.option(
    "--trust-guests",
    is_flag=True,
    expose_value=False,
    callback=_note,
    help="Rehearse also where this host can't keep the machines' root apart from its own.",
)


def trusted() -> bool:
    """Whether --trust-guests is on the command line, before or after the command."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_TRUST))
