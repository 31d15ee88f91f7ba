"""What each resource says, and why that matters."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

from bake import userdata
from bake.fleet import template
from bake.fleet.request import placed
from flux_worker.host.cloudwatch import METRIC

from .fleets import ACCOUNT, HOME, IMAGE, SPOT, TOPICS, fleet, resources, with_fleet

OWN = "flux-g6e-ubuntu-stable"
OWN_URL = f"https://sqs.{HOME}.amazonaws.com/{ACCOUNT}/{OWN}"
OWN_BUCKET = f"{OWN}-{ACCOUNT}-{HOME}"
THEIRS = {"queue": f"https://sqs.{HOME}.amazonaws.com/{ACCOUNT}/theirs", "bucket": "theirs", "bus": "theirs"}


# Queue, bucket, bus


def test_what_the_profile_names_is_used_and_not_created() -> None:
    found = resources("jobs", worker=THEIRS)
    assert set(found) == {"OldJobsAlarm"}
    told = json.dumps(resources("workers", worker=THEIRS))
    assert f"arn:aws:sqs:{HOME}:{ACCOUNT}:theirs" in told
    assert "arn:aws:s3:::theirs/*" in told
    assert "event-bus/theirs" in told
    assert OWN_BUCKET not in told


@pytest.mark.parametrize("kind", THEIRS)
def test_each_is_its_own_question(kind: str) -> None:
    made = {"queue": "Jobs", "bucket": "Images", "bus": "Announcements"}
    found = resources("jobs", worker={kind: THEIRS[kind]})
    assert {key for key, name in made.items() if name in found} == set(made) - {kind}


def test_what_the_stack_created_stays_in_it_where_the_profile_names_it_later() -> None:
    own = {"queue": OWN_URL, "bucket": OWN_BUCKET, "bus": OWN}
    assert template(fleet(worker=own)) == template(fleet())


def test_the_bucket_of_a_long_name_is_a_bucket_and_no_other_fleets() -> None:
    names = set()
    for channel in ("a" * 31 + "b", "a" * 31 + "c"):
        found, _ = placed(with_fleet(), channel, ACCOUNT)
        names.add(str(found.worker.bucket))
    assert len(names) == 2
    assert {len(name) for name in names} == {63}


def test_no_job_is_lost_with_the_stack() -> None:
    found = resources("jobs")
    for name in ("Jobs", "DeadLetters", "Images", "Announcements"):
        assert found[name]["DeletionPolicy"] == found[name]["UpdateReplacePolicy"] == "Retain"


def test_dead_letters_outlive_jobs() -> None:
    found = resources("jobs")
    kept = {name: found[name]["Properties"]["MessageRetentionPeriod"] for name in ("Jobs", "DeadLetters")}
    assert kept["DeadLetters"] > kept["Jobs"]  # a dead letter keeps its age


def test_images_never_outlive_their_records() -> None:
    rules = resources("jobs", "Images", keep_days=30)["LifecycleConfiguration"]["Rules"]
    assert [rule for rule in rules if "ExpirationInDays" in rule] == [
        {"Id": "images-and-records", "Status": "Enabled", "ExpirationInDays": 30}
    ]
    rules = resources("jobs", "Images")["LifecycleConfiguration"]["Rules"]
    assert not [rule for rule in rules if "ExpirationInDays" in rule]


# The instances


def data(**changes: Any) -> Any:
    return resources("workers", "LaunchTemplate", **changes)["LaunchTemplateData"]


def test_instances_are_launched_from_the_literal_ami_with_imdsv2() -> None:
    assert data()["ImageId"] == IMAGE
    assert data()["MetadataOptions"]["HttpTokens"] == "required"
    assert data()["SecurityGroupIds"] == ["sg-0123456789abcdef0"]


def test_the_root_volume_is_the_agreed_one() -> None:
    [plain] = data()["BlockDeviceMappings"]
    assert plain == {
        "DeviceName": "/dev/sda1",
        "Ebs": {"VolumeSize": 80, "VolumeType": "gp3", "DeleteOnTermination": True},
    }
    [asked] = data(volume={"iops": 6000, "throughput": 500}, start={"volume_initialization_rate": 300})[
        "BlockDeviceMappings"
    ]
    assert asked["Ebs"] == {
        **plain["Ebs"],
        "Iops": 6000,
        "Throughput": 500,
        "VolumeInitializationRate": 300,
    }


def test_the_user_data_is_that_of_bake_userdata() -> None:
    text = data(more={"FLUX_S3_PREFIX": "pictures/"})["UserData"]["Fn::Base64"]
    own = {"queue": OWN_URL, "bucket": OWN_BUCKET, "bus": OWN, "cloudwatch_namespace": "FluxWorker"}
    made = userdata.make(with_fleet(worker=own), {"FLUX_S3_PREFIX": "pictures/"}, {})
    assert text == made.content.decode()
    assert "\nFLUX_CLOUDWATCH_NAMESPACE=FluxWorker\n" in text
    assert f"\nFLUX_QUEUE_URL={OWN_URL}\n" in text
    assert f"\nSPOT_AWS_REGION={SPOT}\n" in text


def test_user_data_that_had_to_be_gzipped_comes_as_it_is() -> None:
    long = {f"FLUX_N{number}": "x" * 60 for number in range(999)}
    found = data(more=long)["UserData"]
    assert f"FLUX_N998={'x' * 60}" in gzip.decompress(base64.b64decode(found)).decode()


def test_the_role_may_do_what_bake_iam_says_at_the_fleets_own_places_alone() -> None:
    role = resources("workers", "WorkerRole")
    [policy] = role["Policies"]
    by_sid = {one["Sid"]: one for one in policy["PolicyDocument"]["Statement"]}
    assert by_sid["ReceiveJobs"]["Resource"] == f"arn:aws:sqs:{HOME}:{ACCOUNT}:{OWN}"
    assert by_sid["StoreImages"]["Resource"] == f"arn:aws:s3:::{OWN_BUCKET}/*"
    assert "bake-*" not in json.dumps(policy)


def test_workers_are_told_where_to_read_weights_and_may_read_there_alone() -> None:
    found = resources("workers", weights={"stream": "s3://some-weights/flux"})
    data = found["LaunchTemplate"]["Properties"]["LaunchTemplateData"]["UserData"]["Fn::Base64"]
    assert "FLUX_STREAM=s3://some-weights/flux\n" in data
    [policy] = found["WorkerRole"]["Properties"]["Policies"]
    by_sid = {one["Sid"]: one for one in policy["PolicyDocument"]["Statement"]}
    assert (by_sid["ReadWeights"]["Action"], by_sid["ReadWeights"]["Resource"]) == (
        "s3:GetObject",
        "arn:aws:s3:::some-weights/flux/*",
    )


def test_the_group_allows_another_root_volume_and_a_rollback() -> None:
    """Each override has an AMI, no version is `$Latest`: what StartInstanceRefresh needs for these."""
    policy = resources("workers", "Workers", name="g6e-ubuntu")["MixedInstancesPolicy"]["LaunchTemplate"]
    assert policy["Overrides"] == [{"InstanceType": "g6e.xlarge", "ImageId": IMAGE}]
    assert policy["LaunchTemplateSpecification"]["Version"] == {
        "Fn::GetAtt": ["LaunchTemplate", "LatestVersionNumber"]
    }


def test_an_update_of_the_stack_leaves_the_groups_size_alone() -> None:
    group = resources("workers")["Workers"]
    assert "DesiredCapacity" not in group["Properties"]
    assert group["UpdatePolicy"] == {
        "AutoScalingScheduledAction": {"IgnoreUnmodifiedGroupSizeProperties": True}
    }


@pytest.mark.parametrize(("seconds", "waited"), [(None, 900), ("1200", 1320)])
def test_the_hooks_wait_for_longer_than_the_worker_needs(seconds: str | None, waited: int) -> None:
    more = {"FLUX_DRAIN_SECONDS": seconds} if seconds else None
    hooks = resources("workers", "Workers", more=more)["LifecycleHookSpecificationList"]
    keys = ("LifecycleTransition", "HeartbeatTimeout", "DefaultResult")
    assert [tuple(one[key] for key in keys) for one in hooks] == [
        ("autoscaling:EC2_INSTANCE_LAUNCHING", 3600, "ABANDON"),
        ("autoscaling:EC2_INSTANCE_TERMINATING", waited, "CONTINUE"),
    ]


# Alarms


def test_alarms_go_to_the_topic_of_their_region() -> None:
    found = resources(alarm_topics=TOPICS)
    told = {
        name: [topic.split(":")[3] for topic in one["Properties"]["AlarmActions"]]
        for name, one in found.items()
        if one["Type"] == "AWS::CloudWatch::Alarm" and "OKActions" in one["Properties"]
    }
    assert told == {
        "OldJobsAlarm": [HOME],
        "DeadLettersAlarm": [HOME],
        "UnreadyAlarm": [SPOT],
        "UncountedAlarm": [SPOT],
    }


def test_without_a_topic_an_alarm_has_no_action() -> None:
    assert "AlarmActions" not in resources("workers", "UnreadyAlarm")


def test_a_worker_that_loads_is_not_called_unready() -> None:
    found = resources("workers")
    [loading, _] = found["Workers"]["Properties"]["LifecycleHookSpecificationList"]
    alarm = found["UnreadyAlarm"]["Properties"]
    assert alarm["EvaluationPeriods"] * alarm["Period"] > loading["HeartbeatTimeout"]


def test_what_workers_publish_is_what_the_alarm_looks_at() -> None:
    found = resources("workers", worker={"cloudwatch_namespace": "Mine"})
    alarm = found["UnreadyAlarm"]["Properties"]
    assert alarm["Namespace"] == "Mine"
    assert alarm["MetricName"] == METRIC
    assert alarm["Dimensions"] == [{"Name": "QueueName", "Value": OWN}]
    text = found["LaunchTemplate"]["Properties"]["LaunchTemplateData"]["UserData"]["Fn::Base64"]
    assert "\nFLUX_CLOUDWATCH_NAMESPACE=Mine\n" in text
    statements = found["WorkerRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    [publish] = [one for one in statements if one["Action"] == "cloudwatch:PutMetricData"]
    assert publish["Condition"] == {"StringEquals": {"cloudwatch:namespace": "Mine"}}
