"""bake/steps/stop_upgrades.py on a machine of each system: real timers, and a package manager at work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from bake.errors import BakeError
from bake.progress import Progress
from bake.run import Run
from bake.steps import provision
from bake.steps.stop_upgrades import stop_upgrades, wait_for_packages
from tests.screens import Seen

from .boxes import AmazonLinux, Box, Ubuntu, boxed

if TYPE_CHECKING:
    from tests.conftest import Machine, NewMachine

pytestmark = pytest.mark.root
SLOW = "touch /run/began; until [ -e /run/go-on ]; do sleep 0.1; done"
UPGRADE = {Ubuntu: "apt-daily-upgrade.service", AmazonLinux: "dnf-automatic-install.service"}


@pytest.fixture(
    scope="module",
    params=["g6e-ubuntu", pytest.param("g6e-amazon-linux", marks=pytest.mark.long)],
)
def machine(request: pytest.FixtureRequest, new_machine: NewMachine) -> Iterator[Machine]:
    with new_machine(request.param) as machine:
        yield machine


@pytest.fixture(scope="module")
def box(machine: Machine) -> Iterator[Box]:
    with boxed(machine) as box:
        yield box


@pytest.fixture
def screen(machine: Machine) -> Iterator[tuple[Run, Seen]]:
    seen = Seen()
    yield Run(machine.run.id, machine.run.directory, Progress(seen)), seen


def install(box: Box, name: str) -> str:
    """The command by which the machine's own upgrade installs a package."""
    if isinstance(box, Ubuntu):
        return f"/usr/bin/apt-get -qq -y -o Dir::Etc::SourceParts=/etc/apt/sources.list.d install {name}"
    return f"/usr/bin/dnf -q -y install {name}"


@contextmanager
def timer(box: Box, name: str) -> Iterator[None]:
    """A timer of that name, enabled and on its way, that starts nothing while the test runs."""
    unit = f"/etc/systemd/system/{name}"
    box.root(
        "printf '[Service]\\nExecStart=/bin/true\\n' > /etc/systemd/system/nothing.service\n"
        f"rm -f {unit}; printf '[Timer]\\nOnActiveSec=1d\\nUnit=nothing.service\\n"
        f"[Install]\\nWantedBy=timers.target\\n' > {unit}\n"
        f"systemctl daemon-reload; systemctl enable --quiet --now {name}"
    )
    yield
    box.root(f"systemctl disable --quiet --now {name}; rm {unit}; systemctl daemon-reload")


@contextmanager
def upgrade(box: Box, name: str) -> Iterator[str]:
    """The machine's own upgrade in the middle of a package, as systemd runs it; its unit."""
    unit = UPGRADE[type(box)]
    box.offer(name, before=SLOW)
    update = "ExecStartPre=-/usr/bin/apt-get -qq update\n" if isinstance(box, Ubuntu) else ""
    box.root(
        f"[ -e /lib/systemd/system/{unit} ] || echo '[Unit]' > /etc/systemd/system/{unit}\n"
        f"rm -f /run/began /run/go-on; mkdir -p /etc/systemd/system/{unit}.d\n"
        f"printf '[Service]\\nType=oneshot\\nKillMode=process\\nExecStartPre=\\n{update}ExecStart=\\n"
        f"ExecStart={install(box, name)}\\n' > /etc/systemd/system/{unit}.d/test.conf\n"
        f"systemctl daemon-reload; systemctl start --no-block {unit}\n"
        "for _ in $(seq 600); do [ -e /run/began ] && exit; sleep 0.1; done; "
        f"systemctl status {unit} >&2; exit 1"
    )
    yield unit
    box.root(f"touch /run/go-on; rm -r /etc/systemd/system/{unit}.d; systemctl daemon-reload")


def test_timers_are_stopped_and_stay_enabled(machine: Machine, box: Box, screen: tuple[Run, Seen]) -> None:
    run, _ = screen
    listed = "systemctl list-unit-files --no-legend --type=timer,service,socket | sort"
    with timer(box, "apt-daily.timer"), timer(box, "dnf-makecache.timer"), timer(box, "other.timer"):
        before = box.root(listed).stdout
        assert "apt-daily.timer" in before
        stop_upgrades(machine.session, machine.plan, run)
        active = box.root("systemctl is-active apt-daily.timer dnf-makecache.timer other.timer", check=False)
        assert active.stdout.split() == ["inactive", "inactive", "active"]
        assert box.root(listed).stdout == before, "what the image starts with changed"
        assert box.root("systemctl is-enabled apt-daily.timer dnf-makecache.timer").stdout.split() == (
            ["enabled", "enabled"]
        )
    [note] = run.progress.notes
    assert note == "stopped until the image boots: apt-daily.timer, dnf-makecache.timer"


