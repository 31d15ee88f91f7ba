"""An AWS account to plan in: moto's server, with answers for the services that moto does not have."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from botocore.loaders import Loader, create_loader
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from bake import aws as clients
from bake import creation, profile
from bake.aws import Aws
from bake.localcloud.api.consistency.middleware import Consistent
from bake.localcloud.api.consistency.replicas import Replicas
from bake.localcloud.api.consistency.schedule import Schedule
from bake.localcloud.api.consistency.settling import Settling
from bake.localcloud.api.faults.faults import AwsFaults
from bake.localcloud.api.faults.middleware import Faulty
from bake.planning.plan import Plan
from bake.planning.sources import Sources
from bake.profile import Profile
from bake.progress import PlainScreen, Progress
from bake.request import ask_and_plan
from bake.run import Run
from bake.steps import create_image
from bake.weights import flux
from tests.bake.networks import open_network
from tests.bake.one_run import OneRun, temporary

PROFILES = Path(__file__).parents[2] / "profiles"
SPOT, HOME = "eu-north-1", "eu-west-1"
REAL = Sources(sizes=flux.SIZES)
Answer = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Extend moto before its first request, which a test of another folder may send."""
    if any("plan_account" in getattr(item, "fixturenames", ()) for item in session.items):
        from tests.bake import moto_ec2

        moto_ec2.install()


def changed(name: str, variables: Mapping[str, str], changes: Mapping[str, dict[str, Any]]) -> Profile:
    """A profile of the checkout with fields of its sections changed."""
    found = profile.load(name, PROFILES, variables)
    sections = {
        section: getattr(found, section).model_copy(update=fields) for section, fields in changes.items()
    }
    return found.model_copy(update=sections)


LENIENT = Schedule(0, lenient=True)


class Front:
    """WSGI: calls named in `answers` (by the action in X-Amz-Target) are answered here, the rest by moto."""

    def __init__(self) -> None:
        # Imported here, for moto's EC2 takes two seconds, which tests without an account need not spend.
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self.answers: dict[str, Answer] = {}
        self.ahead = timedelta()  # of AWS's clock, as answers tell it
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        action = environ.get("HTTP_X_AMZ_TARGET", "").split(".")[-1]
        if action not in self.answers:
            return self._moto(environ, start_response)
        status, content = self.answers[action](json.loads(Request(environ).get_data() or "{}"))
        body = json.dumps(content)
        return Response(body, status, content_type="application/x-amz-json-1.1")(environ, start_response)

    def handler(self) -> type[WSGIRequestHandler]:
        """A server's handler that tells AWS's time."""
        front = self

        class Dated(WSGIRequestHandler):
            def date_time_string(self, timestamp: float | None = None) -> str:
                told = datetime.now(UTC) if timestamp is None else datetime.fromtimestamp(timestamp, UTC)
                return format_datetime(told + front.ahead, usegmt=True)

        return Dated


@dataclass
class PlanCloud:
    """The account: its endpoint, what profiles refer to, what the front answers, and what goes wrong."""

    endpoint: str
    front: Front
    faults: AwsFaults = field(default_factory=AwsFaults)
    replicas: Replicas = field(default_factory=lambda: Replicas(LENIENT))
    variables: dict[str, str] = field(default_factory=dict)

    def strict(self, seed: int | None) -> None:
        """From now on show what is created as late as a local cloud of this seed; None: at once."""
        self.replicas.schedule = LENIENT if seed is None else Schedule(seed)

    def aws(self) -> Aws:
        """Clients of its own; what botocore knows of EC2 takes half a second to read, and is read once."""
        aws = Aws(region=SPOT, worker_region=HOME, endpoint=self.endpoint)
        aws._session._session.register_component("data_loader", self._loader)
        return aws

    @cached_property
    def _loader(self) -> Loader:
        return create_loader()

    def profile(self, name: str = "g6e-ubuntu", **changes: dict[str, Any]) -> Profile:
        """A profile of the checkout; `root_volume={"size_gib": 40}` changes fields of a section."""
        return changed(name, self.variables, changes)

    def plan(self, name: str = "g6e-ubuntu", sources: Sources = REAL, **changes: dict[str, Any]) -> Plan:
        return ask_and_plan(self.profile(name, **changes), self.aws(), sources)

    def network(self, zone: str) -> dict[str, str]:
        """A subnet of a zone with a way out, and its VPC's default group, which admits SSH."""
        ec2 = self.aws().ec2
        subnets = ec2.describe_subnets()["Subnets"]
        subnet = next(item for item in subnets if item["AvailabilityZone"] == zone)
        group = open_network(ec2, subnet["VpcId"])
        return {"BAKE_SUBNET_ID": subnet["SubnetId"], "BAKE_SECURITY_GROUP_ID": group}


