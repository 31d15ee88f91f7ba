"""A machine in a systemd-nspawn container: its own init, disk, users, network and cgroup."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bake.errors import BakeError
from bake.localcloud.machines import disks, isolation, rooted_files
from bake.localcloud.machines.calls import Calls
from bake.localcloud.machines.cgroups import Cgroups
from bake.localcloud.machines.lazy import LazyDisk
from bake.localcloud.machines.volumes import BlockDevices
from bake.localcloud.network import bridge
from bake.localcloud.network.firewall import PROBE_MARK
from bake.localcloud.settings import Settings

log = logging.getLogger(__name__)

REBOOT_CODE = 133  # nspawn's exit code with --keep-unit when the machine asks for a reboot
CONSOLE_LIMIT = 64 << 10
# Paths on a disk that nspawn mounts, writes or reads before the disk becomes its root.
NSPAWN_USES = (
    *("dev", "proc", "sys", "run", "tmp", "var", "etc", "etc/machine-id", "etc/os-release"),
    *("usr", "usr/lib", "usr/lib/os-release"),
)
_PROPAGATE = Path("/run/systemd/nspawn/propagate")
# The signals for "power off" and "reboot" to systemd as init; see systemd(1).
_POWEROFF = signal.SIGRTMIN + 4
_REBOOT = signal.SIGRTMIN + 5


@dataclass(frozen=True)
class Hardware:
    """A machine's addresses, and what its instance type has: memory in bytes and Neuron devices."""

    address: str
    mac: str
    memory: int
    neuron_devices: int = 0


