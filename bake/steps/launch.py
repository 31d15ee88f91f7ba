"""Launch an instance with a temporary key pair and SSH host keys made for this run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

from bake import builder_lease
from bake.account.quotas import ended_lately
from bake.aws import Aws, ClientError
from bake.creation import Found, Resource, tag_of
from bake.errors import BakeError
from bake.instance import (
    KeyPair,
    cancel_spot_requests,
    delete_group,
    describe,
    terminate,
    terminate_by_hand,
    user_data,
)
from bake.launch_request import LaunchRequest
from bake.planning.plan import Plan
from bake.profile.values import ssh_network
from bake.reaper import Reaper
from bake.retries import CAPACITY, QUOTA, error_code
from bake.run import Run
from bake.ssh import Login
from bake.steps.exclusive import refuse_second
from bake.steps.locate import locate
from bake.steps.tags import tags
from bake.systems import System
from bake.undo import Undo

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import TagTypeDef

# Of a spot request's life: AWS moves no ValidUntil, and starts no interrupted builder after it, so it
# must cover more than any bake takes. What replaces a builder that somebody ended powers off at
# the expiry in its user data.
LEASES = 4
# Seconds until a quota no longer counts an instance that has ended.
RELEASES = 300.0


@dataclass(frozen=True)
class Instance:
    """A launched instance: its root volume, the login, the operating system it should have, and its role.

    `seen_running` is when EC2 first said that it runs (time.monotonic()); None where nobody looked.
    """

    id: str
    root_volume: str
    login: Login
    system: System
    role: str = "builder"
    seen_running: float | None = None


@dataclass(frozen=True)
class Launched:
    """What a resumed run needs to log in to its builder again; it holds the private key."""

    id: str
    root_volume: str
    login: Login


@dataclass(frozen=True)
class LaunchSpec:
    """One instance to launch.

    `role` (`builder`, `boot-check`) goes into its name and tags. `types` are agreed instance types, tried in
    this order; without capacity for any, all are tried again for `patience` seconds. cloud-init writes
    `files` (path -> content).
    """

    role: str
    image: str
    types: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    patience: float = 0

    @property
    def ends_itself(self) -> bool:
        """Whether it powers off, and is terminated by that, when its lease ends.

        An instance of the new image does not: the boot check has to see the image as workers get it.
        """
        return self.role == "builder"

    def initialization_rate(self, plan: Plan) -> int | None:
        """MiB/s at which EBS fills its root volume: as agreed, for an instance of the new image.

        A builder's volume is filled from the base AMI, of which a bake reads little: that is not paid for.
        """
        return None if self.role == "builder" else plan.profile.cold_start.volume_initialization_rate


def launch_builder(plan: Plan, aws: Aws, run: Run, undo: Undo) -> Instance:
    """Launch the builder from the base AMI."""
    with run.progress.step("launch"):
        if run.exclusive:
            refuse_second(plan, aws, run)
        spec = LaunchSpec("builder", plan.launch.base.id, plan.profile.builder.types)
        builder = launch(spec, plan, aws, run, undo)
        if run.exclusive:  # both may have looked before one of them launched
            refuse_second(plan, aws, run)
        run.remember("launch", Launched, Launched(builder.id, builder.root_volume, builder.login))
        return builder


def launch(spec: LaunchSpec, plan: Plan, aws: Aws, run: Run, undo: Undo) -> Instance:
    """Start an instance with the plan's disk and network, and wait until it runs."""
    name = f"{run.name}-{spec.role}"
    # EC2 accepts ed25519 and RSA key pairs only; cloud-init installs the ECDSA key.
    logins, hosts = KeyPair.of_each_kind(), KeyPair.of_each_kind()
    _import_key(aws, run, undo, name, logins[0], tags(plan, run, name))
    at_boot = builder_lease.boot_command(run.expires(), plan.lease) if spec.ends_itself else ()
    data = user_data(hosts, spec.files, [logins[1].public], at_boot)
    request = _request(spec, plan, aws, undo, name, data, run)
    reaper = made_reaper(plan, aws, run, undo, name)
    instance_id = _run_instance(spec, plan, aws, undo, request, run)
    if reaper is not None:
        arm(reaper, instance_id, run)
    run.progress.status(f"{instance_id} is starting")
    what = f"{spec.role} {instance_id}"
    volume = aws.wait(what, lambda: _when_running(aws, instance_id), timeout=600)
    seen_running = time.monotonic()
    keys = "".join(key.private for key in logins)
    login = Login("", plan.system.user, keys, host_key="\n".join(key.public for key in hosts))
    login = locate(plan.launch.reach, aws, instance_id, login)
    return Instance(instance_id, volume, login, plan.system, spec.role, seen_running)


