"""Addresses, interfaces, subnets and VPCs, where moto invents addresses and deletes what is in use.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-instance-addressing.html
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, ClassVar

from moto.ec2.exceptions import EC2ClientError

from bake.localcloud.api.instances import LocalInstances


class Networks:
    """The part of a region's backend that gives and takes addresses.

    Public ones come from a part of the cloud's own network: moto's would be somebody's.
    """

    local_instances: ClassVar[LocalInstances]
    subnet_default: ClassVar[str] = ""
    last_public = 0
    """How far into the pool the last public address was, so that the next is another one."""

    # moto's, of which this is a part
    addresses: list[Any]
    enis: dict[str, Any]
    internet_gateways: dict[str, Any]
    groups: dict[str, dict[str, Any]]
    region_name: str
    get_subnet: Any
    get_network_interface: Any

    # --- public addresses ------------------------------------------------------------------------

    def take_public_address(self) -> str:
        """A public address that nobody has; EC2ClientError when all are taken."""
        taken = {one.public_ip for one in [*self.addresses, *list(self.enis.values())]}
        pool = self.local_instances.settings.public_addresses
        count = pool.num_addresses - 2  # neither the network's own nor its broadcast address
        for step in range(count):
            offset = (self.last_public + step) % count + 1
            if (address := str(pool[offset])) not in taken:
                self.last_public = offset
                return address
        raise EC2ClientError(
            "InsufficientAddressCapacity", "Not enough available addresses to satisfy your minimum request."
        )

    def give_public_addresses(self, instance: Any) -> None:
        """Give a starting instance a public address where its launch or its subnet said so."""
        for nic in instance.nics.values():
            if nic.public_ip and self._is_elastic(nic.public_ip):
                continue
            nic.public_ip = None
            if str(nic.public_ip_auto_assign).lower() == "true":
                nic.public_ip = self.take_public_address()

    def release_public_addresses(self, instance: Any) -> None:
        """Take the public address of an instance that has stopped; an Elastic IP stays."""
        for nic in instance.nics.values():
            if nic.public_ip and not self._is_elastic(nic.public_ip):
                nic.public_ip = None

    def _is_elastic(self, address: str) -> bool:
        return any(one.public_ip == address for one in self.addresses)

    def allocate_address(
        self, domain: str, address: str | None = None, tags: dict[str, str] | None = None
    ) -> Any:
        """As moto's, but from the cloud's own pool; addresses that are gone can't be had back."""
        if address:
            raise EC2ClientError("InvalidAddress.NotFound", f"Address '{address}' not found.")
        return super().allocate_address(domain, self.take_public_address(), tags)  # type: ignore[misc]

    def associate_address(
        self,
        instance: Any = None,
        eni: Any = None,
        address: str | None = None,
        allocation_id: str | None = None,
        reassociate: bool = False,
    ) -> Any:
        """As moto's, which leaves an address that moves with the instance that had it."""
        found = super().associate_address(instance, eni, address, allocation_id, reassociate)  # type: ignore[misc]
        for other in list(self.enis.values()):
            if other is not found.eni and other.public_ip == found.public_ip:
                self._without_elastic(other)
        return found

    def disassociate_address(self, address: str | None = None, association_id: str | None = None) -> None:
        """As moto's, but the instance gets an address of this cloud's instead."""
        before = {one.id: one.public_ip for one in list(self.enis.values())}
        super().disassociate_address(address, association_id)  # type: ignore[misc]
        for nic in list(self.enis.values()):
            if nic.public_ip != before.get(nic.id):
                self._without_elastic(nic)

    def _without_elastic(self, nic: Any) -> None:
        nic.public_ip = None
        if nic.instance is not None and nic.instance.state in {"pending", "running"}:
            self.give_public_addresses(nic.instance)

    # --- interfaces ------------------------------------------------------------------------------

    def create_network_interface(
        self,
        subnet: Any,
        private_ip_address: str | list[str],
        private_ip_addresses: list[dict[str, Any]] | None = None,
        *words: Any,
        **named: Any,
    ) -> Any:
        """As moto's, but its private address is one that the subnet has free."""
        place = self.get_subnet(subnet) if isinstance(subnet, str) else subnet
        of_launch = "public_ip_auto_assign" in named
        if not of_launch and not private_ip_addresses and isinstance(private_ip_address, str | None):
            private_ip_address = self._private_address(place, private_ip_address)
        nic = super().create_network_interface(  # type: ignore[misc]
            place, private_ip_address, private_ip_addresses, *words, **named
        )
        name = f"ip-{str(nic.private_ip_address).replace('.', '-')}.{self.region_name}.compute.internal"
        nic.private_dns_name = name
        return nic

    def _private_address(self, subnet: Any, asked: str | None) -> str:
        if asked is None or ipaddress.ip_address(asked) not in subnet.cidr:  # moto's NAT gateways' are any
            return str(subnet.get_available_subnet_ip(None))
        if asked in subnet._subnet_ips:
            raise EC2ClientError(
                "InvalidIPAddress.InUse", f"The specified address is already in use: {asked}"
            )
        subnet.request_ip(asked, None)
        return asked

    def delete_network_interface(self, eni_id: str) -> None:
        """As moto's, but not while an instance has it."""
        nic: Any = self.enis.get(eni_id)
        if nic is not None and nic.instance is not None and nic.instance.state != "shutting-down":
            raise EC2ClientError(
                "InvalidParameterValue", f"Network interface '{eni_id}' is currently in use."
            )
        super().delete_network_interface(eni_id)  # type: ignore[misc]
        if nic.instance is None:  # moto frees those of an interface that ends with its instance
            for address in nic.private_ip_addresses:
                nic.subnet.del_subnet_ip(address["PrivateIpAddress"])

    def detach_interfaces(self, instance: Any) -> None:
        """Let go of the interfaces that outlive their terminated instance."""
        for nic in instance.nics.values():
            if nic.id in self.enis:
                nic.instance = nic.attachment_id = nic.attach_time = None
                nic.status = "available"

    def keep_or_delete_with(self, instance: Any, call: Mapping[str, str]) -> None:
        """Let an instance's own interface end with it, as on EC2, unless its launch says otherwise."""
        if call.get("NetworkInterface.1.NetworkInterfaceId") is None:
            kept = call.get("NetworkInterface.1.DeleteOnTermination", "true").lower() == "false"
            instance.nics[0].delete_on_termination = not kept

    def delete_nat_gateway(self, nat_gateway_id: str) -> Any:
        """As moto's, but its interface ends with it, and its address is free again."""
        gateway = super().delete_nat_gateway(nat_gateway_id)  # type: ignore[misc]
        nic = gateway._eni
        for one in [one for one in self.addresses if one.eni is nic]:
            self.disassociate_address(one.public_ip)
        if nic.id in self.enis:
            self.delete_network_interface(nic.id)
        return gateway

    # --- subnets and VPCs ------------------------------------------------------------------------

    def create_subnet(self, vpc_id: str, cidr_block: str, *words: Any, **named: Any) -> Any:
        """As moto's, which takes the first subnet of a zone in any VPC for the zone's default."""
        subnet = super().create_subnet(vpc_id, cidr_block, *words, **named)  # type: ignore[misc]
        if not subnet.ec2_backend.get_vpc(vpc_id).is_default:
            subnet.default_for_az = subnet.map_public_ip_on_launch = False
        return subnet

    def delete_subnet(self, subnet_id: str) -> Any:
        """As moto's, but not while an interface is in it."""
        if any(nic.subnet.id == subnet_id for nic in list(self.enis.values())):
            raise _in_use("subnet", subnet_id)
        return super().delete_subnet(subnet_id)  # type: ignore[misc]

    def delete_vpc(self, vpc_id: str) -> Any:
        """As moto's, but not while a gateway or a group of the user's is in it."""
        groups = [one for one in self.groups.get(vpc_id, {}).values() if one.name != "default"]
        gateways = [one for one in self.internet_gateways.values() if one.vpc and one.vpc.id == vpc_id]
        if groups or gateways:
            raise _in_use("vpc", vpc_id)
        return super().delete_vpc(vpc_id)  # type: ignore[misc]

    def detach_internet_gateway(self, internet_gateway_id: str, vpc_id: str) -> None:
        """As moto's, but not while something in the VPC has a public address."""
        if any(nic.public_ip and nic.vpc_id == vpc_id for nic in list(self.enis.values())):
            raise EC2ClientError(
                "DependencyViolation",
                f"Network {vpc_id} has some mapped public address(es). Please unmap those public "
                "address(es) before detaching the gateway.",
            )
        super().detach_internet_gateway(internet_gateway_id, vpc_id)  # type: ignore[misc]

    # --- launches --------------------------------------------------------------------------------

    def place(self, launch: dict[str, Any], count: int) -> None:
        """Choose a launch's subnet, or refuse the launch where no machine can be."""
        nics = launch.get("nics") or []
        if len(nics) > 1 or any(str(nic.get("DeviceIndex", "0")) != "0" for nic in nics):
            raise EC2ClientError("UnsupportedOperation", "The local cloud's instances have one interface")
        subnet_id = launch.get("subnet_id") or next((nic.get("SubnetId") for nic in nics), None)
        if nics and (identity := nics[0].get("NetworkInterfaceId")):
            nic = self.get_network_interface(identity)
            if nic.instance is not None:
                raise EC2ClientError("InvalidNetworkInterface.InUse", f"Interface: [{identity}] in use.")
            subnet_id = nic.subnet.id
        elif not subnet_id:
            subnet_id = self.subnet_default
            (nics[0] if nics else launch)["SubnetId" if nics else "subnet_id"] = subnet_id
        subnet = self.get_subnet(subnet_id)
        network = self.local_instances.settings.vpc
        if not subnet.cidr.subnet_of(network):
            raise EC2ClientError(
                "UnsupportedOperation",
                f"The local cloud's machines are in {network}, not in {subnet.cidr_block} ({subnet_id})",
            )
        if subnet.cidr.num_addresses - 5 - len(subnet._subnet_ips) < count:
            raise EC2ClientError(
                "InsufficientFreeAddressesInSubnet",
                f"There are not enough free addresses in subnet '{subnet_id}' to satisfy the requested "
                "number of instances.",
            )


def _in_use(kind: str, identity: str) -> EC2ClientError:
    return EC2ClientError(
        "DependencyViolation", f"The {kind} '{identity}' has dependencies and cannot be deleted."
    )
