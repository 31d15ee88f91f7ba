"""The process behind a local cloud: servers, machines, and the end of it all when nobody owns it any more."""

from __future__ import annotations

import json
import logging
import os
import select
import shutil
import signal
import sys
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bake.errors import BakeError
from bake.localcloud import network
from bake.localcloud.machines.nspawn import cgroup_of, remove_cgroup, uuids
from bake.localcloud.prepared import Prepared
from bake.localcloud.settings import (
    API_PORT,
    HUB_PORT,
    IMDS_PORT,
    SPOT_REGION,
    WHEELS_PORT,
    Settings,
)

log = logging.getLogger("bake.localcloud")

# moto reads these when it is imported.
MOTO = {
    "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
    "MOTO_ENABLE_AMI_VALIDATION": "1",
    "MOTO_ENABLE_KEYPAIR_VALIDATION": "1",
    "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "1",
    "MOTO_DISABLE_GLOBAL_CORS": "1",
}


class Owners:
    """Processes that want the cloud. When there were some and all are gone, nobody does."""

    def __init__(self, done: threading.Event) -> None:
        self._done = done
        self._lock = threading.Lock()
        self._pids: set[int] = set()
        self.kept = False

    def keep(self) -> None:
        """The cloud was asked for by hand: it stays until it is taken down by hand."""
        self.kept = True

    def add(self, pid: int) -> None:
        """Raise ProcessLookupError if the process is gone already."""
        handle = os.pidfd_open(pid)
        with self._lock:
            self._pids.add(pid)
        threading.Thread(target=self._watch, args=(pid, handle), daemon=True).start()

    def release(self, pid: int) -> bool:
        """Forget an owner; True when the cloud goes down for it."""
        with self._lock:
            known = pid in self._pids
            self._pids.discard(pid)
            last = known and not self._pids and not self.kept
        if last:
            self._done.set()
        return last

    def _watch(self, pid: int, handle: int) -> None:
        select.select([handle], [], [])
        os.close(handle)
        if self.release(pid):
            log.info("the owner %d is gone", pid)


def main() -> int:
    """Run a local cloud until SIGTERM or SIGINT, or until its owners are gone."""
    settings = Settings.load()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: done.set())
    owner = int(sys.argv[1]) if len(sys.argv) > 1 else None
    try:
        _run(settings, owner, done)
    except BakeError as error:
        log.error("%s", error.message)
        _write(settings.state / "failure.json", {"message": error.message, "hint": error.hint})
        return 1
    return 0


def _run(settings: Settings, owner: int | None, done: threading.Event) -> None:
    owners = Owners(done)
    if owner is None:
        owners.keep()
    else:
        owners.add(owner)
    prepared = Prepared.load(settings.state / "prepared.json")
    with network.claim(settings):
        _live(settings, prepared, owners, done)
    log.info("the local cloud is down")


def _live(settings: Settings, prepared: Prepared, owners: Owners, done: threading.Event) -> None:
    try:
        network.up(settings)
        stop = _serve(settings, prepared, owners)
        try:
            log.info("the local cloud is up at %s", settings.endpoint)
            done.wait()
        finally:
            stop()
    finally:
        (settings.state / "cloud.json").unlink(missing_ok=True)
        remove_cgroup(cgroup_of(settings))
        shutil.rmtree(uuids(settings), ignore_errors=True)
        network.down(settings)


def _serve(settings: Settings, prepared: Prepared, owners: Owners) -> Any:
    """Start everything, announce it in cloud.json, and return what stops the machines."""
    os.environ.update(MOTO)
    # moto is imported by these, after its settings.
    from moto.ec2.models import ec2_backends

    from bake.localcloud import ec2, world
    from bake.localcloud.api import Api
    from bake.localcloud.guests import Guests
    from bake.localcloud.hub import Hub
    from bake.localcloud.images import ImageStore
    from bake.localcloud.imds import Imds, Metadata
    from bake.localcloud.index import WheelIndex
    from bake.localcloud.metadata import metadata_of
    from bake.localcloud.server import serve
    from bake.localcloud.state import report

    guests, store = Guests(settings), ImageStore(settings.images)
    ec2.install(guests, store)
    about: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(),
    }

    def metadata(address: str) -> Metadata | None:
        guest = guests.at(address)
        return metadata_of(guest.instance) if guest else None

    def own(request: Any) -> Any:
        owners.add(int(request.args["pid"]))
        return {}

    def keep(request: Any) -> Any:
        owners.keep()
        return {}

    routes = {
        ("GET", "/-/health"): lambda request: about,
        ("GET", "/-/status"): lambda request: report(settings, about, guests, store),
        ("POST", "/-/owners"): own,
        ("DELETE", "/-/owners"): lambda request: {"last": owners.release(int(request.args["pid"]))},
        ("POST", "/-/keep"): keep,
    }
    serve(settings.address, IMDS_PORT, Imds(metadata), "instance metadata")
    serve(settings.address, HUB_PORT, Hub(Path(prepared.hub), prepared.token), "the Hub")
    serve(settings.address, WHEELS_PORT, WheelIndex(Path(prepared.wheel_files)), "the wheel index")
    serve(settings.address, API_PORT, Api(guests, routes), "the API")
    about["environment"] = world.create(settings, prepared)
    ec2_backends[world.ACCOUNT][SPOT_REGION].load(prepared.base)
    about["ready"] = True
    _write(settings.state / "cloud.json", about)
    return guests.terminate_all


def _write(path: Path, content: Any) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2))
    partial.replace(path)


if __name__ == "__main__":
    code = main()
    # Threads that wait in moto or in a server must not hold the process back.
    logging.shutdown()
    os._exit(code)
