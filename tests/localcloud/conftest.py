"""Launch and reach machines of a local cloud as any client of EC2 would."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from bake.instance import KeyPair, user_data
from bake.localcloud.lifecycle.local_cloud import LocalCloud
from bake.retries import Fresh
from bake.ssh import Login
from tests.patient import Patience

from .ebs_account import EbsAccount, ebs_account
from .moto_account import MotoAccount, served

PATIENCE = 300  # seconds for what takes some: a busy host is ten times slower at times


@dataclass(frozen=True)
class Launched:
    """A launched instance. `parameters` are those of its RunInstances."""

    id: str
    login: Login
    parameters: dict[str, Any]


class Account:
    """The account behind a local cloud."""

    def __init__(self, cloud: LocalCloud) -> None:
        self.cloud = cloud
        self._fresh = Fresh()
        self.ec2 = self.client("ec2", "SPOT_AWS_REGION")

    def client(self, service: str, region: str = "AWS_REGION", **more: Any) -> Any:
        """A client that takes "not found" about what it has just created for "not yet", as on AWS."""
        client = boto3.client(
            service,
            endpoint_url=self.cloud.endpoint,
            region_name=self.cloud.environment[region],
            aws_access_key_id=self.cloud.keys.id,
            aws_secret_access_key=self.cloud.keys.secret,
            **more,
        )
        Patience(PATIENCE, self._fresh).attach(client)
        return client

    def launch(self, image: str | None = None, **changes: Any) -> Launched:
        """RunInstances as the bake calls it; `changes` replace parameters, or leave them out (None)."""
        environment = self.cloud.environment
        name = f"test-{uuid.uuid4().hex[:8]}"
        user, host_key = KeyPair.generate(), KeyPair.generate()
        self.ec2.import_key_pair(KeyName=name, PublicKeyMaterial=user.public.encode())
        volume = {"VolumeSize": 80, "VolumeType": "gp3", "Throughput": 250}
        parameters: dict[str, Any] = {
            "ImageId": image or environment["BASE_AMI_ID"],
            "InstanceType": "g6e.xlarge",
            "MinCount": 1,
            "MaxCount": 1,
            "ClientToken": name,
            "KeyName": name,
            "SubnetId": environment["BAKE_SUBNET_ID"],
            "SecurityGroupIds": [environment["BAKE_SECURITY_GROUP_ID"]],
            "IamInstanceProfile": {"Name": environment["BAKE_INSTANCE_PROFILE"]},
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
            "UserData": user_data([host_key], {"/etc/greeting": "hello\n"}),
            "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": volume}],
            "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "bake:run", "Value": name}]}],
            **changes,
        }
        parameters = {key: value for key, value in parameters.items() if value is not None}
        [instance] = self.ec2.run_instances(**parameters)["Instances"]
        assert instance["State"]["Name"] == "pending"
        login = Login(instance["PrivateIpAddress"], "ubuntu", user.private, host_key.public)
        return Launched(instance["InstanceId"], login, parameters)

    def state(self, instance_id: str) -> str:
        [group] = self.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
        return str(group["Instances"][0]["State"]["Name"])

    def reach(self, instance_id: str, wanted: str, seconds: float = PATIENCE) -> set[str]:
        """Wait for a state and return all states seen on the way."""
        seen: set[str] = set()

        def ask() -> bool | None:
            seen.add(self.state(instance_id))
            return True if wanted in seen else None

        self.wait(f"{instance_id} {wanted}", ask, seconds)
        return seen

    def terminate(self, instance_id: str) -> None:
        self.ec2.terminate_instances(InstanceIds=[instance_id])
        self.reach(instance_id, "terminated")

    def delete_group(self, group: str) -> None:
        """DeleteSecurityGroup, as soon as no interface has it any more."""

        def deleted() -> bool | None:
            try:
                self.ec2.delete_security_group(GroupId=group)
            except ClientError as error:
                assert error.response["Error"]["Code"] == "DependencyViolation"
                return None
            return True

        self.wait(f"the end of {group}", deleted)

    def image_of(self, instance_id: str, name: str, **parameters: Any) -> str:
        """CreateImage, and wait until it is available."""
        image = str(self.ec2.create_image(InstanceId=instance_id, Name=name, **parameters)["ImageId"])
        waiter = self.ec2.get_waiter("image_available")
        waiter.wait(ImageIds=[image], WaiterConfig={"Delay": 1, "MaxAttempts": PATIENCE})
        return image

    @classmethod
    def settled(cls, ask: Callable[[], list[Any]]) -> list[Any]:
        """Ask for a list until two answers in a row are the same: every second one may be late."""
        before: list[Any] = []

        def look() -> list[Any] | None:
            nonlocal before
            try:
                found = ask()
            except ClientError as error:
                if "NotFound" not in error.response["Error"]["Code"]:
                    raise
                found = []
            same, before = found == before, found
            return found if same and found else None

        return list(cls.wait("what was made a moment ago", look))

    @staticmethod
    def wait(what: str, ask: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """Ask until there is an answer."""
        deadline = time.monotonic() + seconds
        while (answer := ask()) is None:
            assert time.monotonic() < deadline, f"{what}: nothing within {seconds} s"
            time.sleep(0.1)
        return answer


@pytest.fixture(scope="session")
def account(cloud: LocalCloud) -> Account:
    return Account(cloud)


@pytest.fixture(scope="session")
def account_of() -> type[Account]:
    """For tests with a cloud of their own."""
    return Account


@pytest.fixture(scope="module")
def moto_served() -> Iterator[MotoAccount]:
    with served() as account:
        yield account


@pytest.fixture
def moto_account(moto_served: MotoAccount) -> Iterator[MotoAccount]:
    """An account without machines, and without faults."""
    yield moto_served
    moto_served.faults.clear()


@pytest.fixture(scope="module")
def ebs_served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EbsAccount]:
    with ebs_account(tmp_path_factory.mktemp("ebs")) as account:
        yield account


@pytest.fixture
def ebs(ebs_served: EbsAccount) -> Iterator[EbsAccount]:
    """The local cloud's EC2 without machines; it ends without encryption by default, and with one image."""
    yield ebs_served
    ebs_served.reset()
