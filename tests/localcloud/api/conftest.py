"""An account on a local cloud whose machines are records."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bake.localcloud.settings import SPOT_REGION
from tests.localcloud import calling
from tests.localcloud.recorded_cloud import BASE

ROOT = Path(__file__).parents[3]
PATIENCE = 120.0


@dataclass(frozen=True)
class Account:
    """Clients that try each call once."""

    control: str
    url: str
    key: str
    secret: str
    subnet: str
    group: str

    def client(self, service: str, region: str = SPOT_REGION) -> Any:
        return calling.client(service, self.url, region, self.key, self.secret, parameter_validation=False)

    def launch(self, **changes: Any) -> Any:
        """RunInstances; the answer. A change to None leaves a parameter out."""
        parameters = {
            "ImageId": BASE,
            "InstanceType": "g6e.xlarge",
            "MinCount": 1,
            "MaxCount": 1,
            "SubnetId": self.subnet,
            "SecurityGroupIds": [self.group],
            **changes,
        }
        told = {name: value for name, value in parameters.items() if value is not None}
        return self.client("ec2").run_instances(**told)

    def one(self, **changes: Any) -> str:
        """The id of a launched instance that runs."""
        [instance] = self.launch(**changes)["Instances"]
        return self.reach(instance["InstanceId"], "running")

    def instance(self, identity: str) -> Any:
        [group] = self.client("ec2").describe_instances(InstanceIds=[identity])["Reservations"]
        [instance] = group["Instances"]
        return instance

    def reach(self, identity: str, state: str) -> str:
        wait(lambda: self.instance(identity)["State"]["Name"] == state)
        return identity

    def volume(self, identity: str) -> Any:
        filters = [{"Name": "attachment.instance-id", "Values": [identity]}]
        [volume] = self.client("ec2").describe_volumes(Filters=filters)["Volumes"]
        return volume


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def instances(ec2: Any) -> list[Any]:
    """All instances of the account."""
    return [one for group in ec2.describe_instances()["Reservations"] for one in group["Instances"]]


def new(prefix: str = "name") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def refusal(call: Any, **parameters: Any) -> tuple[str, int]:
    """The code and HTTP status of a call that must be refused."""
    with pytest.raises(ClientError) as error:
        call(**parameters)
    answer: Any = error.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    folder = tmp_path_factory.mktemp("recorded-cloud")
    command = [sys.executable, "-m", "tests.localcloud.recorded_cloud", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield Account(**json.loads(process.stdout.readline()))
        process.kill()


@pytest.fixture
def account(served: Account) -> Iterator[Account]:
    """Each test's instances are ended after it, so that the subnet does not fill up."""
    yield served
    ec2 = served.client("ec2")
    for request in ec2.describe_spot_instance_requests()["SpotInstanceRequests"]:
        ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request["SpotInstanceRequestId"]])
    for instance in instances(ec2):
        if instance["State"]["Name"] not in {"terminated", "shutting-down"}:
            ec2.modify_instance_attribute(
                InstanceId=instance["InstanceId"], DisableApiTermination={"Value": False}
            )
            ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    wait(lambda: all(one["State"]["Name"] == "terminated" for one in instances(ec2)))