def made_reaper(plan: Plan, aws: Aws, run: Run, undo: Undo, name: str) -> Reaper | None:
    """Make what ends an instance of this name that hangs; None unless the profile wants it."""
    if (role := plan.profile.builder.reaper_role) is None:
        return None
    return Reaper.make(aws, run.id, name, role, tags(plan, run, name), run.expires(), undo)


def arm(reaper: Reaper, instance: str, run: Run) -> None:
    """Let it end the instance when the lease is over, which each renewal of the lease moves."""
    reaper.arm(instance, run.expires())
    run.renewals.append(reaper.renew)


def _import_key(aws: Aws, run: Run, undo: Undo, name: str, key: KeyPair, key_tags: list[TagTypeDef]) -> None:
    def make() -> str:
        aws.ec2.import_key_pair(
            KeyName=name,
            PublicKeyMaterial=key.public.encode(),
            TagSpecifications=[{"ResourceType": "key-pair", "Tags": key_tags}],
        )
        return name

    def find() -> Found | None:
        filters: Any = [{"Name": "key-name", "Values": [name]}]
        pairs = aws.ec2.describe_key_pairs(Filters=filters)["KeyPairs"]
        return Found(name, tag_of(pairs[0].get("Tags"))) if pairs else None

    Resource(
        "key pair",
        name,
        run.id,
        aws,
        make,
        find,
        remove=lambda found: aws.ec2.delete_key_pair(KeyName=found),
        by_hand=lambda found: aws.command("ec2", "delete-key-pair", "--key-name", name),
    ).create(undo)


def _run_instance(
    spec: LaunchSpec, plan: Plan, aws: Aws, undo: Undo, request: dict[str, Any], run: Run
) -> str:
    """Call RunInstances with the first agreed type that has capacity, and with no other type.

    An instance that has just ended still counts in quotas: those it waits for, also without patience.
    """
    tries, without, counted = count(1), set[str](), set[str]()
    types, patience = spec.types, spec.patience

    def attempt() -> str | None:
        number = next(tries)
        for instance_type in types:
            try:
                return _run_one(aws, run, undo, request, instance_type, number)
            except ClientError as error:
                code = error_code(error)
                if code in QUOTA and (patience or ended_lately(aws, instance_type)):
                    counted.add(instance_type)
                elif code not in CAPACITY:
                    raise
                if instance_type not in without:
                    why = "AWS has no capacity in the subnet's zone right now"
                    run.progress.note(
                        f"{instance_type}: {why if code in CAPACITY else f'AWS answers {code}'}"
                    )
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
    if patience := patience or (RELEASES if counted else 0):
        return aws.wait(f"capacity for {what}", attempt, timeout=patience, hint=hint)
    raise BakeError(f"AWS has no capacity for {what}", hint=hint)


