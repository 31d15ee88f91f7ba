"""Record what bakes need of AWS's IAM: `python -m tests.rehearsal.needs` writes tests/bake/iam/needs.jsonl.

It walks the paths that a bake can take on a local cloud of its own, as root, in about ten minutes: a green
bake, one with all that a profile may want, refused, interrupted, killed, resumed, swept. Each need that the
gateway saw is a line: who had it, for which profile, and on which path it first came. Ids, times and runs
are written alike, so that another recording differs by what has changed. With names of paths behind it, it
walks `green` and those, and keeps what is there of the others.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bake import localcloud
from bake.aws import Aws
from bake.creation import RUN_TAG
from bake.image import describe_image, root_of
from bake.instance import describe
from bake.localcloud import LocalCloud, RemoteFaults, Settings
from bake.undo import Undo
from bake.wiring import wire
from tests.bake.iam import profiles as of_iam
from tests.bake.iam.profiles import AGAIN, BUS, FULL, PARAMETER, PLAIN, QUEUE, REFUSED, SPOT, STORE, STREAM

from .bakes import Outcome, called, finish, resume, start

LEDGER = Path(__file__).parents[1] / "bake/iam/needs.jsonl"
# The condition keys that policies ask about; tags that none asks about are in aws:TagKeys alone.
KEYS = (
    *("aws:RequestTag/bake:profile", "aws:RequestTag/bake:run", "aws:ResourceTag/bake:profile"),
    *("aws:ResourceTag/bake:run", "aws:TagKeys", "aws:RequestedRegion", "ec2:CreateAction"),
    *("iam:PassedToService", "kms:GrantIsForAWSResource", "kms:ViaService"),
)
RUN, ALIKE = "20260101-000000-0a1b2c", "0fedcba9876543210"
_RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
_ID = re.compile(r"\b(ami|eni|i|snap|sg|sir|subnet|vol|vpc)-[0-9a-f]{8,17}\b")
_OBJECT = re.compile(r"(arn:aws:s3:::[^/\"]+/(?:\w+/)?)[^\"]+")
_ROLES = {"flux-rehearsal": "worker", "bake-reaper": "schedule", "bake-sweep": "sweep"}


# What `flux-worker check --aws` asks if it may; docs tell to allow it for a check by hand alone.
OPTIONAL = {"s3:GetEncryptionConfiguration", "iam:GetRole", "iam:SimulatePrincipalPolicy"}


def _optional(need: Mapping[str, Any]) -> bool:
    """Whether nothing is lost without it.

    A plan asks with the VPC's default group in place of a temporary one: a denial of that one is no answer.
    """
    if need["action"] == "ec2:RunInstances" and not need["allowed"]:
        return ":security-group/" in need["resource"]
    return need["action"] in OPTIONAL and "/flux-rehearsal/" in need["principal"]


class Failed(Exception):
    """A path did not end as it should."""


class Recorder:
    """The paths on one cloud, and the needs that came on each."""

    def __init__(self, cloud: LocalCloud, desk: Path) -> None:
        self.cloud, self.desk = cloud, desk
        self.profiles = of_iam.write(desk / "profiles")
        self.ask = localcloud.over_socket(Settings.load())
        self.faults = RemoteFaults(self.ask)
        regions = cloud.environment["SPOT_AWS_REGION"], cloud.environment["AWS_REGION"]
        self.aws = Aws(
            region=regions[0],
            worker_region=regions[1],
            endpoint=cloud.endpoint,
            endpoint_key=cloud.keys,
        )
        self.lines: dict[str, dict[str, Any]] = {}
        self.seen = 0  # needs of the cloud, which tells them in the order in which they came

    def walk(self, path: Callable[[Recorder], None]) -> None:
        """Walk a path, and keep what came on it first."""
        print(f"{path.__name__} …", flush=True)
        try:
            path(self)
        finally:
            if denied := [json.dumps(need) for need in self._new(path.__name__) if not need["allowed"]]:
                raise Failed("\n".join([f"{path.__name__}: denied:", *denied]))

    def _new(self, path: str) -> list[dict[str, Any]]:
        """Keep what was needed since the last path, whether or not it was allowed."""
        found = localcloud.needs(self.ask)
        new, self.seen = [one for one in found[self.seen :] if not _optional(one)], len(found)
        for need in new:
            line = self._line(need)
            self.lines.setdefault(json.dumps(line), {**line, "path": path})
        return new

    def _line(self, need: Mapping[str, Any]) -> dict[str, Any]:
        role = need["principal"].split("/")[1]
        audience = _ROLES.get(role, "caller")
        profile = role.removeprefix("bake-") if audience == "caller" else ""
        context = {key: self._alike(need["context"][key]) for key in KEYS if key in need["context"]}
        resource = self._alike(need["resource"])
        return {
            "for": audience,
            "profile": profile,
            "action": need["action"],
            "resource": resource,
            "context": context,
        }

    def _alike(self, found: Any) -> Any:
        """The same text for each recording: of runs, of ids, of the cloud's own base, subnet and group."""
        text, known = json.dumps(found), self.cloud.environment
        for name in ("BASE_AMI_ID", "BAKE_SUBNET_ID", "BAKE_SECURITY_GROUP_ID"):
            text = text.replace(known[name], f"<{name}>")
        text = _ID.sub(lambda one: f"{one[1]}-{ALIKE}", _RUN.sub(RUN, text))
        for name, value in of_iam.VARIABLES.items():
            text = text.replace(f"<{name}>", value)
        return json.loads(_OBJECT.sub(r"\1object", text))

    def bake(self, profile: str, **how: Any) -> Any:
        """Start a bake."""
        return start(self.desk, profile, profiles=self.profiles, **how)

    def good(self, process: Any) -> Outcome:
        """Wait for a bake that must end well."""
        outcome = finish(process, self.desk)
        if outcome.code:
            raise Failed(outcome.errors)
        return outcome

    def until(self, process: Any, step: str) -> str:
        """Read events until a step begins; the run's id."""
        run = ""
        for line in process.stdout:
            event = json.loads(line)
            run = event["id"] if event["event"] == "run" else run
            if (event["event"], event.get("step")) == ("step_started", step):
                return run
        raise Failed(f"{step} never came: {process.communicate()[1]}")

    def kill(self, process: Any, step: str) -> str:
        """Kill a bake when a step begins; the run's id."""
        run = self.until(process, step)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return run

    def command(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run another command of bake; what it printed."""
        done = called(self.desk, *words, profiles=self.profiles, as_json=False)
        out, errors = done.communicate(timeout=900)
        if done.returncode not in codes:
            raise Failed(f"{words}: {errors}")
        return str(out)

    def machines(self, run: str) -> Iterator[str]:
        """The ids of a run's instances that are there."""
        mine: Any = [{"Name": f"tag:{RUN_TAG}", "Values": [run]}]
        for group in self.aws.ec2.describe_instances(Filters=mine)["Reservations"]:
            yield from (one["InstanceId"] for one in group["Instances"])


def green(at: Recorder) -> None:
    """A bake as it should be, whose answers are lost on the way: all is looked for again."""
    lost = ("ImportKeyPair", "RunInstances", "CreateImage", "CreateQueue", "CreateBucket", "CreateEventBus")
    for action in lost:
        at.faults.plant("*", action, "lost", times=1, caller="host")
    outcome = at.good(at.bake(PLAIN))
    at.faults.clear()
    os.environ["BAKED_AMI_ID"] = outcome.report["image"]["id"]
    at.command("images", "--profile", PLAIN, "--rehearse")
    at.command("plan", "--profile", PLAIN, "--rehearse")


def everything(at: Recorder) -> None:
    """A bake with all that a profile may want, that is killed, and resumed after its builder was stopped."""
    old = describe_image(at.aws, _prepare(at))
    assert old is not None
    ids = [old["ImageId"], root_of(old)["SnapshotId"]]  # an older image of this profile: it keeps one
    at.aws.ec2.create_tags(Resources=ids, Tags=[{"Key": "bake:profile", "Value": FULL}])
    at.faults.plant("ec2", "CreateSecurityGroup", "lost", times=1, caller="host")
    at.faults.plant("scheduler", "CreateScheduleGroup", "lost", times=1, caller="host")
    run = at.kill(at.bake(FULL), "provision")
    at.faults.clear()
    (builder,) = at.machines(run)
    at.aws.ec2.stop_instances(InstanceIds=[builder])
    at.aws.wait("a stopped builder", lambda: _is(at.aws, builder, "stopped"))
    outcome = at.good(resume(at.desk, run))
    os.environ["BAKED_AMI_ID"] = outcome.report["image"]["id"]
    at.command("--runs", str(at.desk / "others"), "images", "--profile", FULL, "--rehearse")


def _prepare(at: Recorder) -> str:
    """Make what the profile FULL names, unless it is there; its base is the image that was baked last."""
    os.environ |= of_iam.GIVEN
    base = os.environ["BAKED_AMI_ID"]
    at.aws.ssm.put_parameter(Name=PARAMETER, Value=base, Type="String", Overwrite=True)
    if STORE not in {one["Name"] for one in at.aws.s3.list_buckets()["Buckets"]}:
        where: Any = {"LocationConstraint": at.aws.worker_region}
        at.aws.s3.create_bucket(Bucket=STORE, CreateBucketConfiguration=where)
        at.aws.presigner(at.aws.region).create_bucket(
            Bucket=STREAM, CreateBucketConfiguration={"LocationConstraint": at.aws.region}
        )  # type: ignore[typeddict-item]
        at.aws.sqs.create_queue(QueueName=QUEUE)
        at.aws.events.create_event_bus(Name=BUS)
    return base


def _is(aws: Aws, instance: str, state: str) -> bool | None:
    facts = describe(aws, instance)
    return True if facts and facts["State"]["Name"] == state else None


def refused(at: Recorder) -> None:
    """A bake whose machine a check refuses."""
    outcome = finish(at.bake(REFUSED), at.desk)
    if outcome.code != 4:
        raise Failed(outcome.errors)


def interrupted(at: Recorder) -> None:
    """A bake that is interrupted while the image is made, and one whose boot check is repeated."""
    process = at.bake(AGAIN)
    at.until(process, "create image")
    process.send_signal(signal.SIGINT)
    finish(process, at.desk)
    process = at.bake(AGAIN)
    run = at.until(process, "boot check")
    process.send_signal(signal.SIGTERM)
    finish(process, at.desk)
    mine: Any = [{"Name": f"tag:{RUN_TAG}", "Values": [run]}]
    (image,) = at.aws.ec2.describe_images(Filters=mine)["Images"]
    at.command("--profile", AGAIN, "boot-check", image["ImageId"], "--rehearse")


def swept(at: Recorder) -> None:
    """Bakes that were killed: a schedule ends the one's builder, and a sweep what is left of all."""
    _prepare(at)
    at.kill(at.bake(FULL), "boot check")
    run = at.kill(at.bake(SPOT), "tools")
    _orphans(at.aws, run)
    try:
        at.ask("POST", "/-/clock", b"+3h")
        at.aws.wait("the schedules to act", lambda: True if _acted(at) else None, timeout=120)
        at.command("sweep", "--rehearse", "--yes")
    finally:
        at.ask("DELETE", "/-/clock", None)


def _acted(at: Recorder) -> bool:
    return any("/bake-reaper/" in need["principal"] for need in localcloud.needs(at.ask))


def _orphans(aws: Aws, run: str) -> None:
    """What a run may lose: an interface, a group, and a first job's queues, bucket, object, bus and rule."""
    (key,) = aws.ec2.describe_key_pairs(Filters=[{"Name": f"tag:{RUN_TAG}", "Values": [run]}])["KeyPairs"]
    subnet = aws.ec2.describe_subnets()["Subnets"][0]
    given: Any = lambda kind: [{"ResourceType": kind, "Tags": key["Tags"]}]  # noqa: E731
    interface = given("network-interface")
    aws.ec2.create_network_interface(SubnetId=subnet["SubnetId"], TagSpecifications=interface)
    aws.ec2.create_security_group(
        GroupName=f"bake-{run}-lost",
        Description="lost",
        VpcId=subnet["VpcId"],
        TagSpecifications=given("security-group"),
    )
    tags = {tag["Key"]: tag["Value"] for tag in key["Tags"]} | {"Name": f"bake-{run}"}
    aws.s3.put_object(Bucket=wire(aws, run, tags, Undo()).bucket, Key="images/object", Body=b"")


PATHS = (green, everything, refused, interrupted, swept)


def main(names: list[str]) -> int:
    """Walk the paths, and write the ledger; 1 if one did not end as it should."""
    chosen = [path for path in PATHS if path is green or path.__name__ in names or not names]
    walked, failed = {path.__name__ for path in chosen}, []
    with (
        tempfile.TemporaryDirectory() as folder,
        localcloud.running(lambda text: print(text, file=sys.stderr)) as cloud,
    ):
        recorder = Recorder(cloud, Path(folder))
        for path in chosen:
            try:
                recorder.walk(path)
            except Exception:
                failed.append(path.__name__)
                traceback.print_exc()
        found = {json.dumps(line): line for line in recorder.lines.values()}
    old = LEDGER.read_text(encoding="utf-8").splitlines() if LEDGER.exists() else []
    found |= {text: json.loads(text) for text in old if json.loads(text)["path"] not in walked - {*failed}}
    LEDGER.write_text("".join(f"{text}\n" for text in sorted(found)), encoding="utf-8")
    print(f"{len(found)} needs: {LEDGER}; failed: {', '.join(failed) or 'none'}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
