"""The options, messages and questions that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from bake.errors import UsageError
from bake.localcloud import asked_delays, trust_guests, trusted
from bake.redaction import redact

if TYPE_CHECKING:
    from bake.request import BakeRequest


def profile_and_rehearse(command: Callable[..., None]) -> Callable[..., None]:
    """Add --profile, --rehearse and --trust-guests."""
    for option in (
        click.option(
            "--rehearse", is_flag=True, help="Ask the local cloud instead of AWS. Needs root, no account."
        ),
        trust_guests,
        click.option("--profile", metavar="NAME", help="The profile: profiles/NAME.yaml."),
    ):
        command = option(command)
    return command


def request_of(obj: dict[str, Any], profile: str | None, *, rehearse: bool) -> BakeRequest:
    """The request for `bake plan --profile X`, or `bake --profile X plan`."""
    from bake.request import BakeRequest

    name = profile or obj.get("profile")
    if not name:
        raise UsageError("--profile NAME is missing", hint="bake profiles lists them")
    rehearsal = rehearse or obj["rehearse"]
    return BakeRequest(str(name), obj["directory"], obj["env_file"], rehearsal, trusted(), asked_delays())


def say(text: str) -> None:
    """Print to stderr, for stdout is for results."""
    click.echo(redact(text), err=True)


def ask(question: str) -> bool:
    """Ask for yes or no on the terminal."""
    return click.confirm(redact(question), default=False, err=True)
