"""`bake local clock`: the API's time goes on, this host's stays."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from click.testing import CliRunner
from werkzeug.wrappers import Response

from bake.aws import Aws
from bake.errors import BakeError, UsageError
from bake.instance import KeyPair
from bake.localcloud.api.clock import CloudClock, parse_span
from bake.localcloud.cli import local
from bake.localcloud.network.server import serve
from bake.ssh import connect

from .moto_account import PATIENCE, new

CLOSE = timedelta(minutes=2)  # a busy host is slow to answer


def clock(*words: str) -> str:
    """Run `bake local clock …` and return what it prints; an error that the user would see is raised."""
    result = CliRunner().invoke(local, ["clock", *words])
    if isinstance(result.exception, BakeError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("+3h", timedelta(hours=3)),
        ("+30m", timedelta(minutes=30)),
        ("+2d", timedelta(days=2)),
        ("+1h30m", timedelta(hours=1.5)),
        ("+5s", timedelta(seconds=5)),
    ],
)
def test_a_span_is_read(text: str, span: timedelta) -> None:
    assert parse_span(text) == span


@pytest.mark.parametrize("text", ["3h", "-3h", "+", "+3", "+3w", "+3h ", "+٣h", "+1.5h", f"+{'9' * 30}d"])
def test_another_span_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        CloudClock().advance(parse_span(text))


def test_the_clock_ends_ten_years_ahead() -> None:
    time = CloudClock()
    time.advance(timedelta(days=3600))
    with pytest.raises(UsageError, match="ten years"):
        time.advance(timedelta(days=100))
    assert time.ahead == timedelta(days=3600)


def test_what_is_due_is_done_when_the_clock_gets_there() -> None:
    """In order of time, and one that fails does not hinder the others."""
    time, done = CloudClock(), []
    last = threading.Event()

    def fail() -> None:
        done.append("failed")
        raise ValueError

    time.at(time.now() + timedelta(hours=3), last.set)
    time.at(time.now() + timedelta(hours=2), lambda: done.append("second"))
    time.at(time.now() + timedelta(hours=1), fail)
    assert not last.wait(0.1)
    time.advance(timedelta(hours=4))
    assert last.wait(PATIENCE)
    assert done == ["failed", "second"]


def test_a_reset_clock_has_nothing_due_early() -> None:
    time, early, now = CloudClock(), threading.Event(), threading.Event()
    time.advance(timedelta(hours=3))
    time.reset()
    time.at(time.now() + timedelta(hours=1), early.set)
    time.at(time.now(), now.set)
    assert now.wait(PATIENCE)
    assert not early.is_set()


def test_answers_have_one_date_and_it_is_the_clocks() -> None:
    time = CloudClock()
    time.advance(timedelta(days=2))
    app = Response("x", headers={"date": "Thu, 01 Jan 2026 00:00:00 GMT"})
    server = serve("127.0.0.1", 0, app, "a test", now=time.now)
    try:
        url = f"http://127.0.0.1:{server.server_port}/"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            [date] = answer.headers.get_all("Date")
    finally:
        server.shutdown()
    assert abs(parsedate_to_datetime(date) - time.now()) < CLOSE


@pytest.fixture
def ahead(account: Any) -> Iterator[timedelta]:
    """The cloud's clock is three hours and a day ahead."""
    clock("+3h")
    clock("+1d")
    yield timedelta(hours=27)
    clock("reset")


@pytest.mark.root
def test_the_clock_is_shown_moved_and_reset(account: Any) -> None:
    assert json.loads(clock("--json"))["ahead_s"] == 0
    assert "3:00:00 ahead of this host's clock" in clock("+3h")
    assert "3:30:00 ahead of" in clock("+30m")
    found = json.loads(clock("--json"))
    shown = datetime.fromisoformat(found["now"])
    assert found["ahead_s"] == 12600
    assert abs(shown - datetime.now(UTC) - timedelta(hours=3.5)) < CLOSE
    with pytest.raises(UsageError, match="forward, or back"):
        clock("3h")
    assert "as this host's clock" in clock("reset")


@pytest.mark.root
def test_stamps_and_dates_are_the_clocks(account: Any, ahead: timedelta) -> None:
    """The host's clock signs all these calls, and they are accepted."""
    environment = account.cloud.environment
    aws = Aws(
        region=environment["SPOT_AWS_REGION"],
        worker_region=environment["AWS_REGION"],
        endpoint=account.cloud.endpoint,
        endpoint_key=account.cloud.keys,
    )
    now = datetime.now(UTC) + ahead
    assert abs(aws.now() - now) < CLOSE
    name = new("clock")
    aws.ec2.import_key_pair(KeyName=name, PublicKeyMaterial=KeyPair.generate().public.encode())
    [pair] = aws.ec2.describe_key_pairs(KeyNames=[name])["KeyPairs"]
    region: Any = {"LocationConstraint": environment["AWS_REGION"]}
    aws.s3.create_bucket(Bucket=name, CreateBucketConfiguration=region)
    [bucket] = [one for one in aws.s3.list_buckets()["Buckets"] if one["Name"] == name]
    url = aws.sqs.create_queue(QueueName=name)["QueueUrl"]
    names: Any = ["CreatedTimestamp"]
    queue = aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    aws.ec2.delete_key_pair(KeyName=name)
    aws.s3.delete_bucket(Bucket=name)
    aws.sqs.delete_queue(QueueUrl=url)
    for stamp in (
        pair["CreateTime"],
        bucket["CreationDate"],
        datetime.fromtimestamp(float(queue["CreatedTimestamp"]), UTC),
    ):
        assert abs(stamp - now) < CLOSE


@pytest.mark.root
def test_an_instance_lives_by_the_clock(account: Any, ahead: timedelta) -> None:
    """Its launch, its volume and its end are stamped; its role's session goes on by the machine's clock."""
    launched = account.launch()
    try:
        account.reach(launched.id, "running")
        [group] = account.ec2.describe_instances(InstanceIds=[launched.id])["Reservations"]
        [instance] = group["Instances"]
        now = datetime.now(UTC) + ahead
        volume_id = instance["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
        [volume] = account.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"]
        assert abs(instance["LaunchTime"] - now) < CLOSE
        assert abs(volume["CreateTime"] - now) < CLOSE
        with connect(launched.login) as session:
            token = "curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' $M/api/token"
            ask = f'curl -s -i -H "X-aws-ec2-metadata-token: $({token})"'
            role = "$M/meta-data/iam/security-credentials/flux-rehearsal"
            said = session.run_shell(f"M=http://169.254.169.254/latest; {ask} {role}; echo; date +%s").stdout
    finally:
        account.terminate(launched.id)
    headers, _, rest = said.replace("\r", "").partition("\n\n")
    body, _, seconds = rest.rstrip().rpartition("\n")
    [date] = [line for line in headers.splitlines() if line.lower().startswith("date: ")]
    assert abs(parsedate_to_datetime(date[6:]) - now) < CLOSE
    machine = datetime.fromtimestamp(int(seconds), UTC)
    assert abs(machine - datetime.now(UTC)) < CLOSE
    expires = datetime.fromisoformat(json.loads(body)["Expiration"])
    assert timedelta(hours=5) < expires - machine <= timedelta(hours=6)
    [group] = account.ec2.describe_instances(InstanceIds=[launched.id])["Reservations"]
    reason = group["Instances"][0]["StateTransitionReason"]
    ended = datetime.strptime(reason, "User initiated (%Y-%m-%d %H:%M:%S GMT)").replace(tzinfo=UTC)
    assert abs(ended - now) < CLOSE
