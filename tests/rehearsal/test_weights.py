"""Downloading the weights to one real machine: what is fetched, what stops it, and what it survives."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from bake import run as runs_of
from bake import ssh
from bake.aws import ClientError
from bake.errors import BakeError, ConnectionLost, RemoteCommandError
from bake.layout import RANGES
from bake.localcloud import LocalCloud, RemoteHub, Settings, over_socket
from bake.planning.plan import Plan
from bake.progress import Progress
from bake.steps import prefetch, provision
from bake.steps.fill_stream import Filled, fill_stream
from bake.steps.prefetch import Download, Weights
from bake.undo import Undo
from bake.weights.mirror import Place
from tests import plans
from tests.screens import Seen

if TYPE_CHECKING:
    from tests.conftest import Machine, NewMachine

pytestmark = pytest.mark.root
BUCKET = "weights-mirror"


@dataclasses.dataclass
class Bench:
    """A machine with the tools on it, and a Hub that can be told to misbehave."""

    machine: Machine
    cloud: LocalCloud
    runs: Path
    heard: Seen = dataclasses.field(default_factory=Seen)

    def start(self, plan: Plan | None = None, undo: Undo | None = None) -> Download:
        machine = self.machine
        run = runs_of.new(self.runs, Progress(self.heard))
        self.forget_units()
        undo = undo or Undo()
        return prefetch.start(machine.session, plan or machine.plan, machine.aws, run, undo, machine.instance)

    def fill(self, plan: Plan) -> Filled | None:
        """What a bake does with the bucket of `weights.stream`."""
        machine = self.machine
        self.root(
            "systemctl stop 'bake-fill*'; systemctl reset-failed 'bake-fill*'; rm -f /run/bake/bake-fill*"
        )
        run = runs_of.new(self.runs, Progress(self.heard))
        with Undo() as undo:
            return fill_stream(machine.session, plan, machine.aws, run, undo, None)

    def forget_units(self) -> None:
        """An earlier test's: on a builder each is started once."""
        self.root(
            "systemctl stop 'bake-prefetch*'; systemctl reset-failed 'bake-prefetch*';"
            " rm -f /run/bake/bake-prefetch*"
        )

    def root(self, script: str) -> str:
        return self.machine.session.run("sh", "-c", script, sudo=True).stdout

    def boot(self) -> str:
        """What tells the machine's boots apart; empty where one has just ended."""
        try:
            return self.root("cat /proc/sys/kernel/random/boot_id")
        except ConnectionLost:
            self.machine.session.reconnect()
            return ""
        except RemoteCommandError:
            return ""

    def found(self, text: str) -> str:
        """The files of the machine that hold `text`; it goes in by stdin, since sudo logs its arguments."""
        places = ("/home", "/opt", "/etc", "/var", "/run/bake", "/tmp", "/root")
        searched = self.machine.session.run(
            "grep", "-rlFs", "-f", "-", *places, stdin=text.encode(), sudo=True, check=False
        )
        return searched.stdout

    def empty(self) -> None:
        self.root(f"rm -rf {self.repo}")

    @property
    def repo(self) -> str:
        return f"{self.machine.plan.weights.cache}/models--black-forest-labs--FLUX.1-dev"

    @property
    def hub(self) -> RemoteHub:
        return RemoteHub(over_socket(Settings.load()))

    def fault(self, path: str, kind: str, **fields: Any) -> None:
        self.hub.plant(path, kind, **fields)

    def mend(self) -> None:
        self.hub.mend()

    def check_cache(self, weights: Weights) -> None:
        """Exactly what is locked, verified here once more, and the image's user's."""
        lock = self.machine.plan.weights.lock
        assert lock is not None
        assert dict(weights.files) == {path: file.bytes for path, file in lock.files.items()}
        hashed = self.root(f"cd {weights.folder} && find -L . -type f -exec sha256sum {{}} +")
        sums = {name: sha256 for sha256, name in (line.split() for line in hashed.splitlines())}
        assert {name.removeprefix("./") for name in sums} == lock.files.keys()
        for path, file in lock.files.items():
            assert file.sha256 in (None, sums[f"./{path}"])
        assert set(self.root(f"find {self.machine.plan.weights.cache} -printf '%u\\n'").split()) == {"ubuntu"}
        assert (
            self.root(f"find {self.machine.plan.weights.cache} -name '*.incomplete' -o -name '*.lock'") == ""
        )


@pytest.fixture(scope="module")
def prepared(new_machine: NewMachine) -> Iterator[Machine]:
    with new_machine() as machine:
        provision.upload(machine.session, machine.plan, machine.run)
        provision.install_tools(machine.session, machine.plan, machine.aws, machine.run)
        yield machine


