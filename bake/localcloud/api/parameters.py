"""The parameters of an EC2 call: read by the operation's model, refused as EC2 refuses, and written again.

A call comes as flat pairs (`BlockDeviceMapping.1.Ebs.VolumeSize=80`). Read, it is a tree with the names of
botocore's model: `{"BlockDeviceMappings": [{"Ebs": {"VolumeSize": "80"}}]}`. Leaves stay texts.

The codes are those of https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from moto.core.utils import get_service_model
from moto.ec2.exceptions import EC2ClientError

Tree = dict[str, Any]

# Not of the operation; the last are those of signature version 2, which old clients go on sending.
_COMMON = {"Action", "Version", "Timestamp", "Expires", "AWSAccessKeyId", "Signature"}
_COMMON |= {"SignatureMethod", "SignatureVersion", "SecurityToken"}
_WORST = "Value ({}) for parameter {} is invalid. {}"
_LONGEST_LIST = 1000  # entries that a list of EC2's calls may have


def model_of(operation: str) -> Any:
    """The model of an operation's input: None for one without parameters."""
    return get_service_model("ec2").operation_model(operation).input_shape


def invalid(value: str, name: str, why: str = "") -> EC2ClientError:
    """EC2's InvalidParameterValue, with the parameter's name as its messages have it."""
    named = name[:1].lower() + name[1:]
    return EC2ClientError("InvalidParameterValue", _WORST.format(value[:200], named, why).strip())


def read(call: Mapping[str, str]) -> Tree:
    """Read and check a call's parameters; EC2ClientError for what is unknown, missing or of a wrong type."""
    shape = model_of(call["Action"])
    nested: dict[str, Any] = {}
    for name, value in call.items():
        if name not in _COMMON:
            _place(nested, name, value)
    if shape is None:
        if nested:
            raise _unknown(next(iter(nested)))
        return {}
    tree: Tree = _structure(shape, nested, "")
    return tree


def flat(operation: str, tree: Tree) -> dict[str, str]:
    """Write a tree as flat pairs, with `Action` and `Version`; lists count from 1 without gaps."""
    shape = model_of(operation)
    pairs = {"Action": operation, "Version": "2016-11-15"}
    return pairs | dict(_flattened(shape, tree, "") if shape is not None else ())


def _place(nested: dict[str, Any], name: str, value: str) -> None:
    """Put a pair into the tree by the parts of its name."""
    *parents, last = name.split(".")
    inner = nested
    for part in parents:
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            raise _unknown(name)
    if last in inner:
        raise _unknown(name)
    inner[last] = value


def _unknown(name: str) -> EC2ClientError:
    return EC2ClientError("UnknownParameter", f"The parameter {name[:200]} is not recognized")


def _wire_name(member: str, shape: Any) -> str:
    """The name of a structure's member in a call."""
    if "queryName" in shape.serialization:
        return str(shape.serialization["queryName"])
    name = str(shape.serialization.get("name", member))
    return name[:1].upper() + name[1:]


def _structure(shape: Any, nested: Any, path: str) -> Tree:
    if not isinstance(nested, dict):
        raise _unknown(path)
    by_wire = {_wire_name(member, inner): member for member, inner in shape.members.items()}
    tree: Tree = {}
    for name, value in nested.items():
        member = by_wire.get(name)
        if member is None:
            raise _unknown(f"{path}{name}")
        tree[member] = _value(shape.members[member], value, f"{path}{name}")
    for member in shape.required_members:
        if tree.get(member) in (None, "", []):
            name = _wire_name(member, shape.members[member])
            raise EC2ClientError("MissingParameter", f"The request must contain the parameter {path}{name}")
    return tree


def _value(shape: Any, value: Any, path: str) -> Any:
    if shape.type_name == "structure":
        return _structure(shape, value, f"{path}.")
    if shape.type_name == "list":
        return _list(shape, value, path)
    if not isinstance(value, str):
        raise _unknown(f"{path}.{next(iter(value), '')}")
    if check := _CHECKS.get(shape.type_name):
        check(value, path)
    if (values := getattr(shape, "enum", None)) and value not in values:
        # A value that botocore's model does not list yet is as unknown here as one that EC2 never had.
        raise EC2ClientError("InvalidParameterValue", f"Invalid value '{value[:200]}' for {path}.")
    return value


def _list(shape: Any, nested: Any, path: str) -> list[Any]:
    if nested == "":  # an empty list
        return []
    if not isinstance(nested, dict) or not all(re.fullmatch(r"[0-9]{1,9}", key) for key in nested):
        raise _unknown(path)
    if len(nested) > _LONGEST_LIST:
        raise invalid(str(len(nested)), path, f"At most {_LONGEST_LIST} values are taken.")
    # Clients count from 0 or 1, and some leave numbers out.
    return [_value(shape.member, nested[key], f"{path}.{key}") for key in sorted(nested, key=int)]


def _integer(value: str, path: str) -> None:
    if not re.fullmatch(r"[+-]?[0-9]{1,10}", value) or abs(int(value)) >= 1 << 31:
        raise invalid(value, path, "Expecting an integer.")


def _long(value: str, path: str) -> None:
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", value) or abs(int(value)) >= 1 << 63:
        raise invalid(value, path, "Expecting an integer.")


def _number(value: str, path: str) -> None:
    if not re.fullmatch(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?", value):
        raise invalid(value, path, "Expecting a number.")


def _boolean(value: str, path: str) -> None:
    if value.lower() not in {"true", "false"}:
        raise invalid(value, path, "Expecting true or false.")


def _time(value: str, path: str) -> None:
    try:
        datetime.fromisoformat(value)
    except ValueError as error:
        raise EC2ClientError("InvalidParameterValue", f"Invalid date {value[:40]} for {path}") from error


def _blob(value: str, path: str) -> None:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(value, path, "Expecting BASE64.") from error


_CHECKS: Mapping[str, Callable[[str, str], None]] = {
    "integer": _integer,
    "long": _long,
    "double": _number,
    "float": _number,
    "boolean": _boolean,
    "timestamp": _time,
    "blob": _blob,
}


def _flattened(shape: Any, value: Any, path: str) -> Iterator[tuple[str, str]]:
    if shape.type_name == "structure":
        for member, inner in value.items():
            name = _wire_name(member, shape.members[member])
            yield from _flattened(shape.members[member], inner, f"{path}.{name}" if path else name)
    elif shape.type_name == "list":
        for number, inner in enumerate(value, 1):
            yield from _flattened(shape.member, inner, f"{path}.{number}")
    else:
        yield path, str(value)
