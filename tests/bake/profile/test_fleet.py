"""The profile's fleet: nothing of it is taken for granted, and all of it is agreed to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bake import profile
from bake.agreement.facts import OF_FLEET, Agreement, Guarded, compare
from bake.errors import UsageError
from bake.planning.guarded import stated_facts
from bake.profile import Profile
from tests.bake.variables import VARIABLES

ROOT = Path(__file__).parents[3]
TOPIC = "arn:aws:sns:{}:123456789012:alarms"
WHOLE = """
channels: {stable: {}}
fleet:
  subnets: ["${BAKE_SUBNET_ID}"]
  security_groups: ["${BAKE_SECURITY_GROUP_ID}"]
  max_size: 3
  messages_per_instance: 20
"""


def loaded(folder: Path, text: str, **variables: str) -> Profile:
    for file in (ROOT / "profiles").glob("*.yaml"):
        (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "x.yaml").write_text(f"extends: g6e-ubuntu\n{text}", encoding="utf-8")
    return profile.load("x", folder, {**VARIABLES, **variables})


def facts(found: Profile) -> dict[str, Any]:
    return {one.name: one.value for one in stated_facts(found) if one.name in OF_FLEET}


def test_a_profile_has_no_fleet_unless_it_says_so(tmp_path: Path) -> None:
    found = loaded(tmp_path, "")
    assert not found.fleet.used
    assert facts(found) == {}


def test_all_of_a_fleet_is_agreed_to(tmp_path: Path) -> None:
    found = loaded(tmp_path, WHOLE)
    assert facts(found) == {
        "fleet.instance_types": ["g6e.xlarge"],
        "fleet.subnets": ["subnet-0123456789abcdef0"],
        "fleet.security_groups": ["sg-0123456789abcdef0"],
        "fleet.max_size": 3,
        "fleet.messages_per_instance": 20,
        "fleet.idle_minutes": 15,
        "fleet.keep_days": None,
        "fleet.alarm_topics": [],
        "fleet.jobs_region": "eu-west-1",
        "fleet.uses": [],
    }
    assert set(facts(found)) == set(OF_FLEET)


def test_an_older_agreement_holds_until_a_fleet_is_used(tmp_path: Path) -> None:
    without = stated_facts(loaded(tmp_path, "channels: {stable: {}}"))
    agreement = Agreement(tmp_path, {one.name: one.value for one in without})
    assert compare(Guarded(without, {}), agreement) == []
    found = compare(Guarded(stated_facts(loaded(tmp_path, WHOLE)), {}), agreement)
    assert [one.name for one in found] == list(OF_FLEET)
    assert all(one.new for one in found)


@pytest.mark.parametrize(
    ("variables", "used"),
    [
        ({"FLUX_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/theirs"}, 1),
        ({"FLUX_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/flux-x-stable"}, 0),
        ({"FLUX_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/flux-x-stable-too"}, 1),
        ({"FLUX_BUCKET": "flux-x-stable-123456789012-eu-west-1"}, 0),
        ({"FLUX_BUCKET": "flux-x-stable-123456789012-eu-west-2", "FLUX_EVENT_BUS": "theirs"}, 2),
        ({"FLUX_EVENT_BUS": "flux-x-stable"}, 0),
    ],
)
def test_what_is_used_of_the_users_own_is_agreed_to(
    tmp_path: Path, variables: dict[str, str], used: int
) -> None:
    found = facts(loaded(tmp_path, WHOLE, **variables))["fleet.uses"]
    assert len(found) == used
    assert {one.split()[1] for one in found} <= set(variables.values())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fleet: {max_size: 3}", "fleet: needs subnets, security_groups, messages_per_instance"),
        (WHOLE.replace("max_size: 3", "max_size: 0"), "fleet.max_size: must be at least 1"),
        (
            "cold_start: {volume_initialization_rate: 301}",
            "cold_start.volume_initialization_rate: must be at most 300",
        ),
        (
            "cold_start: {volume_initialization_rate: 99}",
            "cold_start.volume_initialization_rate: must be at least 100",
        ),
        (
            WHOLE + "  instance_types: [g6e.2xlarge]\n",
            "has g6e.2xlarge, and the image is for g6e.xlarge alone",
        ),
        (
            WHOLE + "  instance_types: [g6e.xlarge, g6e.xlarge]\n",
            "fleet: instance_types names something twice",
        ),
        (WHOLE + '  alarm_topics: ["${TOPIC}", "${TOPIC}"]\n', "alarm_topics has two topics of one region"),
        (WHOLE + '  alarm_topics: ["${FAR}"]\n', "and alarms are in eu-north-1 and eu-west-1"),
        (
            WHOLE.replace("${BAKE_SUBNET_ID}", "subnet-0123456789abcdef0"),
            "fleet.subnets.0: a subnet id must come from",
        ),
        (WHOLE.replace("${BAKE_SECURITY_GROUP_ID}", "${GROUP}"), "does not look like a security group id"),
        (WHOLE + "  max_siz: 3\n", "fleet.max_siz: unknown key"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_asked(tmp_path: Path, text: str, says: str) -> None:
    more = {"TOPIC": TOPIC.format("eu-west-1"), "FAR": TOPIC.format("us-east-1"), "GROUP": "temporary"}
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, text, **more)
    assert says in caught.value.message


def test_the_image_may_be_for_more_types_than_the_builders(tmp_path: Path) -> None:
    text = f"worker: {{instance_types: [g6e.xlarge, g6e.2xlarge]}}{WHOLE}"
    assert facts(loaded(tmp_path, text))["fleet.instance_types"] == ["g6e.xlarge", "g6e.2xlarge"]
    text += "  instance_types: [g6e.2xlarge]\n"
    assert facts(loaded(tmp_path, text))["fleet.instance_types"] == ["g6e.2xlarge"]
