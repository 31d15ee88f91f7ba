"""A builder as the bake has it just before `verify`, to be checked and broken."""

from __future__ import annotations

import dataclasses
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bake import checks
from bake.aws import Aws
from bake.checks import Expectations, Report
from bake.planning.plan import Plan
from bake.run import Run
from bake.ssh import Session
from bake.steps import prefetch, provision
from bake.steps.launch import Instance
from bake.steps.record_trace import record_trace
from bake.steps.verify import expectations
from bake.undo import Undo

if TYPE_CHECKING:
    from tests.conftest import Machine


@dataclass(frozen=True)
class Builder:
    """A provisioned machine, and what is expected of it."""

    plan: Plan
    aws: Aws
    run: Run
    instance: Instance
    session: Session
    expect: Expectations

    def check(self, select: str | None = None, **expect: object) -> Report:
        """Run the checks, all of them unless `select` narrows it."""
        return self.check_for(dataclasses.replace(self.expect, **expect), select)  # type: ignore[arg-type]

    def check_for(self, expect: Expectations, select: str | None = None) -> Report:
        """Run the checks with other expectations."""
        with tempfile.TemporaryDirectory() as folder:
            return checks.run(self.session, expect, Path(folder, "log"), select=select)

    def root(self, *lines: str) -> str:
        """Run a bash script as root. It goes in by stdin: sudo would log it, a seeded token too.

        Set are SNAPSHOT and BLOBS (folders of the cache), BLOB (the name of one), PY (such as `python3.11`)
        and TOKEN.
        """
        names = {
            "SNAPSHOT": f"{self.expect.repo_dir}/snapshots/{self.expect.revision}",
            "BLOBS": f"{self.expect.repo_dir}/blobs",
            "BLOB": self.expect.digests["vae/diffusion_pytorch_model.safetensors"],
            "PY": f"python{self.expect.python}",
            "TOKEN": self.expect.token or "",
        }
        settings = [f"{name}={shlex.quote(value)}" for name, value in names.items()]
        script = "\n".join([*settings, *lines]).encode()
        return self.session.run("bash", "-euo", "pipefail", "-s", stdin=script, sudo=True).stdout


def provisioned(machine: Machine) -> Builder:
    """Install the worker and fetch the weights; the machine is the caller's."""
    plan, run, session = machine.plan, machine.run, machine.session
    provision.upload(session, plan, run)
    provision.install_tools(session, plan, machine.aws, run)
    download = prefetch.start(session, plan, machine.aws, run, Undo(), machine.instance)
    provision.run_scripts(session, run, download.check)
    download.wait()
    record_trace(session, plan, run)
    expect = expectations(plan, machine.aws, machine.instance)
    return Builder(plan, machine.aws, run, machine.instance, session, expect)


def red(report: Report) -> dict[str, str]:
    """The checks that stand in the way, with their reasons."""
    return {check.id: check.reason for check in report.red}