def _run_one(aws: Aws, run: Run, undo: Undo, request: dict[str, Any], instance_type: str, number: int) -> str:
    """Call RunInstances once; each retry of a type has its own token, so that EC2 treats it as new."""
    token = f"{request['KeyName']}-{number}-{instance_type}"[:64]
    spot = "InstanceMarketOptions" in request

    def make() -> str:
        answer = aws.ec2.run_instances(**request, InstanceType=instance_type, ClientToken=token)  # type: ignore[arg-type]
        return answer["Instances"][0]["InstanceId"]

    def find() -> Found | None:
        filters: Any = [{"Name": "client-token", "Values": [token]}]
        found = aws.ec2.describe_instances(Filters=filters)["Reservations"]
        instances = [instance for group in found for instance in group["Instances"]]
        return Found(instances[0]["InstanceId"], tag_of(instances[0].get("Tags"))) if instances else None

    def remove(instance_id: str) -> None:
        if spot:
            # First: a persistent request would replace an instance that ends.
            cancel_spot_requests(aws, run.id, request["KeyName"])
        terminate(aws, instance_id)

    instance_id, _ = Resource(
        "instance",
        request["KeyName"],
        run.id,
        aws,
        make,
        find,
        remove,
        by_hand=lambda found: terminate_by_hand(aws, run.id, found, spot=spot),
    ).create(undo)
    return instance_id


def _request(
    spec: LaunchSpec, plan: Plan, aws: Aws, undo: Undo, name: str, data: str, run: Run
) -> dict[str, Any]:
    """Build the arguments of RunInstances, without the instance type."""
    all_tags = tags(plan, run, name)
    return LaunchRequest(
        image=spec.image,
        root_device=plan.launch.base.root_device,
        tags=all_tags,
        valid_until=aws.now() + max(LEASES * plan.lease, timedelta(days=1)),
        ends_itself=spec.ends_itself,
        key_name=name,
        security_group=_security_group(plan, aws, run, undo, name, all_tags),
        user_data=data,
        initialization_rate=spec.initialization_rate(plan),
    ).arguments(plan.profile)


def _security_group(
    plan: Plan, aws: Aws, run: Run, undo: Undo, name: str, group_tags: list[TagTypeDef]
) -> str:
    """Return the profile's security group, or create a temporary one that admits SSH from `ssh_from`."""
    builder = plan.profile.builder
    if builder.security_group != "temporary":
        return builder.security_group
    vpc = aws.ec2.describe_subnets(SubnetIds=[builder.subnet])["Subnets"][0]["VpcId"]

    def make() -> str:
        return aws.ec2.create_security_group(
            GroupName=name,
            Description="SSH to one bake's instance; removed with it",
            VpcId=vpc,
            TagSpecifications=[{"ResourceType": "security-group", "Tags": group_tags}],
        )["GroupId"]

    def find() -> Found | None:
        filters: Any = [{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [vpc]}]
        groups = aws.ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
        return Found(groups[0]["GroupId"], tag_of(groups[0].get("Tags"))) if groups else None

    group, _ = Resource(
        "security group",
        name,
        run.id,
        aws,
        make,
        find,
        remove=lambda found: delete_group(aws, found),
        by_hand=lambda found: _delete_by_hand(aws, name, found),
    ).create(undo)
    rule: Any = ingress(builder.ssh_from or "")
    try:
        aws.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    except ClientError as error:
        if (
            error_code(error) != "InvalidPermission.Duplicate"
        ):  # an earlier try did it, and its answer was lost
            raise
    return group


def _delete_by_hand(aws: Aws, name: str, group: str | None) -> str:
    filters = ("--filters", f"Name=group-name,Values={name}", "--query", "SecurityGroups[].GroupId")
    found = group or f"$({aws.command('ec2', 'describe-security-groups', *filters, '--output', 'text')})"
    return f"{aws.command('ec2', 'delete-security-group', '--group-id')} {found}"


def ingress(cidr: str) -> dict[str, Any]:
    """Return the rule that admits port 22 from a network, IPv4 or IPv6."""
    network = ssh_network(cidr)
    source = {"CidrIp" if network.version == 4 else "CidrIpv6": str(network), "Description": "bake"}
    ranges = "IpRanges" if network.version == 4 else "Ipv6Ranges"
    return {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, ranges: [source]}


def _when_running(aws: Aws, instance_id: str) -> str | None:
    """Return the root volume of a running instance; None while it is pending."""
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
    return volumes.get(root)
