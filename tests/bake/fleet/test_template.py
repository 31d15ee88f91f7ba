"""The templates as they are written: whole, sound, and the same each time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from bake.fleet import PARTS, Part, as_yaml, template

from .fleets import ACCOUNT, HOME, SPOT, TOPICS, fleet

LINT = Path(sys.executable).with_name("cfn-lint")
QUEUE = f"https://sqs.{HOME}.amazonaws.com/{ACCOUNT}/theirs"
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "int8": {"name": "g5-ubuntu"},
    "neuron": {"name": "inf2-amazon-linux"},
    "all that may be": {
        "name": "g6e-amazon-linux",
        "keep_days": 30,
        "start": {"volume_initialization_rate": 300},
        "alarm_topics": TOPICS,
        "volume": {"iops": 6000, "throughput": 500},
        "more": {"FLUX_DRAIN_SECONDS": "600"},
    },
    "one region": {"worker": {"region": SPOT}},
    "theirs": {"worker": {"queue": QUEUE, "bucket": "theirs", "bus": "theirs"}},
    "long user data": {"more": {f"FLUX_N{n}": f"{n * 7919:x}" * 4 for n in range(999)}},
}
ALL = [pytest.param(case, part, id=f"{case}, {part}") for case in CASES for part in PARTS]


@pytest.mark.integration
def test_cfn_lint_has_nothing_to_say_but_of_a_mistake(tmp_path: Path) -> None:
    files = []
    for number, (case, part) in enumerate((case, part) for case in CASES for part in PARTS):
        files.append(tmp_path / f"{number}.yaml")
        files[-1].write_text(as_yaml(template(fleet(**CASES[case]), part)), encoding="utf-8")
    command = [LINT, "--non-zero-exit-code", "informational", "--regions", SPOT, "--template", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    wrong = files[0].read_text(encoding="utf-8").replace("Ref: LaunchTemplate", "Ref: Nothing")
    files[0].write_text(wrong, encoding="utf-8")
    assert subprocess.run(command, capture_output=True, check=False).returncode


def references(value: Any) -> Iterator[tuple[str, str]]:
    """Each Ref and GetAtt: which it is, and of which resource."""
    if isinstance(value, dict):
        if set(value) == {"Ref"}:
            yield "Ref", value["Ref"]
        elif set(value) == {"Fn::GetAtt"}:
            yield "GetAtt", value["Fn::GetAtt"][0]
        else:
            yield from (found for one in value.values() for found in references(one))
    elif isinstance(value, list):
        yield from (found for one in value for found in references(one))


@pytest.mark.parametrize(("case", "part"), ALL)
def test_each_reference_is_to_a_resource_of_its_own_template(case: str, part: Part) -> None:
    found = template(fleet(**CASES[case]), part)
    assert {name for _, name in references(found)} <= set(found["Resources"])


@pytest.mark.parametrize(("case", "part"), ALL)
def test_yaml_says_the_same_as_the_template_and_fits_a_request(case: str, part: Part) -> None:
    found = template(fleet(**CASES[case]), part)
    text = as_yaml(found)
    assert yaml.safe_load(text) == json.loads(json.dumps(found))
    assert text == as_yaml(template(fleet(**CASES[case]), part))
    assert len(text.encode()) < 51_200  # of a template that is in no bucket


@pytest.mark.parametrize("case", CASES)
def test_all_is_both_parts(case: str) -> None:
    jobs, workers, both = (template(fleet(**CASES[case]), part) for part in ("jobs", "workers", "all"))
    assert {**jobs["Resources"], **workers["Resources"]} == both["Resources"]
    assert not jobs["Resources"].keys() & workers["Resources"].keys()
    assert {**jobs["Outputs"], **workers["Outputs"]} == both["Outputs"]


@pytest.fixture(scope="module")
def aws() -> Iterator[Any]:
    """Clients by service and region, of a moto server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()

    def client(service: str, region: str) -> Any:
        named: Any = service
        return boto3.client(
            named,
            region_name=region,
            endpoint_url=f"http://{host}:{port}",
            aws_access_key_id="fleet",
            aws_secret_access_key="fleet",
        )

    yield client
    # moto can't call a Lambda function: any event of other tests of this process would fail for the rule.
    for region in (HOME, SPOT):
        events = client("events", region)
        for rule in events.list_rules()["Rules"]:
            targets = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
            if calls := [one["Id"] for one in targets if ":lambda:" in one["Arn"]]:
                events.remove_targets(Rule=rule["Name"], Ids=calls)
    server.stop()


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::UserWarning")  # of what moto's CloudFormation leaves out
def test_moto_makes_both_stacks_and_the_queue_is_where_the_workers_look_for_it(aws: Any) -> None:
    ec2 = aws("ec2", SPOT)
    vpc = ec2.create_vpc(CidrBlock="10.77.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.77.0.0/24")["Subnet"]["SubnetId"]
    made = fleet(name="g6-ubuntu", subnets=(subnet,))
    for part, region in (("jobs", HOME), ("workers", SPOT)):
        cloud, name = aws("cloudformation", region), f"{made.name}-{part}"
        body = json.dumps(template(made, part))  # type: ignore[arg-type]
        cloud.create_stack(StackName=name, TemplateBody=body, Capabilities=["CAPABILITY_IAM"])
        [stack] = cloud.describe_stacks(StackName=name)["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE"
        told = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
        if part == "jobs":
            assert told["QueueUrl"] == made.profile.worker.queue
            assert told["Bucket"] == made.profile.worker.bucket
        else:
            assert told["LaunchTemplateVersion"] == "1"
    sqs = aws("sqs", HOME)
    asked = {"QueueUrl": str(made.profile.worker.queue), "AttributeNames": ["All"]}
    jobs = sqs.get_queue_attributes(**asked)["Attributes"]
    assert jobs["QueueArn"] == made.queue_arn
    assert json.loads(jobs["RedrivePolicy"])["deadLetterTargetArn"] == f"{made.queue_arn}-dead"
    assert aws("events", HOME).describe_event_bus(Name=made.profile.worker.bus)["Arn"] == made.subject.bus
