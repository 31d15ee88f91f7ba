"""Which profiles are baked; all that is wrong with them is told at once, before anything starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bake.errors import UsageError

if TYPE_CHECKING:
    from bake.profile import Profile, Variables
    from bake.request import BakeRequest


@dataclass(frozen=True)
class Selection:
    """The profiles to bake, in their order, and why others of the folder are left out."""

    names: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)


def pick(request: BakeRequest, profiles: tuple[str, ...], *, everything: bool) -> Selection:
    """Read the profiles that are named, or all of the folder; `request` is that of any of them.

    No secret is read and AWS is not asked. Raises UsageError with every problem of every profile.
    """
    from bake import profile as loading
    from bake.planning.plan import unbakeable

    loading.require_folder(request.directory)
    names = _all(request) if everything else profiles
    if not names:
        raise UsageError(f"there are no profiles in {request.directory.absolute()}", hint=loading.NO_PROFILES)
    loaded = _load(request, names)
    wrong = {name: why for name, one in loaded.items() if (why := unbakeable(one)) is not None}
    if wrong and not everything:
        raise UsageError("\n".join(f"{name}: {why}" for name, why in wrong.items()) + NOTHING)
    left = tuple(name for name in names if name not in wrong)
    if not left:
        raise UsageError(
            f"no profile in {request.directory.absolute()} can be baked"
            + "".join(f"\n{name}: {why}" for name, why in wrong.items())
        )
    return Selection(left, wrong)


NOTHING = "\nnothing was started"


def _all(request: BakeRequest) -> tuple[str, ...]:
    from bake.profile import names

    return tuple(names(request.directory))


def _load(request: BakeRequest, names: tuple[str, ...]) -> dict[str, Profile]:
    """The profiles by name; a UsageError has what is wrong with any of them, and each hint once."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    messages = [f"--profile {name} is given more than once" for name in twice]
    hints: dict[str, None] = {}
    loaded = {}
    variables = _variables(request)
    for name in dict.fromkeys(names):
        try:
            loaded[name] = _load_one(replace(request, profile=name), variables)
        except UsageError as error:
            messages += [line for line in error.message.splitlines() if line not in messages]
            hints |= {error.hint: None} if error.hint else {}
    if messages:
        raise UsageError("\n".join(messages) + NOTHING, hint="\n".join(hints) or None)
    return loaded


def _variables(request: BakeRequest) -> Variables:
    """Those of the bakes; in a rehearsal examples stand for what the local cloud is going to say."""
    from bake import profile as loading
    from bake.localcloud import EXAMPLES, NOT_REHEARSED

    found = loading.environment(request.env_file)
    if request.rehearsal:
        return found.overlaid({**NOT_REHEARSED, **EXAMPLES}, "an example")
    return found


def _load_one(request: BakeRequest, variables: Variables) -> Profile:
    from bake import profile as loading
    from bake.agreement import lockfile
    from bake.localcloud import EXAMPLES

    found = loading.load(
        request.profile, request.directory, variables, lambda name, key: EXAMPLES["HF_TOKEN"]
    )
    lockfile.read(request.lock)
    return found
