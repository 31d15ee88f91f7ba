"""A builder and a booted image that let SSH in from a bastion alone: `builder.proxy_command` leads there."""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from botocore.exceptions import ClientError

from bake.checks import backend
from bake.instance import KeyPair, user_data
from bake.localcloud import LocalCloud
from bake.ssh import Login, Session, connect
from bake.ssh.proxy import Proxy
from bake.steps.locate import locate

from .bakes import ROOT, rehearse
from .instances import client, launch

if TYPE_CHECKING:
    from tests.conftest import Machine, NewMachine

pytestmark = pytest.mark.root
SSH = 22


@dataclass(frozen=True)
class Bastion:
    """A machine that SSH reaches from everywhere, and the group of machines that only it reaches.

    `address` is where it is reached from here, `private` how others of its VPC see it.
    """

    session: Session
    address: str
    private: str
    behind: str
    command: tuple[str, ...]

    @property
    def logins(self) -> int:
        """How many connections its sshd has let in."""
        log = self.session.run("journalctl", "-b", "--no-pager", "-o", "cat", sudo=True).stdout
        return log.count("Accepted publickey for ubuntu")


def group(ec2: Any, vpc: str, name: str, source: dict[str, Any]) -> str:
    """A security group that lets SSH in from one source."""
    made: str = ec2.create_security_group(GroupName=name, Description="bastion", VpcId=vpc)["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": SSH, "ToPort": SSH, **source}
    patiently(lambda: ec2.authorize_security_group_ingress(GroupId=made, IpPermissions=[rule]))
    return made


def patiently(call: Callable[[], object]) -> None:
    """Call again while EC2 does not know yet what is there, or still sees what has gone."""
    end = time.monotonic() + 120
    while True:
        try:
            call()
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code not in ("InvalidGroup.NotFound", "DependencyViolation") or time.monotonic() > end:
                raise
            time.sleep(0.5)
        else:
            return


@pytest.fixture(scope="module")
def bastion(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bastion]:
    folder, key = tmp_path_factory.mktemp("bastion"), KeyPair.generate()
    ec2, found = client(cloud, "ec2", "SPOT_AWS_REGION"), cloud.environment
    vpc = ec2.describe_subnets(SubnetIds=[found["BAKE_SUBNET_ID"]])["Subnets"][0]["VpcId"]
    outer = group(ec2, vpc, "bastion", {"IpRanges": [{"CidrIp": "0.0.0.0/0"}]})
    behind = group(ec2, vpc, "behind", {"UserIdGroupPairs": [{"GroupId": outer}]})
    instance, login = launch(cloud, found["BASE_AMI_ID"], user_data([key], {}), groups=[outer])
    ec2.get_waiter("instance_running").wait(InstanceIds=[instance])
    facts = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    address, private = facts.get("PublicIpAddress", login.address), facts["PrivateIpAddress"]
    identity, known = folder / "identity", folder / "known_hosts"
    identity.touch(mode=0o600)
    identity.write_text(login.private_key)
    known.write_text(f"{address} {key.public}\n")
    options = [
        f"-oUserKnownHostsFile={known}",
        "-oStrictHostKeyChecking=yes",
        "-oBatchMode=yes",
        "-F/dev/null",
    ]
    command = ("ssh", "-i", str(identity), *options, "-W", "{host}:{port}", f"{login.user}@{address}")
    try:
        with connect(Login(address, login.user, login.private_key, key.public)) as session:
            yield Bastion(session, address, private, behind, command)
    finally:
        ec2.terminate_instances(InstanceIds=[instance])
        ec2.get_waiter("instance_terminated").wait(InstanceIds=[instance])
        for one in (behind, outer):
            patiently(functools.partial(ec2.delete_security_group, GroupId=one))


@pytest.fixture(scope="module")
def behind(new_machine: NewMachine, bastion: Bastion) -> Iterator[Machine]:
    way = {"security_group": bastion.behind, "proxy_command": bastion.command}
    with new_machine(builder=way) as machine:
        yield machine


def peers(session: Session) -> set[str]:
    """Who has connections to the machine's sshd."""
    lines = session.run("cat", "/proc/net/tcp", "/proc/net/tcp6").stdout.splitlines()
    rows = [line.split() for line in lines if ":" in line and "address" not in line]
    ours = [row[2] for row in rows if row[1].endswith(f":{SSH:04X}") and row[3] == "01"]
    return {socket.inet_ntoa(bytes.fromhex(one.partition(":")[0][-8:])[::-1]) for one in ours}


