"""Settings come from the environment, and all problems are reported at once (R-CONFIG)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flux_worker import redaction
from flux_worker.aws.clients import Clients
from flux_worker.aws.endpoints import endpoint_warnings
from flux_worker.cli import DEFAULT_PORT
from flux_worker.errors import ConfigurationError, WorkerError
from flux_worker.host import logs
from flux_worker.settings import (
    DEFAULT_METRICS_PORT,
    AwsSettings,
    ModelSettings,
    QueueSettings,
    ServeSettings,
)
from tests.worker.conftest import CREDENTIALS

REVISION = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"
GOOD = {
    "AWS_REGION": "eu-west-1",
    "FLUX_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs",
    "FLUX_BUCKET": "pictures",
    "FLUX_EVENT_BUS": "flux",
    "FLUX_MODEL_REVISION": REVISION,
}


def test_defaults() -> None:
    settings = ServeSettings.from_environment(GOOD | {"UNRELATED": "1"})
    assert settings.repo == "black-forest-labs/FLUX.1-dev"
    assert settings.prefix == "images/"
    assert settings.cache is None
    assert (settings.compile, settings.drain_seconds, settings.metrics_port) == ("off", 90, 9471)
    assert settings.state_dir == Path.home() / ".local/state/flux-worker"


def test_all_missing_variables_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        ServeSettings.from_environment({"FLUX_BUCKET": "  "})
    assert all(f"{name} is not set" in str(caught.value) for name in GOOD)
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("FLUX_MODEL_REPO", "black-forest-labs/FLUX.1-schnell", id="another-model"),
        pytest.param("FLUX_MODEL_REVISION", "main", id="branch-as-revision"),
        pytest.param("FLUX_QUEUE_URL", "jobs", id="queue-name-as-url"),
        pytest.param("FLUX_BUCKET", "s3://pictures", id="bucket-as-url"),
        pytest.param("FLUX_EVENT_BUS", "a bus", id="blank-in-bus"),
        pytest.param("FLUX_CLOUDWATCH_NAMESPACE", "AWS/SQS", id="namespace-of-aws"),
        pytest.param("FLUX_CLOUDWATCH_NAMESPACE", ":flux", id="namespace-with-leading-colon"),
        pytest.param("FLUX_S3_PREFIX", "/images", id="prefix-with-leading-slash"),
        pytest.param("AWS_REGION", "Ireland", id="not-a-region"),
        pytest.param("FLUX_VISIBILITY_SECONDS", "soon", id="not-a-number"),
        pytest.param("HF_HUB_CACHE", "/no/such/folder", id="no-such-cache"),
        pytest.param("FLUX_MODEL_DIR", "/no/such/folder", id="no-such-model"),
        pytest.param("FLUX_COMPILE", "full", id="no-such-compilation"),
        pytest.param("FLUX_COMPILE_CACHE", "kernels", id="relative-compile-cache"),
        pytest.param("FLUX_STATE_DIR", "state", id="relative-state"),
        pytest.param("FLUX_DRAIN_SECONDS", "0", id="no-time-to-drain"),
        pytest.param("FLUX_METRICS_PORT", "70000", id="no-such-port"),
        pytest.param("SPOT_AWS_REGION", "eu-north", id="not-the-instances-region"),
    ],
)
def test_what_is_wrong_is_named_with_its_value(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ServeSettings.from_environment(GOOD | {name: value})
    assert f"  {name}={value}: " in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("region", "domain"),
    [
        ("us-gov-west-1", "amazonaws.com"),
        ("cn-north-1", "amazonaws.com.cn"),
        ("eusc-de-east-1", "amazonaws.eu"),
        ("us-iso-east-1", "c2s.ic.gov"),
    ],
)
def test_a_queues_region_is_known_in_any_partition(region: str, domain: str) -> None:
    url = f"https://sqs.{region}.{domain}/123456789012/jobs"
    assert (
        ServeSettings.from_environment(GOOD | {"AWS_REGION": region, "FLUX_QUEUE_URL": url}).region == region
    )
    with pytest.raises(
        ConfigurationError, match=f"FLUX_QUEUE_URL is in {region}, but AWS_REGION is eu-west-1"
    ):
        ServeSettings.from_environment(GOOD | {"FLUX_QUEUE_URL": url})


def test_a_queue_in_another_region_is_noticed() -> None:
    with pytest.raises(
        ConfigurationError, match="FLUX_QUEUE_URL is in eu-west-1, but AWS_REGION is eu-north-1"
    ):
        ServeSettings.from_environment(GOOD | {"AWS_REGION": "eu-north-1"})


@pytest.mark.parametrize(
    ("host", "region"),
    [
        pytest.param("queue.amazonaws.com", "us-east-1", id="the-oldest-name"),
        pytest.param("eu-north-1.queue.amazonaws.com", "eu-north-1", id="an-older-name"),
        pytest.param("cn-north-1.queue.amazonaws.com.cn", "cn-north-1", id="an-older-name-in-china"),
        pytest.param("sqs-fips.us-east-2.amazonaws.com", "us-east-2", id="fips"),
        pytest.param("sqs.eu-north-1.api.aws", "eu-north-1", id="dual-stack"),
        pytest.param("vpce-0a-1b.sqs.eu-north-1.vpce.amazonaws.com", "eu-north-1", id="vpc-endpoint"),
        pytest.param("vpce-0a-1b-eu-north-1a.sqs.eu-north-1.vpce.amazonaws.com", "eu-north-1", id="zonal"),
    ],
)
def test_a_queues_region_is_known_by_any_of_its_hosts(host: str, region: str) -> None:
    url = f"https://{host}/123456789012/jobs"
    with pytest.raises(ConfigurationError, match=f"FLUX_QUEUE_URL is in {region}, but AWS_REGION is eu-west"):
        QueueSettings.from_environment(GOOD | {"FLUX_QUEUE_URL": url})
    there = {"AWS_REGION": region, "FLUX_QUEUE_URL": url}
    assert QueueSettings.from_environment(GOOD | there).queue_url == url


@pytest.mark.parametrize("host", ["localhost:4566", "127.0.0.1", "queue.example.com", "sqs.example.com"])
def test_a_host_that_tells_no_region_is_taken(host: str) -> None:
    url = f"http://{host}/123456789012/jobs"
    assert QueueSettings.from_environment(GOOD | {"FLUX_QUEUE_URL": url}).queue_url == url


def test_a_bus_in_another_region_is_noticed_beside_the_queue() -> None:
    """EventBridge takes no call for another region's bus; only a rule brings events there."""
    bus = "arn:aws:events:us-east-1:123456789012:event-bus/flux"
    with pytest.raises(
        ConfigurationError, match="FLUX_EVENT_BUS is in us-east-1, but AWS_REGION is eu-west-1"
    ):
        AwsSettings.from_environment(GOOD | {"FLUX_EVENT_BUS": bus})
    with pytest.raises(ConfigurationError) as caught:
        AwsSettings.from_environment(GOOD | {"FLUX_EVENT_BUS": bus, "AWS_REGION": "eu-north-1"})
    assert len(str(caught.value).splitlines()) == 3


