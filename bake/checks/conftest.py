"""Fixtures of the checks: the machine, the expectations, and the facts of each probe."""

from __future__ import annotations

from typing import Any

import pytest
from testinfra.host import Host

from bake.checks import backend, probe
from bake.checks.caused import Caused
from bake.checks.expectations import Expectations
from bake.checks.runner import SUBJECT


@pytest.fixture
def caused(expect: Expectations, request: pytest.FixtureRequest) -> Caused:
    """Selects what the bake caused, and not its base AMI."""
    return Caused(expect, request.node)


@pytest.fixture(scope="session")
def host(pytestconfig: pytest.Config) -> Host:
    """The machine, as root, over the bake's own session."""
    return backend.host(pytestconfig.stash[SUBJECT][0])


@pytest.fixture(scope="session")
def expect(pytestconfig: pytest.Config) -> Expectations:
    """What is expected of the machine."""
    return pytestconfig.stash[SUBJECT][1]


@pytest.fixture(scope="session")
def system(host: Host, expect: Expectations) -> dict[str, Any]:
    """Facts about users, ports, disks and failed units: one round trip."""
    return probe.run(host, "system", {"salt": expect.baseline.salt})


@pytest.fixture(scope="session")
def packages(host: Host, expect: Expectations) -> dict[str, Any]:
    """Problems that the package manager reports: one round trip."""
    return probe.run(host, "packages", {"packages": expect.packages, "system_python": expect.system_python})


@pytest.fixture(scope="session")
def rights(host: Host, expect: Expectations) -> dict[str, Any]:
    """Setuid files and users: one round trip."""
    return probe.run(host, "rights", {"packages": expect.packages})


@pytest.fixture(scope="session")
def cache(host: Host, expect: Expectations) -> dict[str, Any]:
    """Facts about the Hugging Face cache: one round trip."""
    where = {"cache": expect.cache_dir, "repo_dir": expect.repo_dir, "revision": expect.revision}
    return probe.run(host, "cache", {**where, "files": dict(expect.files)})


@pytest.fixture(scope="session")
def checkpoint(host: Host, expect: Expectations) -> dict[str, Any]:
    """Facts about the int8 checkpoint: one round trip."""
    return probe.run(host, "checkpoint", {"folder": expect.model_dir})


@pytest.fixture(scope="session")
def secrets(host: Host, expect: Expectations) -> dict[str, Any]:
    """Places of secrets: files, processes, the journal. The token goes in by stdin."""
    return probe.run(host, "secrets", {"token": expect.token, "cache": expect.cache_dir, "seconds": None})


@pytest.fixture(scope="session")
def model(host: Host, expect: Expectations) -> dict[str, Any]:
    """Facts about the model, loaded as the worker would: its user and environment, without a network."""
    python = ["env", "FLUX_BACKEND=cpu", f"{expect.venv}/bin/python"]  # the GPU is hidden, if there is one
    return probe.run(host, "model", {}, prefix=[*probe.as_worker(expect), *python])


@pytest.fixture(scope="session")
def unit(host: Host, expect: Expectations) -> dict[str, str]:
    """The worker's unit as systemd understands it, property -> value; lines of a repeated one are joined."""
    shown = host.check_output("systemctl show --no-pager %s", expect.unit)
    properties: dict[str, str] = {}
    for name, _, value in (line.partition("=") for line in shown.splitlines()):
        properties[name] = f"{properties[name]}\n{value}" if name in properties else value
    return properties


@pytest.fixture(scope="session")
def worker_env(host: Host, expect: Expectations) -> dict[str, str]:
    """The worker's baked environment: name -> value."""
    content = host.check_output("cat %s", expect.worker_env)
    lines = [line.strip() for line in content.splitlines()]
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
