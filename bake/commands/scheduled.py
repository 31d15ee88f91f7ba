"""The profiles of a schedule: as they are, as they are written, and how long a bake of them may take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bake.errors import BakeError, UsageError

if TYPE_CHECKING:
    from bake.profile import Profile, Variables
    from bake.request import BakeRequest
    from bake.schedules.definition import Scheduled

# Of a rehearsal, which is planned on the local cloud only; one takes a few minutes.
REHEARSAL_MINUTES = 120
WITHOUT_AWS = "--hours N says how long a bake may take, without asking AWS"
APPROVE, LOCK = "bake approve --profile", "bake lock --profile"


def scheduled(
    obj: dict[str, Any], names: tuple[str, ...], *, rehearsal: bool, minutes: int | None, exactly: bool
) -> tuple[Scheduled, ...]:
    """The profiles by name; UsageError with what is wrong with any of them.

    Without `minutes` AWS is asked for their plans. With `exactly` each variable must be set here; otherwise
    examples stand for those that are not.
    """
    from bake.request import BakeRequest

    found, problems, hints = [], [], []
    for name in names:
        request = BakeRequest(name, obj["directory"], obj["env_file"], rehearsal)
        try:
            found.append(_one(request, minutes, exactly=exactly))
        except UsageError as error:
            problems.append(error.message)
            hints += [error.hint] if error.hint and error.hint not in hints else []
    if problems:
        raise UsageError("\n".join(problems), hint="\n".join(hints) or None)
    return tuple(found)


def _one(request: BakeRequest, minutes: int | None, *, exactly: bool) -> Scheduled:
    from bake import profile as profiles
    from bake.profile.loading import read
    from bake.schedules.definition import Scheduled, check_name, variables_of

    check_name(request.profile)
    values = profiles.environment(request.env_file)
    document, _ = read(request.profile, request.directory)
    profile, secrets = _load(request, values, exactly=exactly)
    return Scheduled(
        profile,
        document.value,
        variables_of(document.value, values),
        minutes or _minutes(request),
        secrets,
        tuple(_problems(request, profile)),
    )


def _load(request: BakeRequest, values: Variables, *, exactly: bool) -> tuple[Profile, tuple[str, ...]]:
    """The profile, and the names of its secrets, none of which is read."""
    from bake import profile as profiles
    from bake.localcloud import EXAMPLES

    free = EXAMPLES if not exactly else {"HF_TOKEN": EXAMPLES["HF_TOKEN"]}
    absent = {name: value for name, value in free.items() if not values.get(name)}
    secrets: set[str] = set()

    def read(name: str, key: str) -> str:
        secrets.add(name)
        return EXAMPLES["HF_TOKEN"]

    found = profiles.load(request.profile, request.directory, values.overlaid(absent, "an example"), read)
    return found, tuple(sorted(secrets))


def _minutes(request: BakeRequest) -> int:
    """How long a bake may take, by its plan."""
    from bake import aws_errors
    from bake.progress import Tally
    from bake.request import propose
    from bake.schedules.definition import limit

    if request.rehearsal:
        return REHEARSAL_MINUTES
    try:
        return limit(propose(request, None, Tally()).plan.estimates.seconds)
    except Exception as error:
        told = (error.message, error.hint) if isinstance(error, BakeError) else aws_errors.explain(error)
        if told is None:
            raise
        hints = [hint for hint in (told[1], WITHOUT_AWS) if hint]
        raise UsageError(f"{request.profile}: {told[0]}", hint="\n".join(hints)) from error


def _problems(request: BakeRequest, profile: Profile) -> list[str]:
    """What a bake would refuse now, by the files alone."""
    from bake.agreement import lockfile
    from bake.planning.plan import unbakeable
    from bake.weights import lock as locks

    if (wrong := unbakeable(profile)) is not None:
        raise UsageError(f"{request.profile}: {wrong}")
    if request.rehearsal:
        return []
    held, found = lockfile.read(request.lock), []
    if held.agreement is None:
        found.append(
            f"nothing is agreed, so that a bake ends with 3: bake approve --profile {request.profile}"
        )
    if locks.problem(held.weights, profile.weights):
        found.append(f"its weights are not locked: {LOCK} {request.profile}")
    return found
