"""`bake iam`: what it prints, what it asks AWS, and what it says where AWS does not tell."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bake.cli import main_group
from bake.errors import UsageError
from tests.bake.conftest import PlanCloud
from tests.bake.variables import VARIABLES

PROFILES = Path(__file__).parents[3] / "profiles"
ACCOUNT = ("--account", "123456789012")
ROLE = ("--role", "flux-worker")
Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`bake iam --profile g6e-ubuntu …` in an environment with the usual variables, and no credentials."""
    for name in [*os.environ]:
        if name.startswith(("FLUX_", "AWS_", "SPOT_", "BAKE_", "HF_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))

    def run(
        *arguments: str, profile: str = "g6e-ubuntu", profiles: Path = PROFILES, **variables: str
    ) -> Result:
        command = [f"--profiles={profiles}", f"--env-file={tmp_path / 'none'}", "iam", "--profile", profile]
        return CliRunner().invoke(main_group, [*command, *arguments], env={**VARIABLES, **variables})

    return run


def statements(result: Result) -> dict[str, dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return {one["Sid"]: one for one in json.loads(result.stdout)["Statement"]}


def failure(result: Result) -> UsageError:
    assert isinstance(result.exception, UsageError), result.output
    return result.exception


def test_it_prints_a_policy_and_nothing_else_and_asks_nobody(call: Call) -> None:
    result = call(*ACCOUNT, *ROLE)
    found = statements(result)
    assert found["PassTheWorkersRole"]["Resource"] == "arn:aws:iam::123456789012:role/flux-worker"
    assert result.stderr == ""


def test_account_and_role_are_asked_where_they_are_not_given(call: Call, plan_cloud: PlanCloud) -> None:
    iam = plan_cloud.aws().iam
    iam.create_role(RoleName="drawing", Path="/flux/", AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName="draws")
    iam.add_role_to_instance_profile(InstanceProfileName="draws", RoleName="drawing")
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    result = call(BAKE_INSTANCE_PROFILE="draws", AWS_ENDPOINT_URL=plan_cloud.endpoint, **keys)
    assert (
        statements(result)["PassTheWorkersRole"]["Resource"] == "arn:aws:iam::123456789012:role/flux/drawing"
    )
    assert result.stderr == ""


def test_a_role_that_nobody_tells_is_taken_to_be_called_like_the_instance_profile(call: Call) -> None:
    result = call(*ACCOUNT)
    found = statements(result)
    assert found["PassTheWorkersRole"]["Resource"] == "arn:aws:iam::123456789012:role/flux-worker"
    assert result.stderr == (
        "the role of the instance profile flux-worker is not known (AWS answers NoCredentialsError): taken "
        "to be flux-worker; see --role\n"
    )


def test_a_role_may_be_given_by_its_arn(call: Call) -> None:
    arn = "arn:aws:iam::210987654321:role/path/worker"
    assert statements(call(*ACCOUNT, "--role", arn))["PassTheWorkersRole"]["Resource"] == arn


def test_the_keys_arn_is_asked_and_else_any_key_of_the_account_is_meant(call: Call, tmp_path: Path) -> None:
    text = (PROFILES / "g6e-ubuntu.yaml").read_text() + "\n"
    (tmp_path / "g6e-ubuntu.yaml").write_text(text)
    (tmp_path / "own.yaml").write_text("extends: g6e-ubuntu\nroot_volume: {kms_key: '${BAKE_KMS_KEY}'}\n")
    how: Any = {"profile": "own", "profiles": tmp_path, "BAKE_KMS_KEY": "alias/bake"}
    result = call(*ACCOUNT, *ROLE, **how)
    assert statements(result)["UseTheVolumesKey"]["Resource"] == "arn:aws:kms:eu-north-1:123456789012:key/*"
    assert "the ARN of the key alias/bake is not known" in result.stderr
    arn = "arn:aws:kms:eu-north-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
    given = call(*ACCOUNT, *ROLE, **{**how, "BAKE_KMS_KEY": arn})
    assert (statements(given)["LendTheVolumesKey"]["Resource"], given.stderr) == (arn, "")


def test_a_secret_is_named_and_never_read(call: Call) -> None:
    result = call(*ACCOUNT, *ROLE, HF_TOKEN="secretsmanager:flux/hub#token")
    found = statements(result)["ReadTheProfilesSecrets"]
    assert found["Resource"] == "arn:aws:secretsmanager:eu-west-1:123456789012:secret:flux/hub-??????"
    token = call(*ACCOUNT, *ROLE, HF_TOKEN="hf_neverShownAnywhere")
    assert "ReadTheProfilesSecrets" not in statements(token)
    assert "hf_never" not in token.output


@pytest.mark.parametrize("audience", ["worker", "schedule", "sweep"])
def test_the_others_need_the_regions_and_no_more(call: Call, audience: str) -> None:
    absent = {name: "" for name in VARIABLES if "REGION" not in name}
    assert statements(call(*ACCOUNT, "--for", audience, **absent))
    missing = failure(call(*ACCOUNT, "--for", audience, SPOT_AWS_REGION=""))
    assert "the variable SPOT_AWS_REGION is not set" in missing.message


def test_the_callers_policy_needs_all_that_stands_in_it(call: Call) -> None:
    error = failure(call(*ACCOUNT, *ROLE, BAKE_SUBNET_ID="", BASE_AMI_ID="", HF_TOKEN=""))
    assert "BAKE_SUBNET_ID is not set" in error.message
    assert "BASE_AMI_ID is not set" in error.message
    assert "HF_TOKEN" not in error.message


@pytest.mark.parametrize("audience", ["worker", "schedule"])
def test_the_trust_policy_is_that_of_a_service(call: Call, audience: str) -> None:
    result = call(*ACCOUNT, "--for", audience, "--trust")
    [statement] = json.loads(result.stdout)["Statement"]
    assert statement["Action"] == "sts:AssumeRole"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(("--account", "1234"), "--account '1234' is no account id", id="account"),
        pytest.param((*ACCOUNT, "--role", "a b"), "--role 'a b' is no role", id="role"),
        pytest.param(("--for", "sweep", "--trust"), "is your choice", id="trust of a person"),
        pytest.param(("--trust",), "is your choice", id="trust of the caller"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_asked(
    call: Call, arguments: tuple[str, ...], message: str
) -> None:
    assert message in failure(call(*arguments)).message


def test_without_a_profile_it_says_so(tmp_path: Path) -> None:
    result = CliRunner().invoke(main_group, [f"--profiles={PROFILES}", "iam"])
    assert "--profile NAME is missing" in failure(result).message


def test_whoever_rolls_out_may_refresh_the_group_that_is_named(call: Call, tmp_path: Path) -> None:
    text = "extends: g6e-ubuntu\nchannels: {stable: {launch_template: '${BAKE_LAUNCH_TEMPLATE}'}}\n"
    folder = tmp_path / "profiles"
    folder.mkdir()
    for file in PROFILES.glob("*.yaml"):
        (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "fleet.yaml").write_text(text, encoding="utf-8")
    words = (*ACCOUNT, *ROLE, "--for", "rollout")
    of_fleet: Any = {"profile": "fleet", "profiles": folder}
    assert "BAKE_LAUNCH_TEMPLATE" in failure(call(*words, **of_fleet)).message
    of_fleet["BAKE_LAUNCH_TEMPLATE"] = "lt-0123456789abcdef0"
    one = statements(call(*words, "--asg", "workers", **of_fleet))
    group = "arn:aws:autoscaling:eu-north-1:123456789012:autoScalingGroup:*:autoScalingGroupName/"
    assert one["Refresh"]["Resource"] == f"{group}workers"
    assert one["HandOverTheWorkersRole"]["Resource"] == "arn:aws:iam::123456789012:role/flux-worker"
    assert one["LaunchByTheTemplates"]["Condition"] == {
        "ArnEquals": {
            "ec2:LaunchTemplate": "arn:aws:ec2:eu-north-1:123456789012:launch-template/lt-0123456789abcdef0"
        }
    }
    every = statements(call(*words, **of_fleet))
    assert every["Refresh"]["Resource"] == f"{group}*"
    named = call(*ACCOUNT, "--for", "rollout", **of_fleet, BAKE_INSTANCE_PROFILE="draws")
    assert statements(named)["HandOverTheWorkersRole"]["Resource"].endswith("role/draws")
    assert "--asg goes with --for rollout" in failure(call(*ACCOUNT, *ROLE, "--asg", "workers")).message
    assert "--for rollout is your choice" in failure(call(*words, "--trust")).message
