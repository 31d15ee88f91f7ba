"""The EBS direct APIs: what they say is what lies on a snapshot's disk. No machines are started."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bake.localcloud.api import direct
from bake.localcloud.api.access.inventory import MotoInventory
from bake.localcloud.api.access.service_needs import needs_of
from bake.localcloud.settings import SPOT_REGION

from .ebs_account import ELSEWHERE, EbsAccount, snapshot_of

pytestmark = pytest.mark.integration

BLOCK = 512 << 10


@pytest.fixture
def volume(ebs: EbsAccount) -> str:
    """A volume of 1 GiB, with data in the blocks 0, 3, 4 and 2047 and zeros that lie on the disk in 9."""
    made = ebs.volume(Size=1)
    write(ebs, made, {0: b"boot", 3 * BLOCK + 5: b"x" * BLOCK, 2048 * BLOCK - 3: b"end"})
    write(ebs, made, {9 * BLOCK: bytes(4096)})
    return made


def write(ebs: EbsAccount, volume: str, content: dict[int, bytes]) -> None:
    with ebs.file(volume).open("r+b") as disk:
        for offset, data in content.items():
            disk.seek(offset)
            disk.write(data)


def read(ebs: EbsAccount, snapshot: str, region: str = SPOT_REGION) -> dict[int, bytes]:
    """All blocks, each held against its checksum."""
    client, found = ebs.of("ebs", region), {}
    for block in client.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]:
        answer = client.get_snapshot_block(SnapshotId=snapshot, **block)
        content = answer["BlockData"].read()
        assert (answer["DataLength"], len(content), answer["ChecksumAlgorithm"]) == (BLOCK, BLOCK, "SHA256")
        assert base64.b64decode(answer["Checksum"]) == hashlib.sha256(content).digest()
        found[block["BlockIndex"]] = content
    return found


def refused(call: Any, **asked: Any) -> tuple[str, str | None, int]:
    with pytest.raises(ClientError) as caught:
        call(**asked)
    told: Any = caught.value.response
    return told["Error"]["Code"], told.get("Reason"), told["ResponseMetadata"]["HTTPStatusCode"]


def test_blocks_are_those_of_the_disk(ebs: EbsAccount, volume: str) -> None:
    snapshot = ebs.snapshot(volume)
    write(ebs, volume, {0: b"later"})  # which is not in the snapshot
    found = read(ebs, snapshot)
    assert found.keys() - {9} == {0, 3, 4, 2047}
    assert found[0] == b"boot".ljust(BLOCK, b"\0")
    assert found[3] + found[4] == (bytes(5) + b"x" * BLOCK).ljust(2 * BLOCK, b"\0")
    assert found[2047].endswith(b"\0end")
    assert found.get(9, bytes(BLOCK)) == bytes(BLOCK)
    told = ebs.of("ebs").list_snapshot_blocks(SnapshotId=snapshot)
    assert (told["VolumeSize"], told["BlockSize"]) == (1, BLOCK)
    assert "NextToken" not in told


def test_an_empty_volume_has_no_blocks(ebs: EbsAccount) -> None:
    assert read(ebs, ebs.snapshot(ebs.volume(Size=1))) == {}


def test_a_copy_in_another_region_holds_the_same(ebs: EbsAccount, volume: str) -> None:
    snapshot = ebs.snapshot(volume)
    source = {"SourceSnapshotId": snapshot, "SourceRegion": SPOT_REGION}
    copy = ebs.completed(ebs.call("copy_snapshot", ELSEWHERE, **source)["SnapshotId"], ELSEWHERE)
    assert read(ebs, copy, ELSEWHERE) == read(ebs, snapshot)
    there = ebs.of("ebs", ELSEWHERE).list_snapshot_blocks
    assert refused(there, SnapshotId=snapshot) == ("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", 404)


def test_lists_come_in_pages(ebs: EbsAccount) -> None:
    volume = ebs.volume(Size=1)
    write(ebs, volume, {index * BLOCK: b"x" for index in range(0, 500, 2)})
    snapshot, client = ebs.snapshot(volume), ebs.of("ebs")
    asked: dict[str, Any] = {"SnapshotId": snapshot, "MaxResults": 100}
    found, pages = [], []
    while True:
        page = client.list_snapshot_blocks(**asked)
        pages.append(len(page["Blocks"]))
        found += [block["BlockIndex"] for block in page["Blocks"]]
        if "NextToken" not in page:
            break
        asked["NextToken"], asked["StartingBlockIndex"] = page["NextToken"], 7  # which is ignored then
    assert (found, pages) == (list(range(0, 500, 2)), [100, 100, 50])
    start = client.list_snapshot_blocks(SnapshotId=snapshot, StartingBlockIndex=495)["Blocks"]
    assert [block["BlockIndex"] for block in start] == [496, 498]
    end = client.list_snapshot_blocks(SnapshotId=snapshot, StartingBlockIndex=499)
    assert (end["Blocks"], end["VolumeSize"]) == ([], 1)


def test_what_differs_between_two_snapshots_is_listed(ebs: EbsAccount, volume: str) -> None:
    before = ebs.snapshot(volume)
    write(ebs, volume, {3 * BLOCK + 5: b"y", 100 * BLOCK: b"new", 0: b"boot"})  # block 0 as it was
    after, client = ebs.snapshot(volume), ebs.of("ebs")
    told = client.list_changed_blocks(FirstSnapshotId=before, SecondSnapshotId=after)
    assert [one["BlockIndex"] for one in told["ChangedBlocks"]] == [3, 100]
    changed, added = told["ChangedBlocks"]
    assert "FirstBlockToken" not in added
    for name, key in ((before, "FirstBlockToken"), (after, "SecondBlockToken")):
        client.get_snapshot_block(SnapshotId=name, BlockIndex=3, BlockToken=changed[key])
    other = ebs.snapshot(ebs.volume(Size=1))
    asked = {"FirstSnapshotId": before, "SecondSnapshotId": other}
    assert refused(client.list_changed_blocks, **asked)[:2] == ("ValidationException", "UNRELATED_SNAPSHOTS")
    assert refused(client.list_changed_blocks, SecondSnapshotId=after)[0] == "ValidationException"


def test_tokens_are_good_for_one_block_and_for_a_time(
    ebs: EbsAccount, volume: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, client = ebs.snapshot(volume), ebs.of("ebs")
    first, second, *_ = client.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]
    get, wrong = client.get_snapshot_block, ("ValidationException", "INVALID_BLOCK_TOKEN", 400)
    another = {"BlockIndex": first["BlockIndex"], "BlockToken": second["BlockToken"]}
    assert refused(get, SnapshotId=snapshot, **another) == wrong
    assert refused(get, SnapshotId=snapshot, BlockIndex=0, BlockToken="AAAA") == wrong
    assert refused(get, SnapshotId=ebs.snapshot(volume), **first) == wrong
    monkeypatch.setattr(direct, "LIFE", -direct.LIFE)
    late = client.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"][0]
    assert refused(get, SnapshotId=snapshot, **late) == wrong


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"SnapshotId": "snap-0123456789abcdef0"}, ("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", 404)),
        ({"SnapshotId": "ami-1"}, ("ValidationException", "INVALID_SNAPSHOT_ID", 400)),
        ({"MaxResults": 10_001}, ("ValidationException", "INVALID_PARAMETER_VALUE", 400)),
        ({"NextToken": "AAAA"}, ("ValidationException", "INVALID_PAGE_TOKEN", 400)),
    ],
    ids=["an unknown snapshot", "no snapshot", "too much", "a made-up page"],
)
def test_what_can_not_be_listed_is_refused(
    ebs: EbsAccount, volume: str, asked: dict[str, Any], expected: tuple[str, str, int]
) -> None:
    asked = {"SnapshotId": ebs.snapshot(volume), **asked}
    assert refused(ebs.of("ebs").list_snapshot_blocks, **asked) == expected


def test_a_snapshot_of_another_account_and_a_pending_one_are_not_read(ebs: EbsAccount, volume: str) -> None:
    from moto.ec2.models import ec2_backends

    snapshot = ebs.snapshot(volume)
    record = ec2_backends["123456789012"][SPOT_REGION].snapshots[snapshot]
    listing = ebs.of("ebs").list_snapshot_blocks
    record.status = "pending"
    assert refused(listing, SnapshotId=snapshot)[:2] == ("ValidationException", "INVALID_SNAPSHOT_ID")
    record.status, record.hidden = "completed", True
    assert refused(listing, SnapshotId=snapshot)[:2] == ("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND")


@pytest.mark.parametrize("operation", ["ListSnapshotBlocks", "GetSnapshotBlock", "ListChangedBlocks"])
def test_the_right_is_needed_on_each_snapshot_and_on_the_key_of_an_encrypted_one(
    ebs: EbsAccount, operation: str
) -> None:
    """By AWS's Service Authorization Reference; only a block itself is decrypted."""
    key, copied = ebs.key(), {"SourceSnapshotId": ebs.snapshot(ebs.volume(Size=1)), "Encrypted": True}
    made = ebs.call("copy_snapshot", SourceRegion=SPOT_REGION, KmsKeyId=key, **copied)["SnapshotId"]
    ebs.call("create_tags", Resources=[ebs.completed(made)], Tags=[{"Key": "bake:run", "Value": "r"}])
    names = {"snapshotId": made}
    if operation == "ListChangedBlocks":
        names = {"firstSnapshotId": made, "secondSnapshotId": "snap-1"}
    needs = needs_of("ebs", operation, SPOT_REGION, names, "/", MotoInventory())
    assert needs is not None
    arns = [f"arn:aws:ec2:{SPOT_REGION}::snapshot/{name}" for name in names.values()]
    expected = [(f"ebs:{operation}", arn) for arn in arns]
    assert needs[0].value("aws:ResourceTag/bake:run") == ("r",)
    if operation == "GetSnapshotBlock":
        expected.append(("kms:Decrypt", key))
        assert needs[1].value("kms:ViaService") == (f"ec2.{SPOT_REGION}.amazonaws.com",)
    assert [(need.action, need.resource) for need in needs] == expected


def test_an_image_is_read_by_its_snapshot(ebs: EbsAccount) -> None:
    image = ebs.available(ebs.call("create_image", InstanceId=ebs.launch(), Name="to be read")["ImageId"])
    assert ebs.of("ebs").list_snapshot_blocks(SnapshotId=snapshot_of(image))["VolumeSize"] == 2


def test_a_large_disk_is_not_read_to_list_it(ebs: EbsAccount) -> None:
    """A sparse file of 8 TiB: what is listed is found by its holes."""
    volume = ebs.volume(Size=1)
    os.truncate(ebs.file(volume), 1 << 43)
    write(ebs, volume, {(1 << 42): b"far"})
    snapshot = ebs.snapshot(volume)
    assert ebs.of("ebs").list_snapshot_blocks(SnapshotId=snapshot)["Blocks"] == []  # beyond the volume's size
