"""The rehearsed AMI is attested: it is verified as anybody would, and one flipped byte is seen."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bake.attest.merkle import BLOCK
from bake.localcloud import ImageStore, LocalCloud, Settings
from bake.localcloud.machines import disks
from tests.localcloud.conftest import Account

from .bakes import Outcome, called

pytestmark = pytest.mark.root


def verify(baked: Outcome, image: str, *words: str) -> tuple[int, dict[str, Any]]:
    """`bake attest verify … --rehearse --json`: its exit code and its answer."""
    command = ("attest", "verify", image, "--rehearse", *words)
    process = called(baked.desk, "--runs", str(baked.directory.parent), *command)
    answer, errors = process.communicate(timeout=900)
    assert answer, errors
    return process.returncode, json.loads(answer)


def test_the_images_bytes_are_those_that_were_attested(baked: Outcome, image: str) -> None:
    told = baked.report["attestation"]
    code, found = verify(baked, image, "--key", str(baked.directory / "attestation.pub"))
    assert (code, found["verified"], found["verdict"], found["venue"]) == (0, True, "PASSED", "REHEARSAL")
    assert (found["signature"], found["tag"]) == ("trusted", f"sha256:{told['digest']}")
    line = (baked.directory / "attestation.intoto.jsonl").read_text().splitlines()[0]
    statement = json.loads(base64.b64decode(json.loads(line)["payload"]))
    [trace] = statement["predicate"]["runDetails"]["byproducts"]
    assert trace["uri"] == "file:///usr/lib/flux-worker/trace.json"
    assert trace["digest"]["sha256"] == baked.kept("facts/trace.json")["sha256"]
    listed = (baked.directory / "SHA256SUMS").read_text()
    assert "  attestation.intoto.jsonl\n" in listed


def test_one_flipped_byte_in_a_copy_is_seen(
    cloud: LocalCloud, cloud_settings: Settings, baked: Outcome, image: str
) -> None:
    """Of the copy's disk, as nobody can change it on AWS: the image itself stays as it is."""
    account = Account(cloud)
    region = cloud.environment["SPOT_AWS_REGION"]
    asked = {"Name": f"copy of {image}", "SourceImageId": image, "SourceRegion": region}
    copy = str(account.ec2.copy_image(**asked)["ImageId"])
    account.ec2.get_waiter("image_available").wait(ImageIds=[copy], WaiterConfig={"Delay": 1})
    [facts] = account.settled(lambda: account.ec2.describe_images(ImageIds=[copy])["Images"])
    snapshot = facts["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    disk = ImageStore(cloud_settings.images).disk(snapshot)
    try:
        offset = _flip(disk)
        code, found = verify(baked, copy)
    finally:
        account.ec2.deregister_image(ImageId=copy)
        account.ec2.delete_snapshot(SnapshotId=snapshot)
    assert (code, found["verified"], found["copy_of"]) == (4, False, image)
    [where] = found["snapshots"][0]["differing"]
    assert where["offset"] <= offset < where["end"] == where["offset"] + BLOCK


def _flip(disk: Path) -> int:
    """Flip a byte in the middle of what the disk holds, and return where; a linked file stays as it is."""
    own = disk.with_suffix(".own")
    disks.clone(disk, own)
    with own.open("r+b") as file:
        ranges = list(disks.extents(file.fileno(), os.fstat(file.fileno()).st_size))
        offset = ranges[len(ranges) // 2][0]
        [byte] = os.pread(file.fileno(), 1, offset)
        os.pwrite(file.fileno(), bytes([byte ^ 1]), offset)
    own.replace(disk)
    return offset
