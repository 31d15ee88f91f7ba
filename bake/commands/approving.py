"""Run `bake approve`: show what differs from the agreement, ask, and record what the user agrees to."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bake.agreement import lockfile
from bake.agreement import render as agreement_render
from bake.agreement.approve import Approval, Ask, agree, choose
from bake.agreement.facts import compare
from bake.aws import Aws, call_errors
from bake.errors import BakeError
from bake.progress import Tally
from bake.request import BakeRequest, local_cloud, propose

Say = Callable[[str], None]


def record(request: BakeRequest, approval: Approval, say: Say, ask: Ask | None) -> None:
    """Show what differs from the agreement, ask (`ask` is None without a terminal), and record it."""
    before = lockfile.content(request.lock)
    with ExitStack() as stack:
        unpinned = "base_ami" in approval.facts  # who names it wants the newest, also of what is pinned
        proposal = propose(request, local_cloud(request, stack, say), Tally(), unpinned=unpinned)
        differences = proposal.differences
        if not differences:
            say(f"everything is as agreed in {request.lock}; nothing was recorded")
            return
        new = proposal.agreement is None
        say(f"{agreement_render.refusal(request, proposal.guarded, differences, new=new)}\n")
        chosen = choose(request, approval, proposal.guarded, differences, ask)
        who = author(request.directory, proposal.aws)
    agreement = agree(proposal.agreement, request.lock, chosen, approval.because, who)
    held = lockfile.LockFile(request.lock, agreement, proposal.lock)
    lockfile.write(held, before, agreement_render.title(request))
    say(f"recorded in {request.lock}: {', '.join(one.name for one in chosen)}")
    if rest := compare(proposal.guarded, agreement):
        say(f"\nstill not as agreed:\n\n{agreement_render.differences_table(rest)}")
    if not request.rehearsal:
        say("commit it beside the profile")


def author(directory: Path, aws: Aws) -> str:
    """Who agrees: git's user.name and user.email, else the caller's ARN."""
    name, email = (_git(directory, key) for key in ("user.name", "user.email"))
    if name or email:
        return " ".join(part for part in (name, f"<{email}>" if email else "") if part)
    try:
        return str(aws.sts.get_caller_identity()["Arn"])
    except call_errors() as error:
        raise BakeError(
            f"nobody to record as the one who agreed: git has no user.name, and AWS answers: {error}",
            hint='git config --global user.name "Your Name"',
        ) from error


def _git(directory: Path, key: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), "config", "--get", key],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):  # no git here: the ARN will do
        return ""
    return done.stdout.strip()
