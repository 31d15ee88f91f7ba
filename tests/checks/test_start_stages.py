"""A start is divided into stages by what EC2, systemd, the warm-up and the worker told of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bake.checks.cold_start import Bandwidth, ColdStart
from bake.checks.start_stages import LEAST, measured
from bake.checks.start_told import Machine
from bake.report.cold_start import hydration, sentence, table

GB = 10**9
LEFT_OUT = ["2 left out, such as /a: is gone", "1 left out, such as /b: is gone"]
DISK = Bandwidth(mb_per_s=100, limit="the volume's throughput")
WARM = {
    "format": 1, "recorded": "start on cuda", "started": 4.0, "ended": 44.0, "bytes": 3 * GB, "of": 3 * GB,
    "seconds": 40.0, "queue_depth": 31.5, "cpu_seconds": 2.0, "state": "done", "skipped": [],
    "stages": [{"name": "libraries", "bytes": GB, "seconds": 12.0}],
}  # fmt: skip


def start(**changed: Any) -> dict[str, Any]:
    stages = [
        {"name": "imports", "began": 20.0, "ended": 30.0, "seconds": 10.0, "bytes": 0},
        {"name": "load", "began": 30.0, "ended": 50.0, "seconds": 20.0, "bytes": GB,
         "facts": {"weights_bytes": GB}},
        {"name": "first_draw", "began": 50.0, "ended": 52.0, "seconds": 2.0, "bytes": 0},
    ]  # fmt: skip
    return {"format": 1, "pid": 7, "process_started": 20.0, "stages": stages} | changed


def told(**changed: Any) -> Machine:
    worker = {"unit": "flux-worker.service", "started": 20.0, "ready": 52.5, "restarts": 0}
    facts = {
        "now": 70.0, "container": False, "userspace": 3.0, "finished": 21.0, "workers": [worker],
        "cloud_init": {"init": 1.5}, "warm": json.dumps(WARM), "starts": {"start.json": json.dumps(start())},
    }  # fmt: skip
    return Machine.model_validate(facts | changed)


def of(machine: Machine | None, **changed: Any) -> ColdStart:
    how: dict[str, Any] = {"running": -5.0, "drawing": 1.5, "bandwidth": DISK, "max_seconds": None}
    return measured(machine, **how | changed)


def took(found: ColdStart) -> dict[str, float | None]:
    return {one.name: one.seconds for one in found.stages}


def test_the_stages_add_up_to_the_time_from_running_to_the_first_image() -> None:
    """EC2 said "running" five seconds before the kernel's clock began."""
    found = of(told())
    assert took(found) == {
        "kernel": 8.0, "userspace": 17.0, "warm": 40.0, "imports": 10.0, "load": 20.0, "first draw": 2.0,
        "other": 0.5, "first image": 1.5,
    }  # fmt: skip
    assert found.seconds == 59.0
    assert found.seconds == sum(one.seconds or 0 for one in found.stages if not one.beside)
    assert [one.name for one in found.stages if one.beside] == ["warm"]
    warm = found.stage("warm")
    assert warm is not None and warm.began == 9.0
    kernel = found.stage("kernel")
    assert kernel is not None and "5.0 s" in kernel.note
    assert found.slowest is not None and found.slowest.name == "load"


def test_each_stage_is_held_against_its_bytes_at_the_disks_rate() -> None:
    found = of(told())
    warm, load = found.stage("warm"), found.stage("load")
    assert warm is not None and load is not None
    assert (warm.mb_per_s, warm.floor_seconds, warm.ratio) == (75.0, 30.0, 1.33)
    assert (load.bytes, load.floor_seconds, load.ratio) == (GB, 10.0, 2.0)
    imports = found.stage("imports")
    assert imports is not None and imports.ratio is None, "it read nothing, and no floor is below it"
    assert (found.bytes, found.floor_seconds, found.ratio) == (4 * GB, 40.0, 1.48)
    assert (load.facts, warm.facts["stages"][0]["name"]) == ({"weights_bytes": GB}, "libraries")


