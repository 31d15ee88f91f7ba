"""Hold the provisioned machine against the plan, by testinfra over the bake's own connection."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bake import checks, interrupt
from bake.aws import Aws
from bake.checks import Expectations, Report
from bake.checks.baseline import Baseline
from bake.errors import NotVerified
from bake.planning.plan import Plan
from bake.run import Run
from bake.ssh import Session
from bake.steps.launch import Instance

# Reports are written here first: a full disk of the run directory fails no machine.
SHOWN = 6  # findings of the base's that are printed
MEMORY = Path("/dev/shm")  # noqa: S108


def verify(
    session: Session, plan: Plan, aws: Aws, run: Run, instance: Instance, baseline: Baseline
) -> Report:
    """Run every check; raises NotVerified that names the failed ones. The JUnit XML is kept either way."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as scratch:
        files = {"junit.xml": Path(scratch, "junit.xml"), "logs/verify.log": Path(scratch, "verify.log")}
        try:
            report = checks.run(session, expectations(plan, aws, instance, baseline), *files.values())
        finally:
            for name, file in files.items():
                if file.exists():
                    run.keep(name, file.read_text(encoding="utf-8"))
    interrupt.check()
    run.progress.note(f"{len(report.checks) - len(report.red)} of {len(report.checks)} checks passed")
    if report.base:
        run.progress.note(f"the base's own, not of this bake: {_base(report)}")
    if not report.ok:
        lines = [f"{len(report.red)} of {len(report.checks)} checks did not pass:"]
        lines += [f"  {check.id}: {check.title}\n    {_first_line(check.message)}" for check in report.red]
        raise NotVerified(
            "\n".join(lines),
            hint=f"the whole report: {run.directory / 'junit.xml'} and {run.logs / 'verify.log'}",
        )
    return report


def _first_line(message: str) -> str:
    return message.strip().splitlines()[0] if message.strip() else "no message"


def _base(report: Report) -> str:
    """What the checks did not fail for, shortly: all of it is in the report."""
    more = len(report.base) - SHOWN
    return "; ".join(report.base[:SHOWN]) + (f"; {more} more in junit.xml" if more > 0 else "")


def expectations(plan: Plan, aws: Aws, instance: Instance, baseline: Baseline | None = None) -> Expectations:
    """What the checks compare with: plan and base, and the root volume as DescribeVolumes reports it."""
    volume = aws.ec2.describe_volumes(VolumeIds=[instance.root_volume])["Volumes"][0]
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
        volume_gib=volume["Size"],
        volume_type=volume["VolumeType"],
        python=plan.sources.python,
        region=profile.builder.region,
        accelerator=plan.verify.drivers.accelerator,
        backend=plan.verify.drivers.backend,
        device=plan.verify.drivers.on_builder,
        cuda=plan.verify.drivers.cuda,
        driver_minimum=plan.provision.settings["BAKE_DRIVER_MINIMUM"] or None,
        neuron=plan.verify.drivers.packages,
        precision=profile.weights.precision,
        removed=profile.base.remove,
        neuron_sizes=plan.verify.drivers.compiled,
        baseline=baseline or Baseline(),
        token=profile.weights.token.get_secret_value(),
    )
