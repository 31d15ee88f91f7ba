"""`bake rollout` as a process, on the local cloud's API."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bake.agreement import lockfile
from tests.bake.publish.test_channel_commands import Shell
from tests.localcloud.ebs_account import EbsAccount

from .fleet import Fleet

pytestmark = pytest.mark.integration
REASON = "Could not launch Spot Instances. UnfulfillableCapacity"


class Deck(Shell):
    """A folder with the fleet's profile, agreed, and the environment of whoever rolls out."""

    def __init__(self, folder: Path, fleet: Fleet) -> None:
        key = fleet.account.keys.owner
        served: Any = SimpleNamespace(url=fleet.account.url, key=key.id, secret=key.secret)
        bench: Any = SimpleNamespace(channel=fleet.channel, witness=fleet.aws)
        super().__init__(folder, served, bench)
        self.fleet = fleet

    def roll(self, *words: str) -> tuple[int, str, str]:
        """`bake rollout` of the channel to the group."""
        return self.bake("rollout", "--channel", "stable", "--asg", self.fleet.name, *words)

    def of_group(self, *words: str) -> tuple[int, str, str]:
        """`bake rollout` of what goes on in the group."""
        return self.bake("rollout", "--profile", self.name, "--asg", self.fleet.name, *words)

    def commands(self) -> str:
        base = f"bake rollout --profile {self.name} --asg {self.fleet.name}"
        return (
            f"  follow it:    {base} --status --wait\n"
            f"  cancel it:    {base} --cancel       (what it replaced stays)\n"
            f"  roll it back: {base} --roll-back\n"
        )


@pytest.fixture
def deck(tmp_path: Path, account: EbsAccount) -> Deck:
    fleet = Fleet(account, venue="AWS")
    return Deck(tmp_path, fleet.group())


def test_a_rollout_that_succeeds_and_then_has_nothing_to_do(deck: Deck) -> None:
    fleet, image = deck.fleet, deck.fleet.served()
    code, shown, said = deck.roll("--wait")
    assert code == 0, said
    [refresh] = fleet.refreshes()
    assert shown == f"{fleet.name}: the refresh {refresh['InstanceRefreshId']} is Successful, 100 %\n"
    assert said.splitlines()[:4] == [
        f"{fleet.name} launches version 1 with {fleet.first} of {fleet.template} now",
        f"and is to launch version 2 with {image}",
        "instances: 0, to be replaced: 0 (Rolling, 100 % healthy at least, 110 % at most)",
        "if it fails, AWS rolls it back",
    ]
    assert f"{fleet.name}: Successful, 100 %" in said
    assert deck.roll() == (0, f"{fleet.name} launches version 2 with {image} already: nothing to do\n", "")
    assert len(fleet.refreshes()) == 1


def test_without_waiting_it_says_how_to_follow_and_to_end_it(deck: Deck) -> None:
    deck.fleet.served()
    code, shown, _ = deck.roll("--bake-time", "3600")
    identity = deck.fleet.refreshes()[0]["InstanceRefreshId"]
    assert code == 0
    assert shown.startswith(
        f"{deck.fleet.name}: the refresh {identity} is Pending, 0 %, 0 instances left since "
    )
    assert shown.endswith(deck.commands())
    code, shown, said = deck.roll()
    assert (code, shown) == (5, "")
    assert f"error: a refresh of {deck.fleet.name} goes on, {identity}: " in said
    for line in deck.commands().splitlines():
        assert line.strip() in said


def test_what_would_be_sent(deck: Deck) -> None:
    image = deck.fleet.served()
    code, shown, said = deck.roll("--dry-run", "--checkpoint", "10", "--warmup", "300")
    assert (code, said) == (0, "")
    assert "StartInstanceRefresh would be sent:\n{" in shown
    assert f"and is to launch version 2 with {image}" in shown
    told = deck.json("rollout", "--channel", "stable", "--asg", deck.fleet.name, "--dry-run", "--no-rollback")
    assert (told["refresh"], told["is_there"], told["version"]) == (None, False, 2)
    assert told["request"]["Preferences"]["AutoRollback"] is False
    assert deck.fleet.refreshes() == []