def test_a_running_upgrade_is_waited_for(machine: Machine, box: Box, screen: tuple[Run, Seen]) -> None:
    run, seen = screen
    with upgrade(box, "slow") as unit:
        step = threading.Thread(target=stop_upgrades, args=(machine.session, machine.plan, run))
        step.start()
        until(lambda: seen.said("held by process "))
        assert step.is_alive()
        assert seen.said(f" of {unit}, since ")
        assert seen.said("install slow")
        box.root("touch /run/go-on")
        step.join(120)
        assert not step.is_alive()
        assert box.root("systemctl show --property=Result --value " + unit).stdout == "success\n"
    assert box.run("whole", "packages_version slow").stdout.startswith("1.0")


def test_an_upgrade_that_does_not_end_stops_the_bake(
    machine: Machine, box: Box, screen: tuple[Run, Seen]
) -> None:
    run, _ = screen
    holder = box.hold_lock()
    started = time.monotonic()
    with pytest.raises(BakeError, match=rf"still locked after \d+ s by process {holder} \(") as caught:
        wait_for_packages(machine.session, run, 2)
    box.root(f"kill {holder}")
    assert time.monotonic() - started < 60
    assert "builder.package_wait_minutes" in (caught.value.hint or "")
    assert "lockf" in caught.value.message


