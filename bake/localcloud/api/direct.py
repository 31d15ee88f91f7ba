"""The EBS direct APIs that read: lists of a snapshot's blocks, and the blocks, from the snapshot's own disk.

moto's `ebs` knows no disks, so it is not asked. A block that the sparse disk has no data in is absent; one of
zeros may be there. Tokens are as AWS's: they belong to one block of one snapshot, and expire.
https://docs.aws.amazon.com/ebs/latest/APIReference/Welcome.html
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import struct
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from moto.core import utils
from moto.ec2.models import ec2_backends
from werkzeug.wrappers import Response

from bake.localcloud.api.access.operation_request import OperationRequest
from bake.localcloud.machines.disks import GIB, extents
from bake.localcloud.settings import ACCOUNT

BLOCK = 512 << 10
LIFE = timedelta(days=7)  # of a block's token
PAGES = timedelta(hours=1)  # of a page's token
FEWEST, MOST = 100, 10_000  # blocks of a page
COMPARED = 4096  # blocks that one page of ListChangedBlocks looks at: it may answer fewer than were asked for
_SECRET = secrets.token_bytes(32)
_SNAPSHOT = re.compile(r"snap-[0-9a-f]{1,59}")
_NUMBER = re.compile(r"[0-9]{1,12}")
_TAG = 16  # bytes of a token that say that it is ours


class Wrong(Exception):
    """A call that the service refuses: an error's name, its reason and HTTP status, as its model has them."""

    def __init__(
        self, message: str, reason: str, name: str = "ValidationException", status: int = 400
    ) -> None:
        super().__init__(message)
        self.name, self.reason, self.status = name, reason, status


