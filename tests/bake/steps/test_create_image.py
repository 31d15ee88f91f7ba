"""What may not be done with the builder in hours is said before a byte is fetched."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from bake.errors import BakeError
from bake.steps import connect
from bake.steps.create_image import check_right
from bake.undo import Undo
from tests.bake.one_run import OneRun

DENIED = (
    "You are not authorized to perform this operation. User: arn:aws:sts::123456789012:assumed-role/baker/ci "
    "is not authorized to perform: ec2:CreateTags on resource: arn:aws:ec2:eu-north-1::snapshot/* because no "
    "identity-based policy allows the ec2:CreateTags action. Encoded authorization failure message: AbC-1_2"
)
DRY = {"match": "DryRun=true", "times": None}


def test_the_right_to_make_the_ami_is_asked_and_nothing_is_made(one_run: OneRun) -> None:
    with Undo() as undo:
        builder = one_run.launch(undo)
        check_right(one_run.plan, one_run.aws, one_run.run, builder)
        assert not [one for one in one_run.left() if one.startswith(("ami-", "snap-"))]


def test_a_denial_names_the_right(one_run: OneRun) -> None:
    one_run.fault("CreateImage", "refuse", code="UnauthorizedOperation", message=DENIED, **DRY)
    with Undo() as undo:
        builder = one_run.launch(undo)
        with pytest.raises(BakeError) as caught:
            check_right(one_run.plan, one_run.aws, one_run.run, builder)
    assert caught.value.message == (
        "whoever bakes may not make the AMI: ec2:CreateTags is not allowed on "
        "arn:aws:ec2:eu-north-1::snapshot/*: no identity-based policy allows the ec2:CreateTags action"
    )
    assert "ec2:CreateImage" in (caught.value.hint or "")
    assert "ec2:CreateTags" in (caught.value.hint or "")


def test_a_denial_that_names_nothing_is_one_of_create_image(one_run: OneRun) -> None:
    one_run.fault("CreateImage", "refuse", code="UnauthorizedOperation", message="You may not.", **DRY)
    with Undo() as undo:
        builder = one_run.launch(undo)
        with pytest.raises(BakeError, match=r"may not make the AMI: ec2:CreateImage is not allowed$"):
            check_right(one_run.plan, one_run.aws, one_run.run, builder)


def test_what_else_ec2_would_refuse_is_told_as_ec2_says_it(one_run: OneRun) -> None:
    one_run.fault("CreateImage", "refuse", code="InvalidAMIName.Malformed", message="AMI name is odd", **DRY)
    with Undo() as undo:
        builder = one_run.launch(undo)
        with pytest.raises(BakeError, match=r"InvalidAMIName\.Malformed.*AMI name is odd"):
            check_right(one_run.plan, one_run.aws, one_run.run, builder)


def test_credentials_that_have_ended_say_nothing_of_the_ami(one_run: OneRun) -> None:
    one_run.fault("CreateImage", "refuse", code="RequestExpired", message="Request has expired.", **DRY)
    with Undo() as undo:
        builder = one_run.launch(undo)
        with pytest.raises(ClientError, match="RequestExpired"):
            check_right(one_run.plan, one_run.aws, one_run.run, builder)


def test_a_question_without_an_answer_does_not_end_the_bake(
    one_run: OneRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(one_run.run.progress, "note", notes.append)
    one_run.patience = 0.5
    one_run.fault("CreateImage", "throttle", **DRY)
    with Undo() as undo:
        builder = one_run.launch(undo)
        check_right(one_run.plan, one_run.aws, one_run.run, builder)
    assert any("whether the AMI may be made is not known" in note for note in notes)


def test_it_is_asked_before_anybody_logs_in(one_run: OneRun, monkeypatch: pytest.MonkeyPatch) -> None:
    one_run.fault("CreateImage", "refuse", code="UnauthorizedOperation", message=DENIED, **DRY)
    logged_in: list[str] = []
    monkeypatch.setattr(connect, "log_in", lambda *_: logged_in.append("in"))
    with Undo() as undo:
        builder = one_run.launch(undo)
        with pytest.raises(BakeError, match="may not make the AMI"):
            connect.connect_to_builder(builder, one_run.plan, one_run.aws, one_run.run)
    assert logged_in == []
