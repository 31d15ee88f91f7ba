"""The least-privilege policies of whoever bakes, promotes, rolls out, sweeps or prunes, and of machines.

Pure: a profile and an account in, statements out. `bake iam` prints them, rehearsals run under them, and the
documentation shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, get_args

from bake.iam import attesting, caller, channels, retention, rollout, schedule, sweep, worker
from bake.iam.statement import INLINE, MANAGED, Statement, Trust, document, size, too_large
from bake.iam.subject import Account, Subject, partition_of

__all__ = [
    "AUDIENCES",
    "INLINE",
    "MANAGED",
    "Account",
    "Audience",
    "Statement",
    "Subject",
    "Trust",
    "document",
    "of_prune",
    "of_schedules",
    "of_sweep",
    "of_verifying",
    "of_worker",
    "partition_of",
    "size",
    "statements",
    "too_large",
    "trust",
]

Audience = Literal["caller", "worker", "schedule", "sweep", "promoter", "rollout", "prune"]
AUDIENCES: tuple[Audience, ...] = get_args(Audience)

_STATEMENTS: Mapping[Audience, Callable[[Subject], Iterator[Statement]]] = {
    "caller": caller.statements,
    "worker": worker.statements,
    "schedule": schedule.statements,
    "sweep": sweep.statements,
    "promoter": channels.statements,
    "rollout": rollout.statements,
    "prune": retention.statements,
}
_TRUSTS: Mapping[Audience, Callable[[Account], Trust]] = {"worker": worker.trust, "schedule": schedule.trust}


def statements(audience: Audience, subject: Subject) -> tuple[Statement, ...]:
    """What this audience may do with this profile, and nothing else."""
    return tuple(_STATEMENTS[audience](subject))


def of_schedules(account: Account) -> tuple[Statement, ...]:
    """What the reaper's role may do: one serves all profiles of a region."""
    return tuple(schedule.statements(account))


def of_sweep(account: Account) -> tuple[Statement, ...]:
    """What whoever sweeps may do: without a profile, since bakes of all profiles leave things."""
    return tuple(sweep.statements(account))


def of_verifying(account: Account) -> tuple[Statement, ...]:
    """What whoever verifies AMIs may do, without a profile."""
    return tuple(attesting.verifying(account))


def of_prune(account: Account) -> tuple[Statement, ...]:
    """What whoever prunes may do: without a profile, since it looks at the images of all of them."""
    return tuple(retention.statements(account))


def of_worker(account: Account, *names: str) -> tuple[Statement, ...]:
    """What a worker may do whose queue, bucket and bus have such names."""
    return tuple(worker.at(account, worker.Places.named(account, *names)))


def trust(audience: Audience, account: Account) -> Trust | None:
    """Who may take the audience's role; None where that is the account's own choice."""
    made = _TRUSTS.get(audience)
    return made(account) if made else None
