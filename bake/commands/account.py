"""The account and the regions of commands that look at what is there, and plan no bake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bake.commands.options import say
from bake.errors import UsageError
from bake.localcloud import asked_delays, trusted

if TYPE_CHECKING:
    from contextlib import ExitStack

    from bake.aws import Aws
    from bake.localcloud import LocalCloud


def local_cloud(stack: ExitStack) -> LocalCloud:
    """The local cloud, started if necessary and kept until `stack` ends."""
    from bake import localcloud, surroundings

    surroundings.set_aside()
    return stack.enter_context(localcloud.running(say, trust_guests=trusted(), delays=asked_delays()))


def clients(cloud: LocalCloud | None, region: str, worker_region: str) -> Aws:
    """Clients of the account; what they wait for is told after a minute."""
    from bake.aws import Aws
    from bake.progress import Tally
    from bake.request import endpoint_of
    from bake.waits import Waits

    tally = Tally(waits=Waits(lambda wait: say(f"waiting for {wait}"), first=60.0))
    return Aws(region=region, worker_region=worker_region, tally=tally, **endpoint_of(cloud))


def regions(obj: dict[str, Any], profile: str | None, local: Mapping[str, str]) -> tuple[str, str]:
    """Where machines, and where queues, buckets and buses are: the profile's, or the variables'."""
    from bake import profile as profiles
    from bake.localcloud import EXAMPLES

    variables = profiles.environment(obj["env_file"]).overlaid(local, "the local cloud")
    if profile:
        absent = {
            name: value
            for name, value in EXAMPLES.items()
            if not variables.get(name) and name not in ("SPOT_AWS_REGION", "AWS_REGION")
        }
        known = variables.overlaid(absent, "an example")
        found = profiles.load(profile, obj["directory"], known, lambda name, key: EXAMPLES["HF_TOKEN"])
        return found.builder.region, found.worker.region
    names = ("SPOT_AWS_REGION", "AWS_REGION")
    if missing := [name for name in names if not variables.get(name)]:
        raise UsageError(
            f"not set: {', '.join(missing)}", hint="set them, name the --profile, or say --region REGION"
        )
    return variables["SPOT_AWS_REGION"], variables["AWS_REGION"]
