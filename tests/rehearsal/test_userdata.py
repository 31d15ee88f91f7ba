"""User data on real machines starts a baked image's worker, and runs nothing that is not pinned."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bake.instance import user_data as with_host_key
from bake.localcloud import LocalCloud
from bake.ssh import Login, Session, connect
from bake.steps.launch import KeyPair

from ..bake.sources import Repository, repository
from .instances import client, launch

if TYPE_CHECKING:
    from tests.conftest import Machine
    from tests.outside import Outside

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
WIRING = {"FLUX_QUEUE_URL": "", "FLUX_BUCKET": "pictures", "FLUX_EVENT_BUS": "pictures"}


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return repository(tmp_path_factory.mktemp("git") / "flux")


@pytest.fixture(scope="module")
def git_url(outside: Outside, code: Repository) -> Iterator[str]:
    """The repository, served by git's own daemon beyond the host, as a forge's is."""
    code.commit()
    port = "9418"
    daemon = subprocess.Popen(
        outside.command(
            "git", "daemon", "--reuseaddr", "--export-all", f"--base-path={code.directory.parent}",
            f"--listen={outside.address}", f"--port={port}", str(code.directory.parent)),
        stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def listens() -> bool:
        with suppress(OSError), socket.create_connection((outside.address, int(port)), timeout=10):
            return True
        return False

    until("git's daemon", listens)
    yield f"git://{outside.address}:{port}/{code.directory.name}"
    daemon.terminate()
    daemon.wait()


@pytest.fixture(scope="module")
def queue(cloud: LocalCloud) -> str:
    """The worker's queue, bucket and bus."""
    s3, events = client(cloud, "s3"), client(cloud, "events")
    region = cloud.environment["AWS_REGION"]
    s3.create_bucket(Bucket=WIRING["FLUX_BUCKET"], CreateBucketConfiguration={"LocationConstraint": region})
    events.create_event_bus(Name=WIRING["FLUX_EVENT_BUS"])
    return str(client(cloud, "sqs").create_queue(QueueName="pictures")["QueueUrl"])


@pytest.fixture
def made(cloud: LocalCloud, tmp_path: Path) -> Callable[..., str]:
    """`bake userdata` for the local cloud."""

    def make(queue: str, url: str = "", commit: str = "") -> str:
        environment = {
            **{name: cloud.environment[name] for name in ("AWS_REGION", "SPOT_AWS_REGION")},
            **WIRING,
            "FLUX_QUEUE_URL": queue,
            "FLUX_GIT_URL": url,
            "FLUX_GIT_COMMIT": commit,
            "PYTHONPATH": str(ROOT),
            "PATH": "/usr/bin:/bin",
        }
        command = [
            sys.executable,
            "-m",
            "bake.cli",
            f"--env-file={tmp_path}/none",
            "userdata",
            "--profile=g6e-ubuntu",
        ]
        # No machine here has a GPU.
        more = [f"--set=AWS_ENDPOINT_URL={cloud.endpoint}", "--set=FLUX_BACKEND=cpu"]
        done = subprocess.run(
            [*command, *more], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return make


def script(session: Session, text: str) -> Any:
    """Run user data as cloud-init does: as root, from a file."""
    session.run("tee", "/tmp/userdata", stdin=text.encode())
    return session.run("bash", "/tmp/userdata", sudo=True, check=False)


ENVIRONMENT = "/etc/flux-worker/instance.env"


@pytest.fixture
def host(machine: Machine) -> Iterator[Session]:
    """A machine without a worker, and without instance.env afterwards."""
    yield machine.session
    machine.session.run("rm", "-f", ENVIRONMENT, "/tmp/launch-says", sudo=True)


def test_the_pinned_script_runs_and_the_environment_is_written(
    host: Session, made: Callable[..., str], code: Repository, git_url: str, queue: str
) -> None:
    gpu = code.directory / "provision/launch/gpu.sh"
    whole = gpu.read_text()
    gpu.write_text(f"{whole.splitlines()[0]}\necho pinned >/tmp/launch-says\n")
    pinned = code.commit()
    gpu.write_text("echo newer >/tmp/launch-says\n")
    code.commit()
    done = script(host, made(queue, git_url, pinned))
    gpu.write_text(whole)
    assert done.exit_code == 0, done.stderr
    assert f"g6e.xlarge runs gpu.sh of {pinned}" in done.stdout
    assert host.run("cat", "/tmp/launch-says").stdout == "pinned\n"
    assert f"FLUX_QUEUE_URL={queue}\n" in host.run("cat", ENVIRONMENT).stdout
    assert host.run("stat", "-c", "%a %U", ENVIRONMENT).stdout == "644 root\n"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        pytest.param("sha256=", "sha256=0000", "is not the one that this user data was made for", id="hash"),
        pytest.param("gpu.sh sha", "none.sh sha", "has no provision/launch/none.sh", id="script"),
        pytest.param("git://", "git://127.0.0.1:9/", "can't be fetched", id="repository"),
    ],
)
def test_what_is_not_as_pinned_runs_nothing_and_writes_nothing(
    host: Session,
    made: Callable[..., str],
    code: Repository,
    git_url: str,
    queue: str,
    old: str,
    new: str,
    why: str,
) -> None:
    text = made(queue, git_url, code.commit())
    assert old in text
    # Waiting between attempts is left out.
    done = script(host, text.replace(old, new).replace("in 2 5 10 20 0", "in 0"))
    assert done.exit_code == 1
    assert why in done.stderr
    assert f"the worker waits for {ENVIRONMENT}" in done.stderr
    assert host.run("test", "-e", ENVIRONMENT, check=False).exit_code == 1


