"""Who is let in to the local cloud: its owner and its machines, each to what is theirs."""

from __future__ import annotations

import json
import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from bake.localcloud.lifecycle.local_cloud import LocalCloud
from bake.localcloud.settings import (
    API_PORT,
    GATEWAY,
    HUB_PORT,
    IMDS_PORT,
    NEURON_PORT,
    PACKAGES_PORT,
    WHEELS_PORT,
    Settings,
)
from bake.ssh import Session, connect

METADATA = "http://169.254.169.254/latest"
ROLE = f"{METADATA}/meta-data/iam/security-credentials"


@pytest.fixture(scope="module")
def machine(account: Any) -> Iterator[Any]:
    launched = account.launch()
    yield launched
    account.terminate(launched.id)


@pytest.fixture(scope="module")
def session(machine: Any) -> Iterator[Session]:
    with connect(machine.login) as open_session:
        yield open_session


def read(session: Session, url: str, *more: str) -> str:
    """A path of the metadata service, as an instance reads it."""
    put = f"curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {METADATA}/api/token"
    options = " ".join(more)
    return session.run_shell(f'curl -s {options} -H "X-aws-ec2-metadata-token: $({put})" {url}').stdout


def client(cloud: LocalCloud, role: dict[str, str], service: str, region: str = "eu-west-1") -> Any:
    return boto3.client(
        service,
        region_name=region,
        endpoint_url=cloud.endpoint,
        aws_access_key_id=role["AccessKeyId"],
        aws_secret_access_key=role["SecretAccessKey"],
        aws_session_token=role["Token"],
    )


@pytest.mark.root
def test_the_owners_keys_are_the_owners(account: Any, cloud_settings: Settings) -> None:
    file = cloud_settings.state / "credentials.json"
    assert (stat.S_IMODE(file.stat().st_mode), file.stat().st_uid) == (0o600, 0)
    assert account.client("sts").get_caller_identity()["Arn"] == "arn:aws:iam::123456789012:root"
    processes = subprocess.run(["ps", "-ewwo", "args,environ"], capture_output=True, text=True, check=False)
    log = (cloud_settings.state / "daemon.log").read_text()
    assert account.cloud.keys.secret not in processes.stdout + log + repr(account.cloud)


@pytest.mark.root
def test_a_machine_has_its_roles_session(account: Any, machine: Any, session: Session) -> None:
    """It works as far as the role goes, and ends with the machine."""
    assert read(session, f"{ROLE}/") == "flux-rehearsal"
    role = json.loads(read(session, f"{ROLE}/flux-rehearsal"))
    assert role == json.loads(read(session, f"{ROLE}/flux-rehearsal"))
    assert client(account.cloud, role, "sts").get_caller_identity()["Arn"].endswith(f"/{machine.id}")
    for operation, parameters in (
        ("describe_instances", {}),
        ("terminate_instances", {"InstanceIds": [machine.id]}),
    ):
        with pytest.raises(ClientError, match="UnauthorizedOperation"):
            getattr(client(account.cloud, role, "ec2", "eu-north-1"), operation)(**parameters)
    assert account.state(machine.id) == "running"
    other = account.launch()
    try:
        with connect(other.login) as theirs:
            gone = json.loads(read(theirs, f"{ROLE}/flux-rehearsal"))
        assert client(account.cloud, gone, "sts").get_caller_identity()["Account"]
    finally:
        account.terminate(other.id)
    assert gone["AccessKeyId"] != role["AccessKeyId"]
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        client(account.cloud, gone, "sts").get_caller_identity()


@pytest.mark.root
def test_a_machine_is_nobody_without_it(session: Session, cloud: LocalCloud) -> None:
    """An id is no secret, and other services of AWS are not there."""
    body = "--data 'Action=DescribeInstances&Version=2016-11-15'"
    scope = f"{cloud.keys.id}/20260101/eu-north-1/ec2/aws4_request"
    claim = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature={'0' * 64}"
    for header in ("", f"-H 'Authorization: {claim}' -H 'X-Amz-Date: 20260101T000000Z'"):
        said = session.run_shell(f"curl -s {body} {header} {cloud.endpoint}/").stdout
        assert "<Code>" in said and "<DescribeInstancesResponse" not in said
    topic = "-H 'X-Amz-Target: AmazonSNS.Subscribe' --data '{}'"
    assert "MissingAuthenticationToken" in session.run_shell(f"curl -s {topic} {cloud.endpoint}/").stdout
    for path in ("moto-api/reset", "moto-api/data.json", "latest/meta-data/"):
        said = session.run_shell(f"curl -s -X POST -w '%{{http_code}}' {cloud.endpoint}/{path}").stdout
        assert said.endswith("403")


def status(url: str, host: str) -> int:
    request = urllib.request.Request(url, headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.root
def test_packages_are_served_by_the_name_that_bases_know(cloud: LocalCloud, cloud_settings: Settings) -> None:
    url = f"http://{cloud_settings.address}:{PACKAGES_PORT}/"
    for host in (GATEWAY, f"{GATEWAY}:{PACKAGES_PORT}"):
        assert status(url, host) != 421


@pytest.mark.root
@pytest.mark.parametrize(
    "port",
    [API_PORT, HUB_PORT, WHEELS_PORT, IMDS_PORT, PACKAGES_PORT, NEURON_PORT],
    ids=["api", "hub", "wheels", "metadata", "packages", "neuron"],
)
def test_every_server_answers_by_its_own_name_alone(
    cloud: LocalCloud, cloud_settings: Settings, port: int
) -> None:
    address = cloud_settings.address
    url = f"http://{address}:{port}/"
    for host in ("rebound.example", f"rebound.example:{port}", f"{address}:1", "localhost", "127.0.0.1"):
        assert status(url, host) == 421
    for host in (address, f"{address}:{port}"):
        assert status(url, host) != 421


@pytest.mark.root
def test_the_metadata_service_answers_by_its_own_name_alone(session: Session, cloud: LocalCloud) -> None:
    assert read(session, f"{METADATA}/meta-data/instance-id").startswith("i-")
    for host in ("rebound.example", "metadata.google.internal"):
        assert "is none of the name" in read(
            session, f"{METADATA}/meta-data/instance-id", "-H", f"'Host: {host}'"
        )
