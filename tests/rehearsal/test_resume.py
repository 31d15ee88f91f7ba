"""A bake whose controller is killed goes on: `bake resume`."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bake.aws import Aws
from bake.journal import Record
from bake.localcloud import LocalCloud, RemoteFaults

from .bakes import finish, resume, start

pytestmark = pytest.mark.root
# Every step that can be gone on from; before `survey` nothing was done, and the seal's end nobody can know.
STEPS = ["survey", "tools", "provision", "prefetch", "verify"]
STEPS += ["stop", "create image", "boot check", "publish"]


def cut(process: subprocess.Popen[str], step: str) -> list[dict[str, Any]]:
    """Kill it when it begins a step; its events so far."""
    assert process.stdout is not None
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1].get("event") == "step_started" and events[-1]["step"] == step:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return events
    pytest.fail(f"{step} never came: {process.communicate()[1]}")


def left(aws: Aws, run: str) -> list[str]:
    """What a run has in the account, without its AMI and snapshot."""
    mine: Any = [{"Name": "tag:bake:run", "Values": [run]}]
    found = [
        one["InstanceId"]
        for group in aws.ec2.describe_instances(Filters=mine)["Reservations"]
        for one in group["Instances"]
        if one["State"]["Name"] != "terminated"
    ]
    found += [pair["KeyName"] for pair in aws.ec2.describe_key_pairs(Filters=mine)["KeyPairs"]]
    found += [one["GroupId"] for one in aws.ec2.describe_security_groups(Filters=mine)["SecurityGroups"]]
    found += [url for url in aws.sqs.list_queues().get("QueueUrls", []) if run in url]
    found += [one["Name"] for one in aws.s3.list_buckets()["Buckets"] if run in one["Name"]]
    found += [one["Name"] for one in aws.events.list_event_buses()["EventBuses"] if run in one["Name"]]
    aws.fresh.add(*found)  # what one answer shows, the next may not know yet
    return found


def builder_of(aws: Aws, run: str) -> str:
    """The run's builder, once the list shows it."""

    def look() -> str | None:
        return next((one for one in left(aws, run) if one.startswith("i-")), None)

    return aws.wait(f"the builder of {run}", look, timeout=60)


def test_a_run_that_is_killed_at_every_step_ends_with_a_good_image(aws: Aws, tmp_path: Path) -> None:
    process = start(tmp_path)
    events = cut(process, STEPS[0])
    run = next(event["id"] for event in events if event["event"] == "run")
    directory = tmp_path / ".bake/runs" / run
    assert (directory / "resume.jsonl").stat().st_mode & 0o777 == 0o600
    for step in STEPS[1:]:
        cut(resume(tmp_path, run), step)
    outcome = finish(resume(tmp_path, run), tmp_path)
    assert outcome.code == 0, outcome.errors
    assert [event for event in outcome.of("step_started") if event["step"] == "provision"] == []
    report = json.loads((directory / "report.json").read_text())
    assert (report["verdict"]["state"], report["pictures"][0]["width"]) == ("good", 256)
    assert {check["outcome"] for check in report["checks"]} == {"passed", "not applicable"}
    assert report["run"]["attempts"] == max(span["attempt"] for span in report["timeline"]) > 1
    tags = aws.ec2.describe_images(ImageIds=[report["image"]["id"]])["Images"][0]["Tags"]
    assert {"Key": "bake:state", "Value": "good"} in tags
    assert left(aws, run) == []
    record = Record.read(directory)
    assert record is not None
    assert (record.held(), record.ended) == ([], "done")
    assert not (directory / "resume.jsonl").exists()
    assert "PRIVATE KEY" not in (directory / "journal.jsonl").read_text()
    _each_thing_was_done_once(directory)


def _each_thing_was_done_once(directory: Path) -> None:
    entries = [json.loads(line) for line in (directory / "journal.jsonl").read_text().splitlines()]
    # An attempt that goes on with an AMI makes the places of its first job anew.
    done = [entry["name"] for entry in entries if entry["event"] == "done" and entry["name"] != "wiring"]
    assert len(done) == len(set(done)), done
    builders = [one for one in entries if one["event"] == "created" and one["kind"] == "instance"]
    assert len([one for one in builders if one["name"].endswith("-builder")]) == 1
    assert len([one for one in entries if one["event"] == "created" and one["kind"] == "AMI"]) == 1


def refused(desk: Path, run: str) -> str:
    process = resume(desk, run)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2, errors
    return errors


