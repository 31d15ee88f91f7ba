"""A machine of each system with `provision/lib/packages.sh` on it, and packages built there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bake import units
from bake.ssh import CommandResult, Session

if TYPE_CHECKING:
    from tests.conftest import Machine

LIBRARY = Path(__file__).parents[2] / "provision/lib/packages.sh"
# What is packed: a file of 3 MB that nothing can make smaller, so that a nearly full disk can't take it.
CONTENT = (
    "mkdir -p /srv/content/usr/share/{0} && head -c 3000000 /dev/urandom > /srv/content/usr/share/{0}/data"
)
HOLD_LOCK = (
    "import fcntl, sys, time; file = open(sys.argv[1], 'a+'); fcntl.lockf(file, fcntl.LOCK_EX); "
    "open('/run/held', 'w').close(); time.sleep(3600)"
)


@dataclass(frozen=True)
class Box:
    """A machine with the library on it, and what differs between the systems for these tests."""

    session: Session
    lock: ClassVar[str]

    def root(self, script: str, *, check: bool = True) -> CommandResult:
        """Run a bash script as root, without a terminal."""
        return self.session.run(
            "bash", "-euo", "pipefail", "-s", stdin=script.encode(), sudo=True, check=check
        )

    def start(self, name: str, script: str, timeout: int = 300) -> units.Unit:
        """Start a script that uses the library the way provisioning starts its own: as a unit."""
        lines = f"source /opt/bake/lib/packages.sh\nPACKAGES_LOCK_TIMEOUT={timeout}\n{script}\n"
        path = f"/root/{name}.sh"
        self.session.run("tee", path, stdin=lines.encode(), sudo=True)
        return units.start(self.session, f"test-{name}", "bash", path)

    def run(self, name: str, script: str, timeout: int = 300) -> CommandResult:
        """Run such a script to its end."""
        return self.start(name, script, timeout).wait(seconds=0.5)

    def offer(self, name: str, versions: tuple[str, ...] = ("1.0",), before: str = "") -> None:
        """Put a package into the machine's own repository; `before` is what it runs when it is installed."""
        raise NotImplementedError

    def alone(self) -> None:
        """Take every repository from the machine."""
        raise NotImplementedError

    def hold_lock(self) -> str:
        """Let a process hold the package manager's lock until it is killed; return its number."""
        script = (
            f'rm -f /run/held; setsid python3 -c "{HOLD_LOCK}" {self.lock} >/dev/null 2>&1 &\n'
            "echo $!; until [ -e /run/held ]; do sleep 0.1; done"
        )
        return self.root(script).stdout.strip()

    def full(self, room: int) -> None:
        """Fill the disk, but for `room` bytes."""
        # Most of it by blocks that are only set aside: the host's disk does not notice.
        self.root(
            "fallocate -l $(( $(stat -f -c '%a * %S' /) - 100000000 )) /fill\n"
            f"cat /dev/zero > /fill.more 2>/dev/null || truncate -s -{room} /fill.more"
        )


class Ubuntu(Box):
    lock = "/var/lib/dpkg/lock-frontend"

    def offer(self, name: str, versions: tuple[str, ...] = ("1.0",), before: str = "") -> None:
        for version in versions:
            control = f"Package: {name}\\nVersion: {version}\\nArchitecture: all\\nMaintainer: x\\n"
            control += "Description: x\\n"
            self.root(
                f"rm -rf /srv/content; {CONTENT.format(name)}; mkdir -p /srv/content/DEBIAN /srv/repository\n"
                f"cd /srv/content/DEBIAN; printf '{control}' > control\n"
                f"printf '#!/bin/sh\\nset -e\\n{before or 'true'}\\n' > preinst; chmod 755 preinst\n"
                f"dpkg-deb --build /srv/content /srv/repository/{name}_{version}.deb >/dev/null\n"
            )
        self.root(
            "cd /srv/repository; for f in *.deb; do dpkg-deb -f $f; echo Filename: ./$f; echo Size: "
            "$(stat -c %s $f); echo SHA256: $(sha256sum $f | cut -d' ' -f1); echo; done > Packages\n"
            "echo 'deb [trusted=yes] file:/srv/repository ./' > /etc/apt/sources.list.d/test.list"
        )

    def alone(self) -> None:
        self.root("rm -rf /etc/apt/sources.list* /var/lib/apt/lists/*; mkdir /etc/apt/sources.list.d")


class AmazonLinux(Box):
    lock = "/var/lib/rpm/.rpm.lock"

    def offer(self, name: str, versions: tuple[str, ...] = ("1.0",), before: str = "") -> None:
        for version in versions:
            spec = (
                f"Name: {name}\nVersion: {version}\nRelease: 1\nSummary: x\nLicense: x\nBuildArch: noarch\n"
                f"%description\nx\n%pre\nset -e\n{before or 'true'}\n%files\n/usr/share/{name}\n"
            )
            self.session.run("tee", "/root/test.spec", stdin=spec.encode(), sudo=True)
            self.root(
                f"rm -rf /srv/content; {CONTENT.format(name)}; mkdir -p /srv/repository\n"
                "rpmbuild --quiet -bb --noclean --buildroot /srv/content --define '_rpmdir /srv/repository' "
                "--define '__spec_install_pre %{nil}' --define '__spec_install_post %{nil}' /root/test.spec"
            )
        self.root(
            "createrepo_c --quiet /srv/repository\n"
            "printf '[test]\\nname=test\\nbaseurl=file:///srv/repository\\ngpgcheck=0\\n"
            "metadata_expire=0\\n' > /etc/yum.repos.d/test.repo"
        )

    def alone(self) -> None:
        self.root("rm -f /etc/yum.repos.d/*; dnf -q clean all")


SYSTEMS: dict[str, type[Box]] = {"g6e-ubuntu": Ubuntu, "g6e-amazon-linux": AmazonLinux}


@contextmanager
def boxed(machine: Machine) -> Iterator[Box]:
    """The machine with the library, and with no repository but its own."""
    library = LIBRARY.read_bytes()
    machine.session.run("install", "-D", "/dev/stdin", "/opt/bake/lib/packages.sh", stdin=library, sudo=True)
    box = SYSTEMS[machine.plan.profile.name](machine.session)
    box.alone()
    yield box
