"""How several bakes ended, in one table and one exit code."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence

from bake.columns import table
from bake.commands.many.children import Child
from bake.errors import (
    EXIT_BUG,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_LEFT_BEHIND,
    EXIT_NOT_AGREED,
    EXIT_NOT_VERIFIED,
    EXIT_USAGE,
)
from bake.progress import Progress

# The most serious first: what is left and costs money, what nobody planned for, a bad image, trouble that may
# be over tomorrow, what needs a person's consent or correction, and what a person ended.
SERIOUS = (
    EXIT_LEFT_BEHIND,
    EXIT_BUG,
    EXIT_NOT_VERIFIED,
    EXIT_FAILED,
    EXIT_NOT_AGREED,
    EXIT_USAGE,
    EXIT_INTERRUPTED,
)
HEADER = ("profile", "verdict", "AMI", "time", "exit", "run directory")


def summarize(children: Sequence[Child], left_out: Mapping[str, str], progress: Progress) -> int:
    """Show the table, last of all; return the exit code of the whole."""
    code = most_serious(code_of(child) for child in children)
    killed = [child.profile for child in children if child.code is not None and child.code < 0]
    text = table(HEADER, [_row(child) for child in children])
    if killed:
        told = "bake runs shows what they hold, bake resume goes on with them, and bake sweep removes it"
        text += f"\n\nkilled, and what they created may be left: {', '.join(killed)}; {told}"
    progress.emit(
        "summary",
        text=f"\n{text}",
        exit_code=code,
        bakes=[_as_dict(child) for child in children],
        left_out=dict(left_out),
    )
    return code


def most_serious(codes: Iterable[int]) -> int:
    """The exit code of the whole; one that bake does not have counts as a bug."""
    found = {code if code in (0, *SERIOUS) else EXIT_BUG for code in codes}
    return next((code for code in SERIOUS if code in found), 0)


def code_of(child: Child) -> int:
    """A bake's exit code: 6 where it was killed and could not remove anything, 130 where it never began."""
    if child.code is None:
        return EXIT_INTERRUPTED
    return EXIT_LEFT_BEHIND if child.code < 0 else child.code


def _row(child: Child) -> tuple[str, ...]:
    facts = child.facts
    image, directory = (str(facts.get(key) or "-") for key in ("image", "directory"))
    return child.profile, _verdict(child), image, _time(child.seconds), str(code_of(child)), directory


def _verdict(child: Child) -> str:
    if child.code is None:
        return "not started"
    if child.code < 0:
        return f"killed by {signal.Signals(-child.code).name}"
    return str(child.facts.get("verdict") or ("done" if child.code == 0 else "nothing baked"))


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _as_dict(child: Child) -> dict[str, object]:
    facts = {key: child.facts.get(key) for key in ("image", "run", "directory", "report", "message")}
    told = {"profile": child.profile, "verdict": _verdict(child), "exit_code": code_of(child)}
    return {**told, "seconds": child.seconds, **facts}
