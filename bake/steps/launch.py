"""Launch an instance with a throw-away key pair and an SSH host key made for this run."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bake.aws import Aws, error_code
from bake.errors import BakeError
from bake.plan import Plan
from bake.run import Run
from bake.ssh import Login, Session, connect
from bake.systems import SYSTEMS, System
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
    """A launched instance, how to log in to it once it answers, and the system it is to have."""

    id: str
    root_volume: str
    login: Login
    system: System


def launch(
    plan: Plan,
    aws: Aws,
    run: Run,
    undo: Undo,
    *,
    role: str,
    image: str,
    types: tuple[str, ...] | None = None,
    files: dict[str, str] | None = None,
    patience: float = 0,
) -> Instance:
    """Start an instance of `image` with the plan's disk and network, and wait until it runs.

    `role` (`builder`, `boot-check`) goes into its name and tags; `types` are the agreed instance types to
    try, the builder's unless given; `files` (path -> content) are written on it by cloud-init. Where AWS has
    no capacity for any of them, they are tried again for `patience` seconds.
    """
    name = f"bake-{run.id}-{role}"
    login_key, host_key = KeyPair.generate(), KeyPair.generate()
    _import_key(aws, undo, name, login_key, tags(plan, run, name))
    request = _request(plan, aws, undo, name, image, user_data(host_key, files or {}), run)
    kinds = types or plan.profile.builder.types
    instance_id = _run_instance(plan, aws, undo, request, kinds, run, patience)
    run.progress.status(f"{instance_id} is starting")
    address, volume = aws.wait(
        f"{role} {instance_id}",
        lambda: _when_running(aws, instance_id),
        timeout=600,
    )
    login = Login(address, plan.system.user, login_key.private, host_key.public)
    return Instance(instance_id, volume, login, plan.system)


def log_in(instance: Instance, run: Run) -> Session:
    """Connect with the pinned host key and wait until cloud-init has finished.

    BakeError when the machine has another operating system than the profile says.
    """
    users = tuple(system.user for system in SYSTEMS.values())
    session = connect(instance.login, run.progress.tally, other_users=users)
    try:
        _check_system(session, instance)
    except BaseException:
        session.__exit__(None, None, None)
        raise
    # Exit code 2 means "done, with recoverable warnings"; 1 means that it failed.
    result = session.run("cloud-init", "status", "--wait", "--long", check=False)
    if result.exit_code == 1:
        session.__exit__(None, None, None)
        raise BakeError(f"cloud-init failed on {instance.id}:\n{result.stdout.strip()}")
    return session


def _check_system(session: Session, instance: Instance) -> None:
    """Hold `/etc/os-release` against the profile: scripts and users of the one do not suit the other."""
    lines = session.run("cat", "/etc/os-release").stdout.splitlines()
    facts = {key: value.strip("'\"") for key, _, value in (line.partition("=") for line in lines)}
    wanted, user = instance.system, session.login.user
    if facts.get("ID") in wanted.os_ids and user == wanted.user:
        return
    found = f"{facts.get('PRETTY_NAME', 'an unknown system')} (ID={facts.get('ID')}) with user {user}"
    raise BakeError(
        f"{instance.id} runs {found}; the profile says {wanted.title} with user {wanted.user}",
        hint="name another AMI in base.ami, or the AMI's own system in base.os; nothing was installed",
    )


def tags(plan: Plan, run: Run, name: str) -> list[TagTypeDef]:
    """What everything this run creates is tagged with, so that leftovers can be found."""
    facts = {"Name": name, "bake:run": run.id, "bake:profile": plan.profile.name, "bake:plan": plan.id}
    facts |= {"bake:worker": plan.worker.version, "bake:os": plan.profile.base.os}
    facts |= {"bake:accelerator": plan.profile.base.accelerator}
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


def _run_instance(
    plan: Plan,
    aws: Aws,
    undo: Undo,
    request: dict[str, Any],
    types: tuple[str, ...],
    run: Run,
    patience: float,
) -> str:
    """RunInstances with the first agreed type that has capacity; no type is tried that was not agreed."""
    tries, without = count(1), set[str]()

    def attempt() -> str | None:
        number = next(tries)
        for instance_type in types:
            try:
                return _run_one(aws, undo, request, instance_type, number)
            except Exception as error:
                if error_code(error) != "InsufficientInstanceCapacity":
                    raise
                if instance_type not in without:
                    run.progress.note(f"{instance_type}: AWS has no capacity in the subnet's zone right now")
                without.add(instance_type)
        return None

    what = f"{', '.join(types)} in the zone of {plan.profile.builder.subnet}"
    setting = f"{'worker' if types == plan.profile.worker.types else 'builder'}.instance_types"
    hint = (
        f"nothing else is tried unasked: try again later, or list alternatives in {setting} "
        "and agree to them with `bake approve`"
    )
    if found := attempt():
        return found
    if patience:
        run.progress.status(f"waiting for capacity, {patience / 60:.0f} min at most")
        return aws.wait(f"capacity for {what}", attempt, timeout=patience, hint=hint)
    raise BakeError(f"AWS has no capacity for {what}", hint=hint)


def _run_one(aws: Aws, undo: Undo, request: dict[str, Any], instance_type: str, number: int) -> str:
    """One RunInstances; another try of a type has another token, so that EC2 takes it for a new one."""
    with undo.creating():
        answer = aws.ec2.run_instances(
            **request,
            InstanceType=instance_type,  # type: ignore[arg-type]
            ClientToken=f"{request['KeyName']}-{number}-{instance_type}"[:64],
        )
        instance = answer["Instances"][0]
        _undo_instance(aws, undo, instance)
    return instance["InstanceId"]


def _undo_instance(aws: Aws, undo: Undo, instance: InstanceTypeDef) -> None:
    instance_id, spot = instance["InstanceId"], instance.get("SpotInstanceRequestId")
    undo.add(
        f"instance {instance_id}",
        lambda: terminate(aws, instance_id),
        by_hand=f"aws ec2 terminate-instances --region {aws.region} --instance-ids {instance_id}",
    )
    if spot:
        # Cancelled before its instance ends: a persistent request would start another one.
        undo.add(
            f"spot request {spot}",
            lambda: aws.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[spot]),
            by_hand=f"aws ec2 cancel-spot-instance-requests --region {aws.region} "
            f"--spot-instance-request-ids {spot}",
        )


def _request(plan: Plan, aws: Aws, undo: Undo, name: str, image: str, data: str, run: Run) -> dict[str, Any]:
    """What RunInstances gets besides the instance type."""
    builder, volume = plan.profile.builder, plan.profile.root_volume
    ebs = {
        "VolumeSize": volume.size_gib,
        "VolumeType": volume.type,
        "DeleteOnTermination": True,
        "Iops": volume.iops,
        "Throughput": volume.throughput,
        "KmsKeyId": volume.kms_key,
        "Encrypted": True if volume.kms_key else None,
    }
    kept = {key: value for key, value in ebs.items() if value is not None}
    all_tags = tags(plan, run, name)
    request = {
        "ImageId": image,
        "MinCount": 1,
        "MaxCount": 1,
        "KeyName": name,
        "SubnetId": builder.subnet,
        "SecurityGroupIds": [_security_group(plan, aws, undo, name, all_tags)],
        "IamInstanceProfile": {"Name": builder.instance_profile},
        "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
        "UserData": data,
        "BlockDeviceMappings": [{"DeviceName": plan.base.root_device, "Ebs": kept}],
        "TagSpecifications": [{"ResourceType": kind, "Tags": all_tags} for kind in ("instance", "volume")],
    }
    if builder.market == "spot":
        # Only a persistent request's instance can be stopped, and the image is made of a stopped one.
        options = {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}
        return {**request, "InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": options}}
    return {**request, "InstanceInitiatedShutdownBehavior": "stop"}


def _security_group(plan: Plan, aws: Aws, undo: Undo, name: str, group_tags: list[TagTypeDef]) -> str:
    """The profile's security group, or a throw-away one that lets SSH in from `ssh_from` alone."""
    builder = plan.profile.builder
    if builder.security_group != "temporary":
        return builder.security_group
    vpc = aws.ec2.describe_subnets(SubnetIds=[builder.subnet])["Subnets"][0]["VpcId"]
    with undo.creating():
        group = aws.ec2.create_security_group(
            GroupName=name,
            Description="SSH to one bake's instance; removed with it",
            VpcId=vpc,
            TagSpecifications=[{"ResourceType": "security-group", "Tags": group_tags}],
        )["GroupId"]
        undo.add(
            f"security group {group}",
            lambda: aws.ec2.delete_security_group(GroupId=group),
            by_hand=f"aws ec2 delete-security-group --region {aws.region} --group-id {group}",
        )
    source = {"CidrIp": builder.ssh_from or "", "Description": "bake"}
    rule: Any = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [source]}
    aws.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    return group


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
