"""AMIs and snapshots on disk, which outlive the cloud: a JSON record each, and a sparse disk per snapshot."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

KEPT = 3


@dataclass
class StoredSnapshot:
    """A snapshot. `gib` is the size of the volume it was made from; `created` is ISO 8601 in UTC.

    `kms_key` is the ARN of the key that it is encrypted with, None where it is not. `region` is empty for the
    region in which the cloud's machines live.
    """

    id: str
    volume_id: str
    gib: int
    description: str
    created: str
    tags: dict[str, str] = field(default_factory=dict)
    kms_key: str | None = None
    region: str = ""


@dataclass
class StoredImage:
    """An AMI. `imds_support` is "v2.0" where its instances need IMDSv2.

    `snapshot_id` is its root volume's. `more_mappings` are the block device mappings beside it, as
    DescribeImages has them: volumes of snapshots, blank volumes, instance stores. `region` is as a
    snapshot's. `attributes` are those of api/images.py's LocalAmi that differ from their defaults.
    """

    id: str
    name: str
    description: str
    created: str
    snapshot_id: str
    volume_type: str
    iops: int | None
    throughput: int | None
    source_instance: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    imds_support: str | None = None
    root_device: str = "/dev/sda1"
    more_mappings: list[dict[str, Any]] = field(default_factory=list)
    region: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def snapshots(self) -> list[str]:
        """The snapshots of all its volumes, the root volume's first."""
        more = [mapping.get("Ebs", {}).get("SnapshotId") for mapping in self.more_mappings]
        return [self.snapshot_id, *(one for one in more if one)]


class ImageStore:
    """The directory with the AMIs and snapshots of one local cloud."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def disk(self, snapshot_id: str) -> Path:
        return self.directory / f"{snapshot_id}.img"

    def fill(self, snapshot_id: str, make: Callable[[Path], None]) -> None:
        """Let `make` write a snapshot's disk, to the path that it is given."""
        make(self.disk(snapshot_id))

    def save(self, record: StoredImage | StoredSnapshot) -> None:
        """Write a record atomically."""
        path = self.directory / f"{record.id}.json"
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(record), indent=2))
        partial.replace(path)

    def forget(self, identity: str) -> None:
        """Remove an AMI's record, or a snapshot's record and disk."""
        for suffix in ("json", "img", "img.partial"):
            (self.directory / f"{identity}.{suffix}").unlink(missing_ok=True)

    def images(self) -> list[StoredImage]:
        """The AMIs whose disks exist, oldest first."""
        found = [StoredImage(**json.loads(path.read_text())) for path in self.directory.glob("ami-*.json")]
        whole = [image for image in found if all(self.disk(one).exists() for one in image.snapshots)]
        return sorted(whole, key=lambda image: image.created)

    def snapshots(self) -> list[StoredSnapshot]:
        """The snapshots whose disk exists, oldest first."""
        found = [
            StoredSnapshot(**json.loads(path.read_text())) for path in self.directory.glob("snap-*.json")
        ]
        return sorted((s for s in found if self.disk(s.id).exists()), key=lambda snapshot: snapshot.created)

    def prune(self, say: Callable[[str], None], kept: int = KEPT) -> None:
        """Keep the newest AMIs; remove older ones and incomplete files that a crash left."""
        images = self.images()
        shared = {snapshot for image in images[-kept:] for snapshot in image.snapshots}
        for image in images[:-kept]:
            say(f"removing the local AMI {image.id} ({image.name}): only the newest {kept} are kept")
            for identity in (image.id, *image.snapshots):
                if identity not in shared:
                    self.forget(identity)
        whole = {image.id for image in self.images()} | {snapshot.id for snapshot in self.snapshots()}
        for path in self.directory.iterdir():
            if path.name.split(".")[0] not in whole:
                path.unlink()
