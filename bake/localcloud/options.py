"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from bake.localcloud.settings import SEED, Delays

_TRUST, _SEED, _LENIENT = "bake.trust_guests", "bake.seed", "bake.lenient"


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


def _noted(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """A callback that notes a value for the group and its commands."""

    def note(context: click.Context, parameter: click.Parameter, given: Any) -> None:
        if given is not None and given is not False:
            context.meta[name] = given

    return note


def delays(command: Callable[..., None]) -> Callable[..., None]:
    """Add --seed and --lenient."""
    for option in (
        click.option(
            "--lenient",
            is_flag=True,
            expose_value=False,
            callback=_noted(_LENIENT),
            help="The local cloud shows at once what AWS shows late: for demonstrations.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(min=0),
            metavar="N",
            expose_value=False,
            callback=_noted(_SEED),
            help=f"The local cloud's delays: the same number, the same delays. {SEED} unless given.",
        ),
    ):
        command = option(command)
    return command


def asked_delays() -> Delays:
    """The delays that the command line asks for, before or after the command."""
    context = click.get_current_context(silent=True)
    meta = context.meta if context is not None else {}
    return Delays(meta.get(_SEED), bool(meta.get(_LENIENT)))
