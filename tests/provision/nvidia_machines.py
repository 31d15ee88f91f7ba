"""The two systems that the NVIDIA driver is tested on: packages, repositories, and fake GPUs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bake.layout import BAKE
from bake.ssh import CommandResult, Session

from . import repositories
from .neuron_machines import send, serving, without_network
from .repositories import Key

if TYPE_CHECKING:
    from tests.conftest import Machine
    from tests.outside import Outside

VERSION = "580.95.05"
SCRIPT = f"{BAKE}/scripts/12-nvidia.sh"
UNIT = "/etc/systemd/system/nvidia-persistenced.service"
WANTS = "/etc/systemd/system/multi-user.target.wants"
STAND_INS = "/usr/local/bin"  # before the system's own, for root too


@dataclass
class Driven(ABC):
    """One machine, and a repository of NVIDIA's packages at `url` that is signed by `key`."""

    machine: Machine
    url: str
    key: Key

    kernel: str
    """A package that holds a kernel."""

    @property
    def session(self) -> Session:
        return self.machine.session

    def run(self, **settings: str) -> CommandResult:
        """Run the script as the bake does, with these settings."""
        given = {
            "BAKE_ACCELERATOR": "cuda",
            "BAKE_DEVICE": "no",
            "BAKE_CUDA": "13",
            "BAKE_DRIVER_MINIMUM": "580.65.06",
            "BAKE_PATH": STAND_INS,
            "NVIDIA_DRIVER": "",
            "NVIDIA_REPOSITORY": "",
            "NVIDIA_FINGERPRINT": "",
            **settings,
        }
        pairs = [f"{name}={value}" for name, value in given.items()]
        return self.session.run("env", *pairs, "bash", SCRIPT, sudo=True, check=False)

    def run_pinned(self, **settings: str) -> CommandResult:
        """The same, where the profile pins a driver of the repository."""
        pinned = {"NVIDIA_DRIVER": VERSION, "NVIDIA_REPOSITORY": self.url}
        return self.run(**pinned, **{"NVIDIA_FINGERPRINT": self.key.fingerprint, **settings})

    def stand_in(self, name: str, *lines: str) -> None:
        """A command of the system as it behaves where there is a GPU, or a kernel of the machine's own."""
        content = "\n".join(["#!/bin/sh", *lines, ""]).encode()
        self.session.run("tee", f"{STAND_INS}/{name}", stdin=content, sudo=True)
        self.session.run("chmod", "755", f"{STAND_INS}/{name}", sudo=True)

    def clear(self) -> None:
        """Remove packages, holds, the daemon's unit and all stand-ins."""
        self.session.run("systemctl", "disable", "nvidia-persistenced", sudo=True, check=False)
        self.session.run(
            "sh", "-c", f"rm -f {UNIT} {WANTS}/nvidia-persistenced.service {STAND_INS}/*", sudo=True
        )
        self.clear_packages()

    @abstractmethod
    def install(self, folder: Path, name: str, version: str) -> None:
        """Put a stub package on the machine, as a base AMI would have the real one."""

    @abstractmethod
    def held(self) -> set[str]:
        """What no upgrade touches."""

    @abstractmethod
    def sources(self) -> str:
        """The files that say where packages come from."""

    @abstractmethod
    def clear_packages(self) -> None:
        """Remove the stubs and what is held."""


class Apt(Driven):
    """A Debian or Ubuntu."""

    def install(self, folder: Path, name: str, version: str) -> None:
        content = repositories.deb(folder, name, f"{version}-0ubuntu1").read_bytes()
        self.session.run("tee", "/tmp/stub.deb", stdin=content)
        self.session.run("dpkg", "--install", "/tmp/stub.deb", sudo=True)

    def held(self) -> set[str]:
        return set(self.session.run("apt-mark", "showhold").stdout.split())

    def sources(self) -> str:
        return self.session.run("ls", "/etc/apt/sources.list.d", "/etc/apt/keyrings").stdout

    def clear_packages(self) -> None:
        names = f"{self.kernel} nvidia-open nvidia-driver-pinning-{VERSION}"
        clear = f"apt-mark unhold {names}; dpkg --purge {names}"
        self.session.run("sh", "-c", clear, sudo=True, check=False)


class Rpm(Driven):
    """An Amazon Linux."""

    def install(self, folder: Path, name: str, version: str) -> None:
        make_rpms(self.session, self.key, "/root/stub", f"{name}={version}-1")
        self.session.run("sh", "-c", "rpm --install /root/stub/noarch/*.rpm; rm -r /root/stub", sudo=True)

    def held(self) -> set[str]:
        lines = self.session.run("cat", "/etc/dnf/dnf.conf").stdout.splitlines()
        return {name for line in lines if line.startswith("exclude=") for name in line[8:].split()}

    def sources(self) -> str:
        return self.session.run("ls", "/etc/yum.repos.d", "/etc/pki/rpm-gpg").stdout

    def clear_packages(self) -> None:
        for name in (self.kernel, "nvidia-open"):
            self.session.run("rpm", "--erase", name, sudo=True, check=False)
        self.session.run("sed", "-i", "/^exclude=/d", "/etc/dnf/dnf.conf", sudo=True)


@contextmanager
def driven(machine: Machine, folder: Path, outside: Outside) -> Iterator[Driven]:
    """The machine with a repository, for as long as the tests take."""
    key = Key.make(folder / "nvidia")
    try:
        if machine.plan.system.packages == "apt":
            packages = {f"nvidia-driver-pinning-{VERSION}": f"{VERSION}-1ubuntu1"}
            packages["nvidia-open"] = f"{VERSION}-0ubuntu1"
            repositories.flat(folder / "repositories/cuda", packages, key)
            without_network(machine.session)
            with serving(folder / "repositories", outside) as url:
                yield Apt(machine, f"{url}/cuda", key, kernel="linux-image-aws")
        else:
            build = Path(__file__).with_name("rpm_repository.sh")
            send(machine.session, {"keys": folder, "build": build})
            make_rpms(machine.session, key, "/srv/cuda", f"nvidia-open={VERSION}-1")
            yield Rpm(machine, "file:///srv/cuda", key, kernel="kernel")
    finally:
        key.stop()


def make_rpms(session: Session, key: Key, folder: str, package: str) -> None:
    """A repository with one package on the machine; its key's file is named after the key."""
    home, file = f"/root/keys/{key.home.name}", f"{key.fingerprint[-8:]}.pub"
    session.run("bash", "/root/build", folder, home, home, file, "", package, sudo=True)
