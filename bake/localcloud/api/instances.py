"""Instances and the machines behind them: the API's states follow the real machines."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from moto.core import utils
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instance_types import INSTANCE_TYPES

from bake.localcloud.machines import disks
from bake.localcloud.machines.filling import Speeds
from bake.localcloud.machines.lazy import LazyDisk
from bake.localcloud.machines.nspawn import Hardware, Machine
from bake.localcloud.machines.volumes import VolumeFiles
from bake.localcloud.settings import Settings

log = logging.getLogger(__name__)

BY_USER = "Client.UserInitiatedShutdown: User initiated shutdown"
CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}


class LocalInstance:
    """One instance: `moto`'s record of it and its machine.

    A thread of its own runs the machine; API calls only ask it to stop, reboot or terminate.
    """

    def __init__(self, moto: Any, machine: Machine) -> None:
        self.moto = moto
        self.machine = machine
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._terminating = False
        self._stopping = False
        self._captures: list[Callable[[], None]] = []
        self._reachable = False
        self._console = ""
        self.changed: float | None = None
        """When it was last stopped or terminated (monotonic); None if that was not since the cloud is up."""
        self.ended: Callable[[], None] = lambda: None
        """Called when the instance is terminated."""
        self.network_changed: Callable[[], None] = lambda: None
        """Called before the machine boots and after it is off: its addresses may be others."""

    def launch(
        self,
        disk: Path,
        gib: int,
        prepare: Callable[[Machine], None],
        more: Callable[[], None] = lambda: None,
    ) -> None:
        """Make the root volume from an image's disk, `gib` large, `prepare` it, and boot.

        `more` makes the other volumes' disks.
        """

        def run() -> None:
            self.machine.directory.mkdir(parents=True, exist_ok=True)
            disks.clone(disk, self.machine.disk)
            # Before anything mounts it: the kernel may hold a mount longer than `umount` takes.
            disks.grow(self.machine.disk, gib)
            prepare(self.machine)
            more()
            self._follow()

        self._state("pending")
        self._spawn(run)

    def resume(self, disk: Path) -> None:
        """Take the disk of a saved instance, and boot if it ran; a terminated one has none."""
        if self.state == "terminated":
            return
        self.machine.directory.mkdir(parents=True, exist_ok=True)
        if disk.exists():  # its root volume may be detached
            disks.clone(disk, self.machine.disk)
        if self.state == "running":
            self._spawn(self._follow)

    def start(self) -> None:
        """Boot a stopped machine again: its private address is the same, a public one is another."""
        self._stopping = False
        self.moto.ec2_backend.give_public_addresses(self.moto)
        self.moto.launch_time = utils.utcnow()
        self._state("pending")
        self._spawn(self._follow)

    def stop(self, reason: str = BY_USER) -> None:
        """Shut the machine down cleanly."""
        with self._lock:
            if self._terminating or self.state in {"stopping", "stopped"}:
                return
            self._stopping = True
            self._state("stopping", reason)
        self.machine.poweroff()

    def retype(self, instance_type: str) -> None:
        """Give a stopped machine what another instance type has."""
        memory, neuron = hardware_of(instance_type)
        self.machine.hardware = replace(self.machine.hardware, memory=memory, neuron_devices=neuron)

    def reboot(self) -> None:
        """Reboot cleanly; the instance stays `running` as on EC2."""
        self._reachable = False
        self.machine.reboot()

    def terminate(self, reason: str = BY_USER) -> None:
        """Kill the machine and remove its disk."""
        with self._lock:
            if self._terminating:
                return
            self._terminating = True
            self._state("shutting-down", reason)
            self.machine.kill()
            if self._thread is None or not self._thread.is_alive():
                self._spawn(self._cleanup)

    def capture(self, copy: Callable[[], None], *, reboot: bool) -> None:
        """Run `copy` on the machine's disk: between power-off and restart, or frozen if `reboot` is False."""
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
        return str(self.moto._state.name)

    @property
    def reachable(self) -> bool:
        """Whether the running machine answers on port 22; probed until it does."""
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
            except Exception as error:  # any: nothing else would end an instance whose thread has died
                log.exception("instance %s", self.moto.id)
                if not self._terminating:
                    self._state("shutting-down", f"Server.InternalError: {error}")
                self._cleanup()

        self._thread = threading.Thread(target=guarded, name=self.moto.id, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        """Boot and follow the machine until it is off; boot it again if it asked for a reboot."""
        again = True
        while again and not self._terminating:
            self._reachable = False
            self.moto.ec2_backend.grow_root(self)
            self.network_changed()
            self.machine.start()
            with self._lock:
                if self._terminating:  # TerminateInstances came while it was starting
                    self.machine.kill()
                elif self._stopping:
                    self.machine.poweroff()
                else:
                    self._state("running")
            again = self.machine.wait() and not self._stopping
            while self._captures and not self._terminating:
                self._captures.pop(0)()
                again = not self._stopping
        self._handle_off()

    def _handle_off(self) -> None:
        """Handle the final power-off: StopInstances, TerminateInstances or the machine's own `poweroff`."""
        with self._lock:
            while self._captures and not self._terminating:
                self._captures.pop(0)()
            if not self._stopping and not self._terminating:
                self._terminating = self.moto.instance_initiated_shutdown_behavior == "terminate"
                state = "shutting-down" if self._terminating else "stopping"
                self._state(state, "Client.InstanceInitiatedShutdown: Instance initiated shutdown")
            stopped = not self._terminating
            if stopped:
                self._thread = None
                self.changed = time.monotonic()
                self.moto.ec2_backend.release_public_addresses(self.moto)
                self.moto._state.name, self.moto._state.code = "stopped", CODES["stopped"]
        if stopped:
            self.network_changed()
        else:
            self._cleanup()

    def _cleanup(self) -> None:
        """Remove the machine's directory, network and volumes, and mark the instance as terminated."""
        reason, transition = self.moto.state_reason, self.moto._reason
        self._console = self.machine.console_text()
        self.machine.unplug()
        self.moto.ec2_backend.release_volumes(self)
        shutil.rmtree(self.machine.directory, ignore_errors=True)
        while self._captures:
            self._captures.pop(0)()  # the disk is gone: each fails, and tells whoever waits for it
        self.changed = time.monotonic()
        self.moto.terminate()
        self.moto.ec2_backend.detach_interfaces(self.moto)
        self.moto.state_reason, self.moto._reason = reason, transition
        self.network_changed()
        self.ended()

    def _capture_frozen(self, copy: Callable[[], None]) -> None:
        with disks.frozen(self.machine.root):
            copy()

    def _state(self, name: str, reason: str = "") -> None:
        state = self.moto._state
        state.name, state.code = name, CODES[name]
        self.moto.state_reason.code = reason.split(":")[0]
        self.moto.state_reason.message = reason
        who = "User" if reason.startswith("Client.") else "Server"
        self.moto._reason = f"{who} initiated ({utils.utcnow():%Y-%m-%d %H:%M:%S} GMT)" if reason else ""


def wrong_state(instance: LocalInstance, done: str) -> EC2ClientError:
    """The error for a call that an instance's state does not allow."""
    return EC2ClientError(
        "IncorrectInstanceState",
        f"The instance '{instance.moto.id}' is not in a state from which it can be {done}: {instance.state}",
    )


def hardware_of(instance_type: str) -> tuple[int, int]:
    """What a machine of an instance type has: memory in bytes, and Neuron devices."""
    kind = INSTANCE_TYPES[instance_type]
    neuron = sum(device["Count"] for device in kind.get("NeuronInfo", {}).get("NeuronDevices", []))
    return kind["MemoryInfo"]["SizeInMiB"] << 20, neuron


class LocalInstances:
    """All instances of one local cloud."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.speeds: Speeds | None = None
        """How disks of later instances fill while they are read; None: complete at once."""
        self.closing = False
        """Whether the cloud goes down: nothing is launched any more."""
        self.volumes = VolumeFiles(settings.instances)
        self.network_changed: Callable[[], None] = lambda: None
        """Called when an instance's addresses may be others, also without a call of the API."""
        self._instances: dict[str, LocalInstance] = {}

    def __getitem__(self, instance_id: str) -> LocalInstance:
        return self._instances[instance_id]

    def __contains__(self, instance_id: object) -> bool:
        return instance_id in self._instances

    def all(self) -> list[LocalInstance]:
        return list(self._instances.values())

    def add(self, moto: Any) -> LocalInstance:
        """Add a machine for a new instance of moto's; `launch` starts it."""
        hardware = Hardware(moto.private_ip, moto.nics[0].mac_address, *hardware_of(moto.instance_type))
        instance = LocalInstance(moto, Machine(self.settings, moto.id, hardware))
        instance.network_changed = lambda: self.network_changed()
        if self.speeds is not None:
            instance.machine.lazy = LazyDisk(instance.machine.disk, self.speeds.filling)
        self._instances[moto.id] = instance
        return instance

    def at(self, address: str) -> LocalInstance | None:
        """Return the live instance with this private address, or None."""
        for instance in self.all():
            if instance.state != "terminated" and instance.machine.hardware.address == address:
                return instance
        return None

    def terminate_all(self, timeout: float = 60) -> None:
        """Terminate all instances at once, and wait until their disks are gone, at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self.closing = True
        for instance in self.all():
            try:
                if instance.state != "terminated":
                    instance.terminate()
            except Exception:  # any: the other machines must go down whatever happens to this one
                log.exception("instance %s", instance.moto.id)
        for instance in self.all():
            instance.join(max(0.0, deadline - time.monotonic()))
        self.volumes.clear()
