"""`bake local`: what a person types."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from bake.errors import BakeError, UsageError
from bake.localcloud.cli import local
from bake.localcloud.lifecycle import cloud as localcloud
from bake.localcloud.lifecycle import shell_environment
from bake.localcloud.lifecycle.local_cloud import LocalCloud


def run(*words: str) -> tuple[int, str]:
    """Run a command; its exit code and stdout. An error that the command line would show is raised."""
    result = CliRunner().invoke(local, words)
    if isinstance(result.exception, BakeError):
        raise result.exception
    return result.exit_code, result.stdout


@pytest.mark.parametrize("name", sorted(local.commands))
def test_every_command_has_help_with_an_example(name: str) -> None:
    text = local.commands[name].get_help(click.Context(local.commands[name]))
    assert f"bake local {name}" in text


@pytest.fixture(scope="module")
def booted(account: Any) -> Iterator[str]:
    _, said = run("boot", account.cloud.environment["BASE_AMI_ID"])
    instance = said.split()[0]
    yield instance
    account.terminate(instance)


@pytest.mark.root
def test_boot_status_and_ssh(booted: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert booted in run("status")[1]
    status = json.loads(run("status", "--json")[1])
    assert [one["state"] for one in status["instances"] if one["id"] == booted] == ["running"]
    assert run("ssh", booted, "test", "-s", "/etc/flux-worker/instance.env")[0] == 0
    assert run("ssh", booted, "exit", "7")[0] == 7
    run("ssh", booted, "cat", "/etc/flux-worker/instance.env")
    said = capfd.readouterr().out
    assert "FLUX_QUEUE_URL=http://" in said
    assert "FLUX_BACKEND=cpu\n" in said, "no machine has a GPU, whatever the image is for"


@pytest.mark.root
def test_a_machine_has_its_types_neuron_devices(booted: str, account: Any) -> None:
    """As many as EC2 tells of the type that an image for Neuron is booted on; else none."""
    localcloud.provide("ubuntu", "neuron")
    _, said = run("boot", account.cloud.environment["BASE_AMI_ID_NEURON"])
    instance = said.split()[0]
    try:
        types = {one["id"]: one["type"] for one in json.loads(run("status", "--json")[1])["instances"]}
        found = [run("ssh", instance, "test", "-c", f"/dev/neuron{number}")[0] for number in (0, 5, 6)]
        told = run("ssh", instance, "grep", "FLUX_BACKEND", "/etc/flux-worker/instance.env")[0]
    finally:
        account.terminate(instance)
    assert (types[booted], types[instance]) == ("g6e.xlarge", "inf2.24xlarge")
    assert (found, told) == ([0, 0, 1], 1)
    assert run("ssh", booted, "test", "-e", "/dev/neuron0")[0] == 1


@pytest.mark.root
def test_a_drawing_is_fetched(booted: str, account: Any, tmp_path: Path) -> None:
    """The worker's part is played by a thread; the rehearsal has the real one."""
    # Made here: boto3 makes no two clients at the same time.
    sqs, s3, events = (account.client(service) for service in ("sqs", "s3", "events"))

    def work() -> None:
        queue = sqs.get_queue_url(QueueName="flux-jobs")["QueueUrl"]
        ask = lambda: sqs.receive_message(QueueUrl=queue).get("Messages")  # noqa: E731
        [message] = account.wait("the job", ask)
        job = json.loads(message["Body"])
        key = f"images/{job['id']}.png"
        s3.put_object(Bucket="flux-images", Key=key, Body=b"picture")
        detail = {**job, "bucket": "flux-images", "keys": [key], "seed": 7, "seconds": 0.5}
        entry = {"Source": "flux.worker", "DetailType": "FluxImageReady", "EventBusName": "flux"}
        events.put_events(Entries=[{**entry, "Detail": json.dumps(detail)}])

    worker = threading.Thread(target=work)
    worker.start()
    code, said = run("draw", "a cat", "--out", str(tmp_path / "cat.png"), "--seed", "7", "--timeout", "300")
    worker.join()
    assert (code, (tmp_path / "cat.png").read_bytes()) == (0, b"picture")
    assert "256x256, seed 7" in said


@pytest.mark.root
@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(("boot", "ami-0"), "can't be booted", id="unknown-ami"),
        pytest.param(("ssh", "i-0"), "no instance i-0", id="unknown-instance"),
        pytest.param(("draw", "x", "--out", "/no/such/x.png"), "no directory /no/such", id="no-directory"),
    ],
)
def test_mistakes_are_explained(booted: str, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        run(*words)
    assert error.value.hint


WHO = "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'], boto3.Session().region_name)"


@pytest.mark.root
def test_the_environment_lets_awss_tools_in(cloud: LocalCloud) -> None:
    """Whatever was set before."""
    code, said = run("env")
    assert code == 0
    hostile = dict.fromkeys(shell_environment.UNSET, "elsewhere") | {"AWS_SECRET_ACCESS_KEY": "x"}
    script = f'eval "$LINES_OF_ENV"; exec {sys.executable} -c "$WHO"'
    environment = {"PATH": "/usr/bin:/bin", "LINES_OF_ENV": said, "WHO": WHO, **hostile}
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "arn:aws:iam::123456789012:root eu-north-1\n", done.stderr


@pytest.mark.root
def test_the_environment_for_programs(cloud: LocalCloud) -> None:
    found = json.loads(run("env", "--json")[1])
    assert found.pop("AWS_SECRET_ACCESS_KEY") == cloud.keys.secret
    assert found == {
        "AWS_ACCESS_KEY_ID": cloud.keys.id,
        "AWS_ENDPOINT_URL": cloud.endpoint,
        "AWS_REGION": "eu-north-1",
        "AWS_DEFAULT_REGION": "eu-north-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.mark.root
def test_a_cloud_that_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKE_LOCAL_STATE", str(tmp_path))
    monkeypatch.setenv("BAKE_LOCAL_NETWORK", "10.214.99.0/24")
    assert run("status") == (0, "the local cloud is down\n")
    assert run("status", "--json") == (0, "null\n")
    assert run("images") == (0, "No AMIs baked yet.\n")
    for words in (("boot", "ami-1"), ("env",), ("env", "--json")):
        with pytest.raises(UsageError, match="not up"):
            run(*words)
    assert run("down")[0] == 0
