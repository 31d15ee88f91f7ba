"""`flux-worker send` sends a job to the queue and downloads its images."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import flux_worker.sender
from flux_worker.cli import main
from flux_worker.errors import WorkerError
from flux_worker.jobspec.job import Job, parse
from flux_worker.sender import connect
from flux_worker.settings import QueueSettings
from tests.worker.conftest import CREDENTIALS, REGION
from tests.worker.worker_harness import BODY, WorkerHarness

pytestmark = pytest.mark.integration
COMMAND = str(Path(sys.executable).parent / "flux-worker")
SMALL = ["--width", "256", "--height", "256", "--steps", "2"]

Send = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def send(environment: dict[str, str], tmp_path: Path) -> Send:
    """Run the command in a folder of its own."""

    def run(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, "send", *arguments],
            capture_output=True,
            text=True,
            env=environment | extra,
            cwd=tmp_path,
            check=False,
        )

    return run


@pytest.fixture
def lonely(new_aws: Callable[[], Any]) -> tuple[Any, dict[str, str]]:
    """Places without any worker, and the variables that name them."""
    aws = new_aws()
    return aws, {"FLUX_QUEUE_URL": aws.jobs, "FLUX_BUCKET": aws.bucket}


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In this process, in a folder of its own, and without AWS: whoever asks it is given away."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(flux_worker.sender, "connect", lambda _places: pytest.fail("AWS was asked"))


def body(aws: Any) -> dict[str, Any]:
    (message,) = aws.client("sqs").receive_message(QueueUrl=aws.jobs, WaitTimeSeconds=5)["Messages"]
    return json.loads(message["Body"])  # type: ignore[no-any-return]


def test_every_field_of_a_job_can_be_given() -> None:
    command = main.get_command(None, "send")  # type: ignore[arg-type]
    assert command
    names = {str(parameter.name) for parameter in command.params} | {"id"}
    assert set(Job.model_fields) <= names


@pytest.mark.usefixtures("worker")
def test_a_picture_comes_back(send: Send, tmp_path: Path, aws: Any) -> None:
    done = send("ein Haus am Meer — 海", *SMALL, "--seed", "7", "--id", "house", "--out", "house.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Wrote house.png (s3://{aws.bucket}/images/house.png, seed 7)\n"
    assert done.stderr == "", "progress is for terminals"
    assert Image.open(tmp_path / "house.png").size == (256, 256)


@pytest.mark.usefixtures("worker")
def test_several_pictures_come_back_with_their_record(send: Send, tmp_path: Path) -> None:
    done = send("a cat", *SMALL, "--images", "2", "--out", "cat.webp", "--metadata", '{"order": 7}', "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["files"] == ["cat-1.webp", "cat-2.webp"]
    assert record["job"]["metadata"] == {"order": 7}
    assert record["job"]["format"] == "webp"
    assert [Image.open(tmp_path / file).format for file in record["files"]] == ["WEBP", "WEBP"]


@pytest.mark.usefixtures("worker")
def test_the_same_id_is_drawn_once_and_never_for_another_job(send: Send, tmp_path: Path, aws: Any) -> None:
    first = send("a cat", *SMALL, "--id", "once", "--seed", "1")
    assert first.returncode == 0, first.stderr
    content = (tmp_path / "once.png").read_bytes()
    again = send("a cat", *SMALL, "--id", "once", "--seed", "1", "--out", "again.png")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again.png").read_bytes() == content
    other = send("a dog", *SMALL, "--id", "once", "--seed", "2")
    assert other.returncode == 1
    assert "once exists with another prompt, seed: choose another id" in other.stderr
    aws.wait_until_empty()


@pytest.mark.usefixtures("worker")
def test_a_job_that_cannot_be_drawn_says_why(send: Send) -> None:
    refused = send("cat " * 300, *SMALL, "--id", "long", "--max-sequence-length", "8")
    assert refused.returncode == 1
    assert re.search("the job long failed: prompt: .* tokens", refused.stderr)
    # What was written about an earlier job of this id is no answer to this one.
    mended = send("cat", *SMALL, "--id", "long")
    assert mended.returncode == 0, mended.stderr


@pytest.mark.usefixtures("worker")
def test_a_picture_goes_to_standard_output_alone(environment: dict[str, str], tmp_path: Path) -> None:
    command = [COMMAND, "send", "a cat", *SMALL, "--format", "jpg", "--out", "-"]
    done = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert Image.open(io.BytesIO(done.stdout)).format == "JPEG"
    assert b"Wrote standard output (s3://" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("worker")
def test_who_cannot_write_a_picture_is_told_where_it_is(send: Send, aws: Any) -> None:
    done = send("a cat", *SMALL, "--id", "no-room", "--out", "/dev/full")
    assert done.returncode == 1
    place = f"s3://{aws.bucket}/images/no-room.png"
    assert done.stderr == f"Error: cannot write /dev/full: No space left on device; the image is {place}\n"
    assert done.stdout == ""


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("dead", [False, True], ids=["refused", "dead-lettered"])
def test_a_job_that_was_given_up_ends_the_waiting(
    environment: dict[str, str], lonely: tuple[Any, dict[str, str]], tmp_path: Path, dead: bool, as_json: bool
) -> None:
    """The worker writes it down on the last receive; nobody will draw it now."""
    aws, places = lonely
    s3 = aws.client("s3")
    failure = {
        "id": "cat",
        "reason": "CUDA error: the device fell off",
        "failed_at": "2026-11-22T10:00:00+00:00",
    }
    old = failure | {"reason": "an older one", "dead_lettered": True}
    s3.put_object(Bucket=aws.bucket, Key="images/cat=failed.json", Body=json.dumps(old).encode())
    failure |= {"dead_lettered": True} if dead else {}
    command = [COMMAND, "send", "a cat", "--id", "cat", *(["--json"] if as_json else [])]
    with subprocess.Popen(
        command, env=environment | places, stdout=-1, stderr=-1, text=True, cwd=tmp_path
    ) as process:
        body(aws)  # it is on the queue, and what is written from now on is about it
        s3.put_object(Bucket=aws.bucket, Key="images/cat=failed.json", Body=json.dumps(failure).encode())
        out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    what = "went to the dead-letter queue" if dead else "failed"
    assert err == f"flux-worker: the job cat {what}: CUDA error: the device fell off\n"
    assert json.loads(out) == failure if as_json else out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["a cat", "--width", "1000"], "width: .*multiple of 16", id="size"),
        pytest.param([" "], "prompt: .*blank", id="blank"),
        pytest.param(["a cat", "--quality", "5"], "quality: png knows none", id="quality-of-png"),
        pytest.param(["a cat", "--metadata", "{"], "--metadata: is not JSON", id="broken-metadata"),
        pytest.param(["a cat", "--metadata", "[1]"], "must be a JSON object", id="list-as-metadata"),
        pytest.param(["a cat", "--out", "a.gif"], "must end in .png, .jpg", id="gif"),
        pytest.param(["a cat", "--out", "no/a.png"], "an existing folder", id="no-folder"),
        pytest.param(
            ["a cat", "--out", "a.png", "--format", "jpg"], "does not fit --format jpg", id="two-formats"
        ),
        pytest.param(["a cat", "--id", "a/b"], "id: ", id="bad-id"),
        pytest.param(["a cat", "--out", "a.png", "--no-wait"], "--out needs", id="not-waiting-for-a-file"),
        pytest.param(["a cat", "--out", "x" * 252 + ".png"], "File\\s+name\\s+too\\s+long", id="long-name"),
        pytest.param(["a cat", "--images", "2", "--out", "-"], "can hold one image", id="two-on-stdout"),
        pytest.param(["a cat", "--out", "/proc/a.png"], "is\\s+not\\s+writable", id="no-place-for-files"),
        pytest.param([], "Missing argument 'PROMPT'", id="no-prompt"),
    ],
)
@pytest.mark.usefixtures("nowhere")
def test_what_cannot_be_drawn_is_not_sent(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["send", *arguments])
    assert ended.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_who_does_not_wait_gets_the_id(send: Send, lonely: tuple[Any, dict[str, str]]) -> None:
    aws, places = lonely
    done = send("a cat", "--steps", "4", "--s3-prefix", "a/b/", "--no-wait", **places)
    assert done.returncode == 0, done.stderr
    job = body(aws)
    assert job == {"id": done.stdout.strip(), "prompt": "a cat", "steps": 4, "s3_prefix": "a/b/"}
    assert re.fullmatch("[0-9a-f]{32}", job["id"])


@pytest.mark.parametrize("seconds", ["0", "0.5"])
def test_who_waits_too_long_is_told_where_to_look(
    send: Send, lonely: tuple[Any, dict[str, str]], seconds: str
) -> None:
    aws, places = lonely
    done = send("a cat", "--id", "cat", "--timeout", seconds, **places)
    assert done.returncode == 1
    assert f"no result within {seconds} s (on the queue)" in done.stderr
    assert f"s3://{aws.bucket}/images/cat.json" in done.stderr
    assert body(aws)["id"] == "cat"


def test_an_outage_does_not_end_the_waiting(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket is gone for a while, and with it the answer; the job is on the queue all the same."""
    aws = harness.aws
    for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": aws.endpoint}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(flux_worker.sender, "LOOK_EVERY_SECONDS", 0)
    places = {"AWS_REGION": REGION, "FLUX_QUEUE_URL": aws.jobs, "FLUX_BUCKET": aws.bucket}
    sender = connect(QueueSettings.from_environment(places))
    job = parse(BODY)
    sender.send(job)
    states: list[str] = []

    def on_look(state: str) -> None:
        states.append(state)
        if len(states) == 1:
            aws.remove_bucket()
            return
        aws.make_bucket()
        with harness.worker() as worker:
            worker.handle(harness.receive())

    assert sender.wait(job, 600, None, on_look).job.id == job.id
    assert len(states) == 2
    assert states[0] == "on the queue"
    assert "NoSuchBucket" in states[1]
    aws.remove_bucket()
    with pytest.raises(WorkerError, match=r"no result within 0 s \(.*NoSuchBucket"):
        sender.wait(job, 0, None, states.append)


