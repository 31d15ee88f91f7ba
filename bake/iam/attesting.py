"""What attesting an image needs: to read what its snapshot holds, and to sign what is said of it."""

from __future__ import annotations

from collections.abc import Iterator

from bake.attest.statement import DIGEST_TAG
from bake.iam.statement import Statement
from bake.iam.subject import Account, Subject

KMS = "awskms:"


def statements(subject: Subject) -> Iterator[Statement]:
    """Nothing unless the profile attests."""
    profile = subject.profile
    if not profile.attest:
        return
    yield Statement(
        "ReadTheSnapshot",
        "the finished snapshot is read by the EBS direct APIs; `bake attest verify` reads it again",
        ("ebs:ListSnapshotBlocks", "ebs:GetSnapshotBlock"),
        subject.ec2("snapshot"),
        subject.ours,
        "`attest`",
    )
    if profile.base.owner == "self":
        yield Statement(
            "ReadTheBase",
            "the digest of an own base AMI is attested, too; without the right it is left out",
            ("ebs:ListSnapshotBlocks", "ebs:GetSnapshotBlock"),
            subject.ec2("snapshot"),
            when="`attest` with `base.owner: self`",
        )
    if profile.signing_key is not None and profile.signing_key.startswith(KMS):
        yield Statement(
            "SignAttestations",
            "KMS signs the statements about the image",
            ("kms:GetPublicKey", "kms:Sign"),
            _keys(subject, profile.signing_key.removeprefix(KMS)),
            when="`signing_key` in AWS KMS",
        )


def tags(subject: Subject) -> tuple[str, ...]:
    """The tags of an image that change when it is attested."""
    return (DIGEST_TAG,) if subject.profile.attest else ()


def verifying(account: Account) -> Iterator[Statement]:
    """What whoever verifies an AMI needs: to look at it, and to read its snapshots."""
    yield Statement("LookAtImages", "which snapshots an AMI maps to", ("ec2:DescribeImages",), ("*",))
    yield Statement(
        "ReadSnapshots",
        "what they hold",
        ("ebs:ListSnapshotBlocks", "ebs:GetSnapshotBlock"),
        account.ec2("snapshot"),
    )


def _keys(subject: Subject, named: str) -> tuple[str, ...]:
    """The ARN of the key; rights are on keys, so an alias stands for any."""
    if named.startswith("arn:"):
        return (named if ":key/" in named else f"{named.rpartition(':')[0]}:key/*",)
    return (subject.arn("kms", "key/*" if named.startswith("alias/") else f"key/{named}"),)