@pytest.fixture
def bench(prepared: Machine, cloud: LocalCloud, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(prepared, cloud, tmp_path)
    bench.empty()
    yield bench
    bench.mend()


def changed(plan: Plan, **weights: Any) -> Plan:
    found = plan.profile.weights.model_copy(update=weights)
    return plans.changed(plan, plan.profile.model_copy(update={"weights": found}))


def soon(look: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def test_only_files_that_diffusers_loads_are_fetched(bench: Bench) -> None:
    weights = bench.start().wait()
    bench.check_cache(weights)
    assert "model_index.json" in weights.files
    assert not [name for name in weights.files if name.startswith(("flux1-dev", "ae.", "dev_grid", "README"))]
    assert (weights.fetched, weights.reused, weights.starts) == (weights.bytes, 0, 1)
    assert weights.disk["stand_in"] is True
    assert "stands for EBS" in bench.heard.notes
    again = bench.start().wait()
    assert (again.fetched, again.reused) == (0, weights.bytes)


def test_the_token_is_nowhere_on_the_machine(bench: Bench) -> None:
    bench.start().wait()
    assert bench.found(bench.machine.plan.profile.weights.token.get_secret_value()) == ""


def test_a_wrong_token_is_refused_with_a_hint(bench: Bench) -> None:
    plan = changed(bench.machine.plan, token=SecretStr("hf_wrong"))
    with pytest.raises(BakeError, match="the weights were not downloaded") as caught:
        bench.start(plan).wait()
    assert "https://huggingface.co/" in str(caught.value.hint)
    assert "hf_wrong" not in f"{caught.value.message}{caught.value.hint}"


def test_a_refusal_stops_what_runs_beside_it_at_once(bench: Bench) -> None:
    bench.fault(path="*", kind="status", status=403, times=None)
    download = bench.start()
    unit = provision.units.start(bench.machine.session, f"test-{time.monotonic_ns()}", "sleep", "900")
    with pytest.raises(BakeError, match="the weights were not downloaded"):
        unit.wait(download.check, seconds=1.0)  # it would return when the unit has ended


def test_memory_in_place_of_the_disk_is_refused_with_its_name(bench: Bench) -> None:
    cache = bench.machine.plan.weights.cache
    bench.root(f"mount -t tmpfs none {cache} && chown ubuntu {cache}")
    try:
        with pytest.raises(BakeError, match="tmpfs") as caught:
            bench.start().wait()
        assert cache in caught.value.message
        assert bench.root(f"ls -A {cache}") == ""
    finally:
        bench.root(f"umount {cache}")


def slow(bench: Bench) -> None:
    """Half a minute a file, or until `mend`: a busy host is late to see it, and to do something about it."""
    bench.fault(path="transformer/*.safetensors", kind="slow", rate=2_000, times=2)


def soon_on_its_way(bench: Bench) -> None:
    look = f"find {bench.repo}/blobs -name '*.incomplete' -size +0 2>/dev/null; true"
    soon(lambda: bench.root(look) != "")


def test_a_dropped_connection_costs_the_download_nothing(bench: Bench) -> None:
    slow(bench)
    download = bench.start()
    soon_on_its_way(bench)
    server = bench.machine.session.run("sh", "-c", "echo $PPID").stdout.strip()  # the bake's own sshd
    with ssh.connect(bench.machine.instance.login) as other:
        other.run("kill", server, sudo=True)
    bench.mend()
    weights = download.wait()
    bench.check_cache(weights)
    assert (weights.fetched, weights.starts) == (weights.bytes, 1)
    assert bench.machine.session.run("sh", "-c", "echo $PPID").stdout.strip() != server


def test_a_killed_downloader_is_started_again_and_goes_on(bench: Bench) -> None:
    slow(bench)
    download = bench.start()
    soon_on_its_way(bench)
    bench.root("systemctl kill --signal=KILL bake-prefetch")
    bench.mend()
    weights = download.wait()
    bench.check_cache(weights)
    assert weights.starts == 2
    assert weights.reused > 0
    assert "the download broke off: its downloader ended with 9" in bench.heard.notes


def test_a_downloader_that_is_always_killed_is_given_up(bench: Bench) -> None:
    bench.fault(path="transformer/*.safetensors", kind="slow", rate=2_000, times=None)  # none ends in time
    download, end = bench.start(), threading.Event()

    # Only one that has said something: before, it may not have taken its secrets, which are waited for.
    script = "cd /run/bake; for said in bake-prefetch*.out; do"
    script += " ! test -s $said || systemctl kill --signal=KILL ${said%.out}; done 2>/dev/null; true"

    def kill() -> None:
        while not end.wait(0.5):
            bench.root(script)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(BakeError):
            download.wait()
    finally:
        end.set()
        killer.join()
    assert bench.heard.notes.count("the download broke off") == prefetch.STARTS - 1
    assert bench.root(f"ls {bench.repo}/snapshots 2>/dev/null; true") == ""


def test_a_restart_of_the_builder_costs_only_time(bench: Bench) -> None:
    slow(bench)
    download = bench.start()
    soon_on_its_way(bench)
    bench.machine.aws.ec2.reboot_instances(InstanceIds=[bench.machine.instance.id])
    soon(lambda: "the download broke off" in bench.heard.notes)
    bench.mend()
    weights = download.wait()
    bench.check_cache(weights)
    assert weights.starts == 2
    assert "the builder was restarted" in bench.heard.notes


def test_what_runs_beside_says_that_the_builder_was_restarted(bench: Bench) -> None:
    unit = provision.units.start(bench.machine.session, "bake-99-beside", "sleep", "900")
    boot = bench.boot()
    bench.machine.aws.ec2.reboot_instances(InstanceIds=[bench.machine.instance.id])
    with pytest.raises(BakeError, match="the builder was restarted while bake-99-beside ran") as caught:
        unit.wait()
    assert "bake again" in str(caught.value.hint)
    soon(lambda: bench.boot() not in ("", boot))  # the next test's machine is up


# --- the mirror -------------------------------------------------------------------------------------


@pytest.fixture
def mirrored(bench: Bench) -> Plan:
    s3 = bench.machine.aws.presigner("eu-north-1")
    if BUCKET not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-north-1"})
        soon(lambda: shown(s3) and shown(s3))  # every second answer may be late
    for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        s3.delete_object(Bucket=BUCKET, Key=item["Key"])
    return changed(bench.machine.plan, mirror=f"s3://{BUCKET}/flux")


def shown(s3: Any) -> bool:
    try:
        s3.head_bucket(Bucket=BUCKET)
    except ClientError:
        return False
    return True


def large(plan: Plan) -> dict[str, int]:
    assert plan.weights.lock is not None
    return {file.sha256: file.bytes for file in plan.weights.lock.files.values() if file.sha256}


def test_a_mirror_is_filled_and_then_serves(bench: Bench, mirrored: Plan) -> None:
    s3 = bench.machine.aws.presigner("eu-north-1")
    with Undo() as undo:
        first = bench.start(mirrored, undo).wait()
    assert first.from_mirror == 0
    stored = {item["Key"]: item["Size"] for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])}
    assert stored == {f"flux/{sha256}": size for sha256, size in large(mirrored).items()}, bench.heard.notes
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET)
    bench.empty()
    second = bench.start(mirrored).wait()
    bench.check_cache(second)
    assert second.from_mirror == sum(large(mirrored).values())