class Machine:
    """One machine. Its directory holds `disk.img`, the mount point `root` and `console.log`."""

    def __init__(self, settings: Settings, name: str, hardware: Hardware) -> None:
        self.name = name
        self.hardware = hardware
        self.directory = settings.instances / name
        self.disk = self.directory / "disk.img"
        self.root = self.directory / "root"
        # On a tmpfs: a bind mount from a disk of the host would let the machine trim that disk.
        self.uuid = uuids(settings) / name
        self.console = self.directory / "console.log"
        self.lazy: LazyDisk | None = None
        """Mounts the disk if it fills lazily."""
        self.volumes = BlockDevices(self.root)
        """Its volumes beside the root volume."""
        self._settings = settings
        self._cgroups = Cgroups(settings, name)
        self._process: subprocess.Popen[bytes] | None = None
        self._leader: int | None = None

    def start(self, *, timeout: float = 180) -> None:
        """Attach disk and network, and return when the machine's init runs (not when it has booted)."""
        self._mount()
        if paths := rooted_files.leading_out(self.root, NSPAWN_USES):
            raise BakeError(
                f"the disk of {self.name} can't be booted: links lead out of it at {', '.join(paths)}"
            )
        self._write_resolv_conf()
        self.uuid.parent.mkdir(mode=0o700, exist_ok=True)
        self.uuid.write_text(f"ec2{uuid.uuid4().hex[3:8]}-0000-0000-0000-000000000000\n")
        entries = self._cgroups.make(self.hardware.memory)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, self.console.open("ab") as console:
            notify.bind(f"\0bake-{self._settings.tag}-{self.name}")
            calls = self._spawn(entries, console)
            self._leader = self._await_leader(notify, calls, timeout)

    def _mount(self) -> None:
        if self.lazy is None:
            disks.mount(self.disk, self.root)
        else:
            self.lazy.mount(self.root)

    def _write_resolv_conf(self) -> None:
        """Give the machine the host's name servers, unless its disk has no place for the file."""
        try:
            rooted_files.replace(self.root, "etc/resolv.conf", bridge.resolv_conf())
        except OSError as error:
            log.warning("%s boots without a resolv.conf: %s", self.name, error)

    def _spawn(self, entries: list[Path], console: IO[bytes]) -> Calls:
        """Start nspawn, and a thread that answers the system calls that the machine can't make."""
        here, there = socket.socketpair()
        with here, there:
            enter = [
                sys.executable,
                "-I",
                "-S",
                str(Path(__file__).with_name("enter.py")),
                str(there.fileno()),
            ]
            self._process = subprocess.Popen(
                [*enter, *map(str, entries), "--", *self._command()],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                pass_fds=[there.fileno()],
                env={
                    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
                    "NOTIFY_SOCKET": f"@bake-{self._settings.tag}-{self.name}",
                },
            )
            there.close()
            _, listeners, _, _ = socket.recv_fds(here, 1, 1)
        if not listeners:
            self._process.wait()
            raise BakeError(f"the machine {self.name} did not start:\n{self.console_text()[-2000:]}")
        return Calls(listeners[0], self.root, self._plug)

    def _plug(self, init: int) -> None:
        bridge.attach(self._settings, self.hardware.address, self.hardware.mac, init)
        self.volumes.plug(init)

    def _command(self) -> list[str]:
        return [
            "systemd-nspawn", "--quiet", "--settings=no", "--boot", "--register=no", "--keep-unit",
            f"--directory={self.root}", f"--machine={self.name}", "--console=read-only",
            *([] if self._settings.trust_guests else isolation.OPTIONS),
            # The network is set up from the host, without DHCP, and can't be changed from inside.
            "--private-network", "--drop-capability=CAP_NET_ADMIN",
            "--resolv-conf=off", "--timezone=off", "--link-journal=no",
            # Software detects EC2 by this file of Xen instances; cloud-init uses IMDSv2 tokens only on EC2.
            f"--bind-ro={self.uuid}:/sys/hypervisor/uuid",
            # Programs count these devices; the stand-in for the Neuron SDK does not open them.
            *(f"--bind=/dev/null:/dev/neuron{number}" for number in range(self.hardware.neuron_devices)),
        ]  # fmt: skip

    def _await_leader(self, notify: socket.socket, calls: Calls, timeout: float) -> int:
        """Wait until nspawn reports that init runs, and return init's pid."""
        notify.settimeout(0.2)
        deadline = time.monotonic() + timeout
        leader = None
        while time.monotonic() < deadline and self._process and self._process.poll() is None:
            with suppress(TimeoutError):
                fields = dict(line.partition("=")[::2] for line in notify.recv(4096).decode().splitlines())
                leader = int(fields["X_NSPAWN_LEADER_PID"]) if "X_NSPAWN_LEADER_PID" in fields else leader
                if leader and fields.get("READY") == "1":
                    return leader
        why = calls.failure or f"\n{self.console_text()[-2000:]}"
        raise BakeError(f"the machine {self.name} did not start: {why}")

    def wait(self) -> bool:
        """Wait until the machine is off, unplug it, and return whether it asked for a reboot."""
        if self._process is None:
            raise BakeError(f"the machine {self.name} was never started")
        code = self._process.wait()
        self.unplug()
        return code == REBOOT_CODE

    def poweroff(self) -> None:
        """Start a clean shutdown; `wait` returns when the machine is off."""
        self._press(_POWEROFF)

    def reboot(self) -> None:
        """Start a clean reboot."""
        self._press(_REBOOT)

    def kill(self) -> None:
        """Kill the machine at once."""
        self._cgroups.kill()
        if self._process is not None:
            self._process.kill()

    def unplug(self) -> None:
        """Release everything that `start` took; the disk file stays."""
        self._leader = None
        self._cgroups.kill()
        self._cgroups.remove()
        self.volumes.release()
        disks.unmount(self.root)
        if self.lazy is not None:
            self.lazy.unmount()
        self.uuid.unlink(missing_ok=True)
        with suppress(OSError):  # nspawn leaves this folder on hosts without systemd
            (_PROPAGATE / self.name).rmdir()
        bridge.detach(self._settings, self.hardware.address)

    def console_text(self) -> str:
        """The end of the console output, at most 64 KiB as on EC2."""
        with suppress(FileNotFoundError), self.console.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - CONSOLE_LIMIT))
            return file.read().decode("utf-8", "replace")
        return ""

    def answers(self, port: int = 22) -> bool:
        """Whether something accepts connections on a TCP port of the machine, whatever its groups allow."""
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROBE_MARK)
            probe.settimeout(0.5)
            probe.connect((self.hardware.address, port))
            return True
        return False

    def _press(self, number: int) -> None:
        """Signal init every second until the machine is off; init ignores signals early in its boot."""
        process = self._process

        def again() -> None:
            while process is self._process and process is not None and process.poll() is None:
                self._signal(number)
                time.sleep(1)

        threading.Thread(target=again, daemon=True).start()

    def _signal(self, number: int) -> None:
        if self._leader is not None:
            with suppress(ProcessLookupError):
                os.kill(self._leader, number)


def uuids(settings: Settings) -> Path:
    """The folder of the machines' hypervisor UUIDs while they run."""
    return Path("/dev/shm") / f"bake-{settings.tag}-uuids"  # noqa: S108 - the one tmpfs that all hosts have
