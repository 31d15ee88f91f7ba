"""Pages of EC2's lists: MaxResults and NextToken of each Describe that EC2 pages.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html#api-pagination. moto pages three
lists and passes the parameters of the others over.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from moto.core.utils import get_pagination_model, get_service_model
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses._base_response import EC2BaseResponse

from bake.localcloud.api.parameters import Tree, model_of

_LEAST, _MOST = 5, 1000
# Where the documentation has other limits and botocore's model has none.
_LIMITS: Mapping[str, tuple[int, int]] = {
    "DescribeImages": (1, 1000),
    "DescribeHosts": (5, 500),
    "DescribeLaunchTemplateVersions": (1, 200),
    "DescribeVolumesModifications": (1, 500),
    "DescribeSpotInstanceRequests": (5, 1000),
    "DescribeSpotPriceHistory": (1, 1000),
    "DescribeFlowLogs": (1, 1000),
    "DescribeFleets": (1, 1000),
    "DescribePrefixLists": (5, 1000),
}
# Documented: "You cannot specify this parameter and the ... IDs parameter in the same request."
_NOT_WITH: Mapping[str, tuple[str, str]] = {
    "DescribeInstances": ("InstanceIds", "instancesSet"),
    "DescribeInstanceStatus": ("InstanceIds", "instancesSet"),
    "DescribeInstanceCreditSpecifications": ("InstanceIds", "instancesSet"),
    "DescribeVolumes": ("VolumeIds", "volumeSet"),
    "DescribeVolumeStatus": ("VolumeIds", "volumeSet"),
    "DescribeSnapshots": ("SnapshotIds", "snapshotSet"),
    "DescribeHosts": ("HostIds", "hostIdSet"),
    "DescribeNetworkInterfaces": ("NetworkInterfaceIds", "networkInterfaceIdSet"),
}
# moto pages these by itself, from few results on.
_OF_MOTO = {"DescribeInstances", "DescribeLaunchTemplates", "DescribeLaunchTemplateVersions"}
_ALL = str(10**9)


@dataclass(frozen=True)
class Page:
    """What a call asks for: `most` entries of the lists `keys`, after those that `token` has told."""

    operation: str
    keys: tuple[str, ...]
    most: int
    token: str
    asked: str


_PAGE: ContextVar[Page | None] = ContextVar("_PAGE", default=None)


def asked(operation: str, tree: Tree) -> Page | None:
    """The page that a call asks for, None where EC2 has no pages; EC2ClientError for a wrong request.

    The parameters are taken out of `tree`: moto answers the whole list, of which `cut` leaves the page.
    """
    keys = _keys(operation)
    if not keys:
        return None
    most, token = tree.pop("MaxResults", None), tree.pop("NextToken", None)
    low, high = _limits(operation)
    if most is not None:
        _check(operation, int(most), low, high, tree)
    rest = {name: value for name, value in tree.items() if name != "DryRun"}
    digest = hashlib.sha256(json.dumps([operation, rest], sort_keys=True).encode()).hexdigest()[:16]
    ids, _ = _NOT_WITH.get(operation, ("", ""))
    size = len(tree[ids]) if tree.get(ids) else int(most or high)  # what is named is told at once
    page = Page(operation, keys, size, token or "", digest)
    if token is not None:
        _started(page)
    if operation in _OF_MOTO and "InstanceIds" not in tree:
        tree["MaxResults"] = _ALL
    return page


def _check(operation: str, most: int, low: int, high: int, tree: Tree) -> None:
    wrong = ""
    if most < low:
        wrong = f"Expecting a value greater than {low}."
    elif most > high and operation != "DescribeInstances":  # where more is answered as 1000
        wrong = f"Expecting a value less than or equal to {high}."
    if wrong:
        raise EC2ClientError(
            "InvalidParameterValue", f"Value ( {most} ) for parameter maxResults is invalid. {wrong}"
        )
    ids, named = _NOT_WITH.get(operation, ("", ""))
    if tree.get(ids):
        raise EC2ClientError(
            "InvalidParameterCombination",
            f"The parameter {named} cannot be used with the parameter maxResults",
        )


def _keys(operation: str) -> tuple[str, ...]:
    """The lists in the answer of an operation that has pages."""
    shape = model_of(operation)
    if shape is None or not {"MaxResults", "NextToken"} <= set(shape.members):
        return ()
    answer = get_service_model("ec2").operation_model(operation).output_shape
    paged = get_pagination_model("ec2").get(operation, {}).get("result_key")
    keys = [paged] if isinstance(paged, str) else paged
    keys = keys or [name for name, one in answer.members.items() if one.type_name == "list"]
    return tuple(keys) if "NextToken" in answer.members else ()


def _limits(operation: str) -> tuple[int, int]:
    limits = model_of(operation).members["MaxResults"].metadata
    low, high = _LIMITS.get(operation, (_LEAST, _MOST))
    return int(limits.get("min", low)), int(limits.get("max", high))


def _started(page: Page) -> tuple[int, str]:
    """The place in the list that a token has reached, and what stood there."""
    try:
        place, last, of = json.loads(base64.urlsafe_b64decode(page.token.encode()))
        if of == page.asked and isinstance(place, int) and place > 0:
            return place, str(last)
    except (ValueError, TypeError, binascii.Error):
        pass
    raise EC2ClientError("InvalidNextToken", "The specified NextToken is not valid.")


def cut(page: Page, result: dict[str, Any]) -> None:
    """Leave the page in an answer's lists, and the token of the next one where more is to come."""
    more = False
    for key in page.keys:
        entries = result.get(key)
        if entries is None:
            continue
        entries = list(entries)
        start = _place(page, entries)
        result[key] = entries[start : start + page.most]
        if start + page.most < len(entries):
            more = True
            place = start + page.most
            words = json.dumps([place, _identity(entries[place - 1]), page.asked])
            result["NextToken"] = base64.urlsafe_b64encode(words.encode()).decode()
    if not more:
        result.pop("NextToken", None)


def _place(page: Page, entries: list[Any]) -> int:
    """Where a page starts: behind the last entry told, which may have moved since, or be gone."""
    if not page.token:
        return 0
    place, last = _started(page)
    if place <= len(entries) and _identity(entries[place - 1]) == last:
        return place
    return next((at for at, entry in enumerate(entries, 1) if _identity(entry) == last), place)


def _identity(entry: Any) -> str:
    """A text that tells an entry from the others."""
    if isinstance(entry, Mapping):
        words = sorted((str(name), str(value)) for name, value in entry.items() if isinstance(value, str))
        return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]
    for name in ("id", "key_name", "name"):
        if found := getattr(entry, name, None):
            return str(found)
    return type(entry).__name__


def set_page(page: Page | None) -> Any:
    """Let the answer to this thread's call be cut to a page; returns the token for `reset_page`."""
    return _PAGE.set(page)


def reset_page(token: Any) -> None:
    """Undo `set_page`."""
    _PAGE.reset(token)


def install() -> None:
    """Cut moto's answers before they are written."""
    of_moto = EC2BaseResponse.serialized

    def serialized(self: Any, action_result: Any) -> Any:
        page = _PAGE.get()
        if page is not None and isinstance(action_result.result, dict):
            cut(page, action_result.result)
        return of_moto(self, action_result)

    EC2BaseResponse.serialized = serialized
