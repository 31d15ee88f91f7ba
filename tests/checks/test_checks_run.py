"""Running the checks and reporting them, with a fake session in place of the machine."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from bake import checks, redaction
from bake.checks import Expectations, Report
from bake.errors import ConnectionLost, Interrupted
from bake.ssh import CommandResult, Login, Session

pytestmark = pytest.mark.integration
REQUIREMENTS = {
    "C-KIND", "C-PKG", "C-TREE", "C-SHAPE", "C-USE", "R-DISK", "R-EBS", "R-MODEL", "R-OOM", "R-XFORMERS",
    "R-OFFLOAD", "R-DTYPE", "R-HW", "R-INF2", "R-OS", "R-AMI", "R-NEURON", "R-CACHE", "R-SYSTEMD",
    "R-USERDATA", "R-CONFIG", "R-AGREE", "R-REGIONS", "R-GIT-S3", "R-SPOT",
}  # fmt: skip
EXPECT = Expectations(
    os_ids=frozenset({"debian"}),
    packages="apt",
    system_python=("python3",),
    user="ubuntu",
    home="/home/ubuntu",
    cache_dir="/home/ubuntu/.cache/huggingface/hub",
    repo="black-forest-labs/FLUX.1-dev",
    revision="3de623fc3c33e44ffbe2bad470d0f45bccf2eb21",
    files={"model_index.json": 536},
    digests={"model_index.json": "b" * 40},
    root_volume_gib=80,
    root_volume_type="gp3",
    volume_gib=8,
    volume_type="gp2",
    python="3.11",
    region="eu-north-1",
    token="hf_a-token-that-nobody-may-see",
)

Answer = Callable[[str], CommandResult]


class StandIn(Session):
    """A session whose every command gets the same treatment."""

    def __init__(self, answer: Answer) -> None:
        self.login = Login("192.0.2.1", "ubuntu", "", "ssh-ed25519 AAAA")
        self._answer = answer

    def run_shell(
        self, command: str, *, stdin: bytes | None = None, argv: tuple[str, ...] | None = None
    ) -> CommandResult:
        return self._answer(command)


def refuse(command: str) -> CommandResult:
    return CommandResult((command,), 1, "", "nothing works here", 0.0)


def run(answer: Answer, folder: Path, select: str | None = None) -> Report:
    return checks.run(StandIn(answer), EXPECT, folder / "junit.xml", folder / "log", select=select)


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """A machine where every command fails."""
    folder = tmp_path_factory.mktemp("refused")
    return run(refuse, folder), folder


def test_there_are_enough_checks_with_titles_of_their_own(refused: tuple[Report, Path]) -> None:
    found = refused[0].checks
    assert len(found) >= 25
    assert len({check.id for check in found}) == len({check.title for check in found}) == len(found)
    assert all(re.fullmatch(r"[A-Za-z].{15,}[.]", check.title) for check in found), found


def test_requirements_are_known_and_covered(refused: tuple[Report, Path]) -> None:
    named = {name for check in refused[0].checks for name in check.requirements}
    assert named <= REQUIREMENTS
    assert named >= {
        "R-DISK",
        "R-EBS",
        "R-MODEL",
        "R-XFORMERS",
        "R-OFFLOAD",
        "R-DTYPE",
        "R-OS",
        "R-CACHE",
        "R-SYSTEMD",
    }


def test_no_check_passes_on_a_machine_where_nothing_works(refused: tuple[Report, Path]) -> None:
    report, _ = refused
    assert [check.id for check in report.checks if check.outcome == "passed"] == []
    assert not report.ok
    assert report.red == report.checks
    assert all(check.message for check in report.red)


@pytest.mark.parametrize(
    ("accelerator", "needs_one"),
    [
        ("cuda", {"drivers::gpus_answer", "drivers::torch_has_the_gpu"}),
        ("neuron", {"drivers::neuron_devices_are_there"}),
        ("cpu", set()),
    ],
)
def test_what_needs_the_accelerator_is_checked_where_the_plan_has_one(
    tmp_path: Path, accelerator: str, needs_one: set[str]
) -> None:
    def ran(*, device: bool) -> Report:
        expect = dataclasses.replace(EXPECT, accelerator=accelerator, device=device)
        return checks.run(StandIn(refuse), expect, tmp_path / "x.xml", tmp_path / "log", select="drivers")

    without, report = {check.id for check in ran(device=False).checks}, ran(device=True)
    assert {check.id for check in report.checks} - without == needs_one
    assert needs_one <= {check.id for check in report.red}  # on a machine where nothing works


def test_junit_names_titles_and_requirements(refused: tuple[Report, Path]) -> None:
    report, folder = refused
    cases = ET.parse(folder / "junit.xml").getroot().findall(".//testcase")
    assert len(cases) == len(report.checks)
    user = next(case for case in cases if case.get("name") == "test_unit_user")
    properties = [(item.get("name"), item.get("value")) for item in user.iter("property")]
    assert ("requirement", "R-SYSTEMD") in properties
    assert ("title", "The worker runs as the image's user, not as root (R-SYSTEMD).") in properties


def test_the_token_reaches_no_report(refused: tuple[Report, Path]) -> None:
    report, folder = refused
    assert EXPECT.token and EXPECT.token not in repr(EXPECT)
    for text in ((folder / "junit.xml").read_text(), (folder / "log").read_text(), repr(report)):
        assert EXPECT.token not in text


def test_the_terminal_stays_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(refuse, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert "short test summary" in (tmp_path / "log").read_text()


def test_other_threads_may_print_meanwhile(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def answer(command: str) -> CommandResult:
        other = threading.Thread(target=print, args=("progress",))
        other.start()
        other.join()
        return refuse(command)

    run(answer, tmp_path, select="operating_system")
    assert "progress" in capfd.readouterr().out


def test_pytest_options_of_the_user_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: tuple[Report, Path]
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--exitfirst --no-such-option")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -k nothing\n")
    assert len(run(refuse, tmp_path).checks) == len(refused[0].checks)
    assert os.environ["PYTEST_ADDOPTS"] == "--exitfirst --no-such-option"


@pytest.mark.parametrize(
    ("name", "value"),
    [("PYTEST_PLUGINS", "no.such.plugin"), ("PYTEST_THEME", "none"), ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")],
)
def test_nor_do_its_other_variables(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: tuple[Report, Path],
    name: str,
    value: str,
) -> None:
    monkeypatch.setenv(name, value)
    assert len(run(refuse, tmp_path).checks) == len(refused[0].checks)
    assert os.environ[name] == value


VERDICT = """
import dataclasses, sys, warnings
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_checks_run as tests
from bake import checks

