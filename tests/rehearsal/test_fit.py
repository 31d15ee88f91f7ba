"""A base AMI like Amazon's, 75 GiB with about 50 used: a bake fits beside it, or stops with choices."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bake.errors import DoesNotFit, UsageError
from bake.localcloud import LocalCloud
from bake.planning.capacity import Content
from bake.planning.plan import Plan
from bake.resources import PROVISION
from bake.steps import check_capacity as step
from bake.steps import prefetch
from bake.steps.mount_scratch import mount_scratch, unmount_scratch
from bake.weights.flux import GIB
from tests.plans import changed

from .bakes import ROOT, rehearse

if TYPE_CHECKING:
    from tests.conftest import Machine, NewMachine

pytestmark = pytest.mark.root

# A package with a toolkit of its own, one that only wants it, and a driver that wants it as well.
PACKAGES = """
set -eu
make() { # NAME DEPENDS FILE
  work=$(mktemp -d)
  install -d -m 755 "$work/DEBIAN" "$work/$(dirname "$3")"
  echo "of $1" > "$work/$3"
  {
    echo "Package: $1"
    [ -z "$2" ] || echo "Depends: $2"
    echo "Version: 1.0"
    echo "Architecture: all"
    echo "Maintainer: nobody <nobody@example.com>"
    echo "Description: none"
  } > "$work/DEBIAN/control"
  chmod -R a+rX "$work"
  dpkg-deb --build --root-owner-group "$work" "/tmp/$1.deb" >/dev/null
  dpkg --install "/tmp/$1.deb" >/dev/null
  rm -rf "$work" "/tmp/$1.deb"
}
make cuda-cudart-12-8 "" /usr/local/cuda-12.8/lib64/libcudart.so.12
make nvidia-utils-999 "" /usr/bin/nvidia-smi-999 && apt-mark auto nvidia-utils-999 >/dev/null
make cuda-toolkit-12-8 'cuda-cudart-12-8, nvidia-utils-999' /usr/share/doc/cuda-toolkit-12-8/copyright
make cuda-cudart-13-0 "" /usr/local/cuda-13.0/lib64/libcudart.so.13
make nvidia-driver-999 cuda-cudart-13-0 /usr/lib/x86_64-linux-gnu/libcuda.so.999
echo /usr/local/cuda-12.8/lib64 > /etc/ld.so.conf.d/989_cuda.conf
printf '/usr/local/cuda-12.6/lib64\\n/opt/other/lib\\n' > /etc/ld.so.conf.d/mixed.conf
"""


@pytest.fixture(scope="module")
def full(new_machine: NewMachine) -> Iterator[Machine]:
    with new_machine(hostile="full") as machine:
        machine.session.run("bash", "-c", PACKAGES, sudo=True)
        yield machine


def removing(plan: Plan, *names: str) -> Plan:
    base = plan.profile.base.model_copy(update={"remove": names})
    return changed(plan, plan.profile.model_copy(update={"base": base}))


def content(machine: Machine) -> Content:
    return step.measure(machine.session, machine.plan)


def test_it_stops_within_a_minute_with_the_sum_and_the_choices(full: Machine) -> None:
    started = time.monotonic()
    with pytest.raises(DoesNotFit) as caught:
        step.check_capacity(full.session, full.plan, full.run)
    assert time.monotonic() - started < 60
    assert caught.value.exit_code == 2
    text = caught.value.message
    assert "GiB are missing of 80 GiB" in text
    for line in ("base AMI     measured on the builder", "31.4 GiB  weights", "10.0 GiB  cuda-12.6 "):
        assert line in text
    assert "remove: [cuda-12.6, cuda-12.8]   # gives 20.0 GiB: enough" in text
    assert "scratch: instance-store   # gives 15.3 GiB: enough" in text
    assert "root_volume.size_gib of " in text
    assert "its packages would take nvidia-driver-999 along" in text
    assert "nothing was downloaded, removed or resized" in str(caught.value.hint)
    kept = json.loads((full.run.directory / "base-content.json").read_text())
    assert {"cuda-12.6", "pytorch", "docker-images"} <= {thing["name"] for thing in kept["content"]["things"]}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cuda-12.7", "the base AMI has no cuda-12.7; did you mean cuda-12.[68]?"),
        ("tensorflow", "the base AMI has no tensorflow\n"),
        ("cuda-13.0", "cuda-13.0 can't be removed: its packages would take nvidia-driver-999 along"),
    ],
)
def test_removing_something_irremovable_changes_nothing(full: Machine, name: str, said: str) -> None:
    before = content(full)
    with pytest.raises(UsageError, match=said) as caught:
        step.check_capacity(full.session, removing(full.plan, "cuda-12.6", name), full.run)
    assert caught.value.exit_code == 2
    assert "there is:" in caught.value.message
    assert {thing.name for thing in content(full).things} == {thing.name for thing in before.things}


def test_what_is_too_little_is_not_begun(full: Machine) -> None:
    with pytest.raises(DoesNotFit, match=r"base\.remove: package-caches"):
        step.check_capacity(full.session, removing(full.plan, "package-caches"), full.run)
    assert "package-caches" in {thing.name for thing in content(full).things}


def test_what_runs_stays(full: Machine) -> None:
    python = "/opt/conda/bin/python3"
    full.session.run("install", "-D", "/usr/bin/sleep", python, sudo=True)
    full.session.run("systemd-run", "--unit=notebook", python, "600", sudo=True)
    blocked = {thing.name: thing.blocked for thing in content(full).things}
    full.session.run("systemctl", "stop", "notebook", sudo=True)
    assert f"({python}) runs from it" in str(blocked["conda"])
    assert {thing.name: thing.blocked for thing in content(full).things}["conda"] is None


def test_the_stand_in_for_an_instance_store_leaves_nothing(full: Machine) -> None:
    weights = full.plan.profile.weights.model_copy(
        update={"precision": "int8", "keep_source": False, "scratch": "instance-store"}
    )
    plan = changed(full.plan, full.plan.profile.model_copy(update={"weights": weights}))

    def root(command: str) -> str:
        return full.session.run("sh", "-c", command, sudo=True).stdout

    before = root("cat /etc/fstab; cat /proc/self/mountinfo")
    mount_scratch(full.session, plan, full.run)
    mount_scratch(full.session, plan, full.run)  # as after a restart of the download
    assert root("stat -c %U /run/bake-scratch; findmnt -n -o FSTYPE /run/bake-scratch").split() == [
        "ubuntu",
        "tmpfs",
    ]
    assert any("tmpfs, stands for an instance store" in note for note in full.run.progress.notes)
    assert prefetch.order(plan, plan.weights.lock, "vol-1")["cache"] == "/run/bake-scratch/hub"  # type: ignore[arg-type]
    unmount_scratch(full.session, plan, full.run)
    assert root("cat /etc/fstab; cat /proc/self/mountinfo") == before
    assert root("ls -d /run/bake-scratch 2>/dev/null || :") == ""


def test_a_machine_without_an_instance_store_is_refused_at_once(full: Machine) -> None:
    """The plan knows the types; this is what the machine itself says, where nothing stands for one."""
    weights = full.plan.profile.weights.model_copy(update={"scratch": "instance-store"})
    sources = dataclasses.replace(full.plan.sources, scratch=None)
    profile = full.plan.profile.model_copy(update={"weights": weights})
    plan = changed(full.plan, profile, sources=sources)
    with pytest.raises(DoesNotFit, match="no disk whose model is 'Amazon EC2 NVMe Instance Storage'"):
        mount_scratch(full.session, plan, full.run)


def snapshot_bytes(machine: Machine) -> int:
    """What an image of the machine as it is would hold."""
    ec2, name = machine.aws.ec2, f"fit-{uuid.uuid4().hex}"
    made = ec2.create_image(InstanceId=machine.instance.id, Name=name, NoReboot=True)["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[made], WaiterConfig={"Delay": 1})
    mapping = ec2.describe_images(ImageIds=[made])["Images"][0]["BlockDeviceMappings"][0]
    snapshot = mapping["Ebs"]["SnapshotId"]
    size: int = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["FullSnapshotSizeInBytes"]
    ec2.deregister_image(ImageId=made)
    ec2.delete_snapshot(SnapshotId=snapshot)
    return size


def test_toolkits_go_cleanly_and_the_snapshot_shrinks(full: Machine) -> None:
    """One that packages own and one that a runfile has put there; last, for it changes the machine."""

    def root(command: str) -> str:
        return full.session.run("bash", "-c", command, sudo=True).stdout

    root("head -c 400M /dev/urandom > /usr/local/cuda-12.6/lib64/part-1.so")
    root("mkdir /opt/tools; ln -s cuda-12.6/bin /usr/local/nvcc; ln -s /usr/local/cuda-12.8 /opt/cuda-link")
    before = snapshot_bytes(full)
    fitted = step.check_capacity(
        full.session, removing(full.plan, "cuda-12.8", "cuda-12.6", "conda"), full.run
    )
    won = {one["name"]: one["bytes"] / GIB for one in fitted.removed}
    assert {name: round(size) for name, size in won.items()} == {"cuda-12.8": 10, "cuda-12.6": 10, "conda": 3}
    assert fitted.removed[0]["packages"] == ["cuda-cudart-12-8", "cuda-toolkit-12-8"]
    assert fitted.disk.free > 0
    notes = full.run.progress.notes
    assert any("cuda-12.6 (/usr/local/cuda-12.6) is gone, 9.9 GiB won" in note for note in notes)
    left = root(
        "ls -d /usr/local/cuda* /usr/local/nvcc /opt/c* /etc/ld.so.conf.d/989_cuda.conf 2>/dev/null || :"
    )
    assert left.split() == ["/usr/local/cuda", "/usr/local/cuda-13.0"]
    assert root("cat /etc/ld.so.conf.d/mixed.conf") == "/opt/other/lib\n"
    assert root("dpkg --verify") == ""
    packages = root("dpkg-query -W -f '${Package}\\n' 'cuda-*' 'nvidia-*'").split()
    assert packages == ["cuda-cudart-13-0", "nvidia-driver-999", "nvidia-utils-999"]
    assert "nvidia-utils-999" in root("apt-mark showmanual").split()  # no autoremove takes it
    # The seal discards freed blocks; with nothing on its list that is all it does.
    nothing = json.dumps({"stop": ["nothing.service"], "keep": [], "entries": []}).encode()
    full.session.run("tee", "/run/nothing.json", stdin=nothing, sudo=True)
    seal = (PROVISION / "seal.py").read_bytes()
    full.session.run("python3", "-", "delete", "--list", "/run/nothing.json", stdin=seal, sudo=True)
    assert before - snapshot_bytes(full) > 390 << 20


RPMS = """
set -eu
work=$(mktemp -d) && mkdir "$work/SPECS"
make() { # NAME REQUIRES FILE
  cat > "$work/SPECS/one.spec" <<SPEC
Name: $1
Version: 1.0
Release: 1
Summary: A stub
License: none
BuildArch: noarch
${2:+Requires: $2}
%description
A stub.
%install
install -d %{buildroot}$(dirname "$3")
echo "of $1" > %{buildroot}$3
%files
$3
SPEC
  rpmbuild -bb --quiet --define "_topdir $work" --define "_rpmdir $work/rpms" "$work/SPECS/one.spec"
}
make cuda-cudart-12-8 "" /usr/local/cuda-12.8/lib64/libcudart.so.12
make nvidia-utils "" /usr/bin/nvidia-smi
make cuda-toolkit-12-8 'cuda-cudart-12-8, nvidia-utils' /usr/share/doc/cuda-toolkit-12-8/copyright
make cuda-cudart-13-0 "" /usr/local/cuda-13.0/lib64/libcudart.so.13
make nvidia-driver-cuda-libs cuda-cudart-13-0 /usr/lib64/libcuda.so.999
rpm --install "$work"/rpms/noarch/*.rpm && rm -rf "$work"
dnf --cacheonly --quiet '--disablerepo=*' mark remove nvidia-utils
"""


MINE = """
extends: g6e-ubuntu
base: {ami: ~, name: Hostile base full (Ubuntu), owner: amazon}
"""


def test_a_bake_that_does_not_fit_ends_with_2_and_leaves_nothing(
    cloud: LocalCloud, full: Machine, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    (tmp_path / "profiles/mine.yaml").write_text(MINE)
    outcome = rehearse(tmp_path, "mine", profiles=tmp_path / "profiles")
    assert outcome.code == 2, outcome.errors
    assert "GiB are missing of 80 GiB" in outcome.errors
    assert "g6e-ubuntu.yaml:" in outcome.errors  # where the size stands
    steps = [event["step"] for event in outcome.of("step_started")]
    assert steps[-2:] == ["survey", "fit"]
    (ended,) = [event for event in outcome.of("step_ended") if event["step"] == "fit"]
    assert ended["seconds"] < 60
    run = str(outcome.of("run")[0]["id"])
    filters = [{"Name": "tag:bake:run", "Values": [run]}]
    found = full.aws.ec2.describe_instances(Filters=filters)["Reservations"]  # type: ignore[arg-type]
    states = [one["State"]["Name"] for each in found for one in each["Instances"]]
    assert set(states) <= {"terminated"}


def test_what_rpm_owns_goes_by_rpm(new_machine: NewMachine) -> None:
    with new_machine("g6e-amazon-linux", hostile="full") as machine:
        machine.session.run("bash", "-c", RPMS, sudo=True)
        things = {thing.name: thing for thing in content(machine).things}
        names = [name.rsplit("-", 2)[0] for name in things["cuda-12.8"].packages]
        assert names == ["cuda-cudart-12-8", "cuda-toolkit-12-8"]
        assert "would take nvidia-driver-cuda-libs-1.0-1.noarch along" in str(things["cuda-13.0"].blocked)
        plan = removing(machine.plan, "cuda-12.8", "docker-images", "package-caches")
        fitted = step.check_capacity(machine.session, plan, machine.run)
        won = {one["name"]: round(one["bytes"] / GIB) for one in fitted.removed}
        assert won == {"cuda-12.8": 10, "docker-images": 4, "package-caches": 2}
        query = "rpm -qa --qf '%{NAME}\n' 'cuda-*' 'nvidia-*' | sort; ls -d /var/lib/docker /var/cache/dnf"
        left = machine.session.run("sh", "-c", query).stdout.split()
        assert left[:3] == ["cuda-cudart-13-0", "nvidia-driver-cuda-libs", "nvidia-utils"]
        unneeded = ("dnf", "--cacheonly", "-q", "--disablerepo=*", "repoquery", "--unneeded")
        assert "nvidia-utils" not in machine.session.run(*unneeded, sudo=True).stdout
        assert left[3:] == ["/var/cache/dnf", "/var/lib/docker"]
