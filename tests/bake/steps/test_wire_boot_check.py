"""The boot check's queues, bucket and bus are there before the builder, and are found again."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from bake.aws import ClientError
from bake.creation import EXPIRES_TAG
from bake.journal import Journal, Record
from bake.lease import Lease
from bake.pipeline import bake
from bake.run import Run
from bake.steps import take_over as taking_over
from bake.steps.clean_up import clean_up
from bake.steps.exclusive import NotAlone
from bake.steps.take_over import Lost, take_over
from bake.steps.wire_boot_check import BOOT_CHECK, WIRING, wire_boot_check
from bake.undo import Undo
from bake.wiring import Wiring
from tests.bake.one_run import OneRun


@pytest.fixture
def resumed(one_run: OneRun) -> Run:
    return replace(one_run.run, attempt=2)


@pytest.fixture
def cut(one_run: OneRun) -> Iterator[Wiring]:
    """What a first attempt has made, and left when it was killed."""
    one_run.patience = 2  # "not found" of what is deleted behind its back means "not yet" for so long
    undo = Undo()
    made = wire_boot_check(one_run.plan, one_run.aws, one_run.run, undo, None)
    one_run.run.journal.begin("run", plan=one_run.plan.id)
    assert made is not None
    yield made
    with undo:
        pass


def wired(one_run: OneRun, run: Run, undo: Undo, earlier: Wiring | None = None) -> Wiring:
    made = wire_boot_check(one_run.plan, one_run.aws, run, undo, earlier)
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("action", "service"),
    [("CreateQueue", "queue"), ("CreateBucket", "bucket"), ("CreateEventBus", "bus"), ("PutRule", "rule")],
)
def test_a_denial_comes_before_the_builder(one_run: OneRun, action: str, service: str) -> None:
    one_run.fault(action, "refuse", code="AccessDenied", times=None)
    launched: list[str] = []
    one_run.aws.ec2.meta.events.register("before-call.ec2.*", lambda model, **_: launched.append(model.name))
    with pytest.raises(ClientError, match=action):
        bake(one_run.plan, one_run.aws, one_run.run)
    assert {"RunInstances", "ImportKeyPair"}.isdisjoint(launched)
    assert one_run.left() == [], service


def test_they_outlast_the_builder_and_go_with_the_rest(one_run: OneRun) -> None:
    with Undo() as undo:
        wired(one_run, one_run.run, undo)
        builder = one_run.launch(undo)
        clean_up(undo, one_run.run, "remove builder", but=BOOT_CHECK)
        left = one_run.left()
        assert builder.id not in left
        assert len(left) == 4  # two queues, a bucket, a bus
    assert one_run.left() == []


def test_a_run_whose_boot_check_is_done_makes_none(one_run: OneRun) -> None:
    one_run.run.memory.put(BOOT_CHECK, {})
    with Undo() as undo:
        assert wire_boot_check(one_run.plan, one_run.aws, one_run.run, undo, None) is None
        assert one_run.left() == []


def test_the_lease_moves_their_expiry(one_run: OneRun) -> None:
    with Undo() as undo:
        made = wired(one_run, one_run.run, undo)
        (renewal,) = one_run.run.renewals
        renewal("2030-01-01T00:00:00Z")
        tags = one_run.witness.sqs.list_queue_tags(QueueUrl=made.jobs)["Tags"]
        assert tags[EXPIRES_TAG] == "2030-01-01T00:00:00Z"


def test_a_second_exclusive_bake_makes_none(one_run: OneRun) -> None:
    later = OneRun(one_run.cloud, one_run.plan, replace(one_run.run, id="zz-later", exclusive=True))
    with Undo() as undo:
        one_run.launch(undo)
        with pytest.raises(NotAlone):
            wired(later, later.run, undo)
        assert later.left() == []


def taken_over(one_run: OneRun, run: Run, undo: Undo, stack: ExitStack) -> Wiring | None:
    """What a resumed run that has its builder takes over."""
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr(taking_over, "_builder", lambda *_: copy.copy(BUILDER))
    stack.enter_context(Lease(one_run.plan.lease, one_run.aws, run))
    return take_over(one_run.plan, one_run.aws, run, undo).wiring


class _Builder:
    id, role = "i-0123456789abcdef0", "builder"


BUILDER = _Builder()


def test_a_resumed_run_finds_them_again(one_run: OneRun, cut: Wiring, resumed: Run) -> None:
    resumed.renewals.clear()
    with ExitStack() as stack, Undo() as undo:
        found = taken_over(one_run, resumed, undo, stack)
        assert found == cut
        assert wired(one_run, resumed, undo, found) == cut
        assert len(resumed.renewals) == 1
        clean_up(undo, resumed, "remove builder", but=BOOT_CHECK)
        assert len(one_run.left()) == 4
        clean_up(undo, resumed)
        assert one_run.left() == []


def test_the_journal_knows_what_a_resumed_run_removes(one_run: OneRun, tmp_path: Path) -> None:
    """By one name in both attempts: the creating call has that of the list of what there is."""
    journal = one_run.run.journal = Journal(tmp_path)
    journal.begin("run", plan=one_run.plan.id)
    wired(one_run, one_run.run, Undo(record=journal.write))  # and it is killed
    record = Record.read(tmp_path)
    assert record is not None
    assert len(record.held()) == 4
    with ExitStack() as stack, Undo(record=journal.write) as undo:
        taken_over(one_run, replace(one_run.run, attempt=2), undo, stack)
    after = Record.read(tmp_path)
    assert after is not None
    assert after.held() == []


@pytest.mark.parametrize("gone", ["before", "after"])
def test_what_is_not_whole_any_more_is_made_anew(
    one_run: OneRun, cut: Wiring, resumed: Run, gone: str
) -> None:
    """Under another name: SQS refuses for a minute that of a queue which was just deleted."""
    with ExitStack() as stack, Undo() as undo:
        if gone == "before":
            one_run.witness.s3.delete_bucket(Bucket=cut.bucket)
        found = taken_over(one_run, resumed, undo, stack)
        assert found == (None if gone == "before" else cut)
        if gone == "after":
            one_run.witness.s3.delete_bucket(Bucket=cut.bucket)
        made = wired(one_run, resumed, undo, found)
        assert made.bucket == f"{cut.bucket}-2"
        assert made.things.isdisjoint(cut.things)
        clean_up(undo, resumed)
        assert one_run.left() == []


def test_with_an_ami_they_are_made_anew(one_run: OneRun, cut: Wiring, resumed: Run) -> None:
    """The earlier attempt may have begun its boot check: its job and its event are in the queues then."""
    one_run.kept_image()
    resumed.memory.put("build", {})
    resumed.memory.put("launch", {"id": "i-1", "root_volume": "vol-1", "login": LOGIN})
    with Lease(one_run.plan.lease, one_run.aws, resumed), Undo() as undo:
        earlier = take_over(one_run.plan, one_run.aws, resumed, undo)
        assert earlier.image is not None
        assert earlier.wiring is None
        assert wired(one_run, resumed, undo, earlier.wiring).things.isdisjoint(cut.things)


LOGIN = {"address": "192.0.2.4", "user": "ubuntu", "private_key": "", "host_key": ""}


def test_a_run_that_had_not_made_them_has_none(one_run: OneRun, resumed: Run) -> None:
    one_run.run.journal.begin("run", plan=one_run.plan.id)
    assert not resumed.recalls(WIRING)
    with Lease(one_run.plan.lease, one_run.aws, resumed), Undo() as undo, pytest.raises(Lost):
        take_over(one_run.plan, one_run.aws, resumed, undo)
