"""A local cloud's API whose machines are records: they start, stop and end at once, and need no root.

Run as a program it serves on 127.0.0.1, and prints a line of JSON about itself. It is a process of its own,
since it changes moto for good.
"""

from __future__ import annotations

import ipaddress
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends

from bake.localcloud.api import auto_scaling, clock, ec2, lazy_disks, lifecycle_states, parameter_store, s3
from bake.localcloud.api.access import backends
from bake.localcloud.api.access.keys import Keys
from bake.localcloud.api.clock import CloudClock
from bake.localcloud.api.endpoint import Api
from bake.localcloud.api.faults.faults import AwsFaults
from bake.localcloud.api.instances import LocalInstance, LocalInstances
from bake.localcloud.api.security_groups import Groups
from bake.localcloud.images.bases import BaseAmi
from bake.localcloud.images.store import ImageStore
from bake.localcloud.lifecycle import fixtures
from bake.localcloud.lifecycle.known_images import register
from bake.localcloud.network.control import Control, Routes
from bake.localcloud.network.server import serve
from bake.localcloud.settings import ACCOUNT, SPOT_REGION, Settings

BASE, OTHER = "ami-0123456789abcdef0", "ami-0123456789abcdef1"


class Recorded:
    """In place of a Machine: it is on until it is told to be off."""

    def __init__(self, machine: Any) -> None:
        self.hardware, self.directory, self.disk, self.root = (
            machine.hardware, machine.directory, machine.disk, machine.root,
        )  # fmt: skip
        self.volumes, self.lazy = machine.volumes, machine.lazy
        self._off = threading.Event()
        self._again = False

    def start(self) -> None:
        self._off.clear()

    def wait(self) -> bool:
        self._off.wait()
        again, self._again = self._again, False
        return again

    def poweroff(self) -> None:
        self._off.set()

    kill = poweroff

    def reboot(self) -> None:
        self._again = True
        self._off.set()

    def unplug(self) -> None:
        pass

    def answers(self) -> bool:
        return True

    def console_text(self) -> str:
        return "a console"


class RecordedInstance(LocalInstance):
    def launch(self, disk: Path, gib: int, prepare: Any, more: Any = None) -> None:
        self.machine.directory.mkdir(parents=True, exist_ok=True)
        self.machine.disk.write_bytes(b"disk")
        self._state("pending")
        self._spawn(self._follow)


class RecordedInstances(LocalInstances):
    def add(self, moto: Any, rate: int | None = None) -> LocalInstance:
        real = super().add(moto, rate)
        machine: Any = Recorded(real.machine)
        instance = RecordedInstance(moto, machine)
        self._instances[moto.id] = instance
        return instance


def serve_routes(address: str, routes: Routes) -> str:
    """Serve control routes over HTTP; their URL."""
    server = serve(address, 0, Control(routes), "control")
    return f"http://{address}:{server.server_port}"


def start(folder: Path) -> dict[str, Any]:
    """Serve; return the URL, the owner's keys, and what the account has."""
    settings = Settings(folder / "cache", folder, ipaddress.IPv4Network("10.99.0.0/24"))
    instances, store = RecordedInstances(settings), ImageStore(settings.images)
    keys = Keys(lives=lambda name: name in instances)
    time = CloudClock()
    clock.install(time)
    ec2.install(instances, store, time)
    parameter_store.install()
    s3.install()
    auto_scaling.install()
    backends.install()
    region = ec2_backends[ACCOUNT][SPOT_REGION]
    subnet, _, group = fixtures._network(region, settings)
    fixtures._profile(iam_backends[ACCOUNT]["aws"])
    disk = folder / "base.img"
    disk.write_bytes(b"base")
    register(
        region, [BaseAmi("", one, f"Base {one}", "A base", disk, "ubuntu", gib=8) for one in (BASE, OTHER)]
    )
    api = Api(instances, Groups(instances, apply=lambda openings: None), AwsFaults(), keys)
    server = serve("127.0.0.1", 0, api, "AWS")
    routes = {**lifecycle_states.routes(), **lazy_disks.routes(instances, api.pacer)}
    control = serve_routes("127.0.0.1", routes)
    return {
        "control": control,
        "url": f"http://127.0.0.1:{server.server_port}",
        "key": keys.owner.id,
        "secret": keys.owner.secret,
        "subnet": subnet,
        "group": group,
    }


if __name__ == "__main__":
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
    print(json.dumps(start(Path(sys.argv[1]))), flush=True)
    sys.stdin.read()
