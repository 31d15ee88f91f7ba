"""Hold an AMI against its attestation: who signed it, which snapshots it maps to, and each of their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bake.attest import leaves, signing
from bake.attest.merkle import BLOCK, Content, image_digest
from bake.attest.reading import read
from bake.attest.signing import Signed
from bake.attest.statement import DIGEST_TAG, SUMMARY, Attested, Subject, subject_of
from bake.aws import Aws
from bake.creation import tag_of
from bake.errors import BakeError, NotVerified, UsageError
from bake.image import describe_image

COPY_TAG = "bake:copy-of"
TRUSTED, BESIDE, UNSIGNED = "trusted", "beside", "unsigned"


@dataclass(frozen=True)
class Attestation:
    """The statements about an AMI, and what lies beside them; `where` names them for people.

    `blocks` are the files of blocks by snapshot, `key` is the public key beside them. None of it is trusted.
    """

    where: str
    provenance: Signed
    summary: Signed | None
    subject: Subject
    key: bytes | None = None
    blocks: Mapping[str, bytes] | None = None

    @classmethod
    def read(
        cls, text: str, where: str, key: bytes | None = None, blocks: Mapping[str, bytes] | None = None
    ) -> Attestation:
        """Read `attestation.intoto.jsonl`; raises BakeError for anything else."""
        lines = [line for line in text.splitlines() if line.strip()]
        first, *others = [Signed.read(line, where) for line in lines] or [Signed.read("", where)]
        try:
            subject = subject_of(first.statement)
        except ValueError as error:
            raise BakeError(
                f"{where} is no attestation of bake's: {error}", hint="its first line is SLSA provenance"
            ) from error
        found = [one for one in others if one.statement.get("predicateType") == SUMMARY]
        summary = next((one for one in found if one.statement.get("subject") == subject.descriptors()), None)
        return cls(where, first, summary, subject, key, blocks)

    @property
    def verdict(self) -> str | None:
        """PASSED or FAILED, as the summary says; None without one."""
        predicate = self.summary.statement.get("predicate") if self.summary else None
        told = predicate.get("verificationResult") if isinstance(predicate, Mapping) else None
        return str(told) if told in ("PASSED", "FAILED") else None

    def check_signature(self, trusted: bytes | None, name: str) -> tuple[str, str]:
        """How it is signed, and the id of the key. Raises NotVerified where the signature is not good.

        With `trusted`, a public key in PEM that is called `name`, it must be signed by that one. Otherwise
        the key that lies beside it shows that nothing was damaged, and not who wrote it.
        """
        pem, kind = (self.key, BESIDE) if trusted is None else (trusted, TRUSTED)
        if trusted is None and not self.provenance.keys:
            return UNSIGNED, ""
        if pem is None:
            raise UsageError(
                f"the key that signed {self.where} is not at hand",
                hint="--key FILE names the public key of whoever baked, in PEM",
            )
        key = signing.public_key(pem, name)
        for signed in (self.provenance, *([self.summary] if self.summary else [])):
            signed.verify(key, self.where)
        return kind, key.keyid


@dataclass(frozen=True)
class Compared:
    """One snapshot as it was attested, and as it is now.

    `differing` are ranges of blocks, both ends included; None where nobody kept which block had what.
    """

    attested: Attested
    snapshot: str
    gib: int
    digest: str
    differing: tuple[tuple[int, int], ...] | None = ()

    @property
    def same(self) -> bool:
        return self.digest == self.attested.digest


@dataclass(frozen=True)
class Result:
    """What became of it. `copy_of` is the attested AMI where this one is a copy; `tag` what its tag says."""

    image: str
    region: str
    attestation: Attestation
    signature: str
    key: str
    copy_of: str
    tag: str
    snapshots: tuple[Compared, ...]

    @property
    def digest(self) -> str:
        """The AMI's digest as it is now."""
        return image_digest({one.attested.device: one.digest for one in self.snapshots})

    @property
    def same(self) -> bool:
        """Whether the AMI holds what was attested, to the last byte."""
        return all(one.same for one in self.snapshots)


def described(aws: Aws, image: str) -> Mapping[str, Any]:
    """An AMI of the account's own. Raises UsageError for any other: its snapshots can't be read."""
    facts = describe_image(aws, image)
    if facts is None:
        raise UsageError(
            f"there is no {image} in {aws.region}", hint="--region names another; is it of another account?"
        )
    account, owner = aws.sts.get_caller_identity()["Account"], facts.get("OwnerId")
    if owner != account:
        raise UsageError(
            f"{image} belongs to the account {owner}, and not to {account}",
            hint="only its owner may read its snapshots: copy it, and verify the copy",
        )
    if facts["State"] not in ("available", "disabled"):
        raise UsageError(f"{image} is {facts['State']}", hint="wait until it is available")
    return facts


