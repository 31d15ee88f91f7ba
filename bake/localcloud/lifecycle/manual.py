"""Boot an image by hand, log in, and send its worker a job: `bake local boot`, `ssh` and `draw`."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from bake.aws import Aws
from bake.errors import BakeError, UsageError
from bake.instance import KeyPair, user_data
from bake.layout import INSTANCE_ENV
from bake.localcloud.lifecycle.local_cloud import LocalCloud
from bake.localcloud.settings import Settings
from bake.ssh import Login, connect
from bake.systems import SYSTEMS
from bake.wiring import queue_policy

JOBS, EVENTS, BUCKET, BUS = "flux-jobs", "flux-events", "flux-images", "flux"
# The instance type for the accelerator that an image's tags name.
TYPES = {"cuda": "g6e.xlarge", "neuron": "inf2.24xlarge"}
# Worker settings in place of an accelerator: Neuron has a stand-in, a GPU has none.
INSTEAD = {"cuda": {"FLUX_BACKEND": "cpu"}}


@dataclass(frozen=True)
class Booted:
    """An instance booted by hand. Its keys lie in `keys`: `login`, `login.pub` and `known_hosts`."""

    id: str
    address: str
    user: str
    host_key: str
    keys: Path


@dataclass(frozen=True)
class Job:
    """A job for the worker; sizes in pixels."""

    prompt: str
    width: int
    height: int
    steps: int
    seed: int | None

    def message(self) -> dict[str, Any]:
        """The job as a message for the worker."""
        fields = {key: value for key, value in asdict(self).items() if value is not None}
        return {"id": f"local-{uuid.uuid4().hex[:12]}", **fields}


class ManualSession:
    """The standing queue, bucket and bus of a local cloud, and the instances booted on it by hand."""

    def __init__(self, cloud: LocalCloud, settings: Settings) -> None:
        self._cloud = cloud
        self._settings = settings
        region, worker_region = (cloud.environment[name] for name in ("SPOT_AWS_REGION", "AWS_REGION"))
        self._aws = Aws(
            region=region, worker_region=worker_region, endpoint=cloud.endpoint, endpoint_key=cloud.keys
        )
        self._ec2: Any = self._aws.ec2

    def boot(self, image: str, say: Callable[[str], None]) -> Booted:
        """Launch an AMI with its worker wired to the standing queue, and return when SSH answers."""
        login, host_key = KeyPair.generate(), KeyPair.generate()
        name = f"by-hand-{secrets.token_hex(4)}"
        environment = self._cloud.environment
        self._ec2.import_key_pair(KeyName=name, PublicKeyMaterial=login.public.encode())
        try:
            tags = self._tags(image)
            accelerator = tags.get("bake:accelerator", "cuda")
            [instance] = self._ec2.run_instances(
                ImageId=image,
                InstanceType=TYPES.get(accelerator, TYPES["cuda"]),
                MinCount=1,
                MaxCount=1,
                KeyName=name,
                SubnetId=environment["BAKE_SUBNET_ID"],
                SecurityGroupIds=[environment["BAKE_SECURITY_GROUP_ID"]],
                IamInstanceProfile={"Name": environment["BAKE_INSTANCE_PROFILE"]},
                MetadataOptions={"HttpTokens": "required"},
                UserData=user_data([host_key], {INSTANCE_ENV: self._wire(accelerator)}),
                TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}],
            )["Instances"]
        except ClientError as error:
            raise UsageError(
                f"{image} can't be booted: {error.response['Error']['Message']}",
                hint="bake local images lists the AMIs",
            ) from error
        say(f"{instance['InstanceId']} is starting")
        # The login user depends on the operating system.
        user = SYSTEMS[tags.get("bake:os", "ubuntu")].user
        booted = self._keep(instance, user, login, host_key)
        connect(_login(booted)).__exit__(None, None, None)
        return booted

    def _tags(self, image: str) -> dict[str, str]:
        [facts] = self._ec2.describe_images(ImageIds=[image])["Images"]
        return {tag["Key"]: tag["Value"] for tag in facts.get("Tags", [])}

    def _keep(self, instance: Any, user: str, login: KeyPair, host_key: KeyPair) -> Booted:
        keys = self._settings.state / "keys" / instance["InstanceId"]
        keys.mkdir(parents=True, mode=0o700)
        address = instance["PrivateIpAddress"]
        files = {
            "login": login.private,
            "login.pub": f"{login.public}\n",
            "known_hosts": f"{address} {host_key.public}\n",
        }
        for name, content in files.items():
            (keys / name).touch(mode=0o600)
            (keys / name).write_text(content)
        booted = Booted(instance["InstanceId"], address, user, host_key.public, keys)
        (keys / "booted.json").write_text(json.dumps(asdict(booted), default=str))
        return booted

    def booted(self, instance_id: str) -> Booted:
        """Find an instance that `boot` launched; UsageError for any other."""
        kept = self._settings.state / "keys" / instance_id / "booted.json"
        if not kept.exists():
            known = sorted(path.parent.name for path in kept.parents[1].glob("*/booted.json"))
            raise UsageError(
                f"no instance {instance_id} was booted by hand",
                hint=f"there is {', '.join(known)}" if known else "boot one with: bake local boot AMI",
            )
        content = json.loads(kept.read_text())
        return Booted(**{**content, "keys": Path(content["keys"])})

    def _wire(self, accelerator: str = "") -> str:
        """Create the standing queues, bucket and bus unless they exist; return the instance.env of an image
        for an accelerator.
        """
        sqs, events, s3 = self._aws.sqs, self._aws.events, self._aws.s3
        region: Any = self._aws.worker_region
        jobs = sqs.create_queue(QueueName=JOBS)["QueueUrl"]
        heard = sqs.create_queue(QueueName=EVENTS)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=heard, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        _unless_there(
            lambda: s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": region})
        )
        _unless_there(lambda: events.create_event_bus(Name=BUS))
        pattern = json.dumps({"source": ["flux.worker"]})
        rule = events.put_rule(Name=EVENTS, EventBusName=BUS, EventPattern=pattern)["RuleArn"]
        sqs.set_queue_attributes(QueueUrl=heard, Attributes={"Policy": queue_policy(arn, rule)})
        events.put_targets(Rule=EVENTS, EventBusName=BUS, Targets=[{"Id": EVENTS, "Arn": arn}])
        facts = {
            "AWS_REGION": region,
            "AWS_ENDPOINT_URL": self._cloud.endpoint,
            "FLUX_QUEUE_URL": jobs,
            "FLUX_BUCKET": BUCKET,
            "FLUX_EVENT_BUS": BUS,
            **INSTEAD.get(accelerator, {}),
        }
        return "".join(f"{key}={value}\n" for key, value in facts.items())

    def draw(self, job: Job, timeout: float = 300) -> tuple[bytes, dict[str, Any]]:
        """Send a job, wait at most `timeout` seconds, and return the PNG and the event that announced it."""
        self._wire()
        message = job.message()
        sqs = self._aws.sqs
        sqs.send_message(
            QueueUrl=sqs.get_queue_url(QueueName=JOBS)["QueueUrl"], MessageBody=json.dumps(message)
        )
        event = self._heard(sqs, str(message["id"]), timeout)
        if "keys" not in event:
            raise BakeError(f"the worker refused the job: {event.get('reason', 'no reason given')}")
        answer = self._aws.s3.get_object(Bucket=event["bucket"], Key=event["keys"][0])
        return answer["Body"].read(), event

    def _heard(self, sqs: Any, job: str, timeout: float) -> dict[str, Any]:
        queue = sqs.get_queue_url(QueueName=EVENTS)["QueueUrl"]
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for message in sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages", []):
                event: dict[str, Any] = json.loads(message["Body"])["detail"]
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
                if event.get("id") in {job, None}:
                    return event
        raise BakeError(
            f"no picture within {timeout:.0f} s",
            hint="does an instance with a worker run? See bake local status, and on the instance: "
            "journalctl -u flux-worker",
        )


def _unless_there(make: Callable[[], object]) -> None:
    try:
        make()
    except ClientError as error:
        if error.response["Error"]["Code"] not in {
            "BucketAlreadyOwnedByYou",
            "ResourceAlreadyExistsException",
        }:
            raise


def _login(booted: Booted) -> Login:
    private = (booted.keys / "login").read_text()
    return Login(booted.address, booted.user, private, booted.host_key)


def ssh(booted: Booted, command: tuple[str, ...]) -> int:
    """Open a shell on the instance, or run one command; return the exit code."""
    if shutil.which("ssh"):
        options = {
            "IdentityFile": booted.keys / "login",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": booted.keys / "known_hosts",
            "StrictHostKeyChecking": "yes",
            "LogLevel": "ERROR",
        }
        arguments = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        # -F none: the user's own ssh configuration is for other machines.
        target = f"{booted.user}@{booted.address}"
        return subprocess.run(["ssh", "-F", "none", *arguments, target, *command], check=False).returncode
    if not command:
        raise UsageError("a shell needs the system's ssh", hint="apt-get install openssh-client")
    with connect(_login(booted), timeout=30) as session:
        result = session.run_shell(" ".join(command))
    sys.stdout.write(result.stdout)
    sys.stderr.write(result.stderr)
    return result.exit_code
