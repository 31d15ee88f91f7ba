"""Read the finished AMI's snapshots beside its boot check, and attest what they hold and how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bake import background
from bake.attest import leaves
from bake.attest.merkle import Content
from bake.attest.reading import Reading, told
from bake.attest.statement import DIGEST_TAG, Attested, Build, Subject, provenance, summary
from bake.aws import Aws, call_errors, unanswered
from bake.errors import BakeError
from bake.image import Image, describe_image
from bake.planning.plan import Plan
from bake.redaction import redact_all
from bake.run import Run
from bake.steps.attempt import attempt
from bake.steps.record_trace import recorded

if TYPE_CHECKING:
    from securesystemslib.signer._signer import Signer

STATEMENTS, PUBLIC_KEY, FACTS = "attestation.intoto.jsonl", "attestation.pub", "facts/attestation.json"
REHEARSED = "a key that this rehearsal made for itself"
AMAZONS = "its snapshot is another account's, whose snapshots nobody else may read"


@contextmanager
def attested(plan: Plan, aws: Aws, run: Run, image: Image) -> Iterator[None]:
    """Read the AMI's snapshots while the block proves it; once it has, state what they hold, and tag them.

    An image that the block does not prove is not attested. A failure here is a note: the image is good.
    """
    if plan.attesting is None:
        yield
        return
    reader = Reader(plan, aws, image)
    reading = background.start(reader.read)
    try:
        yield
        with run.progress.step("attest"):
            attempt(run, f"{image.id} is not attested", lambda: _finish(reader, reading.result, run))
    finally:
        reader.stop()


@dataclass
class Reader:
    """Reads the snapshots of an AMI, and of its base where that is the account's own."""

    plan: Plan
    aws: Aws
    image: Image
    readings: list[Reading] = field(default_factory=list)
    stopped: bool = False

    def read(self) -> dict[str, tuple[str, Content]]:
        """Device -> snapshot and content, of all of the AMI's."""
        facts = describe_image(self.aws, self.image.id)
        if facts is None:
            raise BakeError(f"{self.image.id} is gone")
        disks = {one["DeviceName"]: one["Ebs"] for one in facts["BlockDeviceMappings"] if "Ebs" in one}
        held = {device: ebs for device, ebs in disks.items() if ebs.get("SnapshotId")}
        return {
            device: (ebs["SnapshotId"], self._of(ebs["SnapshotId"], ebs.get("VolumeSize")))
            for device, ebs in held.items()
        }

    def base(self) -> tuple[str, str]:
        """The content digest of the base AMI's root snapshot, or why there is none."""
        base = self.plan.launch.base
        try:
            if base.owner != self.aws.sts.get_caller_identity()["Account"]:
                return "", AMAZONS
            return self._of(base.snapshot).digest(), ""
        except BakeError as error:
            return "", error.message
        except call_errors() as error:
            return "", f"AWS: {unanswered(error)}"

    def stop(self) -> None:
        """Read no further."""
        self.stopped = True
        for reading in self.readings:
            reading.stop()

    def _of(self, snapshot: str, gib: int | None = None) -> Content:
        reading = Reading(self.aws, snapshot)
        self.readings.append(reading)
        if self.stopped:
            reading.stop()
        return reading.content(gib)


def _finish(reader: Reader, result: Any, run: Run) -> None:
    """Wait until all is read, and attest it. Whatever goes wrong is a BakeError, or AWS's."""
    try:
        with reader.aws.tally.waiting(f"the snapshot of {reader.image.id} to be read"):
            found = result()
        _attest(reader, found, run)
    except BakeError:
        raise
    except Exception as error:  # a bug: the image is good, and stays so
        if unanswered(error) is not None:
            raise
        raise BakeError(f"{type(error).__name__}: {error}") from error


def _attest(reader: Reader, found: Mapping[str, tuple[str, Content]], run: Run) -> None:
    from bake.attest import signing

    plan, aws, image = reader.plan, reader.aws, reader.image
    for reading in reader.readings:
        run.progress.note(told(reading))
    subject = Subject(image.id, image.name, aws.region, plan.sources.venue, _attested(found))
    signer, by = _signer(plan, aws)
    line = signing.sign(redact_all(provenance(subject, _build(reader, run))), signer)
    for snapshot, content in found.values():
        run.keep(leaves.name(snapshot), leaves.write(snapshot, content))
    run.keep(STATEMENTS, f"{line}\n".encode())
    if signer is not None:
        run.keep(PUBLIC_KEY, signing.pem(signer.public_key))
    key = None if signer is None else signer.public_key.keyid
    run.keep(FACTS, json.dumps(_facts(reader, subject, key, by), indent=1) + "\n")
    run.after_report.append(partial(_summarize, run, subject, signer, plan.inputs["checks"], line))
    _tag(aws, subject)
    run.progress.note(f"{image.id} holds sha256:{subject.digest}; attested, {by}")


