"""Security groups, public and private addresses of machines, as clients of EC2 and the host see them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bake.localcloud.settings import METADATA_ADDRESS, SERVED, Settings
from bake.ssh import Session, connect

from .moto_account import new
from .plugged import CONNECT, SECONDS, connected

pytestmark = pytest.mark.root
EVERYTHING = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}


def described(account: Any, identity: str) -> Any:
    [group] = account.ec2.describe_instances(InstanceIds=[identity])["Reservations"]
    return group["Instances"][0]


def group_of(account: Any, *rules: dict[str, Any]) -> str:
    """A security group of the VPC with these rules of ingress."""
    [subnet] = account.ec2.describe_subnets(SubnetIds=[account.cloud.environment["BAKE_SUBNET_ID"]])[
        "Subnets"
    ]
    made = account.ec2.create_security_group(GroupName=new("net"), Description="x", VpcId=subnet["VpcId"])
    group = str(made["GroupId"])
    if rules:
        account.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=list(rules))
    return group


def ssh(**source: Any) -> dict[str, Any]:
    return {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, **source}


def tried(session: Session, address: str, port: int) -> str:
    done = session.run("python3", "-c", CONNECT, address, str(port), str(SECONDS))
    return done.stdout.strip()


def bridges_filter() -> bool:
    """Whether packets that arrive at a bridge are translated before the host routes them."""
    setting = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    return setting.exists() and setting.read_text().strip() == "1"


@pytest.fixture(scope="module")
def bastion(account: Any) -> Iterator[Any]:
    """A machine with a public address, which this host reaches by SSH."""
    launched = account.launch(SecurityGroupIds=[group_of(account, ssh(IpRanges=[{"CidrIp": "0.0.0.0/0"}]))])
    account.reach(launched.id, "running")
    with connect(launched.login):
        yield launched
    account.terminate(launched.id)


@pytest.fixture(scope="module")
def hidden(account: Any, bastion: Any) -> Iterator[Any]:
    """A machine in the private subnet, which only the bastion reaches."""
    inner = group_of(account, ssh(UserIdGroupPairs=[{"GroupId": bastion.parameters["SecurityGroupIds"][0]}]))
    private = account.cloud.environment["BAKE_PRIVATE_SUBNET_ID"]
    launched = account.launch(SecurityGroupIds=[inner], SubnetId=private)
    account.reach(launched.id, "running")
    yield launched
    account.terminate(launched.id)


def test_a_public_address_leads_to_an_instance_of_the_public_subnet_only(
    account: Any, bastion: Any, hidden: Any, cloud_settings: Settings
) -> None:
    outer, inner = described(account, bastion.id), described(account, hidden.id)
    public = outer["PublicIpAddress"]
    assert public != outer["PrivateIpAddress"]
    assert public.replace(".", "-") in outer["PublicDnsName"]
    assert "PublicIpAddress" not in inner and not inner.get("PublicDnsName")
    with connect(replace(bastion.login, address=public)) as session:
        assert asked(session, "public-ipv4") == public
        assert asked(session, "local-ipv4") == outer["PrivateIpAddress"]


METADATA = f"http://{METADATA_ADDRESS}/latest/meta-data/{{}}"
ASK = f"""
token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://{METADATA_ADDRESS}/latest/api/token)
curl -sf -H "X-aws-ec2-metadata-token: $token" {METADATA.format('"$1"')} || echo none
"""


def asked(session: Session, path: str) -> str:
    return session.run("sh", "-c", ASK, "sh", path).stdout.strip()


def test_the_host_reaches_what_a_rule_admits_from_outside_the_vpc_and_nothing_else(
    account: Any, bastion: Any, hidden: Any, cloud_settings: Settings
) -> None:
    address = described(account, hidden.id)["PrivateIpAddress"]
    group = hidden.parameters["SecurityGroupIds"][0]
    with connect(bastion.login) as session:
        account.wait("sshd", lambda: True if tried(session, address, 22) == "open" else None)
    assert connected([], address, 22) == "TimeoutError", "its group admits another group"
    own = {"IpRanges": [{"CidrIp": f"{cloud_settings.address}/32"}]}
    in_vpc = {"IpRanges": [{"CidrIp": str(cloud_settings.vpc)}]}
    six = {"Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32"}]}
    for source, found in ((own, "open"), (in_vpc, "TimeoutError"), (six, "open")):
        account.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[ssh(**source)])
        assert connected([], address, 22) == found
        account.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[ssh(**source)])
        assert connected([], address, 22) == "TimeoutError", "at once"


def test_what_egress_rules_do_not_let_out_stays_in(
    account: Any, bastion: Any, hidden: Any, cloud_settings: Settings
) -> None:
    group, server = bastion.parameters["SecurityGroupIds"][0], cloud_settings.address
    address = described(account, hidden.id)["PrivateIpAddress"]
    with connect(bastion.login) as session:
        assert (tried(session, server, SERVED[0]), tried(session, address, 22)) == ("open", "open")
        account.ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[EVERYTHING])
        assert tried(session, server, SERVED[0]) == tried(session, address, 22) == "TimeoutError"
        assert asked(session, "instance-id") == bastion.id, "metadata are not subject to groups"
        https = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        account.ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[https])
        assert (tried(session, server, SERVED[0]), tried(session, address, 22)) == ("open", "TimeoutError")
        account.ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[EVERYTHING])
        assert tried(session, address, 22) == "open"


@pytest.mark.skipif(bridges_filter(), reason="this host's bridges filter (br_netfilter)")
def test_by_their_public_addresses_instances_see_each_other_from_outside(account: Any, bastion: Any) -> None:
    """A rule for the group does not admit what comes from a public address, and one for that address does."""
    group = bastion.parameters["SecurityGroupIds"][0]
    inner = group_of(account, ssh(UserIdGroupPairs=[{"GroupId": group}]))
    launched = account.launch(SecurityGroupIds=[inner])
    try:
        account.reach(launched.id, "running")
        facts, public = described(account, launched.id), described(account, bastion.id)["PublicIpAddress"]
        with connect(bastion.login) as session:
            private = facts["PrivateIpAddress"]
            account.wait("sshd", lambda: True if tried(session, private, 22) == "open" else None)
            assert tried(session, facts["PublicIpAddress"], 22) == "TimeoutError"
            rule = ssh(IpRanges=[{"CidrIp": f"{public}/32"}])
            account.ec2.authorize_security_group_ingress(GroupId=inner, IpPermissions=[rule])
            assert tried(session, facts["PublicIpAddress"], 22) == "open"
        assert connected([], facts["PublicIpAddress"], 22) == "TimeoutError", "it is not the host's address"
    finally:
        account.terminate(launched.id)


def test_a_public_address_changes_on_stop_and_start_and_a_private_one_stays(account: Any) -> None:
    launched = account.launch()
    try:
        account.reach(launched.id, "running")
        before = described(account, launched.id)
        account.ec2.stop_instances(InstanceIds=[launched.id])
        account.reach(launched.id, "stopped")
        assert "PublicIpAddress" not in described(account, launched.id)
        assert connected([], before["PublicIpAddress"], 22) != "open"
        account.ec2.start_instances(InstanceIds=[launched.id])
        account.reach(launched.id, "running")
        after = described(account, launched.id)
        assert after["PrivateIpAddress"] == before["PrivateIpAddress"]
        assert after["PublicIpAddress"] != before["PublicIpAddress"]
        with connect(replace(launched.login, address=after["PublicIpAddress"])) as session:
            assert asked(session, "public-ipv4") == after["PublicIpAddress"]
        held = account.ec2.allocate_address(Domain="vpc")
        account.ec2.associate_address(InstanceId=launched.id, AllocationId=held["AllocationId"])
        assert described(account, launched.id)["PublicIpAddress"] == held["PublicIp"]
        with connect(replace(launched.login, address=held["PublicIp"])):
            pass
        account.ec2.disassociate_address(PublicIp=held["PublicIp"])
        account.ec2.release_address(AllocationId=held["AllocationId"])
        assert described(account, launched.id)["PublicIpAddress"] != held["PublicIp"]
    finally:
        account.terminate(launched.id)


def test_without_a_public_address_an_instance_has_no_way_to_the_internet_gateway(
    account: Any, cloud_settings: Settings
) -> None:
    environment = account.cloud.environment
    nic = {
        "DeviceIndex": 0,
        "SubnetId": environment["BAKE_SUBNET_ID"],
        "Groups": [environment["BAKE_SECURITY_GROUP_ID"]],
        "AssociatePublicIpAddress": False,
    }
    parameters = {"NetworkInterfaces": [nic], "SubnetId": None, "SecurityGroupIds": None}
    launched = account.launch(**parameters)
    try:
        account.reach(launched.id, "running")
        facts = described(account, launched.id)
        assert "PublicIpAddress" not in facts
        with connect(launched.login) as session:
            assert tried(session, cloud_settings.address, SERVED[0]) == "TimeoutError"
            assert asked(session, "public-ipv4") == "none"
            held = account.ec2.allocate_address(Domain="vpc")
            account.ec2.associate_address(InstanceId=launched.id, AllocationId=held["AllocationId"])
            assert tried(session, cloud_settings.address, SERVED[0]) == "open"
        account.ec2.release_address(AllocationId=held["AllocationId"])
    finally:
        account.terminate(launched.id)


def test_what_an_instance_is_in_can_not_be_deleted(account: Any, hidden: Any) -> None:
    [subnet] = account.ec2.describe_subnets(SubnetIds=[hidden.parameters["SubnetId"]])["Subnets"]
    nic = described(account, hidden.id)["NetworkInterfaces"][0]["NetworkInterfaceId"]
    for operation, parameters in (
        (account.ec2.delete_subnet, {"SubnetId": subnet["SubnetId"]}),
        (account.ec2.delete_vpc, {"VpcId": subnet["VpcId"]}),
    ):
        with pytest.raises(ClientError, match="DependencyViolation"):
            operation(**parameters)
    with pytest.raises(ClientError, match="is currently in use"):
        account.ec2.delete_network_interface(NetworkInterfaceId=nic)
