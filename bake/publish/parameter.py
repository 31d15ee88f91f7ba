"""An SSM parameter that holds an AMI's id, of the data type that SSM validates.

SSM has no conditional write. So bake writes into a version's description what it wrote, and overwrites only a
value that the newest version's description names: what anybody else wrote stays, and is reported.
"""

from __future__ import annotations

from typing import Any

from bake.aws import Aws, ClientError, error_code
from bake.creation import unless_absent
from bake.errors import BakeError
from bake.publish.wanted import NotOurs

IMAGE = "aws:ec2:image"
# Seconds for SSM to validate an AMI, which it does after it has answered.
VALID = 180.0


def current(aws: Aws, name: str) -> Any | None:
    """The newest version of a parameter with its description and writer; None if there is none."""

    def ask() -> list[Any]:
        pages = aws.ssm.get_paginator("get_parameter_history").paginate(Name=name)
        return [raw for page in pages for raw in page["Parameters"]]

    found = unless_absent(ask)
    return max(found, key=lambda raw: raw["Version"]) if found else None


def is_ours(newest: Any, profile: str) -> bool:
    """Whether bakes of this profile wrote the newest version: its description names its value."""
    return bool(newest.get("Description", "") == description(profile, newest["Value"]))


def description(profile: str, image: str) -> str:
    """What bake writes beside an AMI's id."""
    return f"bake {profile}: {image}"


def ensure(aws: Aws, name: str, image: str, profile: str) -> int:
    """Let the parameter hold this AMI's id; return its version, once SSM has found the AMI valid.

    A second call writes nothing. Raises NotOurs, without writing, if somebody else wrote the newest version,
    or wrote meanwhile; BakeError if SSM does not take the AMI.
    """
    newest = current(aws, name)
    if newest is not None and newest.get("DataType", IMAGE) != IMAGE:
        raise NotOurs(
            f"{name} in {aws.region} is of the data type {newest['DataType']}, and SSM never changes "
            f"that to {IMAGE}",
            hint="name another parameter, or delete this one if nobody reads it",
        )
    if newest is not None and newest["Value"] == image:
        return int(newest["Version"])
    if newest is not None and not is_ours(newest, profile):
        raise NotOurs(
            f"{name} in {aws.region} holds {newest['Value']}, version {newest['Version']}, which "
            f"{newest.get('LastModifiedUser') or 'somebody else'} wrote and no bake of {profile}: it stays",
            hint="if bake may have it from now on",
        )
    before = int(newest["Version"]) if newest is not None else 0
    version = _put(aws, name, image, profile, new=newest is None)
    _read_back(aws, name, image, version)
    if version != before + 1 and not _by_us(aws, name, version - 1, profile):
        raise NotOurs(
            f"{name} in {aws.region} was at version {before}, and {image} became version {version}: somebody "
            "else wrote in between",
            hint=f"look at it: {aws.command('ssm', 'get-parameter-history', '--name', name)}",
        )
    return version


def by_hand(aws: Aws, name: str, image: str, profile: str) -> str:
    """The command that does the same, whoever wrote the value; from then on bake overwrites it."""
    what = ("--name", name, "--value", image, "--type", "String", "--data-type", IMAGE, "--overwrite")
    return aws.command("ssm", "put-parameter", *what, "--description", description(profile, image))


def _put(aws: Aws, name: str, image: str, profile: str, *, new: bool) -> int:
    """Write a version; of a new parameter with the profile's tag, which SSM takes at its creation alone."""
    more: dict[str, Any] = {"Overwrite": True}
    if new:
        more = {"Overwrite": False, "Tags": [{"Key": "bake:profile", "Value": profile}]}
    try:
        answer = aws.ssm.put_parameter(
            Name=name,
            Value=image,
            Type="String",
            DataType=IMAGE,
            Description=description(profile, image),
            **more,
        )
    except ClientError as error:
        if error_code(error) != "ParameterAlreadyExists":
            raise
        newest = current(aws, name)
        if newest is not None and newest["Value"] == image and is_ours(newest, profile):
            return int(newest["Version"])  # an earlier try, whose answer was lost
        raise NotOurs(
            f"somebody else created {name} in {aws.region} meanwhile: nothing was written",
            hint="call `bake publish` again",
        ) from error
    return int(answer["Version"])


def _read_back(aws: Aws, name: str, image: str, version: int) -> None:
    """Wait until SSM shows the version: it answers before it has looked at the AMI."""

    def shown() -> bool | None:
        found = unless_absent(lambda: aws.ssm.get_parameter(Name=name)["Parameter"])
        if found is None or found["Version"] < version:
            return None
        if found["Value"] != image:
            raise NotOurs(
                f"{name} in {aws.region} holds {found['Value']} by now, version {found['Version']}: somebody "
                f"else wrote after {image}",
                hint=f"look at it: {aws.command('ssm', 'get-parameter-history', '--name', name)}",
            )
        return True

    try:
        aws.wait(f"SSM to find {image} valid for {name}", shown, timeout=VALID)
    except BakeError as error:
        if isinstance(error, NotOurs):
            raise
        raise BakeError(
            f"SSM has not taken {image} for {name} in {aws.region}: {error.message}",
            hint="it takes only AMIs of the account, or shared with it, that are available",
        ) from error


def _by_us(aws: Aws, name: str, version: int, profile: str) -> bool:
    """Whether a version is a bake's, or was promised and never written."""
    pages = aws.ssm.get_paginator("get_parameter_history").paginate(Name=name)
    found = [raw for page in pages for raw in page["Parameters"] if raw["Version"] == version]
    return all(is_ours(raw, profile) for raw in found)
