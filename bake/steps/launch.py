"""Launch an instance with a throw-away key pair and an SSH host key made for this run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bake.aws import Aws, error_code
from bake.errors import BakeError
from bake.plan import Plan
from bake.run import Run
from bake.ssh import Login, Session, connect
from bake.undo import Undo

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeDef, TagTypeDef

USER_DATA_LIMIT = 16 * 1024


@dataclass(frozen=True)
class KeyPair:
    """An ed25519 key pair as OpenSSH texts."""

    private: str
    public: str

    @classmethod
    def generate(cls) -> KeyPair:
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        return cls(private.decode(), public.decode())


@dataclass(frozen=True)
class Instance:
    """A launched instance, and how to log in to it once it answers."""

    id: str
    root_volume: str
    login: Login


def launch(
    plan: Plan,
    aws: Aws,
    run: Run,
    undo: Undo,
    *,
    role: str,
    image: str,
    files: dict[str, str] | None = None,
) -> Instance:
    """Start an instance of `image` with the plan's type, disk and network, and wait until it runs.

    `role` (`builder`, `boot-check`) goes into its name and tags; `files` (path -> content) are written
    on it by cloud-init.
    """
    name = f"bake-{run.id}-{role}"
    login_key, host_key = KeyPair.generate(), KeyPair.generate()
    _import_key(aws, undo, name, login_key, tags(plan, run, name))
    instance_id = _run_instance(plan, aws, undo, name, image, user_data(host_key, files or {}), run)
    run.progress.status(f"{instance_id} is starting")
    address, volume = aws.wait(
        f"{role} {instance_id}",
        lambda: _when_running(aws, instance_id),
        timeout=600,
    )
    return Instance(instance_id, volume, Login(address, plan.system.user, login_key.private, host_key.public))


def log_in(instance: Instance, run: Run) -> Session:
    """Connect with the pinned host key and wait until cloud-init has finished."""
    session = connect(instance.login, run.progress.tally)
    # Exit code 2 means "done, with recoverable warnings"; 1 means that it failed.
    result = session.run("cloud-init", "status", "--wait", "--long", check=False)
    if result.exit_code == 1:
        session.__exit__(None, None, None)
        raise BakeError(f"cloud-init failed on {instance.id}:\n{result.stdout.strip()}")
    return session


def tags(plan: Plan, run: Run, name: str) -> list[TagTypeDef]:
    """What everything this run creates is tagged with, so that leftovers can be found."""
    facts = {"Name": name, "bake:run": run.id, "bake:profile": plan.profile.name, "bake:plan": plan.id}
    return [{"Key": key, "Value": value} for key, value in facts.items()]


def user_data(host_key: KeyPair, files: dict[str, str]) -> str:
    """cloud-config that installs the run's SSH host key and writes `files` (R-USERDATA: under 16 KB)."""
    config = {
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": host_key.private, "ed25519_public": host_key.public},
        "write_files": [
            {"path": path, "content": content, "permissions": "0644"} for path, content in files.items()
        ],
    }
    text = f"#cloud-config\n{yaml.safe_dump(config)}"
    if len(text.encode()) > USER_DATA_LIMIT:
        raise BakeError(f"the user data has {len(text.encode()):,} bytes; EC2 takes {USER_DATA_LIMIT:,}")
    return text


def _import_key(aws: Aws, undo: Undo, name: str, key: KeyPair, key_tags: list[TagTypeDef]) -> None:
    with undo.creating():
        aws.ec2.import_key_pair(
            KeyName=name,
            PublicKeyMaterial=key.public.encode(),
            TagSpecifications=[{"ResourceType": "key-pair", "Tags": key_tags}],
        )
        undo.add(
            f"key pair {name}",
            lambda: aws.ec2.delete_key_pair(KeyName=name),
            by_hand=f"aws ec2 delete-key-pair --region {aws.region} --key-name {name}",
        )


def _run_instance(plan: Plan, aws: Aws, undo: Undo, name: str, image: str, data: str, run: Run) -> str:
    builder, volume = plan.profile.builder, plan.profile.root_volume
    all_tags = tags(plan, run, name)
    with undo.creating():
        answer = aws.ec2.run_instances(
            ImageId=image,
            InstanceType=builder.instance_type,  # type: ignore[arg-type]
            MinCount=1,
            MaxCount=1,
            ClientToken=name,
            KeyName=name,
            SubnetId=builder.subnet,
            SecurityGroupIds=[builder.security_group],
            IamInstanceProfile={"Name": builder.instance_profile},
            MetadataOptions={"HttpTokens": "required", "HttpEndpoint": "enabled"},
            InstanceInitiatedShutdownBehavior="stop",
            UserData=data,
            BlockDeviceMappings=[
                {
                    "DeviceName": plan.base.root_device,
                    "Ebs": {
                        "VolumeSize": volume.size_gib,
                        "VolumeType": volume.type,
                        "DeleteOnTermination": True,
                    },
                }
            ],
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": all_tags},
                {"ResourceType": "volume", "Tags": all_tags},
            ],
        )
        instance_id = answer["Instances"][0]["InstanceId"]
        undo.add(
            f"instance {instance_id}",
            lambda: terminate(aws, instance_id),
            by_hand=f"aws ec2 terminate-instances --region {aws.region} --instance-ids {instance_id}",
        )
    return instance_id


def _when_running(aws: Aws, instance_id: str) -> tuple[str, str] | None:
    """The address and the root volume of a running instance; None while it is on its way."""
    facts = describe(aws, instance_id)
    if facts is None or facts["State"]["Name"] == "pending":
        return None
    if facts["State"]["Name"] != "running":
        reason = facts.get("StateReason", {}).get("Message", "no reason given")
        raise BakeError(f"{instance_id} went from pending to {facts['State']['Name']}: {reason}")
    root = facts["RootDeviceName"]
    volumes = {
        mapping["DeviceName"]: mapping["Ebs"]["VolumeId"] for mapping in facts.get("BlockDeviceMappings", [])
    }
    address = facts.get("PublicIpAddress") or facts.get("PrivateIpAddress")
    return (address, volumes[root]) if address and root in volumes else None


def describe(aws: Aws, instance_id: str) -> InstanceTypeDef | None:
    """DescribeInstances for one; None while a fresh id has not spread yet."""
    try:
        reservations = aws.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
    except Exception as error:
        if error_code(error) == "InvalidInstanceID.NotFound":
            return None
        raise
    return reservations[0]["Instances"][0] if reservations else None


def terminate(aws: Aws, instance_id: str) -> None:
    """Terminate and wait until the instance is gone, so that its disk is, too."""
    aws.ec2.terminate_instances(InstanceIds=[instance_id])

    def gone() -> bool | None:
        facts = describe(aws, instance_id)
        return True if facts is None or facts["State"]["Name"] == "terminated" else None

    aws.wait(f"the end of {instance_id}", gone, timeout=900)
