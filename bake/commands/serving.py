"""What the commands about channels share: options, the account, and what must be agreed."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from bake.commands.options import profile_and_rehearse, request_of, say
from bake.errors import UsageError

if TYPE_CHECKING:
    from bake.agreement.facts import FactValue
    from bake.aws import Aws
    from bake.localcloud import LocalCloud
    from bake.profile import Origins, Profile
    from bake.publish.channels import Channel
    from bake.request import BakeRequest

AMI = re.compile(r"ami-[0-9a-f]{8,17}")
# What must be agreed before a channel changes, and before another AMI than one of its own history is served.
OF_CHANNELS = ("region", "channels", "volume_initialization_rate")
OF_IMAGES = (
    *OF_CHANNELS,
    *("os", "instance_types", "worker_instance_types"),
    *("root_volume.size_gib", "root_volume.type", "root_volume.iops", "root_volume.throughput"),
    "root_volume.kms_key",
)


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --because, --region, --json, --profile, --rehearse and --trust-guests."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option(
            "--region", "regions", multiple=True, metavar="REGION", help="Only there; may be repeated."
        ),
        click.option("--because", required=True, metavar="WHY", help="Why, for whoever reads the history."),
    ):
        command = option(command)
    return profile_and_rehearse(command)


def image_id(text: str) -> str:
    """An AMI's id; UsageError for anything else."""
    if not AMI.fullmatch(text):
        raise UsageError(f"{text[:60]!r} is not an AMI id", hint="it looks like ami-0123456789abcdef0")
    return text


