"""A bake of a hostile base works, or stops in time for the reason in the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bake import localcloud
from bake.errors import EXIT_INTERRUPTED
from bake.localcloud import LocalCloud
from bake.localcloud.images.hostile import HostileBase, find, hostile_bases

from .hostile import Row, Watcher, forget, rehearse, table

# What `make test` tries; the rest are tried by `make test-long` and `make rehearse-hostile`.
SAMPLE = {
    "ubuntu": ("umask-077", "full"),
    "amazon-linux": ("old-systemd",),
}
# What is met late where it is met: these are baked to the end.
LATE = (
    *("umask-077", "noexec-tmp", "auditd", "rpcbind", "keys-in-opt", "verify-noise"),
    *("vendor-user", "failed-unit", "python-3.12-only", "ld-preload"),
)
WHOLE = [find(name) for name in LATE]
CASES = [
    pytest.param(
        base,
        id=f"{base.hostile.name}-{base.system}",
        marks=[] if base.hostile.name in SAMPLE[base.system] else [pytest.mark.long],
    )
    for base in hostile_bases()
]


@pytest.mark.root
@pytest.mark.parametrize("base", CASES)
def test_it_ends_as_the_catalogue_says(cloud: LocalCloud, tmp_path: Path, base: HostileBase) -> None:
    localcloud.provide(base.system, say=print)
    row = rehearse(base, tmp_path)
    assert not row.problem, row


@pytest.mark.root
@pytest.mark.long
@pytest.mark.parametrize("base", [pytest.param(base, id=base.name) for base in WHOLE])
def test_a_whole_bake_of_it_works(cloud: LocalCloud, tmp_path: Path, base: HostileBase) -> None:
    row = rehearse(base, tmp_path, full=True)
    forget(cloud, tmp_path)
    assert not row.problem, row


# --- how an end is judged ---------------------------------------------------------------------------


def events(*lines: tuple[float, str, str], failed: str = "") -> list[dict[str, Any]]:
    """A bake's: at, "started" or how it ended, and the step; at last the failure."""
    found: list[dict[str, Any]] = [
        {
            "event": "step_started" if what == "started" else "step_ended",
            "at": at,
            "step": step,
            "outcome": what,
        }
        for at, what, step in lines
    ]
    return [*found, *([{"event": "failed", "at": 999.0, "message": failed}] if failed else [])]


CONNECTED = ((1.0, "started", "launch"), (4.0, "done", "launch"), (5.0, "started", "connect"))


def judged(name: str, code: int, *lines: tuple[float, str, str], failed: str = "", full: bool = False) -> Row:
    system = "amazon-linux" if name == "old-systemd" else "ubuntu"
    watcher = Watcher(find(name, system), full=full)
    left = [watcher.hear(event) for event in events(*CONNECTED, *lines, failed=failed)]
    watcher.row.code = EXIT_INTERRUPTED if any(left) else code
    return watcher.row


def test_a_base_works_where_the_download_begins() -> None:
    row = judged(
        "umask-077", 5, (8.5, "done", "connect"), (8.5, "started", "provision"), (9.0, "failed", "provision")
    )
    assert (row.works, row.seconds, row.problem) == (True, 3.5, "")


def test_one_that_should_have_stopped_is_no_success() -> None:
    row = judged("old-systemd", 0, (8.5, "done", "connect"), (8.5, "started", "provision"))
    assert row.problem == "should stop: Amazon Linux 2"


def test_one_stops_in_time_and_for_its_own_reason() -> None:
    stop = (20.0, "failed", "connect")
    assert judged("requiretty", 5, stop, failed="sudo wants a TTY").problem == ""
    assert judged("requiretty", 5, stop, failed="no answer").problem == "should say why: tty|terminal"
    late = judged("requiretty", 5, (66.0, "failed", "connect"), failed="sudo wants a tty")
    assert (late.seconds, late.problem) == (61.0, "took more than 60 s")
    assert judged("umask-077", 5, stop, failed="no").problem == "should work"


def test_a_whole_bake_that_fails_after_the_download_began_fails_late() -> None:
    lines = ((9.0, "started", "provision"), (9.0, "started", "prefetch"), (90.0, "failed", "prefetch"))
    row = judged("requiretty", 5, *lines, failed="no tty", full=True)
    assert (row.step, row.problem) == ("prefetch", "fails late, in prefetch")
    assert judged("umask-077", 4, *lines, failed="checks", full=True).problem == "fails late, in prefetch"


def test_one_that_the_plan_refuses_never_connects() -> None:
    watcher = Watcher(find("data-volume"), full=False)
    for event in events(
        (0.1, "started", "plan"), (1.0, "failed", "plan"), failed="volumes that nobody agreed to"
    ):
        assert not watcher.hear(event)
    watcher.row.code = 2
    assert (watcher.row.seconds, watcher.row.problem) == (None, "")
    assert "stops in plan (2)" in table([watcher.row])
