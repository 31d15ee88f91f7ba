"""Check the new AMI: its name, its sharing, and the size of the user data that boots it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bake.account.answers import Unanswered
from bake.account.facts import AccountFacts
from bake.account.images import RUN, name_of
from bake.account.keys import Key, KeyFacts, is_awss_alias
from bake.errors import BakeError
from bake.instance import USER_DATA_LIMIT, KeyPair, user_data
from bake.layout import INSTANCE_ENV
from bake.planning.findings import Findings
from bake.profile import Profile
from bake.profile.yaml_source import printable
from bake.wiring import Wiring

# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateImage.html
NAME_LENGTH = (3, 128)
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9()\[\] ./'@_-]")


def check(profile: Profile, facts: AccountFacts, findings: Findings) -> None:
    """Check the AMI's name, and whether it can be shared with whom the profile says."""
    check_name(profile, facts.taken, findings)
    check_sharing(profile, facts.keys, findings)


def check_name(profile: Profile, taken: str | Unanswered | None, findings: Findings) -> None:
    """An AMI's name is one that EC2 takes, and unique in account and region: with `{run}` in it always.

    `taken` is the AMI that has the name already.
    """
    name = name_of(profile.name, profile.image.name, RUN)
    if wrong := _wrong(profile, name):
        findings.problem("image.name", *wrong)
        return
    if "{run}" in profile.image.name:
        return
    if isinstance(taken, Unanswered):
        findings.not_checked(f"whether an AMI is called {name} already", taken.why)
    elif taken is None:
        findings.confirm(f"no AMI is called {name} yet")
    else:
        findings.problem(
            "image.name",
            f"{taken} is called {name!r} already, and AMI names are unique",
            "put {run} into the name: it differs from bake to bake",
        )


def check_sharing(profile: Profile, keys: KeyFacts, findings: Findings) -> None:
    """Warn before the bake that snapshots under AWS's own key for EBS can't be shared.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifySnapshotAttribute.html
    """
    if not profile.image.share_with:
        return
    name, key, why = profile.root_volume.kms_key, keys.volume, "root_volume.kms_key is"
    if name is None:
        if not findings.answered("whether the account encrypts all volumes", keys.by_default):
            return
        name = findings.answered("the account's key for EBS", keys.default_name)
        key, why = keys.default, "this account encrypts every volume by default with"
    if name is not None and _is_of_aws(name, key, findings):
        findings.warn(
            f"image.share_with: the AMI can't be shared, since {why} AWS's own key aws/ebs, and no other "
            "account may use that: name a key of your own in root_volume.kms_key"
        )


def _is_of_aws(name: str, key: Key | Unanswered | None, findings: Findings) -> bool:
    if is_awss_alias(name):
        return True
    found = findings.answered("whose key encrypts the volume", key)
    return found is not None and found.of_aws


def _wrong(profile: Profile, name: str) -> list[str]:
    """Say why EC2 would refuse a filled-in name; empty if it would not."""
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
    rule = "allowed are letters, digits, spaces and ( ) [ ] . / - ' @ _"
    return ["; ".join(found), rule, *(["{profile} is the profile's own name"] * ("{profile}" in template))]


def check_user_data(profile: Profile, extra: Mapping[str, str], findings: Findings) -> None:
    """Measure the largest user data of a bake, the boot check's (R-USERDATA)."""
    name = f"bake-{RUN}"
    queue = f"https://sqs.{profile.worker.region}.amazonaws.com/123456789012/{name}-results"
    wiring = Wiring(queue, queue, name, name)
    files = {INSTANCE_ENV: wiring.environment(profile.worker.region, extra)}
    try:
        size = len(user_data(_example_keys(), files, [_example_keys()[1].public]).encode())
    except BakeError as error:
        findings.problem("worker", error.message)
        return
    findings.confirm(f"the user data has {size:,} bytes of the {USER_DATA_LIMIT:,} that EC2 takes")


@cache
def _example_keys() -> tuple[KeyPair, KeyPair]:
    """Keys as large as a run's can be. They are the same for each plan, and no machine gets them."""
    ed25519 = Ed25519PrivateKey.from_private_bytes(bytes(32))
    return KeyPair.of(ed25519), KeyPair.of(ec.derive_private_key(2**255 + 1, ec.SECP256R1()))
