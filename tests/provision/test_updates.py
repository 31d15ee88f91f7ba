"""provision/updates.sh on a machine of each system, with a distribution that is made there."""

from __future__ import annotations

import base64
import functools
import io
import json
import re
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bake.checks import inventory
from bake.layout import BAKE
from bake.steps import provision
from bake.updates.held import HELD, SETTING
from bake.updates.pending import pending
from bake.wiring import environment_text

from .boxes import HOLD_LOCK
from .distributions import Apt, Distribution, Offer, distribution

if TYPE_CHECKING:
    from tests.conftest import Machine, NewMachine

pytestmark = pytest.mark.root
LOCKS = {"apt": "/var/lib/dpkg/lock-frontend", "rpm": "/var/lib/rpm/.rpm.lock"}


@pytest.fixture(
    scope="module", params=["g6e-ubuntu", pytest.param("g6e-amazon-linux", marks=pytest.mark.long)]
)
def machine(request: pytest.FixtureRequest, new_machine: NewMachine) -> Iterator[Machine]:
    with new_machine(request.param) as machine:
        provision.upload(machine.session, machine.plan, machine.run)
        yield machine


@pytest.fixture
def base(machine: Machine) -> Iterator[Distribution]:
    """A base with two packages and a kernel, of which its maker holds nothing."""
    own = distribution(machine.session, machine.plan.system.packages)
    own.clear()
    own.offer("release", *(Offer(name, "1.0") for name in ("fixed", "plain", "linux-image-aws")))
    own.offer("updates", Offer("plain", "1.5"), Offer("fixed", "1.3"))
    own.offer("security", Offer("fixed", "1.2"), Offer("linux-image-aws", "2.0"), Offer("absent", "1.1"))
    own.install(*(Offer(name, "1.0") for name in ("fixed", "plain", "linux-image-aws")))
    own.sources("good")
    yield own
    own.clear()


NAMES = ("fixed", "plain", "linux-image-aws", "absent", "newly")
OLD = {"fixed": "1.0", "plain": "1.0", "linux-image-aws": "1.0"}


def versions(base: Distribution) -> dict[str, str]:
    return {name: version.removesuffix("-1") for name, version in base.installed(*NAMES).items()}


def test_what_is_pending_is_installed_and_nothing_else(base: Distribution) -> None:
    base.root("echo mine > /etc/fixed.conf")
    done = base.update()
    assert done.exit_code == 0, done.stderr
    assert versions(base) == {**OLD, "fixed": "1.2"}
    assert base.pending() == {}
    end = "" if base.packages == "apt" else "-1"
    assert f"updated fixed 1.0{end} 1.2{end}" in done.stdout.splitlines()
    held, installed = base.notes(done)
    assert held.startswith("held back, as the kernel, a driver or the base's own hold: linux-image-aws 1.0")
    assert installed == f"1 security updates installed: fixed 1.0{end} → 1.2{end}"
    # A person's settings stay, and nothing is closed to the worker by the base's umask.
    assert base.root("cat /etc/fixed.conf; stat -c %a /usr/share/fixed/version").stdout == "mine\n644\n"


def test_a_second_time_there_is_nothing_to_do(base: Distribution) -> None:
    assert base.update().exit_code == 0
    again = base.update()
    assert again.exit_code == 0, again.stderr
    assert base.notes(again)[-1] == "no security update is pending"
    assert "updated" not in again.stdout


def test_the_check_sees_what_is_not_installed(base: Distribution) -> None:
    assert base.update().exit_code == 0
    # As if the package manager had left it where it was.
    base.root("dpkg --purge fixed >/dev/null" if isinstance(base, Apt) else "rpm --erase fixed")
    base.install(Offer("fixed", "1.0"))
    assert list(base.pending()) == ["fixed"]


def test_what_an_update_newly_needs_comes_with_it(base: Distribution) -> None:
    base.offer("release", Offer("newly", "1.0"))
    base.offer("security", Offer("fixed", "1.2.1", needs="newly"))
    done = base.update()
    assert done.exit_code == 0, done.stderr
    assert versions(base) == {**OLD, "fixed": "1.2.1", "newly": "1.0"}
    assert "updated newly - 1.0" in done.stdout


def test_what_the_base_holds_stays_and_is_said(base: Distribution) -> None:
    base.hold("fixed")
    done = base.update()
    assert done.exit_code == 0, done.stderr
    assert versions(base) == OLD
    held, nothing = base.notes(done)
    assert "fixed 1.0" in held
    assert nothing == "no security update is pending"
    assert base.pending() == {}


