"""`bake local fault`: make AWS's calls fail on the local cloud. Heavy imports stay inside the commands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bake.errors import UsageError

if TYPE_CHECKING:
    from bake.localcloud.api.faults.faults import PlantedFault
    from bake.localcloud.api.faults.remote import RemoteFaults

# The help of `add` explains each kind.
KINDS = ("refuse", "throttle", "error", "timeout", "lost", "expired", "capacity", "not-found")


@click.group()
def fault() -> None:
    """Make AWS's calls fail on the local cloud, until `clear` or `down`.

    \b
    Example:
      bake local fault add ec2 RunInstances --kind capacity
      bake local fault list
      bake local fault clear
    """


@fault.command()
@click.argument("service")
@click.argument("action")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What goes wrong.")
@click.option("--times", type=int, help="How many calls fail; 1 unless --seconds says for how long.")
@click.option("--always", is_flag=True, help="All calls fail until `clear`.")
@click.option("--after", type=int, help="How many calls go well first.")
@click.option("--nth", type=int, help="Only the n-th call fails.")
@click.option("--seconds", type=float, help="How long a time-out, an unknown id or an outage lasts.")
@click.option("--code", help="Answer with this error code.")
@click.option("--message", help="Answer with this message.")
@click.option("--status", type=int, help="Answer with this HTTP status.")
@click.option("--probability", type=float, help="The part of the calls that fail, like 0.2.")
@click.option("--seed", type=int, help="The same seed fails the same calls.")
@click.option("--match", metavar="TEXT", help="Only calls with a parameter (Name=value) that has this in it.")
@click.option(
    "--caller", type=click.Choice(("all", "host", "guests")), help="Only calls of this host, or of instances."
)
@click.option("--spreads", is_flag=True, default=None, help="Once it has struck, it strikes all other calls.")
def add(service: str, action: str, always: bool, nth: int | None, **given: Any) -> None:
    """Make calls of SERVICE's operation ACTION fail; both may be patterns, like 'Describe*'.

    \b
    Kinds:
      refuse     not allowed, or any other --code
      throttle   too many requests (EC2: RequestLimitExceeded)
      error      an internal error, HTTP 500
      timeout    not done; no answer for --seconds (60), then the connection drops
      lost       done, and the connection drops before the answer
      expired    the credentials have expired
      capacity   InsufficientInstanceCapacity, HTTP 500
      not-found  what was created is unknown for --seconds (5) from then on

    \b
    Example:
      bake local fault add ec2 RunInstances --kind lost
      bake local fault add ec2 'Describe*' --kind throttle --seconds 75
      bake local fault add ec2 DescribeImages --kind not-found --seconds 20
      bake local fault add ec2 CreateImage --kind expired --spreads --caller host
      bake local fault add s3 PutObject --kind refuse --code SlowDown --nth 3
      bake local fault add sqs '*' --kind error --always --probability 0.2 --seed 7 --caller guests
    """
    fields = {name: value for name, value in given.items() if value is not None}
    if always and "times" in fields:
        raise UsageError("--always and --times contradict each other", hint="leave one of them out")
    if nth is not None:
        if always or fields.keys() & {"times", "after"}:
            raise UsageError(
                "--nth can't be combined with --after, --times or --always", hint="use --nth alone"
            )
        if nth < 1:
            raise UsageError(f"--nth {nth}: calls are counted from 1", hint="--nth 1 fails the first call")
        fields["nth"] = nth
    if always:
        fields["times"] = None
    planted = _faults().plant(service, action, fields.pop("kind"), **fields)
    click.echo(f"planted fault {planted.number}: {_described(planted)}; see: bake local fault list")


@fault.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_(as_json: bool) -> None:
    """List the faults, how many calls each struck, and how many it still will.

    \b
    Example:
      bake local fault list
      bake local fault list --json
    """
    from bake.columns import table

    found = _faults().listed()
    if as_json:
        click.echo(json.dumps([planted.model_dump() for planted in found], indent=2))
    elif not found:
        click.echo("No faults planted.")
    else:
        click.echo(table(("number", "struck", "left", "fault"), [_row(planted) for planted in found]))


@fault.command()
def clear() -> None:
    """End all faults; calls that are held in a time-out are let go at once.

    \b
    Example:
      bake local fault clear
    """
    ended = _faults().clear()
    click.echo(f"ended {ended} fault{'' if ended == 1 else 's'}")


def _faults() -> RemoteFaults:
    """The faults of the cloud that is up; UsageError if none is."""
    from bake.localcloud import host
    from bake.localcloud.api.faults.remote import RemoteFaults
    from bake.localcloud.lifecycle import cloud
    from bake.localcloud.network.control import over_socket
    from bake.localcloud.settings import Settings

    host.require_root()
    if cloud.current() is None:
        raise UsageError("the local cloud is not up", hint="bake local up")
    return RemoteFaults(over_socket(Settings.load()))


def _row(planted: PlantedFault) -> tuple[str, str, str, str]:
    left = "no end" if planted.left is None else str(planted.left)
    return str(planted.number), str(planted.struck), left, _described(planted)


def _described(planted: PlantedFault) -> str:
    """The fault in one line, without default values."""
    fault = planted.fault
    told = fault.model_dump(exclude_defaults=True, exclude={"service", "action", "kind", "times"})
    return " ".join(
        [f"{fault.service} {fault.action} {fault.kind}", *(f"{name}={value}" for name, value in told.items())]
    )
