"""A rehearsal calls under the policy of `bake iam`, and needs nothing that the ledger of needs lacks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bake import localcloud
from bake.localcloud import Settings

from .bakes import Outcome
from .needs import LEDGER, OPTIONAL

pytestmark = pytest.mark.root
BAKER = "arn:aws:sts::123456789012:assumed-role/bake-g6e-ubuntu/bake"


@pytest.fixture
def needs(baked: Outcome) -> list[dict[str, Any]]:
    """What all rehearsals needed so far: of these tests' cloud at least one whole bake."""
    assert baked.code == 0
    return localcloud.needs(localcloud.over_socket(Settings.load()))


def test_whoever_bakes_is_a_role_with_just_these_rights(baked: Outcome, needs: Any) -> None:
    assert baked.kept("facts/identity.json")["operator"] == BAKER
    mine = [one for one in needs if one["principal"] == BAKER]
    assert {one["action"] for one in mine} >= {"ec2:RunInstances", "iam:PassRole", "ec2:TerminateInstances"}
    assert [one for one in mine if not one["allowed"]] == []


def test_no_rehearsal_needs_what_was_not_recorded(needs: Any) -> None:
    known = {json.loads(line)["action"] for line in LEDGER.read_text(encoding="utf-8").splitlines()}
    ours = {
        one["action"] for one in needs if one["principal"] == BAKER or "/flux-rehearsal/" in one["principal"]
    }
    assert sorted(ours - known - OPTIONAL) == []
