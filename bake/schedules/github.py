"""A workflow of GitHub Actions that bakes on a schedule."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from bake.errors import UsageError
from bake.profile.variables import REFERENCE
from bake.schedules.definition import Definition, Scheduled, Variable, Written, outside
from bake.schedules.rendering import render

HOSTED = "ubuntu-24.04"
# https://docs.github.com/en/actions/reference/limits
HOSTED_MINUTES = 6 * 60
OFTEN = 5  # minutes between two starts, at least
# https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
SESSION_MINUTES = 12 * 60
ROLE = re.compile(r"arn:[a-z-]+:iam::\d{12}:role/[\w+=,.@/-]{1,512}", re.ASCII)
LABELS = re.compile(r"[\w.-]+(,[\w.-]+)*", re.ASCII)


def write(definition: Definition) -> Written:
    """The workflow. UsageError, with all of it at once, for what can't work on its runner."""
    runner = definition.option("runner") or HOSTED
    role = definition.option("role")
    if problems := list(_problems(definition, runner, role)):
        raise UsageError("\n".join(problems), hint=HINT)
    text = render(
        "github.yml.j2",
        name=definition.name,
        cron=definition.cron,
        profiles=[one.name for one in definition.profiles],
        runner=runner if "," not in runner else f"[{runner.replace(',', ', ')}]",
        minutes=definition.minutes,
        role=role or "${{ vars.BAKE_ROLE_ARN }}",
        region=region(definition),
        variables=[(one.name, _value(one)) for one in definition.variables],
        public=[(one.name, _value(one)) for one in definition.variables if not one.secret],
        directory=definition.directory,
        attest=definition.option("attest") == "yes",
    )
    file = Path(".github/workflows") / f"bake-{definition.name}.yml"
    return Written({file: text}, tuple(_next(definition, role)), tuple(_notes(definition, runner)))


HINT = "name a runner of your own in the network with --runner LABEL, or write another kind with --as"


def region(definition: Definition) -> str:
    """The region of the step that gets credentials: the worker's, which `AWS_REGION` is to go on naming."""
    return REFERENCE.sub(r"${{ vars.\1 }}", definition.profiles[0].written("worker", "region"))


def _value(variable: Variable) -> str:
    return f"${{{{ {'secrets' if variable.secret else 'vars'}.{variable.name} }}}}"


def _problems(definition: Definition, runner: str, role: str | None) -> Iterator[str]:
    hosted, minutes = runner == HOSTED, definition.minutes
    if wrong := outside(definition.directory):
        yield wrong
    if definition.rehearsal:
        yield "--rehearse: a rehearsal needs root on the runner; `bake init --ci github` writes one"
    if not LABELS.fullmatch(runner):
        yield f"--runner {runner!r} is no label, and no list of labels with commas"
    if role is not None and not ROLE.fullmatch(role):
        yield f"--role {role!r} is no ARN of a role"
    if any(later - one < OFTEN for one, later in pairwise(definition.cron.minutes)):
        yield f"--cron {definition.cron.text!r}: GitHub starts a workflow every {OFTEN} minutes at most"
    if minutes > SESSION_MINUTES:
        yield f"a bake may take {minutes} min, and a role's session lasts 12 h at most"
    elif hosted and minutes > HOSTED_MINUTES:
        yield f"a bake may take {minutes} min, and a job on a hosted runner lasts 6 h at most"
    if hosted:
        yield from (problem for one in definition.profiles for problem in _unreachable(one))


def _unreachable(one: Scheduled) -> Iterator[str]:
    """Why a hosted runner, whose address is another one each time, can't log in to the builder."""
    builder = one.profile.builder
    if builder.proxy_command is not None:
        return
    if builder.address == "private":
        yield (
            f"{one.name}: builder.address is private, and a hosted runner can't reach a private subnet "
            "without builder.proxy_command"
        )
    elif builder.ssh_from is not None and not builder.ssh_from.endswith("/0"):
        yield (
            f"{one.name}: builder.ssh_from lets in {builder.ssh_from}, and a hosted runner has another "
            "address each time; builder.proxy_command leads in without one"
        )


def _notes(definition: Definition, runner: str) -> Iterator[str]:
    for one in definition.profiles:
        builder = one.profile.builder
        if runner == HOSTED and builder.ssh_from is None and builder.proxy_command is None:
            yield (
                f"{one.name}: builder.security_group must let in port 22 from a hosted runner, whose address "
                "is another one each time, and builder.subnet must give public addresses"
            )
    yield (
        "GitHub starts schedules late at busy times, from the default branch only, and stops them in a "
        "public repository after 60 days without activity; a time that the clock skips comes at the next "
        "valid one"
    )
    yield (
        "GitHub waits 10 s after a cancelled job's SIGINT, then kills it: what bake could not remove by then "
        "ends with its lease, and bake sweep removes it"
    )


def _next(definition: Definition, role: str | None) -> Iterator[str]:
    seconds = definition.minutes * 60
    if role is None:
        yield "set the variable BAKE_ROLE_ARN: the role that bakes (docs/schedules.md)"
    yield f"let its session last: aws iam update-role --role-name NAME --max-session-duration {seconds}"
    yield "make the environment `bake` of the repository, and let only the default branch use it"
    yield "set AMI_BAKE_WHEEL and AMI_BAKE_SHA256: the URL of bake's wheel, and its sha256"
    for kind, secret in (("variables", False), ("secrets", True)):
        if names := [one.name for one in definition.variables if one.secret is secret]:
            yield f"set the {kind} of that environment: {', '.join(names)}"
