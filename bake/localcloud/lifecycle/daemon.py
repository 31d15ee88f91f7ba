"""The process of a local cloud: it runs servers and machines until the cloud has no owner any more."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from bake import redaction
from bake.errors import BakeError
from bake.localcloud.api.access import keys
from bake.localcloud.images.base import package_servers
from bake.localcloud.lifecycle.owners import Owners
from bake.localcloud.lifecycle.prepared import Prepared
from bake.localcloud.machines.cgroups import Cgroups
from bake.localcloud.machines.nspawn import uuids
from bake.localcloud.network import bridge
from bake.localcloud.settings import Settings

log = logging.getLogger("localcloud")

# moto reads these on import.
MOTO = {
    "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
    "MOTO_ENABLE_AMI_VALIDATION": "1",
    "MOTO_ENABLE_KEYPAIR_VALIDATION": "1",
    "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "1",
    "MOTO_DISABLE_GLOBAL_CORS": "1",
}


class Redacted(logging.Formatter):
    """Formats log lines and tracebacks without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return redaction.redact(super().format(record))


def main() -> int:
    """Run a local cloud until a signal to end, or until its owners have ended."""
    settings = Settings.load()
    handler = logging.StreamHandler()
    handler.setFormatter(Redacted("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("botocore").setLevel(logging.WARNING)
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: done.set())
    owner, saved = (*sys.argv[1:], "", "")[:2]
    try:
        _run(settings, int(owner) if owner else None, Path(saved) if saved else None, done)
    except BakeError as error:
        log.error("%s", error.message)
        _write(settings.state / "failure.json", {"message": error.message, "hint": error.hint})
        return 1
    return 0


def _run(settings: Settings, owner: int | None, saved: Path | None, done: threading.Event) -> None:
    owners = Owners(done)
    if owner is None:
        owners.keep()
    else:
        owners.add(owner)
    prepared = Prepared.load(settings.state / "prepared.json")
    with bridge.claim(settings):
        _live(settings, prepared, owners, saved, done)
    log.info("the local cloud is down")


def _live(
    settings: Settings, prepared: Prepared, owners: Owners, saved: Path | None, done: threading.Event
) -> None:
    try:
        bridge.up(settings, package_servers())
        os.environ.update(MOTO)
        from bake.localcloud.lifecycle import servers  # and with it moto

        about, stop = servers.start(settings, prepared, owners, saved)
        try:
            _write(settings.state / "cloud.json", about)
            delays = "none" if settings.lenient else f"those of seed {settings.seed}"
            log.info("the local cloud is up at %s; the API's delays: %s", settings.endpoint, delays)
            done.wait()
        finally:
            stop()
    finally:
        (settings.state / "cloud.json").unlink(missing_ok=True)
        settings.control.unlink(missing_ok=True)
        keys.remove(settings.state)
        Cgroups(settings).remove()
        shutil.rmtree(uuids(settings), ignore_errors=True)
        bridge.down(settings)


def _write(path: Path, content: Any) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2))
    partial.replace(path)


if __name__ == "__main__":
    code = main()
    # Do not wait for threads that block in moto or in a server.
    logging.shutdown()
    os._exit(code)
