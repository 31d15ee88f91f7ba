"""Running the checks and reporting them, with a fake session in place of the machine."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bake import checks, redaction
from bake.checks import Expectations, Report, catalogue, plugin
from bake.checks.result import GROUPS, SEVERITIES
from bake.errors import BakeError, ConnectionLost, Interrupted
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

NOT_ON_A_CPU_BUILDER = {
    "system.security_updates_installed",  # nor without base.updates
    "drivers.driver_is_new_enough",
    "drivers.driver_has_its_libraries",
    "drivers.gpus_answer",
    "drivers.torch_has_the_gpu",
    "drivers.neuron_module",
    "drivers.neuron_devices_are_there",
    "drivers.compiled_for_neuron",
    "performance.compiled_blocks",
    "drivers.worker_finds_what_is_compiled",
    "drivers.compiler_left_nothing_else",
    *(
        f"drivers.neuron_stack[aws-neuronx-{part}]"
        for part in ("runtime-lib", "dkms", "collectives", "tools")
    ),
    "weights.int8_is_whole",
    "weights.int8_draws_like_bf16",
    "weights.int8_is_roots",
}

# A capital, or a name that has none.
BEGIN = "(?:[A-Z`]|huggingface_hub |xformers |accelerate |float16 |systemd )"
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
    return checks.run(StandIn(answer), EXPECT, folder / "log", select=select)


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """A machine where every command fails."""
    folder = tmp_path_factory.mktemp("refused")
    return run(refuse, folder), folder


def test_every_check_says_what_it_is_about() -> None:
    every = [about for about, _ in catalogue.checks()]
    assert len({about.id for about in every}) == len({about.title for about in every}) == len(every) >= 80
    assert {about.group for about in every} == set(GROUPS)
    for about in every:
        assert re.fullmatch(r"[a-z]+\.[a-z0-9_]+", about.id)
        assert re.fullmatch(rf"{BEGIN}.{{15,}}[^.]", about.title), about.title
        assert about.severity in SEVERITIES
        assert about.requirements
        assert set(about.requirements) <= REQUIREMENTS
        assert re.fullmatch(rf"{BEGIN}.{{10,}}\.", about.rationale), about.rationale
        assert re.fullmatch(rf"{BEGIN}.{{5,}}\.", about.remedy), about.remedy
        assert about.cis is None or re.fullmatch(r"[A-Z].+ v\d[\d.]*: \d[\d.]+", about.cis)
        assert re.fullmatch(r"bake/checks/test_\w+[.]py:\d+", about.source)


def test_requirements_are_covered() -> None:
    named = {name for about, _ in catalogue.checks() for name in about.requirements}
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
    assert {check.outcome for check in report.checks} == {"failed", "not run", "not applicable"}
    assert all(check.reason for check in report.checks)
    assert {check.id for check in report.checks if check.outcome == "not applicable"} == NOT_ON_A_CPU_BUILDER


@pytest.mark.parametrize(
    ("accelerator", "needs_one"),
    [
        ("cuda", {"drivers.gpus_answer", "drivers.torch_has_the_gpu"}),
        ("neuron", {"drivers.neuron_devices_are_there"}),
        ("cpu", set()),
    ],
)
def test_what_needs_the_accelerator_is_checked_where_the_plan_has_one(
    tmp_path: Path, accelerator: str, needs_one: set[str]
) -> None:
    def ran(*, device: bool) -> Report:
        expect = dataclasses.replace(EXPECT, accelerator=accelerator, device=device)
        return checks.run(StandIn(refuse), expect, tmp_path / "log", select="drivers")

    without, report = ran(device=False), ran(device=True)
    applied = {check.id for check in without.checks if check.outcome != "not applicable"}
    assert {check.id for check in report.red} - applied == needs_one  # on a machine where nothing works
    reasons = {check.id: check.reason for check in without.checks}
    assert all("device" in reasons[name] for name in needs_one)


OWN = """
from bake.checks.declare import check

@check("low", "A reason.", "A remedy.", group="users")
def test_of_ours(host):
    '''Our policy holds (R-OS).'''
    assert host.run("true").rc == 0, "our policy"

