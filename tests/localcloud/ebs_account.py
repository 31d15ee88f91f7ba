"""The local cloud's EC2 without machines: instances are records, and their disks small sparse files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from botocore.exceptions import ClientError
from moto.autoscaling.models import autoscaling_backends
from moto.autoscaling.responses import AutoScalingResponse
from moto.ec2.models import ec2_backends
from moto.ec2.responses import EC2Response
from moto.ec2.responses._base_response import EC2BaseResponse
from moto.ec2.responses.instances import InstanceResponse
from moto.kms.models import kms_backends

from bake.localcloud.api import auto_scaling, ec2, parameter_store
from bake.localcloud.api.access.keys import Keys
from bake.localcloud.api.clock import CloudClock
from bake.localcloud.api.endpoint import Api
from bake.localcloud.api.faults.faults import AwsFaults
from bake.localcloud.api.images import LocalAmi, LocalSnapshot
from bake.localcloud.api.instances import CODES, LocalInstance, LocalInstances
from bake.localcloud.api.security_groups import Groups
from bake.localcloud.api.volume_records import LocalVolume
from bake.localcloud.images.store import ImageStore
from bake.localcloud.lifecycle import fixtures
from bake.localcloud.network.server import serve
from bake.localcloud.settings import ACCOUNT, SPOT_REGION, Settings
from tests.localcloud import calling

ELSEWHERE = "eu-west-1"
PATIENCE = 60.0
BASE = "ami-00000000000000001"


@dataclass
class EbsAccount:
    """The account behind the API; `client` is EC2's in the region of the machines."""

    url: str
    keys: Keys
    store: ImageStore
    instances: LocalInstances
    faults: AwsFaults

    def of(self, service: str = "ec2", region: str = SPOT_REGION) -> Any:
        return calling.client(service, self.url, region, self.keys.owner.id, self.keys.owner.secret)

    def call(self, operation: str, region: str = SPOT_REGION, **parameters: Any) -> Any:
        return getattr(self.of(region=region), operation)(**parameters)

    def refused(self, operation: str, region: str = SPOT_REGION, **parameters: Any) -> tuple[str, str]:
        """The code and message of a call that must be refused as a user's mistake, not with HTTP 500."""
        with pytest.raises(ClientError) as caught:
            self.call(operation, region, **parameters)
        answer: Any = caught.value.response
        assert answer["ResponseMetadata"]["HTTPStatusCode"] in {400, 401}, answer
        return answer["Error"]["Code"], answer["Error"]["Message"]

    def launch(self, image: str = BASE, **changes: Any) -> str:
        kind = {"InstanceType": "g6e.xlarge", "MinCount": 1, "MaxCount": 1, **changes}
        [instance] = self.call("run_instances", ImageId=image, **kind)["Instances"]
        return str(instance["InstanceId"])

    def mapped(self, instance: str) -> dict[str, Any]:
        """An instance's volumes by device, as DescribeVolumes has them."""
        filters = [{"Name": "attachment.instance-id", "Values": [instance]}]
        found = self.call("describe_volumes", Filters=filters)["Volumes"]
        return {volume["Attachments"][0]["Device"]: volume for volume in found}

    def volume(self, **parameters: Any) -> str:
        """CreateVolume, and wait until it is available."""
        zone = {"AvailabilityZone": f"{SPOT_REGION}b", **parameters}
        made = str(self.call("create_volume", **zone)["VolumeId"])
        self.wait(lambda: self.described("volume", made)["State"] == "available")
        return made

    def snapshot(self, volume: str, region: str = SPOT_REGION, **parameters: Any) -> str:
        """CreateSnapshot, and wait until it is completed."""
        made = str(self.call("create_snapshot", region, VolumeId=volume, **parameters)["SnapshotId"])
        return self.completed(made, region)

    def completed(self, snapshot: str, region: str = SPOT_REGION) -> str:
        self.wait(lambda: self.described("snapshot", snapshot, region)["State"] == "completed")
        return snapshot

    def available(self, image: str, region: str = SPOT_REGION) -> dict[str, Any]:
        """Wait for an image, and return what DescribeImages says of it."""
        self.wait(lambda: self.described("image", image, region)["State"] == "available")
        return self.described("image", image, region)

    def described(self, kind: str, identity: str, region: str = SPOT_REGION) -> dict[str, Any]:
        named: Any = {f"{kind[:1].upper()}{kind[1:]}Ids": [identity]}
        answer = self.call(f"describe_{kind}s", region, **named)
        [found] = answer[f"{kind[:1].upper()}{kind[1:]}s"]
        return dict(found)

    def key(self, region: str = SPOT_REGION) -> str:
        return str(self.of("kms", region).create_key()["KeyMetadata"]["Arn"])

    def reset(self) -> None:
        """End encryption by default, and remove all images but the base."""
        for region in (SPOT_REGION, ELSEWHERE):
            self.call("disable_ebs_encryption_by_default", region)
            self.call("reset_ebs_default_kms_key_id", region)
            for image in self.call("describe_images", region, IncludeDisabled=True)["Images"]:
                if image["ImageId"] != BASE:
                    self.call("deregister_image", region, ImageId=image["ImageId"])

    def file(self, volume: str) -> Path:
        return self.instances.volumes.path(volume)

    @staticmethod
    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def fake_launch(self: LocalInstance, disk: Path, gib: int, prepare: Any, more: Any = lambda: None) -> None:
    """Make the disks of an instance, and let it run without a machine."""
    self.machine.directory.mkdir(parents=True)
    self.machine.disk.touch()
    os.truncate(self.machine.disk, gib << 30)
    more()
    self._state("running")


