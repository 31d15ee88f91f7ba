"""Rules of security groups, refused where EC2 refuses them or where the packet rules can't enforce them."""

from __future__ import annotations

from typing import Any

from moto.ec2.exceptions import EC2ClientError

_PORTS = range(65536)
_WITH_PORTS = {"tcp", "udp", "6", "17"}
_WITHOUT = {"icmp", "icmpv6", "1", "58", "-1", "all"}


def check(protocol: Any, first: Any, last: Any) -> None:
    """Refuse protocols and ports that EC2 does not know."""
    name = str(protocol).lower()
    if name not in _WITH_PORTS | _WITHOUT and not (name.isdigit() and int(name) < 256):
        raise EC2ClientError(
            "InvalidParameterValue", f"Invalid value '{protocol}' for IP protocol. Unknown protocol."
        )
    if name not in _WITH_PORTS:
        return
    if first is None or last is None:
        raise EC2ClientError(
            "InvalidParameterValue",
            "Invalid value for portRange. Must specify both from and to ports with TCP/UDP.",
        )
    if int(first) not in _PORTS or int(last) not in _PORTS or int(first) > int(last):
        raise EC2ClientError("InvalidParameterValue", f"Invalid TCP/UDP port range ({first}:{last})")


def _refuse_prefix_lists(prefix_lists: Any) -> None:
    if prefix_lists:
        raise EC2ClientError(
            "UnsupportedOperation",
            "The local cloud has no packet rules for prefix lists: name their networks in the rule",
        )


def checked(rule: dict[str, Any]) -> dict[str, Any]:
    """The rule that is to be added, as moto takes it, which can't do without ports."""
    first, last = rule.get("from_port"), rule.get("to_port")
    check(rule.get("ip_protocol"), first, last)
    _refuse_prefix_lists(rule.get("prefix_list_ids"))
    return {**rule, "from_port": "-1" if first is None else first, "to_port": "-1" if last is None else last}


class SecurityRules:
    """The part of a region's backend that takes rules of security groups."""

    get_security_group_by_name_or_id: Any
    account_id: str

    def authorize_security_group_ingress(self, **rule: Any) -> Any:
        """As moto's, for a rule that `checked` takes."""
        return super().authorize_security_group_ingress(**checked(rule))  # type: ignore[misc]

    def authorize_security_group_egress(self, **rule: Any) -> Any:
        """As moto's, for a rule that `checked` takes."""
        return super().authorize_security_group_egress(**checked(rule))  # type: ignore[misc]

    def modify_security_group_rules(self, group_id: str, rules: dict[str, dict[str, Any]]) -> None:
        """As moto's, which leaves out IPv6 networks and groups."""
        for asked in rules.values():
            _refuse_prefix_lists(asked.get("PrefixListId"))
            if asked.get("IpProtocol") is not None:
                check(asked["IpProtocol"], asked.get("FromPort"), asked.get("ToPort"))
        super().modify_security_group_rules(group_id, rules)  # type: ignore[misc]
        group = self.get_security_group_by_name_or_id(group_id)
        for identity, asked in rules.items():
            rule = group.get_rule(identity)
            if network := asked.get("CidrIpv6"):
                rule.ip_range["CidrIpv6"] = network
            if other := asked.get("ReferencedGroupId"):
                rule.source_group |= {"GroupId": other, "UserId": self.account_id}
