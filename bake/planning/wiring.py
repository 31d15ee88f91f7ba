"""Check the worker's queue, bucket and bus, the buckets of mirror and reports, and the bus of notices."""

from __future__ import annotations

from bake.account.answers import Unanswered
from bake.account.facts import AccountFacts
from bake.account.wiring import Bus, bus_region, queue_region
from bake.planning.findings import Findings
from bake.profile import Profile
from bake.weights.mirror import Place


def check(profile: Profile, facts: AccountFacts, findings: Findings) -> None:
    """Check what the profile names. The instance's user data names the rest later."""
    worker = profile.worker
    if worker.queue is not None:
        _check_queue(worker.queue, facts, findings)
    if worker.bucket is not None:
        _check_bucket(worker.bucket, facts, findings)
    if worker.bus is not None:
        _check_bus("worker.bus", worker.bus, facts.wiring.bus, facts, findings)
    if profile.notices is not None:
        _check_bus("notices", profile.notices, facts.wiring.notices, facts, findings)
    _check_reports(profile, facts, findings)


def _check_queue(url: str, facts: AccountFacts, findings: Findings) -> None:
    region, named = facts.worker_region, queue_region(url)
    if named and named != region:
        findings.problem("worker.queue", f"the queue is in {named}, but AWS_REGION is {region}")
        return
    found = findings.required("worker.queue", f"queue {url} in {region}", facts.wiring.queue)
    if found is None:
        return
    findings.confirm(f"the queue {url} is in {region}")
    if not found.dead_letters:
        findings.warn(f"the queue {url} has no dead-letter queue: a job that fails is tried again for days")


def _check_bucket(bucket: str, facts: AccountFacts, findings: Findings) -> None:
    found = findings.required("worker.bucket", f"bucket {bucket}", facts.wiring.bucket)
    if found is None:
        return
    findings.confirm(f"the bucket {bucket} is in {found.region}")
    if found.region != facts.worker_region:
        findings.warn(
            f"the bucket {bucket} is in {found.region}, the queue and the bus are in {facts.worker_region}"
        )


def _check_bus(
    path: str, bus: str, found: Bus | Unanswered | None, facts: AccountFacts, findings: Findings
) -> None:
    region, named = facts.worker_region, bus_region(bus)
    if named and named != region:
        findings.problem(path, f"the bus is in {named}, but AWS_REGION is {region}")
    elif findings.required(path, f"event bus {bus} in {region}", found) is not None:
        findings.confirm(f"the event bus {bus} is in {region}")


def check_mirror(profile: Profile, facts: AccountFacts, findings: Findings) -> None:
    """Check the bucket of `weights.mirror`, but not its content, which the bake checks when it needs it."""
    if profile.weights.mirror is None:
        return
    bucket = Place.of(profile.weights.mirror).bucket
    found = findings.required("weights.mirror", f"bucket {bucket}", facts.wiring.mirror)
    if found is None:
        return
    findings.confirm(f"the mirror's bucket {bucket} is in {found.region}")
    if found.region != facts.region:
        findings.warn(
            f"the mirror's bucket {bucket} is in {found.region}, the builder in {facts.region}: a "
            "transfer between regions costs money and time"
        )


def _check_reports(profile: Profile, facts: AccountFacts, findings: Findings) -> None:
    """Check the bucket of `reports`: after a bake of hours would be too late to hear that there is none."""
    if profile.reports is None:
        return
    bucket = Place.of(profile.reports).bucket
    if (found := findings.required("reports", f"bucket {bucket}", facts.wiring.reports)) is not None:
        findings.confirm(f"the reports' bucket {bucket} is in {found.region}")
