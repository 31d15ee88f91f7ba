"""`bake local`: the local cloud by hand. Heavy imports stay inside the commands."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bake import surroundings
from bake.errors import UsageError
from bake.localcloud.announce_command import announce
from bake.localcloud.clock_command import clock
from bake.localcloud.fault_commands import fault
from bake.localcloud.interrupt_command import interrupt
from bake.localcloud.options import asked_delays, delays, trust_guests, trusted
from bake.localcloud.packages.needed import require_packages
from bake.localcloud.save_command import save

if TYPE_CHECKING:
    from bake.localcloud.lifecycle.local_cloud import LocalCloud


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def local() -> None:
    """Try images by hand on the local cloud.

    \b
    Example:
      sudo bake local up
      sudo bake local boot ami-0123456789abcdef0
      sudo bake local draw "a cat" --out cat.png
      sudo bake local down
    """
    surroundings.set_aside()
    if not {"-h", "--help"} & set(sys.argv):
        require_packages()


local.add_command(fault)
local.add_command(clock)
local.add_command(interrupt)
local.add_command(announce)
local.add_command(save)


def _say(text: str) -> None:
    click.echo(text, err=True)


@local.command()
@trust_guests
@delays
@click.option(
    "--lazy-disks",
    is_flag=False,
    flag_value="",
    metavar="[SPEC]",
    help="Root volumes fill while they are read first, as EBS's do from snapshots. SPEC: latency=30 (ms), "
    "ceiling=100 (MB/s), initialization_rate=300 (MiB/s); s3=400,flow=200 (MB/s); or MB/s in sequence.",
)
@click.option(
    "--saved",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="As a copy of the cloud that `bake local save` kept there.",
)
@click.option(
    "--egress",
    multiple=True,
    metavar="HOST",
    help="Machines reach this host outside, and none that was not declared; a name, *.name or address. "
    "Give it once a host.",
)
def up(lazy_disks: str | None, saved: Path | None, egress: tuple[str, ...]) -> None:
    """Bring the local cloud up; it stays until `down`.

    The first time builds its base AMI, a tiny FLUX and a set of wheels, which takes two or three minutes.

    \b
    Example:
      bake local up
      bake local up --lazy-disks
      bake local up --lazy-disks latency=60,ceiling=100,s3=400
      bake local up --egress pypi.org --egress '*.pythonhosted.org'
      bake local up --saved /var/tmp/before
      bake local up --lenient
    """
    from bake.localcloud.lifecycle import cloud
    from bake.localcloud.network.egress import host_of

    if wrong := [host for host in egress if not host_of(host)]:
        raise UsageError(
            f"--egress {wrong[0]}: this is no host", hint="pypi.org, *.hf.co, 192.0.2.7, 192.0.2.0/24"
        )
    up = cloud.up(
        trust_guests=trusted(),
        delays=asked_delays(),
        lazy_disks=lazy_disks,
        egress_hosts=egress,
        saved=saved,
        say=_say,
    )
    click.echo(f"the local cloud is up: {up.endpoint} (AWS API), {up.hub} (Hub), {up.wheels} (wheels)")
    click.echo(f"its base AMI is {up.environment['BASE_AMI_ID']}; try: bake local status")


@local.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, or null when it is down.")
def status(as_json: bool) -> None:
    """Show what the local cloud runs and holds.

    \b
    Example:
      bake local status
      bake local status --json
    """
    from bake.localcloud import host
    from bake.localcloud.lifecycle import cloud
    from bake.localcloud.lifecycle.render import render

    host.require_root()
    found = cloud.status()
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found) if found else None, indent=2))
    else:
        click.echo(render(found))


@local.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def images(as_json: bool) -> None:
    """List the AMIs on disk, newest last; the cloud need not be up.

    \b
    Example:
      bake local images
    """
    from bake.localcloud import host
    from bake.localcloud.images.store import ImageStore
    from bake.localcloud.lifecycle.render import image_rows
    from bake.localcloud.lifecycle.state import images as on_disk
    from bake.localcloud.settings import Settings

    host.require_root()
    found = on_disk(ImageStore(Settings.load().images))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(image) for image in found], indent=2))
    else:
        click.echo(image_rows(found))


@local.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def bases(as_json: bool) -> None:
    """List the hostile bases: AMIs with what hardening guides, vendors and use leave on them.

    A profile takes one by base.name and base.owner; the rest is as always. The cloud need not be up.

    \b
    Example:
      bake local bases
      bake local bases --json
    """
    from bake.localcloud.images.hostile import hostile_bases
    from bake.localcloud.lifecycle.render import base_rows

    found = list(hostile_bases())
    click.echo(json.dumps([base.facts for base in found], indent=2) if as_json else base_rows(found))


@local.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object of what is to be set.")
def env(as_json: bool) -> None:
    """Print what lets AWS CLI, Packer, Ansible and boto3 work on the local cloud, for a shell to read.

    It holds the owner's secret, which is another one each time the cloud comes up, and unsets what would lead
    elsewhere.

    \b
    Example:
      eval "$(sudo bake local env)"
      aws ec2 describe-instances
      bake local env --json
    """
    from bake.localcloud.lifecycle.shell_environment import shell_lines, variables

    found = variables(_up())
    click.echo(json.dumps(found, indent=2) if as_json else shell_lines(found))


def _up() -> LocalCloud:
    """The cloud that is up; UsageError if none is."""
    from bake.localcloud import host
    from bake.localcloud.lifecycle import cloud

    host.require_root()
    found = cloud.current()
    if found is None:
        raise UsageError("the local cloud is not up", hint="bake local up")
    return found


def _manual_session() -> Any:
    from bake.localcloud.lifecycle.manual import ManualSession
    from bake.localcloud.settings import Settings

    return ManualSession(_up(), Settings.load())


@local.command()
@click.argument("ami")
def boot(ami: str) -> None:
    """Launch an instance of an AMI, its worker wired to the queue flux-jobs.

    \b
    Example:
      bake local boot ami-0123456789abcdef0
    """
    booted = _manual_session().boot(ami, _say)
    click.echo(f"{booted.id} answers at {booted.address}; try: bake local ssh {booted.id}")


@local.command(context_settings={"ignore_unknown_options": True})
@click.argument("instance")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(instance: str, command: tuple[str, ...]) -> None:
    """Log in to an instance that was booted by hand, or run a command there.

    \b
    Example:
      bake local ssh i-0123456789abcdef0
      bake local ssh i-0123456789abcdef0 systemctl status flux-worker
    """
    from bake.localcloud.lifecycle.manual import ssh as open_ssh

    sys.exit(open_ssh(_manual_session().booted(instance), command))


@local.command()
@click.argument("prompt")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("drawing.png"),
    show_default=True,
    help="Where the PNG goes.",
)
@click.option("--width", default=256, show_default=True, help="Pixels, a multiple of 16.")
@click.option("--height", default=256, show_default=True, help="Pixels, a multiple of 16.")
@click.option("--steps", default=4, show_default=True, help="Denoising steps.")
@click.option("--seed", type=int, help="The same seed draws the same picture.")
@click.option("--timeout", default=300.0, show_default=True, help="Seconds to wait for the picture.")
def draw(
    prompt: str, out: Path, width: int, height: int, steps: int, seed: int | None, timeout: float
) -> None:
    """Send a job to the booted instances, wait, and save the PNG.

    The model of the local cloud has random weights: it draws noise, quickly.

    \b
    Example:
      bake local draw "a cat" --out cat.png --seed 7
    """
    from bake.localcloud.lifecycle.manual import Job

    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out}: there is no directory {out.absolute().parent}", hint="create it first")
    png, event = _manual_session().draw(Job(prompt, width, height, steps, seed), timeout)
    out.write_bytes(png)
    click.echo(f"{out}: {event['width']}x{event['height']}, seed {event['seed']}, {event['seconds']:.1f} s")


@local.command()
@click.option("--force", is_flag=True, help="Take it down also under a bake that uses it, without asking.")
def down(force: bool) -> None:
    """Take the local cloud down, also one that crashed. AMIs and caches stay.

    Asks first where a bake is using it; without a terminal, --force says so.

    \b
    Example:
      bake local down
      bake local down --force
    """
    from bake.localcloud import host
    from bake.localcloud.lifecycle import cloud

    host.require_root()
    if not force and (users := cloud.users()):
        _confirm_down([user.what for user in users])
    cloud.down(_say)
    click.echo("the local cloud is down")


def _confirm_down(users: list[str]) -> None:
    """Ask whether to take the cloud down under these users; UsageError unless the answer is yes."""
    many = len(users) > 1
    using = f"{', '.join(users)} {'are' if many else 'is'} using the local cloud"
    if not sys.stdin.isatty():
        raise UsageError(
            f"{using}; nothing was taken down",
            hint=f"wait for {'their' if many else 'its'} end, or take it down all the same: "
            "bake local down --force",
        )
    if not click.confirm(f"{using}: take it down under {'them' if many else 'it'}?", default=False, err=True):
        raise UsageError("nothing was taken down")
