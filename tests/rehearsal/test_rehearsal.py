"""`bake --profile g6e-ubuntu --rehearse` as a user runs it, to the end and with failures."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import struct
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bake import hydration
from bake.agreement import lockfile
from bake.aws import Aws
from bake.creation import tag_of
from bake.layout import LEASE_UNIT
from bake.localcloud import ImageStore, LocalCloud, Settings

from ..bake.guard import frozen
from ..report.test_schema import VALIDATOR
from . import sparse
from .bakes import HOSTILE, ROOT, Outcome, called, rehearse, start

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def directory(baked: Outcome) -> Path:
    return baked.directory


@pytest.fixture(scope="module")
def report(baked: Outcome) -> dict[str, Any]:
    return baked.report


def leftovers(aws: Aws, run: str) -> list[str]:
    """What a run has left in the cloud, its image and snapshot aside."""
    tagged = [{"Name": "tag:bake:run", "Values": [run]}]
    reservations = aws.ec2.describe_instances(Filters=tagged)["Reservations"]  # type: ignore[arg-type]
    found = [
        f"{item['InstanceId']} {item['State']['Name']}"
        for group in reservations
        for item in group["Instances"]
        if item["State"]["Name"] != "terminated"
    ]
    name = f"bake-{run}"
    found += [volume["VolumeId"] for volume in aws.ec2.describe_volumes(Filters=tagged)["Volumes"]]  # type: ignore[arg-type]
    found += [key["KeyName"] for key in aws.ec2.describe_key_pairs(Filters=tagged)["KeyPairs"]]  # type: ignore[arg-type]
    found += [url for url in aws.sqs.list_queues().get("QueueUrls", []) if name in url]
    found += [bucket["Name"] for bucket in aws.s3.list_buckets()["Buckets"] if name in bucket["Name"]]
    found += [bus["Name"] for bus in aws.events.list_event_buses()["EventBuses"] if name in bus["Name"]]
    return found


def images(aws: Aws, run: str) -> list[str]:
    tagged = [{"Name": "tag:bake:run", "Values": [run]}]
    return [image["ImageId"] for image in aws.ec2.describe_images(Filters=tagged)["Images"]]  # type: ignore[arg-type]


def test_the_plan_comes_first_and_says_how_a_rehearsal_differs(baked: Outcome) -> None:
    kinds = [event["event"] for event in baked.events]
    steps = [event["step"] for event in baked.events if event["event"] == "step_started"]
    expected = "local cloud, plan, wiring, launch, connect, survey, fit, tools, provision, prefetch, trace, "
    expected += (
        "libraries, verify, seal, stop, create image, remove builder, boot check, clean up, attest, publish"
    )
    assert steps == expected.split(", ")
    launched = next(i for i, event in enumerate(baked.events) if event.get("step") == "launch")
    assert kinds.index("plan") < launched
    text = baked.of("plan")[0]["text"]
    assert "How this rehearsal differs from the real bake" in text
    assert re.search(r"backend +cuda; launched with FLUX_BACKEND=cpu, for no instance here has it\n", text)


def test_the_plan_asked_the_cloud_before_anything_was_created(baked: Outcome) -> None:
    """As the role that bakes, with `bake iam`'s policy: its DryRun and its simulation had answers."""
    asked = {one["question"]: one["answer"] for one in baked.of("plan")[0]["plan"]["preflight"]}
    assert asked["a launch of g6e.xlarge"] == "EC2 would make it (DryRun)"
    assert asked["the way out of the subnet"].startswith("0.0.0.0/0 to igw-")
    assert "lets somebody in" in asked["port 22"]
    assert re.search(
        r"role/bake-g6e-ubuntu: all of \d+ actions are allowed", asked["the rights of whoever bakes"]
    )
    assert re.search(r"all of \d+ actions are allowed", asked["the rights of the worker"])


def test_the_booted_image_drew_a_png_of_the_asked_size(directory: Path, report: dict[str, Any]) -> None:
    content = (directory / "first-image.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", content[16:24]) == (256, 256)
    (picture,) = report["pictures"]
    assert (picture["width"], picture["height"], picture["device"]) == (256, 256, "cpu")
    assert picture["sha256"] == hashlib.sha256(content).hexdigest()
    assert picture["seconds"] > 0 and picture["memory_bytes"] > 100_000_000
    assert picture["instance"].startswith("i-") and picture["instance_type"] == "g6e.xlarge"