def test_running_that_was_seen_late_begins_with_the_kernel() -> None:
    found = of(told(), running=40.0)
    assert (found.seconds, took(found)["kernel"]) == (54.0, 3.0)
    found = of(told(), running=None)
    assert found.seconds == 54.0
    assert any("nobody saw" in note for note in found.notes)


def test_a_container_has_no_kernel_and_says_so() -> None:
    """Its systemd's clock is that of a host which has run for days."""
    found = of(told(container=True), running=3.4)
    kernel = found.stage("kernel")
    assert kernel is not None and (kernel.seconds, found.seconds) == (0.0, 51.0)
    assert "container" in kernel.note


def test_of_several_workers_the_last_one_counts_and_the_bytes_of_all() -> None:
    late = start()
    late["stages"][1] |= {"ended": 58.0}
    late["stages"][2] |= {"began": 58.0, "ended": 60.0}
    workers = [
        {"unit": f"flux-worker@{number}.service", "started": 20.0, "ready": ready, "restarts": 0}
        for number, ready in enumerate((60.0, 52.0))
    ]
    starts = {"start-0.json": json.dumps(late), "start-1.json": json.dumps(start())}
    found = of(told(workers=workers, starts=starts))
    load = found.stage("load")
    assert load is not None and (load.seconds, load.bytes) == (28.0, 2 * GB)
    assert found.seconds == 66.5


def test_stages_that_overlap_count_once() -> None:
    """The load may begin before the last import has ended."""
    early = start()
    early["stages"][1] |= {"began": 22.0}
    found = of(told(starts={"start.json": json.dumps(early)}))
    assert (took(found)["load"], took(found)["other"], found.seconds) == (28.0, 0.5, 59.0)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="cut"),
        pytest.param("[]", id="a-list"),
        pytest.param("[" * 5000, id="nested"),
        pytest.param('{"format": 2}', id="another-format"),
        pytest.param(json.dumps(start(stages=[{"name": "load", "began": "soon"}])), id="words"),
        pytest.param(json.dumps(start(process_started=float("nan"))), id="nan"),
        pytest.param('{"format": 1, "process_started": 1e999, "stages": []}', id="endless"),
        pytest.param(json.dumps(WARM | {"bytes": -1, "stages": 7}), id="negative"),
    ],
)
def test_what_cannot_be_read_is_not_measured(text: str) -> None:
    found = of(told(warm=text, starts={"start.json": text}))
    assert [took(found)[name] for name in ("warm", "imports", "load", "first draw")] == [None] * 4
    assert found.seconds == 59.0, "systemd's times alone give it"
    assert took(found)["other"] == 32.5
    assert len(found.notes) == 2 and all("can't be read" in note for note in found.notes)
    assert "not measured" in table(found)


def test_what_is_not_there_is_not_measured_and_no_trouble() -> None:
    found = of(told(warm=None, starts={}, cloud_init={}))
    assert (found.notes, found.bytes, found.ratio) == ((), None, None)
    assert (found.hydration_mb_per_s, found.seconds) == (None, 59.0)


def test_a_machine_that_does_not_answer_has_a_start_all_the_same() -> None:
    for machine in (None, told(userspace=None), told(workers=[])):
        found = of(machine, max_seconds=100)
        assert found.seconds is None
        assert found.too_slow
        assert "was not measured" in sentence(found)
        assert ColdStart.model_validate_json(found.model_dump_json()) == found


def test_numbers_that_json_does_not_have_are_not_passed_on() -> None:
    odd = start()
    odd["stages"][1]["facts"] = {"rate": float("nan"), "most": float("inf"), "name": "<b>\x1b[2J"}
    found = of(told(starts={"start.json": json.dumps(odd)}))
    kept = json.loads(found.model_dump_json(), parse_constant=pytest.fail)
    [load] = [one for one in kept["stages"] if one["name"] == "load"]
    assert load["facts"] == {"rate": None, "most": None, "name": "<b>\x1b[2J"}


