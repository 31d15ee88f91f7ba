"""From the command line to several bakes, each of which gets the options that were given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from bake.commands.many import Asked, bake_many
from bake.errors import UsageError

if TYPE_CHECKING:
    from bake.request import BakeRequest

# What is about several bakes, and what each gets its own of.
OWN = ("profiles", "everything", "max_parallel", "as_json")


def bake_several(context: click.Context, request: BakeRequest, given: Sequence[str]) -> int:
    """Bake what the command line names, by the words that were given; return the exit code."""
    params = context.params
    if params["everything"] and params["profiles"]:
        raise UsageError("--all names every profile: leave out --profile, or --all")
    return bake_many(
        Asked(
            params["profiles"],
            params["everything"],
            params["max_parallel"],
            params["as_json"],
            passed_on(context.command, context, given),
            params["runs"],
            request,
        )
    )


def passed_on(command: click.Command, context: click.Context, given: Sequence[str]) -> tuple[str, ...]:
    """The options that were given, new ones of bake among them, without those about several bakes."""
    values, _, order = command.make_parser(context).parse_args(list(given))
    words: list[str] = []
    for option in dict.fromkeys(order):
        if not isinstance(option, click.Option) or option.name in OWN or option.name is None:
            continue
        value, name = values[option.name], max(option.opts, key=len)
        if option.is_flag:
            words.append(name if value else next(iter(option.secondary_opts), name))
        else:
            words += [word for one in _each(option, value) for word in (name, str(one))]
    return tuple(words)


def _each(option: click.Option, value: object) -> Sequence[object]:
    return value if option.multiple and isinstance(value, list | tuple) else [value]
