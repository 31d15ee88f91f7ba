"""`bake costs`: what serving costs, by the prices of the profile's own regions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bake.commands.options import profile_and_rehearse
from bake.errors import UsageError

if TYPE_CHECKING:
    from bake.aws import Aws
    from bake.planning.serving.cost import Costs, Usage
    from bake.profile import Profile

POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command()
@profile_and_rehearse
@click.option(
    "--seconds-per-image",
    type=POSITIVE,
    metavar="S",
    help="How long the GPU takes for an image, as you measured it.",
)
@click.option(
    "--record",
    "records",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Take that from the record of a finished job (images/ID.json); may be repeated.",
)
@click.option(
    "--images-per-job",
    type=click.IntRange(1, 4),
    default=1,
    show_default=True,
    help="A job's images, which share its requests.",
)
@click.option(
    "--image-mb", type=POSITIVE, metavar="MB", help="An image's megabytes; else those of its pixels."
)
@click.option(
    "--visibility-seconds",
    type=click.IntRange(3, 43_200),
    default=120,
    show_default=True,
    help="The worker's FLUX_VISIBILITY_SECONDS: a job is renewed every third of it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def costs(obj: dict[str, Any], /, profile: str | None, rehearse: bool, as_json: bool, **told: Any) -> None:
    """Show what serving a profile's image costs: a job's requests, an image, a cold start, an idle hour.

    Prices are asked of AWS for your own regions (AWS_REGION: queue, bucket and bus; SPOT_AWS_REGION:
    instances): list prices on demand, and the spot price of now. None is in this program: where AWS does not
    answer, it says "price not known", and sums say what they are without. The seconds of an image are yours
    (--seconds-per-image, --record), else published ones, and it says so. Changes nothing.

    \b
    Examples:
      bake costs --profile g6e-ubuntu --seconds-per-image 15.3
      aws s3 cp s3://pictures-123456789012/images/cat-1.json .
      bake costs --profile g6e-ubuntu --record cat-1.json --image-mb 1.4
      bake costs --profile g6e-ubuntu --json
      bake costs --profile g6e-ubuntu --rehearse
    """
    from contextlib import ExitStack

    from bake.commands import account
    from bake.planning.serving import render

    name = profile or obj["profile"]
    if not name:
        raise UsageError("--profile NAME is missing", hint="bake profiles lists them")
    rehearsal = rehearse or obj["rehearse"]
    usage = _usage(**told)
    with ExitStack() as stack:
        cloud = account.local_cloud(stack) if rehearsal else None
        found = account.profile_of(obj, name, cloud.environment if cloud else {})
        answer = _ask(obj, found, account.clients_of(cloud, found), usage, rehearsal)
    venue = "REHEARSAL" if rehearsal else "AWS"
    if as_json or obj["as_json"]:
        click.echo(json.dumps(render.as_dict(answer, venue), indent=2))
    else:
        click.echo(render.as_text(answer, venue))


def _ask(obj: dict[str, Any], profile: Profile, aws: Aws, usage: Usage, rehearsal: bool) -> Costs:
    """Ask for prices and instance types, and add up."""
    from bake.account.answers import Unanswered, ask
    from bake.account.instance_types import ask_types
    from bake.account.serving_prices import ask_serving_prices
    from bake.account.starts import ask_starts
    from bake.agreement import lockfile
    from bake.background import start
    from bake.planning import weights
    from bake.planning.serving import cost

    types = start(lambda: ask(lambda: ask_types(profile, aws)))
    measured = start(lambda: ask_starts(profile, aws).newest)
    prices, kinds = ask_serving_prices(profile, aws), types.result()
    known = {} if isinstance(kinds, Unanswered) else kinds
    lock = lockfile.path_of(profile.name, obj["directory"], rehearsal=False)
    held = None if rehearsal else lockfile.read(lock).weights  # a rehearsal's model is tiny
    return cost.compute(profile, prices, known, weights.counted(held), usage, measured.result())


def _usage(
    seconds_per_image: float | None,
    records: tuple[Path, ...],
    images_per_job: int,
    image_mb: float | None,
    visibility_seconds: int,
) -> Usage:
    """What the options say; UsageError where they contradict one another."""
    from dataclasses import replace

    from bake.planning.serving import speed
    from bake.planning.serving.cost import Usage

    if records and seconds_per_image is not None:
        raise UsageError("--seconds-per-image and --record both say how long an image takes", hint="give one")
    usual = Usage(images=images_per_job, image_mb=image_mb, visibility=visibility_seconds)
    if seconds_per_image is not None:
        return replace(usual, seconds=speed.Seconds(seconds_per_image, "given, as you measured it", True))
    if not records:
        return usual
    drawn = speed.of_records({str(file): _read(file) for file in records})
    return replace(usual, seconds=drawn.seconds, pixels=drawn.pixels)


def _read(file: Path) -> Any:
    """A file's JSON; None if it has none."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
