"""The way of an image: baked, published, promoted, launched, baked anew, rolled back, pruned."""

from __future__ import annotations

import json
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bake.aws import Aws
from bake.image import describe_image
from bake.instance import KeyPair, user_data
from bake.layout import INSTANCE_ENV
from bake.localcloud import LocalCloud
from bake.undo import Undo
from bake.wiring import Wiring, queue_policy, wire

from .bakes import ROOT, called

pytestmark = pytest.mark.root
PROFILE, NAME = "circle", f"bake-circle-{secrets.token_hex(4)}"
TEXT = f"""
extends: g6e-ubuntu
image: {{keep: 1}}
notices: {NAME}
publish:
  regions: ["${{AWS_REGION}}"]
  parameter: /flux/{NAME}/newest
  launch_template: ${{TEST_TEMPLATE}}
  deprecate_after: 180d
  protect: true
  watermark: verified flux
  enforce_instance_types: true
channels:
  stable: {{launch_template: "${{TEST_TEMPLATE}}"}}
"""


class Circle:
    """A team's folder, its template, and the account that it sees."""

    def __init__(self, desk: Path, cloud: LocalCloud, aws: Aws, template: str) -> None:
        self.desk, self.cloud, self.aws, self.template = desk, cloud, aws, template
        self.profiles = desk / "profiles"
        self.profiles.mkdir()
        for file in (ROOT / "profiles").glob("*.yaml"):
            (self.profiles / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
        (self.profiles / f"{PROFILE}.yaml").write_text(TEXT, encoding="utf-8")

    def bake(self, *words: str, checkout: Path = ROOT, code: int = 0) -> str:
        """Call bake; what it printed."""
        environment = {"TEST_TEMPLATE": self.template}
        chosen = (*words, "--profile", PROFILE, "--rehearse")
        process = called(
            self.desk, *chosen, profiles=self.profiles, checkout=checkout, environment=environment
        )
        out, errors = process.communicate(timeout=900)
        assert process.returncode == code, errors
        return str(out)

    def events(self, *words: str, **how: Any) -> dict[str, dict[str, Any]]:
        """The last event of each kind of a bake."""
        return {one["event"]: one for one in map(json.loads, self.bake(*words, **how).splitlines())}

    def tell(self, *words: str) -> Any:
        """What a command prints as one JSON value."""
        return json.loads(self.bake(*words))

    def regions(self, image: str) -> list[str]:
        """The ids of an image in its region and in that of its copy."""
        copy: Any = [{"Name": "tag:bake:copy-of", "Values": [f"{image} *"]}]
        there = self.aws.at_home().ec2.describe_images(Owners=["self"], Filters=copy)["Images"]
        here = describe_image(self.aws, image)
        return [*([image] if here else []), *(one["ImageId"] for one in there)]

    def snapshots(self, image: str) -> int:
        """How many of its run's snapshots there are, in both regions."""
        run: Any = [{"Name": "tag:bake:run", "Values": [self.runs[image]]}]
        both = (self.aws, self.aws.at_home())
        return sum(len(one.ec2.describe_snapshots(Filters=run)["Snapshots"]) for one in both)

    @property
    def runs(self) -> dict[str, str]:
        """The run of each image."""
        return {one["image"]: one["run"] for one in self.tell("images")}

    def kept(self) -> dict[str, str]:
        """Why a prune keeps the images that it keeps."""
        return {one["id"]: one["why"] for one in self.tell("prune")["images"] if one["outcome"] == "keep"}

    def prune(self) -> set[str]:
        """What a prune removes."""
        return set(self.tell("prune", "--yes")["pruned"]["removed"])


@pytest.fixture
def wiring(aws: Aws) -> Iterator[Wiring]:
    """What a worker needs, and the bus of the profile's notices."""
    aws.events.create_event_bus(Name=NAME)
    with Undo() as undo:
        name = f"{NAME}-worker"
        yield wire(aws, name, {"Name": name, "bake:run": name}, undo)
    aws.events.delete_event_bus(Name=NAME)


@pytest.fixture
def heard(aws: Aws, wiring: Wiring) -> str:
    """The queue that hears the notices."""
    queue = aws.sqs.create_queue(QueueName=NAME)["QueueUrl"]
    named = {"QueueUrl": queue, "AttributeNames": ["QueueArn"]}
    arn = aws.sqs.get_queue_attributes(**named)["Attributes"]["QueueArn"]  # type: ignore[arg-type]
    pattern = json.dumps({"source": ["bake"]})
    rule = aws.events.put_rule(Name=NAME, EventBusName=NAME, EventPattern=pattern)["RuleArn"]
    aws.sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": queue_policy(arn, rule)})
    aws.events.put_targets(Rule=NAME, EventBusName=NAME, Targets=[{"Id": "queue", "Arn": arn}])
    return str(queue)


@pytest.fixture
def circle(tmp_path: Path, cloud: LocalCloud, aws: Aws, heard: str) -> Circle:
    found = cloud.environment
    data: Any = {
        "ImageId": found["BASE_AMI_ID"],
        "InstanceType": "g6e.xlarge",
        "IamInstanceProfile": {"Name": found["BAKE_INSTANCE_PROFILE"]},
        "MetadataOptions": {"HttpTokens": "required"},
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "SubnetId": found["BAKE_SUBNET_ID"],
                "Groups": [found["BAKE_SECURITY_GROUP_ID"]],
            }
        ],
    }
    made = aws.ec2.create_launch_template(LaunchTemplateName=NAME, LaunchTemplateData=data)
    return Circle(tmp_path, cloud, aws, str(made["LaunchTemplate"]["LaunchTemplateId"]))


