"""How one report differs from another: what is on the image, the checks, the time, the cost.

Durations and costs differ from run to run. A duration is listed where it differs by ten seconds and by a
fifth, a cost by five cents and by a tenth: less is noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bake.checks.inventory import Inventory
from bake.checks.result import Check, Waiver
from bake.report.changes import NOT_COMPARED, changes, compared
from bake.report.model import Change, Changes, ImageFacts, Report, Volume, Weights

SECONDS, SHARE_OF_TIME = 10.0, 0.2
DOLLARS, SHARE_OF_COST = 0.05, 0.1
# An inventory of the disk that became the image tells more than one of an instance that has booted from it.
MOMENTS = ("sealed", "booted", "base")


def difference(a: Report, b: Report) -> Changes:
    """Everything that differs between two reports, most important kinds first. `meant` says nothing here."""
    found: list[Change] = [
        *compared("run", run(a), run(b)),
        *compared("image", image(a), image(b)),
        *on_the_image(a, b),
        *compared("weight", weights(a.weights), weights(b.weights)),
        *compared("check", checks(a.checks), checks(b.checks)),
        *compared("waiver", waivers(a.waivers), waivers(b.waivers)),
        *vulnerabilities(a, b),
        *compared("time", *noticed(times(a), times(b), SECONDS, SHARE_OF_TIME, "{:.0f} s")),
        *compared("cost", *noticed(costs(a), costs(b), DOLLARS, SHARE_OF_COST, "${:.2f}")),
    ]
    return Changes(before=called(a), after=called(b), changes=tuple(found))


def called(report: Report) -> str:
    """What people call a report: by its image, or else by its run; a rehearsal says so."""
    name = report.image.id if report.image else f"run {report.run.id}"
    return f"{name} (rehearsal)" if report.venue.name == "REHEARSAL" else name


def on_the_image(a: Report, b: Report) -> Iterator[Change]:
    """What two images hold, by inventories of the same moment where both have one."""
    before, after = inventories(a), inventories(b)
    for moment in MOMENTS:
        if moment in before and moment in after:
            yield from changes(before[moment], after[moment])
            return
    if before or after:
        told = (", ".join(them) or None for them in (before, after))
        yield Change(kind="inventory", name=NOT_COMPARED, before=next(told), after=next(told))


def inventories(report: Report) -> dict[str, Inventory]:
    """Moment -> inventory."""
    return {one.moment: one for one in report.inventories}


def run(report: Report) -> dict[str, str]:
    """What a bake was asked for, and what came of it."""
    facts = {
        "venue": report.venue.name,
        "verdict": report.verdict.state,
        "profile": report.run.profile,
        "plan": report.run.plan,
        "bake": report.run.bake_version,
        "account": report.run.account,
        "region": report.run.region,
        "operator": report.run.operator,
    }
    return {name: value for name, value in facts.items() if value}


def image(report: Report) -> dict[str, str]:
    """What EC2 says of the image, and what it was made from."""
    facts = _of_ami(report.image) if report.image else {}
    if report.base:
        facts["base AMI"] = f"{report.base.id} ({report.base.name})"
    return {name: value for name, value in facts.items() if value}


def _of_ami(facts: ImageFacts) -> dict[str, str | None]:
    return {
        "architecture": facts.architecture,
        "boot mode": facts.boot_mode,
        "IMDS": facts.imds_support,
        "virtualization": facts.virtualization,
        "public": {True: "yes", False: "no", None: None}[facts.public],
        "may be launched by": ", ".join(sorted(facts.launch_permissions)),
        **{f"volume {one.device}": volume(one) for one in facts.volumes},
    }


def volume(one: Volume) -> str:
    """Size, type and encryption of a volume."""
    encrypted = {True: "encrypted", False: "not encrypted", None: "encryption not known"}[one.encrypted]
    return f"{one.size_gib} GiB {one.type}, {encrypted}" + (f" by {one.kms_key}" if one.kms_key else "")


def weights(found: Weights | None) -> dict[str, str]:
    """The model and each of its files."""
    if found is None:
        return {}
    facts = {"repo": found.repo, "revision": found.revision, "precision": found.precision}
    files = {f"file {one.path}": f"{one.hash}, {one.bytes} bytes" for one in found.files}
    return {**facts, "licence": found.licence, **files}


def checks(found: tuple[Check, ...]) -> dict[str, str]:
    """Check and moment -> outcome. That one fails for another reason than before is no difference."""
    return {f"{one.id} ({one.moment})": one.outcome for one in found}


def waivers(found: tuple[Waiver, ...]) -> dict[str, str]:
    """Check -> until when it is waived, by whom and why."""
    return {one.check: f"until {one.until}, approved by {one.approved_by}: {one.reason}" for one in found}


def vulnerabilities(a: Report, b: Report) -> Iterator[Change]:
    """Known vulnerabilities that came or went, where both were scanned."""
    if a.scan is None or b.scan is None:
        return
    told = (
        {f"{one.id} {one.package}": one.severity for one in scan.vulnerabilities} for scan in (a.scan, b.scan)
    )
    yield from compared("vulnerability", next(told), next(told))


def times(report: Report) -> dict[str, float]:
    """Seconds of each step, over all attempts; until the worker was ready, and of the whole cold start."""
    found: dict[str, float] = {}
    for span in report.timeline:
        name = span.name if span.lane == "bake" else f"{span.name} (on the builder)"
        found[name] = found.get(name, 0.0) + span.seconds
    ready = [one.ready_seconds for one in report.pictures if one.ready_seconds is not None]
    start = report.cold_start.seconds if report.cold_start else None
    found |= {"until READY": ready[0]} if ready else {}
    return found | ({"cold start": start} if start is not None else {})


def costs(report: Report) -> dict[str, float]:
    """Dollars, as far as they are known."""
    if report.cost is None:
        return {}
    facts = {"of the run": report.cost.dollars, "of the AMI, a month": report.cost.kept_month}
    return {name: value for name, value in facts.items() if value is not None}


def noticed(
    before: Mapping[str, float], after: Mapping[str, float], least: float, share: float, shown: str
) -> tuple[dict[str, str], dict[str, str]]:
    """The values as text, without those that differ by less than `least` or than that share of the larger."""
    names = [
        name
        for name in {*before, *after}
        if (apart := abs(after.get(name, 0.0) - before.get(name, 0.0))) >= least
        and apart >= share * max(after.get(name, 0.0), before.get(name, 0.0))
    ]
    told = ({name: shown.format(one[name]) for name in names if name in one} for one in (before, after))
    return next(told), next(told)
