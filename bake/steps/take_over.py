"""Take over what an earlier attempt of the run left: its builder, its AMI; remove what else it left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from bake import redaction
from bake.aws import Aws, ClientError, call_errors, error_code, unanswered
from bake.creation import stamp
from bake.errors import BakeError, Resumable, TimedOut
from bake.image import Image, describe_image, image_of, mark, mark_pending, root_of
from bake.instance import describe, is_interrupted
from bake.journal import TAKE_OVER, Record
from bake.lease import renew
from bake.lifecycle import inventory
from bake.lifecycle.holding import Holding
from bake.lifecycle.sweep import remove
from bake.planning.plan import Plan
from bake.reaper import Reaper
from bake.retries import CAPACITY
from bake.run import Run
from bake.steps.create_image import MADE, snapshot_progress
from bake.steps.launch import Instance, Launched, arm, made_reaper
from bake.steps.locate import locate
from bake.steps.seal import undone
from bake.steps.wire_boot_check import BOOT_CHECK, WIRING
from bake.undo import Undo
from bake.wiring import Wiring

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeDef

RETURNS = 900.0  # seconds for a builder that reboots, or was stopped, to run again
GO_WITH_INSTANCE = ("volume", "network interface")
ENDED = ("shutting-down", "terminated")


class Lost(BakeError):
    """What the run had done is gone, so that it can't go on."""


class AlreadyDone(BakeError):
    """The run's AMI is good, which its directory could not note: its disk was full, or was lost."""


class NotNow(Resumable):
    """AWS does not tell what the run holds. Nothing was changed, and the run can be resumed later."""


@dataclass(frozen=True)
class Earlier:
    """What a resumed run goes on with; nothing in a new one. `image` is the id of its AMI.

    `wiring` is the boot check's, from before there was an AMI: nothing of an earlier boot check is in it.
    """

    builder: Instance | None = None
    image: str | None = None
    wiring: Wiring | None = None


def take_over(plan: Plan, aws: Aws, run: Run, undo: Undo) -> Earlier:
    """Find what earlier attempts of this run left, and register its removal; an AMI that is made is kept.

    Raises Lost if there is nothing that the run could go on with, and AlreadyDone if it needs nothing more.
    """
    if run.attempt == 1:
        return Earlier()
    with run.progress.step(TAKE_OVER):
        held = _held(aws, run)
        images = [one for one in held if one.kind == "AMI" and one.status != "failed"]
        kept = {*GO_WITH_INSTANCE, *(("AMI", "snapshot") if images else ())}
        wiring = None if images else _wiring(run, held)
        for one in held:
            if one.kind not in kept:
                with undo.group(BOOT_CHECK if wiring and (one.kind, one.id) in wiring.things else ""):
                    undo.add(f"{one.kind} {one.id}", partial(remove, aws, one), by_hand=one.by_hand)
        changed = _changed(plan, run)
        if images:
            return _with_image(plan, aws, run, images[0], changed)
        if changed:
            raise Lost(changed)
        builder = _builder(plan, aws, run, held)
        _take_reaper_over(plan, aws, run, undo, held, builder)
        return Earlier(builder, wiring=wiring)


def _wiring(run: Run, held: Sequence[Holding]) -> Wiring | None:
    """The boot check's queues, bucket and bus, if all of them are still there."""
    if not run.recalls(WIRING):
        return None
    known: Wiring = run.recall(WIRING, Wiring)
    return known if known.things <= {(one.kind, one.id) for one in held} else None


def _held(aws: Aws, run: Run) -> tuple[Holding, ...]:
    """Return what the run holds in AWS; raise NotNow unless AWS tells of instances and AMIs."""
    found = inventory.take(aws, prices=False)
    untold = [f"{what} were not looked at: AWS answers {why}" for what, why in found.unanswered.items()]
    if any(text.startswith(("instances", "AMIs")) for text in untold):
        raise NotNow("\n".join(untold), hint=f"nothing was changed: call `bake resume {run.id}` again")
    for text in untold:
        run.progress.note(f"{text}; what the run left of them stays for `bake sweep`")
    return found.of(run.id)


