"""`bake fleet` as a process, on the local cloud's API."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from bake.aws import Aws
from tests.bake.publish.channel_account import Bench
from tests.bake.publish.test_channel_commands import Shell, image
from tests.localcloud.api.conftest import Account
from tests.localcloud.recorded_cloud import BASE

from .fleets import HOME, SPOT

pytestmark = pytest.mark.integration
TEXT = """
root_volume: {size_gib: 8}
channels: {stable: {launch_template: '${BAKE_LAUNCH_TEMPLATE}'}}
fleet:
  subnets: ["${BAKE_SUBNET_ID}"]
  security_groups: ["${BAKE_SECURITY_GROUP_ID}"]
  max_size: 3
  messages_per_instance: 20
"""


@pytest.fixture
def shell(tmp_path: Path, served: Account, aws: Aws, witness: Aws) -> Shell:
    """A folder with an agreed profile that has a fleet."""
    found = Shell(tmp_path, served, Bench.new(aws, witness).with_template(BASE))
    found.environment |= {"BAKE_SUBNET_ID": served.subnet, "BAKE_SECURITY_GROUP_ID": served.group}
    found.write(TEXT)
    found.agree()
    return found


def fleet(shell: Shell, *words: str, **variables: str) -> tuple[int, str, str]:
    return shell.bake("fleet", "--profile", shell.name, "--channel", "stable", *words, **variables)


def promoted(shell: Shell) -> str:
    """An AMI that the channel serves."""
    made = image(shell)
    code, _, said = shell.bake(
        "promote", made, "--profile", shell.name, "--to", "stable", "--because", "a test"
    )
    assert code == 0, said
    return made


def test_the_template_launches_what_the_channel_serves(shell: Shell) -> None:
    for _ in range(2):
        served = promoted(shell)
        code, shown, said = fleet(shell, "--part", "workers")
        assert code == 0, said
        data = yaml.safe_load(shown)["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
        assert data["ImageId"] == served
        assert data["SecurityGroupIds"] == [shell.environment["BAKE_SECURITY_GROUP_ID"]]
    name = f"flux-{shell.name}-stable-workers"
    assert f"aws cloudformation deploy --region {SPOT} --stack-name {name} " in said
    assert f"--launch-template-id {shell.bench.channel.template} --default-version" in said


def test_json_is_the_same_template_and_out_a_file(shell: Shell) -> None:
    promoted(shell)
    _, plain, _ = fleet(shell, "--part", "jobs")
    code, shown, said = fleet(shell, "--part", "jobs", "--json", "--out", "jobs.json")
    assert (code, shown) == (0, ""), said
    assert json.loads((shell.folder / "jobs.json").read_text()) == yaml.safe_load(plain)
    assert "--template-file jobs.json" in said
    code, _, said = fleet(shell, "--part", "jobs", "--out", "nowhere/jobs.yaml")
    assert (code, "nowhere/jobs.yaml cannot be written" in said) == (2, True)


def test_two_regions_are_two_stacks(shell: Shell) -> None:
    promoted(shell)
    code, shown, said = fleet(shell)
    assert (code, shown) == (2, "")
    assert f"queue, bucket and bus are in {HOME}, the instances in {SPOT}" in said
    assert "--part jobs" in said
    shell.environment["AWS_REGION"] = SPOT
    shell.agree()
    code, shown, said = fleet(shell)
    assert code == 0, said
    assert {"Jobs", "Workers"} <= set(yaml.safe_load(shown)["Resources"])


@pytest.mark.parametrize(
    ("changed", "fact"),
    [
        ("max_size: 3", "fleet.max_size"),
        ("messages_per_instance: 20", "fleet.messages_per_instance"),
        ("size_gib: 8", "root_volume.size_gib"),
    ],
)
def test_what_is_not_agreed_is_not_written(shell: Shell, changed: str, fact: str) -> None:
    promoted(shell)
    key, value = changed.split(": ")
    shell.write(TEXT.replace(changed, f"{key}: {int(value) + 1}"))
    code, shown, said = fleet(shell, "--part", "workers")
    assert (code, shown) == (3, ""), said
    assert fact in said
    assert f"{value} " in said


def test_a_subnet_that_comes_from_elsewhere_is_not_agreed_to(shell: Shell) -> None:
    promoted(shell)
    code, shown, said = fleet(shell, "--part", "workers", BAKE_SUBNET_ID="subnet-0fedcba9876543210")
    assert (code, shown) == (3, "")
    assert "fleet.subnets" in said
    code, _, said = fleet(shell, "--part", "workers", BAKE_SUBNET_ID="")
    assert (code, "BAKE_SUBNET_ID is not set" in said) == (2, True)


def test_the_stacks_own_queue_needs_no_other_agreement_when_callers_name_it(shell: Shell) -> None:
    promoted(shell)
    _, before, _ = fleet(shell, "--part", "jobs", "--account", "123456789012")
    name = f"flux-{shell.name}-stable"
    own = {"FLUX_QUEUE_URL": f"https://sqs.{HOME}.amazonaws.com/123456789012/{name}", "FLUX_EVENT_BUS": name}
    code, after, said = fleet(shell, "--part", "jobs", "--account", "123456789012", **own)
    assert (code, after) == (0, before), said
    theirs = own["FLUX_QUEUE_URL"].replace(name, "theirs")
    code, shown, said = fleet(shell, "--part", "jobs", FLUX_QUEUE_URL=theirs)
    assert (code, shown) == (3, "")
    assert "fleet.uses" in said


def test_a_channel_that_serves_nothing_fit_is_told(shell: Shell) -> None:
    code, _, said = fleet(shell, "--part", "workers")
    assert (code, "serves no AMI" in said, "bake promote" in said) == (2, True, True)
    served = promoted(shell)
    shell.bake("revoke", served, "--because", "black pictures", "--force")
    code, _, said = fleet(shell, "--part", "workers")
    assert (code, "it is revoked: black pictures" in said, "bake rollback" in said) == (2, True, True)


def test_a_profile_without_a_fleet_or_without_the_channel_is_told(shell: Shell) -> None:
    code, _, said = shell.bake("fleet", "--profile", shell.name, "--channel", "never", "--part", "jobs")
    assert (code, "has no channel 'never'" in said) == (2, True)
    shell.write(TEXT.partition("fleet:")[0])
    code, _, said = fleet(shell, "--part", "workers")
    assert (code, "has no fleet" in said) == (2, True)
