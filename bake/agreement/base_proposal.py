"""Propose that a newer base AMI is agreed to: the lock's change as a patch, and a pull request's body."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bake import git
from bake.agreement import lockfile
from bake.agreement.approve import agree
from bake.agreement.facts import Difference
from bake.agreement.lockfile import LockFile
from bake.agreement.render import ProfileRequest, complete_command, title
from bake.errors import BakeError

FOLDER = Path(".bake/proposals")
NO_NEWLINE = "\n\\ No newline at end of file\n"


@dataclass(frozen=True)
class BaseAmi:
    """What a person wants to know of a base AMI; what EC2 does not tell is empty."""

    id: str
    name: str = ""
    created: str = ""
    owner: str = ""
    deprecated: str = ""


@dataclass(frozen=True)
class Proposed:
    """The files of a proposal, and the ids of the two AMIs."""

    patch: Path
    body: Path
    agreed: str
    newest: str

    def as_dict(self) -> dict[str, str]:
        """The proposal for machines."""
        files = {"patch": str(self.patch), "body": str(self.body)}
        return {"fact": "base_ami", "agreed": self.agreed, "newest": self.newest, **files}

    def __str__(self) -> str:
        return (
            f"proposed: {self.patch} agrees to {self.newest} (git apply {shlex.quote(str(self.patch))}), and "
            f"{self.body} describes it for a pull request"
        )


def write(
    request: ProfileRequest, held: LockFile, family: str, was: BaseAmi, now: BaseAmi, origin: str
) -> Proposed:
    """Write the proposal to `.bake/proposals`, in place of an earlier one; raises BakeError if that fails.

    The history's entry is the one that `bake approve` would write, without who agrees: nobody has yet.
    """
    name = f"{request.profile}.rehearsal" if request.rehearsal else request.profile
    proposed = Proposed(FOLDER / f"{name}.patch", FOLDER / f"{name}.md", was.id, now.id)
    difference = Difference("base_ami", was.id, now.id, origin)
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        proposed.patch.write_bytes(patch(request, held, family, difference).encode())
        proposed.body.write_text(
            body(request, family, was, now, difference, proposed.patch), encoding="utf-8"
        )
    except OSError as error:
        raise BakeError(
            f"the proposal could not be written to {FOLDER}: {error.strerror or error}"
        ) from error
    return proposed


def patch(request: ProfileRequest, held: LockFile, family: str, difference: Difference) -> str:
    """The lock file's change, as `git apply` takes it in the repository that has the file."""
    because = f"{difference.now} is the newest of {family}"
    agreement = agree(held.agreement, held.file, [difference], because, "")
    before = (lockfile.content(held.file) or b"").decode()
    after = lockfile.text(replace(held, agreement=agreement), title(request))
    name = _name_in_repository(held.file)
    end = "\t" if " " in name else ""  # as git writes it: where the name ends
    lines = difflib.unified_diff(
        _lines(before), _lines(after), f"a/{name}{end}", f"b/{name}{end}", lineterm="\n"
    )
    return "".join(line if line.endswith("\n") else line + NO_NEWLINE for line in lines)


def _lines(text: str) -> list[str]:
    """Lines as a patch has them, which end at a line feed alone."""
    return [line + "\n" for line in text[:-1].split("\n")] if text.endswith("\n") else _unended(text)


def _unended(text: str) -> list[str]:
    *whole, last = text.split("\n")
    return [*(f"{line}\n" for line in whole), *([last] if last else [])]


def _name_in_repository(file: Path) -> str:
    """The file's path from the top of its repository, or from here where it is in none."""
    found = file.resolve()
    top = git.top(found.parent) or Path.cwd()
    return found.relative_to(top).as_posix() if found.is_relative_to(top) else found.name


def body(
    request: ProfileRequest, family: str, was: BaseAmi, now: BaseAmi, difference: Difference, file: Path
) -> str:
    """A pull request's body in Markdown."""
    return "\n".join(
        [
            f"# Base AMI of {request.profile}: {was.id} → {now.id}",
            "",
            f"`{now.id}` is the newest of {_code(family)}. `{was.id}` was agreed to, and nothing is baked "
            "from another one before somebody agrees to that.",
            "",
            "| | agreed | newest |",
            "|---|---|---|",
            *(f"| {what} | {_code(before)} | {_code(after)} |" for what, before, after in _rows(was, now)),
            "",
            "Merging this agrees to it: the patch adds an entry to the history of "
            f"{_code(str(request.lock))}, without a name.",
            "",
            "```sh",
            f"git apply {shlex.quote(str(file))}",
            "# or, with your name:",
            complete_command(request, [difference], f"{now.id} is the newest of {family}"),
            "```",
            "",
        ]
    )


def _rows(was: BaseAmi, now: BaseAmi) -> Iterator[tuple[str, str, str]]:
    for what, key in (("id", "id"), ("name", "name"), ("owner", "owner"), ("created", "created")):
        yield what, getattr(was, key), getattr(now, key)
    yield "deprecated", was.deprecated, now.deprecated


def _code(text: str) -> str:
    """Text of somebody else within Markdown's table; nothing of it is markup."""
    plain = " ".join(text.split()).replace("`", "'").replace("|", "\\|")
    return f"`{plain}`" if plain else "-"
