"""Plans, made against moto's server: a real EC2 API over HTTP with real instance types."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from bake import plan as planning
from bake import profile
from bake.aws import Aws
from bake.errors import BakeError, UsageError
from bake.plan import Plan, Sources
from bake.profile import Profile

PROFILES = Path(__file__).parents[2] / "profiles"
REGION = "eu-north-1"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def aws(endpoint: str) -> Aws:
    return Aws(region=REGION, worker_region="eu-west-1", endpoint=endpoint)


@pytest.fixture(scope="module")
def variables(aws: Aws) -> dict[str, str]:
    subnet = aws.ec2.describe_subnets()["Subnets"][0]
    images = aws.ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"]
    image = next(
        image for image in images if image["BlockDeviceMappings"][0].get("Ebs", {}).get("VolumeSize", 0) > 1
    )
    groups = aws.ec2.describe_security_groups()["SecurityGroups"]
    return {
        "AWS_REGION": "eu-west-1",
        "SPOT_AWS_REGION": REGION,
        "BASE_AMI_ID": image["ImageId"],
        "BAKE_SUBNET_ID": subnet["SubnetId"],
        "BAKE_SECURITY_GROUP_ID": groups[0]["GroupId"],
        "BAKE_INSTANCE_PROFILE": "flux-worker",
        "HF_TOKEN": "hf_canary_token",
    }


@pytest.fixture(scope="module")
def found(variables: dict[str, str]) -> Profile:
    return profile.load("g6e-ubuntu", PROFILES, variables)


@pytest.fixture(scope="module")
def plan(found: Profile, aws: Aws) -> Plan:
    return planning.make(found, aws, Sources(differences=("a stand-in base",)))


def test_hardware_is_what_the_api_says(plan: Plan) -> None:
    assert plan.instance_type.gpu == "L40S"
    assert plan.instance_type.gpu_memory_mib == 45776
    assert plan.instance_type.memory_mib == 32768


def test_the_cache_is_in_the_home_of_the_systems_user(plan: Plan) -> None:
    assert plan.cache == "/home/ubuntu/.cache/huggingface/hub"


def test_the_token_stands_in_no_form_of_the_plan(plan: Plan) -> None:
    shown = f"{planning.as_text(plan)} {json.dumps(planning.as_dict(plan))} {plan.settings} {plan!r}"
    assert "hf_canary" not in shown


def test_the_text_says_what_matters(plan: Plan) -> None:
    text = planning.as_text(plan)
    for part in ("80 GiB gp3", "g6e.xlarge in eu-north-1", "How this rehearsal differs", "a stand-in base"):
        assert part in text


def test_the_id_is_the_same_for_the_same_inputs_and_another_for_others(
    plan: Plan, found: Profile, aws: Aws
) -> None:
    assert planning.make(found, aws, Sources()).id == plan.id
    bigger = found.model_copy(update={"root_volume": found.root_volume.model_copy(update={"size_gib": 120})})
    assert planning.make(bigger, aws, Sources()).id != plan.id


def test_another_token_is_the_same_plan(plan: Plan, variables: dict[str, str], aws: Aws) -> None:
    other = profile.load("g6e-ubuntu", PROFILES, {**variables, "HF_TOKEN": "hf_other"})
    assert planning.make(other, aws, Sources()).id == plan.id


def test_everything_that_does_not_fit_comes_in_one_message(variables: dict[str, str], aws: Aws) -> None:
    wrong = {
        "BASE_AMI_ID": "ami-00000000000000000",
        "BAKE_SUBNET_ID": "subnet-00000000",
        "BAKE_SECURITY_GROUP_ID": "sg-00000000",
    }
    found = profile.load("g6e-ubuntu", PROFILES, {**variables, **wrong})
    kind = found.builder.model_copy(update={"instance_type": "g6e.tiny"})
    with pytest.raises(UsageError) as caught:
        planning.make(found.model_copy(update={"builder": kind}), aws, Sources())
    for part in (
        "base.ami: ami-00000000000000000 does not exist in eu-north-1",
        "builder.instance_type: g6e.tiny is not offered",
        "builder.subnet: subnet-00000000 does not exist",
        "builder.security_group: sg-00000000 does not exist",
    ):
        assert part in caught.value.message


@pytest.mark.parametrize(
    ("section", "change", "expected"),
    [
        pytest.param("root_volume", {"size_gib": 1}, "1 GiB is less than the base AMI's own", id="disk"),
        pytest.param("builder", {"instance_type": "t3.micro"}, "t3.micro has no NVIDIA GPU", id="no GPU"),
        pytest.param(
            "builder", {"instance_type": "g5g.xlarge"}, "is x86_64, but g5g.xlarge runs", id="arm64"
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    found: Profile, aws: Aws, section: str, change: dict[str, object], expected: str
) -> None:
    changed = found.model_copy(update={section: getattr(found, section).model_copy(update=change)})
    with pytest.raises(UsageError, match=expected.replace(".", r"\.")):
        planning.make(changed, aws, Sources())


def test_planning_changes_nothing(found: Profile, aws: Aws, endpoint: str) -> None:
    client = boto3.client(
        "ec2", REGION, endpoint_url=endpoint, aws_access_key_id="x", aws_secret_access_key="x"
    )
    before = client.describe_instances()["Reservations"], client.describe_key_pairs()["KeyPairs"]
    planning.make(found, aws, Sources())
    assert (client.describe_instances()["Reservations"], client.describe_key_pairs()["KeyPairs"]) == before


def test_a_rehearsal_refuses_any_other_address(endpoint: str) -> None:
    aws = Aws(region=REGION, worker_region=REGION, endpoint=endpoint)
    aws.ec2.describe_regions()
    aws.endpoint = "http://127.0.0.1:9"  # as if a client had been made for elsewhere
    with pytest.raises(BakeError, match="may only talk to"):
        aws.ec2.describe_regions()


def test_api_calls_are_counted(endpoint: str) -> None:
    aws = Aws(region=REGION, worker_region=REGION, endpoint=endpoint)
    aws.ec2.describe_regions()
    aws.sqs.list_queues()
    assert aws.tally.api_calls == 2


def test_plans_are_frozen(plan: Plan) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.id = "other"  # type: ignore[misc]