PUBLIC = "https://sqs.eu-west-1.amazonaws.com"
VPC = "https://vpce-0a-1b.sqs.eu-west-1.vpce.amazonaws.com"


@pytest.mark.parametrize(
    ("url", "environment", "said"),
    [
        pytest.param(PUBLIC, {}, "", id="as-it-is"),
        pytest.param("https://eu-west-1.queue.amazonaws.com", {}, "", id="older-name"),
        pytest.param("https://sqs.eu-west-1.api.aws", {}, "", id="dual-stack"),
        pytest.param(PUBLIC, {"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "", id="over-dual-stack"),
        pytest.param(VPC, {}, f"set AWS_ENDPOINT_URL_SQS={VPC}", id="vpc-endpoint-in-the-url-alone"),
        pytest.param(VPC, {"AWS_ENDPOINT_URL_SQS": VPC}, "", id="vpc-endpoint"),
        pytest.param(PUBLIC, {"AWS_ENDPOINT_URL_SQS": VPC}, "go to vpce-0a-1b.sqs", id="vpc-endpoint-alone"),
        pytest.param(
            "https://sqs-fips.eu-west-1.amazonaws.com", {}, "AWS_ENDPOINT_URL_SQS=https://sqs-fips", id="fips"
        ),
        pytest.param(
            PUBLIC,
            {"AWS_USE_FIPS_ENDPOINT": "true"},
            "go to sqs-fips.eu-west-1",
            id="fips-but-not-in-the-url",
        ),
        pytest.param(
            PUBLIC,
            {"AWS_ENDPOINT_URL": "https://sqs.us-east-1.amazonaws.com"},
            "is in us-east-1, but AWS_REGION is eu-west-1",
            id="an-endpoint-elsewhere",
        ),
        pytest.param("http://localhost:4566", {}, "go to sqs.eu-west-1.amazonaws.com", id="no-endpoint-set"),
        pytest.param(
            "http://localhost:4566", {"AWS_ENDPOINT_URL": "http://localhost:4566"}, "", id="stand-in"
        ),
    ],
)
def test_a_url_that_boto3_would_send_elsewhere_is_said(
    monkeypatch: pytest.MonkeyPatch, url: str, environment: dict[str, str], said: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    prerequisites = QueueSettings.from_environment(GOOD | {"FLUX_QUEUE_URL": f"{url}/123456789012/jobs"})
    found = " ".join(endpoint_warnings(prerequisites, Clients.from_settings(prerequisites)))
    assert (said in found) if said else not found, found


def test_a_bus_may_be_an_arn(tmp_path: Path) -> None:
    arn = "arn:aws:events:eu-west-1:123456789012:event-bus/flux"
    assert ServeSettings.from_environment(GOOD | {"FLUX_EVENT_BUS": arn}).event_bus == arn


def test_drawing_by_hand_needs_the_model_alone(tmp_path: Path) -> None:
    settings = ModelSettings.from_environment(
        {"FLUX_MODEL_REVISION": REVISION, "HF_HUB_CACHE": str(tmp_path)}
    )
    assert settings.cache == tmp_path


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        pytest.param({"STATE_DIRECTORY": "/var/lib/flux-worker"}, "/var/lib/flux-worker", id="systemds"),
        pytest.param({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a", id="first-of-systemds"),
        pytest.param({"STATE_DIRECTORY": "/var/lib/a", "FLUX_STATE_DIR": "/srv/b"}, "/srv/b", id="own"),
    ],
)
def test_the_state_has_a_place(environment: dict[str, str], folder: str) -> None:
    assert ServeSettings.from_environment(GOOD | environment).state_dir == Path(folder)


def test_a_user_without_a_home_must_say_where_the_state_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a number without a user
    with pytest.raises(ConfigurationError, match="FLUX_STATE_DIR is not set"):
        ServeSettings.from_environment(GOOD)


def test_sending_needs_the_places_alone() -> None:
    prerequisites = QueueSettings.from_environment({name: GOOD[name] for name in list(GOOD)[:3]})
    assert (prerequisites.bucket, prerequisites.prefix) == ("pictures", "images/")


def test_the_command_line_knows_the_usual_port() -> None:
    assert DEFAULT_PORT == DEFAULT_METRICS_PORT


SECRET = "pictures-of-4711"


@pytest.fixture
def secret(
    new_aws: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[str], str]]:
    """Keeps what it is given in Secrets Manager; gives back the secret's name."""
    aws = new_aws()
    for name, value in {"AWS_ENDPOINT_URL": aws.endpoint, "AWS_ACCESS_KEY_ID": "test"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    client = aws.client("secretsmanager")

    def keep(content: str) -> str:
        name = f"{aws.bucket}/worker"
        client.create_secret(Name=name, SecretString=content)
        return name

    before = set(redaction._secrets)
    yield keep
    redaction._secrets.intersection_update(before)


def test_a_value_comes_from_secrets_manager(secret: Callable[[str], str]) -> None:
    name = secret(json.dumps({"bucket": SECRET, "drain": 30}))
    stored = {
        "FLUX_BUCKET": f"secretsmanager:{name}#bucket",
        "FLUX_DRAIN_SECONDS": f"secretsmanager:{name}#drain",
    }
    settings = ServeSettings.from_environment(GOOD | stored)
    assert settings.bucket == SECRET
    assert settings.drain_seconds == 30


def test_a_secret_is_never_shown(secret: Callable[[str], str]) -> None:
    """Neither where it is wrong, nor in a log line: plain, in JSON, in a URL, in a traceback."""
    wrong = 'Bad "Bücket" /4711'
    reference = f"secretsmanager:{secret(json.dumps({'bucket': wrong}))}#bucket"
    with pytest.raises(ConfigurationError) as caught:
        ServeSettings.from_environment(GOOD | {"FLUX_BUCKET": reference})
    assert f"  FLUX_BUCKET={reference}: must be an S3 bucket's name" in str(caught.value)
    for text in (
        f"at {wrong}",
        "https://x/Bad%20%22B%C3%BCcket%22%20/4711",
        "Bad%20%22B%C3%BCcket%22%20%2F4711",
    ):
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "%s", (text,), None)
        assert "4711" not in logs.JsonLines().format(record)
        assert "***" in json.loads(logs.JsonLines().format(record))["message"]


@pytest.mark.parametrize(
    ("content", "reference", "reason"),
    [
        pytest.param('{"a": "x"}', "secretsmanager:{}", "must name a secret and its key", id="no-key-named"),
        pytest.param('{"a": "hidden"}', "secretsmanager:{}#b", "no key b; it has: a", id="no-such-key"),
        pytest.param("hidden", "secretsmanager:{}#b", "not a JSON object", id="not-json"),
        pytest.param(
            '{"a": "x"}', "secretsmanager:no/{}#b", "there is no such secret in eu-west-1", id="absent"
        ),
    ],
)
def test_what_is_wrong_with_secrets_is_said_among_the_rest(
    secret: Callable[[str], str], content: str, reference: str, reason: str
) -> None:
    place = reference.format(secret(content))
    with pytest.raises(ConfigurationError) as caught:
        ServeSettings.from_environment(GOOD | {"FLUX_BUCKET": place, "FLUX_EVENT_BUS": ""})
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == 2
    assert any(line.startswith(f"  FLUX_BUCKET={place}: ") and reason in line for line in lines)
    assert "  FLUX_EVENT_BUS is not set" in lines
    assert "hidden" not in str(caught.value)


def test_a_secret_needs_a_region_that_is_none() -> None:
    stored = {"AWS_REGION": "secretsmanager:a#b", "FLUX_BUCKET": "secretsmanager:a#c"}
    with pytest.raises(ConfigurationError) as caught:
        ServeSettings.from_environment(GOOD | stored)
    assert str(caught.value).count("AWS_REGION itself must be set") == 2


def test_a_secret_that_cannot_be_read_now_may_be_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 78 would keep systemd from trying again."""
    out_of_reach = CREDENTIALS | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "1"}
    for name, value in out_of_reach.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WorkerError, match=r"FLUX_BUCKET=secretsmanager:a#b: cannot be read now") as caught:
        QueueSettings.from_environment(GOOD | {"FLUX_BUCKET": "secretsmanager:a#b"})
    assert caught.value.exit_code == 1
    both = {"FLUX_BUCKET": "secretsmanager:a#b", "FLUX_QUEUE_URL": "jobs"}
    with pytest.raises(ConfigurationError):
        QueueSettings.from_environment(GOOD | both)


def test_a_line_break_in_a_url_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigurationError) as caught:
        QueueSettings.from_environment(
            GOOD | {"FLUX_QUEUE_URL": "https://sqs.eu\n-west-1.example.org/1/jobs"}
        )
    assert "FLUX_QUEUE_URL=https://sqs.eu�-west-1.example.org/1/jobs: must be" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    url = GOOD["FLUX_QUEUE_URL"].replace("//", "//me:neverShown@")
    with pytest.raises(ConfigurationError, match="without user name and password") as caught:
        QueueSettings.from_environment(GOOD | {"FLUX_QUEUE_URL": url})
    assert "neverShown" not in str(caught.value)
