"""What the first boot made: judged by what the machine answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bake.checks.case_list import FIRST_BOOT
from bake.checks.cases import Cases
from bake.checks.result import Check
from bake.errors import BakeError, NotVerified, RemoteCommandError
from bake.ssh import CommandResult
from bake.steps.boot_check import raise_if_wrong
from bake.steps.first_boot import check_first_boot
from bake.steps.wait_for_worker import ImageIsBad
from tests.report import samples

GOOD = {
    "booted": 1795921633.5,
    "keys": {"/etc/ssh/ssh_host_ed25519_key": 1.0, "/etc/ssh/ssh_host_ecdsa_key": -2.0},
    "machine_id": "5d373838860a49cd9b9b52997b57a279",
    "machine_id_after": 0.2,
    "memory": 496525312,
    "total": 33_000_000_000,
}


class Machine:
    """A session with a machine that answers so."""

    def __init__(self, stdout: str, exit_code: int = 0) -> None:
        self.stdout, self.exit_code = stdout, exit_code

    def run(self, *argv: str, **_: Any) -> CommandResult:
        return CommandResult(argv, self.exit_code, self.stdout, "", 0.1)


def look(**changed: Any) -> tuple[dict[str, Check], int | None]:
    """The cases by id, and the memory."""
    cases = Cases("booted", (*FIRST_BOOT, "performance.memory"))
    memory = check_first_boot(Machine(json.dumps({**GOOD, **changed})), cases)  # type: ignore[arg-type]
    return {one.id: one for one in cases.results()}, memory


def test_keys_and_id_of_this_boot_pass() -> None:
    found, memory = look()
    assert {one.outcome for one in found.values()} == {"passed"}
    assert memory == 496525312


@pytest.mark.parametrize(
    ("case", "changed"),
    [
        pytest.param(
            "security.new_host_keys", {"keys": {"/etc/ssh/ssh_host_rsa_key": -4000.0}}, id="old-key"
        ),
        pytest.param("security.new_host_keys", {"keys": {}}, id="no-key"),
        pytest.param("system.new_machine_id", {"machine_id_after": -4000.0}, id="old-id"),
        pytest.param("system.new_machine_id", {"machine_id": "", "machine_id_after": None}, id="no-id"),
        pytest.param("system.new_machine_id", {"machine_id": "uninitialized"}, id="no-id-yet"),
        pytest.param("performance.memory", {"memory": 40_000_000_000}, id="too-much-memory"),
    ],
)
def test_what_came_with_the_image_fails_its_case_alone(case: str, changed: dict[str, Any]) -> None:
    found, _ = look(**changed)
    assert {name for name, one in found.items() if one.outcome == "failed"} == {case}


def test_memory_that_the_kernel_does_not_tell_is_not_judged() -> None:
    found, memory = look(memory=None)
    assert (found["performance.memory"].outcome, memory) == ("not applicable", None)


@pytest.mark.parametrize(
    ("machine", "error"),
    [
        pytest.param(Machine("no JSON"), BakeError, id="another-answer"),
        pytest.param(Machine("", 124), RemoteCommandError, id="no-answer"),
    ],
)
def test_a_machine_that_does_not_answer_is_not_bad(machine: Machine, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        check_first_boot(machine, Cases("booted"))  # type: ignore[arg-type]
    assert not isinstance(caught.value, ImageIsBad)


def test_a_failed_check_of_an_image_that_drew_leaves_it_unproven() -> None:
    """Only ImageIsBad removes an image, which took hours."""
    raise_if_wrong(
        [samples.check(), samples.check(outcome="not applicable"), samples.check(outcome="waived")]
    )
    with pytest.raises(NotVerified, match=r"users\.no_passwords: .*: expected none, found root") as caught:
        raise_if_wrong([samples.check(outcome="failed", reason="expected none, found root\nx")])
    assert not isinstance(caught.value, ImageIsBad)
