"""Let the booted worker report what its instance profile lacks, before a job waits in vain."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from bake.aws import Aws
from bake.checks.cases import Case
from bake.errors import BakeError, TimedOut
from bake.layout import SERVICE
from bake.run import Run
from bake.ssh import CommandResult, Session
from bake.steps.wait_for_worker import services

# The exit code for an unknown option: an older image has no such check.
_UNKNOWN_OPTION = 2
CANNOT = "Cannot receive"  # the worker's words
# Seconds that a transient problem may last.
RECEIVES = 60


def ask_rights(session: Session) -> CommandResult:
    """Run the worker's own check as its user, with its unit's environment files.

    That writes one object and sends one event, FluxProbe. It can be done while the worker still starts.
    """
    shown = session.run("systemctl", "show", SERVICE, "-p", "ExecStart,User,EnvironmentFiles").stdout
    return session.run(*_command(shown), sudo=True, check=False)


def judge_rights(done: CommandResult, run: Run, case: Case | None = None) -> None:
    """Raise BakeError with every right that the worker's check misses; that says nothing about the image."""
    found: Mapping[str, Any] | None = None
    with suppress(ValueError):
        found = json.loads(done.stdout)
    if not isinstance(found, dict) or "findings" not in found:
        old = done.exit_code == _UNKNOWN_OPTION
        why = "the image's worker is older than the check" if old else done.stderr.strip()[-300:]
        run.progress.note(f"the instance profile's rights were not checked: {why}")
        if case is not None:
            case.does_not_apply = f"the worker on the image can't tell: {why}"
        return
    run.keep("logs/boot-check.rights.json", json.dumps(found, indent=2) + "\n")
    if case is not None:
        _tell(found, case)
    raise_if_missing(found)
    states = [one["state"] for one in found["findings"]]
    text = f"the instance profile: {states.count('holds')} rights and places are there"
    run.progress.note(f"{text}, {states.count('untold')} could not be told")


def _tell(told: Mapping[str, Any], case: Case) -> None:
    for one in told["findings"]:
        where = f" on {one['on']}" if one["on"] else ""
        wanted = "may be missing" if one["optional"] else "holds"
        case(
            f"{one['what']}{where} {wanted}",
            f"{one['state']}: {one['why']}",
            "flux-worker check --aws --write",
        )


def check_receives(session: Session, aws: Aws) -> str:
    """Return what the worker says of itself; of several workers, the first.

    Raises BakeError if one says that it cannot receive jobs, which only its own calls can show.
    """

    def look() -> str | None:
        texts = [one.get("StatusText", "") for one in services(session)]
        said.append(next((text for text in texts if text.startswith(CANNOT)), texts[0]))
        return None if said[-1].startswith(CANNOT) else said[-1] or "nothing is said"

    said: list[str] = []
    try:
        return aws.wait("the worker to receive jobs", look, timeout=RECEIVES)
    except TimedOut as error:
        raise BakeError(
            f"the worker is up, and takes no job: {said[-1]}",
            hint="may its instance profile use the queue, bucket and bus named bake-*?",
        ) from error


def raise_if_missing(found: Mapping[str, Any]) -> None:
    """Raise BakeError if the worker's report names a missing right that is not optional."""
    missing = [one for one in found["findings"] if one["state"] == "missing" and not one["optional"]]
    if not missing:
        return
    lines = [f"  {one['what']}{' on ' + one['on'] if one['on'] else ''}: {one['why']}" for one in missing]
    if found["statements"]:
        lines += [f"add to the policy of {found['identity']}:", json.dumps(found["statements"], indent=2)]
    raise BakeError("\n".join(["the worker is up, and its instance profile lacks what it needs:", *lines]))


def _command(shown: str) -> list[str]:
    """Build the check's command from the worker's unit, as `systemctl show` prints it."""
    command = re.search(r"^ExecStart=.*?path=(\S+) ;", shown, re.M)
    user = re.search(r"^User=(\S+)$", shown, re.M)
    if not command or not user:
        raise BakeError(f"the worker's unit has no command or no user:\n{shown.strip()}")
    files = re.findall(r"^EnvironmentFiles=(\S+) \(ignore_errors=(yes|no)\)$", shown, re.M)
    properties = [f"User={user[1]}"]
    properties += [f"EnvironmentFile={'-' if ignore == 'yes' else ''}{file}" for file, ignore in files]
    unit = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect"]
    unit += [f"--property={one}" for one in properties]
    return [*unit, command[1], "check", "--aws", "--write", "--json"]
