"""`provision/lib/packages.sh` on a machine of each system, with packages and repositories built there."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from bake.layout import UNIT_LOGS

from .boxes import Box, Ubuntu, boxed

if TYPE_CHECKING:
    from tests.conftest import NewMachine

pytestmark = pytest.mark.root


@pytest.fixture(
    scope="module",
    params=["g6e-ubuntu", pytest.param("g6e-amazon-linux", marks=pytest.mark.long)],
)
def box(request: pytest.FixtureRequest, new_machine: NewMachine) -> Iterator[Box]:
    with new_machine(request.param) as machine, boxed(machine) as box:
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
    said = f"until grep -q 'waiting for process {holder} ' {UNIT_LOGS}/{unit.name}.err; do sleep 0.1; done"
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
