"""Ask for the ARNs that policies name: of the worker's role, and of the volume's key."""

from __future__ import annotations

import re

from bake.account.answers import Unanswered, ask, require
from bake.aws import Aws
from bake.profile import Profile

_KEY = re.compile(r"arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[\w-]+")


def ask_worker_role(profile: Profile, aws: Aws) -> str | Unanswered | None:
    """The ARN of the role in the builder's instance profile; None if there is no such role."""
    name = profile.builder.instance_profile

    def get() -> str | None:
        roles = aws.iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"].get("Roles")
        return str(roles[0]["Arn"]) if roles else None

    return require(get, "NoSuchEntity")


def ask_key_arn(profile: Profile, aws: Aws) -> str | Unanswered | None:
    """The ARN of the key that `root_volume.kms_key` names in any way; None if it names none."""
    key = profile.root_volume.kms_key
    if key is None or _KEY.fullmatch(key):
        return key
    return ask(lambda: str(aws.kms.describe_key(KeyId=key)["KeyMetadata"]["Arn"]))
