"""A rehearsal's calls are made by roles that may do what `bake iam` prints."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bake import iam, localcloud, profile, rehearsal
from bake.aws import AccessKey
from tests.bake.variables import VARIABLES

PROFILES = Path(__file__).parents[2] / "profiles"
ADMINISTRATOR, SESSION = AccessKey("AKIA", "secret"), AccessKey("ASIA", "secret", "token")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[dict[str, Any]]]]:
    """The roles that are taken, with their policies."""
    found: list[tuple[str, list[dict[str, Any]]]] = []

    def take(ask: Any, name: str, policies: list[dict[str, Any]]) -> AccessKey:
        found.append((name, policies))
        return SESSION

    monkeypatch.setattr(localcloud, "take_role", take, raising=False)
    return found


def cloud(*, lenient: bool = False) -> Any:
    """A local cloud of which nobody tells the worker's role."""
    place = "http://127.0.0.1:9"
    return SimpleNamespace(endpoint=place, keys=ADMINISTRATOR, account="123456789012", lenient=lenient)


def test_whoever_bakes_may_do_what_is_printed_for_the_profile(taken: Any) -> None:
    found = profile.load("g6e-ubuntu", PROFILES, VARIABLES)
    told = rehearsal.as_baker(cloud(), found)
    assert told == {"endpoint": "http://127.0.0.1:9", "endpoint_key": SESSION}
    attesting = found.model_copy(update={"attest": True})  # as rehearsals do
    subject = iam.Subject.of(attesting, "123456789012", role="arn:aws:iam::123456789012:role/flux-worker")
    assert taken == [("bake-g6e-ubuntu", [iam.document(iam.statements("caller", subject))])]


def test_whoever_rolls_out_may_do_what_is_printed_for_the_profile(taken: Any) -> None:
    found = profile.load("g6e-ubuntu", PROFILES, VARIABLES)
    assert rehearsal.as_roller(cloud(), found)["endpoint_key"] is SESSION
    [(name, [policy])] = taken
    subject = iam.Subject.of(found, "123456789012", role="arn:aws:iam::123456789012:role/flux-worker")
    assert (name, policy) == ("bake-rollout-g6e-ubuntu", iam.document(iam.statements("rollout", subject)))
    assert rehearsal.as_roller(None, found) == {}


def test_whoever_sweeps_may_sweep_in_these_regions(taken: Any) -> None:
    assert rehearsal.as_sweeper(cloud(), "eu-north-1", "eu-west-1")["endpoint_key"] is SESSION
    account = iam.Account("123456789012", "eu-north-1", "eu-west-1")
    assert taken == [("bake-sweep", [iam.document(iam.of_sweep(account))])]


def test_a_lenient_clouds_caller_is_its_administrator(taken: Any) -> None:
    told = rehearsal.as_sweeper(cloud(lenient=True), "eu-north-1", "eu-west-1")
    assert (told["endpoint_key"], taken) == (ADMINISTRATOR, [])


def test_on_aws_it_is_whoever_calls(taken: Any) -> None:
    found = profile.load("g6e-ubuntu", PROFILES, VARIABLES)
    assert rehearsal.as_baker(None, found) == rehearsal.as_sweeper(None, "eu-north-1", "eu-west-1") == {}
    assert taken == []


def test_a_long_name_is_cut_to_what_iam_takes(taken: Any) -> None:
    found = profile.load("g6e-ubuntu", PROFILES, VARIABLES).model_copy(update={"name": "x" * 80})
    rehearsal.as_baker(cloud(), found)
    assert len(taken[0][0]) == 64