@check("low", "A reason.", "A remedy.", group="users", asks=lambda expect: {"it": "true"})
def test_with_evidence(answers, compare):
    '''Our other policy holds.'''
    compare.equal(answers["it"], 0, answers["it"].code)

def test_plain(host):
    pass
"""


def test_checks_of_a_profile_run_beside_bakes_own(tmp_path: Path) -> None:
    file = tmp_path / "test_policy.py"
    file.write_text(OWN)
    report = checks.run(StandIn(refuse), EXPECT, tmp_path / "log", files=[file], select="policy")
    found = {check.id: check for check in report.checks}
    assert {name: check.outcome for name, check in found.items()} == {
        "users.policy.of_ours": "failed",
        "users.policy.with_evidence": "not run",
        "system.policy.plain": "passed",
    }
    ours = found["users.policy.of_ours"]
    assert "our policy" in ours.reason
    assert (ours.about.title, ours.about.requirements) == ("Our policy holds", ("R-OS",))
    assert ours.about.source == f"{file}:4"


def test_a_check_that_compares_nothing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "test_emptied.py"
    file.write_text("def test_emptied():\n    pass\n")
    monkeypatch.setattr(plugin, "HERE", tmp_path)  # as one of bake's own
    (check,) = checks.run(StandIn(refuse), EXPECT, tmp_path / "log", files=[file], select="emptied").checks
    assert (check.outcome, check.reason) == ("failed", plugin.NO_EVIDENCE)


def test_a_file_that_pytest_cannot_read_ends_the_run(tmp_path: Path) -> None:
    file = tmp_path / "test_broken.py"
    file.write_text("import no_such_module\n")
    with pytest.raises(BakeError, match="no_such_module"):
        checks.run(StandIn(refuse), EXPECT, tmp_path / "log", files=[file])


@pytest.mark.parametrize("name", ["conftest.py", "pytest.ini"])
def test_what_lies_beside_a_profiles_checks_does_not_matter(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("raise SystemExit('not to be read')\n")
    (tmp_path / "test_policy.py").write_text(OWN)
    report = checks.run(
        StandIn(refuse), EXPECT, tmp_path / "log", files=[tmp_path / "test_policy.py"], select="plain"
    )
    assert [check.outcome for check in report.checks] == ["passed"]


def test_the_token_reaches_no_report(refused: tuple[Report, Path]) -> None:
    report, folder = refused
    assert EXPECT.token and EXPECT.token not in repr(EXPECT)
    for text in ((folder / "log").read_text(), repr(report), EXPECT.as_json()):
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
report = checks.run(tests.StandIn(answer), tests.EXPECT, Path("log"), select=None)
agreed = dataclasses.replace(tests.EXPECT, volume_gib=80, volume_type="gp3")
session = tests.StandIn(answer)
passed = checks.run(session, agreed, Path("log"), select="as_agreed")
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
    report, _ = refused
    expected = f"{len(report.checks)} {len(report.red)} 2 True\n"
    assert done.stdout == expected, done.stderr + done.stdout


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
    assert 1 <= len(asked) <= 9  # what is asked at once: eight probes, and all commands


def test_expectations_alone_decide_on_the_volume(tmp_path: Path) -> None:
    agreed = dataclasses.replace(EXPECT, volume_gib=80, volume_type="gp3")
    report = checks.run(StandIn(refuse), agreed, tmp_path / "log", select="as_agreed")
    assert [check.outcome for check in report.checks] == ["passed", "passed"]
    assert report.ok


def test_a_check_that_fails_with_a_secret_does_not_keep_it(tmp_path: Path) -> None:
    def answer(command: str) -> CommandResult:
        return CommandResult(
            (command,), 1, f"out {EXPECT.token}", "https://me:canary@host hf_" + "x" * 30, 0.0
        )

    redaction.register(EXPECT.token)
    report = run(answer, tmp_path, select="test_system or test_worker")
    kept = (tmp_path / "log").read_text()
    told = "".join(check.model_dump_json() for check in report.checks)
    assert redaction.MARK in kept + told
    for secret in (EXPECT.token, "canary", "hf_xxx"):
        assert secret not in kept + told
