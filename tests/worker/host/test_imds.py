"""The client of EC2's instance metadata service."""

from __future__ import annotations

import pytest

from flux_worker.host.imds import Imds, MetadataUnavailable
from tests.worker.host.conftest import REGION, Ec2


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"AWS_EC2_METADATA_DISABLED": "true"}, id="disabled"),
        pytest.param({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "file:///etc"}, id="no-url"),
    ],
)
def test_what_the_environment_forbids_is_not_asked(environment: dict[str, str]) -> None:
    with pytest.raises(MetadataUnavailable):
        Imds(environment).get("instance-id")


@pytest.mark.parametrize(
    ("environment", "endpoint"),
    [
        pytest.param({}, "http://169.254.169.254", id="usual"),
        pytest.param({"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv6"}, "http://[fd00:ec2::254]", id="ipv6"),
    ],
)
def test_the_service_is_where_ec2_has_it(environment: dict[str, str], endpoint: str) -> None:
    assert Imds(environment).endpoint == endpoint


def test_no_proxy_comes_between(ec2: Ec2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert Imds(ec2.environment, patience=60).get("placement/region") == REGION
