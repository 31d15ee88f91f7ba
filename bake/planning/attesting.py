"""Whether the finished snapshot is read and attested, and what that costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bake.account.answers import Unanswered
from bake.account.signing import SigningKey
from bake.attest.merkle import BLOCK, GIB
from bake.planning.disk import Disk
from bake.planning.findings import Findings
from bake.planning.sources import Sources
from bake.profile import Profile

# Dollars of 1,000 blocks and of 1,000 lists: those of AWS's own example, which most regions have.
# https://docs.aws.amazon.com/ebs/latest/userguide/ebsapi-pricing.html
BLOCKS_1000, LISTS_1000 = 0.003, 0.0006
PAGE = 10_000  # blocks of a list
# Dollars of a GB that leaves AWS, in most regions; within a region it costs nothing.
# https://aws.amazon.com/ec2/pricing/on-demand/#Data_Transfer
EGRESS_GB = 0.09


@dataclass(frozen=True)
class Attesting:
    """Reading the snapshot: `blocks` of it at most, in `lists` requests. `key` signs; None: nobody does."""

    blocks: int
    lists: int
    key: str | None

    @property
    def requests(self) -> int:
        return self.blocks + self.lists

    @property
    def bytes(self) -> int:
        """What is read."""
        return self.blocks * BLOCK

    @property
    def dollars(self) -> float:
        """What the requests cost."""
        return self.blocks / 1000 * BLOCKS_1000 + self.lists / 1000 * LISTS_1000

    @property
    def egress_dollars(self) -> float:
        """What leaves AWS costs where `bake` does not run in the builder's region."""
        return self.bytes / 1e9 * EGRESS_GB


def is_on(profile: Profile, sources: Sources) -> bool:
    """Whether the image is attested: as the profile says, else in rehearsals, where it costs nothing."""
    return sources.venue == "REHEARSAL" if profile.attest is None else profile.attest


def find(
    profile: Profile,
    sources: Sources,
    disk: Disk,
    key: SigningKey | Unanswered | None,
    findings: Findings,
) -> Attesting | None:
    """What attesting the image takes; None where the profile does without. Reports a key that can't sign."""
    on = is_on(profile, sources)
    if not on or sources.venue == "REHEARSAL":
        name = None
    else:
        name = profile.signing_key
        _check(key, findings)
        if name is None:
            findings.warn(
                "signing_key: nobody signs the attestation, which proves no more than a checksum: name the "
                "private key, or awskms: and a key of AWS KMS"
            )
    if not on:
        return None
    # Files lie in whole blocks, at the ends of which something else may lie, or nothing.
    blocks = min(math.ceil(disk.stored * 1.25 / BLOCK), disk.volume_gib * GIB // BLOCK)
    return Attesting(blocks, math.ceil(blocks / PAGE), name)


def _check(key: SigningKey | Unanswered | None, findings: Findings) -> None:
    found = None if key is None else findings.answered("the key that signs attestations", key)
    if found is not None and found.wrong:
        findings.problem("signing_key", found.wrong)
    elif found is not None:
        findings.confirm(f"the key {found.id[:16]} signs attestations")


def rows(found: Attesting | None) -> list[tuple[str, str, str]]:
    """Rows of the plan's estimates: name, value, remark."""
    if found is None:
        return []
    signed = f"signed with {found.key}" if found.key else "not signed"
    return [
        (
            "attestation",
            f"{found.requests:,} requests, ${found.dollars:.2f}",
            f"reads {found.bytes / 1e9:.0f} GB of the snapshot at most; {signed}",
        ),
        ("", "", f"${found.egress_dollars:.2f} more where bake runs outside of AWS: what is read leaves it"),
    ]
