"""The lease moves the expiry of what a run holds while the bake gets on, and ends a bake that hangs."""

from __future__ import annotations

import io
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from bake import interrupt
from bake.creation import tag_of, time_of
from bake.errors import EXIT_FAILED, Interrupted
from bake.image import describe_image, mark
from bake.instance import describe
from bake.lease import RENEWALS, Lease, RanOut
from bake.progress import Nothing, PlainScreen, Progress, Tally
from bake.run import Run
from bake.steps.tags import tags
from bake.undo import Undo
from bake.wiring import wire

if TYPE_CHECKING:
    from tests.bake.one_run import OneRun


@pytest.fixture
def handled() -> Iterator[None]:
    """Signals end the block as they end a bake."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    interrupt.install()
    yield
    interrupt.install()  # forgets the signal
    for number, handler in before.items():
        signal.signal(number, handler)


def moves(act: Callable[[Progress], object]) -> bool:
    progress = Progress(PlainScreen(io.StringIO()))
    progress.tally.moved_at = 0.0
    act(progress)
    return progress.tally.moved_at > 0.0


def test_what_gets_on_is_progress() -> None:
    assert moves(lambda progress: progress.step("seal").__enter__())
    assert moves(lambda progress: progress.transfer("weights", 1, 9))
    assert moves(lambda progress: progress.tally.saw("snapshot", "3%"))


def test_what_only_answers_is_no_progress() -> None:
    assert not moves(lambda progress: progress.status("still there"))
    assert not moves(lambda progress: progress.note("a try again"))
    assert not moves(lambda progress: progress.transfer("weights", 0, 9))


def test_what_goes_back_and_forth_is_no_progress() -> None:
    tally = Tally()
    for state in ("3%", "", "4%"):
        tally.saw("snapshot", state)
    tally.grew("weights", 5)
    tally.moved_at = 0.0
    for state in ("3%", "", "4%"):
        tally.saw("snapshot", state)
    for amount in (0, 4, 5):
        tally.grew("weights", amount)
    assert tally.moved_at == 0.0


def expiry(one_run: OneRun, instance: str) -> datetime:
    found = time_of(tag_of((describe(one_run.witness, instance) or {}).get("Tags"), "bake:expires"))
    assert found is not None
    return found


def test_progress_moves_the_expiry_of_everything(one_run: OneRun) -> None:
    with Undo() as undo:
        builder = one_run.launch(undo)
        before = expiry(one_run, builder.id)
        name = f"bake-{one_run.run.id}"
        known = {tag["Key"]: tag["Value"] for tag in tags(one_run.plan, one_run.run, name)}
        wiring = wire(one_run.aws, one_run.run.id, known, undo)
        one_run.run.renewals.append(lambda until: wiring.renew(one_run.aws, until))
        lease = Lease(timedelta(days=30), one_run.aws, one_run.run)
        lease._tally.moved("a step")
        lease._renew()
        aws, late = one_run.witness, before + timedelta(days=20)
        assert expiry(one_run, builder.id) > late
        found = aws.ec2.describe_tags(Filters=[{"Name": "key", "Values": ["bake:expires"]}])["Tags"]
        mine = aws.ec2.describe_tags(Filters=[{"Name": "value", "Values": [one_run.run.id]}])["Tags"]
        ids = {tag["ResourceId"] for tag in mine}
        times = [time_of(tag["Value"]) for tag in found if tag["ResourceId"] in ids]
        times += [
            time_of(aws.sqs.list_queue_tags(QueueUrl=url)["Tags"]["bake:expires"])
            for url in (wiring.jobs, wiring.results)
        ]
        bucket = aws.s3.get_bucket_tagging(Bucket=wiring.bucket)["TagSet"]
        assert tag_of(bucket) == one_run.run.id
        bus = aws.events.describe_event_bus(Name=wiring.bus)["Arn"]
        on_bus = aws.events.list_tags_for_resource(ResourceARN=bus)["Tags"]
        times += [time_of(tag_of(listed, "bake:expires")) for listed in (bucket, on_bus)]
        assert len(times) >= 7
        assert all(at is not None and at > late for at in times)


def test_an_image_that_is_kept_gets_no_expiry_again(one_run: OneRun) -> None:
    with Undo() as undo:
        image = one_run.image(undo)
        mark(one_run.aws, image, "unproven")
        lease = Lease(timedelta(hours=2), one_run.aws, one_run.run)
        lease._tally.moved("a step")
        lease._renew()
        found = describe_image(one_run.witness, image.id)
        assert found is not None
        assert tag_of(found["Tags"], "bake:expires") == ""


def test_the_thread_renews_after_progress_only(one_run: OneRun) -> None:
    with Undo() as undo:
        one_run.launch(undo)
        asked: list[str] = []
        one_run.run.renewals.append(asked.append)
        with Lease(timedelta(seconds=20), one_run.aws, one_run.run) as lease:
            one_run.run.progress.tally.moved("a step")
            while not asked:  # the test's own time limit ends it
                time.sleep(0.1)
            one_run.run.progress.status("still there")
            lease._over.wait(2 * 20 / RENEWALS)
        assert len(asked) == 1


@pytest.mark.usefixtures("handled")
def test_a_bake_that_hangs_ends_and_removes_what_it_made(one_run: OneRun) -> None:
    removed: list[str] = []
    one_run.aws.tally = one_run.run.progress.tally  # as in a bake
    with pytest.raises(RanOut, match=r"no progress for .* h: the last was at .*, launch ended") as caught:  # noqa: SIM117
        with Lease(timedelta(seconds=3), one_run.aws, one_run.run), Undo() as undo:
            undo.add("builder", lambda: removed.append("builder"), by_hand="")
            with one_run.run.progress.step("launch"):
                pass
            one_run.aws.wait("what never comes", lambda: None, timeout=120)
    assert removed == ["builder"]
    assert caught.value.exit_code == EXIT_FAILED
    assert "it waits for what never comes" in caught.value.message


@pytest.mark.usefixtures("handled")
def test_progress_keeps_a_bake_longer_than_its_lease(one_run: OneRun) -> None:
    tally = one_run.run.progress.tally
    with Lease(timedelta(seconds=10), one_run.aws, one_run.run) as lease:
        end = time.monotonic() + 15
        while time.monotonic() < end:
            tally.moved("a step")
            time.sleep(0.2)
    assert lease.ran_out == ""


@pytest.mark.usefixtures("handled")
def test_a_signal_stays_a_signal(one_run: OneRun) -> None:
    with pytest.raises(Interrupted), Lease(timedelta(hours=2), one_run.aws, one_run.run):
        signal.raise_signal(signal.SIGTERM)


def test_a_failed_renewal_is_tried_again(one_run: OneRun) -> None:
    with Undo() as undo:
        builder = one_run.launch(undo)
        before = expiry(one_run, builder.id)
        lease = Lease(timedelta(days=30), one_run.aws, one_run.run)
        lease._tally.moved("a step")
        one_run.fault("CreateTags", "refuse", times=None)
        lease._renew()
        assert expiry(one_run, builder.id) == before
        one_run.cloud.faults.clear()
        lease._renew()
        assert expiry(one_run, builder.id) > before


def get_on(one_run: OneRun) -> None:
    """A bake that makes progress by this machine's clock, until it is ended."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        one_run.run.progress.tally.moved("a step")
        one_run.aws.ec2.describe_key_pairs()
        time.sleep(0.2)