def test_checks_of_all_three_moments_passed_and_are_kept_as_junit_xml(
    directory: Path, report: dict[str, Any]
) -> None:
    outcomes = [(check["moment"], check["outcome"]) for check in report["checks"]]
    assert {outcome for _, outcome in outcomes} == {"passed", "not applicable"}
    assert min(outcomes.count((moment, "passed")) for moment in ("base", "sealed", "booted")) > 20
    suites = ET.parse(directory / "junit.xml").getroot()
    assert len(list(suites.iter("testcase"))) >= len(report["checks"])
    assert "REHEARSAL" in str(next(suites.iter("testsuite")).get("name"))
    assert not list(suites.iter("failure"))


def test_it_ends_with_verdict_and_report(baked: Outcome, directory: Path) -> None:
    assert baked.events[-1]["event"] == "reported"
    assert baked.events[-1]["verdict"] == "good"
    assert baked.events[-1]["text"].endswith(str(directory.relative_to(baked.desk) / "report.html"))
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=directory, check=True)


def test_the_bake_changed_nothing_that_it_did_not_mean_to(report: dict[str, Any]) -> None:
    changes = report["changed_on_machine"]["changes"]
    assert len(changes) > 20
    assert [change for change in changes if not change["meant"]] == []


def test_the_timeline_shows_that_the_weights_came_while_the_machine_was_provisioned(
    report: dict[str, Any],
) -> None:
    spans = {(span["lane"], span["name"]): span for span in report["timeline"]}
    provision, prefetch = spans["bake", "provision"], spans["builder", "prefetch"]
    assert prefetch["began"] < provision["began"] + provision["seconds"]
    assert ("builder", "20-worker.sh") in spans


def test_the_stages_of_the_start_are_printed_and_in_the_report(
    baked: Outcome, report: dict[str, Any]
) -> None:
    start = report["cold_start"]
    VALIDATOR.validate(report)
    stages = {one["name"]: one for one in start["stages"]}
    names = ["kernel", "userspace", "warm", "imports", "load", "first draw", "other", "first image"]
    assert [name for name in names if name in stages] == list(stages)
    measured = [one for one in stages.values() if one["name"] != "warm"]
    assert all(one["seconds"] is not None for one in measured)
    assert stages["kernel"]["seconds"] == pytest.approx(0, abs=2) and stages["kernel"]["note"]
    assert start["seconds"] == pytest.approx(sum(one["seconds"] for one in measured), abs=0.5)
    assert start["max_seconds"] is None and start["floor_mb_per_s"] > 0
    [printed] = baked.of("cold_start")
    assert all(name in printed["text"] for name in stages)
    assert f"it took {start['seconds']:.1f} s" in printed["text"]


def test_what_the_start_measured_is_a_tag_of_the_image(aws: Aws, report: dict[str, Any]) -> None:
    start = report["cold_start"]
    facts = aws.ec2.describe_images(ImageIds=[report["image"]["id"]])["Images"][0]
    tagged = hydration.parse(tag_of(facts["Tags"], hydration.TAG))
    assert (tagged.mb_per_s if tagged else None) == start["hydration_mb_per_s"]


def test_the_run_directory_has_all_the_evidence(directory: Path) -> None:
    names = {str(file.relative_to(directory)) for file in directory.rglob("*")}
    assert {
        "plan.json",
        "events.jsonl",
        "junit.xml",
        "report.json",
        "report.html",
        "first-image.png",
    } <= names
    assert {"report.md", "hdf.json", "sbom.cdx.json", "SHA256SUMS"} <= names
    assert {"logs/verify.log", "logs/seal.log", "logs/bake-prefetch.out.log"} <= names
    assert [name for name in names if name.startswith("logs/bake-20")]


def test_the_summary_shows_the_image_and_the_next_command(baked: Outcome, report: dict[str, Any]) -> None:
    text = baked.of("released")[0]["text"]
    for part in (report["image"]["id"], "bake local boot", "create image", "in all"):
        assert part in text


def test_the_weights_are_the_ones_that_were_locked(
    baked: Outcome, directory: Path, report: dict[str, Any]
) -> None:
    lock, fetched = report["plan"]["lock"], baked.kept("facts/weights.json")
    assert {path: file["bytes"] for path, file in lock["files"].items()} == fetched["files"]
    assert (report["weights"]["fetched"], report["weights"]["bytes"]) == (True, fetched["bytes"])
    assert all(file.keys() & {"sha256", "git_oid"} for file in lock["files"].values())
    written = baked.desk / ".bake/rehearsal/g6e-ubuntu.lock.yaml"
    assert lockfile.read(written).weights is not None
    notes = "\n".join(event["text"] for event in baked.of("note"))
    assert "locked the local Hub's weights for rehearsals" in notes
    assert "the cache is on /dev/loop" in notes
    assert fetched["disk"]["stand_in"] is True
    assert json.loads((directory / "plan.json").read_text())["lock"]["locked"] is True


