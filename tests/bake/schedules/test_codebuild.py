"""The CloudFormation stack, by cfn-lint and by what it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bake.schedules.codebuild import logical, substituted

from .conftest import Folder

LINT = Path(sys.executable).with_name("cfn-lint")
REAPED = "extends: g6e-ubuntu\nbuilder: {reaper: scheduler, reaper_role: '${BAKE_REAPER_ROLE}'}\n"


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms, such as `!Ref X`, as {"Ref": "X"}."""


def _short(loader: Any, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.SequenceNode):
        return {suffix: loader.construct_sequence(node, deep=True)}
    return {suffix: loader.construct_scalar(node)}


Loader.add_multi_constructor("!", _short)


def stack(folder: Folder, name: str = "g6e-ubuntu") -> dict[str, Any]:
    text = (folder.path / f"bake-{name}-codebuild.yaml").read_text()
    found: dict[str, Any] = yaml.load(text, Loader)
    return found


@pytest.mark.integration
def test_cfn_lint_has_nothing_to_say_of_a_right_stack_alone(folder: Folder) -> None:
    folder.profile("reaped", REAPED)
    profiles = ("g6e-ubuntu", "g5-ubuntu", "reaped")
    (file,) = folder.schedule("codebuild", "--cron", "0 3 1 * 1", profiles=profiles)["files"]
    done = subprocess.run([LINT, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    Path(file).write_text(Path(file).read_text().replace("TimeoutInMinutes: 180", "TimeoutInMinutes: 9999"))
    assert subprocess.run([LINT, file], capture_output=True, check=False).returncode


def test_the_scheduler_knows_the_zone_and_starts_a_build_in_the_vpc(folder: Folder) -> None:
    folder.schedule("codebuild", "--zone", "Europe/Berlin")
    resources = stack(folder)["Resources"]
    timed = resources["G6eUbuntuSchedule1"]["Properties"]
    assert timed["ScheduleExpression"] == "cron(0 3 ? * MON *)"
    assert timed["ScheduleExpressionTimezone"] == "Europe/Berlin"
    assert timed["Target"]["Arn"] == {"GetAtt": "G6eUbuntuProject.Arn"}
    project = resources["G6eUbuntuProject"]["Properties"]
    assert project["TimeoutInMinutes"] == 180
    assert project["ConcurrentBuildLimit"] == 1
    assert project["VpcConfig"]["Subnets"] == {"Ref": "Subnets"}


def test_days_of_both_kinds_are_two_schedules(folder: Folder) -> None:
    folder.schedule("codebuild", "--cron", "0 3 1 * 1")
    resources = stack(folder)["Resources"]
    expressions = [resources[f"G6eUbuntuSchedule{number}"]["Properties"] for number in (1, 2)]
    assert [one["ScheduleExpression"] for one in expressions] == ["cron(0 3 1 * ? *)", "cron(0 3 ? * MON *)"]


def test_the_build_may_do_what_bake_iam_prints(folder: Folder) -> None:
    folder.schedule("codebuild")
    role = stack(folder)["Resources"]["G6eUbuntuRole"]["Properties"]
    policy = role["Policies"][0]["PolicyDocument"]
    by_sid = {one["Sid"]: one for one in policy["Statement"]}
    assert by_sid["PassTheWorkersRole"]["Resource"] == {"Fn::Sub": "${WorkerRoleArn}"}
    launched = by_sid["LaunchWithTags"]
    assert launched["Condition"]["StringLike"]["aws:RequestTag/bake:profile"] == "g6e-ubuntu"
    assert "${AWS::AccountId}" in json.dumps(launched["Resource"])


def test_what_is_run_installs_bakes_and_shows_what_is_left(folder: Folder) -> None:
    folder.schedule("codebuild")
    text = stack(folder)["Resources"]["G6eUbuntuProject"]["Properties"]["Source"]["BuildSpec"]["Sub"]
    arns = re.sub(r"\$\{[A-Za-z0-9.]+\}", "arn:report", text).replace("${!", "${")
    spec = yaml.safe_load(arns)
    bakes = [line for line in spec["phases"]["build"]["commands"] if "bake/bin/bake" in line]
    assert bakes == [
        "/tmp/bake/bin/bake --profiles profiles --profile g6e-ubuntu --if-changed --exclusive",
    ]
    assert "sweep" in spec["phases"]["post_build"]["commands"][-1]
    assert spec["artifacts"]["exclude-paths"] == ["*/resume.jsonl"]
    assert spec["reports"]["arn:report"]["files"] == ["*/junit.xml"]


def test_variables_are_parameters_and_secrets_are_named_alone(folder: Folder) -> None:
    told = folder.schedule("codebuild")
    found = stack(folder)
    assert found["Parameters"]["SpotAwsRegion"]["Default"] == "eu-north-1"
    assert "Default" not in found["Parameters"]["HfToken"]
    variables = found["Resources"]["G6eUbuntuProject"]["Properties"]["Environment"]["EnvironmentVariables"]
    token = next(one for one in variables if one["Name"] == "HF_TOKEN")
    assert token == {"Name": "HF_TOKEN", "Type": "SECRETS_MANAGER", "Value": {"Ref": "HfToken"}}
    assert "AWS_REGION" not in {one["Name"] for one in variables}  # CodeBuild sets its own
    everything = json.dumps(told) + (folder.path / "bake-g6e-ubuntu-codebuild.yaml").read_text()
    assert "hf_neverShownAnywhere" not in everything


def test_failures_go_to_the_topic(folder: Folder) -> None:
    folder.schedule("codebuild", profiles=("g6e-ubuntu", "g5-ubuntu"))
    rule = stack(folder, "profiles")["Resources"]["FailureRule"]["Properties"]
    detail = rule["EventPattern"]["detail"]
    assert set(detail["build-status"]) == {"FAILED", "FAULT", "STOPPED", "TIMED_OUT"}
    assert detail["project-name"] == [{"Ref": "G6eUbuntuProject"}, {"Ref": "G5UbuntuProject"}]
    assert rule["Targets"][0]["Arn"] == {"Ref": "Failures"}


def test_the_reapers_role_is_there_where_a_profile_has_a_reaper(folder: Folder) -> None:
    folder.schedule("codebuild", profiles=(folder.profile("reaped", REAPED),))
    role = stack(folder, "reaped")["Resources"]["ReaperRole"]
    assert role["Condition"] == "MakesReaperRole"
    actions = role["Properties"]["Policies"][0]["PolicyDocument"]["Statement"][0]["Action"]
    assert "ec2:TerminateInstances" in actions
    folder.schedule("codebuild")
    assert "ReaperRole" not in stack(folder)["Resources"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--hours", "37"), "a build lasts 36 h at most"),
        (("--rehearse",), "a rehearsal needs root"),
        (("--role", "arn:aws:iam::123456789012:role/x"), "--role is for --as github"),
        (("--no-attest",), "--no-attest is for --as github"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cant_work_is_refused(folder: Folder, words: tuple[str, ...], told: str) -> None:
    assert told in folder.refusal("codebuild", *words).message


def test_a_value_that_is_not_known_is_asked_for(folder: Folder) -> None:
    """The policy names the subnet, and a policy for an example would allow nothing."""
    text = (folder.path / ".env.local").read_text()
    (folder.path / ".env.local").write_text(text.replace("BAKE_SUBNET_ID", "OTHER"))
    assert "BAKE_SUBNET_ID is not set" in folder.refusal("codebuild").message


def test_a_stack_that_is_too_large_for_a_call_goes_by_a_bucket(folder: Folder) -> None:
    assert "--s3-bucket" not in folder.schedule("codebuild")["to_do"][0]
    names = tuple(folder.profile(f"p{number}", "extends: g6e-ubuntu\n") for number in range(8))
    assert "--s3-bucket" in folder.schedule("codebuild", profiles=names)["to_do"][0]


def test_names_that_fall_together_in_a_stack_are_refused(folder: Folder) -> None:
    folder.profile("g6e_ubuntu", "extends: g6e-ubuntu\n")
    assert "the same names" in folder.refusal("codebuild", profiles=("g6e-ubuntu", "g6e_ubuntu")).message


@pytest.mark.parametrize(
    ("name", "expected"),
    [("g6e-ubuntu", "G6eUbuntu"), ("SPOT_AWS_REGION", "SpotAwsRegion"), ("a.b", "AB")],
)
def test_names_are_those_of_cloudformation(name: str, expected: str) -> None:
    assert logical(name) == expected


def test_texts_with_values_of_the_stack_are_filled_in_by_it() -> None:
    assert substituted({"a": ["x", "${AWS::AccountId}"], "b": 1}) == {
        "a": ["x", {"Fn::Sub": "${AWS::AccountId}"}],
        "b": 1,
    }