@dataclass(frozen=True)
class Disk:
    """A snapshot's disk; `gib` is the size of the volume."""

    snapshot: str
    gib: int
    fd: int

    def blocks(self, start: int = 0) -> Iterator[int]:
        """The indexes of the blocks that have data, from `start` on."""
        size, following = min(os.fstat(self.fd).st_size, self.gib * GIB), start
        for begin, end in _extents_from(self.fd, start * BLOCK, size):
            for index in range(max(begin // BLOCK, following), -(-end // BLOCK)):
                yield index
                following = index + 1

    def read(self, index: int) -> bytes:
        """A block, with zeros where the disk has nothing."""
        return os.pread(self.fd, BLOCK, index * BLOCK).ljust(BLOCK, b"\0")


def _extents_from(fd: int, start: int, size: int) -> Iterator[tuple[int, int]]:
    """The ranges of data of a sparse file that end after `start`."""
    for begin, end in extents(fd, size, start):
        yield begin, min(end, size)


def answer(requested: OperationRequest) -> Response:
    """The answer to a call that the gateway has admitted."""
    try:
        return _ANSWERS[requested.operation](requested.region, requested.content)
    except Wrong as wrong:
        headers = {"x-amzn-RequestId": str(uuid.uuid4()), "x-amzn-ErrorType": wrong.name}
        told = json.dumps({"Message": str(wrong), "Reason": wrong.reason})
        return Response(told, wrong.status, headers, content_type="application/json")


def _list_blocks(region: str, asked: Mapping[str, Any]) -> Response:
    name, most = str(asked.get("snapshotId", "")), _most(asked)
    with _disk(region, name) as disk:
        start = _start(asked, f"list {region} {name}")
        found, following = _first(disk.blocks(start), most)
        blocks = [{"BlockIndex": one, "BlockToken": _token(region, name, one)} for one in found]
        return _page({"Blocks": blocks}, disk, following, f"list {region} {name}")


def _list_changed(region: str, asked: Mapping[str, Any]) -> Response:
    """Blocks that differ: looked at one by one, for one that was written anew may hold what it held."""
    first, second = str(asked.get("firstSnapshotId", "")), str(asked.get("secondSnapshotId", ""))
    most = _most(asked)
    if not first:
        raise Wrong("FirstSnapshotId must be specified.", "INVALID_PARAMETER_VALUE")
    with _disk(region, first) as one, _disk(region, second) as other:
        _check_related(region, first, second)
        named = f"changed {region} {first} {second}"
        start, changed = _start(asked, named), []
        candidates = _both(one.blocks(start), other.blocks(start))
        looked, following = _first(candidates, min(most, COMPARED))
        for index, in_one, in_other in looked:
            if one.read(index) != other.read(index):
                told: dict[str, Any] = {"BlockIndex": index}
                told |= {"FirstBlockToken": _token(region, first, index)} if in_one else {}
                told |= {"SecondBlockToken": _token(region, second, index)} if in_other else {}
                changed.append(told)
        beyond = following[0] if following is not None else None
        return _page({"ChangedBlocks": changed}, other, beyond, named)


def _get_block(region: str, asked: Mapping[str, Any]) -> Response:
    name, index = str(asked.get("snapshotId", "")), str(asked.get("blockIndex", ""))
    with _disk(region, name) as disk:
        if not _NUMBER.fullmatch(index):
            raise Wrong("The block index is not valid.", "INVALID_PARAMETER_VALUE")
        _check_token(str(asked.get("blockToken", "")), region, name, int(index))
        content = disk.read(int(index))
    headers = {
        "x-amz-Data-Length": str(len(content)),
        "x-amz-Checksum": base64.b64encode(hashlib.sha256(content).digest()).decode(),
        "x-amz-Checksum-Algorithm": "SHA256",
        "x-amzn-RequestId": str(uuid.uuid4()),
    }
    return Response(content, 200, headers, content_type="application/octet-stream")


_ANSWERS = {
    "ListSnapshotBlocks": _list_blocks,
    "ListChangedBlocks": _list_changed,
    "GetSnapshotBlock": _get_block,
}


def _page(listed: dict[str, Any], disk: Disk, following: int | None, named: str) -> Response:
    told = {**listed, "ExpiryTime": (utils.utcnow() + LIFE).timestamp(), "VolumeSize": disk.gib}
    told |= {"BlockSize": BLOCK}
    if following is not None:
        told["NextToken"] = _sealed(f"page {named}", following, PAGES)
    headers = {"x-amzn-RequestId": str(uuid.uuid4())}
    return Response(json.dumps(told), 200, headers, content_type="application/json")


def _first(found: Iterator[Any], most: int) -> tuple[list[Any], Any]:
    """The first ones, and the one that follows, or None."""
    page: list[Any] = []
    for one in found:
        if len(page) == most:
            return page, one
        page.append(one)
    return page, None


def _both(one: Iterator[int], other: Iterator[int]) -> Iterator[tuple[int, bool, bool]]:
    """The indexes of two ascending lists, and which of the lists have each."""
    left, right = next(one, None), next(other, None)
    while left is not None or right is not None:
        index = min(found for found in (left, right) if found is not None)
        yield index, left == index, right == index
        left = next(one, None) if left == index else left
        right = next(other, None) if right == index else right


def _most(asked: Mapping[str, Any]) -> int:
    given = str(asked.get("maxResults", MOST))
    if not _NUMBER.fullmatch(given) or not FEWEST <= int(given) <= MOST:
        raise Wrong(f"MaxResults must be between {FEWEST} and {MOST}.", "INVALID_PARAMETER_VALUE")
    return int(given)


def _start(asked: Mapping[str, Any], named: str) -> int:
    """The first block of a page; a page's token goes before StartingBlockIndex."""
    if token := str(asked.get("pageToken", "")):
        start = _opened(token, f"page {named}")
        if start is None:
            raise Wrong("The page token is not valid.", "INVALID_PAGE_TOKEN")
        return start
    given = str(asked.get("startingBlockIndex", 0))
    if not _NUMBER.fullmatch(given):
        raise Wrong("StartingBlockIndex is not valid.", "INVALID_PARAMETER_VALUE")
    return int(given)


# --- snapshots -----------------------------------------------------------------------------------


@contextmanager
def _disk(region: str, name: str) -> Iterator[Disk]:
    """The disk of a completed snapshot of the account's own, for as long as it is read."""
    snapshot = _snapshot(region, name)
    try:
        fd = os.open(snapshot.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:  # deleted at this moment, or a base that nobody has launched yet
        raise _absent(name) from error
    try:
        yield Disk(name, snapshot.gib, fd)
    finally:
        os.close(fd)


def _snapshot(region: str, name: str) -> Any:
    if not _SNAPSHOT.fullmatch(name):
        raise Wrong(f"The snapshot ID '{name[:80]}' is not valid.", "INVALID_SNAPSHOT_ID")
    snapshot = ec2_backends[ACCOUNT][region].snapshots.get(name)
    if snapshot is None or snapshot.hidden:  # another account's
        raise _absent(name)
    if snapshot.status != "completed":
        raise Wrong(f"The snapshot '{name}' is not in the completed state.", "INVALID_SNAPSHOT_ID")
    return snapshot


def _absent(name: str) -> Wrong:
    message = f"The snapshot '{name}' does not exist."
    return Wrong(message, "SNAPSHOT_NOT_FOUND", "ResourceNotFoundException", 404)


def _check_related(region: str, first: str, second: str) -> None:
    """Refuse to compare snapshots that do not descend from each other, or from one volume."""
    one, other = ({name, *_lineage(region, name)} for name in (first, second))
    if not one & other:
        raise Wrong("The snapshots are not from the same lineage.", "UNRELATED_SNAPSHOTS")


def _lineage(region: str, name: str) -> Iterator[str]:
    """The volume that a snapshot was made of, and the snapshot that the volume was made of, and so on."""
    backend = ec2_backends[ACCOUNT][region]
    for _ in range(100):
        snapshot = backend.snapshots.get(name)
        if snapshot is None or snapshot.volume_id == "vol-ffffffff":  # of a copy
            return
        yield snapshot.volume_id
        name = str(getattr(snapshot.volume, "snapshot_id", None) or "")
        if not name:
            return
        yield name


# --- tokens --------------------------------------------------------------------------------------


def _token(region: str, name: str, index: int) -> str:
    return _sealed(f"block {region} {name} {index}", index, LIFE)


def _check_token(token: str, region: str, name: str, index: int) -> None:
    if _opened(token, f"block {region} {name} {index}") != index:
        raise Wrong("The block token is not valid or has expired.", "INVALID_BLOCK_TOKEN")


def _sealed(named: str, number: int, life: timedelta) -> str:
    """A token that holds a number, good for what it is `named` for."""
    held = struct.pack(">QQ", number, int((utils.utcnow() + life).timestamp()))
    return base64.b64encode(held + _tag(named, held)).decode()


def _opened(token: str, named: str) -> int | None:
    """The number in a token; None if it is none of ours, for something else, or expired."""
    try:
        content = base64.b64decode(token, validate=True)
    except ValueError:
        return None
    held, tag = content[:-_TAG], content[-_TAG:]
    if len(held) != struct.calcsize(">QQ") or not hmac.compare_digest(tag, _tag(named, held)):
        return None
    number, expires = struct.unpack(">QQ", held)
    return int(number) if utils.utcnow().timestamp() < expires else None


def _tag(named: str, held: bytes) -> bytes:
    return hmac.digest(_SECRET, named.encode() + b"\0" + held, "sha256")[:_TAG]