@dataclass(frozen=True)
class Desk:
    """Whoever promotes, with a profile: clients in its region, and what is agreed for it."""

    request: BakeRequest
    profile: Profile
    aws: Aws
    agreed: dict[str, FactValue]
    origins: Origins

    @property
    def venue(self) -> str:
        """What the AMIs' tags must say of where they were baked."""
        return venue(self.request.rehearsal)

    def regions(self, asked: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The regions that the profile's channels are in, or those of them that were asked for."""
        known = regions_of(self.profile)
        if unknown := [one for one in asked if one not in known]:
            raise UsageError(
                f"--region {unknown[0]}: the profile {self.profile.name} has no channel there",
                hint=f"its channels are in {', '.join(known)}",
            )
        return tuple(dict.fromkeys(asked)) or known


def regions_of(profile: Profile) -> tuple[str, ...]:
    """The builder's region, and those that the profile's images are copied to."""
    return tuple(dict.fromkeys((profile.builder.region, *profile.publish.regions)))


def venue(rehearsal: bool) -> str:
    """The tag `bake:venue` of AMIs that may be served."""
    return "REHEARSAL" if rehearsal else "AWS"


def desk(
    obj: dict[str, Any],
    stack: ExitStack,
    name: str | None,
    *,
    rehearse: bool,
    agreed: tuple[str, ...],
    needed: tuple[str, ...] = (),
) -> Desk:
    """Load a profile, with clients of whoever promotes; NotAgreed unless these facts of it are agreed.

    Examples stand for variables that are not set, but for those that are `needed`. In a rehearsal nothing is
    the user's, so that without an agreement there what the profile says holds.
    """
    request = request_of(obj, name, rehearse=rehearse)
    cloud = local_cloud(stack) if request.rehearsal else None
    profile, origins = _loaded(obj, request.profile, cloud, needed)
    return Desk(request, profile, clients(cloud, profile), _agreed(request, profile, agreed), origins)


def local_cloud(stack: ExitStack) -> LocalCloud:
    """The local cloud, started if necessary and kept until `stack` ends."""
    from bake.commands import account

    return account.local_cloud(stack)


def profile_of(obj: dict[str, Any], name: str, cloud: LocalCloud | None) -> Profile:
    """A profile of which only the regions and the channels must be known."""
    return _loaded(obj, name, cloud)[0]


def _loaded(
    obj: dict[str, Any], name: str, cloud: LocalCloud | None, needed: tuple[str, ...] = ()
) -> tuple[Profile, Origins]:
    from bake.commands import account

    local = cloud.environment if cloud else {}
    return account.profile_with_origins(obj, name, local, ["BAKE_LAUNCH_TEMPLATE", *needed])


def account_id(given: str | None, aws: Aws) -> str:
    """The account's id: what was given, or whose credentials these are."""
    if given is None:
        return str(aws.sts.get_caller_identity()["Account"])
    if not re.fullmatch(r"[0-9]{12}", given):
        raise UsageError(f"--account {given!r} is no account id", hint="it has twelve digits")
    return given


def clients(cloud: LocalCloud | None, profile: Profile) -> Aws:
    """Clients in a profile's region; in a rehearsal they may do what whoever promotes may."""
    from bake.commands import account

    return account.promoting(cloud, profile)


def rolling_out(cloud: LocalCloud | None, profile: Profile) -> Aws:
    """Clients in a profile's region; in a rehearsal they may do what whoever rolls out may."""
    from bake.commands import account

    return account.rolling_out(cloud, profile)


def profile_of_image(
    obj: dict[str, Any], stack: ExitStack, image: str, regions: tuple[str, ...], *, rehearse: bool
) -> str:
    """The profile that an AMI's tag names, in the first of these regions, or in SPOT_AWS_REGION.

    UsageError if the AMI is not there, or if bake did not make it.
    """
    from bake.commands import account
    from bake.creation import tag_of
    from bake.image import PROFILE_TAG, describe_image

    cloud = local_cloud(stack) if rehearse or obj["rehearse"] else None
    local = cloud.environment if cloud else {}
    home = (regions[0], regions[0]) if regions else account.regions(obj, None, local)
    facts = describe_image(account.clients(cloud, *home), image, disabled=True)
    if facts is None:
        raise UsageError(
            f"there is no {image} in {home[0]}", hint="--profile NAME or --region REGION says where it is"
        )
    if not (name := tag_of(facts.get("Tags"), PROFILE_TAG)):
        raise UsageError(f"{image} was not made by bake: it has no tag {PROFILE_TAG}")
    return name


def profile_with(obj: dict[str, Any], channel: str) -> str:
    """The one profile of the folder that has a channel of this name; UsageError if not just one has."""
    from bake import profile as profiles

    directory = obj["directory"]
    profiles.require_folder(directory)
    found = [
        name
        for name in profiles.names(directory)
        if channel in (profiles.outline(name, directory).get("channels") or {})
    ]
    if len(found) == 1:
        return found[0]
    which = f"{', '.join(found)} have" if found else "no profile here has"
    raise UsageError(
        f"--profile NAME is missing: {which} a channel {channel!r}", hint="bake channels lists them"
    )


def _agreed(request: BakeRequest, profile: Profile, names: tuple[str, ...]) -> dict[str, FactValue]:
    """What is agreed; NotAgreed if the profile says something else of the facts with these names."""
    from bake.agreement import lockfile, render
    from bake.agreement.facts import Guarded, compare
    from bake.errors import NotAgreed
    from bake.planning.guarded import stated_facts

    stated = {one.name: one for one in stated_facts(profile)}
    agreement = lockfile.read(request.lock).agreement
    if agreement is None and request.rehearsal:
        return {name: one.value for name, one in stated.items()}
    guarded = Guarded(tuple(stated[name] for name in names if name in stated), {})
    if differences := compare(guarded, agreement):
        raise NotAgreed(
            f"{render.refusal(request, guarded, differences, new=agreement is None)}\n\nnothing was changed",
            hint=render.how_to_agree(request, differences),
        )
    return dict(agreement.agreed) if agreement else {}


def held(cloud: LocalCloud | None, profile: Profile, channel: Channel) -> str:
    """The AMI that a channel serves; empty if none. What AWS does not answer is told, and counts as none."""
    from bake.aws import call_errors
    from bake.publish.channels import read

    try:
        return read(clients(cloud, profile), channel.parameter).value
    except call_errors() as error:
        say(f"the channel {channel.name} of {channel.profile} is not looked at: {error}")
        return ""


def run_id() -> str:
    """What names this run in a channel's lock."""
    return secrets.token_hex(8)


def channels_here(obj: dict[str, Any], cloud: LocalCloud | None) -> Iterator[tuple[Profile, Channel]]:
    """The channels of all profiles of the folder; what can't be read of them is told."""
    from bake import profile as profiles
    from bake.publish.channels import channels_of

    for name in profiles.names(obj["directory"]):
        try:
            if not profiles.outline(name, obj["directory"]).get("channels"):
                continue
            profile = profile_of(obj, name, cloud)
        except UsageError as error:
            say(f"the channels of the profile {name} are not looked at:\n{error.message}")
            continue
        for channel in channels_of(profile):
            yield profile, channel
