"""Show an agreement and what differs from it: tables, and the commands that agree."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bake.agreement import lockfile
from bake.agreement.facts import Difference, FactValue, Guarded, shown
from bake.columns import table

# Stands for the user's own words in a suggested command.
REASON = "…"
HEADER = ("fact", "agreed", "now", "where it comes from")


@dataclass(frozen=True)
class ProfileRequest:
    """Which profile `bake` was called for, and with which options; suggested commands repeat these."""

    profile: str
    directory: Path
    env_file: Path
    rehearsal: bool = False

    @property
    def lock(self) -> Path:
        """The profile's lock file."""
        return lockfile.path_of(self.profile, self.directory, rehearsal=self.rehearsal)


def title(request: ProfileRequest) -> str:
    """What the comment at the top of a lock file says it is about."""
    if request.rehearsal:
        return f"rehearsals of profile {request.profile}: facts of the local cloud, nobody's infrastructure"
    return f"profile {request.profile}; it belongs into git, beside the profile"


def without_agreement(request: ProfileRequest) -> str:
    """Why a rehearsal goes on without an agreement."""
    return (
        "this rehearsal needs no agreement, since it touches nothing of yours; "
        f"`{command(request)}` records one that later rehearsals must match"
    )


def command(request: ProfileRequest) -> str:
    """The `bake approve` command, with the options that this one was called with."""
    return f'{_called(request, "approve")} --because "{REASON}"'


def complete_command(request: ProfileRequest, differences: Sequence[Difference], because: str = "") -> str:
    """The `bake approve` command that needs no terminal: it names each of these facts with its value."""
    start = f"{_called(request, 'approve')} --because {shlex.quote(because)}" if because else command(request)
    return " \\\n    ".join([start, *(f"--fact {named(one)}" for one in differences)])


def lock_command(request: ProfileRequest, *options: str) -> str:
    """The `bake lock` command, with the options that this one was called with."""
    return _called(request, "lock", *options)


def _called(request: ProfileRequest, command: str, *options: str) -> str:
    words = ["bake"]
    for option, value, usual in (
        ("--profiles", request.directory, "profiles"),
        ("--env-file", request.env_file, ".env.local"),
    ):
        words += [option, str(value)] if str(value) != usual else []
    words += [command, "--profile", request.profile, *(["--rehearse"] if request.rehearsal else []), *options]
    return shlex.join(words)


def how_to_agree(request: ProfileRequest, differences: Sequence[Difference]) -> str:
    """The command for a terminal, where it asks, and the one that names each fact instead."""
    return (
        f"if that is what you want:\n  {command(request)}\n"
        f"without a terminal:\n  {complete_command(request, differences)}"
    )


def named(difference: Difference) -> str:
    """A difference as `--fact` takes it, quoted for a shell: with the value that is agreed to."""
    return shlex.quote(f"{difference.name}={spelled(difference.now)}")


def spelled(value: FactValue) -> str:
    """A value as `--fact NAME=VALUE` takes it; what is not set is an empty text."""
    if value is None:
        return ""
    return ",".join(value) if isinstance(value, list) else str(value)


def how_to_lock(request: ProfileRequest) -> str:
    """The command that locks the weights, and what it does."""
    return f"to pin the size and hash of every file:\n  {lock_command(request)}"


def refusal(
    request: ProfileRequest, guarded: Guarded, differences: Sequence[Difference], *, new: bool
) -> str:
    """What differs from the agreement; with `new` there is none yet."""
    if new:
        head = f"profile {request.profile} has no agreement yet; `bake approve` records it in {request.lock}"
        return f"{head}\n\n{_facts(guarded)}"
    head = f"profile {request.profile} is not what was agreed in {request.lock}"
    return f"{head}\n\n{differences_table(differences)}"


def _facts(guarded: Guarded) -> str:
    rows = [(name, shown(value, name), origin) for name, value, origin in guarded.rows()]
    return table(("fact", "now", "where it comes from"), rows)


def differences_table(differences: Sequence[Difference]) -> str:
    """Fact, agreed, now, where it comes from."""
    rows = [
        (
            one.name,
            "nothing yet" if one.new else shown(one.agreed, one.name),
            shown(one.now, one.name),
            one.origin,
        )
        for one in differences
    ]
    return table(HEADER, rows)


def state_table(guarded: Guarded, differences: Sequence[Difference]) -> str:
    """Every fact, and whether it is agreed."""
    different = {one.name: one for one in differences}
    rows = []
    for name, value, origin in guarded.rows():
        one = different.get(name)
        mark = "✓" if one is None else "?" if one.new else "✗"
        agreed = "agreed" if one is None else "not yet" if one.new else shown(one.agreed, name)
        rows.append((f"{mark} {name}", agreed, shown(value, name), origin))
    return table(("  fact", *HEADER[1:]), rows)
