"""Judge what AWS would refuse later: the launch, the way out of the subnet, rights, the credentials' end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bake import interpreter
from bake.account.answers import Unanswered
from bake.account.credentials import Credentials
from bake.account.facts import AccountFacts
from bake.account.network import TEMPORARY
from bake.account.rights import Rights
from bake.account.routes import Route, Routes
from bake.planning import egress, launches, reaching
from bake.planning.findings import Findings
from bake.planning.reaching import Reach
from bake.planning.sources import Sources
from bake.profile import Profile

# Of a snapshot, which takes as long as AWS takes; they take more than half an hour in practice.
SNAPSHOT = timedelta(hours=1)
ROUTES = "https://docs.aws.amazon.com/vpc/latest/userguide/VPC_Internet_Gateway.html"


@dataclass(frozen=True)
class Answer:
    """What AWS was asked without anything being created, and what it said."""

    question: str
    answer: str


def check(profile: Profile, sources: Sources, facts: AccountFacts, findings: Findings) -> tuple[Answer, ...]:
    """Report what would be refused, after all other checks: what one of them has said is not said again."""
    asked = facts.preflight
    rows = [Answer(*row) for row in launches.check(profile, asked.launches, facts, findings)]
    if asked.routes is not None:
        rows.append(Answer("the way out of the subnet", _routes(profile, sources, facts, findings)))
    if facts.network.group is not None:
        rows.append(Answer("port 22", _ingress(profile, facts.network.group.ssh, findings)))
    for who, rights in (("whoever bakes", asked.rights.caller), ("the worker", asked.rights.worker)):
        if rights is not None:
            rows.append(Answer(f"the rights of {who}", _rights(profile, who, rights, findings)))
    return tuple(rows)


def _routes(profile: Profile, sources: Sources, facts: AccountFacts, findings: Findings) -> str:
    """Judge whether the builder reaches what it must; the Hub is always among that."""
    routes, subnet = facts.preflight.routes, facts.network.subnet
    found = findings.answered(f"the routes of {profile.builder.subnet}", routes) if routes else None
    if found is None or subnet is None:
        return "not known"
    reach = Reach.of(profile, sources)
    if reach.ipv6 and found.ipv6 is not None and found.ipv6.active:
        return f"::/0 to {found.ipv6.target}; {_endpoints(found)}"
    needed = _needed(profile, sources)
    if found.ipv4 is None:
        _no_route(profile, found, needed, findings)
        return f"no default route; {_endpoints(found)}"
    route = found.ipv4
    if not route.active:
        findings.problem(
            "builder.subnet",
            f"the default route of {profile.builder.subnet} leads to {route.target}, which is gone",
            *_choices(profile, needed),
        )
    elif route.internet_gateway and not subnet.public:
        _check_public(profile, route, needed, findings)
    address = ", with a public address" if route.internet_gateway and subnet.public else ""
    return f"0.0.0.0/0 to {route.target}{address}; {_endpoints(found)}"


def _endpoints(routes: Routes) -> str:
    if routes.endpoints is None:
        return "endpoints are not known"
    return f"endpoints of {', '.join(routes.endpoints)}" if routes.endpoints else "no endpoints"


def _needed(profile: Profile, sources: Sources) -> str:
    archive = interpreter.read(sources.interpreter)
    return ", ".join(
        host for one in egress.find(profile, sources, archive) if one.always for host in one.hosts
    )


def _choices(profile: Profile, needed: str) -> Iterator[str]:
    """The ways out, for the details of a problem."""
    yield f"the builder must reach {needed}"
    yield f"an internet gateway and public addresses: {reaching.give_public(profile.builder.subnet)}"
    yield "or a NAT gateway or a transit gateway with such a route; or another builder.subnet"
    yield "weights.mirror with an endpoint of S3 saves the large files alone: the Hub is needed in any case"
    yield f"({ROUTES})"


def _no_route(profile: Profile, routes: Routes, needed: str, findings: Findings) -> None:
    where = profile.builder.subnet
    if routes.others:  # some of the hosts may be behind it, as a firewall or a proxy
        others = ", ".join(routes.others)
        findings.warn(
            f"builder.subnet: {where} has no default route, only routes to {others}: the builder must reach "
            f"{needed} through them"
        )
        return
    findings.problem("builder.subnet", f"{where} has no route to the internet", *_choices(profile, needed))


def _check_public(profile: Profile, route: Route, needed: str, findings: Findings) -> None:
    if profile.builder.address == "public":
        return  # said about builder.address
    findings.problem(
        "builder.subnet",
        f"{profile.builder.subnet} leads to the internet by {route.target}, which takes packets of public "
        "addresses alone, and gives its instances none",
        *_choices(profile, needed),
    )


def _ingress(profile: Profile, ssh: bool, findings: Findings) -> str:
    """Warn only: what a VPN, a NAT or a command lets through is not seen here."""
    builder = profile.builder
    if builder.security_group == TEMPORARY:
        return f"open from {builder.ssh_from}, in a group of the bake's own"
    if ssh:
        return f"{builder.security_group} lets somebody in"
    if builder.proxy_command is None:
        findings.warn(
            f"builder.security_group: {builder.security_group} lets nobody in on port 22: name one that "
            "does, or `temporary` with builder.ssh_from"
        )
    return f"{builder.security_group} lets nobody in"


def _rights(profile: Profile, who: str, rights: Rights | Unanswered, findings: Findings) -> str:
    found = findings.answered(f"the rights of {who}, by IAM's simulation", rights)
    if found is None:
        return "not known"
    if not found.denied:
        return f"{found.principal}: all of {found.asked} actions are allowed, by IAM's simulation"
    worker = who == "the worker"
    audience, field = ("worker", "builder.instance_profile: ") if worker else ("caller", "")
    findings.warn(
        f"{field}by IAM's simulation {found.principal} may not {_listed(found.denied)}; it knows no policies "
        f"of resources or sessions: `bake iam --profile {profile.name} --for {audience}` prints the rights"
    )
    return f"{found.principal}: {len(found.denied)} of {found.asked} actions are denied, by IAM's simulation"


def _listed(denied: Sequence[str], most: int = 6) -> str:
    more = f" and {len(denied) - most} more" if len(denied) > most else ""
    return ", ".join(denied[:most]) + more


def check_credentials(
    facts: AccountFacts, seconds: float, findings: Findings
) -> tuple[tuple[Answer, ...], str | None]:
    """Compare the credentials' end with the estimate; what ends before it can be planned, and not baked."""
    found = facts.preflight.credentials
    if found is None:
        return (), None
    if found.kind in ("fixed", "unknown"):
        told, too_short = _session(found, facts.asked, seconds, findings)
    else:
        told = "they have no end" if found.kind == "static" else "renewed as long as that gives new ones"
        too_short = None
    return (Answer("credentials", f"{found.source}: {told}"),), too_short


def _session(
    found: Credentials, asked: datetime, seconds: float, findings: Findings
) -> tuple[str, str | None]:
    """Say when a session ends, and what follows if that is before the bake's end."""
    if found.expires is None:
        what = f"whether the credentials of {found.source} outlive the bake"
        findings.not_checked(what, "nobody says when their session ends")
        return "a session, whose end nobody says", None
    ends, left = asked + timedelta(seconds=seconds), (found.expires - asked) / timedelta(minutes=1)
    told = f"until {found.expires:%Y-%m-%dT%H:%M:%SZ}, and not renewed"
    text = (
        f"the credentials of {found.source} end in {left:.0f} min, and the bake takes {seconds / 60:.0f} min"
    )
    advice = "use a profile of ~/.aws whose role botocore renews, or a longer session"
    if found.expires < ends:
        return told, f"{text} without its snapshot: {advice}"
    if found.expires < ends + SNAPSHOT:
        findings.warn(f"{text} and the time of its snapshot, more than half an hour in practice: {advice}")
    return told, None
