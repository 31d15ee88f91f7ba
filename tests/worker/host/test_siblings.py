"""Two workers on one instance: lifecycle hooks belong to both."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from flux_worker.errors import ConfigurationError
from flux_worker.host.siblings import Siblings
from tests.worker.conftest import Served, serving, until
from tests.worker.host.conftest import Ec2, grouped

OTHER = """
import sys
from pathlib import Path
from flux_worker.host.siblings import Siblings
siblings = Siblings(Path(sys.argv[1]), 2, "1")
siblings.ready()
print("ready", flush=True)
sys.stdin.readline()
siblings.leave()
print("left", flush=True)
sys.stdin.read()
"""


@contextmanager
def other_worker(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process of the instance, which is ready; a line of input lets it leave."""
    command = [sys.executable, "-c", OTHER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("variables", [{}, {"FLUX_WORKERS": "2"}, {"FLUX_WORKERS": "1"}])
def test_a_worker_without_a_folder_or_siblings_is_alone(variables: dict[str, str], tmp_path: Path) -> None:
    folder = {"RUNTIME_DIRECTORY": str(tmp_path)} if variables.get("FLUX_WORKERS") == "1" else {}
    siblings = Siblings.from_environment(variables | folder)
    assert siblings.all_ready()
    assert siblings.all_left()
    siblings.ready()
    siblings.leave()
    assert list(tmp_path.iterdir()) == []


def test_all_are_ready_once_each_is(tmp_path: Path) -> None:
    siblings = Siblings(tmp_path, 2, "0")
    assert not siblings.all_ready()
    siblings.ready()
    assert not siblings.all_ready()
    with other_worker(tmp_path) as other:
        assert siblings.all_ready()
        other.kill()
        other.wait()
        assert not siblings.all_ready(), "a killed worker is not ready any more"
    with other_worker(tmp_path):
        assert siblings.all_ready(), "its successor is"


def test_the_last_one_has_left_when_no_lock_is_held(tmp_path: Path) -> None:
    siblings = Siblings(tmp_path, 2, "0")
    with other_worker(tmp_path) as other:
        assert not siblings.all_left()
        siblings.leave()
        assert not siblings.all_left()
        assert other.stdin and other.stdout
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "left\n"
        assert siblings.all_left()


def test_a_killed_worker_keeps_nobody_waiting(tmp_path: Path) -> None:
    siblings = Siblings(tmp_path, 2, "0")
    siblings.leave()
    with other_worker(tmp_path) as other:
        assert not siblings.all_left()
        other.kill()
        other.wait()
        assert siblings.all_left()


def test_a_device_that_two_workers_have_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with other_worker(tmp_path):
        Siblings(tmp_path, 2, "1").ready()
    assert "two workers have FLUX_DEVICE=1" in caplog.text


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5"])
def test_a_number_of_workers_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(ConfigurationError, match=f"FLUX_WORKERS={given}"):
        Siblings.from_environment({"FLUX_WORKERS": given})


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"RUNTIME_DIRECTORY=.*No such file"):
        Siblings.from_environment({"FLUX_WORKERS": "2", "RUNTIME_DIRECTORY": str(tmp_path / "no")})


@pytest.fixture
def start(ec2: Ec2, scaling: Any, environment: dict[str, str], tmp_path: Path) -> Iterator[Any]:
    """Starts worker number N of two, on an instance of a group; gives it back when it tells systemd so."""
    with ExitStack() as stack:
        stack.enter_context(grouped(ec2, scaling))
        (tmp_path / "run").mkdir()

        def start(number: int, until_told: str = "READY=1") -> Served:
            own = environment | ec2.environment | {"AWS_EC2_METADATA_DISABLED": "false"}
            own |= {"FLUX_WORKERS": "2", "FLUX_DEVICE": str(number)}
            own |= {"RUNTIME_DIRECTORY": str(tmp_path / "run")}
            own |= {"FLUX_STATE_DIR": str(tmp_path / f"state-{number}")}
            own |= {"AWS_ENDPOINT_URL_AUTO_SCALING": ec2.endpoint}
            folder = tmp_path / str(number)
            folder.mkdir()
            return stack.enter_context(serving(own, folder, until_told))

        yield start


def test_the_hooks_of_two_workers(ec2: Ec2, start: Any) -> None:
    """The launching hook is completed when both are ready, the terminating one when both have drained."""
    ec2.state("Pending:Wait")
    first = start(0)
    second = start(1, "STATUS=Loading the model")
    assert ec2.completed() == [], "one of two is ready"
    second.wait_told("READY=1", 60)
    until(lambda: set(ec2.completed()) == {"ready CONTINUE"}, 30, "the launching hook to be completed")
    (ec2.folder / "completed").unlink()

    second.process.send_signal(signal.SIGSTOP)  # it has a job in hand, so to speak
    ec2.state("Terminating:Wait")
    ec2.tell("autoscaling/target-lifecycle-state", "Terminated")
    assert first.process.wait(120) == 0
    assert ec2.completed() == [], "the second one still serves"
    second.process.send_signal(signal.SIGCONT)
    assert second.process.wait(120) == 0
    assert ec2.completed() == ["drained CONTINUE"]


def test_a_killed_worker_does_not_keep_the_hook_waiting(ec2: Ec2, start: Any) -> None:
    first, second = start(0), start(1)
    second.process.kill()
    second.process.wait()
    ec2.state("Terminating:Wait")
    ec2.tell("autoscaling/target-lifecycle-state", "Terminated")
    assert first.process.wait(120) == 0
    assert ec2.completed() == ["drained CONTINUE"]
