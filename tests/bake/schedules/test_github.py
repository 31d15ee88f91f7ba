"""The workflow of GitHub Actions, by its linters and by what it says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import NoCredentialsError
from click.testing import CliRunner

from bake.cli import main_group
from bake.errors import UsageError
from bake.schedules.definition import limit

from .conftest import Folder

TOOLS = Path(sys.executable).parent
FILE = ".github/workflows/bake-g6e-ubuntu.yml"
ROLE = "arn:aws:iam::123456789012:role/baker"
LINTERS = (
    ("actionlint", "-shellcheck", str(TOOLS / "shellcheck")),
    ("zizmor", "--offline", "--persona", "pedantic"),
)
PRIVATE = "extends: g6e-ubuntu\nbuilder: {address: private}\n"
FIXED = "extends: g6e-ubuntu\nbuilder: {security_group: temporary, ssh_from: '${BAKE_SSH_FROM}'}\n"


def workflow(folder: Folder, file: str = FILE) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder.path / file).read_text())
    return found


def step(found: dict[str, Any], name: str) -> dict[str, Any]:
    one: dict[str, Any] = next(one for one in found["jobs"]["bake"]["steps"] if one.get("name") == name)
    return one


@pytest.mark.integration
@pytest.mark.parametrize(
    "words",
    [
        pytest.param((), id="plain"),
        pytest.param(("--no-attest", "--runner", "self-hosted,linux,x64"), id="own runner"),
        pytest.param(
            ("--role", "arn:aws:iam::123456789012:role/baker", "--zone", "Europe/Berlin"), id="role"
        ),
    ],
)
def test_linters_have_nothing_to_say(folder: Folder, words: tuple[str, ...]) -> None:
    folder.schedule("github", *words, profiles=("g6e-ubuntu", "g5-ubuntu"))
    (file,) = Path(".github/workflows").iterdir()
    shellcheck = str(TOOLS / "shellcheck")
    for command in (
        ["actionlint", "-shellcheck", shellcheck],
        ["zizmor", "--offline", "--persona", "pedantic"],
    ):
        done = subprocess.run(
            [str(TOOLS / command[0]), *command[1:], str(file)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.integration
def test_the_linters_see_what_is_wrong(folder: Folder) -> None:
    folder.schedule("github")
    file = folder.path / FILE
    text = file.read_text()
    file.write_text(text.replace("runs-on: ubuntu-24.04", "runs-on: ubuntu-4.24"))
    assert subprocess.run([TOOLS / "actionlint", file], capture_output=True, check=False).returncode
    file.write_text(text.replace("@3d3c42e5aac5ba805825da76410c181273ba90b1", "@v7"))
    done = subprocess.run([TOOLS / "zizmor", "--offline", file], capture_output=True, check=False)
    assert done.returncode


def test_it_says_when_in_the_zone_itself(folder: Folder) -> None:
    told = folder.schedule("github", "--zone", "Europe/Berlin")
    assert workflow(folder)[True]["schedule"] == [{"cron": "0 3 * * 1", "timezone": "Europe/Berlin"}]
    assert len(told["next"]) == 3
    assert all("T03:00:00+0" in when for when in told["next"])


def test_a_job_has_few_rights_and_as_long_a_session_as_it_may_take(folder: Folder) -> None:
    folder.schedule("github", "--hours", "2.5")
    found = workflow(folder)
    job = found["jobs"]["bake"]
    assert found["permissions"] == {}
    assert job["permissions"] == {"contents": "read", "id-token": "write", "attestations": "write"}
    assert job["timeout-minutes"] == 150
    assert step(found, "Take the role")["with"]["role-duration-seconds"] == 9000
    assert job["concurrency"] == {"group": "bake-${{ matrix.profile }}", "cancel-in-progress": False}
    assert found["jobs"]["tell"]["permissions"] == {"issues": "write"}


def test_signals_reach_bake_itself(folder: Folder) -> None:
    folder.schedule("github")
    words = step(workflow(folder), "Bake")["run"].split()
    assert words[0] == "exec"
    assert {"--if-changed", "--exclusive"} <= set(words)


def test_variables_are_the_repositorys_and_secrets_its_secrets(folder: Folder) -> None:
    told = folder.schedule("github")
    text = (folder.path / FILE).read_text()
    env = step(workflow(folder), "Bake")["env"]
    assert env["HF_TOKEN"] == "${{ secrets.HF_TOKEN }}"
    assert env["SPOT_AWS_REGION"] == "${{ vars.SPOT_AWS_REGION }}"
    assert "hf_neverShownAnywhere" not in text + json.dumps(told)
    assert "HF_TOKEN" not in step(workflow(folder), "Show what killed bakes left")["env"]
    assert any("HF_TOKEN" in line for line in told["to_do"])


def test_the_report_is_kept_without_the_key_of_a_killed_run(folder: Folder) -> None:
    folder.schedule("github")
    kept = step(workflow(folder), "Keep the report")
    assert kept["if"] == "always()"
    assert "!.bake/runs/*/resume.jsonl" in kept["with"]["path"].split()


def test_attesting_can_be_left_out(folder: Folder) -> None:
    folder.schedule("github", "--no-attest")
    text = (folder.path / FILE).read_text()
    assert "actions/attest" not in text and "attestations" not in text


@pytest.mark.parametrize(("name", "text"), [("private", PRIVATE), ("fixed", FIXED)])
def test_a_hosted_runner_that_cant_reach_the_builder_is_refused(folder: Folder, name: str, text: str) -> None:
    profile = folder.profile(name, text)
    error = folder.refusal("github", profiles=("g6e-ubuntu", profile))
    assert error.message.startswith(f"{name}: builder.") and "builder.proxy_command" in error.message
    assert "--runner" in str(error.hint)
    folder.schedule("github", "--runner", "self-hosted", profiles=(profile,))
    through = folder.profile("through", f"{text[:-2]}, proxy_command: 'nc {{host}} {{port}}'}}\n")
    folder.schedule("github", profiles=(through,))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--hours", "7"), "a job on a hosted runner lasts 6 h at most"),
        (("--hours", "13", "--runner", "own"), "a role's session lasts 12 h at most"),
        (("--hours", "nan"), "is no time"),
        (("--role", "baker"), "is no ARN of a role"),
        (("--runner", "a b"), "is no label"),
        (("--rehearse",), "bake init --ci github"),
        (("--user", "x"), "--user is for --as systemd"),
        (("--name", "a/b"), "can't be in the name"),
        (("--cron", "0 3 31 2 *"), "never fires"),
        (("--cron", "*/3 3 * * *"), "every 5 minutes at most"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cant_work_is_refused(folder: Folder, words: tuple[str, ...], told: str) -> None:
    assert told in folder.refusal("github", *words).message


def test_a_file_that_says_otherwise_is_left_alone(folder: Folder) -> None:
    folder.schedule("github")
    folder.schedule("github")  # the same once more is no change
    (folder.path / FILE).write_text("mine\n")
    assert "there already" in folder.refusal("github").message
    assert (folder.path / FILE).read_text() == "mine\n"
    folder.schedule("github", "--replace")
    assert "jobs" in workflow(folder)


def test_it_is_written_where_it_is_wanted(folder: Folder) -> None:
    told = folder.schedule("github", "--out", "elsewhere", "--name", "nightly")
    assert told["files"] == ["elsewhere/bake-nightly.yml"]


def test_what_a_bake_would_refuse_is_told(folder: Folder) -> None:
    notes = folder.schedule("github")["notes"]
    assert any("bake approve --profile g6e-ubuntu" in note for note in notes)
    assert any("bake lock --profile g6e-ubuntu" in note for note in notes)
    assert any("port 22" in note for note in notes)


def test_a_schedule_that_is_faster_than_a_bake_is_told(folder: Folder) -> None:
    notes = folder.schedule("github", "--cron", "0 * * * *")["notes"]
    assert any("it fires every 60 min, and a bake may take 180" in note for note in notes)


@pytest.mark.parametrize(
    ("seconds", "minutes"), [(0, 120), (1800, 120), (1801, 135), (3600, 180), (20000, 735)], ids=str
)
def test_a_bake_may_take_twice_its_estimate_and_an_hour(seconds: float, minutes: int) -> None:
    assert limit(seconds) == minutes


def test_profiles_that_are_wrong_are_told_at_once(folder: Folder) -> None:
    folder.profile("broken", "extends: g6e-ubuntu\nroot_volum: {}\n")
    folder.profile("int8", "extends: g6e-ubuntu\nbase: {accelerator: neuron}\nweights: {precision: int8}\n")
    told = folder.refusal("github", profiles=("broken", "nope", "int8")).message
    assert "root_volum" in told and "no profile named 'nope'" in told and "this version bakes" in told
    assert "more than once" in folder.refusal("github", profiles=("g6e-ubuntu", "g6e-ubuntu")).message


@dataclass(frozen=True)
class Planned:
    """A proposal of which the estimate is known."""

    seconds: float

    @property
    def plan(self) -> Planned:
        return self

    @property
    def estimates(self) -> Planned:
        return self


def test_without_hours_the_plan_says_how_long_a_bake_may_take(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bake.request.propose", lambda *_: Planned(5000))
    assert folder.schedule("github", planned=True)["minutes"] == {"g6e-ubuntu": 240}


@pytest.mark.parametrize(
    "error", [UsageError("no such AMI", hint="look"), NoCredentialsError()], ids=["plan", "AWS"]
)
def test_where_there_is_no_plan_hours_can_be_said(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("bake.request.propose", fail)
    refused = folder.refusal("github", planned=True)
    assert refused.message.startswith("g6e-ubuntu: ")
    assert "--hours N" in str(refused.hint)


@pytest.mark.parametrize("kind", ["github", "codebuild"])
@pytest.mark.parametrize("place", ["/", "profiles/../profiles", "my profiles"])
def test_profiles_outside_the_repository_are_refused(folder: Folder, kind: str, place: str) -> None:
    where = str(folder.path / "profiles") if place == "/" else place
    if place == "my profiles":
        shutil.copytree("profiles", where)
    arguments = ["--profiles", where, "--profile", "g6e-ubuntu", "schedule", "--as", kind]
    with pytest.raises(UsageError, match="must be a folder of the repository"):
        CliRunner().invoke(
            main_group, [*arguments, "--cron", "0 3 * * 1", "--hours", "3"], catch_exceptions=False
        )


def test_profiles_may_be_named_before_the_command(folder: Folder) -> None:
    words = ["--profile", "g6e-ubuntu", "--profile", "g5-ubuntu", "schedule", "--as", "github"]
    words += ["--cron", "0 3 * * 1", "--hours", "3"]
    assert CliRunner().invoke(main_group, words, catch_exceptions=False).exit_code == 0
    found = workflow(folder, ".github/workflows/bake-profiles.yml")
    assert found["jobs"]["bake"]["strategy"]["matrix"]["profile"] == ["g6e-ubuntu", "g5-ubuntu"]
