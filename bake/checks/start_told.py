"""What a booted machine tells of its start: texts that were written there, by programs of the image.

What is missing or garbled is not measured; it says nothing bad about the image.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Since boot (CLOCK_BOOTTIME), or of a stage."""
Count = Annotated[int, Field(ge=0)]


class Told(BaseModel):
    """Written on the machine: what is not known here is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class WarmStage(Told):
    """One stage of the warm-up: its bytes, and the seconds that it took."""

    name: str
    bytes: Count = 0
    seconds: Seconds = 0.0


class Warm(Told):
    """/run/flux-warm/report.json."""

    format: Literal[1]
    recorded: str = ""
    started: Seconds
    ended: Seconds | None = None
    bytes: Count
    of: Count = 0
    from_disk: Count | None = None
    seconds: Seconds
    queue_depth: Seconds | None = None
    cpu_seconds: Seconds | None = None
    stages: tuple[WarmStage, ...] = ()
    state: str
    skipped: tuple[str, ...] = ()

    @property
    def read(self) -> int:
        """Bytes that came from the disk; the rest was in memory."""
        return self.bytes if self.from_disk is None else self.from_disk

    @property
    def note(self) -> str:
        """In which order it read, how far it came unless it is done, and what it left out first."""
        state = "" if self.state == "done" else f"{self.state}: {self.bytes} of {self.of} bytes"
        return "; ".join(filter(None, (state, self.recorded, *self.skipped[:1])))


class WorkerStage(Told):
    """One stage of a worker's start, as it tells it."""

    name: str
    began: Seconds
    ended: Seconds | None = None
    bytes: int | None = None
    facts: dict[str, Any] = {}


class Start(Told):
    """A worker's start.json (flux_worker/host/stages.py)."""

    format: Literal[1]
    process_started: Seconds
    stages: tuple[WorkerStage, ...]

    @property
    def ended(self) -> float:
        """When its last stage ended."""
        return max((one.ended for one in self.stages if one.ended is not None), default=0.0)


class Source(Told):
    """One source of a streaming load, as its report has it."""

    name: str
    bytes: Count
    seconds: Seconds = 0.0
    dropped: str | None = None


class _Stream(Told):
    sources: tuple[Source, ...]


class Load(Told):
    """What the worker's load says of itself: bytes of all weights, and from which sources they came."""

    weights_bytes: Count = 0
    stream: _Stream | None = None

    @property
    def of_disk(self) -> int:
        """Bytes of weights that came through the file system."""
        return self._disk.bytes if self._disk is not None else self.weights_bytes

    @property
    def seconds(self) -> float | None:
        """Seconds in which they did, where the load measured that."""
        return self._disk.seconds if self._disk is not None else None

    @property
    def _disk(self) -> Source | None:
        sources = self.stream.sources if self.stream is not None else ()
        return next((one for one in sources if one.name == "disk"), None)

    @property
    def note(self) -> str:
        """The bytes of each source, if there were several, and why one was given up."""
        sources = self.stream.sources if self.stream is not None else ()
        shares = [f"{one.name} {one.bytes / 1e9:.1f} GB" for one in sources] if len(sources) > 1 else []
        gone = [f"{one.name} was given up: {one.dropped}" for one in sources if one.dropped]
        return "; ".join([*([", ".join(shares)] if shares else []), *gone])


def read_load(facts: dict[str, Any]) -> Load | None:
    """The load's facts; None if they are others."""
    try:
        return Load.model_validate(facts)
    except ValidationError:
        return None


class Worker(Told):
    """One worker's process and what it tells of its start."""

    unit: str
    started: Seconds | None = None
    ready: Seconds | None = None
    restarts: Count = 0


class Machine(Told):
    """What the probe `boot_times` tells."""

    now: Seconds
    container: bool = False
    userspace: Seconds | None = None
    finished: Seconds | None = None
    workers: tuple[Worker, ...] = ()
    cloud_init: dict[str, float] = {}
    warm: str | None = None
    starts: dict[str, str | None] = {}

    @property
    def last(self) -> Worker | None:
        """The worker that was ready last."""
        ready = [one for one in self.workers if one.ready is not None and one.started is not None]
        return max(ready, key=lambda one: one.ready or 0.0, default=None)

    def read_warm(self, notes: list[str]) -> Warm | None:
        """The warm-up's report; None where there is none, or one that can't be read, as `notes` then say."""
        if self.warm is None:
            return None
        try:
            return Warm.model_validate_json(self.warm)
        except ValidationError:
            notes.append("the warm-up's report can't be read")
            return None

    def read_starts(self, notes: list[str]) -> list[Start]:
        """Of each worker what it kept of its start."""
        found = []
        for name, text in self.starts.items():
            try:
                found.append(Start.model_validate_json(text or ""))
            except ValidationError:
                notes.append(f"the worker's {name} can't be read")
        return found