def test_a_refresh_that_fails_is_an_error_with_its_reason(deck: Deck) -> None:
    fleet = deck.fleet
    fleet.served()

    def fail() -> None:
        fleet.until(lambda: fleet.status() != "none")
        fleet.tell("Failed", PercentageComplete=50, InstancesToUpdate=2, StatusReason=REASON)

    with running(fail):
        code, shown, said = deck.roll("--wait", "--bake-time", "3600", "--json")
    assert code == 5
    identity = fleet.refreshes()[0]["InstanceRefreshId"]
    assert f"error: the refresh {identity} of {fleet.name} ended as Failed, at 50 %: {REASON}" in said
    assert "describe-scaling-activities" in said
    assert '"status": "Failed"' in shown
    assert f'"reason": "{REASON}"' in shown


class running:
    """Do something on a thread meanwhile."""

    def __init__(self, act: Any) -> None:
        self._thread = threading.Thread(target=act, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join(60)


def test_status_cancel_and_roll_back(deck: Deck) -> None:
    fleet = deck.fleet
    assert deck.of_group("--status") == (0, f"{fleet.name} has had no refresh in six weeks\n", "")
    code, _, said = deck.of_group("--cancel")
    assert (code, f"no refresh of {fleet.name} goes on" in said) == (5, True)
    fleet.served()
    for option, end in (("--cancel", "Cancelled"), ("--roll-back", "RollbackSuccessful")):
        assert deck.roll("--bake-time", "3600")[0] == 0
        assert deck.of_group("--status")[1].endswith(deck.commands())
        code, shown, said = deck.of_group(option, "--wait")
        assert (code, f" is {end}" in shown) == (0, True), said
    told = deck.json("rollout", "--profile", deck.name, "--asg", fleet.name, "--status")
    assert (told["refresh"]["status"], told["refresh"]["percentage"]) == ("RollbackSuccessful", 0)
    code, _, said = deck.of_group("--status", "--wait")
    assert (code, "ended as RollbackSuccessful" in said) == (5, True)


def test_an_interrupt_leaves_the_refresh_and_says_how_to_go_on(deck: Deck) -> None:
    fleet = deck.fleet
    fleet.served()
    words = ("rollout", "--channel", "stable", "--asg", fleet.name, "--wait", "--bake-time", "3600")
    with subprocess.Popen(
        [sys.executable, "-m", "bake.cli", *words],
        cwd=deck.folder,
        env=deck.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        said = list(until_baking(process))
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, (said, rest)
    [refresh] = fleet.refreshes()
    assert f"interrupted\nthe refresh {refresh['InstanceRefreshId']} of {fleet.name} goes on" in rest
    assert deck.commands() in rest
    assert refresh["Status"] == "Baking"


def until_baking(process: Any) -> Iterator[str]:
    """What it says until the refresh is in its last state."""
    for line in process.stderr:
        yield line
        if ": Baking" in line:
            return


def test_what_is_not_agreed_is_not_rolled_out(deck: Deck) -> None:
    deck.fleet.served()
    lockfile.path_of(deck.name, deck.profiles, rehearsal=False).unlink()
    code, _, said = deck.roll()
    assert (code, "has no agreement yet" in said) == (3, True)
    assert deck.fleet.refreshes() == []
    assert deck.of_group("--status")[0] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--asg", "x"), "--channel NAME is missing"),
        (("--asg", "x", "--status"), "--profile NAME is missing"),
        (("--asg", "x", "--status", "--cancel", "--profile", "y"), "give one of them"),
        (("--asg", "x", "--status", "--dry-run", "--profile", "y"), "give one of them"),
        (("--asg", "x", "--channel", "stable", "--dry-run", "--wait"), "--dry-run starts nothing"),
        (("--asg", "x", "--channel", "beta"), "no profile here has a channel 'beta'"),
        (("--asg", "x", "--channel", "stable", "--min-healthy", "101"), "101 is not in the range"),
        (("--asg", "x", "--channel", "stable", "--checkpoint-delay", "9"), "is for checkpoints"),
        (("--asg", "x", "--channel", "stable"), "there is no Auto Scaling group x in eu-north-1"),
        (("--channel", "stable"), "Missing option '--asg'"),
    ],
)
def test_what_is_asked_wrongly_is_told(deck: Deck, words: tuple[str, ...], says: str) -> None:
    code, shown, said = deck.bake("rollout", *words)
    assert (code, shown) == (2, ""), said
    assert says in said
