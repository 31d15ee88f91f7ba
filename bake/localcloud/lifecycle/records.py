"""Save AWS's records and machines' disks of a running local cloud, and start a cloud from them."""

from __future__ import annotations

import pickle
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from moto.backends import get_backend
from moto.core.base_backend import BackendDict

from bake.errors import UsageError
from bake.localcloud.api import pickling
from bake.localcloud.api.auto_scaling import LocalAutoScaling
from bake.localcloud.api.clock import CloudClock
from bake.localcloud.api.ec2 import LocalEc2
from bake.localcloud.api.instances import LocalInstances
from bake.localcloud.api.parameter_store import ParameterStore
from bake.localcloud.api.s3 import LocalS3
from bake.localcloud.api.scheduler import LocalScheduler
from bake.localcloud.images.store import ImageStore
from bake.localcloud.lifecycle.saved import DISKS, IMAGES, NETWORK, RECORDS, link_images
from bake.localcloud.machines import disks

SETTLED = ("running", "stopped", "terminated")
PATIENCE = 60.0  # seconds until instances and copies of disks have settled

for _class in (LocalAutoScaling, LocalEc2, LocalS3, LocalScheduler, ParameterStore):
    pickling.ours(_class)


def save(
    folder: Path,
    instances: LocalInstances,
    store: ImageStore,
    clock: CloudClock,
    environment: Mapping[str, str],
) -> None:
    """Write the cloud to a new folder; `environment` is what profiles refer to.

    UsageError while an instance or an image changes its state. Running machines stand still meanwhile.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists already", hint="name a new folder")
    _settle(instances)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)  # disks hold what nobody but root may read
    (partial / DISKS).mkdir()
    living = [one for one in instances.all() if one.state != "terminated"]
    with ExitStack() as stack:
        for one in living:
            if one.state == "running":
                stack.enter_context(disks.frozen(one.machine.root))
        for one in living:
            if one.machine.disk.exists():  # a root volume can be detached
                disks.clone(one.machine.disk, partial / DISKS / f"{one.moto.id}.img")
        for backend in _of_ec2():
            backend.save_volumes(partial / DISKS)
        records = {
            "environment": environment,
            "ahead": clock.ahead,
            "subnet": LocalEc2.subnet_default,
            "backends": _backends(),
        }
        (partial / RECORDS).write_bytes(pickling.dumps(records))
    link_images(store.directory, partial / IMAGES)
    (partial / NETWORK).write_text(str(instances.settings.network), encoding="utf-8")
    partial.rename(folder)


def _settle(instances: LocalInstances) -> None:
    """Wait until no instance and no image is between two states."""
    deadline = time.monotonic() + PATIENCE
    while changing := _changing(instances):
        if time.monotonic() > deadline:
            raise UsageError(f"the cloud can't be saved while these change: {', '.join(changing)}")
        time.sleep(0.05)


def _changing(instances: LocalInstances) -> list[str]:
    found = [one.moto.id for one in instances.all() if one.state not in SETTLED]
    for backend in _of_ec2():
        found += [one.id for one in list(backend.amis.values()) if one.state == "pending"]
        found += [one.id for one in list(backend.snapshots.values()) if one.status == "pending"]
        found += [one.id for one in list(backend.volumes.values()) if one.status == "creating"]
    return [str(one) for one in found]


def _of_ec2() -> list[LocalEc2]:
    """The backends of EC2, one a region."""
    return [backend for _, backend in _backends() if isinstance(backend, LocalEc2)]


def _backends() -> list[tuple[tuple[str, str, str], Any]]:
    """Each backend of moto that was used, with its service, account and region."""
    return [
        ((services.service_name, account, region), backend)
        for services in list(BackendDict._instances)
        for account, region, backend in services.iter_backends()
    ]


def _skip_reserved_addresses(backend: LocalEc2) -> None:
    """Go on after a subnet's first addresses, which are AWS's: moto keeps the next one in no record."""
    for zone in backend.subnets.values():
        for subnet in zone.values():
            for _ in subnet.aws_reserved_ips:
                next(subnet._subnet_ip_generator)


def restore(folder: Path, instances: LocalInstances, store: ImageStore, clock: CloudClock) -> dict[str, str]:
    """Make this cloud, which nothing has used yet, a copy of a saved one; return what profiles refer to."""
    link_images(folder / IMAGES, store.directory)
    records = pickle.loads((folder / RECORDS).read_bytes())  # noqa: S301 - root's own file
    for (service, account, region), backend in records["backends"]:
        dict.__setitem__(get_backend(service)[account], region, backend)
    LocalEc2.subnet_default = records["subnet"]
    if records["ahead"]:
        clock.advance(records["ahead"])
    for _, backend in records["backends"]:
        if isinstance(backend, LocalEc2):
            _skip_reserved_addresses(backend)
            backend.forget_notices()
            backend.restore_volumes(folder / DISKS)
            for reservation in backend.reservations.values():
                for moto in reservation.instances:
                    local = instances.add(moto)
                    backend.relaunch_after(local)
                    backend.plug_all(local)
                    local.resume(folder / DISKS / f"{moto.id}.img")
    for _, backend in records["backends"]:
        if isinstance(backend, LocalScheduler):
            backend.take_up()
    environment: dict[str, str] = records["environment"]
    return environment
