"""Small snapshots in the local cloud's account, without machines, and clients that read them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from unittest import mock

import pytest
from moto.kms.responses import KmsResponse

from bake.attest.merkle import BLOCK
from bake.aws import AccessKey, Aws
from bake.localcloud.api import kms
from bake.localcloud.machines import disks
from bake.localcloud.settings import SPOT_REGION
from tests.localcloud.ebs_account import EbsAccount, ebs_account


@dataclass
class Snapshots:
    """Makes snapshots of disks, and changes their bytes behind everybody's back."""

    account: EbsAccount
    clients: dict[str, Aws] = field(default_factory=dict)

    def aws(self, region: str = SPOT_REGION) -> Aws:
        """Clients of the account's owner, with a bake's patience, made once: to make them takes a second."""
        if region not in self.clients:
            self.clients[region] = self.new_aws(region)
        return self.clients[region]

    def new_aws(self, region: str = SPOT_REGION) -> Aws:
        """The same for a test that changes them."""
        owner = self.account.keys.owner
        key = AccessKey(owner.id, owner.secret)
        aws = Aws(region=region, worker_region=region, endpoint=self.account.url, endpoint_key=key)
        return aws.patiently(30)

    def make(self, blocks: Mapping[int, bytes], gib: int = 1) -> str:
        """A snapshot of a volume with these blocks, each filled up with zeros."""
        volume = self.account.volume(Size=gib)
        with self.account.file(volume).open("r+b") as disk:
            for index, content in blocks.items():
                disk.seek(index * BLOCK)
                disk.write(content)
        return self.account.snapshot(volume)

    def image(self, snapshot: str, name: str, **more: str) -> str:
        """An AMI of a snapshot."""
        root = {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot, **more}}
        made = self.account.call(
            "register_image",
            Name=name,
            RootDeviceName="/dev/sda1",
            Architecture="x86_64",
            BlockDeviceMappings=[root],
        )
        return str(made["ImageId"])

    def copy(self, snapshot: str, region: str) -> str:
        """A copy of a snapshot in another region."""
        asked = {"SourceSnapshotId": snapshot, "SourceRegion": SPOT_REGION}
        return self.account.completed(
            self.account.call("copy_snapshot", region, **asked)["SnapshotId"], region
        )

    def write(self, snapshot: str, offset: int, content: bytes) -> None:
        """Change what a snapshot's disk holds; a disk that it shares with others stays theirs."""
        disk = self.account.store.disk(snapshot)
        own = disk.with_suffix(".own")
        disks.clone(disk, own)
        with own.open("r+b") as file:
            os.pwrite(file.fileno(), content, offset)
        own.replace(disk)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EbsAccount]:
    with (
        ebs_account(tmp_path_factory.mktemp("ebs")) as account,
        mock.patch.object(KmsResponse, "sign", KmsResponse.sign),
    ):
        kms.install()
        yield account


@pytest.fixture(scope="module")
def all_snapshots(served: EbsAccount) -> Snapshots:
    return Snapshots(served)


@pytest.fixture
def snapshots(all_snapshots: Snapshots) -> Snapshots:
    return all_snapshots
