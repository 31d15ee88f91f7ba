"""Ask what AWS would refuse later: the launch, the way out of the subnet, rights, the credentials' end.

Nothing is created, and a question without an answer fails nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from bake.account.answers import Unanswered
from bake.account.credentials import Credentials, ask_credentials
from bake.account.images import BaseFacts
from bake.account.launches import LaunchAnswer, ask_launches
from bake.account.network import TEMPORARY, Group, InstanceProfile, Subnet
from bake.account.rights import BothRights, ask_rights
from bake.account.routes import Routes, ask_routes
from bake.aws import Aws
from bake.background import start
from bake.profile import Profile


@dataclass(frozen=True)
class PreflightFacts:
    """The answers: launches by instance type. Empty or None where something that they need is not there."""

    launches: Mapping[str, LaunchAnswer | Unanswered] = field(default_factory=dict)
    routes: Routes | Unanswered | None = None
    rights: BothRights = field(default_factory=BothRights)
    credentials: Credentials | None = None


@dataclass(frozen=True)
class Before:
    """The questions whose answers these questions need."""

    base: Future[BaseFacts]
    subnet: Future[Subnet | None]
    group: Future[Group | None]
    instance_profile: Future[InstanceProfile | Unanswered | None]


def ask_preflight(profile: Profile, aws: Aws, before: Before) -> PreflightFacts:
    """Ask side by side, each as soon as what it needs is known."""
    routes = start(lambda: _routes(profile, aws, before.subnet.result()))
    rights = start(lambda: ask_rights(profile, aws, lambda: _role(before.instance_profile.result())))
    launches = start(lambda: _launches(profile, aws, before))
    return PreflightFacts(launches.result(), routes.result(), rights.result(), ask_credentials(aws))


def _routes(profile: Profile, aws: Aws, subnet: Subnet | None) -> Routes | Unanswered | None:
    if subnet is None or subnet.vpc is None:
        return None
    return ask_routes(profile.builder.subnet, subnet.vpc, aws)


def _role(found: InstanceProfile | Unanswered | None) -> str | Unanswered | None:
    return found.role if isinstance(found, InstanceProfile) else found


def _launches(profile: Profile, aws: Aws, before: Before) -> Mapping[str, LaunchAnswer | Unanswered]:
    """What is not there is said by itself: EC2 would say it once more."""
    needed: list[Callable[[], object]] = [before.subnet.result]
    needed += [] if profile.builder.security_group == TEMPORARY else [before.group.result]
    base = before.base.result().ami
    if base is None or any(one() is None for one in needed) or before.instance_profile.result() is None:
        return {}
    return ask_launches(profile, aws, base)