def until(what: str, ask: Callable[[], Any], seconds: float = 900) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"{what}: nothing within {seconds:.0f} s"
        time.sleep(1)
    return answer


def drawn(cloud: LocalCloud, queue: str) -> bool:
    """Whether a job that is sent now comes out as an object."""
    s3, sqs = client(cloud, "s3"), client(cloud, "sqs")
    job = {
        "id": f"test-{uuid.uuid4().hex}",
        "prompt": "a lighthouse",
        "width": 256,
        "height": 256,
        "steps": 2,
    }
    sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(job))

    def there() -> bool:
        objects = s3.list_objects_v2(Bucket=WIRING["FLUX_BUCKET"]).get("Contents", [])
        return any(job["id"] in str(entry["Key"]) and str(entry["Key"]).endswith(".png") for entry in objects)

    return bool(until("a picture", there))


def test_an_image_booted_with_it_starts_its_worker_and_draws(
    cloud: LocalCloud, image: str, made: Callable[..., str], code: Repository, git_url: str, queue: str
) -> None:
    instance, _ = launch(cloud, image, made(queue, git_url, code.commit()))
    try:
        assert drawn(cloud, queue)
    finally:
        client(cloud, "ec2", "SPOT_AWS_REGION").terminate_instances(InstanceIds=[instance])


def test_an_image_booted_without_it_says_what_is_missing_and_starts_when_it_comes(
    cloud: LocalCloud, image: str, made: Callable[..., str], queue: str
) -> None:
    key = KeyPair.generate()
    instance, login = launch(cloud, image, with_host_key([key], {}))
    ec2 = client(cloud, "ec2", "SPOT_AWS_REGION")
    try:
        with connect(Login(login.address, login.user, login.private_key, key.public)) as session:
            session.run("cloud-init", "status", "--wait", check=False)

            def state(name: str) -> str:
                return session.run("systemctl", "show", "--value", "-p", name, "flux-worker").stdout.strip()

            until("the unit's condition", lambda: state("Result") == "exec-condition")
            assert state("ActiveState") == "inactive"
            missing = "AWS_REGION FLUX_QUEUE_URL FLUX_BUCKET FLUX_EVENT_BUS must stand in " + ENVIRONMENT
            session.run("journalctl", "--sync", sudo=True)  # it may still have what the unit said before it
            said = session.run("journalctl", "-u", "flux-worker", "-o", "cat", sudo=True).stdout
            assert f"flux-worker waits: {missing}" in said
            console = lambda: missing in ec2.get_console_output(InstanceId=instance)["Output"]  # noqa: E731
            until("the console's lines", console)
            assert script(session, made(queue)).exit_code == 0
            until("the worker", lambda: state("ActiveState") == "active")
    finally:
        ec2.terminate_instances(InstanceIds=[instance])
