"""Divide a cold start into its stages.

All of it is arithmetic on what others told: EC2 when the instance ran, systemd, the warm-up and the worker
on the instance's own clock, and the plan at which rate the disk can be read at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bake.checks.cold_start import NOT_MEASURED, Bandwidth, ColdStart, StageName, StartStage
from bake.checks.start_told import Machine, Start, Warm, Worker, read_load

OF_WORKER: Final[Mapping[str, StageName]] = {"imports": "imports", "load": "load", "first_draw": "first draw"}
"""Stages as the worker calls them, and as the report does."""
OF_WARM: Final = {"recorded", "bytes", "of", "queue_depth", "cpu_seconds", "state", "skipped"}
LEAST: Final = 16 << 20
"""Bytes; fewer say nothing of a disk's rate, since single requests take most of their time."""
_MB: Final = 1e6


def measured(
    machine: Machine | None,
    *,
    running: float | None,
    drawing: float | None,
    bandwidth: Bandwidth | None,
    max_seconds: int | None,
) -> ColdStart:
    """Divide a start into its stages.

    `running` is when the instance was seen running, on the machine's clock; `drawing` the seconds in which
    the first job's image was drawn. What a machine does not tell, or tells wrong, is not measured.
    """
    told = machine or Machine(now=0.0)
    notes: list[str] = []
    warm, starts = told.read_warm(notes), told.read_starts(notes)
    last = told.last
    zero = _zero(told, running, notes)
    stages = [
        *_boot(told, last, zero),
        *([] if zero is None else [_warm_stage(warm, zero)]),
        *_of_workers(starts, zero),
    ]
    total = _total(last, zero, drawing)
    stages += _rest(stages, last, zero)
    stages.append(_stage("first image", _since(zero, last.ready if last else None), drawing, None))
    if last is not None and last.restarts:
        notes.append(f"{last.unit} was restarted {last.restarts} times: its last start is measured")
    return _summed(tuple(stages), total, bandwidth, max_seconds, warm, notes)


def _zero(told: Machine, running: float | None, notes: list[str]) -> float | None:
    """When the start began, on the machine's clock: a kernel that began before EC2 told is what counts."""
    kernel = told.userspace if told.container else 0.0
    if kernel is None or told.userspace is None:
        notes.append("systemd does not tell when it started")
        return None
    if running is None:
        notes.append("nobody saw when the instance was running: the kernel's start is taken")
        return kernel
    return min(running, kernel)


def _boot(told: Machine, last: Worker | None, zero: float | None) -> list[StartStage]:
    """Until systemd, and from there until the worker's process."""
    userspace, started = told.userspace, last.started if last else None
    kernel = None if zero is None or userspace is None else userspace - zero
    until = None if userspace is None or started is None else max(started - userspace, 0.0)
    why = "a container, which has no kernel of its own" if told.container else ""
    if zero is not None and zero < 0:
        why = f"firmware and boot loader took {-zero:.1f} s of it"
    parts = ", ".join(f"{name} {took:.1f} s" for name, took in told.cloud_init.items())
    return [
        _stage("kernel", 0.0 if kernel is not None else None, kernel, None, note=why),
        _stage(
            "userspace",
            _since(zero, userspace),
            until,
            None,
            note=f"cloud-init: {parts}" if parts else "",
        ),
    ]


def _warm_stage(warm: Warm | None, zero: float) -> StartStage:
    if warm is None:
        return _stage("warm", None, None, None, beside=True, note=NOT_MEASURED)
    facts = warm.model_dump(mode="json", include=OF_WARM)
    facts["stages"] = [one.model_dump(mode="json") for one in warm.stages]
    began = _since(zero, warm.started)
    return _stage("warm", began, warm.seconds, warm.read, beside=True, note=warm.note, facts=facts)


def _of_workers(starts: Sequence[Start], zero: float | None) -> list[StartStage]:
    """The stages of the worker that came last; their bytes are those of all workers of the instance."""
    if not starts or zero is None:
        return [_stage(name, None, None, None, note=NOT_MEASURED) for name in OF_WORKER.values()]
    last = max(starts, key=lambda one: one.ended)
    return [_of_worker(name, called, last, starts, zero) for name, called in OF_WORKER.items()]


def _of_worker(name: str, called: StageName, last: Start, starts: Sequence[Start], zero: float) -> StartStage:
    one = next((one for one in last.stages if one.name == name and one.ended is not None), None)
    if one is None or one.ended is None:
        return _stage(called, None, None, None, note=NOT_MEASURED)
    read = [two.bytes for start in starts for two in start.stages if two.name == name]
    known = [max(size, 0) for size in read if size is not None]
    took, size = max(one.ended - one.began, 0.0), sum(known) if known else None
    told = read_load(one.facts) if name == "load" else None
    note = told.note if told is not None else ""
    return _stage(called, _since(zero, one.began), took, size, note=note, facts=one.facts)


