"""A machine whose operating system is not the profile's is found at once; the error names both."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from bake import ssh
from bake.errors import BakeError
from bake.ssh import opening
from bake.steps.connect import log_in
from bake.systems import SYSTEMS

if TYPE_CHECKING:
    from tests.conftest import Machine

pytestmark = pytest.mark.root


def test_another_system_is_named_with_the_one_in_the_profile(machine: Machine) -> None:
    instance = dataclasses.replace(machine.instance, system=SYSTEMS["amazon-linux"])
    with pytest.raises(BakeError, match=r"runs (Debian|Ubuntu).*\(ID=(debian|ubuntu)\)") as caught:
        log_in(instance, machine.plan, machine.aws, machine.run)
    assert "the profile says Amazon Linux with user ec2-user" in caught.value.message
    assert "base.os" in str(caught.value.hint)


def test_the_login_user_identifies_the_system(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine lets the profile's user in only where the system is the profile's."""
    monkeypatch.setattr(opening, "PATIENT_REFUSALS", 2)
    login = dataclasses.replace(machine.instance.login, user="ec2-user")
    instance = dataclasses.replace(machine.instance, system=SYSTEMS["amazon-linux"], login=login)
    with pytest.raises(BakeError, match="with user ubuntu; the profile says Amazon Linux with user ec2-user"):
        log_in(instance, machine.plan, machine.aws, machine.run)


def test_an_unknown_user_is_refused_in_time(machine: Machine) -> None:
    login = dataclasses.replace(machine.instance.login, user="nobody-here")
    with pytest.raises(BakeError, match="no SSH connection to nobody-here@"):
        ssh.connect(login, timeout=1)