def test_the_frozen_agreement_was_held_to_and_not_touched(baked: Outcome, directory: Path) -> None:
    plan = json.loads((directory / "plan.json").read_text())
    assert plan["agreement"] == {**plan["agreement"], "exists": True, "agreed": True, "differences": []}
    held = lockfile.read(baked.desk / ".bake/rehearsal/g6e-ubuntu.lock.yaml")
    assert held.agreement is not None
    assert [entry.why for entry in held.agreement.history] == ["first agreement"]


def test_the_image_matches_the_agreement(aws: Aws, report: dict[str, Any]) -> None:
    image = aws.ec2.describe_images(ImageIds=[report["image"]["id"]])["Images"][0]
    root = image["BlockDeviceMappings"][0]["Ebs"]
    assert (image["State"], root["VolumeSize"]) == ("available", 80)
    assert image["ImdsSupport"] == report["image"]["imds_support"] == "v2.0"
    snapshot = aws.ec2.describe_snapshots(SnapshotIds=[root["SnapshotId"]])["Snapshots"][0]
    assert (snapshot["State"], snapshot["VolumeSize"]) == ("completed", 80)
    for tags in (image["Tags"], snapshot["Tags"]):
        assert {"Key": "bake:plan", "Value": report["run"]["plan"]} in tags


def test_everything_else_is_removed(aws: Aws, report: dict[str, Any]) -> None:
    assert leftovers(aws, report["run"]["id"]) == []
    assert images(aws, report["run"]["id"]) == [report["image"]["id"]]


def if_changed(desk: Path, *words: str, profiles: Path) -> subprocess.CompletedProcess[str]:
    process = called(
        desk,
        *words,
        "--profile",
        "g6e-ubuntu",
        "--rehearse",
        "--if-changed",
        profiles=profiles,
        environment=HOSTILE,
    )
    out, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(words, process.returncode, out, errors)


def test_a_second_bake_that_would_change_nothing_is_not_made(
    baked: Outcome, aws: Aws, report: dict[str, Any]
) -> None:
    done = if_changed(baked.desk, profiles=frozen.PROFILES)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    [told] = [event for event in events if event["event"] == "unchanged"]
    assert told["plan"] == report["run"]["plan"]
    image = aws.ec2.describe_images(ImageIds=[told["image"]])["Images"][0]
    assert {"Key": "bake:plan", "Value": told["plan"]} in image["Tags"]
    [compared] = [event for event in events if event["event"] == "step_ended" and event["step"] == "compare"]
    assert 0 < compared["api_calls"] <= 10
    assert not [event for event in events if event["event"] == "run"]
    assert not list((baked.desk / ".bake/proposals").glob("*"))


def test_a_changed_disk_is_what_the_report_says_has_changed(baked: Outcome, tmp_path: Path) -> None:
    shutil.copytree(frozen.PROFILES, tmp_path / "profiles")
    file = tmp_path / "profiles/g6e-ubuntu.yaml"
    file.write_text(file.read_text().replace("size_gib: 80", "size_gib: 81"))
    done = if_changed(baked.desk, "plan", profiles=tmp_path / "profiles")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["changed"], told["reasons"]) == (True, ["root_volume.size_gib 80 → 81"])
    assert told["unknown"] == []


def test_the_token_is_in_no_file_of_the_run(cloud: LocalCloud, directory: Path) -> None:
    token = cloud.environment["HF_TOKEN"].encode()
    for file in directory.rglob("*"):
        assert not file.is_file() or token not in file.read_bytes(), file


def test_the_token_the_runs_names_and_its_lease_are_not_in_the_images_raw_bytes(
    cloud: LocalCloud, cloud_settings: Settings, report: dict[str, Any]
) -> None:
    disk = ImageStore(cloud_settings.images).disk(report["image"]["volumes"][0]["snapshot"])
    # Only a file that was deleted and not discarded would still hold them: `rm` alone is not enough.
    secrets = [cloud.environment["HF_TOKEN"].encode(), f"bake-{report['run']['id']}-builder".encode()]
    secrets.append(LEASE_UNIT.encode())
    known = b"flux-worker.service"
    seen = set()
    for chunk in sparse.chunks(disk, 64):
        seen |= {pattern for pattern in [*secrets, known] if pattern in chunk}
    assert seen == {known}


