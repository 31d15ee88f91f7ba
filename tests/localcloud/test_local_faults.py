"""`bake local fault` and the fixture `faults` on a cloud that is up."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from click.testing import CliRunner

from bake.errors import BakeError, UsageError
from bake.localcloud.api.faults.remote import RemoteFaults
from bake.localcloud.cli import local
from bake.localcloud.hub.control import RemoteHub
from bake.localcloud.network.control import over_socket
from bake.localcloud.settings import Settings

from .moto_account import PATIENCE
from .plugged import let_out, plugged_in


def fault(*words: str) -> str:
    """Run `bake local fault …` and return what it prints; an error that the user would see is raised."""
    result = CliRunner().invoke(local, ["fault", *words])
    if isinstance(result.exception, BakeError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def code(account: Any, operation: str = "describe_regions") -> str:
    """The error code of a call, "" where it goes well. Regions are asked by nobody else."""
    try:
        getattr(account.ec2, operation)()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def ask(url: str, method: str = "GET", content: Any = None) -> Any:
    body = None if content is None else json.dumps(content).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=PATIENCE) as answer:
        return json.load(answer)


@pytest.mark.root
def test_a_fault_is_added_listed_and_cleared(account: Any, faults: RemoteFaults) -> None:
    assert fault("list") == "No faults planted.\n"
    assert "planted fault 1: ec2 DescribeRegions refuse" in fault(
        "add", "ec2", "DescribeRegions", "--kind", "refuse", "--code", "Blocked", "--nth", "2"
    )
    fault("add", "sqs", "*", "--kind", "throttle", "--always", "--probability", "0.5", "--seed", "7")
    assert [code(account) for _ in range(3)] == ["", "Blocked", ""]
    first, second = json.loads(fault("list", "--json"))
    assert (first["struck"], first["left"], first["fault"]["after"]) == (1, 0, 1)
    assert (second["struck"], second["left"], second["fault"]["seed"]) == (0, None, 7)
    lines = fault("list").splitlines()
    assert " ".join(lines[1].split()) == "1 1 0 ec2 DescribeRegions refuse code=Blocked after=1"
    assert "no end" in lines[2]
    assert fault("clear") == "ended 2 faults\n"
    assert faults.listed() == []


@pytest.mark.root
def test_a_launch_whose_answer_is_lost_is_made_once(account: Any, faults: RemoteFaults) -> None:
    """The client sends it again, with the same client token."""
    faults.plant("ec2", "RunInstances", "lost")
    launched = account.launch()
    try:
        ours = [{"Name": "key-name", "Values": [launched.parameters["KeyName"]]}]
        [group] = account.settled(lambda: account.ec2.describe_instances(Filters=ours)["Reservations"])
        assert [one["InstanceId"] for one in group["Instances"]] == [launched.id]
        assert faults.struck() == 1
    finally:
        account.terminate(launched.id)


@pytest.mark.root
def test_the_hubs_faults_are_its_own(account: Any, faults: RemoteFaults) -> None:
    hub = RemoteHub(over_socket(Settings.load()))
    hub.plant("no-such-file", "cut")
    try:
        faults.plant("ec2", "DescribeRegions", "error", times=None)
        assert [one.path for one in hub.faults()] == ["no-such-file"]
        fault("clear")
        assert [one.path for one in hub.faults()] == ["no-such-file"]
    finally:
        hub.mend()


@pytest.mark.root
def test_the_clouds_own_routes_never_fail(account: Any, faults: RemoteFaults) -> None:
    faults.plant("*", "*", "refuse", code="Blocked", times=None, match="no-such-parameter")
    faults.plant("s3", "*", "error", times=None)
    assert over_socket(Settings.load())("GET", "/-/health", None)["environment"] == account.cloud.environment
    assert faults.struck() == 0


@pytest.mark.root
def test_a_wrong_fault_is_answered_with_what_is_wrong(account: Any, faults: RemoteFaults) -> None:
    content = json.dumps({"service": "ec2", "action": "*", "kind": "bang"}).encode()
    with pytest.raises(UsageError, match="kind: Input should be 'refuse'"):
        over_socket(Settings.load())("POST", "/-/faults", content)
    assert faults.listed() == []


@pytest.fixture
def machine(account: Any) -> Iterator[int]:
    """A process that is plugged in as a machine is."""
    settings = Settings.load()
    address = str(settings.subnet[-3])
    with plugged_in(settings, address) as process:
        let_out(settings, address)
        yield process


@pytest.mark.root
def test_calls_of_instances_are_told_apart(account: Any, faults: RemoteFaults, machine: int) -> None:
    s3 = account.client("s3", config=Config(signature_version="s3v4"))
    url = s3.generate_presigned_url("list_objects_v2", {"Bucket": "no-such-bucket"})
    program = f"""
import urllib.error, urllib.request
try: urllib.request.build_opener(urllib.request.ProxyHandler({{}})).open({url!r}, timeout={PATIENCE})
except urllib.error.HTTPError as error: print(error.code)
"""
    command = ["nsenter", f"--net=/proc/{machine}/ns/net", sys.executable, "-c", program]

    def instance() -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def host() -> int:
        with pytest.raises(urllib.error.HTTPError) as error:
            ask(url)
        return error.value.code

    faults.plant("s3", "*", "throttle", times=None, caller="guests", match="no-such-bucket")
    assert (instance(), host()) == ("503", 404)
    faults.clear()
    faults.plant("s3", "*", "throttle", times=None, caller="host", match="no-such-bucket")
    assert (instance(), host()) == ("404", 503)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(("--always", "--times", "2"), "contradict", id="always-and-times"),
        pytest.param(("--nth", "2", "--after", "1"), "--nth can't be combined", id="nth-and-after"),
        pytest.param(("--nth", "0"), "counted from 1", id="nth"),
    ],
)
def test_options_that_contradict_each_other(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        fault("add", "ec2", "*", "--kind", "error", *words)
    assert error.value.hint


@pytest.mark.root
@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(("ec2", "RunInstance", "--kind", "lost"), "no operation RunInstance", id="action"),
        pytest.param(("ec2", "*", "--kind", "lost", "--code", "X"), "has no answer", id="no-answer"),
        pytest.param(("ec2", "*", "--kind", "error", "--times", "0"), "times: ", id="times"),
    ],
)
def test_mistakes_are_explained(account: Any, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        fault("add", *words)
    assert error.value.hint


@pytest.mark.root
def test_a_cloud_that_is_down_takes_no_faults(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKE_LOCAL_STATE", str(tmp_path))
    monkeypatch.setenv("BAKE_LOCAL_NETWORK", "10.214.99.0/24")
    with pytest.raises(UsageError, match="not up") as error:
        fault("list")
    assert error.value.hint == "bake local up"