def test_a_run_that_goes_on_or_ended_or_never_was_is_not_resumed(cloud: LocalCloud, tmp_path: Path) -> None:
    process = start(tmp_path)
    assert process.stdout is not None
    run = next(event["id"] for event in map(json.loads, process.stdout) if event["event"] == "run")
    assert f"run {run} still goes on in another process" in refused(tmp_path, run)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert "has ended (interrupted)" in refused(tmp_path, run)
    errors = refused(tmp_path, "20200101-000000-abcdef")
    assert "there is no run '20200101-000000-abcdef'" in errors
    assert "there is no run '../x'" in refused(tmp_path, "../x")


def resumed_anew(aws: Aws, desk: Path, run: str) -> str:
    """Resume a run that can't go on until the new run's builder is there; the reason that it gives."""
    events = cut(resume(desk, run), "connect")
    (note,) = [event["text"] for event in events if "is baked anew" in event.get("text", "")]
    assert left(aws, run) == []
    assert "has ended" in refused(desk, run)
    second = [event["id"] for event in events if event["event"] == "run"][-1]
    assert second != run
    aws.ec2.terminate_instances(InstanceIds=[builder_of(aws, second)])
    return str(note)


def test_what_is_lost_is_said_removed_and_baked_anew(aws: Aws, tmp_path: Path) -> None:
    """The builder was terminated by somebody else; all else that the run left goes, and a new run begins."""
    run = next(event["id"] for event in cut(start(tmp_path), "provision") if event["event"] == "run")
    builder = builder_of(aws, run)
    aws.ec2.terminate_instances(InstanceIds=[builder])
    why = resumed_anew(aws, tmp_path, run)
    assert f"run {run} can't go on: its builder {builder} is gone, and what was installed on it" in why


def test_a_run_that_was_cut_in_its_seal_is_baked_anew(aws: Aws, tmp_path: Path) -> None:
    run = next(event["id"] for event in cut(start(tmp_path), "seal") if event["event"] == "run")
    assert "it was cut while the seal removed the keys" in resumed_anew(aws, tmp_path, run)


def test_a_builder_that_was_started_again_after_its_seal_is_not_imaged(aws: Aws, tmp_path: Path) -> None:
    """A boot makes new keys and logs."""
    run = next(event["id"] for event in cut(start(tmp_path), "stop") if event["event"] == "run")
    builder = builder_of(aws, run)
    aws.ec2.stop_instances(InstanceIds=[builder])
    aws.ec2.get_waiter("instance_stopped").wait(InstanceIds=[builder], WaiterConfig={"Delay": 1})
    aws.ec2.start_instances(InstanceIds=[builder])
    why = resumed_anew(aws, tmp_path, run)
    assert f"its builder {builder} was started again at 20" in why
    assert "after its seal: it is not what was sealed any more" in why


def test_a_run_is_resumed_later_while_aws_does_not_tell_what_it_holds(
    aws: Aws, faults: RemoteFaults, tmp_path: Path
) -> None:
    run = next(event["id"] for event in cut(start(tmp_path), "provision") if event["event"] == "run")
    before = left(aws, run)
    faults.plant("ec2", "DescribeInstances", "refuse", times=None)
    outcome = finish(resume(tmp_path, run), tmp_path)
    faults.clear()
    assert outcome.code == 5
    assert "instances in eu-north-1 were not looked at" in outcome.errors
    assert f"nothing was changed: call `bake resume {run}` again" in outcome.errors
    assert left(aws, run) == before
    process = resume(tmp_path, run)
    cut(process, "verify")
    aws.ec2.terminate_instances(InstanceIds=[one for one in before if one.startswith("i-")])
    assert "is gone" in resumed_anew(aws, tmp_path, run)


def test_a_builder_that_was_restarted_meanwhile_is_waited_for(aws: Aws, tmp_path: Path) -> None:
    """Units that ran are forgotten; what they installed and downloaded is there."""
    run = next(event["id"] for event in cut(start(tmp_path), "verify") if event["event"] == "run")
    builder = builder_of(aws, run)
    aws.ec2.stop_instances(InstanceIds=[builder])
    aws.ec2.get_waiter("instance_stopped").wait(InstanceIds=[builder], WaiterConfig={"Delay": 1})
    outcome = finish(resume(tmp_path, run), tmp_path)
    assert outcome.code == 0, outcome.errors
    directory = tmp_path / ".bake/runs" / run
    _each_thing_was_done_once(directory)
