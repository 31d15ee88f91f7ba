"""Base AMIs without a usable Python, without a package manager, or with a /tmp that is mounted noexec."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from bake import interpreter as pinned
from bake.errors import RemoteCommandError
from bake.progress import PlainScreen, Progress
from bake.run import Run
from bake.steps import provision
from bake.steps.locate_python import python_urls
from tests.plans import changed

if TYPE_CHECKING:
    from tests.conftest import Machine, NewMachine

pytestmark = pytest.mark.root
NOWHERE = "http://127.0.0.1:9/python.tar.gz"
# The system's Python has no name of its own, and others come before it that have: conda's, and one that
# somebody built. Its part that makes environments is gone, and so are apt's sources.
PLANT = r"""
version=$1
mkdir -p /usr/libexec/planted /opt/conda/bin
mv /usr/bin/python$version /usr/libexec/planted/
ln -sf /usr/libexec/planted/python$version /usr/bin/python3
for place in /usr/local/bin /opt/conda/bin; do
  ln -s /usr/libexec/planted/python$version $place/python$version
  printf '#!/bin/sh\necho "taken from %s" >&2\nexit 1\n' $place >$place/python3
  chmod 755 $place/python3
done
mv /usr/lib/python$version/ensurepip /usr/libexec/planted/
if [ -e /etc/apt ]; then mv /etc/apt /etc/apt.gone; fi
for place in /tmp /var/tmp /dev/shm; do mount -t tmpfs -o noexec,nosuid,nodev none $place; done
mount --bind /home /home && mount -o remount,bind,noexec /home
"""
AGAIN = """
systemctl stop 'bake-*'
systemctl reset-failed 'bake-*'
rm -rf /opt/bake/cache/python /opt/bake/python /opt/bake/tools
"""


@pytest.fixture(
    scope="module",
    params=["g6e-ubuntu", pytest.param("g6e-amazon-linux", marks=pytest.mark.long)],
)
def machine(request: pytest.FixtureRequest, new_machine: NewMachine) -> Iterator[Machine]:
    with new_machine(request.param) as machine:
        machine.session.run("bash", "-es", machine.plan.sources.python, stdin=PLANT.encode(), sudo=True)
        provision.upload(machine.session, machine.plan, machine.run)
        yield machine


@pytest.fixture
def run(machine: Machine) -> Run:
    """A run whose notes are this test's own, on a machine that has fetched nothing."""
    machine.session.run("sh", "-c", AGAIN, sudo=True, check=False)
    return Run(machine.run.id, machine.run.directory, Progress(PlainScreen()))


def prefix(machine: Machine, python: str) -> str:
    code = "import sys; print(sys.base_prefix)"
    return machine.session.run(python, "-I", "-c", code, sudo=True).stdout.strip()


def locked(machine: Machine, tmp_path: Path, **changes: Any) -> Any:
    """The plan with another lock of the pinned Python."""
    archive = machine.plan.provision.interpreter
    lock = tmp_path / "python.json"
    entry = {"url": archive.url, "sha256": archive.sha256, **changes}
    lock.write_text(json.dumps({archive.name: entry}))
    return changed(machine.plan, sources=replace(machine.plan.sources, interpreter=lock))


def test_the_pinned_python_comes_from_the_mirror_which_is_filled(machine: Machine, run: Run) -> None:
    aws, archive = machine.aws, machine.plan.provision.interpreter
    where: Any = {"LocationConstraint": aws.region}
    s3 = aws.presigner(aws.region)
    if "flux-pythons" not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket="flux-pythons", CreateBucketConfiguration=where)
    weights = machine.plan.profile.weights.model_copy(update={"mirror": "s3://flux-pythons/some/prefix"})
    plan = changed(machine.plan, machine.plan.profile.model_copy(update={"weights": weights}))
    provision.install_tools(machine.session, plan, aws, run)
    content = s3.get_object(Bucket="flux-pythons", Key=f"some/prefix/{archive.sha256}")["Body"].read()
    assert content == archive.fetch()
    endpoint = urlsplit(str(s3.meta.endpoint_url)).netloc
    assert f"{archive.name} from {endpoint}" in run.progress.notes
    listed = machine.session.run("sh", "-c", "cat /run/bake/bake-python*", sudo=True).stdout
    assert "X-Amz-Signature" not in listed


def test_a_mirror_without_it_and_without_leave_is_gone_without(machine: Machine, run: Run) -> None:
    weights = machine.plan.profile.weights.model_copy(update={"mirror": "s3://nobodys-bucket-of-this-name"})
    plan = changed(machine.plan, machine.plan.profile.model_copy(update={"weights": weights}))
    assert python_urls(plan, machine.aws, run) == [machine.plan.provision.interpreter.url]
    [note] = run.progress.notes
    assert "is not in the mirror: AWS answers" in note


def test_an_archive_with_another_hash_is_not_unpacked(machine: Machine, run: Run, tmp_path: Path) -> None:
    """The builder's own settings have the hash: whatever the controller sends there is held to it."""
    plan = locked(machine, tmp_path, url=machine.plan.sources.builder["HF_ENDPOINT"] + "/api/whoami-v2")
    with pytest.raises(RemoteCommandError, match="let the subnet reach"):
        provision.install_tools(machine.session, plan, machine.aws, run)
    wheel = f"{machine.plan.sources.builder['UV_DEFAULT_INDEX']}/uv/"
    machine.session.run("sh", "-c", AGAIN, sudo=True, check=False)
    with pytest.raises(RemoteCommandError, match="has another sha256"):
        provision.install_tools(machine.session, locked(machine, tmp_path, url=wheel), machine.aws, run)


def test_where_it_can_not_be_had_is_said_before_anything_is_downloaded(
    machine: Machine, run: Run, tmp_path: Path
) -> None:
    with pytest.raises(RemoteCommandError) as caught:
        provision.install_tools(machine.session, locked(machine, tmp_path, url=NOWHERE), machine.aws, run)
    version = machine.plan.sources.python
    assert f"this base AMI has no whole Python {version} of its own" in str(caught.value)
    assert "let the subnet reach 127.0.0.1:9, name a bucket in weights.mirror" in str(caught.value)


def test_the_worker_runs_on_the_pinned_python(machine: Machine, run: Run) -> None:
    """Last: without apt, and with a /tmp that is of no use, all of provisioning passes."""
    session, archive = machine.session, machine.plan.provision.interpreter
    provision.install_tools(session, machine.plan, machine.aws, run)
    assert f"{archive.name} from {archive.host}" in run.progress.notes
    assert prefix(machine, "/opt/bake/tools/bin/python") == "/opt/bake/python"
    provision.run_scripts(session, run, lambda: None)
    python = "/opt/flux-worker/venv/bin/python"
    assert prefix(machine, python) == f"/opt/flux-worker/python/{archive.name}"
    session.run(python, "-I", "-c", "import diffusers, torch, flux_worker, ssl, ctypes")
    links = session.run("find", "/opt/flux-worker/venv/bin", "-type", "l", "-printf", "%l\\n").stdout
    assert not [link for link in links.split() if link.startswith(("/usr/local", "/opt/conda"))]
    left = "find /opt/flux-worker ! -user root -o ! -type l -perm /022"
    assert session.run("sh", "-c", left, sudo=True).stdout == ""


def test_a_lock_is_read_as_uv_writes_it() -> None:
    archive = pinned.read(provision.PROVISION / "locks" / "python.json")
    assert archive.name.startswith("cpython-3.11.")
    assert archive.host == "github.com"