def _changed(plan: Plan, run: Run) -> str:
    """Say whether the profile, or anything else that goes into the image, is another one by now."""
    record = Record.read(run.directory)
    before = record.begun["plan"] if record else plan.id
    return "" if before == plan.id else f"its plan was {before}, and the profile's is {plan.id} now"


def _with_image(plan: Plan, aws: Aws, run: Run, image: Holding, changed: str) -> Earlier:
    """Go on with an AMI that is made, or is being made; what took hours is kept in any case."""
    why = changed or ("" if run.recalls("build") else "the run directory does not say what was built for it")
    if why and image.state == "good":
        raise AlreadyDone(
            f"{image.id} is there, and good: the run is done, which its directory did not say; `bake publish "
            f"{image.id}` finishes what its profile publishes"
        )
    if why:
        told = f"{image.id} is there, and can't be taken over: {why}"
        try:
            if image.state == "draft":
                _keep(aws, run, image)
        except call_errors() as error:
            raise _not_kept(aws, image, told, error) from error
        raise BakeError(
            told,
            hint=f"it is kept as unproven: prove or condemn it with `bake boot-check {image.id}`",
        )
    known = run.recall("launch", Launched)
    renew(aws, run.id, stamp(run.expires()))
    run.progress.note(f"{image.id} is {image.status}, and taken over")
    return Earlier(Instance(known.id, known.root_volume, known.login, plan.system), image.id)


def _not_kept(aws: Aws, image: Holding, told: str, error: Exception) -> BakeError:
    tag = ("--resources", image.id, "--tags", "Key=bake:state,Value=unproven")
    when = stamp(image.expires) if image.expires else "it gets an expiry"
    return BakeError(
        f"{told}\n{image.id} is a draft: it could not be made unproven ({unanswered(error)})",
        hint=f"`bake sweep` removes it after {when}; keep it with: {aws.command('ec2', 'create-tags', *tag)}",
    )


def _keep(aws: Aws, run: Run, image: Holding) -> None:
    """Make a draft unproven before anything else, so that no sweep removes it, and wait until it is made.

    Its builder goes when this run ends, and a snapshot that is not complete may need the builder's disk.
    """

    def look() -> Image | None:
        facts = describe_image(aws, image.id)
        if facts is None or facts["State"] == "failed":
            reason = (facts or {}).get("StateReason", {}).get("Message", "EC2 does not know it any more")
            raise BakeError(f"{image.id} failed: {reason}", hint=f"remove it with: {image.by_hand}")
        root = root_of(facts)
        if facts["State"] == "pending" or not root.get("SnapshotId"):
            run.progress.status(snapshot_progress(aws, root.get("SnapshotId")))
            return None
        return image_of(facts)

    facts = describe_image(aws, image.id)
    if facts is not None:
        mark_pending(aws, facts, "unproven")
    run.kept.append(f"{image.id} is kept as unproven")
    mark(aws, aws.wait(f"AMI {image.id}", look, timeout=MADE), "unproven")


