"""Ask EC2 where a subnet's packets go: its route table, and the VPC's endpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from bake.account.answers import Unanswered, ask
from bake.aws import Aws

# The keys of a route that name where it leads; a gateway endpoint is among the gateways.
_TARGETS = (
    *("GatewayId", "NatGatewayId", "TransitGatewayId", "EgressOnlyInternetGatewayId", "NetworkInterfaceId"),
    *("InstanceId", "VpcPeeringConnectionId", "CarrierGatewayId", "LocalGatewayId", "CoreNetworkArn"),
)
WHOLE = 1  # of a prefix: people also write a default route as two halves


@dataclass(frozen=True)
class Route:
    """A route's target by its id, and whether that is there; a blackhole leads to what is gone."""

    target: str
    active: bool = True

    @property
    def internet_gateway(self) -> bool:
        """Whether packets leave by an internet gateway, which takes those of public addresses alone."""
        return self.target.startswith("igw-")


@dataclass(frozen=True)
class Routes:
    """The default routes of a subnet for IPv4 and IPv6; None where it has none.

    `others` are the targets of its further routes out of the VPC; `endpoints` the services, such as `s3`,
    that the VPC's endpoints lead to, None where nobody told.
    """

    ipv4: Route | None = None
    ipv6: Route | None = None
    others: tuple[str, ...] = ()
    endpoints: tuple[str, ...] | None = ()


def ask_routes(subnet: str, vpc: str, aws: Aws) -> Routes | Unanswered:
    """Return the routes of the subnet's own table, or of the VPC's main one."""
    own: Any = [{"Name": "association.subnet-id", "Values": [subnet]}]
    main: Any = [{"Name": "association.main", "Values": ["true"]}, {"Name": "vpc-id", "Values": [vpc]}]

    def tables() -> Sequence[Mapping[str, Any]]:
        found = aws.ec2.describe_route_tables(Filters=own)["RouteTables"]
        return found or aws.ec2.describe_route_tables(Filters=main)["RouteTables"]

    answer = ask(tables)
    if isinstance(answer, Unanswered):
        return answer
    table = answer[0] if answer else {}
    routes = [route for route in table.get("Routes", []) if route.get("GatewayId") != "local"]
    outside = [route for route in routes if not _target(route).startswith("vpce-")]
    return Routes(
        ipv4=_default(outside, "DestinationCidrBlock"),
        ipv6=_default(outside, "DestinationIpv6CidrBlock"),
        others=tuple(dict.fromkeys(_target(route) for route in outside)),
        endpoints=_endpoints(vpc, str(table.get("RouteTableId")), aws),
    )


def _target(route: Mapping[str, Any]) -> str:
    return next((str(route[key]) for key in _TARGETS if route.get(key)), "")


def _default(routes: Sequence[Mapping[str, Any]], key: str) -> Route | None:
    found = [route for route in routes if route.get(key) and ip_network(route[key]).prefixlen <= WHOLE]
    if not found:
        return None
    return Route(_target(found[0]), all(route.get("State", "active") == "active" for route in found))


def _endpoints(vpc: str, table: str, aws: Aws) -> tuple[str, ...] | None:
    """The services by their last name; an endpoint of gateways serves the tables that it names alone."""
    filters: Any = [{"Name": "vpc-id", "Values": [vpc]}]
    found = ask(lambda: aws.ec2.describe_vpc_endpoints(Filters=filters)["VpcEndpoints"])
    if isinstance(found, Unanswered):
        return None
    serving = [
        one
        for one in found
        if one.get("State", "available").lower() == "available"
        and (one.get("VpcEndpointType") != "Gateway" or table in one.get("RouteTableIds", []))
    ]
    return tuple(sorted({str(one["ServiceName"]).rpartition(".")[2] for one in serving}))