def test_no_machines_name_or_address_is_in_the_images_raw_bytes(
    cloud_settings: Settings, report: dict[str, Any]
) -> None:
    """Whichever machine's: the builder's, or of one that the base was made on."""
    disk = ImageStore(cloud_settings.images).disk(report["image"]["volumes"][0]["snapshot"])
    network = str(cloud_settings.network.network_address).encode().rpartition(b".")[0]
    name = b"ip-" + network.replace(b".", b"-") + b"-"
    address = network + b"."
    patterns = {
        name: re.compile(re.escape(name) + rb"\d"),
        address: re.compile(rb"(?<![\d.])" + re.escape(address) + rb"\d+(?![\d.])"),
    }
    found = {
        match
        for chunk in sparse.chunks(disk, 64)
        for start, pattern in patterns.items()
        for match in sparse.matches(chunk, start, pattern)
    }
    assert found <= {cloud_settings.address.encode()}  # the local cloud itself, where it has a say


def test_the_booted_image_has_a_name_of_its_own(directory: Path) -> None:
    """cloud-init gives it one, though the image came with none: by journald's lines, before and after."""
    lines = (directory / "logs/boot-check.journal.log").read_text().splitlines()
    names = [line.split()[3] for line in lines if re.match(r"[A-Z][a-z]{2} ", line)]
    assert not names[0].startswith("ip-")
    assert names[-1].startswith("ip-10-214-")


@pytest.fixture
def interrupted(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[subprocess.Popen[str]]:
    """A bake from the baked image: it finds the worker's environment and the weights there and is quick."""
    profiles = tmp_path / "profiles"
    shutil.copytree(ROOT / "profiles", profiles)
    (profiles / "again.yaml").write_text(
        "extends: g6e-ubuntu\nattest: false\nbase: {ami: '${BAKED_AMI_ID}'}\n"
    )
    monkeypatch.setenv("BAKED_AMI_ID", image)
    process = start(tmp_path, "again", profiles=profiles)
    yield process
    if process.poll() is None:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("step", "number"),
    [
        pytest.param("launch", signal.SIGINT, id="Ctrl-C while launching", marks=pytest.mark.long),
        pytest.param("verify", signal.SIGTERM, id="SIGTERM while verifying", marks=pytest.mark.long),
        pytest.param("create image", signal.SIGINT, id="Ctrl-C while the image is made"),
        pytest.param("connect", signal.SIGHUP, id="a closed terminal", marks=pytest.mark.long),
    ],
)
def test_an_interrupt_leaves_nothing(
    aws: Aws, interrupted: subprocess.Popen[str], tmp_path: Path, step: str, number: signal.Signals
) -> None:
    assert interrupted.stdout is not None
    run = ""
    for line in interrupted.stdout:
        event = json.loads(line)
        if event["event"] == "run":
            run = event["id"]
        if event["event"] == "step_started" and event["step"] == step:
            time.sleep(0.5)
            interrupted.send_signal(number)
            break
    _, errors = interrupted.communicate(timeout=900)
    assert interrupted.returncode == 130, errors
    assert "interrupted: everything that was created has been removed" in errors
    assert "Traceback" not in errors
    (file,) = (tmp_path / ".bake/runs").glob("*/report.json")
    verdict = json.loads(file.read_text())["verdict"]
    assert (verdict["state"], verdict["exit_code"], verdict["left_behind"]) == ("interrupted", 130, [])
    assert verdict["sentence"] == f"interrupted by {number.name} in step {step!r}, so no AMI was made"
    assert leftovers(aws, run) == []
    assert images(aws, run) == []


@pytest.fixture
def broken_checkout(tmp_path: Path) -> Path:
    """This checkout with a provisioning script that fails."""
    checkout = tmp_path / "checkout"
    for name in ("bake", "profiles", "provision", "worker"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__", "build"))
    script = checkout / "provision/scripts/05-broken.sh"
    script.write_text("echo about to break\necho nothing here >&2\nls /does/not/exist\n")
    return checkout


def test_a_failing_script_is_shown_whole_and_leaves_nothing(
    aws: Aws, cloud: LocalCloud, tmp_path: Path, broken_checkout: Path
) -> None:
    outcome = rehearse(tmp_path, "g6e-ubuntu", checkout=broken_checkout)
    assert outcome.code == 5
    for part in ("05-broken.sh", "exit code", "about to break", "nothing here", "/does/not/exist"):
        assert part in outcome.errors
    assert "Traceback" not in outcome.errors
    assert "/does/not/exist" in outcome.of("failed")[0]["message"]
    assert outcome.report["verdict"]["state"] == "failed"
    assert "/does/not/exist" in outcome.report["verdict"]["error"]
    states = {(check["moment"], check["outcome"]) for check in outcome.report["checks"]}
    assert {("base", "passed"), ("sealed", "not run"), ("booted", "not run")} <= states
    assert not states & {("sealed", "passed"), ("booted", "passed")}
    assert (outcome.directory / "logs/bake-05-broken.err.log").exists()
    assert leftovers(aws, outcome.directory.name) == []
    assert images(aws, outcome.directory.name) == []