def test_what_a_mirror_serves_is_verified_like_everything_else(bench: Bench, mirrored: Plan) -> None:
    s3 = bench.machine.aws.presigner("eu-north-1")
    sha256, size = max(large(mirrored).items(), key=lambda item: item[1])
    s3.put_object(Bucket=BUCKET, Key=Place(BUCKET, "flux").key(sha256), Body=b"x" * size)
    with Undo() as undo:
        weights = bench.start(mirrored, undo).wait()
    bench.check_cache(weights)
    assert "mirror: " in bench.heard.notes or "fetched again" in bench.heard.notes


def test_a_mirror_that_is_not_there_leaves_the_hub(bench: Bench) -> None:
    weights = bench.start(changed(bench.machine.plan, mirror="s3://no-such-bucket-here")).wait()
    bench.check_cache(weights)
    assert "no mirror, the Hub serves: AWS answers 404" in bench.heard.notes


def test_a_bucket_that_workers_read_gets_what_is_served_and_the_image_its_hashes(
    bench: Bench, mirrored: Plan
) -> None:
    plan = changed(bench.machine.plan, stream=f"s3://{BUCKET}/stream")
    bench.start(plan).wait()
    assert plan.weights.lock is not None
    served = {path: file for path, file in plan.weights.lock.files.items() if path.endswith(".safetensors")}
    first, second = bench.fill(plan), bench.fill(plan)
    assert first is not None and second is not None
    assert (first.there, set(first.uploaded), first.lacking) == ((), served.keys(), ()), bench.heard.notes
    assert (set(second.there), second.uploaded, second.lacking) == (served.keys(), (), ())
    s3 = bench.machine.aws.presigner("eu-north-1")
    stored = {item["Key"]: item["Size"] for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])}
    assert stored == {f"stream/{file.sha256}": file.bytes for file in served.values()}
    manifest = json.loads(bench.root(f"cat {RANGES}"))
    # Each is smaller than a range, so that its only one has the hash of the whole.
    assert manifest["files"] == {
        path: {"bytes": file.bytes, "sha256": file.sha256, "ranges": [file.sha256]}
        for path, file in served.items()
    }
    assert bench.root(f"stat -c '%U %a' {RANGES}").split() == ["root", "644"]
    assert bench.fill(changed(plan, stream="s3://no-such-bucket-here")) is None
    assert "s3://no-such-bucket-here gets no weights, workers read their volume alone" in bench.heard.notes


def test_presigned_urls_are_in_no_file_of_the_run(bench: Bench, mirrored: Plan) -> None:
    with Undo() as undo:
        bench.start(mirrored, undo).wait()
    for file in bench.runs.rglob("*"):
        assert not file.is_file() or b"X-Amz-Signature" not in file.read_bytes(), file
    assert bench.found("X-Amz-Credential=rehearsal") == ""
