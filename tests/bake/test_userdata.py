"""User data stays within EC2's limit, contains no secret, and pins its script by hash."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bake import userdata
from bake.cli import main_group
from bake.errors import UsageError
from bake.instance import USER_DATA_LIMIT

from .sources import Repository, repository

PROFILES = Path(__file__).parents[2] / "profiles"
SETTINGS = {
    "AWS_REGION": "eu-west-1",
    "SPOT_AWS_REGION": "eu-north-1",
    "FLUX_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs",
    "FLUX_BUCKET": "pictures",
    "FLUX_EVENT_BUS": "flux",
}
Call = Callable[..., Result]


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return repository(tmp_path_factory.mktemp("git") / "flux")


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """`bake userdata --profile g6e-ubuntu …` in an environment that holds what is given and no more."""

    def run(*arguments: str, profiles: Path = PROFILES, **variables: str) -> Result:
        kept = {
            name: None for name in os.environ if name.startswith(("FLUX_", "AWS_", "SPOT_", "BAKE_", "HF_"))
        }
        command = [f"--profiles={profiles}", f"--env-file={tmp_path / 'none'}", "userdata"]
        return CliRunner().invoke(
            main_group, [*command, "--profile", "g6e-ubuntu", *arguments], env={**kept, **variables}
        )

    return run


def environment_of(script: str) -> dict[str, str]:
    """What the here-document of the script puts into instance.env, as a shell reads it."""
    lines = script.split("<<'END'\n")[1].split("END\n")[0].splitlines()
    return {name: shlex.split(value)[0] for name, _, value in (line.partition("=") for line in lines)}


def test_it_writes_queue_bucket_bus_and_regions_and_nothing_else(call: Call) -> None:
    result = call(**SETTINGS, HF_TOKEN="hf_neverShownAnywhere")
    assert result.exit_code == 0, result.output
    assert environment_of(result.stdout) == SETTINGS
    assert "hf_never" not in result.output
    assert "git" not in result.stdout
    assert "worker.source is not set" in result.stderr


def test_it_writes_the_namespace_of_metrics_that_the_profile_names(call: Call, tmp_path: Path) -> None:
    (tmp_path / "metered.yaml").write_text("extends: g6e-ubuntu\nworker: {cloudwatch_namespace: Flux}\n")
    (tmp_path / "g6e-ubuntu.yaml").write_bytes((PROFILES / "g6e-ubuntu.yaml").read_bytes())
    result = call("--profile=metered", profiles=tmp_path, **SETTINGS)
    assert result.exit_code == 0, result.output
    assert environment_of(result.stdout) == SETTINGS | {"FLUX_CLOUDWATCH_NAMESPACE": "Flux"}


def test_it_writes_where_weights_are_read_beside_the_volume(call: Call, tmp_path: Path) -> None:
    (tmp_path / "fast.yaml").write_text("extends: g6e-ubuntu\nweights: {stream: 's3://weights/flux'}\n")
    (tmp_path / "g6e-ubuntu.yaml").write_bytes((PROFILES / "g6e-ubuntu.yaml").read_bytes())
    result = call("--profile=fast", profiles=tmp_path, **SETTINGS)
    assert result.exit_code == 0, result.output
    assert environment_of(result.stdout) == SETTINGS | {"FLUX_STREAM": "s3://weights/flux"}
    again = call("--profile=fast", "--set=FLUX_STREAM=s3://others", profiles=tmp_path, **SETTINGS)
    assert isinstance(again.exception, UsageError)
    assert "--set FLUX_STREAM: the profile says what it is" in again.exception.message


def test_it_needs_no_variable_beside_the_workers_and_names_all_that_are_missing(call: Call) -> None:
    result = call(AWS_REGION="eu-west-1", SPOT_AWS_REGION="eu-north-1", FLUX_BUCKET="pictures")
    assert isinstance(result.exception, UsageError)
    assert result.exception.message.splitlines() == [
        "worker.queue: is missing, and a worker can't start without it: set FLUX_QUEUE_URL",
        "worker.bus: is missing, and a worker can't start without it: set FLUX_EVENT_BUS",
    ]
    missing = call(FLUX_BUCKET="pictures")
    assert isinstance(missing.exception, UsageError)
    assert "the variable AWS_REGION is not set" in missing.exception.message
    assert "the variable SPOT_AWS_REGION is not set" in missing.exception.message


def test_the_scripts_hashes_are_those_of_the_commit_and_not_of_the_folder(
    call: Call, code: Repository
) -> None:
    commit = code.commit()
    gpu = code.directory / "provision/launch/gpu.sh"
    pinned = hashlib.sha256(gpu.read_bytes()).hexdigest()
    gpu.write_text("#!/bin/sh\necho newer\n")
    code.commit()
    result = call(**SETTINGS, FLUX_GIT_URL=code.url, FLUX_GIT_COMMIT=commit)
    assert result.exit_code == 0, result.output
    assert f"script=gpu.sh sha256={pinned}" in result.stdout
    assert f"commit={commit}" in result.stdout
    assert len(result.stdout.encode()) < 4096
    assert result.stderr == ""


def test_the_script_is_well_formed_shell(call: Call, code: Repository, tmp_path: Path) -> None:
    file = tmp_path / "userdata.sh"
    for more in ({}, {"FLUX_GIT_URL": code.url, "FLUX_GIT_COMMIT": code.commit()}):
        assert call("--out", str(file), **SETTINGS, **more).exit_code == 0
        checked = subprocess.run(
            [str(Path(sys.executable).parent / "shellcheck"), str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("kind", "script"),
    [
        ("inf2.24xlarge", "neuron.sh"),
        ("trn1.2xlarge", "neuron.sh"),
        ("g6e.xlarge", "gpu.sh"),
        ("p5.48xlarge", "gpu.sh"),
    ],
)
def test_the_instance_type_picks_the_script(call: Call, code: Repository, kind: str, script: str) -> None:
    text = call(**SETTINGS, FLUX_GIT_URL=code.url, FLUX_GIT_COMMIT=code.commit()).stdout
    choice = text[text.index("case ") : text.index("esac") + 4]
    done = subprocess.run(
        ["bash", "-c", f'type={kind}\n{choice}\necho "$script"'], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == script


@pytest.mark.parametrize(
    ("commit", "text"),
    [
        pytest.param("0" * 40, "has no commit 0000", id="no such commit"),
        pytest.param("no launch", "has no provision/launch/neuron.sh", id="no scripts in it"),
    ],
)
def test_a_commit_missing_in_git_is_reported(call: Call, tmp_path: Path, commit: str, text: str) -> None:
    made = repository(tmp_path / "flux")
    (made.directory / "provision/launch/neuron.sh").unlink()
    bare = made.commit()
    result = call(
        **SETTINGS, FLUX_GIT_URL=made.url, FLUX_GIT_COMMIT=bare if commit == "no launch" else commit
    )
    assert isinstance(result.exception, UsageError)
    assert text in result.exception.message


def test_a_missing_repository_is_reported(call: Call, tmp_path: Path) -> None:
    result = call(**SETTINGS, FLUX_GIT_URL=f"file://{tmp_path}/nothing", FLUX_GIT_COMMIT="0" * 40)
    assert isinstance(result.exception, UsageError)
    assert "worker.source: git fetch failed" in result.exception.message


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        pytest.param("HF_TOKEN=x", "that is a secret", id="a secret's name"),
        pytest.param("NOTE=hf_abcdefghijklmn", "holds a Hugging Face token", id="a secret's value"),
        pytest.param("flux=1", "capitals", id="no name"),
        pytest.param("FLUX_BUCKET=other", "the profile says", id="said already"),
        pytest.param("A=1\nB=2", "line break", id="two lines"),
        pytest.param("A", "write NAME=VALUE", id="no value"),
    ],
)
def test_settings_that_user_data_does_not_take(call: Call, setting: str, text: str) -> None:
    result = call("--set", setting, **SETTINGS)
    assert isinstance(result.exception, UsageError)
    assert text in result.exception.message
    assert "hf_abc" not in result.exception.message


def test_the_place_of_a_secret_may_stand_there(call: Call) -> None:
    result = call("--set", "WEBHOOK_TOKEN=secretsmanager:flux#hook", **SETTINGS)
    assert environment_of(result.stdout)["WEBHOOK_TOKEN"] == "secretsmanager:flux#hook"


def test_a_queue_from_secrets_manager_is_refused(tmp_path: Path, call: Call) -> None:
    result = call(**{**SETTINGS, "FLUX_QUEUE_URL": "secretsmanager:flux#queue"})
    assert isinstance(result.exception, UsageError)
    assert "worker.queue" in result.exception.message


def test_what_is_too_large_is_gzipped_and_the_same_each_time(call: Call) -> None:
    settings = [f"--set=EXTRA_{number}={'x' * 100}" for number in range(200)]
    result = call("--base64", *settings, **SETTINGS)
    content = base64.b64decode(result.stdout)
    assert len(content) <= USER_DATA_LIMIT
    assert len(result.stdout.strip()) <= 21_848
    assert len(environment_of(gzip.decompress(content).decode())) == 205
    assert call("--base64", *settings, **SETTINGS).stdout == result.stdout


def test_what_fits_is_left_as_it_can_be_read(call: Call) -> None:
    text = call(**SETTINGS).stdout
    assert base64.b64decode(call("--base64", **SETTINGS).stdout).decode() == text
    assert userdata.fitting("x" * USER_DATA_LIMIT) == userdata.UserData(b"x" * USER_DATA_LIMIT, gzipped=False)
    assert userdata.fitting("x" * (USER_DATA_LIMIT + 1)).gzipped


def test_user_data_too_large_even_gzipped_is_refused() -> None:
    noise = base64.b64encode(hashlib.shake_256(b"noise").digest(30_000)).decode()
    with pytest.raises(UsageError, match="EC2 takes 16,384"):
        userdata.fitting(noise)
