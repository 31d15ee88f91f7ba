"""What refers to AMIs, as far as somebody could tell: the proof that one may go, or why it may not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reference:
    """One thing that needs an AMI: `kind` and `id` name it, `detail` says which part of it."""

    kind: str
    id: str
    detail: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.kind, self.id, self.detail) if part)


# An AMI's id, and what refers to it.
Mention = tuple[str, Reference]

INSTANCE, TEMPLATE, GROUP, PARAMETER = "instance", "launch template", "Auto Scaling group", "SSM parameter"


@dataclass(frozen=True)
class Proof:
    """The references to each AMI that was asked about, by its id, and what nobody could tell.

    `shares` are the accounts, organizations and groups that an AMI is shared with. `unanswered` are the
    questions without an answer, and why; `doubts` says by AMI which of them could have protected it. `notes`
    are things to be told that protect nothing.
    """

    references: Mapping[str, tuple[Reference, ...]] = field(default_factory=dict)
    shares: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    doubts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unanswered: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def by_image(mentions: Iterable[Mention]) -> dict[str, tuple[Reference, ...]]:
    """The references to each AMI, each once, in the order in which they were found.

    EC2's own answer tells of a template, an instance or a parameter without saying more: it is left out where
    the same thing was found with its details.
    """
    found: dict[str, dict[Reference, None]] = {}
    for image, reference in mentions:
        found.setdefault(image, {})[reference] = None
    return {image: tuple(_without_repetitions(list(them))) for image, them in found.items()}


def _without_repetitions(listed: list[Reference]) -> Iterable[Reference]:
    detailed = {_same(one) for one in listed if one.detail}
    told: set[tuple[str, str]] = set()
    for one in listed:
        if one.detail or _same(one) not in detailed | told:
            told.add(_same(one))
            yield one


def _same(one: Reference) -> tuple[str, str]:
    """What two references to one thing have in common: an ARN has no slash before a parameter's name."""
    return one.kind, one.id.removeprefix("/")
