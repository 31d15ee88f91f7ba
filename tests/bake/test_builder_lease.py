"""The builder's lease: its program on any clock, its place in user data, and its renewals."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from bake import builder_lease
from bake.builder_lease import program
from bake.errors import BakeError
from bake.instance import USER_DATA_LIMIT, KeyPair, describe, user_data
from bake.lease import Lease
from bake.steps.create_image import stop
from bake.undo import Undo

if TYPE_CHECKING:
    from tests.bake.one_run import OneRun

HOUR = timedelta(hours=1)
AT = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(program, "HERE", tmp_path)
    monkeypatch.setattr(program, "aws_time", lambda: AT.timestamp())
    monkeypatch.setattr(program, "arm", lambda known, left: armed.append((known["expires"], left)))
    armed.clear()
    return {"expires": AT.timestamp() + 60, "length": 3600, "kept": str(tmp_path / "bake/lease"), "name": "x"}


armed: list[tuple[float, float]] = []


def run(monkeypatch: pytest.MonkeyPatch, verb: str, known: dict[str, Any]) -> int:
    monkeypatch.setattr(sys, "argv", ["lease.py", verb, json.dumps(known)])
    return program.main()


def test_a_boot_goes_by_the_last_renewal(known: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    later = {**known, "expires": int(AT.timestamp()) + 1800}
    assert run(monkeypatch, "renew", later) == 0
    assert run(monkeypatch, "boot", known) == 0
    assert armed == [(later["expires"], 1800), (later["expires"], 1800)]


def test_a_boot_after_the_expiry_ends_at_once(known: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "boot", {**known, "expires": AT.timestamp() - 5})
    assert armed[0][1] == -5


@pytest.mark.parametrize("content", ["", "soon\n", "9" * 5000])
def test_a_broken_file_leaves_the_first_expiry(
    known: dict[str, Any], monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    file = Path(known["kept"])
    file.parent.mkdir()
    file.write_text(content)
    run(monkeypatch, "boot", known)
    assert armed == [(known["expires"], 60)]


def test_no_expiry_is_further_than_a_lease(known: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "boot", {**known, "expires": AT.timestamp() + 10**9})
    assert armed[0][1] == 3600


@pytest.mark.parametrize(("ahead", "left"), [(timedelta(days=30), 300), (-timedelta(days=9999), 3600)])
def test_a_wrong_clock_without_awss_gets_time_for_ntp(
    known: dict[str, Any], monkeypatch: pytest.MonkeyPatch, ahead: timedelta, left: float
) -> None:
    monkeypatch.setattr(program, "aws_time", lambda: None)
    monkeypatch.setattr(program.time, "time", lambda: (AT + ahead).timestamp())
    run(monkeypatch, "boot", known)
    assert armed[0][1] == left


def test_before_the_end_it_is_asked_once_more(known: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = program.HERE / "settings.json"
    settings.write_text(json.dumps(known))
    assert run(monkeypatch, "still", {}) == 0
    settings.write_text(json.dumps({**known, "expires": AT.timestamp()}))
    assert run(monkeypatch, "still", {}) == 1
    assert len(armed) == 1


def test_the_command_of_a_boot_places_the_program_anywhere(tmp_path: Path) -> None:
    """As cloud-init runs it; a stub in place of Python shows what would run, and with which arguments."""
    command = builder_lease.boot_command(AT, HOUR)
    folder, python = tmp_path / "memory", tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    command[command.index(builder_lease.LEASE)] = str(folder)
    command[command.index(builder_lease.SYSTEM_PYTHON)] = str(python)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    where, verb, settings = done.stdout.splitlines()
    assert (where, verb) == (f"{folder}/lease.py", "boot")
    assert json.loads(settings)["expires"] == int(AT.timestamp())
    assert (folder / "lease.py").read_text() == Path(program.__file__).read_text()


def test_user_data_has_room_for_it() -> None:
    keys = KeyPair.of_each_kind()
    text = user_data(keys, {}, [keys[1].public], builder_lease.boot_command(AT, HOUR))
    assert len(text.encode()) < USER_DATA_LIMIT * 0.75
    [command] = yaml.safe_load(text)["bootcmd"]
    assert command == builder_lease.boot_command(AT, HOUR)
    assert "bootcmd" not in yaml.safe_load(user_data(keys, {}))


def behavior(one_run: OneRun, instance: str) -> str:
    name: Any = "instanceInitiatedShutdownBehavior"
    answer = one_run.witness.ec2.describe_instance_attribute(InstanceId=instance, Attribute=name)
    return str(answer["InstanceInitiatedShutdownBehavior"]["Value"])


def test_a_builder_is_terminated_by_its_power_off_until_it_is_stopped(one_run: OneRun) -> None:
    with Undo() as undo:
        builder = one_run.launch(undo)
        assert behavior(one_run, builder.id) == "terminate"
        stop(one_run.aws, one_run.run, builder)
        assert behavior(one_run, builder.id) == "stop"
        stop(one_run.aws, one_run.run, builder)  # a resumed run does it again
        facts = describe(one_run.witness, builder.id)
        assert facts is not None
        assert facts["State"]["Name"] == "stopped"


def test_an_instance_of_the_image_is_only_stopped(one_run: OneRun) -> None:
    one_run.role = "boot-check"
    with Undo() as undo:
        assert behavior(one_run, one_run.launch(undo).id) == "stop"


class Builder:
    """A session with a builder that answers when it may."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = threading.Event()
        self.answers.set()
        self.error: BakeError | None = None

    def run(self, *argv: str, **_: Any) -> None:
        self.answers.wait()
        if self.error:
            raise self.error
        self.asked.append(argv[-1])


def renewed_at(builder: Builder) -> list[int]:
    return [json.loads(settings)["expires"] for settings in builder.asked]


def test_the_builder_comes_before_the_tags_and_none_after_the_block(one_run: OneRun) -> None:
    builder, lease = Builder(), Lease(HOUR, one_run.aws, one_run.run)
    with builder_lease.renewed(builder, one_run.run, AT, HOUR):  # type: ignore[arg-type]
        assert renewed_at(builder) == [int(AT.timestamp())]
        lease._renew()
        assert len(builder.asked) == 2
    lease._renew()
    assert len(builder.asked) == 2


def test_a_builder_that_fails_holds_no_tag_up_and_is_tried_again(one_run: OneRun) -> None:
    builder, lease, moved = Builder(), Lease(HOUR, one_run.aws, one_run.run), list[str]()
    one_run.run.renewals.append(moved.append)
    with builder_lease.renewed(builder, one_run.run, AT, HOUR):  # type: ignore[arg-type]
        builder.error = BakeError("the connection broke")
        lease._renewed = before = -1.0
        lease._renew()
        assert len(moved) == 1
        assert lease._renewed == before
        builder.error = None
        lease._renew()
        assert lease._renewed > before
        assert len(builder.asked) == 2


def test_a_builder_that_hangs_does_not_stop_the_lease(
    one_run: OneRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder, lease, moved = Builder(), Lease(HOUR, one_run.aws, one_run.run), list[str]()
    one_run.run.renewals.append(moved.append)
    with builder_lease.renewed(builder, one_run.run, AT, HOUR):  # type: ignore[arg-type]
        monkeypatch.setattr(builder_lease, "SECONDS", 0.3)
        builder.answers.clear()
        began = time.monotonic()
        lease._renew()
        lease._renew()
        assert len(moved) == 2
        assert time.monotonic() - began < 30
        builder.answers.set()
