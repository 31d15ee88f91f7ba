"""moto behind the gateway, as the local cloud has it, without machines."""

from __future__ import annotations

import http.client
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.iam.models import iam_backends
from moto.iam.policy_validation import IAMPolicyDocumentValidator

from bake.localcloud.api import iam as local_iam
from bake.localcloud.api.access import callers
from bake.localcloud.api.access.backends import Backends
from bake.localcloud.api.access.gateway import Gateway
from bake.localcloud.api.access.keys import Key, Keys, now
from bake.localcloud.api.access.policies import Authoriser, NeedLog
from bake.localcloud.lifecycle import fixtures
from bake.localcloud.network.server import serve
from tests.localcloud import calling

REGION = "eu-west-1"
INSTANCE = "i-0123456789abcdef0"


@dataclass
class Clock:
    """The door's time: this machine's, moved."""

    moved: timedelta = timedelta()

    def __call__(self) -> datetime:
        return now() + self.moved


@dataclass
class Cloud:
    """A door with moto behind it; `living` are the instances that are not terminated."""

    host: str = ""
    keys: Keys = None  # type: ignore[assignment]
    clock: Clock = field(default_factory=Clock)
    living: set[str] = field(default_factory=lambda: {INSTANCE})
    needs: NeedLog = field(default_factory=NeedLog)

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def session(self, role: str = fixtures.PROFILE, instance: str = INSTANCE) -> Key:
        return self.keys.of_role(instance, role)

    def caller(self, *statements: dict[str, Any], name: str = "") -> Key:
        """A session of a role that may do just this."""
        name = name or f"caller-{uuid.uuid4().hex[:8]}"
        policies = [{"Version": "2012-10-17", "Statement": list(statements)}] if statements else []
        callers.put_role(name, policies)
        return self.keys.of_caller(name)

    def needed(self, key: Key) -> list[dict[str, Any]]:
        """What a caller needed so far."""
        return [one for one in self.needs.listed() if one["principal"] == key.principal.arn]

    def client(self, service: str, key: Key | None = None, region: str = REGION, **config: Any) -> Any:
        """A client that tries each call once; of the owner where nobody else is named."""
        key = key or self.keys.owner
        return calling.client(service, self.url, region, key.id, key.secret, key.token, **config)

    def presigned(
        self, operation: str, key: Key | None = None, seconds: int = 3600, **parameters: Any
    ) -> str:
        s3 = self.client("s3", key, signature_version="s3v4")
        return str(s3.generate_presigned_url(operation, parameters, seconds))

    def send(
        self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int, bytes]:
        """A request exactly as it is written; of `target` what follows the host."""
        connection = http.client.HTTPConnection(self.host, timeout=60)
        try:
            connection.request(method, target.removeprefix(self.url), body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="session")
def served() -> Iterator[Cloud]:
    cloud = Cloud()
    cloud.keys = Keys(lives=lambda instance: instance in cloud.living, clock=cloud.clock)
    of_moto = IAMPolicyDocumentValidator.validate
    local_iam.install()
    iam = iam_backends[fixtures.ACCOUNT]["aws"]
    if fixtures.PROFILE not in [role.name for role in iam.get_roles()]:
        fixtures._profile(iam)
    gateway = Gateway(Backends(), cloud.keys, Authoriser(record=cloud.needs.add), clock=cloud.clock)
    server = serve("127.0.0.1", 0, gateway, "AWS")
    cloud.host = f"127.0.0.1:{server.server_port}"
    yield cloud
    server.shutdown()
    IAMPolicyDocumentValidator.validate = of_moto


@pytest.fixture(scope="session")
def bucket(served: Cloud) -> str:
    name = f"flux-{uuid.uuid4().hex[:8]}"
    where: Any = {"LocationConstraint": REGION}
    s3 = served.client("s3")
    s3.create_bucket(Bucket=name, CreateBucketConfiguration=where)
    s3.put_object(Bucket=name, Key="key", Body=b"content")
    return name


@pytest.fixture
def cloud(served: Cloud) -> Iterator[Cloud]:
    yield served
    served.clock.moved = timedelta()
    served.living = {INSTANCE}


def refusal(call: Any, **parameters: Any) -> tuple[str, int, str]:
    """The code, HTTP status and message of a call that must be refused, at the first try."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    answer: Any = caught.value.response
    assert answer["ResponseMetadata"]["RetryAttempts"] == 0
    told = answer["Error"]
    return told["Code"], answer["ResponseMetadata"]["HTTPStatusCode"], told.get("Message", "")