@pytest.mark.parametrize(
    ("extra", "code", "message"),
    [
        pytest.param({"FLUX_BUCKET": "", "AWS_REGION": ""}, 78, "FLUX_BUCKET is not set", id="unset"),
        pytest.param({"FLUX_BUCKET": "no-such-bucket-4711"}, 1, "cannot read s3://no-such", id="bucket"),
        pytest.param({"FLUX_QUEUE_URL": "{}/123456789012/gone"}, 1, "could not be sent to", id="queue"),
        pytest.param({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, 1, "cannot read s3://", id="no-network"),
    ],
)
def test_what_is_wrong_with_the_places_is_said(
    send: Send, aws: Any, extra: dict[str, str], code: int, message: str
) -> None:
    extra = {name: value.format(aws.endpoint) for name, value in extra.items()}
    done = send("a cat", "--no-wait", **extra) if code == 78 else send("a cat", **extra)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def read_until(terminal: int, pattern: bytes) -> None:
    """Read what is shown until it matches; a read may end in the middle of it."""
    shown, deadline = b"", time.monotonic() + 300
    while not re.search(pattern, shown):
        left = max(0.0, deadline - time.monotonic())
        assert select.select([terminal], [], [], left)[0], f"{pattern!r} is not in {shown!r}"
        shown += os.read(terminal, 1024)


def test_a_terminal_shows_how_far_it_is_and_an_interrupt_what_stays(
    environment: dict[str, str], lonely: tuple[Any, dict[str, str]], tmp_path: Path
) -> None:
    aws, places = lonely
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [COMMAND, "send", "a cat", "--id", "cat"], env=environment | places, stderr=theirs, cwd=tmp_path
        ) as process:
            read_until(ours, rb"cat: on the queue, [1-9]\d* s")
            claim = {"Bucket": aws.bucket, "Key": "images/cat=claim"}
            aws.client("s3").put_object(**claim, Body=b'{"token": "a worker"}')
            read_until(ours, b"cat: being drawn")
            aws.client("s3").put_object(**claim, Body=b'{"failed": true}')  # of an earlier try
            read_until(ours, b"cat: on the queue")
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 1
        read_until(ours, b"the job cat stays on the queue")
    finally:
        os.close(ours)
        os.close(theirs)
