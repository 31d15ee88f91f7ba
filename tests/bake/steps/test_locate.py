"""The address that a profile asks for is asked anew each time, and the command filled in for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bake.journal import Memory
from bake.planning.plan import Plan
from bake.planning.reaching import Reach
from bake.run import Run
from bake.ssh import Login
from bake.steps import locate as locating
from bake.steps.launch import Launched
from bake.steps.locate import NoAddress, locate
from bake.steps.take_over import take_over
from bake.undo import Undo
from tests.plans import changed

if TYPE_CHECKING:
    from tests.bake.one_run import OneRun

LOGIN = Login("192.0.2.1", "ubuntu", "key", "host key")
WORDS = ("nc", "{instance}", "{host}", "{port}")


def led(plan: Plan, **builder: Any) -> Plan:
    """The plan with another way to its builder."""
    section = plan.profile.builder.model_copy(update=builder)
    return changed(plan, plan.profile.model_copy(update={"builder": section}))


def ec2_says(monkeypatch: pytest.MonkeyPatch, *answers: dict[str, Any] | None) -> None:
    """One answer after the other; the last one stays."""
    left = list(answers)
    monkeypatch.setattr(locating, "describe", lambda *_: left.pop(0) if len(left) > 1 else left[0])


def test_a_launched_instance_has_the_address_and_the_command(one_run: OneRun) -> None:
    one_run.plan = led(one_run.plan, address="private", proxy_command=WORDS)
    with Undo() as undo:
        builder = one_run.launch(undo)
        [found] = one_run.witness.ec2.describe_instances(InstanceIds=[builder.id])["Reservations"]
        private = found["Instances"][0]["PrivateIpAddress"]
    assert builder.login.address == private
    assert builder.login.proxy == ("nc", builder.id, private, "22")


def test_an_address_that_comes_late_is_waited_for(one_run: OneRun, monkeypatch: pytest.MonkeyPatch) -> None:
    private = {"PrivateIpAddress": "10.0.0.4"}
    ec2_says(monkeypatch, private, None, {**private, "PublicIpAddress": "198.51.100.4"})
    found = locate(Reach("public", "subnet-1"), one_run.aws, "i-1", LOGIN)
    assert (found.address, found.proxy) == ("198.51.100.4", ())


@pytest.mark.parametrize(
    ("reach", "facts", "told", "hint"),
    [
        (
            Reach("public", "subnet-1"),
            {"PrivateIpAddress": "10.0.0.4"},
            "builder.address is public, and i-1 in subnet-1 has no public IPv4 address",
            "modify-subnet-attribute --subnet-id subnet-1 --map-public-ip-on-launch; or write private",
        ),
        (
            Reach("public", "subnet-1", ipv6=True),
            {"PublicIpAddress": "198.51.100.4"},
            "has no IPv6 address, which builder.ssh_from lets in",
            "give subnet-1 an IPv6 block",
        ),
        (
            Reach("private", "subnet-1"),
            {"Ipv6Address": "2001:db8::4"},
            "builder.address is private, and i-1 in subnet-1 has no private IPv4 address",
            "has subnet-1 an IPv4 block?",
        ),
        (Reach("auto", "subnet-1"), {}, "i-1 in subnet-1 has no address", "has subnet-1"),
    ],
    ids=["public", "public-ipv6", "private", "auto"],
)
def test_an_instance_without_such_an_address_is_told_with_what_to_change(
    one_run: OneRun,
    monkeypatch: pytest.MonkeyPatch,
    reach: Reach,
    facts: dict[str, Any],
    told: str,
    hint: str,
) -> None:
    monkeypatch.setattr(locating, "APPEARS", 0.2)
    ec2_says(monkeypatch, facts)
    with pytest.raises(NoAddress) as caught:
        locate(reach, one_run.aws, "i-1", LOGIN)
    assert told in caught.value.message
    assert hint in str(caught.value.hint)


def test_a_builder_that_is_taken_over_is_located_anew_by_the_plans_present_way(one_run: OneRun) -> None:
    """Its address has changed with a stop, and so may have the bastion."""
    one_run.run.journal.begin("run", plan=one_run.plan.id)
    with Undo() as undo:
        builder = one_run.launch(undo)
        old = replace(builder.login, address="192.0.2.99", proxy=("nc", "old"))
        one_run.run.remember("launch", Launched, Launched(builder.id, builder.root_volume, old))
        present = led(one_run.plan, proxy_command=WORDS)
        with Undo() as later:
            earlier = take_over(present, one_run.aws, replace(one_run.run, attempt=2), later)
    assert earlier.builder is not None
    login = earlier.builder.login
    assert login.address not in ("", "192.0.2.99")
    assert login.proxy == ("nc", builder.id, login.address, "22")


def test_a_run_from_before_has_a_login_without_a_command(one_run: OneRun, tmp_path: Path) -> None:
    run = Run("1", tmp_path, one_run.run.progress, memory=Memory(tmp_path))
    run.remember("launch", Launched, Launched("i-1", "vol-1", replace(LOGIN, proxy=("nc", "x"))))
    assert run.recall("launch", Launched).login.proxy == ("nc", "x")
    run.memory.values["launch"]["login"].pop("proxy")
    assert run.recall("launch", Launched).login == LOGIN
