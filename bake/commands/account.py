"""The account and the regions of commands that look at what is there, and plan no bake."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from bake.commands.options import say
from bake.errors import UsageError
from bake.localcloud import asked_delays, trusted

if TYPE_CHECKING:
    from contextlib import ExitStack

    from bake.aws import Aws
    from bake.localcloud import LocalCloud
    from bake.profile import Origins, Profile


def local_cloud(stack: ExitStack) -> LocalCloud:
    """The local cloud, started if necessary and kept until `stack` ends."""
    from bake import localcloud, surroundings

    surroundings.set_aside()
    return stack.enter_context(localcloud.running(say, trust_guests=trusted(), delays=asked_delays()))


def clients(cloud: LocalCloud | None, region: str, worker_region: str, copied: tuple[str, ...] = ()) -> Aws:
    """Clients of the account in these regions; in a rehearsal they may do what whoever sweeps may.

    AMIs are looked for in the regions that they are `copied` to, too.
    """
    from bake.rehearsal import as_sweeper

    found = _patient(region, worker_region, as_sweeper(cloud, region, worker_region, copied))
    found.copied = copied
    return found


def pruning(cloud: LocalCloud | None, regions: tuple[str, ...]) -> dict[str, Aws]:
    """Clients in each of these regions; in a rehearsal they may do what whoever prunes may."""
    from bake.rehearsal import as_pruner

    endpoint = as_pruner(cloud, regions)
    return {region: _patient(region, region, endpoint) for region in regions}


def clients_of(cloud: LocalCloud | None, profile: Profile) -> Aws:
    """Clients in a profile's regions; in a rehearsal they may do what whoever bakes it may."""
    from bake.rehearsal import as_baker

    return _patient(profile.builder.region, profile.worker.region, as_baker(cloud, profile))


def promoting(cloud: LocalCloud | None, profile: Profile) -> Aws:
    """Clients in a profile's regions; in a rehearsal they may do what whoever promotes its images may."""
    from bake.rehearsal import as_promoter

    regions = profile.builder.region, profile.worker.region
    return _patient(*regions, as_promoter(cloud, profile)).patiently(120)


def _patient(region: str, worker_region: str, endpoint: dict[str, Any]) -> Aws:
    """What they wait for is told after a minute."""
    from bake.aws import Aws
    from bake.progress import Tally
    from bake.waits import Waits

    tally = Tally(waits=Waits(lambda wait: say(f"waiting for {wait}"), first=60.0))
    return Aws(region=region, worker_region=worker_region, tally=tally, **endpoint)


def regions(obj: dict[str, Any], profile: str | None, local: Mapping[str, str]) -> tuple[str, str]:
    """Where machines, and where queues, buckets and buses are: the profile's, or the variables'."""
    from bake import profile as profiles

    if profile:
        found = profile_of(obj, profile, local)
        return found.builder.region, found.worker.region
    variables = profiles.environment(obj["env_file"]).overlaid(local, "the local cloud")
    names = ("SPOT_AWS_REGION", "AWS_REGION")
    if missing := [name for name in names if not variables.get(name)]:
        raise UsageError(
            f"not set: {', '.join(missing)}", hint="set them, name the --profile, or say --region REGION"
        )
    return variables["SPOT_AWS_REGION"], variables["AWS_REGION"]


def profile_of(
    obj: dict[str, Any], name: str, local: Mapping[str, str], needed: Collection[str] = ()
) -> Profile:
    """A profile as far as it needs no base, network or secret: examples stand for those that are not set.

    Never for the regions, nor for a variable of `needed`.
    """
    return profile_with_origins(obj, name, local, needed)[0]


def profile_with_origins(
    obj: dict[str, Any], name: str, local: Mapping[str, str], needed: Collection[str] = ()
) -> tuple[Profile, Origins]:
    """The same, and where each value came from."""
    from bake import profile as profiles
    from bake.localcloud import EXAMPLES

    variables = profiles.environment(obj["env_file"]).overlaid(local, "the local cloud")
    absent = {
        key: value
        for key, value in EXAMPLES.items()
        if not variables.get(key) and key not in ("SPOT_AWS_REGION", "AWS_REGION", *needed)
    }
    known = variables.overlaid(absent, "an example")
    return profiles.load_with_origins(name, obj["directory"], known, lambda *_: EXAMPLES["HF_TOKEN"])
