"""A fleet serves a backlog: `bake fleet`'s template launches a baked image's workers, and no job is lost.

CloudFormation, Auto Scaling and CloudWatch are stood for by fleet/stack.py and fleet/scaling.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bake import localcloud, profile
from bake.aws import Aws
from bake.fleet import Fleet, fleet_of, template
from bake.image import describe_image
from bake.localcloud import LocalCloud, RemoteFaults, Settings, over_socket
from bake.localcloud.cli import local
from bake.localcloud.settings import ACCOUNT
from tests.worker.stress import evidence
from tests.worker.stress.messages import SentMessages

from .fleet import backlog
from .fleet.backlog import Places
from .fleet.counting import counter
from .fleet.resources import Clients
from .fleet.scaling import AutoScaling
from .fleet.stack import Stack
from .instances import client

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
JOBS, LARGEST = 200, 3
TYPES = ("g6e.xlarge", "g6e.2xlarge")
PROFILE = f"""
extends: g6e-ubuntu
worker: {{instance_types: [{", ".join(TYPES)}]}}
fleet:
  subnets: ['${{BAKE_SUBNET_ID}}']
  security_groups: ['${{BAKE_SECURITY_GROUP_ID}}']
  max_size: {LARGEST}
  messages_per_instance: 40
  idle_minutes: 5
  keep_days: 30
