"""At which address and through which command instances are reached, and what a plan says against it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bake.account.facts import AccountFacts
from bake.account.network import Subnet
from bake.account.proxy import Program
from bake.agreement.facts import Agreement, compare
from bake.errors import UsageError
from bake.planning.plan import Plan, make
from bake.planning.reaching import Reach
from bake.planning.render import as_text

from .. import facts as usual
from ..variables import VARIABLES
from .conftest import REAL, Account

FOUR = {"PrivateIpAddress": "10.0.0.4"}
PUBLIC = {**FOUR, "PublicIpAddress": "198.51.100.4"}
BOTH = {**PUBLIC, "Ipv6Address": "2001:db8::4"}
SIX = {"Ipv6Address": "2001:db8::4"}
BASTION = ("ssh", "-W", "{host}:{port}", "ada@bastion")
MANAGER = ("aws", "ssm", "start-session", "--target", "{instance}")


@pytest.mark.parametrize(
    ("reach", "found"),
    [
        pytest.param({}, ["10.0.0.4", "198.51.100.4", "198.51.100.4", "2001:db8::4"], id="auto"),
        pytest.param(
            {"ipv6": True}, ["10.0.0.4", "198.51.100.4", "2001:db8::4", "2001:db8::4"], id="IPv6 is let in"
        ),
        pytest.param(
            {"proxy": BASTION}, ["10.0.0.4", "10.0.0.4", "10.0.0.4", "2001:db8::4"], id="through a command"
        ),
        pytest.param({"address": "public"}, [None, "198.51.100.4", "198.51.100.4", None], id="public"),
        pytest.param(
            {"address": "public", "ipv6": True}, [None, None, "2001:db8::4", "2001:db8::4"], id="public IPv6"
        ),
        pytest.param(
            {"address": "public", "proxy": BASTION},
            [None, "198.51.100.4", "198.51.100.4", None],
            id="public, through a command",
        ),
        pytest.param({"address": "private"}, ["10.0.0.4", "10.0.0.4", "10.0.0.4", None], id="private"),
    ],
)
def test_the_address_is_the_one_that_is_asked_for(reach: dict[str, Any], found: list[str | None]) -> None:
    one = Reach(**{"address": "auto", "subnet": "subnet-1", **reach})
    assert [one.address_of(facts) for facts in (FOUR, PUBLIC, BOTH, SIX)] == found


def test_the_command_is_filled_in_for_one_machine() -> None:
    words = ("x", "{instance}", "[{host}]:{port}", "{{host}}", "a{port}b{{")
    reach = Reach("auto", "subnet-1", proxy=words)
    assert reach.command("i-1", "10.0.0.4", 22) == ("x", "i-1", "[10.0.0.4]:22", "{host}", "a22b{")
    assert Reach("auto", "subnet-1").command("i-1", "10.0.0.4", 22) == ()


def answers(account: Account, program: Program | None = None, *, public: bool = True) -> AccountFacts:
    found = account.answers(account.profile())
    subnet = Subnet("vpc-1", usual.ZONE, 9, public=public)
    return replace(found, network=replace(found.network, subnet=subnet, program=program))


def planned(account: Account, facts: AccountFacts, **builder: Any) -> Plan:
    return make(account.profile(builder=builder), facts, REAL)


def test_a_public_address_that_the_subnet_does_not_give_is_a_problem(account: Account) -> None:
    with pytest.raises(UsageError) as caught:
        planned(account, answers(account, public=False), address="public")
    subnet = VARIABLES["BAKE_SUBNET_ID"]
    assert caught.value.message.splitlines() == [
        f"builder.address: public, and {subnet} gives its instances no public IPv4 address",
        f"    let it: aws ec2 modify-subnet-attribute --subnet-id {subnet} --map-public-ip-on-launch",
        "    or write private, and have a way into the subnet, such as builder.proxy_command",
    ]
    planned(account, answers(account, public=False), address="private")
    planned(account, answers(account, public=True), address="public")


def test_a_program_that_is_not_installed_is_a_problem(account: Account) -> None:
    with pytest.raises(UsageError, match="there is no program ssh on this machine"):
        planned(account, answers(account, Program("ssh", None)), proxy_command=BASTION)
    plan = planned(account, answers(account, Program("ssh", "/usr/bin/ssh")), proxy_command=BASTION)
    assert "builder.proxy_command is there: /usr/bin/ssh" in plan.checked


def test_the_plan_shows_the_way(account: Account) -> None:
    shown = as_text(planned(account, answers(account), address="private", proxy_command=BASTION))
    assert "reached at its private address" in shown
    assert "reached through ssh -W '{host}:{port}' ada@bastion" in shown
    assert "reached" not in as_text(planned(account, answers(account)))


def test_what_leads_to_aws_alone_is_left_out_of_a_rehearsal_and_named(account: Account) -> None:
    sources = replace(REAL, not_rehearsed=frozenset({"aws"}))
    facts = answers(account, Program("aws", None))  # nor must it be installed for that
    profile = account.profile(builder={"proxy_command": MANAGER})
    plan = make(profile, facts, sources)
    assert plan.launch.reach.proxy == ()
    assert [text for text in plan.warnings if text.startswith("builder.proxy_command is not rehearsed")]
    other = make(account.profile(builder={"proxy_command": BASTION}), facts_of_ssh(account), sources)
    assert other.launch.reach.proxy == BASTION


def facts_of_ssh(account: Account) -> AccountFacts:
    return answers(account, Program("ssh", "/usr/bin/ssh"))


def test_the_way_is_agreed_to_and_nothing_of_the_image(account: Account) -> None:
    plain = planned(account, answers(account))
    agreed = {fact.name: fact.value for fact in plain.facts}
    led = planned(account, facts_of_ssh(account), address="private", proxy_command=BASTION)
    differences = compare(led.guarded, Agreement(account.profile().name, agreed))  # type: ignore[arg-type]
    assert {one.name: one.now for one in differences if one.name != "worker.lock"} == {
        "address": "private",
        "proxy_command": "ssh -W '{host}:{port}' ada@bastion",
    }
    assert led.id == plain.id, "a run can be resumed by another way"


def test_an_agreement_from_before_goes_on_holding_while_nobody_says_how(account: Account) -> None:
    plain = planned(account, answers(account))
    before = {fact.name: fact.value for fact in plain.facts if fact.name not in ("address", "proxy_command")}
    agreement = Agreement(account.profile().name, before)  # type: ignore[arg-type]
    assert {one.name for one in compare(plain.guarded, agreement)} <= {"worker.lock"}
    led = planned(account, facts_of_ssh(account), proxy_command=BASTION)
    assert [(one.name, one.new) for one in compare(led.guarded, agreement) if one.name != "worker.lock"] == [
        ("proxy_command", True)
    ]
