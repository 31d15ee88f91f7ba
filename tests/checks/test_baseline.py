"""Faults of the base AMI fail no check; the same faults made by the bake do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bake import checks
from bake.checks import Report
from bake.checks.baseline import CALLED, Baseline
from bake.steps import record_baseline as step
from bake.steps.verify import expectations

from .seeded_secrets import AWS_KEY, HF_TOKEN, PRIVATE_KEY

if TYPE_CHECKING:
    from tests.conftest import Machine, NewMachine

TOKEN = "hf_" + "ofthebake" * 4
BASE = Baseline(100.0, {"private_keys": {"/opt/a.pem": "644 0:0 aa"}}, ("hf_home",), "salt")


@pytest.mark.parametrize(
    ("kind", "name", "identity"),
    [
        ("private_keys", "/opt/a.pem", "600 0:0 aa"),
        ("private_keys", "/opt/a.pem", "644 0:0 bb"),
        ("private_keys", "/opt/b.pem", "644 0:0 aa"),
        ("aws_keys", "/opt/a.pem", "644 0:0 aa"),
    ],
    ids=["another-mode", "another-content", "another-place", "another-kind"],
)
def test_what_is_not_quite_the_bases_is_the_bakes(kind: str, name: str, identity: str) -> None:
    assert BASE.caused("private_keys", {"/opt/a.pem": "644 0:0 aa"}) == {}
    assert BASE.caused(kind, {name: identity}) == {name: identity}
    assert Baseline().caused(kind, {name: identity}) == {name: identity}


def test_of_what_was_not_recorded_the_time_of_change_decides() -> None:
    found = {"/etc/a": "", "/etc/b": "", "/etc/c": ""}
    assert list(BASE.caused("hf_home", found, {"/etc/a": 99.0, "/etc/b": 100.0})) == ["/etc/b", "/etc/c"]
    # Of what was recorded it does not: a clock may have been set.
    assert BASE.caused("private_keys", {"/opt/b": "x"}, {"/opt/b": 99.0})


def test_nothing_of_a_password_is_kept() -> None:
    base = Baseline(1.0, {"with_password": {"a": "0123abcd", "b": "empty"}}, (), "salt")
    assert base.as_dict()["found"] == {"with_password": {"a": "set", "b": "empty"}}
    assert "salt" not in repr(base) + json.dumps(base.as_dict())


@dataclass(frozen=True)
class Brought:
    """Something that a base brings, how a bake would change it or add to it, and the check that sees it."""

    plant: str
    change: str
    check: str


LISTEN = "import socket, time; s = socket.socket(); s.bind(('0.0.0.0', {0})); s.listen(); time.sleep(9999)"
PORT = (
    'systemd-run -q --unit=port-{0} python3 -c "' + LISTEN + '"; '
    "until (: </dev/tcp/127.0.0.1/{0}) 2>/dev/null; do sleep 0.1; done"
)
FAILED = "systemd-run -q --unit={0} false; until systemctl is-failed -q {0}; do sleep 0.1; done"
BROUGHT = [
    Brought(PORT.format(111), PORT.format(112), "security.only_ssh_listens"),
    Brought(FAILED.format("agent"), FAILED.format("flux-worker-fit"), "system.no_failed_units"),
    Brought("useradd guest; passwd -qd guest", "echo guest:letmein | chpasswd", "users.no_passwords"),
    Brought(
        "echo '/swap1 none swap sw 0 0' >>/etc/fstab",
        "echo '/swap2 none swap sw 0 0' >>/etc/fstab",
        "system.no_swap",
    ),
    Brought(
        "echo '# of the base' >>$LIBRARY/this.py",
        "echo '# of the bake' >>$LIBRARY/this.py",
        "system.system_python_is_untouched",
    ),
    Brought(
        "install -D -m 4755 /usr/bin/env /opt/vendor/collect",
        "install -m 4755 /usr/bin/id /opt/vendor/collect",
        "security.no_new_rights",
    ),
    Brought(
        "echo HF_HOME=/opt/hf >>/etc/environment",
        "echo HF_HOME=/opt/other >>/etc/environment",
        "worker.no_hf_home",
    ),
    Brought(
        f"echo '{PRIVATE_KEY}' >/opt/vendor/test.pem",
        "chmod 666 /opt/vendor/test.pem",
        "security.no_private_keys",
    ),
    Brought(f"echo {AWS_KEY} >/opt/vendor/aws", f"echo {AWS_KEY} >/srv/aws", "security.no_aws_keys"),
    Brought(
        f"echo {HF_TOKEN} >/opt/vendor/hf",
        f"echo {HF_TOKEN}x >/opt/vendor/hf",
        "security.no_other_hf_token",
    ),
    Brought(
        "install -D /dev/null /root/.cache/huggingface/token",
        "install -D /dev/null /root/.cache/huggingface/stored_tokens",
        "security.no_hf_token_file",
    ),
]
SELECT = " or ".join(brought.check.partition(".")[2] for brought in BROUGHT)


@pytest.fixture(scope="module", params=["g6e-ubuntu", "g6e-amazon-linux"])
def machine(request: pytest.FixtureRequest, new_machine: NewMachine) -> Iterator[Machine]:
    """A builder as it was launched: of what the bake installs nothing is there."""
    with new_machine(request.param) as launched:
        yield launched


def check(machine: Machine, base: Baseline, folder: Path, select: str = SELECT) -> Report:
    expect = expectations(machine.plan, machine.aws, machine.instance, base)
    expect = dataclasses.replace(expect, token=TOKEN)
    return checks.run(machine.session, expect, folder / "log", select=select)


def root(machine: Machine, *lines: str) -> None:
    library = 'import sysconfig; print(sysconfig.get_path("stdlib"))'
    script = "\n".join([f"LIBRARY=$(/usr/bin/python3 -c '{library}')", *lines]).encode()
    machine.session.run("bash", "-euo", "pipefail", "-s", stdin=script, sudo=True)


def red(report: Report) -> set[str]:
    return {check.id for check in report.red}


@pytest.mark.root
def test_what_the_base_brought_is_reported_and_what_the_bake_changed_is_red(
    machine: Machine, tmp_path: Path
) -> None:
    clean = step.record_baseline(machine.session, machine.plan, machine.run)
    root(machine, *(brought.plant for brought in BROUGHT))
    base = step.record_baseline(machine.session, machine.plan, machine.run)
    assert (clean.unknown, base.unknown) == ((), ())
    seen = {brought.check for brought in BROUGHT}
    # As if the bake had done all that, on a base without.
    assert red(check(machine, clean, tmp_path)) == seen

    report = check(machine, base, tmp_path)
    assert {check.id: check.reason for check in report.red} == {}
    assert {check.id for check in report.checks if check.base} == seen
    assert "private key /opt/vendor/test.pem" in report.base
    assert any("guest" in note and "without any password" in note for note in machine.run.progress.notes)
    assert any(note.endswith("AWS access key in /opt/vendor/aws") for note in machine.run.progress.notes)
    kept = (machine.run.directory / step.KEPT).read_text()
    assert set(json.loads(kept)["found"]) >= {*CALLED, "users", "authorized_keys"}
    assert "guest" in kept
    assert AWS_KEY not in kept and HF_TOKEN not in kept and PRIVATE_KEY not in kept

    root(machine, *(brought.change for brought in BROUGHT))
    report = check(machine, base, tmp_path)
    assert red(report) == seen


@pytest.mark.root
def test_the_bakes_own_token_is_excused_nowhere(machine: Machine, tmp_path: Path) -> None:
    root(machine, f"mkdir -p /opt/vendor; echo '{PRIVATE_KEY} {TOKEN}' >/opt/vendor/both.pem")
    base = step.record_baseline(machine.session, machine.plan, machine.run)
    report = check(machine, base, tmp_path, "private_keys or token_not_on_disk or other_hf_token")
    assert red(report) == {"security.token_not_on_disk"}


@pytest.mark.root
def test_an_incomplete_record_is_reported(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What then is found at the end is the base's where nobody has changed it since."""
    root(machine, f"mkdir -p /opt/vendor; echo '{PRIVATE_KEY}' >/opt/vendor/slow.pem; sleep 0.1")
    monkeypatch.setattr(step, "SEARCH", 1e-9)
    monkeypatch.setitem(step.LIMITS, "packages", 0.01)
    base = step.record_baseline(machine.session, machine.plan, machine.run)
    assert set(base.unknown) >= {"private_keys", "aws_keys", "changed_python", "unsound_packages"}
    assert any("not recorded of the base AMI" in note for note in machine.run.progress.notes)
    assert red(check(machine, base, tmp_path, "private_keys")) == set()
    root(machine, "touch /opt/vendor/slow.pem")
    assert red(check(machine, base, tmp_path, "private_keys")) == {"security.no_private_keys"}


@pytest.mark.root
def test_a_unit_that_fails_again_and_again_is_the_bases(machine: Machine, tmp_path: Path) -> None:
    """The record meets it while it waits for its next start, the checks when systemd has given up."""
    root(
        machine,
        "systemctl reset-failed",
        "systemd-run -q --unit=again -p Restart=on-failure -p RestartSec=1 false",
        "until [ $(systemctl show -P SubState again) = auto-restart ]; do sleep 0.1; done",
    )
    base = step.record_baseline(machine.session, machine.plan, machine.run)
    root(machine, "until systemctl is-failed -q again; do sleep 0.1; done")
    report = check(machine, base, tmp_path, "failed_units")
    assert (red(report), report.base) == (set(), ("failed unit again.service",))
    root(machine, FAILED.format("other"))
    assert red(check(machine, base, tmp_path, "failed_units")) == {"system.no_failed_units"}