@pytest.mark.parametrize(
    ("warm", "loaded", "rate", "read_by"),
    [
        pytest.param(3 * GB, GB, 75.0, "the warm-up", id="warm-up"),
        pytest.param(0, GB, 50.0, "the load", id="load"),
        pytest.param(LEAST - 1, GB, 50.0, "the load", id="warm-up-read-too-little"),
        pytest.param(0, LEAST - 1, None, "not measured", id="nothing"),
    ],
)
def test_first_reads_are_the_warm_ups_or_else_the_loads(
    warm: int, loaded: int, rate: float | None, read_by: str
) -> None:
    worker = start()
    worker["stages"][1] |= {"bytes": loaded}
    found = of(told(warm=json.dumps(WARM | {"bytes": warm}), starts={"start.json": json.dumps(worker)}))
    assert found.hydration_mb_per_s == rate
    assert found.hydration_from.startswith(read_by)
    assert read_by in hydration(found)


@pytest.mark.parametrize(
    ("facts", "rate"),
    [
        pytest.param({"weights_bytes": 2 * GB}, 50.0, id="half-was-in-memory"),
        pytest.param({"weights_bytes": 3 * GB}, None, id="most-was-in-memory"),
        pytest.param({"weights_bytes": LEAST - 1}, None, id="libraries"),
        pytest.param({}, None, id="not-told"),
        pytest.param({"weights_bytes": "many"}, None, id="words"),
        pytest.param(
            {"stream": {"sources": [{"name": "disk", "bytes": GB, "seconds": 8.0}]}}, 125.0, id="disk"
        ),
    ],
)
def test_a_load_tells_of_the_disk_what_it_read_of_weights(facts: dict[str, Any], rate: float | None) -> None:
    """A load that imports libraries by page faults read bytes, too: that is not the disk's rate."""
    worker = start()
    worker["stages"][1] |= {"facts": facts}
    found = of(told(warm=None, starts={"start.json": json.dumps(worker)}))
    assert found.hydration_mb_per_s == rate


def test_a_load_from_two_sources_says_what_each_gave() -> None:
    sources = [
        {"name": "disk", "bytes": GB, "seconds": 10.0, "dropped": None},
        {"name": "s3", "bytes": 3 * GB, "seconds": 10.0, "dropped": "its bytes were others"},
    ]
    worker = start()
    worker["stages"][1] |= {"facts": {"weights_bytes": 4 * GB, "stream": {"sources": sources}}}
    load = of(told(starts={"start.json": json.dumps(worker)})).stage("load")
    assert load is not None
    assert load.note == "disk 1.0 GB, s3 3.0 GB; s3 was given up: its bytes were others"


def test_what_was_in_memory_already_is_not_what_the_disk_gave() -> None:
    found = of(told(warm=json.dumps(WARM | {"from_disk": 2 * GB})))
    warm = found.stage("warm")
    assert warm is not None
    assert (warm.bytes, warm.facts["bytes"], found.hydration_mb_per_s) == (2 * GB, 3 * GB, 50.0)


def test_a_limit_is_kept_or_not() -> None:
    assert [of(told(), max_seconds=limit).too_slow for limit in (None, 59, 58)] == [False, False, True]


def test_a_restart_and_an_unfinished_warm_up_are_told() -> None:
    worker = {"unit": "flux-worker.service", "started": 20.0, "ready": 52.5, "restarts": 2}
    unfinished = WARM | {"state": "reading", "ended": None, "bytes": GB, "skipped": LEFT_OUT}
    found = of(told(workers=[worker], warm=json.dumps(unfinished)))
    assert any("restarted 2 times" in note for note in found.notes)
    warm = found.stage("warm")
    assert warm is not None
    assert warm.note == f"reading: {GB} of {3 * GB} bytes; start on cuda; 2 left out, such as /a: is gone"


def test_the_table_has_a_line_for_each_stage() -> None:
    lines = table(of(told(), max_seconds=58)).splitlines()
    assert "took 59.0 s (cold_start.max_seconds: 58), 1.5 times the floor: 4.0 GB at 100 MB/s" in lines[1]
    assert [line.split()[0] for line in lines[3:11]] == [
        "kernel", "userspace", "warm", "imports", "load", "first", "other", "first",
    ]  # fmt: skip
    assert lines[-1].strip() == "First reads: 75.0 MB/s, 3.0 GB by the warm-up"
