"""The programs of docs/integrate.md, as they stand there, on the local cloud with a worker that draws."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bake.localcloud import LocalCloud
from tests.localcloud.conftest import Account
from tests.worker.conftest import Served, serve_environment, serving, until
from tests.worker.written import assert_written, of_key, validator

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/integrate.md").read_text(encoding="utf-8")
NODE_MODULES = Path(__file__).parent / "node_modules"
QUIET = {"npm_config_offline": "true", "npm_config_update_notifier": "false"}
PATIENCE = 60  # seconds on a host at rest


@dataclass(frozen=True)
class Places:
    """What a worker serves, as tests.worker.conftest.Aws has it."""

    account: Account
    endpoint: str
    jobs: str
    bucket: str
    bus: str

    def objects(self) -> dict[str, bytes]:
        """All that is in the bucket, by key."""
        s3 = self.account.client("s3")
        keys = [one["Key"] for one in s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])]
        return {key: s3.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}


@pytest.fixture(scope="module")
def places(cloud: LocalCloud) -> Places:
    account, name = Account(cloud), f"integrate-{uuid.uuid4().hex[:8]}"
    jobs = account.client("sqs").create_queue(QueueName=f"{name}-jobs")["QueueUrl"]
    where = {"LocationConstraint": cloud.environment["AWS_REGION"]}
    account.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration=where)
    account.client("events").create_event_bus(Name=name)
    return Places(account, cloud.endpoint, jobs, name, name)


@pytest.fixture(scope="module")
def credentials(cloud: LocalCloud) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": cloud.keys.id,
        "AWS_SECRET_ACCESS_KEY": cloud.keys.secret,
        "AWS_ENDPOINT_URL": cloud.endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REGION": cloud.environment["AWS_REGION"],
    }


@pytest.fixture(scope="module")
def served(
    places: Places, credentials: dict[str, str], cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A worker; it takes longer to begin than the cloud to show what was made for it."""
    environment = serve_environment(places, cache, tmp_path_factory.mktemp("state")) | credentials  # type: ignore[arg-type]
    with serving(environment, tmp_path_factory.mktemp("worker")) as worker:
        yield worker


