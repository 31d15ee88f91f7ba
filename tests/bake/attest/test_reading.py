"""Reading a snapshot: in parallel, each block held against its checksum, whatever happens on the way."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError, ResponseStreamingError

from bake.attest import reading
from bake.attest.merkle import BLOCK, Content
from bake.attest.reading import Reading, Stopped, read
from bake.errors import BakeError

from .conftest import Snapshots

pytestmark = pytest.mark.integration

BLOCKS = {0: b"boot", 7: b"x" * BLOCK, 2047: b"end"}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat without pauses."""
    monkeypatch.setattr("bake.waits.Wait.pause", lambda wait, seconds: None)


def content_of(blocks: dict[int, bytes], gib: int = 1) -> Content:
    padded = {index: block.ljust(BLOCK, b"\0") for index, block in blocks.items()}
    return Content(gib, {index: hashlib.sha256(block).digest() for index, block in padded.items()})


def changed(reader: Reading, change: Callable[[int, Any], Any]) -> list[int]:
    """Let `change` see each answer to GetSnapshotBlock; return the blocks that were asked for."""
    of_cloud, asked, lock = reader.aws.ebs.get_snapshot_block, [], threading.Lock()

    def get(**parameters: Any) -> Any:
        with lock:
            asked.append(parameters["BlockIndex"])
            number = asked.count(parameters["BlockIndex"])
        return change(number, of_cloud(**parameters))

    reader.aws.ebs.get_snapshot_block = get
    return asked


def test_what_is_read_is_what_the_disk_holds(snapshots: Snapshots) -> None:
    snapshot, notes = snapshots.make(BLOCKS), []
    assert read(snapshots.aws(), snapshot, 1, notes.append).digest() == content_of(BLOCKS).digest()
    assert notes[0].startswith(f"read 3 blocks of {snapshot} (0.00 GiB) in ")


def test_an_empty_snapshot_is_read(snapshots: Snapshots) -> None:
    assert read(snapshots.aws(), snapshots.make({}, gib=2)) == Content(2, {})


def test_zeros_that_are_stored_are_as_none(snapshots: Snapshots) -> None:
    stored = snapshots.make({**BLOCKS, 100: bytes(BLOCK)})
    assert read(snapshots.aws(), stored).digest() == read(snapshots.aws(), snapshots.make(BLOCKS)).digest()


def test_a_copy_in_another_region_has_the_same_digest(snapshots: Snapshots) -> None:
    snapshot = snapshots.make(BLOCKS)
    copy = snapshots.copy(snapshot, "eu-west-1")
    assert read(snapshots.aws("eu-west-1"), copy).digest() == read(snapshots.aws(), snapshot).digest()


def test_one_flipped_bit_is_another_digest(snapshots: Snapshots) -> None:
    snapshot = snapshots.make(BLOCKS)
    before = read(snapshots.aws(), snapshot)
    snapshots.write(snapshot, 7 * BLOCK + 4711, b"y")
    after = read(snapshots.aws(), snapshot)
    assert before.digest() != after.digest()
    assert list(before.differences(after)) == [(7, 7)]