def test_a_script_tells_whom_it_waits_for(
    machine: Machine, box: Box, screen: tuple[Run, Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later locks, too: a trigger may build modules for minutes while another package is to be installed."""
    run, seen = screen
    monkeypatch.setattr(provision.Waits, "EVERY", 0.0)
    monkeypatch.setattr(machine.session, "tally", run.progress.tally)  # as in a bake
    lines = b"source /opt/bake/lib/packages.sh\npackages_hold bash\n"
    machine.session.run("tee", "/opt/bake/holds.sh", "/opt/bake/settings.env", stdin=lines, sudo=True)
    machine.session.run("truncate", "--size=0", "/opt/bake/settings.env", sudo=True)
    holder = box.hold_lock()
    step = threading.Thread(target=provision._run_script, args=(machine.session, run, "holds.sh"))
    step.start()
    until(lambda: seen.said(f"waiting for process {holder} ("))
    box.root(f"kill {holder}")
    step.join(60)
    assert not step.is_alive()


def test_a_lock_on_another_disk_with_the_same_inode_is_no_lock(box: Box) -> None:
    """Inodes are numbered disk by disk: who holds such a file's lock has nothing to do with packages."""
    box.root(
        f"""
        touch {box.lock}; wanted=$(stat -c %i {box.lock}); mkdir -p /run/other; mount -t tmpfs none /run/other
        cat > /run/hold.py <<'END'
import fcntl, os, sys, time
for _ in range(2_000_000):
    file = open("/run/other/file", "w")
    if os.fstat(file.fileno()).st_ino == int(sys.argv[1]):
        break
    file.close(); os.unlink("/run/other/file")
else:
    sys.exit("no such inode")
fcntl.lockf(file, fcntl.LOCK_EX)
open("/run/held", "w").close()
time.sleep(3600)
END
        rm -f /run/held; setsid python3 /run/hold.py $wanted >/dev/null 2>&1 & echo $! > /run/holder
        for _ in $(seq 600); do [ -e /run/held ] && break; sleep 0.1; done; [ -e /run/held ]
        """
    )
    free = box.run("free", "packages_holder")
    box.root("kill $(cat /run/holder); sleep 0.2; umount /run/other")
    assert (free.exit_code, free.stdout) == (1, "")


def test_a_lock_of_an_open_file_belongs_to_who_has_it_open(box: Box) -> None:
    """The kernel names no process for such a lock: who took it may be gone, and a child have it now."""
    script = (
        "import fcntl, os, struct, time; file = open('" + box.lock + "', 'a+'); "
        "lock = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0); "
        "fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock); pid = os.fork(); "
        "print(pid, flush=True) if pid else time.sleep(3600)"
    )
    pid = box.root(f'python3 -c "{script}" > /run/holder 2>/dev/null; cat /run/holder').stdout.strip()
    said = box.run("inherited", "packages_holder").stdout
    box.root(f"kill {pid}")
    assert said.startswith(f"process {pid} (python3 -c import fcntl")


def test_what_dpkg_was_interrupted_at_is_finished(
    machine: Machine, box: Box, screen: tuple[Run, Seen]
) -> None:
    if not isinstance(box, Ubuntu):
        pytest.skip("dpkg's")
    run, _ = screen
    box.offer("half")
    box.root("dpkg --unpack /srv/repository/half_1.0.deb")
    assert box.run("before", "packages_version half").exit_code == 1
    stop_upgrades(machine.session, machine.plan, run)
    assert "dpkg was interrupted on this base AMI at half: finished with dpkg --configure -a" in (
        run.progress.notes
    )
    assert box.run("after", "packages_version half").stdout == "1.0\n"


def until(condition: object, seconds: float = 60) -> None:
    """Wait for a condition."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_dpkg_can_not_finish_is_told_and_stays_the_base_amis(
    machine: Machine, box: Box, screen: tuple[Run, Seen]
) -> None:
    """Nothing has to be installed on a Deep Learning AMI: then nobody minds."""
    if not isinstance(box, Ubuntu):
        pytest.skip("dpkg's")
    run, _ = screen
    box.offer("never", before="true")
    box.root(
        "cd /srv/content; sed -i '/^Version/a Depends: nothing-has-this-name' DEBIAN/control\n"
        "dpkg-deb --build . /srv/broken.deb >/dev/null; dpkg --unpack --force-depends /srv/broken.deb\n"
        "systemctl stop bake-finish-packages 2>/dev/null || true"
    )
    stop_upgrades(machine.session, machine.plan, run)
    kept = box.root("cat /opt/bake/unfinished-packages; dpkg --purge --force-all never").stdout
    assert kept.startswith("never\n")
    [note] = run.progress.notes
    assert note.startswith("dpkg can't finish never, which the base AMI has half-way")
    assert "nothing-has-this-name" in (run.logs / "bake-finish-packages.err.log").read_text()


# --- the real unattended-upgrades ---------------------------------------------------------------


@pytest.mark.long
def test_unattended_upgrades_ends_after_the_package_that_it_is_at(new_machine: NewMachine) -> None:
    """As Ubuntu's fresh machines run it: Debian's package, by apt's own unit."""
    with new_machine() as machine:
        fetched = machine.session.run(
            "sh",
            "-c",
            "apt-get -qq update && apt-get -qq -y install unattended-upgrades",
            sudo=True,
            check=False,
        )
        if fetched.exit_code:
            pytest.skip(f"unattended-upgrades is not to be had here: {fetched.stderr.strip()[-200:]}")
        with boxed(machine) as box:
            upgrades_two(box)
            run = Run(machine.run.id, machine.run.directory, Progress(seen := Seen()))
            box.root(
                "systemctl start --no-block apt-daily-upgrade.service\n"
                "for _ in $(seq 600); do [ -e /run/began ] && exit; sleep 0.1; done; exit 1"
            )
            step = threading.Thread(target=stop_upgrades, args=(machine.session, machine.plan, run))
            step.start()
            until(lambda: seen.said("/usr/bin/unattended-upgrade) of apt-daily-upgrade.service"))
            box.root("touch /run/go-on")
            step.join(120)
            assert not step.is_alive()
            versions = box.run("versions", "packages_version slow-a\npackages_version slow-b").stdout.split()
            assert sorted(versions) == ["1.0", "2.0"], "it went on, or broke off a package"
            assert "SIGTERM received, will stop" in box.root(
                "cat /var/log/unattended-upgrades/unattended-upgrades.log"
            ).stdout  # fmt: skip
            assert box.run("whole", "packages_unfinished").exit_code == 1


def upgrades_two(box: Box) -> None:
    """Two packages that are to be upgraded, each slowly, and nothing else."""
    wait = f'[ "$1" != upgrade ] || {{ {SLOW}; }}'
    for name in ("slow-a", "slow-b"):
        box.offer(name, ("1.0",), before=wait)
    box.root(
        "apt-get -qq update && apt-get -qq -y install slow-a slow-b\nrm -f /run/began /run/go-on\n"
        "printf '%s\\n' 'APT::Periodic::Unattended-Upgrade \"always\";' "
        "'Unattended-Upgrade::Origins-Pattern { \"origin=*\"; };' > /etc/apt/apt.conf.d/99test"
    )
    for name in ("slow-a", "slow-b"):
        box.offer(name, ("2.0",), before=wait)
    # The base masks the timer, not the service.
    box.root("apt-get -qq update; rm -f /var/lib/apt/periodic/*")
