"""Decide which facts the user agrees to: by a question on a terminal, by naming each fact without one."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bake.agreement.facts import NAMES, Agreement, Difference, Entry, Guarded
from bake.agreement.render import REASON, ProfileRequest, complete_command, spelled
from bake.errors import NotAgreed, UsageError

Ask = Callable[[str], bool]


@dataclass(frozen=True)
class Approval:
    """The options of `bake approve`: `facts` maps a name to the value that is expected, or to None."""

    facts: Mapping[str, str | None]
    because: str

    @classmethod
    def of(cls, facts: Iterable[str], because: str) -> Approval:
        """Check the options; UsageError with everything that is wrong with them."""
        problems = []
        wanted: dict[str, str | None] = {}
        for text in facts:
            name, equals, value = text.partition("=")
            wanted[name] = value if equals else None
            if name == "all":
                problems.append("--fact all: name each fact that you agree to")
            elif name.startswith("weights.") and name not in NAMES:
                problems.append(f"--fact {name}: the weights are pinned by `bake lock`")
            elif name not in NAMES:
                close = difflib.get_close_matches(name, NAMES, 1)
                guess = f"did you mean {close[0]}?" if close else f"there are: {', '.join(NAMES)}"
                problems.append(f"--fact {name}: there is no such fact; {guess}")
        reason = " ".join(because.split())
        if reason in ("", REASON):
            problems.append("--because is empty: say why, for whoever reads the history")
        if problems:
            raise UsageError("\n".join(problems))
        return cls(wanted, reason)


def choose(
    request: ProfileRequest,
    approval: Approval,
    guarded: Guarded,
    differences: Sequence[Difference],
    ask: Ask | None,
) -> list[Difference]:
    """The differences that the user agrees to.

    With a terminal (`ask`) these are the named ones, or all when none is named, once the question was
    answered with yes. Without, every difference must be named. NotAgreed otherwise.
    """
    _refuse_other_values(approval, guarded)
    chosen = [one for one in differences if not approval.facts or one.name in approval.facts]
    if ask is None:
        unnamed = [one for one in differences if one.name not in approval.facts]
        if unnamed:
            raise NotAgreed(
                "without a terminal, name each fact; these were not named: "
                + ", ".join(one.name for one in unnamed)
                + "\nnothing was recorded",
                hint="to agree to all that is shown:\n  "
                + complete_command(request, differences, approval.because),
            )
    elif not chosen:
        raise NotAgreed("none of the named facts differs from what was agreed; nothing was recorded")
    elif not ask(_question(chosen)):
        raise NotAgreed("nothing was recorded")
    return chosen


def _question(chosen: Sequence[Difference]) -> str:
    return f"Agree to {'this' if len(chosen) == 1 else f'these {len(chosen)} facts'}?"


def _refuse_other_values(approval: Approval, guarded: Guarded) -> None:
    """Raise NotAgreed if a named value is not the plan's: it may have changed since the user read it."""
    wrong = []
    for name, value, origin in guarded.rows():
        expected = approval.facts.get(name)
        now = spelled(value)
        if expected is not None and "".join(expected.split()) not in ("".join(now.split()), str(value)):
            wrong.append(f"--fact {name}={expected}: it is {now or 'not set'} now ({origin})")
    if wrong:
        text = "\n".join(wrong)
        raise NotAgreed(f"{text}\nnothing was recorded", hint="look at `bake plan` again")


def agree(
    agreement: Agreement | None, file: Path, chosen: Sequence[Difference], because: str, who: str
) -> Agreement:
    """The agreement with the chosen differences, and one more entry in its history."""
    agreed = dict(agreement.agreed) if agreement else {}
    agreed.update({one.name: one.now for one in chosen})
    entry = Entry(
        datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        who,
        because,
        {one.name: _change(one) for one in chosen},
    )
    return Agreement(file, agreed, (*(agreement.history if agreement else ()), entry))


def _change(one: Difference) -> dict[str, object]:
    """The old and the new value of a fact."""
    return {**({} if one.new else {"from": one.agreed}), "to": one.now}
