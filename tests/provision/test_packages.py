"""provision/lib/packages.sh on a machine of each system, with packages and repositories made there."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from bake import units
from bake.ssh import CommandResult, Session

if TYPE_CHECKING:
    from tests.conftest import NewMachine

pytestmark = pytest.mark.root
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


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("g6e-ubuntu", Ubuntu), id="g6e-ubuntu"),
        pytest.param(("g6e-amazon-linux", AmazonLinux), id="g6e-amazon-linux", marks=pytest.mark.long),
    ],
)
def box(request: pytest.FixtureRequest, new_machine: NewMachine) -> Iterator[Box]:
    profile, system = request.param
    with new_machine(profile) as machine:
        machine.session.run("install", "-D", "/dev/stdin", "/opt/bake/lib/packages.sh",
                            stdin=LIBRARY.read_bytes(), sudo=True)  # fmt: skip
        box = system(machine.session)
        box.alone()
        box.offer("fine", ("1.0", "2.0"))
        box.offer("asks", before="read -r answer < /dev/tty")
        yield box


def test_a_version_is_installed_held_and_left_alone(box: Box) -> None:
    done = box.run("pinned", "packages_install fine=1.0\npackages_hold fine\npackages_version fine")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[0] == "installing fine=1.0"
    assert done.stdout.splitlines()[-1].startswith("1.0")
    again = box.run("again", "packages_install fine=1.0 fine\npackages_missing fine nothing-has-this-name")
    assert (again.exit_code, again.stdout) == (0, "nothing-has-this-name\n")
    upgrade = "apt-get -qq -y upgrade" if isinstance(box, Ubuntu) else "dnf -q -y upgrade fine"
    box.root(f"DEBIAN_FRONTEND=noninteractive {upgrade} </dev/null", check=False)
    assert box.run("held", "packages_version fine").stdout.startswith("1.0")


def test_a_package_that_does_not_exist(box: Box) -> None:
    done = box.run("unknown", "packages_install nothing-has-this-name\necho never reached")
    assert done.exit_code == 1
    assert "no repository of this machine has nothing-has-this-name" in done.stderr
    assert "what to do: " in done.stderr
    assert "never reached" not in done.stdout


def test_a_version_that_does_not_exist(box: Box) -> None:
    done = box.run("no-version", "packages_install asks=9.9")
    assert (done.exit_code, "no repository of this machine has asks=9.9" in done.stderr) == (1, True)


def test_a_package_that_asks_fails_at_once(box: Box) -> None:
    started = time.monotonic()
    done = box.run("asks", "packages_install asks")
    assert done.exit_code == 1
    assert "/dev/tty" in done.stderr
    assert time.monotonic() - started < 3000
    box.run("mend", "dpkg --purge --force-all asks || true" if isinstance(box, Ubuntu) else "true")


def test_a_script_that_asks_fails_at_once(box: Box) -> None:
    started = time.monotonic()
    done = box.run("prompt", "read -r -p 'Continue? ' answer\necho never reached")
    assert (done.exit_code, done.stdout) == (1, "")
    assert time.monotonic() - started < 300


def test_a_held_lock_is_waited_for(box: Box) -> None:
    holder = box.hold_lock()
    unit = box.start("waits", "packages_hold fine")
    # Its end is seen by who waits, not by a clock: however late the script looks, somebody holds the lock.
    said = f"until grep -q 'waiting for process {holder} ' {units.LOGS}/{unit.name}.err; do sleep 0.1; done"
    box.root(f"timeout 300 bash -c {shlex.quote(said)} || true; kill {holder}")
    done = unit.wait(seconds=0.5)
    assert done.exit_code == 0, done.stderr
    assert f"waiting for process {holder} " in done.stderr
    assert "lockf" in done.stderr  # the command line of who holds it


def test_who_holds_the_lock_is_said(box: Box) -> None:
    holder = box.hold_lock()
    done = box.run("locked", "packages_install asks", timeout=2)
    box.root(f"kill {holder}")
    assert done.exit_code == 1
    assert f"the package manager is still locked after 2 s by process {holder} (" in done.stderr


def test_a_full_disk(box: Box) -> None:
    box.offer("large")
    box.full(room=1_500_000)
    try:
        done = box.run("full", "packages_install large")
    finally:
        box.root("rm /fill*")
    assert done.exit_code == 1
    assert "the disk is full: large was not installed" in done.stderr
    assert "root_volume.size_gib" in done.stderr


def test_a_repository_that_is_down(box: Box) -> None:
    """Last: the machine's other repositories are taken away."""
    box.alone()
    place = "./" if isinstance(box, Ubuntu) else ""
    done = box.run(
        "down", f"packages_repository gone http://127.0.0.1:9/x unsigned {place}\npackages_install new"
    )
    assert done.exit_code == 1
    assert "a repository does not answer: new was not installed" in done.stderr
    assert "127.0.0.1" in done.stderr
