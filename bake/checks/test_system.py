"""The operating system, its user and its open ports."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path
from typing import Any

from testinfra.host import Host

from bake import layout
from bake.checks.caused import Caused
from bake.checks.expectations import Expectations

SSH = 22
DHCP_CLIENT = {68, 546}
# SigV4 refuses requests that are five minutes off; a machine with working NTP is off by far less.
LARGEST_CLOCK_ERROR_S = 60
# What the bake creates besides the cache: folders with their content, and the unit with its drop-ins.
MADE = [layout.WORKER, str(Path(layout.WORKER_ENV).parent), layout.LIBRARY, str(Path(layout.NOTICE).parent)]
MADE += [layout.STATE, f"{layout.UNITS}/{Path(layout.SERVICE).stem}.*"]


def test_operating_system(host: Host, expect: Expectations) -> None:
    """The operating system is the one the profile chose (R-OS, R-AMI)."""
    content = host.file("/etc/os-release").content_string
    ids = [line[3:].strip("'\"") for line in content.splitlines() if line.startswith("ID=")]
    assert ids and ids[0] in expect.os_ids


def test_user_and_home(host: Host, expect: Expectations) -> None:
    """The user exists and has the home the operating system gives it (R-OS)."""
    assert host.user(expect.user).exists
    assert host.user(expect.user).home == expect.home


def test_home_belongs_to_user(host: Host, expect: Expectations) -> None:
    """The home belongs to its user, and nobody else may write to it (R-OS)."""
    home = host.file(expect.home)
    assert home.is_directory
    assert home.user == expect.user
    assert not home.mode & 0o022, f"{expect.home} has mode {home.mode:o}"


def test_user_may_become_root(host: Host, expect: Expectations) -> None:
    """The user becomes root without a password, as on every EC2 image (R-OS)."""
    with host.sudo(expect.user):
        done = host.run("sudo -n id -u")
    assert done.stdout.strip() == "0", done.stderr


def test_no_passwords(system: dict[str, Any], caused: Caused) -> None:
    """No account has a password or is open without one: keys alone let people in."""
    assert caused("with_password", system["with_password"]) == []


def test_only_ssh_listens(system: dict[str, Any], caused: Caused) -> None:
    """Nothing but SSH can be reached from outside."""
    outside = {name: one for name, one in system["sockets"].items() if not _is_loopback(one[1])}
    found = {name: "" for name, one in outside.items() if not _is_expected(one[0], one[2])}
    assert caused("listening", found) == []


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address in ("::1", "::ffff:127.0.0.1")


def _is_expected(protocol: str, port: int) -> bool:
    return port == SSH if protocol.startswith("tcp") else port in DHCP_CLIENT


def test_nothing_is_writable_for_others(host: Host, expect: Expectations) -> None:
    """Of all that the bake made, nothing can be changed by a group or by everybody (R-SYSTEMD)."""
    places = " ".join([*MADE, shlex.quote(expect.cache_dir)])
    # Missing ones are another check's business, but some must exist. Links have no mode of their own.
    assert host.run(f"find {places} -maxdepth 0").stdout
    found = host.run(f"find {places} ! -type l -perm /022 -printf '%m %p\\n'")
    assert found.stdout.splitlines() == []


def test_packages_are_consistent(
    host: Host, expect: Expectations, packages: dict[str, Any], caused: Caused
) -> None:
    """Every package is installed completely and has what it needs (R-OS)."""
    found = packages["unsound_packages"]
    if expect.packages == "apt":
        # Packages that dpkg could not finish, by provision/lib/packages.sh.
        brought = host.run(f"cat {layout.UNFINISHED_PACKAGES}").stdout.split()
        names = {line: re.match(r" (\S+)", line) for line in found}
        if brought:
            found = {line: "" for line, name in names.items() if name and name[1] not in brought}
    assert caused("unsound_packages", found) == []


def test_system_python_is_untouched(packages: dict[str, Any], caused: Caused) -> None:
    """The system's own Python is as its packages, or the base AMI's makers, delivered it."""
    assert packages["python_packages"]
    assert caused("changed_python", packages["changed_python"]) == []


def test_no_failed_units(system: dict[str, Any], expect: Expectations, caused: Caused) -> None:
    """No unit of systemd has failed on the builder."""
    # NVIDIA's daemons end where there is no GPU, the fabric manager where there is no NVSwitch; the boot
    # check looks at them on the worker's own type.
    daemons = "nvidia-fabricmanager." if expect.device else "nvidia-"
    excused = (daemons,) if expect.accelerator == "cuda" else ()
    found = {unit: said for unit, said in system["failed_units"].items() if not unit.startswith(excused)}
    # Whatever the baseline says: without these there is no worker.
    ours = [unit for unit in found if unit.startswith(("flux-worker", "bake-"))]
    assert caused("failed_units", {unit: found[unit] for unit in found if unit not in ours}) + ours == []


def test_no_new_rights(rights: dict[str, Any], caused: Caused) -> None:
    """No program runs with another's rights but those of packages and of the base AMI."""
    assert rights["users"]
    others = {path: one for path, one in rights["setuid"].items() if path not in rights["packaged"]}
    assert caused("setuid", others, rights["changed"]) == []


def test_no_swap(system: dict[str, Any], caused: Caused) -> None:
    """A boot switches no swap on that the base did not: the worker has none in any case (R-OOM)."""
    assert caused("swap", system["swap"]) == []


def test_clock(host: Host) -> None:
    """The clock is right: AWS refuses requests that are signed at another time."""
    asked = time.time()  # the remote clock is read between this and the answer
    there = float(host.check_output("date +%s.%N"))
    assert asked - LARGEST_CLOCK_ERROR_S < there < time.time() + LARGEST_CLOCK_ERROR_S


def test_metadata_needs_a_token(host: Host) -> None:
    """The metadata service answers IMDSv2 alone."""
    ask = (
        "import urllib.request as u, urllib.error as e\n"
        "try: print(u.urlopen('http://169.254.169.254/latest/meta-data/', timeout=60).status)\n"
        "except e.URLError as error: print(getattr(error, 'code', error.reason))"
    )
    assert host.check_output(f"{layout.SYSTEM_PYTHON} -c %s", ask) == "401"
