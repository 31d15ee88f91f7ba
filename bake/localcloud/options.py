"""Options that several commands have."""

from __future__ import annotations

from typing import Any

import click

_TRUST = "bake.trust_guests"


def _note(context: click.Context, parameter: click.Parameter, given: Any) -> None:
    if given:
        context.meta[_TRUST] = True  # which a group's context shares with its commands'


trust_guests = click.option(
    "--trust-guests",
    is_flag=True,
    expose_value=False,
    callback=_note,
    help="Rehearse also where this host can't keep the machines' root apart from its own.",
)


def trusted() -> bool:
    """Whether --trust-guests stands on the command line, before the command or behind it."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_TRUST))
