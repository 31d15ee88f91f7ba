"""Two rehearsals side by side, on one local cloud that the first process brings up for both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bake.aws import Aws
from bake.localcloud import LocalCloud

from .bakes import called, finish

pytestmark = [pytest.mark.root, pytest.mark.long]


def test_two_profiles_are_baked_side_by_side(cloud: LocalCloud, tmp_path: Path) -> None:
    words = ("--profile", "g6e-ubuntu", "--profile", "g6e-amazon-linux", "--rehearse", "--max-parallel", "2")
    outcome = finish(called(tmp_path, *words), tmp_path)
    assert outcome.code == 0, outcome.errors
    (summary,) = outcome.of("summary")
    assert summary == outcome.events[-1]
    assert [one["verdict"] for one in summary["bakes"]] == ["good", "good"]
    assert len({one["image"] for one in summary["bakes"]}) == 2
    began = [event["event"] for event in outcome.events if event["event"] in ("started", "ended")]
    assert began == ["started", "started", "ended", "ended"]
    for one in summary["bakes"]:
        assert (tmp_path / one["directory"] / "report.html").exists()


def test_a_signal_ends_both_and_nothing_is_left(cloud: LocalCloud, aws: Aws, tmp_path: Path) -> None:
    words = ("--profile", "g6e-ubuntu", "--profile", "g6e-amazon-linux", "--rehearse", "--max-parallel", "2")
    process = called(tmp_path, *words)
    assert process.stdout is not None
    events, launched = [], set()
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == "step_started" and events[-1]["step"] == "connect":
            launched.add(events[-1]["profile"])
        if len(launched) == 2:
            break
    process.terminate()
    rest, errors = process.communicate(timeout=600)
    events += [json.loads(line) for line in rest.splitlines()]
    assert process.returncode == 130, errors
    assert [one["exit_code"] for one in events[-1]["bakes"]] == [130, 130]
    for event in [one for one in events if one["event"] == "run"]:
        tagged = [{"Name": "tag:bake:run", "Values": [event["id"]]}]
        found = aws.ec2.describe_instances(Filters=tagged)  # type: ignore[arg-type]
        states = [one["State"]["Name"] for group in found["Reservations"] for one in group["Instances"]]
        assert states == ["terminated"]
        assert not aws.ec2.describe_key_pairs(Filters=tagged)["KeyPairs"]  # type: ignore[arg-type]