def test_many_blocks_are_read_by_few_threads_in_little_memory(
    snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages smaller than the snapshot, and more blocks than the queue holds."""
    monkeypatch.setattr(reading, "PAGE", 100)
    blocks = {index: str(index).encode() for index in range(0, 700, 2)}
    reader = Reading(snapshots.new_aws(), snapshots.make(blocks), threads=3)
    assert reader.content().digest() == content_of(blocks).digest()
    assert (reader.listed, reader.read) == (350, 350)


def test_a_volume_of_another_size_is_refused(snapshots: Snapshots) -> None:
    snapshot = snapshots.make({}, gib=2)
    with pytest.raises(BakeError, match=f"{snapshot} is of a volume of 2 GiB, and not of 1 GiB"):
        read(snapshots.aws(), snapshot, 1)


@pytest.mark.parametrize("what", ["damaged", "short", "cut"])
def test_a_block_that_comes_wrong_is_read_again(snapshots: Snapshots, what: str) -> None:
    reader = Reading(snapshots.new_aws(), snapshots.make(BLOCKS), threads=2)

    def spoil(number: int, answer: Any) -> Any:
        if number > 1:
            return answer
        content = answer["BlockData"].read()
        if what == "damaged":
            content = b"?" + content[1:]
        if what == "short":
            content = content[:-1]
        if what == "cut":
            return {**answer, "BlockData": Cut()}
        return {**answer, "BlockData": io.BytesIO(content)}

    asked = changed(reader, spoil)
    assert reader.content().digest() == content_of(BLOCKS).digest()
    assert sorted(asked) == [0, 0, 7, 7, 2047, 2047]


class Cut(io.BytesIO):
    """A body whose connection ends."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise ResponseStreamingError(error="reset")


def test_a_throttled_call_is_sent_again(snapshots: Snapshots) -> None:
    """By the bake's own retries, as any other call."""
    reader, seen = Reading(snapshots.new_aws(), snapshots.make(BLOCKS), threads=2), set()

    def throttle(request: Any, **_: Any) -> AWSResponse | None:
        if request.url in seen:
            return None
        seen.add(request.url)
        headers = {"x-amzn-ErrorType": "RequestThrottledException"}
        return AWSResponse(request.url, 400, headers, Body(b'{"Reason": "RESOURCE_LEVEL_THROTTLE"}'))

    reader.aws.ebs.meta.events.register_first("before-send.ebs.GetSnapshotBlock", throttle)
    assert reader.content().digest() == content_of(BLOCKS).digest()
    assert len(seen) == 3


class Body(io.BytesIO):
    """The body of an answer, as urllib3 has it."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.getvalue()


def test_a_block_that_stays_damaged_is_an_error(snapshots: Snapshots) -> None:
    reader = Reading(snapshots.new_aws(), snapshots.make(BLOCKS))
    changed(reader, lambda number, answer: {**answer, "Checksum": "AAAA"})
    with pytest.raises(
        BakeError, match=r"block \d+ of snap-\w+ can't be read: it is not what its checksum says"
    ):
        reader.content()


def test_a_token_that_has_expired_is_fetched_anew(snapshots: Snapshots) -> None:
    reader = Reading(snapshots.new_aws(), snapshots.make(BLOCKS), threads=2)

    def expire(number: int, answer: Any) -> Any:
        if number == 1:
            told: Any = {"Error": {"Code": "ValidationException"}, "Reason": "INVALID_BLOCK_TOKEN"}
            raise ClientError(told, "GetSnapshotBlock")
        return answer

    changed(reader, expire)
    assert reader.content().digest() == content_of(BLOCKS).digest()


def test_tokens_that_expire_are_fetched_anew_from_the_cloud(
    snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bake.localcloud.api import direct

    reader, life = Reading(snapshots.new_aws(), snapshots.make(BLOCKS)), direct.LIFE
    of_cloud = reader.aws.ebs.list_snapshot_blocks

    def listed(**asked: Any) -> Any:
        monkeypatch.setattr(direct, "LIFE", -life if asked["MaxResults"] == reading.PAGE else life)
        return of_cloud(**asked)

    reader.aws.ebs.list_snapshot_blocks = listed
    assert reader.content().digest() == content_of(BLOCKS).digest()


def test_what_aws_refuses_ends_the_reading(snapshots: Snapshots) -> None:
    reader = Reading(snapshots.new_aws(), snapshots.make(dict.fromkeys(range(300), b"x")))

    def refuse(number: int, answer: Any) -> Any:
        raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "GetSnapshotBlock")

    changed(reader, refuse)
    with pytest.raises(ClientError, match="AccessDenied"):
        reader.content()
    with pytest.raises(ClientError, match="does not exist"):
        read(snapshots.aws(), "snap-00000000000000abc")


def test_reading_ends_when_nobody_wants_it_any_more(snapshots: Snapshots) -> None:
    reader = Reading(snapshots.new_aws(), snapshots.make(dict.fromkeys(range(300), b"x")), threads=2)

    def stop(number: int, answer: Any) -> Any:
        reader.stop()
        return answer

    asked = changed(reader, stop)
    with pytest.raises(Stopped):
        reader.content()
    assert len(asked) < 300