def _builder(plan: Plan, aws: Aws, run: Run, held: Sequence[Holding]) -> Instance:
    """Take over the builder, if it is still the one that was launched; wait until it runs."""
    if not run.recalls("launch"):
        raise Lost("its builder was not running yet")
    known = run.recall("launch", Launched)
    redaction.register(known.login.private_key)
    held_one = next((one for one in held if one.id == known.id), None)
    facts = describe(aws, known.id)
    if facts is None or held_one is None or facts["State"]["Name"] in ENDED:
        raise Lost(f"its builder {known.id} is gone, and what was installed on it")
    if held_one.expires is not None and held_one.expires <= aws.now():
        raise Lost(
            f"its lease ended at {stamp(held_one.expires)}: the builder {known.id} is not trusted any more"
        )
    if wrong := _other_than(known, facts, plan):
        raise Lost(f"its builder {known.id} was changed: {wrong}")
    if wrong := undone(run, facts):
        raise Lost(wrong)
    login = known.login
    record = Record.read(run.directory)
    if not run.recalls("build") and record is not None and record.step == "seal":
        raise Lost("it was cut while the seal removed the keys: nobody can log in and see how far it was")
    if not run.recalls("build"):  # a sealed one is only stopped
        _wait_until_running(plan, aws, run, known.id, held_one.expires)
        login = locate(plan.launch.reach, aws, known.id, login)
    renew(aws, run.id, stamp(run.expires()))
    run.progress.note(f"the builder {known.id} is taken over, after {_last(run)}")
    return Instance(known.id, known.root_volume, login, plan.system)


def _take_reaper_over(
    plan: Plan, aws: Aws, run: Run, undo: Undo, held: Sequence[Holding], builder: Instance
) -> None:
    """Move the schedule that ends the builder; one that is not there any more is made anew."""
    if (role := plan.profile.builder.reaper_role) is None:
        return
    groups = [one.id for one in held if one.kind == "schedule group" and one.id.endswith(f"-{builder.role}")]
    if groups:
        arm(Reaper(aws, groups[0], role), builder.id, run)
    elif reaper := made_reaper(plan, aws, run, undo, f"{run.name}-{builder.role}"):
        arm(reaper, builder.id, run)


def _last(run: Run) -> str:
    return f"`{list(run.memory.values)[-1]}`"


def _other_than(known: Launched, facts: InstanceTypeDef, plan: Plan) -> str:
    """Say what makes it another machine than the one that was launched; empty if nothing does."""
    if facts["ImageId"] != plan.launch.base.id:
        return f"it was made from {facts['ImageId']}"
    volumes = [one["Ebs"]["VolumeId"] for one in facts.get("BlockDeviceMappings", []) if "Ebs" in one]
    if volumes != [known.root_volume]:
        return f"its volumes are {', '.join(volumes) or 'gone'}, and {known.root_volume} was its only one"
    return ""


def _wait_until_running(plan: Plan, aws: Aws, run: Run, instance: str, expires: datetime | None) -> None:
    """Wait until the builder runs; it may have been stopped.

    A spot builder that was interrupted is started by EC2 alone, as soon as it has capacity: for that its
    lease is waited for.
    """
    interrupted = is_interrupted(describe(aws, instance))
    patience = RETURNS
    if interrupted:
        patience = max((expires - aws.now()).total_seconds(), 0) if expires else plan.lease.total_seconds()
        until = f" until {stamp(expires)}" if expires else ""
        run.progress.note(
            f"EC2 has interrupted {instance}, and starts it when it has capacity: waiting{until}"
        )

    def look() -> bool | None:
        facts = describe(aws, instance)
        state = facts["State"]["Name"] if facts else "terminated"
        if facts is None or state in ENDED:
            raise Lost(f"its builder {instance} is gone, and what was installed on it")
        aws.tally.waits.say(f"it is {state}")
        if state == "stopped" and not is_interrupted(facts):
            _start(aws, instance)
        return state == "running" or None

    try:
        aws.wait(f"{instance} to run again", look, timeout=patience)
        run.journal.write("started", what=f"instance {instance}")
    except TimedOut as error:
        if not interrupted:
            raise
        raise Lost(f"EC2 did not start its interrupted builder {instance} within the lease") from error


def _start(aws: Aws, instance: str) -> None:
    try:
        aws.ec2.start_instances(InstanceIds=[instance])
    except ClientError as error:
        # A spot request settles late, an instance that still stops is waited for, and any needs capacity.
        if error_code(error) not in {"IncorrectSpotRequestState", "IncorrectInstanceState", *CAPACITY}:
            raise
