"""`bake scan`: the scanner is a program on PATH; the one of these tests answers as grype does."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bake.commands.scan import scan
from bake.errors import BakeError, NotVerified, UsageError
from bake.journal import JOURNAL
from bake.report.model import Inventory, Package, Scan
from bake.report.sbom import sbom
from bake.run import alone
from tests.report import samples

pytestmark = pytest.mark.integration

SCANNER = Path(__file__).parents[2] / "report/scanner"
RUN = "20261129-030709-9572df"
PACKAGES = (
    Package(kind="deb", name="libssl3", version="3.0.2", arch="amd64", source="openssl 3.0.2"),
    Package(kind="deb", name="bash", version="5.1", arch="amd64", source="bash 5.1"),
    Package(kind="python", name="torch", version="2.13.0", where="/opt/flux-worker/venv"),
    Package(kind="python", name="diffusers", version="0.42.1", where="/opt/flux-worker/venv"),
    Package(kind="program", name="nvidia-smi", version="580.65.06"),
)


def today(days: int = 0) -> str:
    return str((datetime.now(UTC) + timedelta(days=days)).date())


def waiver(check: str, until: str) -> dict[str, str]:
    return {
        "check": check,
        "reason": "not reachable",
        "approved_by": "reviewer@example.com",
        "risk": "none",
        "until": until,
    }


def ended_run(
    parent: Path,
    *,
    os: str = "Ubuntu 22.04.5 LTS",
    packages: tuple[Package, ...] = PACKAGES,
    rehearsal: bool = True,
    **profile: Any,
) -> Path:
    """The directory of a run that has ended."""
    folder = parent / RUN
    folder.mkdir()
    begun = {"event": "run", "command": "bake", "profile": "g6e-ubuntu", "rehearsal": rehearsal, "prices": {}}
    lines = [begun, {"event": "ended", "outcome": "done"}]
    at = "2026-11-29T03:07:03Z"
    (folder / JOURNAL).write_text("".join(f"{json.dumps({'at': at, **line})}\n" for line in lines))
    plan = {"profile": {"builder": {"region": "eu-north-1"}, **profile}}
    (folder / "plan.json").write_text(json.dumps(plan))
    inventory = Inventory(moment="sealed", kernel="6.8", os=os, packages=packages)
    report = samples.GOOD.model_copy(update={"inventories": (inventory,)})
    (folder / "sbom.cdx.json").write_text(sbom(report))
    return folder


@pytest.fixture(autouse=True)
def _grype(monkeypatch: pytest.MonkeyPatch) -> None:
    python = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{SCANNER}:{python}:/usr/bin:/bin")


def called(parent: Path, *options: str) -> Result:
    return CliRunner().invoke(scan, [RUN, *options], obj={"runs": parent, "as_json": False})


def kept(parent: Path) -> Scan:
    return Scan.model_validate_json((parent / RUN / "facts/scan.json").read_text())


def test_the_answer_is_shown_and_kept(tmp_path: Path) -> None:
    ended_run(tmp_path)
    done = called(tmp_path)
    assert done.exit_code == 0, done.exception
    found = kept(tmp_path)
    assert (found.scanner, found.version, found.database) == ("grype", "0.104.0", "2026-11-28T06:00:00Z")
    assert found.covered == ("deb", "python")
    assert found.not_covered == ("machine-learning-model", "program")
    assert [(one.severity, one.id, one.package) for one in found.vulnerabilities] == [
        ("critical", "CVE-2026-0001", "libssl3"),
        ("high", "CVE-2026-0002", "torch"),
        ("negligible", "CVE-2026-0003", "diffusers"),
    ]
    assert done.output.splitlines() == [
        f"REHEARSAL {RUN}: 3 vulnerabilities by grype 0.104.0, whose database is of 2026-11-28T06:00:00Z",
        "covered: deb, python",
        "not covered: machine-learning-model",
        "not covered: program",
        "  severity    id             package    version  fixed in           waived until",
        "  critical    CVE-2026-0001  libssl3    3.0.2    3.0.2-0ubuntu1.19  -",
        "  high        CVE-2026-0002  torch      2.13.0   2.13.1, 2.14.0     -",
        "  negligible  CVE-2026-0003  diffusers  0.42.1   -                  -",
    ]


def test_the_reports_have_the_answer(tmp_path: Path) -> None:
    folder = ended_run(tmp_path)
    called(tmp_path)
    assert json.loads((folder / "report.json").read_text())["scan"]["database"] == "2026-11-28T06:00:00Z"
    assert "CVE-2026-0001" in (folder / "report.md").read_text()
    assert "facts/scan.json" in (folder / "SHA256SUMS").read_text()


def test_json_is_the_scan_as_it_is_kept(tmp_path: Path) -> None:
    ended_run(tmp_path)
    assert Scan.model_validate_json(called(tmp_path, "--json").output) == kept(tmp_path)


LASTING, ENDED, OTHER = (
    {"fail_on": "critical", "waivers": [waiver(check, until)]}
    for check, until in (
        ("CVE-2026-0001", today(1)),
        ("CVE-2026-0001", today(-2)),
        ("CVE-2026-0002", today(1)),
    )
)


@pytest.mark.parametrize(
    ("profile", "options", "code"),
    [
        pytest.param({}, [], 0, id="no severity"),
        pytest.param({"fail_on": "critical"}, [], 4, id="the profile's"),
        pytest.param(LASTING, [], 0, id="waived"),
        pytest.param(ENDED, [], 4, id="waiver ended"),
        pytest.param(OTHER, [], 4, id="another waived"),
        pytest.param(LASTING, ["--fail-on", "high"], 4, id="the option wins"),
    ],
)
def test_severe_ones_fail_unless_they_are_waived(
    tmp_path: Path, profile: dict[str, Any], options: list[str], code: int
) -> None:
    ended_run(tmp_path, **profile)
    done = called(tmp_path, *options)
    if code:
        assert isinstance(done.exception, NotVerified)
        assert done.exception.exit_code == code
    else:
        assert done.exit_code == 0, done.exception
    assert kept(tmp_path).vulnerabilities


def test_a_failure_names_what_failed(tmp_path: Path) -> None:
    ended_run(tmp_path, fail_on="high")
    error = called(tmp_path).exception
    assert str(error) == (
        "2 vulnerabilities of severity high or worse, not waived: CVE-2026-0001, CVE-2026-0002"
    )


def test_without_a_scanner_nothing_is_said_to_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    ended_run(tmp_path)
    done = called(tmp_path)
    assert isinstance(done.exception, BakeError)
    assert done.exception.message.startswith("there is no scanner: grype is not on PATH")
    assert "https://github.com/anchore/grype#installation" in (done.exception.hint or "")
    assert done.output == ""
    assert not (tmp_path / RUN / "facts").exists()


def test_on_aws_inspector_is_asked_where_there_is_no_grype(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody answers at its address here; what it answers is tested in tests/report/test_scan.py."""
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example/example/example")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("bake.aws.PLANNING", 0.0)
    ended_run(tmp_path, rehearsal=False)
    done = called(tmp_path)
    assert isinstance(done.exception, BakeError)
    assert "grype is not on PATH, and Amazon Inspector in eu-north-1 answered" in done.exception.message
    assert not (tmp_path / RUN / "facts").exists()


