"""The images that a cloud starts with: its base AMIs, and the AMIs and snapshots on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from moto.ec2.models.elastic_block_store import Volume

from bake.localcloud.api.ec2 import LocalEc2
from bake.localcloud.api.images import LocalAmi, LocalSnapshot
from bake.localcloud.api.snapshot_calls import region_of
from bake.localcloud.images.bases import BaseAmi
from bake.localcloud.images.hostile.catalogue import Hostile
from bake.localcloud.images.store import ImageStore, StoredImage, StoredSnapshot
from bake.localcloud.settings import SPOT_REGION


def register(ec2: LocalEc2, bases: Iterable[BaseAmi]) -> None:
    """Add the images on disk to their regions' EC2, and `bases` to that of the machines, `ec2`."""
    restore(ec2.store, lambda region: region_of(ec2, region))
    for base in bases:
        ec2.amis[base.id] = _base(ec2, base)


def restore(store: ImageStore, region: Callable[[str], LocalEc2]) -> None:
    """Add the images and snapshots on disk to their regions' EC2."""
    for stored in store.snapshots():
        _snapshot(region(stored.region or SPOT_REGION), stored)
    for image in store.images():
        ec2 = region(image.region or SPOT_REGION)
        if image.snapshot_id in ec2.snapshots:
            ec2.amis[image.id] = LocalAmi.restored(ec2, ec2.snapshots[image.snapshot_id], image)


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


def _base(ec2: LocalEc2, base: BaseAmi) -> LocalAmi:
    key = base.id.removeprefix("ami-")
    # The disk may not be built yet: `provide` builds it when a profile needs it.
    when = base.disk.stat().st_mtime if base.disk.exists() else time.time()
    made = datetime.fromtimestamp(when, UTC).replace(tzinfo=None).isoformat()
    hostile = base.hostile_base.hostile if base.hostile_base else Hostile("", "")
    kms_key = ec2._create_default_encryption_key() if hostile.encrypted else None
    what = base.description
    snapshot = _snapshot(
        ec2, StoredSnapshot(f"snap-{key}", f"vol-{key}", base.gib, what, made, kms_key=kms_key)
    )
    snapshot.disk, snapshot.hostile_base, snapshot.hidden = base.disk, base.hostile_base, hostile.hidden
    stored = StoredImage(
        base.id, base.name, what, made, snapshot.id, "gp3", 3000, 125,
        tags=base.tags, root_device=hostile.root_device, more_mappings=list(hostile.mappings),
    )  # fmt: skip
    amazon = base.hostile_base is None or base.hostile_base.owner == "amazon"
    return LocalAmi.restored(ec2, snapshot, stored, amazon=amazon)
