"""What a profile's bus hears of a run's end, and of a bake that is refused."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bake.aws import Aws
from bake.commands.bake import proposed, running
from bake.errors import NotAgreed
from bake.planning.plan import Plan
from bake.progress import PlainScreen, Progress
from bake.request import BakeRequest, Proposal
from bake.run import new
from bake.wiring import queue_policy
from tests.bake.conftest import PlanCloud

PROFILE = (Path(__file__).parents[3] / "profiles/g6e-ubuntu.yaml").read_text(encoding="utf-8")
Heard = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def aws(plan_cloud: PlanCloud) -> Aws:
    return plan_cloud.aws()


@pytest.fixture
def bus(aws: Aws) -> str:
    name = f"told-{uuid.uuid4().hex[:12]}"
    aws.events.create_event_bus(Name=name)
    return name


@pytest.fixture
def heard(aws: Aws, bus: str) -> Heard:
    """The failures that came over the bus, which a team's rule would send on."""
    url = aws.sqs.create_queue(QueueName=bus)["QueueUrl"]
    arn = aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = json.dumps({"source": ["bake"], "detail-type": ["FluxBakeFailed"]})
    rule = aws.events.put_rule(Name=bus, EventBusName=bus, EventPattern=pattern)["RuleArn"]
    aws.sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": queue_policy(arn, rule)})
    aws.events.put_targets(Rule=bus, EventBusName=bus, Targets=[{"Id": "queue", "Arn": arn}])

    def receive() -> list[dict[str, Any]]:
        # PutEvents delivers before it answers here, so that nothing is still on its way.
        messages = aws.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(one["Body"])["detail"] for one in messages]

    return receive


def run(plan: Plan, aws: Aws, bus: str, folder: Path, state: str) -> str:
    """A run that came to such an AMI; what it said."""
    plan = replace(plan, profile=plan.profile.model_copy(update={"notices": bus}))
    proposal = Proposal(
        BakeRequest("g6e-ubuntu", folder, folder / ".env"), plan, aws, plan.guarded, None, [], None, None
    )
    said = io.StringIO()
    with running(proposal, new(folder / "runs", Progress(PlainScreen(said)))) as one:
        image = {"id": plan.launch.base.id, "name": "flux"}
        one.keep("facts/image.json", json.dumps({"state": state, "image": image}))
    return said.getvalue()


def test_a_run_without_a_good_image_is_a_failure(
    one_plan: Plan, aws: Aws, bus: str, heard: Heard, tmp_path: Path
) -> None:
    assert f"told the bus {bus}: FluxImageBaked" in run(one_plan, aws, bus, tmp_path / "good", "good")
    assert heard() == []
    assert f"told the bus {bus}: FluxBakeFailed" in run(one_plan, aws, bus, tmp_path / "bad", "bad")
    (told,) = heard()
    (directory,) = (tmp_path / "bad/runs").iterdir()
    assert (told["run"], told["verdict"], told["image"]) == (directory.name, "bad", None)


def test_a_bus_that_does_not_answer_changes_nothing(one_plan: Plan, aws: Aws, tmp_path: Path) -> None:
    away = Aws(region=aws.region, worker_region=aws.worker_region, endpoint="http://127.0.0.1:9")
    said = run(one_plan, away, "away", tmp_path, "good")
    assert "FluxImageBaked is not on the bus away" in said
    assert said.count("GOOD (AWS)") == 1


def test_a_bake_that_is_refused_is_heard_of(
    plan_cloud: PlanCloud, bus: str, heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL": plan_cloud.endpoint}
    for name, value in {**plan_cloud.variables, **keys}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "mine.yaml").write_text(f"{PROFILE}\nnotices: {bus}\n", encoding="utf-8")
    request = BakeRequest("mine", tmp_path, tmp_path / ".env")
    with ExitStack() as stack, pytest.raises(NotAgreed):
        proposed(request, stack, Progress(PlainScreen(io.StringIO())))
    (told,) = heard()
    assert (told["profile"], told["verdict"], told["exit_code"]) == ("mine", "refused", 3)
    assert "nothing was started" in told["error"]
    assert " approve --profile mine" in told["hint"]