def answer(command):
    warnings.warn("old", DeprecationWarning)
    return tests.refuse(command)

assert checks.__file__.startswith({site!r}), checks.__file__
report = checks.run(tests.StandIn(answer), tests.EXPECT, Path("junit.xml"), Path("log"), select=None)
agreed = dataclasses.replace(tests.EXPECT, volume_gib=80, volume_type="gp3")
session = tests.StandIn(answer)
passed = checks.run(session, agreed, Path("junit.xml"), Path("log"), select="as_agreed")
print(len(report.checks), len(report.red), len(passed.checks), passed.ok)
"""


def test_what_lies_around_an_installed_bake_does_not_matter(
    tmp_path: Path, refused: tuple[Report, Path]
) -> None:
    """As in a project's own virtual environment: its conftest.py is above, and warnings are errors there."""
    site = tmp_path / "project/.venv/lib/site-packages"
    shutil.copytree(
        Path(checks.__file__).parents[1], site / "bake", ignore=shutil.ignore_patterns("__pycache__")
    )
    for folder in (tmp_path / "project", tmp_path):
        (folder / "conftest.py").write_text("raise SystemExit('this is about another project')\n")
    program = VERDICT.format(tests=str(Path(__file__).parent), site=str(site))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path / "project",
        env={**os.environ, "PYTHONPATH": str(site), "PYTEST_ADDOPTS": "--bogus"},
        capture_output=True,
        text=True,
        check=False,
    )
    count = len(refused[0].checks)
    assert done.stdout == f"{count} {count} 2 True\n", done.stderr + done.stdout


@pytest.mark.parametrize(
    "error",
    [ConnectionLost("gone"), Interrupted(), KeyboardInterrupt()],
    ids=lambda error: type(error).__name__,
)
def test_what_ends_the_bake_ends_the_checks(tmp_path: Path, error: BaseException) -> None:
    asked = []

    def answer(command: str) -> CommandResult:
        asked.append(command)
        raise error

    with pytest.raises(type(error)):
        run(answer, tmp_path)
    assert len(asked) == 1


def test_expectations_alone_decide_on_the_volume(tmp_path: Path) -> None:
    agreed = dataclasses.replace(EXPECT, volume_gib=80, volume_type="gp3")
    report = checks.run(StandIn(refuse), agreed, tmp_path / "junit.xml", tmp_path / "log", select="as_agreed")
    assert [check.outcome for check in report.checks] == ["passed", "passed"]
    assert report.ok


def test_a_check_that_fails_with_a_secret_does_not_keep_it(tmp_path: Path) -> None:
    def answer(command: str) -> CommandResult:
        return CommandResult(
            (command,), 1, f"out {EXPECT.token}", "https://me:canary@host hf_" + "x" * 30, 0.0
        )

    redaction.register(EXPECT.token)
    report = run(answer, tmp_path, select="test_system or test_service")
    kept = (tmp_path / "junit.xml").read_text() + (tmp_path / "log").read_text()
    told = "".join(check.message for check in report.checks)
    assert redaction.MARK in kept + told
    for secret in (EXPECT.token, "canary", "hf_xxx"):
        assert secret not in kept + told
    assert ET.fromstring((tmp_path / "junit.xml").read_text()) is not None
