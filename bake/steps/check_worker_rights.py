"""Let the booted worker say what its instance profile lacks, before a job would wait for it in vain."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from bake.aws import Aws
from bake.errors import BakeError, TimedOut
from bake.layout import SERVICE
from bake.run import Run
from bake.ssh import CommandResult, Session
from bake.steps.wait_for_worker import service

# What a command line says that it does not understand: an image of before there was such a check.
_UNKNOWN_OPTION = 2
CANNOT = "Cannot receive"  # the worker's words
# Seconds in which trouble that passes is over.
RECEIVES = 60


def check_rights(session: Session, run: Run) -> None:
    """Raise BakeError with every right that is missing; it says nothing about the image.

    The worker's own command is run as its user and with its unit's environment files. It writes one object
    and sends one event, FluxProbe.
    """
    done = _ask(session)
    found: Mapping[str, Any] | None = None
    with suppress(ValueError):
        found = json.loads(done.stdout)
    if not isinstance(found, dict) or "findings" not in found:
        old = done.exit_code == _UNKNOWN_OPTION
        why = "the image's worker is older than the check" if old else done.stderr.strip()[-300:]
        run.progress.note(f"the instance profile's rights were not checked: {why}")
        return
    run.keep("logs/boot-check.rights.json", json.dumps(found, indent=2) + "\n")
    raise_if_missing(found)
    states = [one["state"] for one in found["findings"]]
    text = f"the instance profile: {states.count('holds')} rights and places are there"
    run.progress.note(f"{text}, {states.count('untold')} could not be told")


def check_receives(session: Session, aws: Aws) -> None:
    """Raise BakeError where the worker says that it cannot receive jobs: no call but its own can tell."""

    def look() -> str | None:
        said.append(service(session).get("StatusText", ""))
        return None if said[-1].startswith(CANNOT) else said[-1] or "nothing is said"

    said: list[str] = []
    try:
        aws.wait("the worker to receive jobs", look, timeout=RECEIVES)
    except TimedOut as error:
        raise BakeError(
            f"the worker is up, and takes no job: {said[-1]}",
            hint="may its instance profile use the queue, bucket and bus named bake-*?",
        ) from error


def raise_if_missing(found: Mapping[str, Any]) -> None:
    """Raise BakeError where the worker's report names something that it can't do without."""
    missing = [one for one in found["findings"] if one["state"] == "missing" and not one["optional"]]
    if not missing:
        return
    lines = [f"  {one['what']}{' on ' + one['on'] if one['on'] else ''}: {one['why']}" for one in missing]
    if found["statements"]:
        lines += [f"add to the policy of {found['identity']}:", json.dumps(found["statements"], indent=2)]
    raise BakeError("\n".join(["the worker is up, and its instance profile lacks what it needs:", *lines]))


def _ask(session: Session) -> CommandResult:
    shown = session.run("systemctl", "show", SERVICE, "-p", "ExecStart,User,EnvironmentFiles").stdout
    return session.run(*_command(shown), sudo=True, check=False)


def _command(shown: str) -> list[str]:
    """The check in a unit of its own, of what `systemctl show` says of the worker's."""
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
