"""The options of `bake rollout` that say how instances are replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bake.rollout.preferences import Preferences, Strategy

DAYS = 172_800  # seconds, at most, of a delay and of a bake time

_OPTIONS = (
    click.option(
        "--replace-root-volume", is_flag=True, help="Keep the instances: replace their root volumes."
    ),
    click.option(
        "--min-healthy",
        type=click.IntRange(0, 100),
        metavar="PERCENT",
        help="Keep so much of the desired capacity in service: 100, with --replace-root-volume 90.",
    ),
    click.option(
        "--max-healthy",
        type=click.IntRange(100, 200),
        metavar="PERCENT",
        help="Have so much at most meanwhile: 110, so that new instances come before old ones go.",
    ),
    click.option(
        "--warmup",
        type=click.IntRange(0),
        metavar="SECONDS",
        help="Wait so long after each instance is in service; the group's own warm-up unless given.",
    ),
    click.option("--no-rollback", is_flag=True, help="Leave it half done where the refresh fails."),
    click.option("--replace-matching", is_flag=True, help="Replace instances that are up to date, too."),
    click.option(
        "--protected",
        type=click.Choice(["ignore", "refresh", "wait"]),
        default="ignore",
        show_default=True,
        help="What to do with instances that are protected from scale-in; AWS waits an hour, then fails.",
    ),
    click.option(
        "--standby",
        type=click.Choice(["ignore", "terminate", "wait"]),
        default="ignore",
        show_default=True,
        help="The same for instances in Standby.",
    ),
    click.option(
        "--bake-time",
        type=click.IntRange(0, DAYS),
        metavar="SECONDS",
        help="Wait so long at the end before it counts as successful, and can't be rolled back any more.",
    ),
    click.option(
        "--checkpoint",
        "checkpoints",
        type=click.IntRange(1, 100),
        multiple=True,
        metavar="PERCENT",
        help="Pause once so much is replaced; may be repeated. 100 is always the last.",
    ),
    click.option(
        "--checkpoint-delay",
        type=click.IntRange(0, DAYS),
        metavar="SECONDS",
        help="Pause so long; an hour unless given.",
    ),
)


def preferences(command: Callable[..., None]) -> Callable[..., None]:
    """Add them to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read(given: Mapping[str, Any]) -> tuple[Preferences, Strategy]:
    """What was asked for."""
    from bake.rollout.preferences import ROLLING, ROOT_VOLUMES, Preferences

    asked = ("min_healthy", "max_healthy", "warmup", "bake_time", "checkpoints", "checkpoint_delay")
    found = Preferences(
        rollback=not given["no_rollback"],
        skip_matching=not given["replace_matching"],
        protected=given["protected"].capitalize(),
        standby=given["standby"].capitalize(),
        **{name: given[name] for name in asked},
    )
    return found, ROOT_VOLUMES if given["replace_root_volume"] else ROLLING
