"""What goes onto the image beside packages: the unit and its environment."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from bake.steps.provision import render

ROOTFS = Path(__file__).parents[2] / "provision" / "rootfs"
UNIT = ROOTFS / "etc/systemd/system/flux-worker.service.j2"
SETTINGS = {
    "BAKE_USER": "ubuntu",
    "BAKE_HOME": "/home/ubuntu",
    "BAKE_PYTHON": "3.11",
    "HF_HUB_CACHE": "/home/ubuntu/.cache/huggingface/hub",
    "MODEL_REPO": "black-forest-labs/FLUX.1-dev",
    "MODEL_REVISION": "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21",
}


@pytest.mark.parametrize("file", sorted(ROOTFS.rglob("*.j2")), ids=lambda file: file.name)
def test_templates_are_filled_completely(file: Path) -> None:
    text = render(file.read_text(encoding="utf-8"), SETTINGS)
    assert "{{" not in text
    assert text.endswith("\n")
    with pytest.raises(UndefinedError):
        render(file.read_text(encoding="utf-8"), {})


def test_worker_environment_forbids_downloads_and_holds_no_token() -> None:
    text = render((ROOTFS / "etc/flux-worker/worker.env.j2").read_text(encoding="utf-8"), SETTINGS)
    lines = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    assert lines["HF_HUB_OFFLINE"] == "1"
    assert lines["HF_HUB_CACHE"] == SETTINGS["HF_HUB_CACHE"]
    assert lines["FLUX_MODEL_REVISION"] == SETTINGS["MODEL_REVISION"]
    assert not {"HF_HOME", "HF_TOKEN"} & set(lines)


def test_unit_is_wanted_after_user_data_has_run() -> None:
    text = UNIT.read_text(encoding="utf-8")
    assert re.search(r"^After=.*\bcloud-final\.service\b", text, re.MULTILINE)
    # multi-user.target comes before cloud-final: wanted by it, the unit would wait for itself.
    assert re.findall(r"^WantedBy=(.*)$", text, re.MULTILINE) == ["cloud-init.target"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    text = render(UNIT.read_text(encoding="utf-8"), {**SETTINGS, "BAKE_USER": getpass.getuser()})
    unit = tmp_path / "flux-worker.service"
    # The worker is not installed here; everything else is as on the image.
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "flux-worker.service" in done.stderr) == (0, False), done.stderr