def sources(facts: Mapping[str, Any]) -> list[str]:
    """The AMIs whose attestation may be about this one: itself, and those that it is a copy of."""
    of_tag = tag_of(facts.get("Tags"), COPY_TAG).partition(" ")[0]
    found = (facts["ImageId"], facts.get("SourceImageId"), of_tag)
    return [one for one in dict.fromkeys(found) if one]


def verify(
    aws: Aws, facts: Mapping[str, Any], attestation: Attestation, key: bytes | None, name: str
) -> Result:
    """Check the signature and the AMI's mapping, then read all of its snapshots.

    Raises NotVerified where the attestation can't be about this AMI; that bytes differ is in the result.
    """
    kind, signer = attestation.check_signature(key, name)
    subject, image = attestation.subject, str(facts["ImageId"])
    if subject.image not in sources(facts):
        raise NotVerified(
            f"{attestation.where} is about {subject.image}, and {image} is no copy of it",
            hint="--attestation names another one",
        )
    copy_of = "" if image == subject.image else subject.image
    pairs = list(_pairs(facts, subject, copy=bool(copy_of)))
    return Result(
        image,
        aws.region,
        attestation,
        kind,
        signer,
        copy_of,
        tag_of(facts.get("Tags"), DIGEST_TAG),
        tuple(_compared(aws, attestation, attested, snapshot) for attested, snapshot in pairs),
    )


def _pairs(facts: Mapping[str, Any], subject: Subject, *, copy: bool) -> Iterator[tuple[Attested, str]]:
    """Each attested snapshot, and the AMI's on the same device; a copy's have other ids."""
    disks = {one["DeviceName"]: one.get("Ebs", {}) for one in facts["BlockDeviceMappings"]}
    mapped = {device: str(ebs["SnapshotId"]) for device, ebs in disks.items() if ebs.get("SnapshotId")}
    wanted = {one.device: one for one in subject.snapshots}
    if mapped.keys() != wanted.keys():
        raise NotVerified(
            f"{facts['ImageId']} has snapshots on {', '.join(sorted(mapped)) or 'no device'}; attested are "
            f"those on {', '.join(sorted(wanted))}"
        )
    for device, attested in wanted.items():
        if not copy and mapped[device] != attested.snapshot:
            raise NotVerified(
                f"{facts['ImageId']} maps {device} to {mapped[device]}; attested is {attested.snapshot}"
            )
        yield attested, mapped[device]


def _compared(aws: Aws, attestation: Attestation, attested: Attested, snapshot: str) -> Compared:
    content = read(aws, snapshot)
    digest = content.digest()
    differing: tuple[tuple[int, int], ...] | None = ()
    if digest != attested.digest:
        before = _kept(attestation, attested)
        differing = None if before is None else tuple(before.differences(content))
    return Compared(attested, snapshot, content.gib, digest, differing)


def _kept(attestation: Attestation, attested: Attested) -> Content | None:
    """What was in each block, if that was kept, and is what was attested."""
    data = (attestation.blocks or {}).get(attested.snapshot)
    if data is None:
        return None
    try:
        content = leaves.read(data)
        return content if content.digest() == attested.digest else None
    except (ValueError, KeyError, TypeError):
        return None


def bytes_of(first: int, last: int) -> tuple[int, int]:
    """The bytes of a range of blocks: the first one, and the one after the last."""
    return first * BLOCK, (last + 1) * BLOCK


def as_dict(result: Result) -> dict[str, Any]:
    """The result for `--json`."""
    return {
        "image": result.image,
        "region": result.region,
        "verified": result.same,
        "attested": result.attestation.subject.digest,
        "found": result.digest,
        "copy_of": result.copy_of or None,
        "attestation": result.attestation.where,
        "venue": result.attestation.subject.venue,
        "verdict": result.attestation.verdict,
        "signature": result.signature,
        "key": result.key or None,
        "tag": result.tag or None,
        "snapshots": [_snapshot(one) for one in result.snapshots],
    }


def _snapshot(one: Compared) -> dict[str, Any]:
    ranges = None if one.differing is None else [_range(*pair) for pair in one.differing]
    return {
        "device": one.attested.device,
        "snapshot": one.snapshot,
        "attested": {
            "snapshot": one.attested.snapshot,
            "gib": one.attested.gib,
            "digest": one.attested.digest,
        },
        "found": {"gib": one.gib, "digest": one.digest},
        "same": one.same,
        "differing": ranges,
    }


def _range(first: int, last: int) -> dict[str, int]:
    start, end = bytes_of(first, last)
    return {"first_block": first, "last_block": last, "offset": start, "end": end}
