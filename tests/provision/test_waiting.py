"""A worker without settings waits: what reports that, and what starts it later."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from bake import layout
from bake.steps.provision import render

ROOTFS = Path(__file__).parents[2] / "provision" / "rootfs"
SCRIPT = ROOTFS / "usr/lib/flux-worker/wait-for-settings.sh"
SETTINGS = {
    "AWS_REGION": "eu-west-1",
    "FLUX_QUEUE_URL": "https://q",
    "FLUX_BUCKET": "b",
    "FLUX_EVENT_BUS": "e",
}


def condition(settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run what systemd asks before it starts the worker."""
    environment = {"PATH": os.environ["PATH"], **settings}
    return subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, check=False)


def test_with_all_settings_the_worker_may_start() -> None:
    assert (condition(SETTINGS).returncode, condition(SETTINGS).stdout) == (0, "")


@pytest.mark.parametrize(
    "missing", [["FLUX_BUCKET"], ["AWS_REGION", "FLUX_EVENT_BUS"], list(SETTINGS)], ids=len
)
def test_missing_settings_are_named_with_the_command_that_helps(missing: list[str]) -> None:
    done = condition({name: value for name, value in SETTINGS.items() if name not in missing})
    assert done.returncode == 1
    assert (
        f"flux-worker waits: {' '.join(missing)} must stand in /etc/flux-worker/instance.env" in done.stdout
    )
    assert "bake userdata --profile NAME" in done.stdout


def test_an_empty_setting_is_a_missing_one() -> None:
    assert "waits: FLUX_BUCKET must" in condition({**SETTINGS, "FLUX_BUCKET": ""}).stdout


def test_the_worker_starts_when_the_file_comes_and_not_while_it_lies_there() -> None:
    """PathExists= would start a worker that failed again and again."""
    units = ROOTFS / "etc/systemd/system"
    text = render((units / "flux-worker.path.j2").read_text(), layout.SETTINGS)
    assert "PathChanged=/etc/flux-worker/instance.env" in text
    assert "PathExists" not in text
    first, *_ = re.findall("^ExecCondition=.*", (units / "flux-worker.service.j2").read_text(), re.MULTILINE)
    assert render(first, layout.SETTINGS) == "ExecCondition=+/usr/lib/flux-worker/wait-for-settings.sh"
