"""`bake userdata`. Import what is heavy inside the command."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bake.errors import UsageError

if TYPE_CHECKING:
    from bake.profile import Origins, Profile


@click.command()
@click.option("--profile", metavar="NAME", help="The profile: profiles/NAME.yaml.")
@click.option(
    "--set",
    "more",
    metavar="NAME=VALUE",
    multiple=True,
    help="One more setting of the worker, such as FLUX_S3_PREFIX=pictures/; may be given several times.",
)
@click.option("--base64", "encoded", is_flag=True, help="Encode it, as launch templates and the API want it.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this file, not to stdout."
)
@click.pass_obj
def userdata(
    obj: dict[str, Any], profile: str | None, more: tuple[str, ...], encoded: bool, out: Path | None
) -> None:
    """Print the user data that a worker of the profile's image is launched with.

    It writes queue, bucket, event bus and regions, which the profile must have, and nothing secret. With
    worker.source it fetches the script for the instance's kind from Git at the pinned commit and checks its
    hash. It always fits the 16 KB that EC2 takes, gzipped where it has to be. AWS is not asked.

    \b
    Example:
      bake userdata --profile g6e-ubuntu > user-data.sh
      bake userdata --profile g6e-ubuntu --set FLUX_S3_PREFIX=pictures/ --base64
    """
    from bake import userdata as making

    name = profile or obj.get("profile")
    if not name:
        raise UsageError("--profile NAME is missing", hint="bake profiles lists them")
    found, origins = _load(str(name), obj)
    made = making.make(found, pairs(more), origins)
    content = base64.b64encode(made.content) + b"\n" if encoded else made.content
    if not found.worker.source:
        click.echo("worker.source is not set: this user data runs no script from Git", err=True)
    if out is not None:
        out.write_bytes(content)
    elif made.gzipped and not encoded and sys.stdout.isatty():
        raise UsageError(
            "the user data had to be gzipped, and this is a terminal", hint="add --out or --base64"
        )
    else:
        click.echo(content, nl=False)


def pairs(more: tuple[str, ...]) -> dict[str, str]:
    """What `--set NAME=VALUE` was given; UsageError where one is none."""
    found = [item.partition("=") for item in more]
    # Without a name this may be a value, and secret: report its position only.
    if bad := [str(number) for number, (_, equals, _) in enumerate(found, 1) if not equals]:
        raise UsageError(f"--set number {', '.join(bad)} of {len(found)}: write NAME=VALUE")
    return {name: value for name, _, value in found}


def _load(name: str, obj: dict[str, Any]) -> tuple[Profile, Origins]:
    """The profile and its origins. Only what the worker needs must be set: the rest may be examples."""
    from bake import profile as profiles
    from bake.localcloud import EXAMPLES

    given = profiles.environment(obj["env_file"])
    needed = ("AWS_REGION", "SPOT_AWS_REGION")
    examples = {key: value for key, value in EXAMPLES.items() if key not in needed and not given.get(key)}
    examples["HF_TOKEN"] = EXAMPLES["HF_TOKEN"]  # never in user data: one with a mistake does no harm here
    variables = given.overlaid(examples, "an example")
    return profiles.load_with_origins(name, obj["directory"], variables, lambda *_: "example")