def fake_stop(self: LocalInstance, reason: str = "") -> None:
    self.moto._state.name, self.moto._state.code = "stopped", CODES["stopped"]


def base_image(backend: Any, store: ImageStore) -> LocalAmi:
    """An AMI of 2 GiB, with a disk."""
    volume = LocalVolume(backend, "vol-00000000000000001", 2, None, None, False, None, "gp3", 3000, 125)
    snapshot = LocalSnapshot(backend, volume, description="", identity="snap-00000000000000001")
    backend.snapshots[snapshot.id] = snapshot
    store.disk(snapshot.id).touch()
    os.truncate(store.disk(snapshot.id), 2 << 30)
    image = LocalAmi(backend, snapshot, name="base", description="", identity=BASE)
    backend.amis[image.id] = image
    return image


@contextmanager
def ebs_account(folder: Path) -> Iterator[EbsAccount]:
    """Serve it; moto's class of EC2 is its own again afterwards."""
    settings = Settings.load({"BAKE_LOCAL_STATE": str(folder), "BAKE_CACHE": str(folder / "cache")})
    instances, store = LocalInstances(settings), ImageStore(folder / "images")
    keys = Keys(lives=lambda name: name in instances)
    layer = {name: value for name, value in vars(EC2Response).items() if not name.startswith("__")}
    scaling = dict(vars(AutoScalingResponse))
    validate = InstanceResponse.__dict__["_validate_block_device_mapping"]
    handle = InstanceResponse.__dict__["_attribute_value_handler"]
    mapped = InstanceResponse.__dict__["_block_device_mapping_handler"]
    with (
        mock.patch.object(LocalInstance, "launch", fake_launch),
        mock.patch.object(LocalInstance, "stop", fake_stop),
        # Which `install` wraps: of two, each would cut the answer to a page.
        mock.patch.object(EC2BaseResponse, "serialized", EC2BaseResponse.serialized),
        mock.patch.dict(os.environ, {"MOTO_EC2_LOAD_DEFAULT_AMIS": "false"}),
    ):
        # moto's own `reset` would empty all services, of which other tests have something.
        services = (ec2_backends, kms_backends, autoscaling_backends)  # groups keep to their EC2
        before, of_moto = [dict.pop(one, ACCOUNT, None) for one in services], ec2_backends.backend
        groups_of_moto = autoscaling_backends.backend
        ec2.install(instances, store, CloudClock())
        parameter_store.install()
        auto_scaling.install()
        backend = ec2_backends[ACCOUNT][SPOT_REGION]
        fixtures._network(backend, settings)
        base_image(backend, store)
        groups = Groups(instances, apply=lambda openings: None)
        faults = AwsFaults()
        server = serve("127.0.0.1", 0, Api(instances, groups, faults, keys), "AWS")
        try:
            yield EbsAccount(f"http://127.0.0.1:{server.server_port}", keys, store, instances, faults)
        finally:
            server.shutdown()
            ec2_backends.backend, autoscaling_backends.backend = of_moto, groups_of_moto
            _restore(AutoScalingResponse, scaling)
            for service, held in zip(services, before, strict=True):
                dict.pop(service, ACCOUNT, None)
                if held is not None:
                    service[ACCOUNT] = held
            for name in [one for one in vars(EC2Response) if not one.startswith("__") and one not in layer]:
                delattr(EC2Response, name)
            InstanceResponse._validate_block_device_mapping = validate
            InstanceResponse._attribute_value_handler = handle
            InstanceResponse._block_device_mapping_handler = mapped


def _restore(cls: type, before: dict[str, Any]) -> None:
    """Give a class the methods that it had."""
    for name in [one for one in vars(cls) if not one.startswith("__")]:
        if name not in before:
            delattr(cls, name)
        elif vars(cls)[name] is not before[name]:
            setattr(cls, name, before[name])


def copied(account: EbsAccount, region: str = SPOT_REGION, **changes: Any) -> str:
    """CopyImage of the base."""
    asked = {"Name": "a copy", "SourceImageId": BASE, "SourceRegion": SPOT_REGION, **changes}
    return str(account.call("copy_image", region, **asked)["ImageId"])


def snapshot_of(image: dict[str, Any]) -> str:
    return str(image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"])
