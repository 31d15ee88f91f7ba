"""How an instance's packets leave its VPC, by the route table of its subnet, and who reaches it from outside.

https://docs.aws.amazon.com/vpc/latest/userguide/VPC_Route_Tables.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

EVERYWHERE = "0.0.0.0/0"


@dataclass(frozen=True)
class WayOut:
    """The public address that others see (empty: it is cut off), and whether the instance answers there."""

    seen_as: str = ""
    answers: bool = False


def of(instance: Any) -> WayOut:
    """The way out of one of moto's instances.

    An internet gateway serves instances with a public address, and a NAT gateway all; neither, no way.
    """
    route = default_route(instance.ec2_backend, instance.nics[0].subnet)
    if route is None:
        return WayOut()
    if route.nat_gateway is not None:
        return WayOut(_address_of(route.nat_gateway))
    if (route.gateway_id or "").startswith("igw-"):
        public = str(instance.public_ip or "")
        return WayOut(public, answers=bool(public))
    return WayOut()


def default_route(backend: Any, subnet: Any) -> Any:
    """The active route of a subnet to everywhere, or None."""
    table = _table(backend, subnet)
    for route in table.routes if table is not None else ():
        if route.destination_cidr_block == EVERYWHERE and route.state == "active":
            return route
    return None


def _table(backend: Any, subnet: Any) -> Any:
    """The subnet's own route table, or the main one of its VPC."""
    tables = [one for one in list(backend.route_tables.values()) if one.vpc_id == subnet.vpc_id]
    own = [one for one in tables if subnet.id in one._associations.values()]
    main = [one for one in tables if one.main_association_id is not None]
    return next(iter([*own, *main]), None)


def _address_of(gateway: Any) -> str:
    """The address that a NAT gateway sends from; empty for a private or deleted one."""
    if gateway.state != "available":
        return ""
    return next((str(one["publicIp"]) for one in gateway.address_set if one.get("publicIp")), "")
