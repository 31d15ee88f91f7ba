"""Instances and the machines behind them: the API's states follow what the machine really does."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES

from bake.localcloud.machines import disks
from bake.localcloud.machines.lazy import LazyDisk
from bake.localcloud.machines.nspawn import Hardware, Machine
from bake.localcloud.settings import Settings

log = logging.getLogger(__name__)

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}


class Guest:
    """One instance with its machine. A thread of its own lives the machine's life; calls only ask."""

    def __init__(self, instance: Any, machine: Machine) -> None:
        self.instance = instance
        self.machine = machine
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._terminating = False
        self._stopping = False
        self._captures: list[Callable[[], None]] = []
        self._reachable = False
        self._console = ""

    def launch(self, disk: Path, gib: int, prepare: Callable[[Machine], None]) -> None:
        """Make the root volume from an image's disk, `gib` large, `prepare` it, and boot."""

        def life() -> None:
            self.machine.directory.mkdir(parents=True, exist_ok=True)
            disks.clone(disk, self.machine.disk)
            # Before anything mounts it: a mount may outlast its unmounting.
            disks.grow(self.machine.disk, gib)
            prepare(self.machine)
            self._live()

        self._state("pending")
        self._spawn(life)

    def start(self) -> None:
        """Boot a stopped machine again."""
        self._stopping = False
        self._state("pending")
        self._spawn(self._live)

    def stop(self) -> None:
        """Shut the machine down cleanly."""
        with self._lock:
            if self._terminating or self.state in {"stopping", "stopped"}:
                return
            self._stopping = True
            self._state("stopping", "Client.UserInitiatedShutdown: User initiated shutdown")
        self.machine.poweroff()

    def reboot(self) -> None:
        """Reboot cleanly; the instance stays `running` as on EC2."""
        self._reachable = False
        self.machine.reboot()

    def terminate(self) -> None:
        """Pull the plug and remove the disk."""
        with self._lock:
            if self._terminating:
                return
            self._terminating = True
            self._state("shutting-down", "Client.UserInitiatedShutdown: User initiated shutdown")
            self.machine.kill()
            if self._thread is None or not self._thread.is_alive():
                self._spawn(self._bury)

    def capture(self, copy: Callable[[], None], *, reboot: bool) -> None:
        """Run `copy` on the machine's disk: while it is down for it, or frozen when `reboot` is False."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                threading.Thread(target=copy, daemon=True).start()
                return
            if reboot or self.state != "running":
                self._captures.append(copy)
                self._reachable = False
                self.machine.poweroff()
                return
        threading.Thread(target=self._capture_frozen, args=(copy,), daemon=True).start()

    def join(self, timeout: float) -> None:
        """Wait for the machine's thread to end, at most `timeout` seconds."""
        if self._thread is not None:
            self._thread.join(timeout)

    @property
    def state(self) -> str:
        return str(self.instance._state.name)

    @property
    def reachable(self) -> bool:
        """Whether the running machine answers on port 22; asked of the machine until it does."""
        if self.state == "running" and not self._reachable:
            self._reachable = self.machine.answers()
        return self.state == "running" and self._reachable

    @property
    def console(self) -> str:
        return self.machine.console_text() or self._console

    def _spawn(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:
                log.exception("instance %s", self.instance.id)
                if not self._terminating:
                    self._state("shutting-down", f"Server.InternalError: {error}")
                self._bury()

        self._thread = threading.Thread(target=guarded, name=self.instance.id, daemon=True)
        self._thread.start()

    def _live(self) -> None:
        """Boot, follow the machine until it is off, and do what its going off means; again if it reboots."""
        again = True
        while again and not self._terminating:
            self._reachable = False
            self.machine.start()
            with self._lock:
                if self._terminating:  # asked for while it was on its way up
                    self.machine.kill()
                elif self._stopping:
                    self.machine.poweroff()
                else:
                    self._state("running")
            again = self.machine.wait() and not self._stopping
            while self._captures and not self._terminating:
                self._captures.pop(0)()
                again = not self._stopping
        self._off()

    def _off(self) -> None:
        """The machine is off for good: by StopInstances, by TerminateInstances, or by its own `poweroff`."""
        with self._lock:
            while self._captures and not self._terminating:
                self._captures.pop(0)()
            if not self._stopping and not self._terminating:
                self._state("stopping", "Client.InstanceInitiatedShutdown: Instance initiated shutdown")
                self._terminating = self.instance.instance_initiated_shutdown_behavior == "terminate"
            if not self._terminating:
                self._thread = None
                self.instance._state.name, self.instance._state.code = "stopped", CODES["stopped"]
                return
        self._bury()

    def _bury(self) -> None:
        """Remove what is left of the machine and let the API forget its volumes."""
        reason = self.instance.state_reason
        self._console = self.machine.console_text()
        self.machine.unplug()
        shutil.rmtree(self.machine.directory, ignore_errors=True)
        while self._captures:
            self._captures.pop(0)()  # the disk is gone, so these fail, and say so to who waits for them
        for volume in self.instance.block_device_mapping.values():
            volume.delete_on_termination = True  # its disk is gone: the local cloud keeps no loose volumes
        self.instance.terminate()
        self.instance.nics[0].subnet.del_subnet_ip(self.machine.hardware.address)
        self.instance.state_reason = reason

    def _capture_frozen(self, copy: Callable[[], None]) -> None:
        with disks.frozen(self.machine.root):
            copy()

    def _state(self, name: str, reason: str = "") -> None:
        state = self.instance._state
        state.name, state.code = name, CODES[name]
        self.instance.state_reason.code = reason.split(":")[0]
        self.instance.state_reason.message = reason


class Guests:
    """All instances of one local cloud."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lazy_rate: float | None = None
        """MB/s at which disks of instances to come fill while they are read; None: they are whole at once."""
        self._guests: dict[str, Guest] = {}

    def __getitem__(self, instance_id: str) -> Guest:
        return self._guests[instance_id]

    def __contains__(self, instance_id: object) -> bool:
        return instance_id in self._guests

    def all(self) -> list[Guest]:
        return list(self._guests.values())

    def add(self, instance: Any) -> Guest:
        """Put a machine behind a new moto instance; it starts with `launch`."""
        kind = INSTANCE_TYPES[instance.instance_type]
        memory = kind["MemoryInfo"]["SizeInMiB"] << 20
        neuron = sum(device["Count"] for device in kind.get("NeuronInfo", {}).get("NeuronDevices", []))
        hardware = Hardware(instance.private_ip, instance.nics[0].mac_address, memory, neuron)
        guest = Guest(instance, Machine(self.settings, instance.id, hardware))
        if self.lazy_rate is not None:
            guest.machine.lazy = LazyDisk(guest.machine.disk, self.lazy_rate)
        self._guests[instance.id] = guest
        return guest

    def at(self, address: str) -> Guest | None:
        """The live instance with a private address."""
        for guest in self.all():
            if guest.state != "terminated" and guest.machine.hardware.address == address:
                return guest
        return None

    def terminate_all(self, timeout: float = 60) -> None:
        """Pull every plug, at once, and wait for the disks to be gone, at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        for guest in self.all():
            try:
                if guest.state != "terminated":
                    guest.terminate()
            except Exception:
                log.exception("instance %s", guest.instance.id)
        for guest in self.all():
            guest.join(max(0.0, deadline - time.monotonic()))
