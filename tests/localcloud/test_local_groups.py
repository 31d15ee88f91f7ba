"""Which packet rules follow from the API's groups, routes and addresses, without machines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from moto.ec2.exceptions import EC2ClientError

from bake.localcloud.api import routes
from bake.localcloud.api.ec2 import LocalEc2
from bake.localcloud.api.instances import LocalInstances
from bake.localcloud.api.security_groups import Groups, names_controller, openings
from bake.localcloud.lifecycle import fixtures
from bake.localcloud.network.firewall import Opening, Traffic
from bake.localcloud.settings import ACCOUNT, SERVED, SPOT_REGION, Settings

SETTINGS = Settings.load({"BAKE_LOCAL_STATE": "/nowhere", "BAKE_LOCAL_NETWORK": "10.214.40.0/24"})


class Network:
    """The fixtures of a local cloud, and instances that are records only."""

    def __init__(self, settings: Settings) -> None:
        self.instances = LocalInstances(settings)
        self.ec2 = LocalEc2(SPOT_REGION, ACCOUNT)
        public, private, group = fixtures._network(self.ec2, settings)
        self.public, self.private = self.ec2.get_subnet(public), self.ec2.get_subnet(private)
        self.group = self.ec2.get_security_group_from_id(group)

    def group_of(self, name: str) -> Any:
        return self.ec2.create_security_group(name, name, vpc_id=self.public.vpc_id)

    def rule(self, group: Any, way: str = "ingress", **rule: Any) -> None:
        words = {"ip_protocol": "tcp", "from_port": "22", "to_port": "22", "ip_ranges": [], **rule}
        getattr(self.ec2, f"authorize_security_group_{way}")(group_name_or_id=group.id, **words)

    def instance(self, subnet: Any = None, *groups: Any, public: bool = True) -> Any:
        """One instance as moto has it, with its card in the subnet."""
        place = subnet or self.public
        address = place.get_available_subnet_ip(None)
        nic = self.ec2.create_network_interface(
            place,
            address,
            group_ids=[group.id for group in groups or (self.group,)],
            public_ip_auto_assign=public and place.map_public_ip_on_launch,
        )
        moto: Any = SimpleNamespace(
            ec2_backend=self.ec2,
            nics={0: nic},
            private_ip=address,
            security_groups=[],
            state="running",
            _state=SimpleNamespace(name="running"),
        )
        nic.instance = moto
        self.ec2.give_public_addresses(moto)
        moto.public_ip = nic.public_ip
        local: Any = SimpleNamespace(moto=moto, state="running")
        self.instances._instances[nic.id] = local
        return moto

    def traffic(self) -> Traffic:
        seen: list[Traffic] = []
        Groups(self.instances, seen.append).follow()
        return seen[-1]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return made(SETTINGS, monkeypatch)


def made(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Network:
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    monkeypatch.setattr(LocalEc2, "local_instances", LocalInstances(settings), raising=False)
    monkeypatch.setattr(LocalEc2, "subnet_default", "")
    return Network(settings)


def of(found: Traffic, address: str, way: str) -> set[Opening]:
    return {one for one in found.openings if one.address == address and one.way == way}


def test_an_instance_of_the_fixtures_is_reached_by_ssh_and_reaches_everything(network: Network) -> None:
    one = network.instance()
    found = network.traffic()
    address = one.private_ip
    assert of(found, address, "from_host") == {Opening("from_host", address, "tcp", (22, 22))}
    assert of(found, address, "leaving") == {Opening("leaving", address, "-1", None, "0.0.0.0/0")}
    assert Opening("to_servers", address, "-1") in found.openings
    assert found.public == {one.public_ip: address}
    assert found.seen_as == {address: one.public_ip}
    assert not found.cut_off


@pytest.mark.parametrize(
    ("cidr", "admitted"),
    [
        ("0.0.0.0/0", True),
        ("203.0.113.0/24", True),
        ("10.0.0.0/8", True),
        (f"{SETTINGS.address}/32", True),
        (str(SETTINGS.vpc), False),
        (str(SETTINGS.network), False),
        (f"{SETTINGS.public_addresses[7]}/32", False),
        ("::/0", True),
        ("2001:db8::1/128", True),
    ],
)
def test_networks_outside_the_vpc_mean_the_host(network: Network, cidr: str, admitted: bool) -> None:
    key = "CidrIpv6" if ":" in cidr else "CidrIp"
    group = network.group_of("tried")
    network.rule(group, ip_ranges=[{key: cidr}])
    assert names_controller(group.ingress_rules[-1], SETTINGS) is admitted
    assert {one.way for one in openings([network.instance(None, group)], SETTINGS)} >= (
        {"from_host"} if admitted else set()
    )


def test_ipv6_addresses_of_the_vpc_do_not_mean_the_host(network: Network) -> None:
    [block] = network.ec2.get_vpc(network.public.vpc_id).get_cidr_block_association_set(ipv6=True)
    group = network.group_of("six")
    network.rule(group, ip_ranges=[{"CidrIpv6": block["cidr_block"]}])
    assert not names_controller(group.ingress_rules[-1], SETTINGS)


def test_a_rule_for_a_group_admits_its_instances_by_their_private_addresses(network: Network) -> None:
    outer, inner = network.group_of("outer"), network.group_of("inner")
    network.rule(inner, source_groups=[{"GroupId": outer.id}])
    bastion, hidden = network.instance(None, outer), network.instance(network.private, inner)
    found = network.traffic()
    wanted = Opening("arriving", hidden.private_ip, "tcp", (22, 22), bastion.private_ip)
    assert of(found, hidden.private_ip, "arriving") == {wanted}
    assert not of(found, hidden.private_ip, "from_host")


def test_a_revoked_rule_of_egress_cuts(network: Network) -> None:
    group = network.group_of("quiet")
    one = network.instance(None, group)
    network.ec2.revoke_security_group_egress(
        group.id, "-1", None, None, [{"CidrIp": "0.0.0.0/0"}], source_groups=[]
    )
    network.ec2.revoke_security_group_egress(
        group.id, "-1", None, None, [{"CidrIpv6": "::/0"}], source_groups=[]
    )
    assert not {found.way for found in openings([one], SETTINGS)} & {"leaving", "to_servers"}
    network.rule(group, "egress", from_port="443", to_port="443", ip_ranges=[{"CidrIp": "0.0.0.0/0"}])
    found = {one.ports for one in openings([one], SETTINGS) if one.way == "to_servers"}
    assert found == {(443, 443), *((port, port) for port in SERVED)}


@pytest.mark.parametrize(
    ("rule", "ports", "protocol"),
    [
        pytest.param({"ip_protocol": "6", "from_port": "1", "to_port": "9"}, (1, 9), "tcp", id="by-number"),
        pytest.param({"ip_protocol": "icmp", "from_port": "8", "to_port": "-1"}, (8, -1), "icmp", id="ping"),
        pytest.param({"ip_protocol": "icmp", "from_port": "-1", "to_port": "-1"}, None, "icmp", id="icmp"),
        pytest.param({"ip_protocol": "50", "from_port": None, "to_port": None}, None, "50", id="esp"),
    ],
)
def test_protocols(network: Network, rule: dict[str, Any], ports: Any, protocol: str) -> None:
    group = network.group_of("protocols")
    network.rule(group, ip_ranges=[{"CidrIp": "192.0.2.0/24"}], **rule)
    one = network.instance(None, group)
    wanted = Opening("arriving", one.private_ip, protocol, ports, "192.0.2.0/24")
    assert wanted in set(openings([one], SETTINGS))


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        pytest.param({"ip_protocol": "http"}, "InvalidParameterValue", id="protocol"),
        pytest.param({"from_port": "9", "to_port": "1"}, "InvalidParameterValue", id="backwards"),
        pytest.param({"from_port": "0", "to_port": "70000"}, "InvalidParameterValue", id="too-large"),
        pytest.param({"from_port": None, "to_port": None}, "InvalidParameterValue", id="no-ports"),
        pytest.param({"prefix_list_ids": [{"PrefixListId": "pl-1"}]}, "UnsupportedOperation", id="prefixes"),
    ],
)
@pytest.mark.parametrize("way", ["ingress", "egress"])
def test_a_rule_that_can_not_be_enforced_is_refused(
    network: Network, rule: dict[str, Any], code: str, way: str
) -> None:
    with pytest.raises(EC2ClientError) as refused:
        network.rule(network.group, way, **{"ip_ranges": [{"CidrIp": "192.0.2.0/24"}], **rule})
    assert refused.value.code == code


def test_private_instances_are_seen_as_their_nat_gateway_and_answer_to_nobody(network: Network) -> None:
    one = network.instance(network.private)
    found = network.traffic()
    [gateway] = network.ec2.nat_gateways.values()
    assert found.seen_as == {one.private_ip: gateway.address_set[0]["publicIp"]}
    assert not found.public and not found.cut_off and one.public_ip is None
    network.ec2.delete_nat_gateway(gateway.id)
    assert network.traffic().cut_off == {one.private_ip}


def test_without_a_public_address_an_internet_gateway_is_no_way_out(network: Network) -> None:
    one = network.instance(public=False)
    assert routes.of(one) == routes.WayOut()
    assert network.traffic().cut_off == {one.private_ip}


def test_each_public_address_is_another_until_all_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Settings.load({"BAKE_LOCAL_STATE": "/nowhere", "BAKE_LOCAL_NETWORK": "10.214.40.0/27"})
    network = made(small, monkeypatch)
    first = network.ec2.allocate_address("vpc")
    network.ec2.release_address(allocation_id=first.allocation_id)
    found = [network.ec2.allocate_address("vpc").public_ip for _ in range(13)]
    assert len(set(found)) == 13 and found[0] != first.public_ip
    assert all(address in map(str, small.public_addresses) for address in found)
    with pytest.raises(EC2ClientError, match="Not enough available addresses"):
        network.ec2.allocate_address("vpc")
    with pytest.raises(EC2ClientError, match="not found"):
        network.ec2.allocate_address("vpc", address="198.51.100.7")


def test_a_moved_elastic_address_is_where_it_was_moved_to(network: Network) -> None:
    one, other = network.instance(), network.instance()
    held = network.ec2.allocate_address("vpc")
    network.ec2.associate_address(eni=one.nics[0], allocation_id=held.allocation_id)
    network.ec2.associate_address(eni=other.nics[0], allocation_id=held.allocation_id, reassociate=True)
    assert other.nics[0].public_ip == held.public_ip != one.nics[0].public_ip
    network.ec2.disassociate_address(address=held.public_ip)
    assert other.nics[0].public_ip not in {None, held.public_ip}


def test_a_stopped_instance_keeps_an_elastic_address_only(network: Network) -> None:
    one, other = network.instance(), network.instance()
    held = network.ec2.allocate_address("vpc")
    network.ec2.associate_address(eni=one.nics[0], allocation_id=held.allocation_id)
    for instance in (one, other):
        network.ec2.release_public_addresses(instance)
    assert (one.nics[0].public_ip, other.nics[0].public_ip) == (held.public_ip, None)


def test_what_is_in_use_is_not_deleted(network: Network) -> None:
    one = network.instance()
    vpc, subnet = network.public.vpc_id, network.public.id
    [gateway] = network.ec2.internet_gateways.values()
    for act in (
        lambda: network.ec2.delete_subnet(subnet),
        lambda: network.ec2.delete_vpc(vpc),
        lambda: network.ec2.detach_internet_gateway(gateway.id, vpc),
    ):
        with pytest.raises(EC2ClientError) as refused:
            act()
        assert refused.value.code == "DependencyViolation"
    with pytest.raises(EC2ClientError, match="is currently in use"):
        network.ec2.delete_network_interface(one.nics[0].id)


def test_an_empty_vpc_is_deleted(network: Network) -> None:
    vpc = network.ec2.create_vpc("10.9.0.0/16")
    subnet = network.ec2.create_subnet(vpc.id, "10.9.1.0/24", availability_zone="eu-north-1a")
    assert not subnet.map_public_ip_on_launch
    nic = network.ec2.create_network_interface(subnet, None)
    assert nic.private_ip_address == "10.9.1.4"
    with pytest.raises(EC2ClientError, match="has dependencies"):
        network.ec2.delete_subnet(subnet.id)
    network.ec2.delete_network_interface(nic.id)
    network.ec2.delete_subnet(subnet.id)
    network.ec2.delete_vpc(vpc.id)


@pytest.mark.parametrize(
    ("launch", "code"),
    [
        pytest.param(
            {"nics": [{"DeviceIndex": 0}, {"DeviceIndex": 1}]}, "UnsupportedOperation", id="two-cards"
        ),
        pytest.param({"subnet_id": "elsewhere"}, "UnsupportedOperation", id="another-vpc"),
    ],
)
def test_a_launch_where_no_machine_can_be_is_refused(
    network: Network, launch: dict[str, Any], code: str
) -> None:
    if launch.get("subnet_id"):
        vpc = network.ec2.create_vpc("10.9.0.0/16")
        launch = {"subnet_id": network.ec2.create_subnet(vpc.id, "10.9.1.0/24").id}
    with pytest.raises(EC2ClientError) as refused:
        network.ec2.place(launch, 1)
    assert refused.value.code == code


def test_an_interface_is_of_one_instance_and_free_again_after_it(network: Network) -> None:
    one = network.instance()
    launch: dict[str, Any] = {"nics": [{"DeviceIndex": 0, "NetworkInterfaceId": one.nics[0].id}]}
    with pytest.raises(EC2ClientError, match="in use"):
        network.ec2.place(launch, 1)
    with pytest.raises(EC2ClientError, match="does not exist"):
        network.ec2.place({"nics": [{"NetworkInterfaceId": "eni-0"}]}, 1)
    network.ec2.detach_interfaces(one)
    network.ec2.place(launch, 1)
    network.ec2.delete_network_interface(one.nics[0].id)
    assert one.private_ip not in network.public._subnet_ips


def test_an_own_interface_ends_with_its_instance_unless_the_launch_keeps_it(network: Network) -> None:
    one = network.instance()
    kept = {"NetworkInterface.1.DeleteOnTermination": "false"}
    for call, ends in (({}, True), (kept, False)):
        network.ec2.keep_or_delete_with(one, call)
        assert one.nics[0].delete_on_termination is ends


def test_a_full_subnet_refuses_the_launch_and_the_default_is_the_public_one(network: Network) -> None:
    launch: dict[str, Any] = {}
    network.ec2.place(launch, 1)
    assert launch["subnet_id"] == network.public.id
    with pytest.raises(EC2ClientError, match="not enough free addresses"):
        network.ec2.place(launch, 60)


def test_the_route_tables_tell_the_truth(network: Network) -> None:
    assert routes.default_route(network.ec2, network.public).gateway_id.startswith("igw-")
    assert routes.default_route(network.ec2, network.private).nat_gateway_id.startswith("nat-")
    assert network.public.map_public_ip_on_launch and not network.private.map_public_ip_on_launch


def test_all_rules_are_replaced_at_once() -> None:
    traffic = Traffic(
        frozenset({Opening("from_host", "10.1.2.3", "-1")}),
        public={"10.1.2.200": "10.1.2.3"},
        seen_as={"10.1.2.3": "10.1.2.200"},
        cut_off=frozenset({"10.1.2.4"}),
    )
    lines = traffic.commands("bake").splitlines()
    assert "add rule ip bake from_host ip daddr 10.1.2.3 accept" in lines
    assert lines.index("add rule ip bake from_host drop") > lines.index("flush chain ip bake from_host")
    assert "add element ip bake to_private { 10.1.2.200 : 10.1.2.3 }" in lines
    assert "flush set ip bake strict" in lines
