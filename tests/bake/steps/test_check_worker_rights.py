"""The boot check asks the worker's own command which rights the instance profile lacks."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bake.errors import BakeError
from bake.progress import PlainScreen, Progress
from bake.run import Run
from bake.ssh import CommandResult
from bake.steps.check_worker_rights import ask_rights, judge_rights
from tests.worker.conftest import COMMAND, CREDENTIALS, REGION, Aws, moto_server
from tests.worker.refusing_proxy import RefusingProxy

pytestmark = pytest.mark.integration
UNIT = """ExecStart={ path=%s ; argv[]=%s serve ; ignore_errors=no ; start_time=[n/a] ; code=(null) }
EnvironmentFiles=/etc/flux-worker/worker.env (ignore_errors=no)
EnvironmentFiles=/etc/flux-worker/instance.env (ignore_errors=yes)
User=ubuntu
"""


class Machine:
    """Stands for the booted instance: its worker is the real one, in a process here."""

    def __init__(self, environment: dict[str, str], command: str = COMMAND) -> None:
        self.environment = environment
        self.command = command
        self.asked: list[str] = []

    def run(self, *argv: str, sudo: bool = False, check: bool = True) -> CommandResult:
        if argv[0] == "systemctl":
            return CommandResult(argv, 0, UNIT % (self.command, self.command), "", 0.0)
        self.asked = list(argv)
        worker = argv[argv.index(self.command) :]
        done = subprocess.run(worker, env=self.environment, capture_output=True, text=True, check=False)
        return CommandResult(argv, done.returncode, done.stdout, done.stderr, 0.0)


@pytest.fixture(scope="module")
def proxy() -> Iterator[RefusingProxy]:
    with moto_server() as endpoint, RefusingProxy(endpoint).running() as running:
        yield running


@pytest.fixture(scope="module")
def aws(proxy: RefusingProxy) -> Aws:
    return Aws(proxy.url, "boot-check")


@pytest.fixture
def machine(proxy: RefusingProxy, aws: Aws) -> Machine:
    proxy.refused.clear()
    return Machine(
        CREDENTIALS
        | {
            "PATH": os.environ["PATH"],
            "AWS_ENDPOINT_URL": proxy.url,
            "AWS_REGION": REGION,
            "FLUX_QUEUE_URL": aws.jobs,
            "FLUX_BUCKET": aws.bucket,
            "FLUX_EVENT_BUS": aws.bus,
        }
    )


@pytest.fixture
def rights(tmp_path: Path) -> Callable[[Any], str]:
    """Checks a machine; gives back what is shown."""
    shown = io.StringIO()

    def check(machine: Any) -> str:
        judge_rights(ask_rights(machine), Run("1", tmp_path, Progress(PlainScreen(shown))))
        return shown.getvalue()

    return check


def test_what_is_there_is_a_note(machine: Machine, rights: Callable[[Any], str], tmp_path: Path) -> None:
    assert "the instance profile: 11 rights and places are there" in rights(machine)
    assert (tmp_path / "logs/boot-check.rights.json").is_file()
    assert machine.asked[:5] == ["systemd-run", "--quiet", "--pipe", "--wait", "--collect"]
    assert machine.asked[5:8] == [
        "--property=User=ubuntu",
        "--property=EnvironmentFile=/etc/flux-worker/worker.env",
        "--property=EnvironmentFile=-/etc/flux-worker/instance.env",
    ]


def test_a_right_that_is_missing_is_named(
    machine: Machine, rights: Callable[[Any], str], proxy: RefusingProxy
) -> None:
    proxy.refuse("s3:DeleteObject")
    with pytest.raises(BakeError, match="lacks what it needs") as caught:
        rights(machine)
    assert type(caught.value) is BakeError, "it says nothing about the image"
    assert "s3:DeleteObject on arn:aws:s3:::boot-check-images/images/*" in caught.value.message
    assert '"Action": [\n      "s3:DeleteObject"' in caught.value.message


def test_an_optional_right_is_no_failure(
    machine: Machine, rights: Callable[[Any], str], proxy: RefusingProxy
) -> None:
    proxy.refuse("events:DescribeEventBus")
    assert "rights and places are there" in rights(machine)


def test_an_older_worker_is_no_failure(
    machine: Machine, rights: Callable[[Any], str], tmp_path: Path
) -> None:
    """`bake boot-check` of an image of before, or a worker.commit of before."""
    old = tmp_path / "flux-worker"
    old.write_text("#!/bin/sh\necho 'Error: No such option: --aws' >&2\nexit 2\n")
    old.chmod(0o755)
    machine.command = str(old)
    assert "the image's worker is older than the check" in rights(machine)
