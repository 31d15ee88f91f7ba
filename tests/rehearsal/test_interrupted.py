"""A spot builder that EC2 takes back: what is kept, and how the run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bake.aws import Aws
from bake.journal import Record
from bake.localcloud import LocalCloud, Settings, over_socket

from .bakes import SPOT, Outcome, finish, resume, start, with_spot
from .test_resume import _each_thing_was_done_once, left, refused

pytestmark = pytest.mark.root


def interrupt(method: str, instance: str, **more: str) -> dict[str, str]:
    asked = "&".join(f"{key}={value}" for key, value in {"instance": instance, **more}.items())
    found: dict[str, str] = over_socket(Settings.load())(method, f"/-/interruptions?{asked}", None)
    return found


def begun(desk: Path, profiles: Path) -> tuple[Any, list[dict[str, Any]]]:
    """A bake on spot that has begun to provision, and its events so far."""
    process = start(desk, SPOT, profiles=with_spot(profiles))
    assert process.stdout is not None
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1].get("event") == "step_started" and events[-1]["step"] == "provision":
            return process, events
    pytest.fail(process.communicate()[1])


def builder_of(aws: Aws, run: str) -> dict[str, Any]:
    filters: Any = [{"Name": "tag:bake:run", "Values": [run]}, {"Name": "tag:Name", "Values": ["*-builder"]}]
    [group] = aws.ec2.describe_instances(Filters=filters)["Reservations"]
    found: dict[str, Any] = dict(group["Instances"][0])
    return found


def test_a_stopped_builder_is_kept_and_gone_on_with_at_its_new_address(
    cloud: LocalCloud, aws: Aws, tmp_path: Path
) -> None:
    process, events = begun(tmp_path, tmp_path / "profiles")
    run = next(event["id"] for event in events if event["event"] == "run")
    before = builder_of(aws, run)
    interrupt("POST", before["InstanceId"], notice="20s")
    outcome = finish(process, tmp_path)
    assert outcome.code == 5, outcome.errors
    _says_what_happened(outcome, run, before["InstanceId"])
    held = left(aws, run)
    assert before["InstanceId"] in held
    directory = tmp_path / ".bake/runs" / run
    record = Record.read(directory)
    assert record is not None
    assert record.ended is None
    again = resume(tmp_path, run)
    assert again.stdout is not None
    for line in again.stdout:
        if f"EC2 has interrupted {before['InstanceId']}, and starts it" in line:
            break
    assert "still goes on in another process" in refused(tmp_path, run)
    assert builder_of(aws, run)["State"]["Name"] == "stopped"
    address = interrupt("DELETE", before["InstanceId"])["address"]
    outcome = finish(again, tmp_path)
    assert outcome.code == 0, outcome.errors
    assert address != before["PrivateIpAddress"]
    _each_thing_was_done_once(directory)
    assert left(aws, run) == []
    assert aws.scheduler.list_schedule_groups(NamePrefix=f"bake-{run}")["ScheduleGroups"] == []
    assert Record.read(directory).held() == []  # type: ignore[union-attr]
    assert json.loads((directory / "report.json").read_text())["verdict"]["state"] == "good"


def _says_what_happened(outcome: Outcome, run: str, builder: str) -> None:
    notes = [event["text"] for event in outcome.events if event.get("event") == "note"]
    assert f"EC2 takes the spot builder {builder} back, and stops it within two minutes" in notes
    assert f"EC2 interrupted the spot builder {builder} and stopped it; its disk is kept" in outcome.errors
    assert f"`bake resume {run}` waits until EC2 has capacity" in outcome.errors


def test_a_terminated_builder_is_said_and_nothing_is_left(
    cloud: LocalCloud, aws: Aws, tmp_path: Path
) -> None:
    """Without its request EC2 can't start it again, and terminates it."""
    process, events = begun(tmp_path, tmp_path / "profiles")
    run = next(event["id"] for event in events if event["event"] == "run")
    builder = builder_of(aws, run)
    aws.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[builder["SpotInstanceRequestId"]])
    interrupt("POST", builder["InstanceId"], notice="0s")
    outcome = finish(process, tmp_path)
    assert outcome.code == 5, outcome.errors
    assert f"the builder {builder['InstanceId']} was interrupted by spot and terminated" in outcome.errors
    assert left(aws, run) == []
    assert "has ended (failed)" in refused(tmp_path, run)