"""
# Less than EC2's two minutes, so that less is waited for; the worker looks every 5 s.
NOTICE = "20s"


@dataclass(frozen=True)
class Served:
    """How the backlog was served; `left` is how many jobs there were when the notice came."""

    sent: SentMessages
    scaling: AutoScaling
    instances: dict[str, dict[str, Any]]
    interrupted: str
    left: int
    found: dict[str, evidence.Stored]
    stored: Counter[str]
    events: list[dict[str, Any]]
    dead: list[str]
    needs: list[dict[str, Any]]


@pytest.fixture(scope="module")
def clients(cloud: LocalCloud) -> Clients:
    """Clients of each service: those of the instances are in their region."""
    made: dict[str, Any] = {}

    def client_of(service: str) -> Any:
        if service not in made:
            machines = service in {"ec2", "autoscaling"}
            made[service] = client(cloud, service, "SPOT_AWS_REGION" if machines else "AWS_REGION")
        return made[service]

    return client_of


@pytest.fixture(scope="module")
def fleet(cloud: LocalCloud, aws: Aws, image: str, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """The fleet of a profile, whose workers draw on the CPU: no machine here has a GPU."""
    folder = tmp_path_factory.mktemp("fleet")
    for file in (ROOT / "profiles").glob("*.yaml"):
        (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "g6e-fleet.yaml").write_text(PROFILE, encoding="utf-8")
    facts = describe_image(aws, image)
    assert facts is not None
    # Threads that wait for each other on two processors would cost more than they draw.
    more = {"AWS_ENDPOINT_URL": cloud.endpoint, "FLUX_BACKEND": "cpu", "OMP_NUM_THREADS": "1"}
    found = profile.load("g6e-fleet", folder, cloud.environment)
    return fleet_of(found, "rehearsal", ACCOUNT, image, facts["RootDeviceName"], more)


@pytest.fixture(scope="module")
def served(cloud: LocalCloud, clients: Clients, fleet: Fleet) -> Iterator[Served]:
    """The backlog, sent to a fleet of no instances, and served to its end."""
    scarce = RemoteFaults(over_socket(Settings.load()))
    with ExitStack() as stacks:
        jobs = stacks.enter_context(Stack(template(fleet, "jobs"), clients, fleet.jobs_region))
        workers = stacks.enter_context(Stack(template(fleet, "workers"), clients, fleet.region))
        told = jobs.outputs
        events = stacks.enter_context(backlog.listening(clients, told["EventBus"]))
        places = Places(
            told["QueueUrl"], told["DeadLetterQueueUrl"], told["Bucket"], told["EventBus"], events
        )
        backlog.keep_versions(clients, places.bucket)
        count = counter(cloud, workers.read["CountJobs"], workers.properties("CountJobsRole"))
        stacks.callback(scarce.clear)
        yield serve(clients, AutoScaling(workers, clients, count), places, workers, scarce)


def serve(
    clients: Clients, scaling: AutoScaling, places: Places, workers: Stack, scarce: RemoteFaults
) -> Served:
    """Send the backlog, let the fleet grow, interrupt an instance, and wait for the end of all.

    There is no capacity for the first type until an instance is launched.
    """
    sent = backlog.small_jobs(JOBS)
    scaling.look()
    assert not scaling.launched
    backlog.send(clients, places.jobs, sent)
    scarce.plant("ec2", "RunInstances", "capacity", match=f"InstanceType={TYPES[0]}", times=None)
    try:
        scaling.until("the first instance", lambda: bool(scaling.launched))
        scarce.clear()
        scaling.until("all instances", lambda: len(scaling.in_service()) == LARGEST)
        victim, left = scaling.in_service()[0], scaling.backlog
        interrupt(victim)
        scaling.until("the interruption", lambda: victim in scaling.lost)
        scaling.until("all jobs", lambda: backlog.done(clients, places.bucket) == JOBS)
        scaling.until("the end", lambda: scaling.desired[-1] == 0 and not scaling.states)
    finally:
        scaling.terminate()
    found = clients("ec2").describe_instances(InstanceIds=list(scaling.launched))["Reservations"]
    role = workers.ref("WorkerRole")
    return Served(
        sent,
        scaling,
        {one["InstanceId"]: one for group in found for one in group["Instances"]},
        victim,
        left,
        evidence.objects(clients("s3"), places.bucket),
        backlog.stored(clients, places.bucket),
        backlog.heard(clients, places.events),
        evidence.bodies(clients("sqs"), places.dead),
        [one for one in localcloud.needs(over_socket(Settings.load())) if f"/{role}/" in one["principal"]],
    )


def interrupt(instance: str) -> None:
    """Let EC2 take a spot instance back."""
    done = CliRunner().invoke(local, ["interrupt", instance, "--notice", NOTICE])
    assert done.exit_code == 0, done.output


def test_the_fleet_grows_from_none_to_its_largest_size_and_ends_with_none(served: Served) -> None:
    desired = served.scaling.desired
    assert desired[:3] == [0, 1, LARGEST]
    assert desired[2:] == sorted(desired[2:], reverse=True)  # what is interrupted is replaced, and no more
    assert desired[-1] == 0
    states = {one["State"]["Name"] for one in served.instances.values()}
    assert states <= {"shutting-down", "terminated"}


def test_its_instances_are_spot_instances_of_the_templates_numbered_version(
    served: Served, image: str
) -> None:
    for instance in served.instances.values():
        tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
        assert (instance["InstanceLifecycle"], instance["ImageId"]) == ("spot", image)
        assert tags["aws:ec2launchtemplate:version"] == "1"
        assert tags["Name"] == "flux-g6e-fleet-rehearsal"


def test_the_next_agreed_type_is_launched_where_there_is_no_capacity(served: Served) -> None:
    types = list(served.scaling.launched.values())
    assert types == [TYPES[1], *[TYPES[0]] * (len(types) - 1)]


def test_an_instance_that_ec2_takes_back_amid_its_work_is_replaced(served: Served) -> None:
    assert served.left > LARGEST
    assert served.scaling.lost == [served.interrupted]
    assert served.interrupted in served.scaling.served
    assert len(served.scaling.launched) == LARGEST + 1


def test_no_job_is_lost_and_each_is_announced_once(served: Served) -> None:
    assert served.dead == []
    records = evidence.every_job_has_one_set_of_objects(served.sent, served.found)
    announced = evidence.everything_was_announced(served.sent, records, served.events)
    assert announced == {"FluxImageReady": JOBS}


def test_no_image_was_stored_twice(served: Served) -> None:
    assert served.stored == {f"{evidence.PREFIX}{name}.png": 1 for name in served.sent.requested}


def test_the_role_of_the_template_is_refused_nothing_and_completes_the_hooks(served: Served) -> None:
    assert [one for one in served.needs if not one["allowed"]] == []
    assert "autoscaling:CompleteLifecycleAction" in {one["action"] for one in served.needs}
