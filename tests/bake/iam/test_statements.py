"""The policies' statements: each only where a profile needs it, with ARNs of its account."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bake import iam
from bake.creation import Labels, tags, time_of
from bake.iam import Account, Audience, Subject
from bake.iam.render import as_text
from flux_worker.access.permissions import Identity, permissions
from flux_worker.settings import AwsSettings
from tests.bake.iam import profiles
from tests.bake.iam.profiles import ENCRYPTED, FULL, PLAIN, SPOT

AT = Account("123456789012", "eu-north-1", "eu-west-1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return profiles.write(tmp_path_factory.mktemp("of-iam") / "profiles")


def actions(subject: Subject, audience: Audience = "caller") -> set[str]:
    return {action for one in iam.statements(audience, subject) for action in one.actions}


def resources(subject: Subject, sid: str, audience: Audience = "caller") -> tuple[str, ...]:
    return next(one.resources for one in iam.statements(audience, subject) if one.sid == sid)


def test_what_the_profile_does_not_want_is_not_allowed(folder: Path) -> None:
    plain, full = (actions(profiles.subject(name, folder)) for name in (PLAIN, FULL))
    assert plain < full
    assert full - plain == {
        "ec2:CancelSpotInstanceRequests",
        *("ec2:CreateSecurityGroup", "ec2:AuthorizeSecurityGroupIngress", "ec2:DeleteSecurityGroup"),
        *("ec2:GetEbsEncryptionByDefault", "ec2:GetEbsDefaultKmsKeyId", "ec2:ModifySnapshotAttribute"),
        *("ssm:GetParameter", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListBucketMultipartUploads"),
        *("scheduler:CreateScheduleGroup", "scheduler:TagResource", "scheduler:GetScheduleGroup"),
        *("scheduler:ListTagsForResource", "scheduler:DeleteScheduleGroup", "scheduler:CreateSchedule"),
        *("scheduler:UpdateSchedule", "scheduler:DeleteSchedule", "events:PutEvents"),
        *("ec2:DescribeLaunchTemplates", "ec2:DescribeLaunchTemplateVersions", "ssm:DescribeParameters"),
        *("ec2:DescribeSpotFleetRequests", "ec2:CreateImageUsageReport", "ssm:GetParameters"),
        *("ec2:DescribeImageUsageReports", "ec2:DescribeImageUsageReportEntries"),
        *("autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeLaunchConfigurations"),
    }
    encrypted = actions(profiles.subject(ENCRYPTED, folder)) - plain
    assert {one.partition(":")[0] for one in encrypted} == {"kms", "secretsmanager"}


def test_a_launch_is_limited_to_what_was_agreed(folder: Path) -> None:
    found = resources(profiles.subject(PLAIN, folder), "LaunchFromWhatIsAgreed")
    assert found == (
        "arn:aws:ec2:eu-north-1::image/ami-0123456789abcdef0",
        "arn:aws:ec2:eu-north-1:123456789012:subnet/subnet-0123456789abcdef0",
        "arn:aws:ec2:eu-north-1:123456789012:security-group/sg-0123456789abcdef0",
    )
    by_parameter = resources(profiles.subject(FULL, folder), "LaunchFromWhatIsAgreed")
    assert by_parameter[0] == "arn:aws:ec2:eu-north-1::image/*"
    assert not [one for one in by_parameter if "security-group" in one]


def test_a_parameter_of_awss_own_is_in_no_account(folder: Path) -> None:
    subject = profiles.subject(FULL, folder)
    assert resources(subject, "ReadTheBasesId") == (
        "arn:aws:ssm:eu-north-1:123456789012:parameter/bake/base",
    )
    base = subject.profile.base.model_copy(update={"ssm": "/aws/service/neuron/dlami/latest/image_id"})
    public = Subject.of(subject.profile.model_copy(update={"base": base}), "123456789012", role="x")
    assert resources(public, "ReadTheBasesId") == (
        "arn:aws:ssm:eu-north-1::parameter/aws/service/neuron/dlami/latest/image_id",
    )


def test_the_workers_places_are_those_of_the_profile_and_of_boot_checks(folder: Path) -> None:
    full, plain = (profiles.subject(name, folder) for name in (FULL, PLAIN))
    assert resources(full, "ReceiveJobs", "worker") == (
        "arn:aws:sqs:eu-west-1:123456789012:needs-jobs",
        "arn:aws:sqs:eu-west-1:123456789012:bake-*",
    )
    assert resources(full, "StoreImages", "worker")[0] == "arn:aws:s3:::needs-store/*"
    assert resources(plain, "Announce", "worker") == (
        "arn:aws:events:eu-west-1:123456789012:event-bus/bake-*",
    )


@pytest.mark.parametrize(
    ("queue", "bus", "expected"),
    [
        pytest.param(
            "https://sqs.eu-west-1.amazonaws.com/210987654321/jobs",
            "arn:aws:events:eu-west-1:210987654321:event-bus/flux",
            (
                "arn:aws:sqs:eu-west-1:210987654321:jobs",
                "arn:aws:events:eu-west-1:210987654321:event-bus/flux",
            ),
            id="of another account",
        ),
        pytest.param(
            "https://queue.example.com/jobs",
            "flux",
            (
                "arn:aws:sqs:eu-west-1:123456789012:jobs",
                "arn:aws:events:eu-west-1:123456789012:event-bus/flux",
            ),
            id="by name alone",
        ),
    ],
)
def test_queue_and_bus_keep_the_account_that_they_name(
    folder: Path, queue: str, bus: str, expected: tuple[str, str]
) -> None:
    found = profiles.subject(PLAIN, folder).profile
    worker = found.worker.model_copy(update={"queue": queue, "bus": bus})
    subject = Subject.of(found.model_copy(update={"worker": worker}), "123456789012")
    assert (subject.queue, subject.bus) == expected


def test_the_worker_has_exactly_the_rights_that_it_looks_for_itself(folder: Path) -> None:
    """`flux-worker check --aws` and `bake iam --for worker` tell the same."""
    settings = AwsSettings.from_environment(
        {
            "AWS_REGION": "eu-west-1",
            "FLUX_QUEUE_URL": profiles.GIVEN["NEEDS_QUEUE_URL"],
            "FLUX_BUCKET": profiles.STORE,
            "FLUX_EVENT_BUS": profiles.BUS,
            "FLUX_CLOUDWATCH_NAMESPACE": profiles.NAMESPACE,
        }
    )
    wanted = {one.action for one in permissions(settings, Identity(None, "123456789012", "aws"))}
    assert actions(profiles.subject(FULL, folder), "worker") == wanted


def test_a_worker_reads_weights_below_the_prefix_alone_and_only_where_the_profile_says_so(
    folder: Path,
) -> None:
    plain, full = (profiles.subject(name, folder) for name in (PLAIN, FULL))
    assert resources(full, "ReadWeights", "worker") == ("arn:aws:s3:::needs-stream/flux/*",)
    assert "ReadWeights" not in {one.sid for one in iam.statements("worker", plain)}
    assert resources(full, "UseTheMirror")[2:] == (
        "arn:aws:s3:::needs-store/weights/*",
        "arn:aws:s3:::needs-stream/flux/*",
    )


def test_metrics_are_published_in_one_namespace_and_only_where_the_profile_has_one(folder: Path) -> None:
    assert "cloudwatch:PutMetricData" not in actions(profiles.subject(PLAIN, folder), "worker")
    found = iam.document(iam.statements("worker", profiles.subject(FULL, folder)))["Statement"]
    assert [one["Condition"] for one in found if one["Action"] == "cloudwatch:PutMetricData"] == [
        {"StringEquals": {"cloudwatch:namespace": profiles.NAMESPACE}}
    ]


def test_the_tags_that_conditions_ask_for_are_in_every_call_that_creates(folder: Path) -> None:
    subject = profiles.subject(PLAIN, folder)
    expires = time_of("2026-01-01T00:00:00Z")
    assert expires is not None
    given = {
        tag["Key"]: tag["Value"] for tag in tags(Labels(PLAIN, "p", "w", "ubuntu", "cuda"), "r", "n", expires)
    }
    asked = subject.new["StringLike"]
    assert {key.partition("/")[2] for key in asked} == {"bake:profile", "bake:run"} <= given.keys()
    assert asked["aws:RequestTag/bake:profile"] == given["bake:profile"]


@pytest.mark.parametrize("audience", iam.AUDIENCES)
def test_policies_are_small_enough_for_a_managed_one(folder: Path, audience: Audience) -> None:
    for name in (PLAIN, SPOT, ENCRYPTED):
        policy = iam.document(iam.statements(audience, profiles.subject(name, folder)))
        assert iam.size(policy) <= iam.MANAGED == 6144, name
        assert iam.too_large(policy) == ""


def test_a_profile_that_wants_everything_needs_an_inline_policy(folder: Path) -> None:
    policy = iam.document(iam.statements("caller", profiles.subject(FULL, folder)))
    assert iam.MANAGED < iam.size(policy) < iam.INLINE
    assert "10,240" in iam.too_large(policy)


def test_a_policy_that_is_too_large_is_told() -> None:
    policy = {"Statement": [{"Resource": "x" * 6200}]}
    assert f"{iam.size(policy):,} characters" in iam.too_large(policy)
    assert "10,240" in iam.too_large(policy)


@pytest.mark.parametrize("audience", iam.AUDIENCES)
@pytest.mark.parametrize("name", [PLAIN, SPOT, FULL, ENCRYPTED])
def test_a_policy_is_well_formed(folder: Path, audience: Audience, name: str) -> None:
    policy = iam.document(iam.statements(audience, profiles.subject(name, folder)))
    sids = [one["Sid"] for one in policy["Statement"]]
    assert len(sids) == len(set(sids))
    assert all(re.fullmatch("[A-Za-z0-9]+", sid) for sid in sids)  # IAM takes no others
    for one in iam.statements(audience, profiles.subject(name, folder)):
        assert len(set(one.actions)) == len(one.actions), one.sid
        assert len(set(one.resources)) == len(one.resources), one.sid
        assert one.why, one.sid
        assert all(arn == "*" or arn.count(":") >= 5 for arn in one.resources), one.sid
    assert json.loads(as_text(policy)) == policy


def test_the_text_has_short_lines_whatever_is_in_it(folder: Path) -> None:
    policy = iam.document(iam.statements("caller", profiles.subject(FULL, folder)))
    assert max(map(len, as_text(policy).splitlines())) <= 110
    odd: Any = {"a": [], "b": {}, "c": [{"d": "é"}], "e": "x" * 200, "f": None}
    assert json.loads(as_text(odd)) == odd


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("eu-north-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
        ("eusc-de-east-1", "aws-eusc"),
    ],
)
def test_the_partition_follows_from_the_region(region: str, partition: str) -> None:
    assert iam.partition_of(region) == partition


def test_in_china_the_role_is_passed_to_the_services_name_there() -> None:
    china = Account("123456789012", "cn-north-1", "cn-north-1", "aws-cn")
    assert china.ec2_service == "ec2.amazonaws.com.cn"
    trust = iam.trust("worker", china)
    assert trust is not None
    assert trust.as_dict()["Statement"][0]["Principal"] == {"Service": "ec2.amazonaws.com.cn"}


def test_the_scheduler_takes_the_reapers_role_for_bakes_alone() -> None:
    trust = iam.trust("schedule", AT)
    assert trust is not None
    [statement] = trust.as_dict()["Statement"]
    assert statement["Principal"] == {"Service": "scheduler.amazonaws.com"}
    assert statement["Condition"] == {
        "StringEquals": {"aws:SourceAccount": "123456789012"},
        "ArnLike": {"aws:SourceArn": "arn:aws:scheduler:eu-north-1:123456789012:schedule-group/bake-*"},
    }
    assert iam.trust("caller", AT) is None


def test_a_sweep_in_one_region_names_it_once() -> None:
    found = iam.of_sweep(Account("123456789012", "eu-west-1", "eu-west-1"))
    groups = next(one for one in found if one.sid == "ScheduleGroups")
    assert groups.resources == ("arn:aws:scheduler:eu-west-1:123456789012:schedule-group/bake-*",)
