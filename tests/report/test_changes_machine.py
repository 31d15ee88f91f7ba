"""What a bake changes on a real machine: all of it is meant, and what somebody else changes is a finding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from bake import layout
from bake.checks.inventory import Inventory, take
from bake.report.meant import Intended, asked, intended, on_machine
from bake.report.model import Change
from bake.ssh import Session
from bake.steps import prefetch, provision
from bake.undo import Undo

if TYPE_CHECKING:
    from tests.conftest import NewMachine

pytestmark = pytest.mark.root


@dataclass(frozen=True)
class Provisioned:
    """A builder as the bake has it before the seal, and what it held before."""

    session: Session
    before: Inventory
    wanted: Intended
    names: tuple[str, ...]
    cache: str

    def root(self, script: str) -> None:
        """Run a bash script as root; `site` is where the worker's Python packages are."""
        site = self.session.run("bash", "-c", f"echo {layout.VENV}/lib/python3*/site-packages").stdout.strip()
        text = f"site={site}\n{script}".encode()
        self.session.run("bash", "-euo", "pipefail", "-s", stdin=text, sudo=True)

    def changed(self) -> list[Change]:
        after, _ = take(self.session, "sealed", cache=self.cache, asked=self.names)
        assert after.incomplete == ()
        return list(on_machine(self.before, after, self.wanted).changes)


@pytest.fixture(scope="module", params=["g6e-ubuntu", "g6e-amazon-linux"])
def builder(request: pytest.FixtureRequest, new_machine: NewMachine) -> Iterator[Provisioned]:
    with new_machine(request.param) as machine:
        plan, run, session = machine.plan, machine.run, machine.session
        settings, cache = plan.provision.settings, plan.weights.cache
        before, _ = take(session, "base", cache=cache, asked=asked(settings))
        provision.upload(session, plan, run)
        provision.install_tools(session, plan, machine.aws, run)
        download = prefetch.start(session, plan, machine.aws, run, Undo(), machine.instance)
        provision.run_scripts(session, run, download.check)
        download.wait()
        lock = plan.sources.requirements.read_text(encoding="utf-8")
        wanted = intended(settings, {layout.VENV: lock})
        yield Provisioned(session, before, wanted, asked(settings), cache)


def test_all_that_a_bake_changes_is_meant(builder: Provisioned) -> None:
    found = builder.changed()
    assert [change for change in found if not change.meant] == []
    names = {change.name for change in found}
    assert {"python torch", "python flux-worker", "flux-worker.service", "torch"} <= names


DEED = """
useradd --uid 4242 eve
echo kernel.sysrq=1 >/etc/sysctl.d/99-eve.conf
printf '[Unit]\\n[Service]\\nExecStart=/bin/true\\n[Install]\\nWantedBy=multi-user.target\\n' \
  >/etc/systemd/system/eve.service
systemctl enable --quiet eve.service
install --mode=4755 /bin/true /usr/local/bin/eve
mkdir "$site/eve-1.dist-info"
printf 'Name: eve\\nVersion: 1\\n' >"$site/eve-1.dist-info/METADATA"
"""
MENDED = """
userdel eve
systemctl disable --quiet eve.service
rm -r /etc/sysctl.d/99-eve.conf /etc/systemd/system/eve.service /usr/local/bin/eve "$site/eve-1.dist-info"
"""


def test_what_somebody_else_changes_is_a_finding(builder: Provisioned) -> None:
    builder.root(DEED)
    try:
        found = builder.changed()
    finally:
        builder.root(MENDED)
    assert {(change.kind, change.name) for change in found if not change.meant} == {
        ("user", "eve"),
        ("group", "eve"),
        ("sysctl", "kernel.sysrq"),
        ("unit", "eve.service"),
        ("setuid", "/usr/local/bin/eve"),
        ("package", "python eve"),
    }