@pytest.mark.usefixtures("handled")
def test_a_lease_that_ended_while_the_machine_slept_is_not_renewed(
    one_run: OneRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monotonic clock stood still, and AWS's went on."""
    monkeypatch.setattr("bake.lease.LOOK", 0.2)
    with pytest.raises(RanOut, match=r"the lease ended at .* by AWS's clock") as caught:  # noqa: SIM117
        with Lease(timedelta(hours=2), one_run.aws, one_run.run), Undo() as undo:
            builder = one_run.launch(undo)
            before = expiry(one_run, builder.id)
            seen = list[datetime]()
            undo.add("a look", lambda: seen.append(expiry(one_run, builder.id)), by_hand="")
            one_run.cloud.front.ahead = timedelta(hours=3)
            get_on(one_run)
    assert seen == [before]
    assert "suspended" in (caught.value.hint or "")
    assert one_run.left() == []


@pytest.mark.usefixtures("handled")
def test_a_sleep_that_is_shorter_than_the_lease_ends_nothing(
    one_run: OneRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bake.lease.LOOK", 0.2)
    monkeypatch.setattr("bake.lease.RENEWALS", 7200)
    with Lease(timedelta(hours=2), one_run.aws, one_run.run) as lease, Undo() as undo:
        builder = one_run.launch(undo)
        before = expiry(one_run, builder.id)
        one_run.cloud.front.ahead = timedelta(hours=1)
        end = time.monotonic() + 120
        while expiry(one_run, builder.id) < before + timedelta(minutes=55) and time.monotonic() < end:
            one_run.run.progress.tally.moved("a step")
            time.sleep(0.2)
        assert expiry(one_run, builder.id) >= before + timedelta(minutes=55)
    assert lease.ran_out == ""


def test_nothing_is_created_after_the_lease(one_run: OneRun) -> None:
    with Lease(timedelta(hours=2), one_run.aws, one_run.run), Undo() as undo:
        one_run.cloud.front.ahead = timedelta(hours=3)
        one_run.aws.ask_clock()
        with pytest.raises(RanOut, match="by AWS's clock"):
            one_run.launch(undo)
    assert one_run.left() == []


def test_what_is_created_expires_with_the_lease_wherever_it_is_told(one_run: OneRun) -> None:
    """One source: the tags, the journal and the builder's own timer say the same."""
    with Lease(timedelta(hours=30), one_run.aws, one_run.run) as lease, Undo() as undo:
        builder = one_run.launch(undo)
        named = timedelta(seconds=3)
        assert abs(expiry(one_run, builder.id) - lease.expires) < named + timedelta(minutes=1)
        assert abs(one_run.run.expires() - lease.expires) < named


def test_a_run_without_a_lease_creates_nothing(tmp_path: Path) -> None:
    run = Run("1", tmp_path, Progress(Nothing()))
    with pytest.raises(RuntimeError, match="without a lease"):
        run.expires()


def test_a_lease_that_could_not_be_renewed_is_refused_before_anything_is_created(one_run: OneRun) -> None:
    one_run.fault("DescribeTags", "refuse", code="UnauthorizedOperation", times=None)
    with (
        pytest.raises(ClientError, match="DescribeTags"),
        Lease(timedelta(hours=2), one_run.aws, one_run.run),
    ):
        pytest.fail("it must not begin")


def test_a_resumed_run_begins_all_the_same(one_run: OneRun) -> None:
    """It holds something already: what can't be renewed is noted later."""
    one_run.fault("DescribeTags", "refuse", code="UnauthorizedOperation", times=None)
    with Lease(timedelta(hours=2), one_run.aws, replace(one_run.run, attempt=2)):
        pass
