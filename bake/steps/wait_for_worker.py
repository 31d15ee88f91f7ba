"""Wait for the worker on a new image: patiently while its disk is slow, not when the worker hangs.

A volume made from a snapshot fetches each block from S3 on its first read. A start may take an hour for that
reason, and the image is fine.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bake.aws import Aws
from bake.errors import BakeError, NotVerified, TimedOut
from bake.layout import SERVICE, SERVICE_OF_SEVERAL, WORKERS_ENV
from bake.run import Run
from bake.ssh import Session
from bake.steps.volume_initialization import Watched

# A start that timed out is the disk's fault if bytes were read within these last seconds.
LATELY = 300
_LEAST_BYTES = 1 << 20
_SHOW = "systemctl show --value -p"
_LOOKS = 0.5  # seconds between two looks at most: a machine is asked, and no service of AWS
# Prints each worker's unit as systemd shows it, and the bytes that its process has read (proc(5)), as root.
# How many there are, the unit wrote when it started; of several, each has a unit with its number.
_LOOK = f"""
workers=$(sed -n s/^FLUX_WORKERS=//p {WORKERS_ENV} 2>/dev/null)
if [ "${{workers:-1}}" -gt 1 ] 2>/dev/null; then
  set -- $(seq -f "{SERVICE_OF_SEVERAL.replace("@", "@%.0f")}" 0 $((workers - 1)))
else
  set -- {SERVICE}
fi
for unit; do
  shown=$(systemctl show "$unit" -p Id,LoadState,ActiveState,SubState,StatusText,NRestarts,MainPID,Result) ||
    exit
  printf '%s\\n' "$shown"
  process=$(printf '%s\\n' "$shown" | sed -n s/^MainPID=//p)
  sed -n 's/^read_bytes: /read_bytes=/p' "/proc/$process/io" 2>/dev/null || true
  echo
done
"""
_TIMED_OUT = "start operation timed out"  # systemd's words
# Prints what the kernel and NVIDIA's daemon log about the accelerator, and whether it answers.
_DRIVER = r"""
journalctl -b -o cat --no-pager _TRANSPORT=kernel + SYSLOG_IDENTIFIER=nvidia-persistenced |
  grep -E -i 'nvidia|nvrm|nouveau|neuron' | tail -n 10
if command -v nvidia-smi >/dev/null; then nvidia-smi -L 2>&1 | tail -n 3; fi
"""
_SLOW = "a new volume is filled while it is read: a faster volume type, or VolumeInitializationRate, helps"


class ImageIsBad(NotVerified):
    """The image failed on a running machine, and is not kept."""


@dataclass
class _Start:
    """State of the worker's start: `moved` is when it last made progress, `read` when it last read bytes."""

    moved: float = field(default_factory=time.monotonic)
    read: float = float("-inf")
    process: str = ""
    _bytes: int = 0
    text: str = ""

    def look(self, facts: Mapping[str, str]) -> None:
        """Update it with what systemd and the kernel report now."""
        now = time.monotonic()
        process, text = facts.get("MainPID", "0"), facts.get("StatusText", "")
        found = int(facts.get("read_bytes", 0))
        if process != self.process:
            self.process, self._bytes = process, found
        if found - self._bytes >= _LEAST_BYTES:
            self.read, self._bytes = now, found
        if self.read == now or text != self.text:
            self.moved, self.text = now, text

    def reads(self) -> bool:
        """Whether bytes were read recently."""
        return time.monotonic() - self.read < LATELY


def wait_until_ready(
    session: Session, aws: Aws, run: Run, *, stall: float, limit: float, volume: Watched | None = None
) -> float:
    """Wait for the worker's READY=1, which makes its unit active; return the seconds since boot.

    With several workers, one a GPU, wait for all. Waits `limit` seconds in all, and `stall` seconds without
    progress. How far `volume` is filled is shown meanwhile. Raises ImageIsBad if a worker fails or hangs, and
    another BakeError if its disk is slow, which says nothing about the image.
    """
    starts: dict[str, _Start] = defaultdict(_Start)

    def look() -> list[str] | None:
        found = services(session)
        waits = [one for one in found if not _is_ready(one, starts[one["Id"]], stall, session, run)]
        if waits:
            said = waits[0].get("StatusText") or waits[0].get("SubState")
            run.progress.status("; ".join(filter(None, (f"worker: {said}", volume.text() if volume else ""))))
        return None if waits else [one["Id"] for one in found]

    try:
        ready = aws.wait("the worker's READY", look, timeout=limit, longest=_LOOKS)
    except TimedOut as error:
        texts = [start.text for start in starts.values() if start.text]
        raise BakeError(
            f"{error.message}; the worker still gets on: {texts[-1] if texts else 'it reads from the disk'}",
            hint=f"worker.start_hours gives it longer; {_SLOW}",
        ) from error
    return _seconds_since_boot(session, ready)


def _is_ready(facts: Mapping[str, str], start: _Start, stall: float, session: Session, run: Run) -> bool:
    """Whether a worker is ready; raises what `wait_until_ready` does if it never will be."""
    before = start.moved
    start.look(facts)
    if start.moved != before:
        run.progress.tally.moved("the worker's start went on")
    _raise_if_slow(facts, start, session)
    raise_if_failed(facts, session)
    if facts.get("ActiveState") == "active":
        return True
    _raise_if_stalled(start, stall, session)
    return False


def services(session: Session) -> list[dict[str, str]]:
    """Return each worker's unit as systemd shows it, and the bytes that its process read, as `read_bytes`."""
    output = session.run("sh", "-c", _LOOK, sudo=True).stdout
    lines = ([line for line in block.splitlines() if "=" in line] for block in output.split("\n\n"))
    blocks = (dict(line.split("=", 1) for line in block) for block in lines)
    return [block for block in blocks if block]


def raise_if_failed(facts: Mapping[str, str], session: Session) -> None:
    """Raise ImageIsBad if the unit is missing, failed, or was restarted more than twice."""
    if facts.get("LoadState") != "loaded":
        raise ImageIsBad(f"the new image has no {facts.get('Id')}: systemd says {facts.get('LoadState')}")
    if _failed(facts):
        journal = _journal(session, facts, 20).strip()
        driver = session.run("sh", "-c", _DRIVER, sudo=True, check=False).stdout.strip()
        raise ImageIsBad(
            f"the worker does not start on the new image:\n{journal}"
            + (f"\nof the driver:\n{driver}" if driver else "")
        )


def _failed(facts: Mapping[str, str]) -> bool:
    return facts.get("ActiveState") == "failed" or int(facts.get("NRestarts") or 0) > 2


def _raise_if_slow(facts: Mapping[str, str], start: _Start, session: Session) -> None:
    """Raise BakeError if the start timed out while it was still reading: the image is not to blame."""
    if not _failed(facts) or not start.reads():
        return
    if facts.get("Result") == "timeout" or _TIMED_OUT in _journal(session, facts, 500):
        raise BakeError(
            "the worker's unit ran out of time (TimeoutStartSec=) while it read from the disk", hint=_SLOW
        )


def _raise_if_stalled(start: _Start, stall: float, session: Session) -> None:
    if (still := time.monotonic() - start.moved) < stall:
        return
    what = f"the worker's READY: not there, and no progress for {still:.0f} s"
    if _waits_for_disk(start.process, session):
        raise BakeError(f"{what}; it waits for the disk, which gives nothing", hint=_SLOW)
    raise ImageIsBad(what, hint="see logs/boot-check.journal.log")


def _waits_for_disk(process: str, session: Session) -> bool:
    """Whether one of its threads is in uninterruptible sleep, as in a read that does not return."""
    shown = session.run("ps", "-L", "-o", "stat=", "-p", process, check=False).stdout
    return any(state.startswith("D") for state in shown.split())


def _journal(session: Session, facts: Mapping[str, str], lines: int) -> str:
    return session.run("journalctl", "-u", facts["Id"], "-n", str(lines), "-o", "cat", sudo=True).stdout


def _seconds_since_boot(session: Session, units: Sequence[str]) -> float:
    """Return the seconds from the start of systemd to the last worker's READY, by systemd's clock."""
    script = f'{_SHOW} UserspaceTimestampMonotonic && {_SHOW} ActiveEnterTimestampMonotonic "$@"'
    booted, *ready = session.run("sh", "-c", script, "sh", *units).stdout.split()
    return round((max(int(one) for one in ready) - int(booted)) / 1e6, 1)
