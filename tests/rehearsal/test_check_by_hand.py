"""`bake check` and plain pytest on an instance of a baked image, over ssh(1) as anybody has it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bake.instance import user_data
from bake.layout import INSTANCE_ENV
from bake.localcloud import LocalCloud
from bake.ssh import Login, Session, connect
from bake.steps.launch import KeyPair

from .bakes import Outcome
from .instances import client, launch

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Worker:
    """An instance, how ssh(1) logs in to it, and the run that baked its image."""

    session: Session
    url: str
    config: Path
    identity: Path
    directory: Path

    def check(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`bake check` against the run, and more words."""
        how = ("--ssh-config", str(self.config), "--identity", str(self.identity), "--host", self.url)
        return bake("check", *how, "--run", str(self.directory), *words)

    def root(self, line: str) -> None:
        self.session.run("sh", "-ec", line, sudo=True)


def bake(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bake.cli", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def worker(
    cloud: LocalCloud, image: str, baked: Outcome, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    folder, key = tmp_path_factory.mktemp("ssh"), KeyPair.generate()
    # No machine here has a GPU; without a queue, the worker waits to be told one.
    instance, login = launch(cloud, image, user_data([key], {INSTANCE_ENV: "FLUX_BACKEND=cpu\n"}))
    identity, config = folder / "identity", folder / "config"
    identity.touch(mode=0o600)
    identity.write_text(login.private_key)
    known = folder / "known_hosts"
    known.write_text(f"{login.address} {key.public}\n")
    config.write_text(f"Host *\n  UserKnownHostsFile {known}\n  StrictHostKeyChecking yes\n  BatchMode yes\n")
    ec2 = client(cloud, "ec2", "SPOT_AWS_REGION")
    try:
        with connect(Login(login.address, login.user, login.private_key, key.public)) as session:
            session.run("cloud-init", "status", "--wait", check=False)
            yield Worker(session, f"ssh://{login.user}@{login.address}", config, identity, baked.directory)
    finally:
        ec2.terminate_instances(InstanceIds=[instance])


def test_an_instance_is_what_was_baked(worker: Worker) -> None:
    done = worker.check("--json")
    found = {one["about"]["id"]: one for one in json.loads(done.stdout)}
    red = {name: one["reason"] for name, one in found.items() if one["outcome"] in ("failed", "not run")}
    assert (red, done.returncode) == ({}, 0), done.stderr
    assert len(found) > 80
    assert found["security.token_not_on_disk"]["outcome"] == "not applicable"
    assert "worker.not_started_here" not in found  # a builder's


def test_a_change_is_shown_with_evidence_and_remedy(worker: Worker) -> None:
    worker.root("install -m 4755 /usr/bin/env /opt/env")
    try:
        done = worker.check("--select", "new_rights or clock")
    finally:
        worker.root("rm /opt/env")
    assert done.returncode == 4
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "found /opt/env" in lines
    assert any(line.startswith("✗ security.no_new_rights: ") for line in lines)
    assert any(line.startswith("✓ system.clock: ") for line in lines)
    assert any(line.startswith("remedy ") for line in lines)
    assert "1 of 2 checks did not pass" in done.stderr


def test_plain_pytest_runs_the_checks(worker: Worker) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-k", "users or system"),
            *(bake("check", "--path").stdout.strip(), f"--hosts={worker.url}"),
            *("--ssh-config", str(worker.config), "--ssh-identity-file", str(worker.identity)),
            *("--expect", str(worker.directory / "facts/expectations.json")),
        ],
        cwd=worker.config.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_a_machine_that_nobody_reaches_is_told(worker: Worker) -> None:
    done = worker.check("--host", "ssh://nobody@" + worker.url.partition("@")[2])
    assert done.returncode == 5
    assert "Permission denied" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--host", "carrier-pigeon://x"), "Unknown connection type"),
        (("--select", "no_such_check"), "no check matches"),
        (("--run", "20200101-000000-000000"), "does not say what its checks expected"),
    ],
    ids=["kind", "select", "run"],
)
def test_what_can_not_be_done_is_a_mistake(worker: Worker, words: tuple[str, ...], said: str) -> None:
    done = worker.check(*words)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
