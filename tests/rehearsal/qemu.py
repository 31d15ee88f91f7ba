"""Boots a disk of the local cloud in QEMU, with a kernel and a clock of its own, and reads its console.

A local machine is a container: it has this host's kernel and clock. The disk itself is not changed, and what
watches the machine from within is put into memory.
"""

from __future__ import annotations

import gzip
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

PATIENCE = 1500  # seconds: without KVM a boot takes minutes
KERNELS = ("linux-image-cloud-amd64", "linux-image-virtual")  # Debian's and Ubuntu's for virtual machines
# In the order of their dependencies; a kernel may have them built in.
MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
)
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in {modules}; do [ ! -f /$module.ko ] || insmod /$module.ko; done
until [ -b /dev/vda ]; do sleep 1; done
mount -t ext4 /dev/vda /new
mount -t tmpfs -o mode=0755 run /new/run
mkdir -p /new/run/watch /new/run/systemd/system/sysinit.target.wants
cp /watch/* /new/run/watch/
cp /units/* /new/run/systemd/system/
for unit in /units/*.timer /units/watch.service; do
  [ ! -f "$unit" ] || ln -s "../${{unit##*/}}" /new/run/systemd/system/sysinit.target.wants/
done
umount /sys /proc; mount --move /dev /new/dev
exec switch_root /new /lib/systemd/systemd
"""


@dataclass(frozen=True)
class Kernel:
    """A kernel, and busybox with the modules that find a disk."""

    image: Path
    busybox: bytes
    modules: dict[str, bytes]


def kernel(folder: Path) -> Kernel:
    """Fetch a kernel for virtual machines from this host's distribution, without installing it."""
    named = [line for name in KERNELS for line in _depends(name)]
    subprocess.run(["apt-get", "download", named[0], "busybox-static"], cwd=folder, check=True)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    found = {file.name.partition(".")[0]: file for file in (folder / "lib/modules").rglob("virtio*.ko")}
    modules = {name: found[name].read_bytes() for name in MODULES if name in found}
    return Kernel(
        next(folder.glob("boot/vmlinuz-*")), next(folder.glob("**/bin/busybox")).read_bytes(), modules
    )


def _depends(package: str) -> list[str]:
    done = subprocess.run(["apt-cache", "depends", package], capture_output=True, text=True, check=False)
    words = [line.split() for line in done.stdout.splitlines()]
    return [line[1] for line in words if line[0] == "Depends:" and line[1].startswith("linux-image-")]


def initramfs(of: Kernel, watch: dict[str, str], units: dict[str, str]) -> bytes:
    """An archive (newc, cpio(5)) that mounts the disk, adds `units` and /run/watch, and goes on."""
    files = {"init": INIT.format(modules=" ".join(MODULES)).encode(), "bin/busybox": of.busybox}
    files |= {f"{name}.ko": content for name, content in of.modules.items()}
    files |= {f"watch/{name}": content.encode() for name, content in watch.items()}
    files |= {f"units/{name}": content.encode() for name, content in units.items()}
    entries = [
        (name, stat.S_IFDIR | 0o755, b"") for name in ("bin", "proc", "sys", "dev", "new", "watch", "units")
    ]
    entries += [(name, stat.S_IFREG | 0o755, content) for name, content in files.items()]
    packed = bytearray()
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        packed += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        packed += b"\0" * (-len(packed) % 4) + content
        packed += b"\0" * (-len(packed) % 4)
    return gzip.compress(bytes(packed), 1)


@dataclass(frozen=True)
class Booted:
    """A machine that was started: its process, and the file of its serial console."""

    process: subprocess.Popen[bytes]
    console: Path

    def told(self) -> list[str]:
        """What the watch within it has said so far."""
        lines = self.console.read_text(errors="replace").splitlines() if self.console.exists() else []
        return [line.partition("watch: ")[2] for line in lines if "watch: " in line]

    def until(self, words: str) -> list[str]:
        """Wait until the watch says so, or the machine is off; what was said by then."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None and not any(line.startswith(words) for line in self.told()):
            assert time.monotonic() < end, self.console.read_text(errors="replace")[-3000:]
            time.sleep(1)
        return self.told()


@contextmanager
def booted(disk: Path, of: Kernel, ramdisk: bytes, clock: datetime, folder: Path) -> Iterator[Booted]:
    """Boot a disk whose clock says `clock` (UTC); whatever it writes is gone at the end."""
    (folder / "initrd").write_bytes(ramdisk)
    console = folder / "console.log"
    command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"]
    command += ["-nographic", "-monitor", "none", "-serial", f"file:{console}", "-no-reboot", "-nic", "none"]
    command += ["-kernel", str(of.image), "-initrd", str(folder / "initrd"), "-append", "console=ttyS0 quiet"]
    command += ["-drive", f"file={disk},format=raw,if=virtio,snapshot=on"]
    command += ["-rtc", f"base={clock:%Y-%m-%dT%H:%M:%S}"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield Booted(process, console)
    finally:
        process.kill()
        process.wait()
