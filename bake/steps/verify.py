"""Compare the provisioned machine with the plan, by testinfra over the bake's own connection."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bake import background, checks, interrupt
from bake.aws import Aws
from bake.checks import Expectations, Report
from bake.checks.baseline import Baseline
from bake.checks.cases import keep
from bake.checks.waivers import stale, waive
from bake.errors import NotVerified
from bake.planning.plan import Plan
from bake.run import Run
from bake.ssh import Session
from bake.steps.launch import Instance
from bake.steps.record_inventory import record_inventory
from bake.updates.held import HELD

SHOWN = 6  # findings of the base AMI that are printed
# Reports are written here first, so that a full disk of the controller fails no machine.
MEMORY = Path("/dev/shm")  # noqa: S108
NOTHING_KNOWN = Baseline()
EXPECTED = "facts/expectations.json"


def verify(
    session: Session, plan: Plan, aws: Aws, run: Run, instance: Instance, baseline: Baseline
) -> Report:
    """Run every check; raises NotVerified with those that failed. Their results are kept either way."""
    with run.progress.step("verify"):
        expect = expectations(plan, aws, instance, baseline)
        run.keep(EXPECTED, expect.as_json())
        recorded = background.start(lambda: record_inventory(session, plan, run, "sealed"))
        report = run_checks(session, plan, aws, run, expect, "verify")
        passed, others = report.count("passed"), len(report.checks) - report.count("passed")
        run.progress.note(
            f"{passed} of {len(report.checks)} checks passed{_others(report) if others else ''}"
        )
        if report.base:
            run.progress.note(f"the base's own, not of this bake: {_base(report)}")
        recorded.result()
        if not report.ok:
            raise NotVerified(
                "\n".join(told(report)), hint=f"the whole report: {run.directory / 'report.html'}"
            )
        return report


def run_checks(session: Session, plan: Plan, aws: Aws, run: Run, expect: Expectations, name: str) -> Report:
    """Run the checks of a moment, apply the waivers, and keep the results as facts."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as scratch:
        log = Path(scratch, "log")
        try:
            ran = checks.run(session, expect, log, files=plan.verify.files)
        finally:
            if log.exists():
                run.keep(f"logs/{name}.log", log.read_text(encoding="utf-8"))
    interrupt.check()
    waivers = plan.verify.waivers
    found = waive(ran.checks, waivers, aws.now().date())
    keep(run, expect.moment, name, found)
    for text in stale(found, waivers):
        run.progress.note(text)
    return Report(found, ran.seconds)


def _others(report: Report) -> str:
    kinds = ("failed", "not run", "waived", "not applicable")
    return "".join(f", {report.count(kind)} {kind}" for kind in kinds if report.count(kind))


def told(report: Report) -> list[str]:
    """The checks that stand in the way, for an error."""
    lines = [f"{len(report.red)} of {len(report.checks)} checks did not pass:"]
    for check in report.red:
        lines.append(f"  {check.id}: {check.about.title}")
        lines += [f"    {line}" for line in check.reason.strip().splitlines()[:SHOWN] or ["no message"]]
        lines.append(f"    what to do: {check.about.remedy}")
    return lines


def _base(report: Report) -> str:
    """Summarize the base AMI's own findings, which fail no check; the report lists all."""
    more = len(report.base) - SHOWN
    return "; ".join(report.base[:SHOWN]) + (f"; {more} more in the report" if more > 0 else "")


def expectations(plan: Plan, aws: Aws, instance: Instance, baseline: Baseline | None = None) -> Expectations:
    """Collect what the checks expect: plan, base, and the root volume as DescribeVolumes reports it."""
    volume = aws.ec2.describe_volumes(VolumeIds=[instance.root_volume])["Volumes"][0]
    token = plan.profile.weights.token.get_secret_value()
    found = (volume["Size"], str(volume["VolumeType"]))
    return expected(plan, found, token, baseline or Baseline())


def expected(
    plan: Plan, volume: tuple[int, str] | None, token: str | None, baseline: Baseline = NOTHING_KNOWN
) -> Expectations:
    """What a plan expects. `volume` is the root volume's size in GiB and its type, if AWS was asked."""
    profile, lock = plan.profile, plan.weights.lock
    assert lock is not None  # what is not locked is not baked
    kept = lock.files if profile.weights.keep_source else {}
    return Expectations(
        os_ids=plan.system.os_ids,
        packages=plan.system.packages,
        system_python=plan.system.python,
        user=plan.system.user,
        home=plan.system.home,
        cache_dir=plan.weights.cache,
        repo=profile.weights.repo,
        revision=profile.weights.revision,
        files={path: file.bytes for path, file in kept.items()},
        digests={path: file.digest or "" for path, file in kept.items()},
        root_volume_gib=profile.root_volume.size_gib,
        root_volume_type=profile.root_volume.type,
        volume_gib=volume and volume[0],
        volume_type=volume and volume[1],
        python=plan.sources.python,
        region=profile.builder.region,
        accelerator=plan.verify.drivers.accelerator,
        backend=plan.verify.drivers.backend,
        drawn_on=plan.verify.drivers.drawn_on,
        device=plan.verify.drivers.on_builder,
        cuda=plan.verify.drivers.cuda,
        driver_minimum=plan.provision.settings["BAKE_DRIVER_MINIMUM"] or None,
        neuron=plan.verify.drivers.packages,
        precision=profile.weights.precision,
        removed=profile.base.remove,
        updates=profile.base.updates,
        not_updated=HELD,
        neuron_sizes=plan.verify.drivers.compiled,
        compiled_sizes=plan.verify.drivers.compiles,
        baseline=baseline,
        token=token,
    )
