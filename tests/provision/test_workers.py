"""How many workers an instance has, and which unit starts: what systemd asks before each start."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "provision/rootfs/usr/lib/flux-worker/workers.sh"
GPU, SWITCH = ("0x10de", "0x030200"), ("0x10de", "0x068000")
OTHERS = [SWITCH, ("0x10de", "0x040300"), ("0x1d0f", "0x020000"), ("0x1234", "0x030000")]


@dataclass(frozen=True)
class Asked:
    """What the script answers: whether the unit's worker starts, what it is told, what is started instead."""

    starts: bool
    told: str
    started: list[str]
    says: str


Ask = Callable[..., Asked]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Asks as systemd does, on a machine with these devices; `systemctl` writes down what it is to do."""
    (tmp_path / "bin").mkdir()
    systemctl = tmp_path / "bin/systemctl"
    systemctl.write_text(
        f"""#!/bin/sh
case "$*" in
  start*) printf "%s\\n" "$@" >{tmp_path}/started ;;
  list-units*"$RUNNING") [ -z "$RUNNING" ] || echo "$RUNNING loaded active running" ;;
esac
"""
    )
    systemctl.chmod(0o755)

    def asked(devices: list[tuple[str, str]], worker: str = "", **settings: str) -> Asked:
        for number, (vendor, kind) in enumerate(devices):
            folder = tmp_path / "devices" / str(number)
            folder.mkdir(parents=True)
            (folder / "vendor").write_text(f"{vendor}\n")
            (folder / "class").write_text(f"{kind}\n")
        path = f"{tmp_path}/bin:{os.environ['PATH']}"
        environment = {"PATH": path, "PCI_DEVICES": str(tmp_path / "devices"), **settings}
        words = [str(SCRIPT), str(tmp_path / "env"), *([worker] if worker else [])]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        started = tmp_path / "started"
        listed = started.read_text().split() if started.exists() else []
        return Asked(done.returncode == 0, (tmp_path / "env").read_text(), listed, done.stdout)

    return asked


@pytest.mark.parametrize(
    ("devices", "settings"),
    [
        pytest.param([GPU, *OTHERS], {}, id="one-gpu"),
        pytest.param([], {"FLUX_BACKEND": "auto"}, id="no-gpu"),
        pytest.param([GPU] * 4, {"FLUX_BACKEND": "cpu"}, id="on-the-cpu"),
        pytest.param([GPU] * 4, {"FLUX_BACKEND": "neuron", "FLUX_WORKERS": "4"}, id="neuron"),
        pytest.param([GPU] * 4, {"FLUX_WORKERS": "1"}, id="one-is-wanted"),
    ],
)
def test_one_worker_is_the_service_as_ever(
    ask: Ask, devices: list[tuple[str, str]], settings: dict[str, str]
) -> None:
    assert ask(devices, **settings) == Asked(True, "FLUX_WORKERS=1\n", [], "")


@pytest.mark.parametrize(
    ("devices", "settings"),
    [
        pytest.param([*OTHERS, GPU, ("0x10de", "0x030000")], {"FLUX_BACKEND": "cuda"}, id="two-gpus"),
        pytest.param([GPU] * 8, {"FLUX_WORKERS": "2"}, id="two-are-wanted"),
        pytest.param([], {"FLUX_WORKERS": "2", "FLUX_BACKEND": "cpu"}, id="two-on-the-cpu"),
    ],
)
def test_with_several_the_service_starts_each_and_not_itself(
    ask: Ask, devices: list[tuple[str, str]], settings: dict[str, str]
) -> None:
    found = ask(devices, **settings)
    units = ["flux-worker@0.service", "flux-worker@1.service"]
    assert (found.starts, found.told, found.started) == (
        False,
        "FLUX_WORKERS=2\n",
        ["start", "--no-block", *units],
    )
    assert f"2 workers: {' '.join(units)}" in found.says


@pytest.mark.parametrize(
    ("worker", "workers", "starts"), [("0", 2, True), ("1", 2, True), ("2", 2, False), ("0", 1, False)]
)
def test_one_of_several_starts_where_it_has_a_gpu(ask: Ask, worker: str, workers: int, starts: bool) -> None:
    found = ask([GPU] * workers, worker)
    assert (found.starts, found.told, found.started) == (starts, f"FLUX_WORKERS={workers}\n", [])
    assert found.says == "" if starts else f"flux-worker@{worker}.service is not needed" in found.says


@pytest.mark.parametrize(
    ("worker", "workers", "running"),
    [("", "1", "flux-worker@*.service"), ("1", "2", "flux-worker.service")],
    ids=["the-service-beside-several", "one-of-several-beside-the-service"],
)
def test_no_gpu_gets_a_second_worker_where_the_number_changed(
    ask: Ask, worker: str, workers: str, running: str
) -> None:
    """Writing instance.env starts the service, whatever runs."""
    found = ask([GPU] * 4, worker, FLUX_WORKERS=workers, RUNNING=running)
    assert (found.starts, found.started) == (False, [])
    assert f"{running} runs" in found.says
    assert "systemctl restart flux-worker" in found.says


@pytest.mark.parametrize("wrong", ["two", "-1", "2.5", "100", "secretsmanager:a#b"])
def test_a_wrong_number_reaches_the_one_worker_that_names_it(ask: Ask, wrong: str) -> None:
    """Nobody would see the failure of a condition."""
    assert ask([GPU] * 4, FLUX_WORKERS=wrong) == Asked(True, f"FLUX_WORKERS={wrong}\n", [], "")


def test_a_wrong_number_starts_none_of_several(ask: Ask) -> None:
    assert not ask([GPU] * 4, "0", FLUX_WORKERS="two").starts