def proxy_of(session: Session) -> Proxy:
    transport = session._client.get_transport()
    assert transport is not None
    assert isinstance(transport.sock, Proxy)
    return transport.sock


def test_the_builder_sees_the_bastion_alone(behind: Machine, bastion: Bastion) -> None:
    assert peers(behind.session) == {bastion.private}
    assert behind.session.login.proxy[-2:] == (
        f"{behind.instance.login.address}:22",
        f"ubuntu@{bastion.address}",
    )


def test_no_other_way_leads_there(behind: Machine) -> None:
    with pytest.raises(OSError, match=r"refused|timed out"):
        socket.create_connection((behind.instance.login.address, SSH), timeout=3).close()


def test_a_tunnel_that_ends_in_the_middle_costs_nothing(behind: Machine, bastion: Bastion) -> None:
    before, logins = proxy_of(behind.session), bastion.logins
    os.kill(before._process.pid, signal.SIGKILL)
    assert behind.session.run("echo", "there").stdout == "there\n"
    assert proxy_of(behind.session) is not before
    assert bastion.logins == logins + 1


def test_one_that_the_bastion_ends_is_begun_anew(behind: Machine, bastion: Bastion) -> None:
    line = "kill $(pgrep --full 'sshd.*: ubuntu$' --newest)"
    before = proxy_of(behind.session)
    bastion.session.run("sh", "-c", line, sudo=True, check=False)
    assert behind.session.run("echo", "there").stdout == "there\n"
    assert proxy_of(behind.session) is not before


def test_the_checks_by_hand_go_through_it_too(behind: Machine, tmp_path: Path) -> None:
    login = behind.instance.login
    known, identity = tmp_path / "known", tmp_path / "identity"
    known.write_text("".join(f"{login.address} {key}\n" for key in login.host_key.splitlines()))
    identity.touch(mode=0o600)
    identity.write_text(login.private_key.partition("-----END")[0] + "-----END OPENSSH PRIVATE KEY-----\n")
    config = tmp_path / "config"
    config.write_text(f"Host *\n  UserKnownHostsFile {known}\n  BatchMode yes\n")
    host = backend.named(
        f"ssh://{login.user}@{login.address}",
        ssh_config=str(config),
        identity=str(identity),
        proxy=behind.session.login.proxy,
    )
    assert host.check_output("echo there") == "there"


def test_a_builder_that_was_stopped_is_found_again(new_machine: NewMachine, bastion: Bastion) -> None:
    way = {"security_group": bastion.behind, "proxy_command": bastion.command}
    with new_machine(builder=way) as machine:
        ec2, one = machine.aws.ec2, [machine.instance.id]
        ec2.stop_instances(InstanceIds=one)
        ec2.get_waiter("instance_stopped").wait(InstanceIds=one)
        ec2.start_instances(InstanceIds=one)
        ec2.get_waiter("instance_running").wait(InstanceIds=one)
        login = locate(machine.plan.launch.reach, machine.aws, one[0], machine.instance.login)
        with connect(login) as session:
            assert peers(session) == {bastion.private}


def running(bastion: Bastion) -> set[str]:
    """The processes that go through it: another test may hold a connection."""
    listed = subprocess.run(["pgrep", "--full", bastion.command[2]], capture_output=True, check=False)
    return set(listed.stdout.decode().split())


@pytest.mark.long
def test_a_whole_bake_goes_through_it(bastion: Bastion, tmp_path: Path) -> None:
    """Builder and boot check; the agreement names the way."""
    profiles, logins, before = tmp_path / "profiles", bastion.logins, running(bastion)
    profiles.mkdir()
    for file in (ROOT / "profiles").glob("*.yaml"):
        (profiles / file.name).write_text(file.read_text())
    builder = {"security_group": "${BEHIND}", "address": "private", "proxy_command": list(bastion.command)}
    (profiles / "led.yaml").write_text(
        yaml.safe_dump({"extends": "g6e-ubuntu", "attest": False, "builder": builder})
    )
    outcome = rehearse(tmp_path, "led", profiles=profiles, environment={"BEHIND": bastion.behind})
    assert outcome.code == 0, outcome.errors
    assert outcome.report["image"]["id"]
    plan = outcome.kept("plan.json")
    assert plan["facts"]["proxy_command"]["value"].startswith("ssh -i ")
    assert bastion.logins >= logins + 2, "one connection for the builder, and one for the boot check"
    assert running(bastion) == before, "no command outlives its connection"
