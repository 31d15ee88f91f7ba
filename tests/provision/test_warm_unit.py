"""flux-warm.service as it is on the image: early, apart, and nothing that others wait for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bake import layout
from bake.steps.provision import render

from .test_rootfs import NO_SYSTEMD, ROOTFS, SETTINGS, UNIT, systemd_analyze

WARM = ROOTFS / f"{layout.UNITS[1:]}/{layout.WARM_SERVICE}.j2"
TEXT = render(WARM.read_text(encoding="utf-8"), SETTINGS)
LINES = [line for line in TEXT.splitlines() if line and not line.startswith("#")]


def values(name: str) -> list[str]:
    return [line.partition("=")[2] for line in LINES if line.startswith(f"{name}=")]


def test_it_starts_once_its_files_are_mounted_and_waits_for_nothing_else() -> None:
    """What adds an order by itself is left out: default dependencies, and temporary folders of its own."""
    assert values("DefaultDependencies") == ["no"]
    assert values("After") == values("Wants") == values("Requires") == values("PrivateTmp") == []
    [mounts] = values("RequiresMountsFor")
    assert set(mounts.split()) == {layout.LIBRARY, layout.WORKER, SETTINGS["HF_HUB_CACHE"]}


def test_nothing_waits_for_it() -> None:
    assert values("Before") == values("Conflicts") == ["shutdown.target"]
    assert values("Type") == ["exec"], "it has started when it runs, not when it has read"
    for unit in WARM.parent.glob("flux-worker*.j2"):
        assert "flux-warm" not in unit.read_text(encoding="utf-8")


def test_it_runs_what_is_on_the_image_with_the_workers_own_python() -> None:
    [command] = values("ExecStart")
    python, isolated, no_site, program, *files = command.split()
    assert (python, isolated, no_site) == (f"{layout.VENV}/bin/python", "-I", "-S")
    assert (ROOTFS / program[1:]).is_file()
    assert files == [layout.TRACE, layout.WARM_REPORT, layout.WORKER_ENV]
    assert values("RuntimeDirectory") == [Path(layout.WARM_REPORT).parent.name]
    assert values("ConditionPathExists") == [f"!{layout.BAKE}"]


def test_it_is_enabled_beside_the_worker() -> None:
    script = (ROOTFS.parent / "scripts/40-service.sh").read_text(encoding="utf-8")
    assert re.search(rf"^systemctl enable --quiet {re.escape(layout.WARM_SERVICE)}$", script, re.MULTILINE)
    assert values("WantedBy") == ["multi-user.target"]


def test_it_dies_before_the_worker_does() -> None:
    [worker] = re.findall(r"^OOMScoreAdjust=(\d+)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    assert int(*values("OOMScoreAdjust")) > int(worker)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, but for its program, which is not here."""
    unit = tmp_path / layout.WARM_SERVICE
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", TEXT, flags=re.MULTILINE))
    return unit


@NO_SYSTEMD
def test_systemd_finds_nothing_wrong_with_it(unit: Path) -> None:
    done = systemd_analyze("verify", "--man=no", str(unit))
    assert (done.returncode, unit.name in done.stderr) == (0, False), done.stderr


@NO_SYSTEMD
def test_it_is_kept_apart_from_the_system(unit: Path) -> None:
    """systemd's own measure; root that may only read costs most of what is left."""
    done = systemd_analyze("security", "--offline=true", "--json=short", str(unit))
    findings = json.loads(done.stdout)
    open_to = {finding["json_field"]: finding["exposure"] for finding in findings if finding["exposure"]}
    rated = systemd_analyze("security", "--offline=true", "--threshold=20", "--no-pager", str(unit))
    assert rated.returncode == 0, f"{rated.stdout.splitlines()[-1]} {open_to}"
