"""A network in moto's account in which a profile can be planned."""

from __future__ import annotations

from typing import Any

MAIN = {"Name": "association.main", "Values": ["true"]}


def open_network(ec2: Any, vpc: str) -> str:
    """Give a VPC a way to the internet, and its default group a rule for SSH; the group's id."""
    own = [{"Name": "vpc-id", "Values": [vpc]}]
    table = ec2.describe_route_tables(Filters=[*own, MAIN])["RouteTables"][0]
    if not any(route.get("DestinationCidrBlock") == "0.0.0.0/0" for route in table["Routes"]):
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        ec2.create_route(
            RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway
        )
    group = ec2.describe_security_groups(Filters=[*own, {"Name": "group-name", "Values": ["default"]}])
    found = group["SecurityGroups"][0]
    if not any(rule.get("FromPort") == 22 for rule in found["IpPermissions"]):
        ec2.authorize_security_group_ingress(
            GroupId=found["GroupId"], IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="192.0.2.0/24"
        )
    return str(found["GroupId"])
