"""Whether the finished snapshot is read and attested, and what that costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bake.account.answers import Unanswered
from bake.account.facts import AccountFacts
from bake.account.prices import PriceFacts
from bake.account.signing import SigningKey
from bake.attest.merkle import BLOCK, GIB
from bake.costs import dollars
from bake.planning.disk import Disk
from bake.planning.findings import Findings
from bake.planning.sources import Sources
from bake.profile import Profile

PAGE = 10_000  # blocks of a list


@dataclass(frozen=True)
class Attesting:
    """Reading the snapshot: `blocks` of it at most, in `lists` requests. `key` signs; None: nobody does.

    `dollars` is what the requests cost, None where no price is known. What is read leaves AWS where `bake`
    does not run in the builder's region.
    """

    blocks: int
    lists: int
    key: str | None
    dollars: float | None = None

    @property
    def requests(self) -> int:
        return self.blocks + self.lists

    @property
    def bytes(self) -> int:
        """What is read."""
        return self.blocks * BLOCK


def is_on(profile: Profile, sources: Sources) -> bool:
    """Whether the image is attested: as the profile says, else in rehearsals, where it costs nothing."""
    return sources.venue == "REHEARSAL" if profile.attest is None else profile.attest


def find(
    profile: Profile,
    sources: Sources,
    disk: Disk,
    facts: AccountFacts,
    findings: Findings,
) -> Attesting | None:
    """What attesting the image takes; None where the profile does without. Reports a key that can't sign."""
    on = is_on(profile, sources)
    if not on or sources.venue == "REHEARSAL":
        name = None
    else:
        name = profile.signing_key
        _check(facts.signing, findings)
        if name is None:
            findings.warn(
                "signing_key: nobody signs the attestation, which proves no more than a checksum: name the "
                "private key, or awskms: and a key of AWS KMS"
            )
    if not on:
        return None
    # Files lie in whole blocks, at the ends of which something else may lie, or nothing.
    blocks = min(math.ceil(disk.stored * 1.25 / BLOCK), disk.volume_gib * GIB // BLOCK)
    lists = math.ceil(blocks / PAGE)
    return Attesting(blocks, lists, name, _dollars(blocks, lists, facts.types.prices))


def _dollars(blocks: int, lists: int, prices: PriceFacts) -> float | None:
    """What the requests cost; a price list that does not answer is told elsewhere in the plan."""
    block, one_list = prices.block, prices.block_list
    if not isinstance(block, float) or not isinstance(one_list, float):
        return None
    return blocks * block + lists * one_list


def _check(key: SigningKey | Unanswered | None, findings: Findings) -> None:
    found = None if key is None else findings.answered("the key that signs attestations", key)
    if found is not None and found.wrong:
        findings.problem("signing_key", found.wrong)
    elif found is not None:
        findings.confirm(f"the key {found.id[:16]} signs attestations")


def rows(found: Attesting | None, region: str) -> list[tuple[str, str, str]]:
    """Rows of the plan's estimates: name, value, remark."""
    if found is None:
        return []
    signed = f"signed with {found.key}" if found.key else "not signed"
    return [
        (
            "attestation",
            f"{found.requests:,} requests, {dollars(found.dollars)}",
            f"reads {found.bytes / 1e9:.0f} GB of the snapshot at most; {signed}",
        ),
        (
            "",
            "",
            f"where bake runs outside of {region}, these {found.bytes / 1e9:.0f} GB leave it, and cost",
        ),
    ]
