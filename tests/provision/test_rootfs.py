"""The files below provision/rootfs: the worker's unit and its environment."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from bake import layout
from bake.steps.provision import render
from flux_worker.settings import ServeSettings

ROOTFS = Path(__file__).parents[2] / "provision" / "rootfs"
UNIT = ROOTFS / "etc/systemd/system/flux-worker.service.j2"
ONE_OF_SEVERAL = UNIT.with_name("flux-worker@.service.j2")
SETTINGS = layout.SETTINGS | {
    "BAKE_USER": "ubuntu",
    "BAKE_HOME": "/home/ubuntu",
    "BAKE_PYTHON": "3.11",
    "HF_HUB_CACHE": "/home/ubuntu/.cache/huggingface/hub",
    "MODEL_REPO": "black-forest-labs/FLUX.1-dev",
    "MODEL_REVISION": "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21",
    "MODEL_DIR": "",
    "WORKER_BACKEND": "cuda",
    "COMPILED_SIZES": "",
    "NOT_COMPILED": "",
}


@pytest.mark.parametrize("file", sorted(ROOTFS.rglob("*.j2")), ids=lambda file: file.name)
def test_templates_are_filled_completely(file: Path) -> None:
    text = render(file.read_text(encoding="utf-8"), SETTINGS)
    assert "{{" not in text
    assert text.endswith("\n")
    with pytest.raises(UndefinedError):
        render(file.read_text(encoding="utf-8"), {})


def worker_environment(**settings: str) -> dict[str, str]:
    text = render((ROOTFS / "etc/flux-worker/worker.env.j2").read_text(encoding="utf-8"), SETTINGS | settings)
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


def test_worker_environment_forbids_downloads_and_holds_no_token() -> None:
    lines = worker_environment()
    assert lines["HF_HUB_OFFLINE"] == "1"
    assert lines["HF_HUB_CACHE"] == SETTINGS["HF_HUB_CACHE"]
    assert lines["FLUX_MODEL_REVISION"] == SETTINGS["MODEL_REVISION"]
    assert not {"HF_HOME", "HF_TOKEN", "FLUX_MODEL_DIR"} & set(lines)


def test_an_int8_checkpoint_is_named_to_the_worker_and_in_the_notice() -> None:
    folder = "/opt/flux-worker/int8"
    assert worker_environment(MODEL_DIR=folder) == worker_environment() | {"FLUX_MODEL_DIR": folder}
    notice = (ROOTFS / "usr/share/doc/flux-worker/NOTICE.j2").read_text(encoding="utf-8")
    assert f"{folder}/quantization.json" in render(notice, SETTINGS | {"MODEL_DIR": folder})
    assert "quantized" not in render(notice, SETTINGS)


@pytest.mark.parametrize("backend", ["cuda", "neuron", "cpu"])
def test_what_is_drawn_on_is_said_once_and_a_launch_may_say_otherwise(backend: str) -> None:
    """systemd reads files after variables, and later files last: nothing but instance.env may follow."""
    assert worker_environment(WORKER_BACKEND=backend)["FLUX_BACKEND"] == backend
    unit = render(UNIT.read_text(encoding="utf-8"), SETTINGS)
    files = [line for line in unit.splitlines() if "EnvironmentFile=" in line]
    # The last one holds no more than the number of workers, which workers.sh takes from the others.
    assert [line.rpartition("/")[2] for line in files] == ["worker.env", "instance.env", "%N.env"]
    drop_in = (ROOTFS.parent / "scripts/25-neuron-worker.sh").read_text(encoding="utf-8")
    assert "Environment=" not in drop_in.partition("<<UNIT")[2]


def test_unit_is_wanted_after_user_data_has_run() -> None:
    text = UNIT.read_text(encoding="utf-8")
    assert re.search(r"^After=.*\bcloud-final\.service\b", text, re.MULTILINE)
    # multi-user.target comes before cloud-final: wanted by it, the unit would wait for itself.
    assert re.findall(r"^WantedBy=(.*)$", text, re.MULTILINE) == ["cloud-init.target"]


def rendered(template: Path) -> list[str]:
    """The unit's lines, without comments."""
    lines = render(template.read_text(encoding="utf-8"), SETTINGS).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_one_of_several_workers_differs_by_its_gpu_and_its_state_alone() -> None:
    """Cache, run-time folder and sandbox are the same."""
    alone, several = rendered(UNIT), rendered(ONE_OF_SEVERAL)
    assert [line for line in several if line not in alone] == [
        "Description=FLUX.1-dev worker %i",
        "PartOf=flux-worker.service",
        "After=flux-worker.service",
        "Environment=FLUX_DEVICE=%i",
        "StateDirectory=flux-worker/%i",
        "ExecCondition=+/usr/lib/flux-worker/workers.sh /run/%N.env %i",
        "ExecStartPre=-+/usr/bin/nvidia-modprobe -c %i -u",
    ]
    assert [line for line in alone if line not in several] == [
        "Description=FLUX.1-dev worker",
        "StateDirectory=flux-worker",
        "ExecCondition=+/usr/lib/flux-worker/workers.sh /run/%N.env",
        "ExecStartPre=-+/usr/bin/nvidia-modprobe -c 0 -u",
        "[Install]",  # flux-worker.service starts the others
        "WantedBy=cloud-init.target",
    ]
    assert {"RuntimeDirectory=flux-worker", "RuntimeDirectoryPreserve=yes"} <= set(several)


@pytest.fixture(params=[UNIT, ONE_OF_SEVERAL], ids=["alone", "one-of-several"])
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unit as on the image, but for the worker and its user, who are not here."""
    template: Path = request.param
    text = render(template.read_text(encoding="utf-8"), {**SETTINGS, "BAKE_USER": "daemon"})
    unit = tmp_path / template.name.removesuffix(".j2").replace("@", "@1")
    unit.write_text(re.sub(r"^(ExecStart|ExecCondition)=\S+", r"\1=/bin/true", text, flags=re.MULTILINE))
    return unit


def systemd_analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


NO_SYSTEMD = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")


@NO_SYSTEMD
def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path) -> None:
    done = systemd_analyze("verify", "--man=no", str(unit))
    assert (done.returncode, unit.name in done.stderr) == (0, False), done.stderr


@NO_SYSTEMD
def test_the_unit_is_kept_apart_from_the_system(unit: Path) -> None:
    """systemd's own measure, from 10 (nothing) down to 0."""
    done = systemd_analyze("security", "--offline=true", "--json=short", str(unit))
    findings = json.loads(done.stdout)
    open_to = {finding["json_field"]: finding["exposure"] for finding in findings if finding["exposure"]}
    rated = systemd_analyze("security", "--offline=true", "--threshold=30", "--no-pager", str(unit))
    assert rated.returncode == 0, f"{rated.stdout.splitlines()[-1]} {open_to}"


@pytest.mark.parametrize(
    "option", ["PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock", "MemoryDenyWriteExecute"]
)
def test_nothing_stands_between_the_worker_and_its_gpu(option: str) -> None:
    """ProtectClock= implies DeviceAllow=, and one DeviceAllow= closes every device that it does not name."""
    lines = [line for line in UNIT.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert not any(line.startswith(f"{option}=") for line in lines)


def test_the_drain_ends_before_systemd_loses_patience() -> None:
    """And hooks of Auto Scaling groups are seen to within ten seconds after it."""
    drain = ServeSettings.model_fields["drain_seconds"].default
    stop = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    assert stop and drain + 10 < int(stop[1]) < 110
