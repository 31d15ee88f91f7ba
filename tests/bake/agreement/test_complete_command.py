"""The command that is shown for use without a terminal agrees to all that is shown, as a shell reads it."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from bake.agreement import approve, render
from bake.agreement.approve import Approval
from bake.agreement.facts import Agreement, Fact, FactValue, Guarded, compare
from bake.errors import NotAgreed, UsageError
from bake.request import BakeRequest

REQUEST = BakeRequest("x", Path("profiles"), Path(".env.local"))
VALUES: dict[str, FactValue] = {
    "region": "eu-north-1",
    "instance_types": ["g6e.xlarge", "g6e.2xlarge"],
    "worker_instance_types": None,
    "root_volume.size_gib": 80,
    "root_volume.kms_key": "alias/it's $HOME",
    "security_group": "temporary, port 22 from 192.0.2.1/32",
    "sharing": [],
}


def guarded(**changes: FactValue) -> Guarded:
    facts = {**VALUES, **changes}
    pins: dict[str, tuple[FactValue, str]] = {"worker.lock": (f"sha256:{'b' * 64}", "the lock")}
    return Guarded(tuple(Fact(name, value, "x") for name, value in facts.items()), pins)


def words(command: str) -> list[str]:
    """What a shell makes of it."""
    script = f'bake() {{ for word; do printf "%s\\0" "$word"; done; }}\n{command}'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def facts_of(command: str) -> list[str]:
    found = words(command)
    return [value for option, value in pairwise(found) if option == "--fact"]


def agreed_by(command: str, now: Guarded) -> list[str]:
    approval = Approval.of(facts_of(command), "because")
    return [one.name for one in approve.choose(REQUEST, approval, now, compare(now, None), None)]


def test_it_names_every_fact_with_its_value() -> None:
    command = render.complete_command(REQUEST, compare(guarded(), None))
    assert words(command)[:5] == ["approve", "--profile", "x", "--because", "…"]
    assert facts_of(command) == [
        *(f"{name}={render.spelled(value)}" for name, value in VALUES.items()),
        f"worker.lock=sha256:{'b' * 64}",
    ]
    assert agreed_by(command, guarded()) == [*VALUES, "worker.lock"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        pytest.param("worker_instance_types", ["g6.xlarge"], "it is g6.xlarge now", id="set meanwhile"),
        pytest.param("sharing", ["210987654321"], "it is 210987654321 now", id="shared meanwhile"),
        pytest.param("root_volume.kms_key", None, "it is not set now", id="no longer set"),
        pytest.param("root_volume.size_gib", 800, "it is 800 now", id="another number"),
    ],
)
def test_it_agrees_to_nothing_that_moved_meanwhile(name: str, value: FactValue, said: str) -> None:
    command = render.complete_command(REQUEST, compare(guarded(), None))
    with pytest.raises(NotAgreed, match=said):
        agreed_by(command, guarded(**{name: value}))


def test_it_names_only_what_is_not_agreed() -> None:
    agreement = Agreement(
        REQUEST.lock, {**VALUES, "region": "eu-west-1", "worker.lock": f"sha256:{'b' * 64}"}
    )
    command = render.complete_command(REQUEST, compare(guarded(), agreement))
    assert facts_of(command) == ["region=eu-north-1"]


def test_the_reason_stays_the_users_own() -> None:
    with pytest.raises(UsageError, match="--because is empty"):
        Approval.of(["region"], words(render.complete_command(REQUEST, compare(guarded(), None)))[4])
    given = render.complete_command(REQUEST, compare(guarded(), None), "it's needed")
    assert words(given)[4] == "it's needed"
