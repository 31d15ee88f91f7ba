"""S3 at the bandwidth of an instance, and parts of large objects."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from bake.errors import UsageError
from bake.localcloud.api.pacing import Pacer
from bake.localcloud.machines.filling import Bandwidth
from bake.localcloud.network.control import over_http

from .conftest import Account, new, refusal

pytestmark = pytest.mark.integration

MB = 10**6


class Clock:
    """A clock that goes on while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def taken(bandwidth: Bandwidth, *addresses: str, size: int = 10 * MB) -> float:
    """Seconds in which clients at these addresses have got an answer each, all at once."""
    clock, content = Clock(), bytes(range(256)) * (size // 256)
    pacer = Pacer(bandwidth, clock, clock.sleep)
    bodies = [iter(pacer.paced(address, [content])) for address in addresses]
    came = [b""] * len(bodies)
    going = list(range(len(bodies)))
    while going:
        for number in list(going):
            piece = next(bodies[number], None)
            if piece is None:
                going.remove(number)
            else:
                came[number] += piece
    assert came == [content] * len(bodies)
    return clock.now - 1000


@pytest.mark.parametrize(
    ("bandwidth", "addresses", "seconds"),
    [
        pytest.param(Bandwidth(), "a", 0, id="unlimited"),
        pytest.param(Bandwidth(s3=100), "a", 0.1, id="one"),
        pytest.param(Bandwidth(s3=100), "aa", 0.2, id="flows-share-an-instances"),
        pytest.param(Bandwidth(s3=100), "ab", 0.1, id="instances-do-not"),
        pytest.param(Bandwidth(flow=50), "aaaa", 0.2, id="flows-alone"),
        pytest.param(Bandwidth(s3=100, flow=50), "a", 0.2, id="a-flow's"),
        pytest.param(Bandwidth(s3=100, flow=50), "aaaa", 0.4, id="flows-up-to-an-instances"),
    ],
)
def test_answers_come_at_the_bandwidth(bandwidth: Bandwidth, addresses: str, seconds: float) -> None:
    assert taken(bandwidth, *addresses) == pytest.approx(seconds, abs=0.03)


def test_what_is_paced_is_closed() -> None:
    class Body:
        closed = False

        def __iter__(self) -> Iterator[bytes]:
            yield b"content"

        def close(self) -> None:
            self.closed = True

    body = Body()
    paced: Any = Pacer(Bandwidth(s3=1)).paced("a", body)
    assert next(paced) == b"content"
    paced.close()
    assert body.closed


@pytest.fixture(scope="module")
def large(served: Account) -> Iterable[tuple[Any, str, bytes]]:
    """S3, and a bucket with the object `large`."""
    s3, bucket, content = served.client("s3"), new(), bytes(range(251)) * (3 * MB // 251)
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-north-1"})
    s3.put_object(Bucket=bucket, Key="large", Body=content)
    yield s3, bucket, content
    s3.delete_object(Bucket=bucket, Key="large")
    s3.delete_bucket(Bucket=bucket)


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        pytest.param("bytes=0-99", slice(0, 100), id="first"),
        pytest.param("bytes=2000000-2499999", slice(2_000_000, 2_500_000), id="middle"),
        pytest.param("bytes=2000000-", slice(2_000_000, None), id="rest"),
        pytest.param("bytes=-10", slice(-10, None), id="last"),
        pytest.param("bytes=2000000-99999999", slice(2_000_000, None), id="beyond"),
        pytest.param("bytes=x-y", slice(None), id="none"),
    ],
)
def test_parts_of_a_large_object(large: tuple[Any, str, bytes], asked: str, part: slice) -> None:
    s3, bucket, content = large
    answer = s3.get_object(Bucket=bucket, Key="large", Range=asked)
    assert answer["Body"].read() == content[part]
    assert answer["ContentLength"] == len(content[part])
    assert s3.head_object(Bucket=bucket, Key="large", Range=asked)["ContentLength"] == len(content[part])


def test_a_part_behind_the_end_is_refused(large: tuple[Any, str, bytes]) -> None:
    s3, bucket, _ = large
    assert refusal(s3.get_object, Bucket=bucket, Key="large", Range="bytes=9999999-") == ("InvalidRange", 416)


def test_a_cloud_paces_what_instances_get(served: Account, large: tuple[Any, str, bytes]) -> None:
    """Also parts; the limits are settings of lazy disks, and end with them."""
    s3, bucket, content = large
    ask, limit = over_http(served.control), 4 * MB
    told = ask("POST", f"/-/lazy-disks?s3={limit / MB}", None)
    try:
        assert told == ask("GET", "/-/lazy-disks", None)
        assert (told["s3"], told["flow"], told["latency"]) == (4, None, 30)
        started = time.monotonic()
        body = s3.get_object(Bucket=bucket, Key="large", Range="bytes=0-1999999")["Body"].read()
        assert 2 * MB / (time.monotonic() - started) < 1.1 * limit
        assert body == content[: 2 * MB]
    finally:
        assert ask("DELETE", "/-/lazy-disks", None) == {}
    assert ask("GET", "/-/lazy-disks", None) == {}


def test_a_launch_with_lazy_disks_is_initialized_later(account: Account) -> None:
    ask, ec2 = over_http(account.control), account.client("ec2")
    ask("POST", "/-/lazy-disks", b"latency=60,ceiling=50")
    try:
        mapped = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeInitializationRate": 200}}]
        volume = account.volume(account.one(BlockDeviceMappings=mapped))["VolumeId"]
        [found] = ec2.describe_volume_status(VolumeIds=[volume])["VolumeStatuses"]
        assert found["InitializationStatusDetails"] == {
            "InitializationType": "provisioned-rate",
            "Progress": 0,
            "EstimatedTimeToCompleteInSeconds": 41,  # 8 GiB
        }
        details = {one["Name"]: one["Status"] for one in found["VolumeStatus"]["Details"]}
        assert details["initialization-state"] == "initializing"
        with pytest.raises(UsageError, match="there is no instance or root volume 'i-0'"):
            ask("GET", "/-/lazy-disks/i-0", None)
        with pytest.raises(UsageError, match=f"the disk of {volume} is no lazy one"):
            ask("GET", f"/-/lazy-disks/{volume}", None)
    finally:
        ask("DELETE", "/-/lazy-disks", None)