def _rest(stages: Sequence[StartStage], last: Worker | None, zero: float | None) -> list[StartStage]:
    """What is left of the time until READY: the worker's whole start, where it told no stages."""
    if zero is None or last is None or last.ready is None:
        return []
    spans = [
        (one.began, one.began + one.seconds)
        for one in stages
        if not one.beside and one.began is not None and one.seconds is not None
    ]
    rest = last.ready - zero - _covered(spans)
    if rest < 0.05:
        return []
    return [_stage("other", None, rest, None, note="until READY, in none of these stages")]


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds that the spans cover; those that overlap count once."""
    covered, until = 0.0, float("-inf")
    for began, ended in sorted(spans):
        covered += max(ended - max(began, until), 0.0)
        until = max(until, ended)
    return covered


def _total(last: Worker | None, zero: float | None, drawing: float | None) -> float | None:
    if last is None or last.ready is None or zero is None or drawing is None:
        return None
    return round(last.ready - zero + drawing, 2)


def _since(zero: float | None, at: float | None) -> float | None:
    return None if zero is None or at is None else at - zero


def _stage(
    name: StageName,
    began: float | None,
    seconds: float | None,
    size: int | None,
    *,
    beside: bool = False,
    note: str = "",
    facts: Mapping[str, Any] | None = None,
) -> StartStage:
    """A stage without its floor."""
    return StartStage(
        name=name,
        began=None if began is None else round(began, 2),
        seconds=None if seconds is None else round(seconds, 2),
        bytes=size,
        mb_per_s=_rate(size, seconds),
        floor_seconds=None,
        ratio=None,
        beside=beside,
        note=note,
        facts=dict(facts or {}),
    )


def _rate(size: int | None, seconds: float | None) -> float | None:
    return round(size / seconds / _MB, 1) if size and seconds else None


def _summed(
    stages: tuple[StartStage, ...],
    total: float | None,
    bandwidth: Bandwidth | None,
    max_seconds: int | None,
    warm: Warm | None,
    notes: Sequence[str],
) -> ColdStart:
    """The whole, with the floor of each stage and of all."""
    sizes = [one.bytes for one in stages if one.bytes is not None]
    size = sum(sizes) if sizes else None
    floor = _floor(size, bandwidth)
    rate, of, read_by = _hydration(warm, stages)
    return ColdStart(
        seconds=total,
        max_seconds=max_seconds,
        stages=tuple(_with_floor(one, bandwidth) for one in stages),
        bytes=size,
        floor_mb_per_s=None if bandwidth is None else round(bandwidth.mb_per_s, 1),
        floor_from="" if bandwidth is None else bandwidth.limit,
        floor_seconds=floor,
        ratio=_ratio(total, floor),
        hydration_mb_per_s=rate,
        hydration_bytes=of,
        hydration_from=read_by,
        notes=tuple(notes),
    )


def _with_floor(one: StartStage, bandwidth: Bandwidth | None) -> StartStage:
    floor = _floor(one.bytes, bandwidth)
    return one.model_copy(update={"floor_seconds": floor, "ratio": _ratio(one.seconds, floor)})


def _floor(size: int | None, bandwidth: Bandwidth | None) -> float | None:
    if size is None or bandwidth is None or bandwidth.mb_per_s <= 0:
        return None
    return round(size / (bandwidth.mb_per_s * _MB), 2)


def _ratio(seconds: float | None, floor: float | None) -> float | None:
    return None if seconds is None or not floor else round(seconds / floor, 2)


def _hydration(warm: Warm | None, stages: Sequence[StartStage]) -> tuple[float | None, int | None, str]:
    """The rate of first reads: the warm-up's if it read from the disk, else the load's."""
    load = next((one for one in stages if one.name == "load"), None)
    read = [("the warm-up", warm.read, warm.seconds)] if warm is not None else []
    read += [("the load", *found)] if load is not None and (found := _loaded(load)) else []
    for read_by, size, seconds in read:
        if size >= LEAST and seconds > 0:
            return round(size / seconds / _MB, 1), size, read_by
    return None, None, f"{NOT_MEASURED}: neither the warm-up nor the load read much from the disk"


def _loaded(load: StartStage) -> tuple[int, float] | None:
    """Bytes of weights that the load itself read from the disk, and its seconds; None where most of what it
    read was not weights, or was in memory: libraries that are imported say nothing of the disk.
    """
    told = read_load(load.facts)
    if told is None or not load.bytes or load.seconds is None or load.bytes < told.of_disk / 2:
        return None
    return min(load.bytes, told.of_disk), told.seconds or load.seconds