def launched(circle: Circle, wiring: Wiring) -> tuple[str, str]:
    """An instance of the template's default: its id, and its AMI."""
    settings = {"FLUX_BACKEND": "cpu", "AWS_ENDPOINT_URL": circle.cloud.endpoint}
    files = {INSTANCE_ENV: wiring.environment(circle.aws.worker_region, settings)}
    named: Any = {"LaunchTemplateId": circle.template}
    data = user_data([KeyPair.generate()], files)
    answer = circle.aws.ec2.run_instances(LaunchTemplate=named, MinCount=1, MaxCount=1, UserData=data)
    [instance] = answer["Instances"]
    return str(instance["InstanceId"]), str(instance["ImageId"])


def drawn(aws: Aws, wiring: Wiring) -> bytes:
    """A picture that the worker of the wiring draws."""
    job = {"id": "circle", "prompt": "a cat", "width": 256, "height": 256, "steps": 1, "seed": 1}
    aws.sqs.send_message(QueueUrl=wiring.jobs, MessageBody=json.dumps(job))

    def look() -> Any:
        messages = aws.sqs.receive_message(QueueUrl=wiring.results, WaitTimeSeconds=1).get("Messages", [])
        told = [json.loads(one["Body"])["detail"] for one in messages]
        return next((one for one in told if one.get("id") == "circle"), None)

    event = aws.wait("the picture", look, timeout=300)
    assert "keys" in event, event
    return aws.s3.get_object(Bucket=event["bucket"], Key=event["keys"][0])["Body"].read()


def ended(aws: Aws, instance: str) -> None:
    aws.ec2.terminate_instances(InstanceIds=[instance])

    def look() -> bool | None:
        [group] = aws.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
        return True if group["Instances"][0]["State"]["Name"] == "terminated" else None

    aws.wait(f"the end of {instance}", look, timeout=120)


def told(aws: Aws, queue: str) -> list[str]:
    """The notices that came, by their kind."""
    found: list[str] = []
    while messages := aws.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        for one in messages:
            found.append(json.loads(one["Body"])["detail-type"])
            aws.sqs.delete_message(QueueUrl=queue, ReceiptHandle=one["ReceiptHandle"])
    return found


def version_of(circle: Circle, image: str) -> str:
    """The template's version with an AMI."""
    named = circle.aws.ec2.describe_launch_template_versions(LaunchTemplateId=circle.template)
    versions = named["LaunchTemplateVersions"]
    return next(
        str(one["VersionNumber"]) for one in versions if one["LaunchTemplateData"]["ImageId"] == image
    )


def changed_checkout(folder: Path) -> Path:
    """This checkout with another worker."""
    checkout = folder / "checkout"
    for name in ("bake", "profiles", "provision", "worker"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__", "build"))
    with (checkout / "worker/flux_worker/__init__.py").open("a", encoding="utf-8") as code:
        code.write("\n# another worker\n")
    return checkout


def test_the_circle(circle: Circle, aws: Aws, wiring: Wiring, heard: str, tmp_path: Path) -> None:
    first = str(circle.events("--if-changed")["released"]["image"])
    [run] = (tmp_path / ".bake/runs").iterdir()
    report = json.loads((run / "report.json").read_text())
    assert {one["state"] for one in report["publication"]} == {"published"}
    assert {one["what"] for one in report["publication"]} >= {"copy", "SSM parameter", "launch template"}
    assert report["attestation"]["digest"]
    assert len(circle.regions(first)) == 2

    circle.bake("promote", first, "--to", "stable", "--because", "the first one")
    worker, image = launched(circle, wiring)
    assert image == first
    assert drawn(aws, wiring).startswith(b"\x89PNG")

    served = {one["region"]: one for one in circle.tell("channels")}
    assert [served[aws.region]["image"], served[aws.worker_region]["image"]] == circle.regions(first)
    assert [one["faults"] + one["notes"] for one in served.values()] == [[], []]

    assert circle.events("--if-changed")["unchanged"]["image"] == first
    events = circle.events("--if-changed", checkout=changed_checkout(tmp_path))
    assert [one.split()[0] for one in events["changed"]["reasons"]] == ["worker"]
    second = str(events["released"]["image"])
    assert len(circle.regions(first)) == 2  # beyond image.keep, and the channel's

    circle.bake("promote", second, "--to", "stable", "--because", "another worker")
    circle.bake("rollback", "--channel", "stable", "--because", "the pictures are black")
    assert worker in circle.kept()[first]
    ended(aws, worker)
    assert f"/bake/{PROFILE}/stable" in circle.kept()[first]
    assert circle.prune() == set()

    circle.bake("promote", second, "--to", "stable", "--because", "they were not")
    assert circle.template in circle.kept()[first]
    numbers = [version_of(circle, first)]
    aws.ec2.delete_launch_template_versions(LaunchTemplateId=circle.template, Versions=numbers)
    gone = circle.regions(first)
    assert circle.snapshots(first) == 2
    assert circle.prune() == set(gone)
    assert circle.regions(first) == []
    assert circle.snapshots(second) == len(circle.regions(second)) == 2
    # Served anew four times, each time in two regions.
    assert Counter(told(aws, heard)) == {"FluxImageBaked": 2, "FluxImagePromoted": 8}