@pytest.fixture
def queues(places: Places) -> Iterator[dict[str, str]]:
    """The application's queue of events, and one more that the test reads; a FIFO queue of jobs."""
    sqs, bus = places.account.client("sqs"), places.account.client("events")
    name, types = f"integrate-{uuid.uuid4().hex[:8]}", ["FluxImageReady", "FluxImageFailed"]
    pattern = json.dumps({"source": ["flux.worker"], "detail-type": types})
    rule = bus.put_rule(Name=name, EventBusName=places.bus, EventPattern=pattern)["RuleArn"]
    urls, targets = {}, []
    for queue in ("application", "test"):
        urls[queue] = sqs.create_queue(QueueName=f"{name}-{queue}")["QueueUrl"]
        answer = sqs.get_queue_attributes(QueueUrl=urls[queue], AttributeNames=["QueueArn"])
        arn = answer["Attributes"]["QueueArn"]
        statement = {
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": rule}},
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        sqs.set_queue_attributes(QueueUrl=urls[queue], Attributes={"Policy": policy})
        targets.append({"Id": queue, "Arn": arn})
    bus.put_targets(Rule=name, EventBusName=places.bus, Targets=targets)
    fifo = sqs.create_queue(QueueName=f"{name}.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    yield urls | {"fifo": fifo}
    bus.remove_targets(Rule=name, EventBusName=places.bus, Ids=[one["Id"] for one in targets])
    bus.delete_rule(Name=name, EventBusName=places.bus)


def write_out(language: str, folder: Path) -> None:
    """The page's programs in this language: each block begins with its file's name."""
    found = re.findall(rf"^```{language}\n(?:#|//) ([\w.]+)\n(.*?)^```$", PAGE, re.M | re.S)
    assert [name.partition(".")[0] for name, _ in found] == ["send", "handle"]
    for name, content in found:
        (folder / name).write_text(content, encoding="utf-8")


def python(folder: Path) -> Callable[..., list[str]]:
    write_out("python", folder)
    ruff = [str(Path(sys.executable).parent / "ruff"), "check", "--isolated", "--select", "E,F,I,B,UP", "."]
    subprocess.run([*ruff, "--line-length", "110"], cwd=folder, check=True)
    return lambda name, *words: [sys.executable, f"{name}.py", *words]


def typescript(folder: Path) -> Callable[..., list[str]]:
    """Compiled by the page's own commands, with types of the schemas beside the worker."""
    if shutil.which("node") is None:
        pytest.skip(
            "no Node.js here, so the TypeScript of docs/integrate.md is not run: install nodejs and npm"
        )
    assert NODE_MODULES.is_dir(), (
        f"{NODE_MODULES} is missing: make test installs it, or `npm ci --ignore-scripts` there"
    )
    write_out("typescript", folder)
    (folder / "node_modules").symlink_to(NODE_MODULES)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "schemas").mkdir()
    for file in (ROOT / "worker").glob("*.schema.json"):
        shutil.copy(file, folder / "schemas")
    [build] = re.findall(r"^<!-- build -->\n```sh\n(.*?)^```$", PAGE, re.M | re.S)
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **QUIET}
    done = subprocess.run(
        ["bash", "-euc", build], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return lambda name, *words: ["node", f"{name}.js", *words]


@contextlib.contextmanager
def running(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[Callable[[], str]]:
    """A program until the block ends; gives what it has printed so far."""
    output = folder / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT
        )

        def printed() -> str:
            text = output.read_text(encoding="utf-8")
            assert process.poll() is None, text
            return text

        try:
            yield printed
        finally:
            process.kill()
            process.wait()


def messages(places: Places, queue: str) -> list[str]:
    """The bodies of what lies on a queue, which are taken from it."""
    sqs, found = places.account.client("sqs"), []
    while taken := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        for message in taken:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
            found.append(message["Body"])
    return found


def assert_grouped(places: Places, queue: str, job_id: str) -> None:
    """Fail unless a FIFO queue holds a valid job, in a group of its own."""
    asked: Any = {"AttributeNames": ["All"], "WaitTimeSeconds": 20}
    [message] = places.account.client("sqs").receive_message(QueueUrl=queue, **asked)["Messages"]
    assert message["Attributes"]["MessageGroupId"] == job_id
    assert message["Attributes"]["MessageDeduplicationId"] == job_id
    validator("job").validate(json.loads(message["Body"]))


@pytest.mark.parametrize("prepare", [python, typescript])
def test_an_application_gets_what_it_asked_for(
    prepare: Callable[[Path], Callable[..., list[str]]],
    places: Places,
    queues: dict[str, str],
    served: Served,
    credentials: dict[str, str],
    tmp_path: Path,
) -> None:
    """One job is drawn, and announced again where it is sent again; another is refused."""
    program = prepare(tmp_path)
    environment = credentials | {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "EVENTS_QUEUE_URL": queues["application"],
    }
    good, wrong = f"good-{prepare.__name__}", f"wrong-{prepare.__name__}"

    def send(name: str, prompt: str, queue: str = places.jobs) -> None:
        done = subprocess.run(
            program("send", name, prompt),
            cwd=tmp_path,
            env=environment | {"FLUX_QUEUE_URL": queue},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    places.account.client("sqs").send_message(QueueUrl=queues["application"], MessageBody="{}")
    with running(program("handle"), tmp_path, environment) as printed:
        until(lambda: "not handled" in printed(), PATIENCE, "what is no event")
        send(wrong, " ")
        send(good, "a cat on a roof")
        until(lambda: f"{good}: order 4711 is ready" in printed(), PATIENCE, "the image")
        send(good, "a cat on a roof")
        until(lambda: printed().count(f"{good}: order 4711 is ready") == 2, PATIENCE, "the second event")
        assert f"{wrong}: must be changed: prompt: must not be blank" in printed()
    send(good, "a cat on a roof", queues["fifo"])
    assert_grouped(places, queues["fifo"], good)

    objects = places.objects()
    record: Any = json.loads(objects[f"images/{good}.json"])
    image = (tmp_path / f"{good}.png").read_bytes()
    assert [hashlib.sha256(image).hexdigest()] == record["sha256"]
    assert objects[f"images/{wrong}=failed.json"]
    for key, content in objects.items():
        if name := of_key(key):
            assert_written(name, json.loads(content))
    events = [json.loads(body) for body in messages(places, queues["test"])]
    assert sorted(event["detail"]["id"] for event in events) == [good, good, wrong]
    for event in events:
        kind = {"FluxImageReady": "image-ready", "FluxImageFailed": "image-failed"}[event["detail-type"]]
        validator(kind).validate(event)
