"""A run copies its report to the profile's `reports`, and its AMI's tags name it; or it says why not."""

from __future__ import annotations

import io
import json
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from bake.aws import Aws
from bake.commands.bake import running
from bake.creation import tag_of
from bake.image import describe_image
from bake.planning.plan import Plan
from bake.progress import PlainScreen, Progress
from bake.report import places
from bake.request import BakeRequest, Proposal
from bake.run import new
from tests.bake.conftest import HOME, PlanCloud


@pytest.fixture
def aws(plan_cloud: PlanCloud) -> Aws:
    return plan_cloud.aws()


@pytest.fixture
def bucket(aws: Aws) -> str:
    name = f"reports-{uuid.uuid4().hex[:12]}"
    aws.s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": HOME})
    return name


def run(plan: Plan, aws: Aws, place: str, folder: Path, state: str = "good") -> str:
    """A run that ends well, whose AMI is the base's; what it said."""
    plan = replace(plan, profile=plan.profile.model_copy(update={"reports": place}))
    request = BakeRequest("g6e-ubuntu", folder, folder / ".env")
    proposal = Proposal(request, plan, aws, plan.guarded, None, [], None, None)
    said = io.StringIO()
    with running(proposal, new(folder / "runs", Progress(PlainScreen(said)))) as one:
        image = {"id": plan.launch.base.id, "name": "flux"}
        one.keep("facts/image.json", json.dumps({"state": state, "image": image}))
    return said.getvalue()


def test_the_report_goes_there_and_the_ami_names_it(
    one_plan: Plan, aws: Aws, bucket: str, tmp_path: Path
) -> None:
    said = run(one_plan, aws, f"s3://{bucket}/images", tmp_path)
    (directory,) = (tmp_path / "runs").iterdir()
    url = f"s3://{bucket}/images/g6e-ubuntu/{directory.name}"
    assert f"the report is in {url}" in said
    facts = describe_image(aws, one_plan.launch.base.id)
    assert facts is not None
    assert tag_of(facts["Tags"], places.REPORT_TAG) == url
    found = places.download(aws, url, tag_of(facts["Tags"], places.SHA256_TAG), tmp_path / "elsewhere")
    assert (found.run.id, found.verdict.state) == (directory.name, "good")


def test_a_bad_image_is_gone_and_gets_no_tags(one_plan: Plan, aws: Aws, bucket: str, tmp_path: Path) -> None:
    run(one_plan, aws, f"s3://{bucket}", tmp_path, "bad")
    facts = describe_image(aws, one_plan.launch.base.id)
    assert facts is not None
    assert bucket not in tag_of(facts.get("Tags"), places.REPORT_TAG)


def test_a_place_that_is_not_there_costs_no_image(one_plan: Plan, aws: Aws, tmp_path: Path) -> None:
    said = run(one_plan, aws, "s3://no-such-bucket-of-ours", tmp_path)
    assert "the report is not in s3://no-such-bucket-of-ours" in said
    assert "NoSuchBucket" in said
    assert said.count("GOOD (AWS)") == 1
