"""Metadata options of instances and `ImdsSupport` of images, where moto knows less than EC2.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-options.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instances import MetadataOptions

IMDSV2 = "v2.0"  # the one value of ImdsSupport
MOST_HOPS = 64
# Option -> moto's name of it, and the values that EC2 takes.
_OPTIONS = {
    "HttpTokens": ("http_tokens", {"optional", "required"}),
    "HttpEndpoint": ("http_endpoint", {"enabled", "disabled"}),
    "HttpProtocolIpv6": ("http_protocol_ipv6", {"enabled", "disabled"}),
    "InstanceMetadataTags": ("instance_metadata_tags", {"enabled", "disabled"}),
    "HttpPutResponseHopLimit": (
        "http_put_response_hop_limit",
        {str(hops) for hops in range(1, MOST_HOPS + 1)},
    ),
}
# The defaults of an instance whose launch does not set them.
_OF_EC2 = {"HttpTokens": "optional", "HttpPutResponseHopLimit": "1"}
_OF_IMDSV2_IMAGE = {"HttpTokens": "required", "HttpPutResponseHopLimit": "2"}


def at_launch(imds_support: str | None, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a new instance: what RunInstances asked for, else its image's, else EC2's."""
    _check(asked)
    return {**(_OF_IMDSV2_IMAGE if imds_support == IMDSV2 else _OF_EC2), **asked}


def changed(options: MetadataOptions, asked: Mapping[str, Any]) -> None:
    """Apply the options that ModifyInstanceMetadataOptions names; the others stay."""
    given = {name: value for name, value in asked.items() if value is not None}
    _check(given)
    for name, value in given.items():
        attribute, _ = _OPTIONS[name]
        setattr(options, attribute, int(value) if name == "HttpPutResponseHopLimit" else value)


def _check(asked: Mapping[str, Any]) -> None:
    for name, value in asked.items():
        if name in _OPTIONS and str(value) not in _OPTIONS[name][1]:
            raise EC2ClientError("InvalidParameterValue", f"Value ({value}) for parameter {name} is invalid")


def imds_support_of(call: Mapping[str, str]) -> str | None:
    """What a ModifyImageAttribute asks of `ImdsSupport`, None where it asks nothing.

    Once set it stays, as on EC2: any other value is refused.
    """
    value = call.get("ImdsSupport.Value")
    if call.get("Attribute") == "imdsSupport":
        value = call.get("Value", "")
    if value is not None and value != IMDSV2:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Value ({value}) for parameter imdsSupport is invalid: v2.0 alone can be set",
        )
    return value
