"""The tags of a launch, as EC2 takes them.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions
"""

from __future__ import annotations

from moto.ec2.exceptions import EC2ClientError

from bake.localcloud.api.parameters import Tree, invalid

KINDS = ("instance", "volume", "network-interface", "spot-instances-request", "elastic-gpu")
_MOST, _LONGEST_KEY, _LONGEST_VALUE = 50, 128, 256


def check(tree: Tree) -> None:
    """Raise EC2ClientError for tags of what a launch does not make, and for tags that EC2 has not."""
    seen: set[str] = set()
    for specification in tree.get("TagSpecifications", []):
        kind = specification.get("ResourceType", "")
        if kind not in KINDS:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"'{kind}' is not a valid taggable resource type for this operation.",
            )
        if kind in seen:
            raise invalid(kind, "tagSpecification.resourceType", "It occurs twice.")
        seen.add(kind)
        check_tags(specification.get("Tags", []))
    market = (tree.get("InstanceMarketOptions") or {}).get("MarketType")
    if "spot-instances-request" in seen and market != "spot":
        raise invalid("spot-instances-request", "resourceType", "The request is not for Spot Instances.")


def check_tags(tags: list[Tree]) -> None:
    """Raise EC2ClientError for keys and values that EC2 refuses; `tags` have `Key` and `Value`."""
    keys = [tag.get("Key", "") for tag in tags]
    if len(keys) > _MOST:
        raise EC2ClientError("TagLimitExceeded", f"The maximum number of tags is {_MOST}")
    for key in keys:
        if not 1 <= len(key) <= _LONGEST_KEY:
            raise invalid(key, "tagKey", f"A tag key has 1 to {_LONGEST_KEY} characters.")
        if key.lower().startswith("aws:"):
            raise invalid(key, "tagKey", "Tag keys starting with 'aws:' are reserved for internal use")
        if keys.count(key) > 1:
            raise EC2ClientError("InvalidParameterValue", f"Duplicate tag key '{key}' specified.")
    for tag in tags:
        if len(tag.get("Value", "")) > _LONGEST_VALUE:
            raise invalid(tag["Value"], "tagValue", f"A tag value has {_LONGEST_VALUE} characters at most.")