@pytest.mark.parametrize(
    ("state", "why"),
    [
        pytest.param("down", "the index of the security updates can't be had", id="does not answer"),
        pytest.param("unsigned", "the index of the security updates can't be had", id="not signed"),
        pytest.param("none", "no package source of the base AMI has security updates", id="none"),
    ],
)
def test_without_an_index_the_bake_ends_and_nothing_is_changed(
    base: Distribution, state: str, why: str
) -> None:
    if state == "unsigned" and not isinstance(base, Apt):
        pytest.skip("dnf looks at the signatures of packages")
    base.sources(state)
    done = base.update()
    assert done.exit_code == 1
    assert why in done.stderr
    assert "base.updates" in done.stderr.splitlines()[-1]
    assert versions(base) == OLD


def test_a_vendors_repository_that_is_down_does_not_matter(base: Distribution) -> None:
    base.sources("vendor down")
    done = base.update()
    assert done.exit_code == 0, done.stderr
    assert versions(base)["fixed"] == "1.2"


def test_a_rehearsals_stand_in_may_have_none(base: Distribution) -> None:
    base.sources("none")
    done = base.update(BAKE_UPDATES_INDEX="optional")
    assert done.exit_code == 0, done.stderr
    assert base.notes(done) == [
        "security updates are not known in this rehearsal: its stand-in base has no index of them"
    ]


def test_an_update_that_fails_ends_the_bake_and_is_named(base: Distribution) -> None:
    base.offer("security", Offer("fixed", "1.2.2", breaks=True))
    done = base.update()
    assert done.exit_code == 1
    assert "it will not" in done.stderr or "scriptlet failed" in done.stderr
    assert "fixed" in done.stderr.splitlines()[-2]
    assert versions(base)["fixed"] == "1.0"


def test_an_update_that_would_remove_something_is_named(base: Distribution) -> None:
    if not isinstance(base, Apt):
        pytest.skip("apt's")
    base.offer("security", Offer("fixed", "1.2.3", apart="plain"))
    done = base.update()
    assert done.exit_code == 1
    assert "can't be installed without removing other packages: fixed" in done.stderr
    assert versions(base) == OLD


def test_a_lock_that_somebody_holds_is_waited_for(base: Distribution) -> None:
    script = f'setsid python3 -c "{HOLD_LOCK}" {LOCKS[base.packages]} >/dev/null 2>&1 &\necho $!\n'
    pid = base.root(f"rm -f /run/held\n{script}until [ -e /run/held ]; do sleep 0.1; done").stdout.strip()
    base.root(f"(sleep 5; kill {pid}) >/dev/null 2>&1 &")
    done = base.update()
    assert done.exit_code == 0, done.stderr
    assert f"waiting for process {pid} " in done.stderr
    assert versions(base)["fixed"] == "1.2"


def test_the_machines_own_lists_stay_as_they_are(base: Distribution) -> None:
    listed = "find /var/lib/apt/lists /etc/{apt,dnf,yum.repos.d} -type f 2>/dev/null | sort | xargs cat"
    before = base.root(f"{{ {listed}; }} | sha256sum", check=False).stdout
    assert base.update().exit_code == 0
    assert base.root(f"{{ {listed}; }} | sha256sum", check=False).stdout == before
    assert base.root(f"find {BAKE}/updates -name '*.deb' -o -name '*.rpm'").stdout == ""


# What the controller makes of it


def test_the_bake_keeps_what_was_installed_for_the_report(machine: Machine, base: Distribution) -> None:
    settings = environment_text({"BAKE_UPDATES": "security", SETTING: " ".join(HELD)})
    machine.session.run("tee", f"{BAKE}/settings.env", stdin=settings.encode(), sudo=True)
    provision.install_updates(machine.session, machine.plan, machine.run)
    told = json.loads((machine.run.directory / provision.UPDATES).read_text())
    end = "" if base.packages == "apt" else "-1"
    assert told == {"updated": [{"package": "fixed", "old": f"1.0{end}", "new": f"1.2{end}"}]}
    assert any(note.startswith("held back") for note in machine.run.progress.notes)


class Quiet(SimpleHTTPRequestHandler):
    """Files over HTTP, without a line for each."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def copied(base: Distribution, folder: Path) -> Iterator[str]:
    """The machine's archive behind a web server of this host; its URL."""
    packed = base.root("tar --create --directory /srv/archive . | base64").stdout
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(packed))) as tar:
        tar.extractall(folder, filter="data")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_who_has_the_inventory_finds_the_same_without_the_machine(base: Distribution, tmp_path: Path) -> None:
    def found(url: str) -> list[str]:
        taken, _ = inventory.take(base.session, "sealed", cache="/none")
        assert "sources" not in taken.incomplete
        here = [
            one.model_copy(update={"url": re.sub("file:/+srv/archive", url, one.url)})
            for one in taken.sources
        ]
        assert here
        told = pending(taken.model_copy(update={"sources": tuple(here)}))
        assert not [why for why in told.unknown if "no TLS" not in why]
        return [f"{one.package} {one.available.removesuffix('-1')}" for one in told.updates]

    with copied(base, tmp_path) as url:
        assert found(url) == ["fixed 1.2"]
        assert base.update().exit_code == 0
        assert found(url) == []