def image_named(aws: Aws, name: str) -> str:
    """One of the public AMIs that moto knows."""
    filters = [{"Name": "name", "Values": [name]}, {"Name": "architecture", "Values": ["x86_64"]}]
    return str(aws.ec2.describe_images(Filters=filters)["Images"][0]["ImageId"])  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def plan_account() -> Iterator[PlanCloud]:
    """One account for all; what a test adds to it stays, so names are the test's own."""
    front, faults, replicas = Front(), AwsFaults(), Replicas(LENIENT)
    app = Faulty(Consistent(front, replicas, Settling(LENIENT)), faults)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=front.handler())
    Thread(target=server.serve_forever, daemon=True).start()
    cloud = PlanCloud(f"http://127.0.0.1:{server.server_port}", front, faults, replicas)
    aws = cloud.aws()
    ubuntu, amazon = (image_named(aws, name) for name in ("ubuntu/images/*", "al2023-ami-ecs-hvm-*x86_64"))
    with pytest.MonkeyPatch.context() as patch:  # moto takes seconds for its first answer about IAM
        patch.setitem(clients.BRIEFLY, "patience", 120)
        aws.iam.create_role(RoleName="flux", AssumeRolePolicyDocument="{}")
        aws.iam.create_instance_profile(InstanceProfileName="flux")
        aws.iam.add_role_to_instance_profile(InstanceProfileName="flux", RoleName="flux")
    cloud.variables = {
        "AWS_REGION": HOME,
        "SPOT_AWS_REGION": SPOT,
        "BASE_AMI_ID": ubuntu,
        "BASE_AMI_ID_AMAZON_LINUX": amazon,
        "BASE_AMI_ID_NEURON": ubuntu,
        "BASE_AMI_ID_NEURON_AMAZON_LINUX": amazon,
        "BAKE_INSTANCE_PROFILE": "flux",
        "HF_TOKEN": "hf_canary_token",
        **cloud.network("eu-north-1b"),  # the zone that offers all of the profiles' types
    }
    yield cloud
    server.shutdown()


@pytest.fixture
def plan_cloud(plan_account: PlanCloud) -> Iterator[PlanCloud]:
    """The account, with the front's answers and the faults of this test alone."""
    yield plan_account
    plan_account.front.answers.clear()
    plan_account.front.ahead = timedelta()
    plan_account.faults.clear()
    plan_account.strict(None)


@pytest.fixture(scope="session")
def one_plan(plan_account: PlanCloud) -> Plan:
    """The plan of g6e-ubuntu, with a security group of the bake's own."""
    return temporary(plan_account.plan())


@pytest.fixture
def one_run(
    plan_cloud: PlanCloud, one_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OneRun]:
    """A run of that plan."""
    monkeypatch.setattr(creation, "APPEARS_WITHIN", 3.0)
    # moto makes snapshots of its own for images: of what size is no matter of these tests.
    monkeypatch.setattr(create_image, "check_image", lambda *_: None)
    run = Run(uuid.uuid4().hex[:12], tmp_path, Progress(PlainScreen(io.StringIO())))
    made = OneRun(plan_cloud, one_plan, run)
    run.expires = lambda: made.witness.now() + one_plan.lease
    yield made
    made.clean()