def _attested(found: Mapping[str, tuple[str, Content]]) -> tuple[Attested, ...]:
    return tuple(
        Attested(device, snapshot, content.gib, content.digest())
        for device, (snapshot, content) in sorted(found.items())
    )


def _signer(plan: Plan, aws: Aws) -> tuple[Signer | None, str]:
    """What signs, and how that is called; a rehearsal leaves the user's keys alone."""
    from bake.attest import signing

    if plan.sources.venue == "REHEARSAL":
        return signing.passing(), f"signed with {REHEARSED}"
    name = plan.attesting.key if plan.attesting else None
    if name is None:
        return None, "and not signed: the profile names no signing_key"
    return signing.opened(name, aws), f"signed with {name}"


def _facts(reader: Reader, subject: Subject, key: str | None, by: str) -> dict[str, Any]:
    """What the report has of it."""
    return {
        "digest": subject.digest,
        "snapshots": [asdict(one) for one in subject.snapshots],
        "key": key,
        "signed": by,
        "file": STATEMENTS,
        "blocks": sum(one.read for one in reader.readings),
        "seconds": round(sum(one.seconds for one in reader.readings), 2),
    }


def _tag(aws: Aws, subject: Subject) -> None:
    named: dict[str, list[str]] = {}
    for one in subject.descriptors():
        named.setdefault(one["digest"]["sha256"], []).append(one["name"])
    for digest, names in named.items():
        aws.ec2.create_tags(Resources=names, Tags=[{"Key": DIGEST_TAG, "Value": f"sha256:{digest}"}])


def _build(reader: Reader, run: Run) -> Build:
    plan = reader.plan
    chosen = plan.profile.model_dump(mode="json", exclude={"weights": {"token"}, "signing_key": True})
    started = datetime.strptime(run.id[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    return Build(
        run=run.id,
        plan=plan.id,
        profile=plan.profile.name,
        version=version("ami-bake"),
        started=_time(started),
        finished=_time(reader.aws.now()),
        parameters=chosen,
        inputs=plan.inputs,
        materials=_materials(reader),
        byproducts=_byproducts(run),
    )


def _byproducts(run: Run) -> list[dict[str, Any]]:
    """The trace of a start, which the image ships and no plan knows."""
    trace = recorded(run)
    if trace is None:
        return []
    told = {"recorded": trace.recorded}
    digest = {"sha256": trace.sha256}
    return [{"name": "trace", "uri": f"file://{trace.path}", "digest": digest, "annotations": told}]


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _materials(reader: Reader) -> list[dict[str, Any]]:
    """What the image was made of: the base AMI, the worker's code, the weights, and the locks."""
    plan = reader.plan
    base, worker, lock = plan.launch.base, plan.provision.worker, plan.weights.lock
    digest, why = reader.base()
    uri = f"arn:aws:ec2:{reader.aws.region}::image/{base.id}"
    of_worker = {"gitCommit": worker.commit, "sha256": worker.tree}
    weights = plan.profile.weights
    found: list[dict[str, Any]] = [
        {
            "name": "base AMI",
            "uri": uri,
            **({"digest": {"sha256": digest}} if digest else {}),
            "annotations": {"name": base.name, "owner": base.owner, **({"no digest": why} if why else {})},
        },
        {
            "name": "worker",
            "uri": f"git+{worker.url}" if worker.url else "urn:ami-bake:worker",
            "digest": {name: value for name, value in of_worker.items() if value},
            "annotations": {"version": worker.version},
        },
        {
            "name": "weights",
            "uri": f"https://huggingface.co/{weights.repo}",
            "digest": {"gitCommit": weights.revision},
        },
    ]
    if lock is not None:
        sha256 = hashlib.sha256(json.dumps(lock.as_dict(), sort_keys=True).encode()).hexdigest()
        found.append({"name": "weights' lock", "digest": {"sha256": sha256}})
    locks = ("requirements", "tools", "python", "neuron")
    found += [{"name": one, "digest": {"sha256": plan.inputs[one]}} for one in locks if one in plan.inputs]
    return found


def _summarize(
    run: Run, subject: Subject, signer: Signer | None, checks: str, provenance: str, report: Any
) -> None:
    """Add the statement of what the report says to the statements; a failure is a note."""
    from bake.attest import signing

    file = run.directory / STATEMENTS
    try:
        statement = summary(
            subject,
            good=report.verdict.state == "good",
            version=version("ami-bake"),
            now=_time(datetime.now(UTC)),
            checks=checks,
            provenance=hashlib.sha256(provenance.encode()).hexdigest(),
            report=hashlib.sha256((run.directory / "report.json").read_bytes()).hexdigest(),
        )
        file.write_text(f"{provenance}\n{signing.sign(statement, signer)}\n", encoding="utf-8")
    except Exception as error:  # whatever it is: the report is written, and the image good
        run.progress.note(f"{file} does not say what was found out: {type(error).__name__}: {error}")
