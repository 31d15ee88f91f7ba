"""Who may talk to whom: users of the host, neighbours that route through it, and instances."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from bake.localcloud.lifecycle import cloud as localcloud
from bake.localcloud.network.firewall import Opening
from bake.localcloud.settings import IMDS_PORT, METADATA_ADDRESS, SERVED, Settings
from bake.ssh import Session, connect

from .plugged import CONNECT, SECONDS, connected, inside, plugged_in, user

if TYPE_CHECKING:
    from tests.outside import Outside

pytestmark = pytest.mark.root

NOBODY = 65534
EVERY = (*SERVED, IMDS_PORT)


def vpc_of(ec2: Any, group: str) -> list[Any]:
    """A filter for what is in the VPC of a group."""
    [found] = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    return [{"Name": "vpc-id", "Values": [found["VpcId"]]}]


def ssh_from(network: str) -> dict[str, Any]:
    return {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": network}]}


@pytest.fixture(scope="module")
def machines(account: Any) -> Iterator[list[Any]]:
    """Two instances in a security group of their own, which lets nothing in but SSH from this host."""
    ec2 = account.ec2
    [subnet] = ec2.describe_subnets(SubnetIds=[account.cloud.environment["BAKE_SUBNET_ID"]])["Subnets"]
    made = ec2.create_security_group(GroupName="walls", Description="walls", VpcId=subnet["VpcId"])
    ec2.authorize_security_group_ingress(GroupId=made["GroupId"], IpPermissions=[ssh_from("203.0.113.0/24")])
    launched = [account.launch(SecurityGroupIds=[made["GroupId"]]) for _ in range(2)]
    yield launched
    for machine in launched:
        account.terminate(machine.id)
    account.delete_group(made["GroupId"])


@pytest.fixture(scope="module")
def session(machines: list[Any]) -> Iterator[Session]:
    with connect(machines[0].login) as session:
        yield session


@contextmanager
def listening(address: str, family: int = socket.AF_INET) -> Iterator[int]:
    """A server on this host, as many have some; its port."""
    with socket.socket(family) as server:
        server.bind((address, 0))
        server.listen()
        yield server.getsockname()[1]


def from_machine(session: Session, address: str, port: int) -> str:
    """Try a connection from an instance."""
    done = session.run("python3", "-c", CONNECT, address, str(port), str(SECONDS))
    return done.stdout.strip()


def all_of(before: list[str], places: list[tuple[str, int]]) -> set[str]:
    """Try several at a time."""
    with ThreadPoolExecutor(len(places)) as threads:
        return set(threads.map(lambda place: connected(before, *place), places))


def test_root_reaches_the_servers_and_instances_by_ssh(cloud_settings: Settings, machines: list[Any]) -> None:
    with connect(machines[1].login):
        pass
    assert all_of([], [(cloud_settings.address, port) for port in EVERY]) == {"open"}


def test_another_user_of_the_host_reaches_nothing(cloud_settings: Settings, machines: list[Any]) -> None:
    servers = [(cloud_settings.address, port) for port in EVERY]
    assert "open" not in all_of(user(NOBODY), [*servers, (machines[1].login.address, 22)])
    steer = f"import socket; socket.socket(socket.AF_UNIX).connect({str(cloud_settings.control)!r})"
    done = subprocess.run([*user(NOBODY), "/usr/bin/python3", "-c", steer], capture_output=True, text=True)
    assert "PermissionError" in done.stderr


def test_its_owner_reaches_it(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who called sudo."""
    monkeypatch.setenv("SUDO_UID", "4711")
    localcloud.up()
    assert connected(user(4711), own.address, SERVED[0]) == "open"
    assert connected(user(4712), own.address, SERVED[0]) != "open"


def test_a_neighbour_reaches_nothing(
    cloud_settings: Settings, machines: list[Any], outside: Outside, session: Session
) -> None:
    with listening(outside.host) as port:
        assert connected(outside.command(), outside.host, port) == "open", "it does route through this host"
    servers = [(cloud_settings.address, port) for port in EVERY]
    assert all_of(outside.command(), [*servers, (machines[1].login.address, 22)]) == {"TimeoutError"}
    with outside.make(lambda: socket.create_server((outside.address, 0))) as server:
        there = server.getsockname()[1]
        assert from_machine(session, outside.address, there) == "open", "instances reach the world"


def test_an_instance_reaches_no_other_port_of_the_host(
    session: Session, cloud_settings: Settings, outside: Outside
) -> None:
    address = cloud_settings.address
    assert {from_machine(session, address, port) for port in SERVED} == {"open"}
    assert from_machine(session, METADATA_ADDRESS, 80) == "open"
    assert from_machine(session, address, IMDS_PORT) != "open", "metadata have an address of their own"
    with listening("0.0.0.0") as port:
        assert connected([], address, port) == "open"
        for own in (address, outside.host):
            assert from_machine(session, own, port) == "ConnectionRefusedError"


