"""What a cloud knows from its start: its base AMIs, and the AMIs and snapshots that are on disk."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime

from moto.ec2.models.elastic_block_store import Volume

from bake.localcloud.api.ec2 import LocalEc2
from bake.localcloud.api.images import LocalAmi, LocalSnapshot
from bake.localcloud.images.bases import StandIn
from bake.localcloud.images.hostile.catalogue import Hostile
from bake.localcloud.images.store import StoredImage, StoredSnapshot


def register(ec2: LocalEc2, bases: Iterable[StandIn]) -> None:
    """Let a region's EC2 describe them."""
    for stored in ec2.store.snapshots():
        _snapshot(ec2, stored)
    for image in ec2.store.images():
        if image.snapshot_id in ec2.snapshots:
            ec2.amis[image.id] = LocalAmi.restored(ec2, ec2.snapshots[image.snapshot_id], image)
    for stand_in in bases:
        ec2.amis[stand_in.id] = _base(ec2, stand_in)


def _snapshot(ec2: LocalEc2, stored: StoredSnapshot) -> LocalSnapshot:
    volume = Volume(
        ec2, stored.volume_id, stored.gib, None, None, stored.kms_key is not None, stored.kms_key,
        volume_type="gp3", iops=3000, throughput=125,
    )  # fmt: skip
    snapshot = LocalSnapshot(ec2, volume, description=stored.description, identity=stored.id)
    snapshot.start_time = datetime.fromisoformat(stored.created)
    ec2.snapshots[stored.id] = snapshot
    snapshot.add_tags(stored.tags)
    return snapshot


def _base(ec2: LocalEc2, stand_in: StandIn) -> LocalAmi:
    key = stand_in.id.removeprefix("ami-")
    # The disk may be built later, when its profile is asked for.
    when = stand_in.disk.stat().st_mtime if stand_in.disk.exists() else time.time()
    made = datetime.fromtimestamp(when, UTC).replace(tzinfo=None).isoformat()
    hostile = stand_in.planted.hostile if stand_in.planted else Hostile("", "")
    kms_key = ec2._create_default_encryption_key() if hostile.encrypted else None
    what = stand_in.description
    snapshot = _snapshot(
        ec2, StoredSnapshot(f"snap-{key}", f"vol-{key}", stand_in.gib, what, made, kms_key=kms_key)
    )
    snapshot.disk, snapshot.planted, snapshot.hidden = stand_in.disk, stand_in.planted, hostile.hidden
    stored = StoredImage(
        stand_in.id, stand_in.name, what, made, snapshot.id, "gp3", 3000, 125,
        tags=stand_in.tags, root_device=hostile.root_device, more_mappings=list(hostile.mappings),
    )  # fmt: skip
    amazon = stand_in.planted is None or stand_in.planted.owner == "amazon"
    return LocalAmi.restored(ec2, snapshot, stored, amazon=amazon)
