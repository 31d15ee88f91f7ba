"""Ask for the keys that volumes are encrypted with."""

from __future__ import annotations

from dataclasses import dataclass

from bake.account.answers import Unanswered, ask, require
from bake.aws import Aws
from bake.profile import Profile


@dataclass(frozen=True)
class Key:
    """A KMS key. `of_aws`: AWS manages it, and no other account may use it."""

    enabled: bool
    of_aws: bool


@dataclass(frozen=True)
class KeyFacts:
    """What encrypts the image's snapshots. Each is None where it was not asked.

    `volume` is the key of `root_volume.kms_key` (also None where it does not exist). The others matter where
    the profile names no key and shares the image: whether the account encrypts every volume, and with what.
    """

    volume: Key | Unanswered | None = None
    by_default: bool | Unanswered | None = None
    default_name: str | Unanswered | None = None
    default: Key | Unanswered | None = None


def ask_keys(profile: Profile, aws: Aws) -> KeyFacts:
    """Ask for the key that the profile names, else for the account's own where the image is shared."""
    key = profile.root_volume.kms_key
    if key is not None:
        return KeyFacts(
            volume=require(lambda: describe_key(key, aws), "NotFoundException", "InvalidArnException")
        )
    if not profile.image.share_with:
        return KeyFacts()
    by_default = ask(lambda: bool(aws.ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"]))
    if by_default is not True:
        return KeyFacts(by_default=by_default)
    name = ask(lambda: str(aws.ec2.get_ebs_default_kms_key_id()["KmsKeyId"]))
    if isinstance(name, Unanswered) or is_awss_alias(name):
        return KeyFacts(by_default=True, default_name=name)
    return KeyFacts(by_default=True, default_name=name, default=ask(lambda: describe_key(name, aws)))


def is_awss_alias(name: str) -> bool:
    """Whether a name is that of AWS's own key for EBS."""
    return name.endswith("alias/aws/ebs")


def describe_key(key: str, aws: Aws) -> Key:
    """A key by its id, ARN or alias."""
    facts = aws.kms.describe_key(KeyId=key)["KeyMetadata"]
    return Key(enabled=facts.get("Enabled", True), of_aws=facts.get("KeyManager") == "AWS")