def test_an_instance_speaks_for_itself_alone(cloud_settings: Settings) -> None:
    """Its metadata, with its role's credentials, are told by its address."""
    own, other = str(cloud_settings.subnet[-3]), str(cloud_settings.subnet[-2])
    server = (METADATA_ADDRESS, 80)
    with plugged_in(cloud_settings, own) as process:
        ip = [*inside(process), "ip"]
        assert connected(inside(process), *server) == "open"
        assert connected(inside(process), cloud_settings.address, SERVED[0]) != "open", "it has no group"
        subprocess.run([*ip, "addr", "add", f"{other}/24", "dev", "eth0"], check=True)
        assert connected(inside(process), *server, source=other) == "TimeoutError"
        subprocess.run([*ip, "link", "set", "eth0", "address", "02:00:00:00:00:fb"], check=True)
        assert connected(inside(process), *server) != "open"


def test_an_instance_has_no_way_in_by_ipv6(cloud_settings: Settings) -> None:
    with (
        plugged_in(cloud_settings, str(cloud_settings.subnet[-3])) as process,
        listening("::", socket.AF_INET6) as port,
    ):
        show = ["ip", "-6", "-oneline", "addr", "show", "dev", cloud_settings.bridge]
        listed = subprocess.run(show, capture_output=True, text=True, check=True)
        addresses = [word.split("/")[0] for word in listed.stdout.split() if word.startswith("fe80")]
        if addresses:  # a host may have no IPv6 at all
            assert connected([], f"{addresses[0]}%{cloud_settings.bridge}", port) == "open"
            assert connected(inside(process), f"{addresses[0]}%eth0", port) != "open"


def test_instances_reach_each_other_where_a_security_group_says_so(
    session: Session, machines: list[Any], account: Any
) -> None:
    ec2, other = account.ec2, machines[1].login.address
    with connect(machines[1].login) as there:  # it is up, and sshd listens
        there.run("true")
    group = machines[0].parameters["SecurityGroupIds"][0]
    assert from_machine(session, other, 22) == "TimeoutError"
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    for source in ({"UserIdGroupPairs": [{"GroupId": group}]}, {"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}):
        rule = {"GroupId": group, "IpPermissions": [{**ssh, **source}]}
        ec2.authorize_security_group_ingress(**rule)
        assert from_machine(session, other, 22) == "open"
        ec2.revoke_security_group_ingress(**rule)
        assert from_machine(session, other, 22) == "TimeoutError"
    everything = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[everything])
    assert from_machine(session, other, 22) == "open"
    named = [{"Name": "group-name", "Values": ["default"]}, *vpc_of(ec2, group)]
    [default] = ec2.describe_security_groups(Filters=named)["SecurityGroups"]
    another = default["GroupId"]
    ec2.modify_instance_attribute(InstanceId=machines[1].id, Groups=[another])
    assert from_machine(session, other, 22) == "TimeoutError"


@pytest.mark.parametrize(
    ("opening", "rule"),
    [
        pytest.param(
            Opening("arriving", "10.1.2.3", "tcp", (1, 9), "10.0.0.0/8"),
            "ip saddr 10.0.0.0/8 ip daddr 10.1.2.3 tcp dport 1-9 accept",
            id="tcp",
        ),
        pytest.param(
            Opening("from_host", "10.1.2.3", "udp", (5, 5)),
            "ip daddr 10.1.2.3 udp dport 5-5 accept",
            id="udp",
        ),
        pytest.param(
            Opening("leaving", "10.1.2.3", "icmp", None, "10.0.0.0/8"),
            "ip saddr 10.1.2.3 ct original ip daddr 10.0.0.0/8 meta l4proto icmp return",
            id="icmp",
        ),
        pytest.param(
            Opening("to_servers", "10.1.2.3", "icmp", (8, -1)),
            "ip saddr 10.1.2.3 icmp type 8 return",
            id="ping",
        ),
        pytest.param(
            Opening("to_servers", "10.1.2.3", "icmp", (3, 4)),
            "ip saddr 10.1.2.3 icmp type 3 icmp code 4 return",
            id="icmp-code",
        ),
        pytest.param(
            Opening("from_host", "10.1.2.3", "47"), "ip daddr 10.1.2.3 meta l4proto 47 accept", id="gre"
        ),
        pytest.param(Opening("from_host", "10.1.2.3", "-1"), "ip daddr 10.1.2.3 accept", id="all"),
    ],
)
def test_an_opening_is_a_rule_that_nftables_takes(opening: Opening, rule: str) -> None:
    assert opening.rule() == rule
    name = f"bake_test_{os.getpid()}"
    content = f"table ip {name} {{\n chain one {{\n  {opening.rule()}\n }}\n}}\n"
    subprocess.run(["nft", "--check", "-f", "-"], input=content, text=True, check=True)
