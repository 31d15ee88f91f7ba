"""The least-privilege policies of whoever bakes, of the worker, of the reaper's schedules and of sweeps.

Pure: a profile and an account in, statements out. `bake iam` prints them, rehearsals run under them, and the
documentation shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, get_args

from bake.iam import caller, schedule, sweep, worker
from bake.iam.statement import INLINE, MANAGED, Statement, Trust, document, size, too_large
from bake.iam.subject import Subject, partition_of

__all__ = [
    "AUDIENCES",
    "INLINE",
    "MANAGED",
    "Audience",
    "Statement",
    "Subject",
    "Trust",
    "document",
    "partition_of",
    "size",
    "statements",
    "too_large",
    "trust",
]

Audience = Literal["caller", "worker", "schedule", "sweep"]
AUDIENCES: tuple[Audience, ...] = get_args(Audience)

_STATEMENTS: Mapping[Audience, Callable[[Subject], Iterator[Statement]]] = {
    "caller": caller.statements,
    "worker": worker.statements,
    "schedule": schedule.statements,
    "sweep": sweep.statements,
}
_TRUSTS: Mapping[Audience, Callable[[Subject], Trust]] = {"worker": worker.trust, "schedule": schedule.trust}


def statements(audience: Audience, subject: Subject) -> tuple[Statement, ...]:
    """What this audience may do with this profile, and nothing else."""
    return tuple(_STATEMENTS[audience](subject))


def trust(audience: Audience, subject: Subject) -> Trust | None:
    """Who may take the audience's role; None where that is the account's own choice."""
    made = _TRUSTS.get(audience)
    return made(subject) if made else None
