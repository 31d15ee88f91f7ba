"""An account without machines: moto in this process, with what goes wrong with its calls."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from bake.localcloud.api.faults.faults import AwsFaults
from bake.localcloud.api.faults.middleware import Faulty
from bake.localcloud.network.server import serve
from tests.localcloud import calling

PATIENCE = 120.0  # seconds: a busy host is slow to answer


@dataclass(frozen=True)
class MotoAccount:
    """moto behind `faults`, and clients that try each call once."""

    url: str
    faults: AwsFaults

    def client(self, service: str, read_timeout: float = PATIENCE) -> Any:
        config = {"read_timeout": read_timeout, "s3": {"addressing_style": "path"}}
        return calling.client(service, self.url, "eu-west-1", "test", "test", **config)

    def call(self, service: str, operation: str, **parameters: Any) -> Any:
        return getattr(self.client(service), operation)(**parameters)

    def refused(self, service: str, operation: str, **parameters: Any) -> tuple[str, int]:
        """The code and HTTP status of a call that must fail with one."""
        with pytest.raises(ClientError) as error:
            self.call(service, operation, **parameters)
        answer: Any = error.value.response
        return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


@contextmanager
def served() -> Iterator[MotoAccount]:
    """What a test creates stays for the others: names are the test's own."""
    faults = AwsFaults()
    server = serve("127.0.0.1", 0, Faulty(DomainDispatcherApplication(create_backend_app), faults), "AWS")
    yield MotoAccount(f"http://127.0.0.1:{server.server_port}", faults)
    server.shutdown()


def new(prefix: str = "name") -> str:
    """A name that nobody else has."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
