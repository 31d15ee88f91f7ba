"""One local cloud of the suite, on its own network, which comes up as a copy of a fork for each cell."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bake.aws import Aws
from bake.localcloud import LocalCloud, RemoteFaults, Settings, down, over_socket, up

from ..bakes import SPOT, called, with_spot
from .held import AT

PROFILE = "g6e-ubuntu"
PROFILES = {"on-demand": PROFILE, "spot": SPOT}
# A good AMI of another bake, which must outlive whatever happens.
BYSTANDER = "ami-0c0ffee0c0ffee000"


class Controller:
    """A `bake` command with --json, its events as they come; `held` is the step at which it stands still."""

    def __init__(self, desk: Path, *words: str, profiles: Path | None = None, held: str = "") -> None:
        self.events: list[dict[str, Any]] = []
        self.errors = ""
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue()
        # In a group of its own, and with the signals as a user's shell leaves them.
        module = {"module": "tests.rehearsal.chaos.held", "environment": {AT: held}} if held else {}
        self.process = called(desk, *words, profiles=profiles, start_new_session=True, **module)
        self._readers = [
            threading.Thread(target=work, daemon=True) for work in (self._read, self._read_errors)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        with suppress(ValueError, OSError):  # closed, by `close_pipes`
            for line in self.process.stdout or ():
                with suppress(ValueError):  # killed within a line
                    self._queue.put(json.loads(line))
        self._queue.put(None)

    def _read_errors(self) -> None:
        with suppress(ValueError, OSError):
            for line in self.process.stderr or ():
                self.errors += line

    def until(self, step: str, timeout: float = 900) -> bool:
        """Wait for a step to begin; False if the command ends before. An empty step is any that follows."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with suppress(queue.Empty):
                event = self._queue.get(timeout=1)
                if event is None:
                    self._queue.put(None)
                    return False
                self.events.append(event)
                if event["event"] == "step_started" and step in ("", event["step"]):
                    return True
        raise TimeoutError(f"{step or 'the next step'} did not begin within {timeout:.0f} s")

    @property
    def run(self) -> str:
        """The run's id; empty before it is told."""
        return next((str(event["id"]) for event in self.events if event["event"] == "run"), "")

    def hold(self) -> None:
        """Wait until it stands still at the step that `until` has seen, or has ended."""
        with suppress(ChildProcessError):  # ended, and known to be
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close_pipes(self) -> None:
        """Close the reading ends; the readers notice at once."""
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                nothing = os.open(os.devnull, os.O_RDONLY)
                os.dup2(nothing, stream.fileno())
                os.close(nothing)

    def end(self, timeout: float = 900) -> int:
        """Wait for the command's end; TimeoutError after `timeout` seconds, when it is killed."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise TimeoutError(f"the command went on for more than {timeout:.0f} s") from None
        for reader in self._readers:
            reader.join(10)
        while (event := self._taken()) is not None:
            self.events.append(event)
        return code

    def _taken(self) -> dict[str, Any] | None:
        with suppress(queue.Empty):
            return self._queue.get_nowait()
        return None


@dataclass
class Lane:
    """The cloud of this process's settings, with all its files in `place`."""

    place: Path
    cloud: LocalCloud | None = None
    faults: RemoteFaults = field(init=False)
    _aws: Aws | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.settings = Settings.load()
        self.faults = RemoteFaults(over_socket(self.settings))

    @property
    def desk(self) -> Path:
        """Where the bake is called, with its runs."""
        return self.place / "desk"

    @property
    def forks(self) -> Path:
        return self.place / "forks"

    def bake(self, *words: str, held: str = "") -> Controller:
        """Start a command on the desk, with the project's profiles and the one of a spot builder."""
        profiles = self.place / "profiles"
        profiles = profiles if profiles.exists() else with_spot(profiles)
        return Controller(self.desk, *words, profiles=profiles, held=held)

    def start(self, saved: Path | None = None) -> None:
        """Bring a cloud up as a copy of a saved one, with the desk that was saved with it."""
        self.stop()
        while self.desk.is_mount():  # a suite was killed
            subprocess.run(["umount", str(self.desk)], check=True)
        shutil.rmtree(self.settings.images, ignore_errors=True)
        shutil.rmtree(self.desk, ignore_errors=True)
        if saved is None:
            self.desk.mkdir(parents=True)
            _plant_bystander(self.settings.images)
        else:
            shutil.copytree(saved / "desk", self.desk)
        self.cloud = up(owner_pid=os.getpid(), saved=saved)

    def stop(self) -> None:
        """Take it down, with all its machines."""
        self.cloud = self._aws = None
        down()

    def control(self, method: str, path: str, content: str | None = None) -> Any:
        return over_socket(self.settings)(method, path, content and content.encode())

    def failures(self) -> list[str]:
        """What the last cloud logged as its own errors."""
        log = (self.settings.state / "daemon.log").read_text(encoding="utf-8", errors="replace")
        return [f"the local cloud: {part[:4000]}" for part in log.split(" ERROR ")[1:3]]

    @property
    def aws(self) -> Aws:
        """Clients of the cloud that is up."""
        assert self.cloud is not None
        if self._aws is None:
            found = self.cloud.environment
            self._aws = Aws(
                region=found["SPOT_AWS_REGION"],
                worker_region=found["AWS_REGION"],
                endpoint=self.cloud.endpoint,
                endpoint_key=self.cloud.keys,
            )
        return self._aws

    @contextmanager
    def without(self, rules: str) -> Iterator[None]:
        """Packets of this host that match one of the rules of nftables don't get through, for the block."""
        table = f"chaos_{self.settings.tag}"
        chain = "type filter hook output priority -10; policy accept;"
        _nft(f"table ip {table} {{\n chain output {{\n {chain}\n {rules}\n }}\n}}\n")
        try:
            yield
        finally:
            _nft(f"delete table ip {table}")

    def machines(self, *states: str) -> list[str]:
        """The ids of the bake's instances in these states."""
        found = self.aws.ec2.describe_instances(Filters=[{"Name": "tag-key", "Values": ["bake:run"]}])
        return [
            one["InstanceId"]
            for group in found["Reservations"]
            for one in group["Instances"]
            if one["State"]["Name"] in states
        ]


def _nft(rules: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True, capture_output=True)


def _plant_bystander(images: Path) -> None:
    from bake.localcloud.images.store import ImageStore, StoredImage, StoredSnapshot

    store, snapshot = ImageStore(images), BYSTANDER.replace("ami", "snap")
    tags = {"bake:run": "20200101-000000-0c0ffe", "bake:profile": PROFILE, "bake:state": "good"}
    made = "2020-01-01T00:00:00"
    store.save(StoredSnapshot(snapshot, "vol-0c0ffee0c0ffee000", 1, "A bystander", made, tags))
    with store.disk(snapshot).open("wb") as disk:
        disk.truncate(1 << 30)
    store.save(StoredImage(BYSTANDER, "bystander", "", made, snapshot, "gp3", 3000, 125, tags=tags))
