"""A rehearsal's process ignores settings of the user's environment that would mislead it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from bake import profile, surroundings

pytestmark = pytest.mark.integration
if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud

FOREIGN = {
    "AWS_PROFILE": "nobody",
    "AWS_DEFAULT_REGION": "nowhere",
    "AWS_ENDPOINT_URL_EC2": "http://127.0.0.1:9",
    "AWS_STS_REGIONAL_ENDPOINTS": "bogus",
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "BASH_ENV": "/nowhere",
    "BOTO_CONFIG": "/nowhere",
    "HF_HUB_OFFLINE": "1",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "MOTO_EC2_LOAD_DEFAULT_AMIS": "true",
    "PYTHONWARNINGS": "error",
    "SSL_CERT_FILE": "/nowhere",
    "TMPDIR": "/nowhere",
    "TRANSFORMERS_OFFLINE": "1",
    "http_proxy": "http://127.0.0.1:9",
    "no_proxy": "[::1",
}
OWN = {"BAKE_CACHE": "/somewhere", "PATH": "/bin", "PIP_INDEX_URL": "https://pip.example", "LC_ALL": "C"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """An environment of its own, as if nothing had been set aside in this process yet."""
    monkeypatch.setattr(surroundings, "_aside", {})
    with mock.patch.dict(os.environ, {**OWN, **FOREIGN}, clear=True):
        yield os.environ  # type: ignore[misc]


def seen(environment: dict[str, str]) -> dict[str, str]:
    """What is set, but for pytest's own."""
    return {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}


def test_what_belongs_to_other_tools_is_not_there(environment: dict[str, str]) -> None:
    surroundings.set_aside()
    assert seen(environment) == {**OWN, **surroundings.INSTEAD}
    surroundings.set_aside()
    assert seen(environment) == {**OWN, **surroundings.INSTEAD}


def test_an_environment_for_a_child_is_as_clean(environment: dict[str, str]) -> None:
    assert seen(surroundings.cleaned(environment)) == {**OWN, **surroundings.INSTEAD}


def test_a_folder_for_temporary_files_that_is_there_stays(tmp_path: Path) -> None:
    assert surroundings.cleaned({"TMPDIR": str(tmp_path)})["TMPDIR"] == str(tmp_path)


def test_profiles_still_see_what_was_exported(environment: dict[str, str]) -> None:
    before = seen(dict(profile.environment(None)))
    surroundings.set_aside()
    found = profile.environment(None)
    assert {name: found[name] for name in before} == before


def test_the_cache_of_this_machine_is_not_the_images(environment: dict[str, str], tmp_path: Path) -> None:
    environment["HUGGINGFACE_HUB_CACHE"] = "/mnt/mine"
    (tmp_path / ".env.local").write_text("HF_HUB_CACHE=/data/hub\n")
    surroundings.set_aside()
    assert profile.environment(tmp_path / ".env.local")["HF_HUB_CACHE"] == "/data/hub"
    assert "HF_HUB_CACHE" not in profile.environment(None)


def test_what_is_fetched_from_outside_goes_the_users_way(environment: dict[str, str]) -> None:
    surroundings.set_aside()
    with surroundings.users_network():
        for name in ("ALL_PROXY", "HTTPS_PROXY", "http_proxy", "no_proxy", "SSL_CERT_FILE"):
            assert environment[name] == FOREIGN[name]
        assert "AWS_PROFILE" not in environment
    assert seen(environment) == {**OWN, **surroundings.INSTEAD}


def test_warnings_are_no_errors_any_more() -> None:
    program = "from bake import surroundings; surroundings.set_aside(); import warnings\n"
    program += "warnings.warn('old', DeprecationWarning); warnings.warn('x', UserWarning); print('on')"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "on\n"
    assert "DeprecationWarning" not in done.stderr


BROKEN = "[default\nbroken"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_PROFILE", "nobody"),
        ("AWS_DEFAULT_PROFILE", "nobody"),
        ("AWS_CONFIG_FILE", "a broken one"),
        ("AWS_SHARED_CREDENTIALS_FILE", "a broken one"),
        ("HOME", "a broken one"),
        ("AWS_CA_BUNDLE", "/nowhere"),
        ("AWS_DEFAULTS_MODE", "bogus"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_ENDPOINT_URL_EC2", "nonsense"),
        ("AWS_MAX_ATTEMPTS", "x"),
        ("AWS_REQUEST_CHECKSUM_CALCULATION", "bogus"),
        ("AWS_RETRY_MODE", "bogus"),
        ("AWS_STS_REGIONAL_ENDPOINTS", "bogus"),
        ("AWS_USE_FIPS_ENDPOINT", "true"),
        ("HTTP_PROXY", "http://127.0.0.1:9"),
        ("http_proxy", "http://127.0.0.1:9"),
    ],
)
def test_clients_of_a_local_cloud_read_no_settings_of_aws(
    plan_cloud: PlanCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    """Also where nothing was set aside, as in a program that uses bake as a library."""
    (tmp_path / ".aws").mkdir()
    for file in ("config", "credentials"):
        (tmp_path / ".aws" / file).write_text(BROKEN)
    if value == "a broken one":
        value = str(tmp_path if name == "HOME" else tmp_path / ".aws/config")
    if name == "HOME":
        monkeypatch.delenv("AWS_CONFIG_FILE", raising=False)
        monkeypatch.delenv("AWS_SHARED_CREDENTIALS_FILE", raising=False)
    monkeypatch.setenv(name, value)
    aws = plan_cloud.aws()
    assert aws.ec2.describe_regions()["Regions"]
    assert aws.sqs.list_queues()["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert aws.s3.list_buckets()["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_on_aws_the_users_profile_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from botocore.exceptions import ProfileNotFound

    from bake.aws import Aws

    config = tmp_path / "config"
    config.write_text("[profile mine]\naws_access_key_id = one\naws_secret_access_key = two\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    aws = Aws(region="eu-north-1", worker_region="eu-west-1")
    assert aws._session.get_credentials().access_key == "one"
    assert aws.ec2.meta.config.proxies is None  # botocore asks the environment
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ProfileNotFound):
        _ = Aws(region="eu-north-1", worker_region="eu-west-1").ec2