@pytest.mark.parametrize(
    ("os", "covered"), [("Ubuntu 22.04.5 LTS", ("deb", "python")), ("Arch Linux", ("python",))]
)
def test_packages_of_an_unknown_distribution_are_not_covered(
    tmp_path: Path, os: str, covered: tuple[str, ...]
) -> None:
    ended_run(tmp_path, os=os)
    called(tmp_path)
    assert kept(tmp_path).covered == covered
    assert ("deb" in kept(tmp_path).not_covered) == ("deb" not in covered)


def test_a_scanner_that_covers_nothing_proves_nothing(tmp_path: Path) -> None:
    ended_run(tmp_path, packages=PACKAGES[-1:])
    done = called(tmp_path)
    assert isinstance(done.exception, BakeError)
    assert done.exception.message.startswith("grype covers no package of this image")


def test_what_the_users_settings_hide_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GRYPE_IGNORES", "3")
    ended_run(tmp_path)
    called(tmp_path)
    assert "3 matches that grype's own settings ignore" in kept(tmp_path).not_covered


def test_a_scanner_that_fails_is_an_error_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_GRYPE_FAILS", "the vulnerability database was built 6 days ago\x1b[31m")
    ended_run(tmp_path)
    done = called(tmp_path)
    assert isinstance(done.exception, BakeError)
    assert done.exception.message == (
        "grype ended with exit code 1 and no answer:\n"
        "the vulnerability database was built 6 days ago\\x1b[31m"
    )
    assert not (tmp_path / RUN / "facts").exists()


def test_a_scanner_whose_own_settings_fail_on_a_severity_has_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_GRYPE_EXITS", "2")
    ended_run(tmp_path)
    assert called(tmp_path).exit_code == 0
    assert len(kept(tmp_path).vulnerabilities) == 3


def test_unknown_severities_are_listed_and_never_fail(tmp_path: Path) -> None:
    ended_run(tmp_path, packages=(Package(kind="python", name="oddity", version="1"),), fail_on="low")
    done = called(tmp_path)
    assert done.exit_code == 0
    assert "  unknown   CVE-2026-0004  oddity" in done.output


def test_hostile_names_do_no_harm_to_the_terminal(tmp_path: Path) -> None:
    package = Package(kind="python", name="torch", version="2\x1b[2J\n")
    ended_run(tmp_path, packages=(package,))
    assert "\x1b" not in called(tmp_path).output


def test_a_run_without_an_sbom_says_so(tmp_path: Path) -> None:
    (ended_run(tmp_path) / "sbom.cdx.json").unlink()
    error = called(tmp_path).exception
    assert isinstance(error, UsageError)
    assert error.message == f"run {RUN} has no sbom.cdx.json"


def test_a_run_that_goes_on_is_left_alone(tmp_path: Path) -> None:
    with alone(ended_run(tmp_path)):
        assert isinstance(called(tmp_path).exception, UsageError)


def test_the_command_is_there(tmp_path: Path) -> None:
    ended_run(tmp_path, fail_on="high")
    command = [sys.executable, "-m", "bake.cli", "--runs", str(tmp_path), "scan", RUN]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert "error: 2 vulnerabilities of severity high or worse" in done.stderr
    assert "hint: update the packages, or waive them in the profile" in done.stderr
