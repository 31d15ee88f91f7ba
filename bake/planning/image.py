"""The image to come: its name must be free, and the user data that boots it must be small enough."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bake.aws import Aws
from bake.errors import BakeError
from bake.planning.findings import Findings
from bake.profile import Profile
from bake.profile.yaml_source import printable

# What run ids look like, for anything that must be measured before there is a run.
RUN = "20260101-000000-abcdef"


# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateImage.html
NAME_LENGTH = (3, 128)
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9()\[\] ./'@_-]")


def name_of(profile: str, template: str, run: str) -> str:
    """The AMI's name with `{profile}` and `{run}` filled in; nothing else in it means anything."""
    filled = {"{profile}": profile, "{run}": run}
    return re.sub(r"\{profile\}|\{run\}", lambda match: filled[match[0]], template)


def check_name(profile: Profile, aws: Aws, findings: Findings) -> None:
    """An AMI's name is one that EC2 takes, and unique in account and region: with `{run}` in it always."""
    name = name_of(profile.name, profile.image.name, RUN)
    if wrong := _wrong(profile, name):
        findings.problem("image.name", *wrong)
        return
    if "{run}" in profile.image.name:
        return
    answer = findings.ask(
        f"whether an AMI is called {name} already",
        lambda: aws.ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": [name]}]),
    )
    if answer is None:
        return
    if not answer["Images"]:
        findings.confirm(f"no AMI is called {name} yet")
    else:
        findings.problem(
            "image.name",
            f"{answer['Images'][0]['ImageId']} is called {name!r} already, and a name is there once",
            "put {run} into the name: it differs from bake to bake",
        )


def check_sharing(profile: Profile, aws: Aws, findings: Findings) -> None:
    """Snapshots under AWS's own key for EBS can't be shared: said now, not after the bake.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifySnapshotAttribute.html
    """
    if not profile.image.share_with:
        return
    key, why = profile.root_volume.kms_key, "root_volume.kms_key is"
    if key is None:
        answer = findings.ask(
            "whether the account encrypts all volumes", aws.ec2.get_ebs_encryption_by_default
        )
        if answer is None or not answer["EbsEncryptionByDefault"]:
            return
        default = findings.ask("the account's key for EBS", aws.ec2.get_ebs_default_kms_key_id)
        key = default["KmsKeyId"] if default is not None else None
        why = "this account encrypts every volume by default with"
    if key is not None and _is_of_aws(key, aws, findings):
        findings.warn(
            f"image.share_with: the AMI can't be shared, since {why} AWS's own key aws/ebs, and no other "
            "account may use that: name a key of your own in root_volume.kms_key"
        )


def _is_of_aws(key: str, aws: Aws, findings: Findings) -> bool:
    if key.endswith("alias/aws/ebs"):
        return True
    answer = findings.ask("whose key encrypts the volume", lambda: aws.kms.describe_key(KeyId=key))
    return answer is not None and answer["KeyMetadata"].get("KeyManager") == "AWS"


def _wrong(profile: Profile, name: str) -> list[str]:
    """What EC2 would refuse in a filled-in name, and what it is made of; nothing where all is well."""
    template, (least, most) = profile.image.name, NAME_LENGTH
    if left := re.findall(r"\{[^{}]*\}?|\}", re.sub(r"\{profile\}|\{run\}", " ", template)):
        return [f"{' '.join(left)} can't be filled in; there are {{profile}} and {{run}}"]
    shown = f"the AMI would be called {printable(name, 2 * most)!r}"
    found = []
    if bad := sorted(set(NOT_IN_NAMES.findall(name))):
        found.append(f"{shown}, and EC2 takes no {' '.join(map(ascii, bad))} in it")
    if not least <= len(name) <= most:
        found.append(f"{shown}, of {len(name)} characters, and EC2 takes {least} to {most}")
    if not found:
        return []
    rule = "letters, digits, spaces and ( ) [ ] . / - ' @ _ may stand in it"
    return ["; ".join(found), rule, *(["{profile} is the profile's own name"] * ("{profile}" in template))]


def check_user_data(profile: Profile, extra: Mapping[str, str], findings: Findings) -> None:
    """Measure the largest user data of a bake, the boot check's (R-USERDATA)."""
    # Here, not above: the steps are built on the plan.
    from bake.instance import USER_DATA_LIMIT, KeyPair, user_data
    from bake.layout import INSTANCE_ENV
    from bake.wiring import Wiring

    name = f"bake-{RUN}"
    queue = f"https://sqs.{profile.worker.region}.amazonaws.com/123456789012/{name}-results"
    wiring = Wiring(queue, queue, name, name)
    files = {INSTANCE_ENV: wiring.environment(profile.worker.region, extra)}
    try:
        size = len(user_data(KeyPair.of_each_kind(), files, [KeyPair.generate("ecdsa").public]).encode())
    except BakeError as error:
        findings.problem("worker", error.message)
        return
    findings.confirm(f"the user data has {size:,} bytes of the {USER_DATA_LIMIT:,} that EC2 takes")
