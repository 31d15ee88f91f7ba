"""The clients: what goes wrong with their calls, and where they may go."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from bake import redaction
from bake.aws import AccessKey, Aws, error_code
from bake.errors import BakeError

from ..conftest import PlanCloud


def test_the_bakes_clients_outlast_what_passes(plan_cloud: PlanCloud) -> None:
    plan_cloud.faults.plant("sts", "GetCallerIdentity", "throttle")
    assert plan_cloud.aws().sts.get_caller_identity()["Account"]
    assert plan_cloud.faults.struck() == 1


def test_what_does_not_pass_reaches_them(plan_cloud: PlanCloud) -> None:
    plan_cloud.faults.plant("sts", "*", "refuse")
    with pytest.raises(ClientError) as error:
        plan_cloud.aws().sts.get_caller_identity()
    assert error_code(error.value) == "AccessDenied"


def test_calls_are_signed_with_the_endpoints_key_wherever_they_go(plan_cloud: PlanCloud) -> None:
    key = AccessKey("AKIAIOSFODNN7EXAMPLE", "a secret that nobody sees")
    aws = Aws(region="eu-north-1", worker_region="eu-west-1", endpoint=plan_cloud.endpoint, endpoint_key=key)
    for one in (aws, aws.elsewhere("us-east-1"), aws.patiently()):
        signer = one.sts._request_signer._credentials
        assert (signer.access_key, signer.secret_key) == (key.id, key.secret)
    assert key.secret not in repr(key) + redaction.redact(f"said {key.secret}")
    assert redaction.redact("a rehearsal") == "a rehearsal"  # the dummy's secret is a word


def test_a_rehearsal_refuses_any_other_address(plan_cloud: PlanCloud) -> None:
    aws = plan_cloud.aws()
    aws.ec2.describe_regions()
    aws.endpoint = "http://127.0.0.1:9"  # as if a client had been made for elsewhere
    with pytest.raises(BakeError, match="may only talk to"):
        aws.ec2.describe_regions()


def test_elsewhere_is_refused_any_other_address_too(plan_cloud: PlanCloud) -> None:
    aws = plan_cloud.aws()
    there = aws.elsewhere("eu-west-1")
    there.ec2.describe_regions()
    assert there.ec2.meta.region_name == "eu-west-1"
    aws.endpoint = "http://127.0.0.1:9"
    with pytest.raises(BakeError, match="may only talk to"):
        there.ec2.describe_regions()


def test_api_calls_are_counted(plan_cloud: PlanCloud) -> None:
    aws = Aws(region="eu-north-1", worker_region="eu-north-1", endpoint=plan_cloud.endpoint)
    aws.ec2.describe_regions()
    aws.sqs.list_queues()
    assert aws.tally.api_calls == 2
