"""Agreements: comparing facts, showing differences, and the disks of the finished AMI."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from bake.agreement import approve, render
from bake.agreement.facts import (
    GUARDED,
    OF_FLEET,
    PINNED,
    Agreement,
    Fact,
    FactValue,
    Guarded,
    check_image,
    compare,
)
from bake.errors import NotAgreed
from bake.request import BakeRequest

FACTS: dict[str, FactValue] = {
    "region": "eu-north-1",
    "instance_types": ["g6e.xlarge"],
    "worker_instance_types": None,
    "market": "spot",
    "os": "ubuntu",
    "base_ami": "ami-0123456789abcdef0",
    "base_follow": None,
    "root_volume.size_gib": 80,
    "root_volume.type": "gp3",
    "root_volume.iops": None,
    "root_volume.throughput": None,
    "root_volume.kms_key": None,
    "vpc": "vpc-0123456789abcdef0",
    "subnet": "subnet-0123456789abcdef0",
    "security_group": "sg-0123456789abcdef0",
    "sharing": [],
    "base.remove": [],
    "reaper_role": None,
    "address": "auto",
    "proxy_command": None,
    "publish.regions": [],
    "publish.kms_keys": [],
    "publish.parameter": None,
    "publish.launch_template": None,
    "publish.watermark": None,
    "channels": [],
    "base_updates": "none",
    "weights.stream": None,
    "volume_initialization_rate": None,
    "worker.compile_sizes": [],
    "worker.remove_unused_libraries": "no",
}
PINS: dict[str, FactValue] = {"worker.lock": f"sha256:{'b' * 64}"}


def guarded(**changes: Any) -> Guarded:
    """Everything, with some values changed: `root_volume_size_gib=120`."""
    for known in (*FACTS, *PINS):
        if known.replace(".", "_") in changes:
            changes[known] = changes.pop(known.replace(".", "_"))
    assert changes.keys() <= {*FACTS, *PINS}
    facts = tuple(Fact(name, changes.get(name, value), f"profiles/x.yaml:{line}") for line, (name, value) in
                  enumerate(FACTS.items(), 1))  # fmt: skip
    return Guarded(facts, {name: (changes.get(name, value), "the Hub") for name, value in PINS.items()})


@pytest.fixture
def bake_request(tmp_path: Path) -> BakeRequest:
    return BakeRequest("x", tmp_path, tmp_path / ".env.local")


def agreed(file: Path, now: Guarded | None = None) -> Agreement:
    """An agreement to all of it."""
    differences = compare(now or guarded(), None)
    return approve.agree(None, file, differences, "first agreement", "Ada <ada@example.org>")


def test_the_names_are_the_ones_that_are_documented() -> None:
    assert [*FACTS, *OF_FLEET] == list(GUARDED)
    assert sorted(PINS) == sorted(PINNED)


def test_agreed_facts_show_no_difference(bake_request: BakeRequest) -> None:
    assert compare(guarded(), agreed(bake_request.lock)) == []


def test_without_an_agreement_everything_is_new() -> None:
    differences = compare(guarded(), None)
    assert [one.name for one in differences] == [*FACTS, *PINNED]
    assert all(one.new for one in differences)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("region", "eu-west-1"),
        ("instance_types", ["g6e.xlarge", "g6e.2xlarge"]),
        ("worker_instance_types", ["g6e.xlarge"]),
        ("market", "on-demand"),
        ("os", "amazon-linux"),
        ("base_ami", "ami-00000000"),
        ("root_volume.size_gib", 120),
        ("root_volume.type", "io2"),
        ("root_volume.iops", 6000),
        ("root_volume.throughput", 500),
        ("root_volume.kms_key", "alias/flux"),
        ("vpc", "vpc-00000000"),
        ("subnet", "subnet-00000000"),
        ("security_group", "temporary"),
        ("sharing", ["210987654321"]),
        ("base.remove", ["cuda-12.6"]),
        ("base_updates", "security"),
        ("weights.stream", "s3://theirs/flux"),
        ("volume_initialization_rate", 300),
        ("worker.compile_sizes", ["1024x1024"]),
        ("worker.remove_unused_libraries", "yes"),
        ("reaper_role", "arn:aws:iam::123456789012:role/bake-reaper"),
        ("address", "private"),
        ("proxy_command", "ssh -W '{host}:{port}' ada@bastion"),
        ("base_follow", "newest of ssm:/bases/ubuntu"),
        ("channels", ["stable: parameter /flux/stable, no template"]),
        ("worker.lock", f"sha256:{'c' * 64}"),
    ],
)
def test_each_fact_is_guarded(bake_request: BakeRequest, name: str, value: FactValue) -> None:
    (one,) = compare(guarded(**{name: value}), agreed(bake_request.lock))
    assert (one.name, one.agreed, one.now, one.new) == (name, {**FACTS, **PINS}[name], value, False)


def test_alternatives_are_agreed_in_their_order_and_accounts_in_any(bake_request: BakeRequest) -> None:
    two = guarded(instance_types=["g6e.xlarge", "g6e.2xlarge"], sharing=["111111111111", "222222222222"])
    agreement = agreed(bake_request.lock, two)
    swapped = guarded(instance_types=["g6e.2xlarge", "g6e.xlarge"], sharing=["222222222222", "111111111111"])
    assert [one.name for one in compare(swapped, agreement)] == ["instance_types"]


# --- tables -----------------------------------------------------------------------------------------


def test_the_refusal_shows_the_difference_and_the_command(bake_request: BakeRequest) -> None:
    now = guarded(root_volume_size_gib=120, sharing=["210987654321"])
    differences = compare(now, agreed(bake_request.lock))
    assert render.refusal(bake_request, now, differences, new=False) == (
        f"profile x is not what was agreed in {bake_request.lock}\n"
        "\n"
        "  fact                  agreed  now           where it comes from\n"
        "  root_volume.size_gib  80      120           profiles/x.yaml:8\n"
        "  sharing               nobody  210987654321  profiles/x.yaml:16"
    )
    usual = dataclasses.replace(bake_request, directory=Path("profiles"), env_file=Path(".env.local"))
    assert render.how_to_agree(usual, differences) == (
        "if that is what you want:\n"
        '  bake approve --profile x --because "…"\n'
        "without a terminal:\n"
        '  bake approve --profile x --because "…" \\\n'
        "    --fact root_volume.size_gib=120 \\\n"
        "    --fact sharing=210987654321"
    )


def test_the_command_can_be_copied_as_it_is() -> None:
    bake_request = BakeRequest("x", Path("my profiles"), Path("prod.env"), rehearsal=True)
    assert render.command(bake_request) == (
        "bake --profiles 'my profiles' --env-file prod.env approve --profile x --rehearse --because \"…\""
    )
    group = Fact("security_group", "temporary, port 22 from 192.0.2.1/32", "x")
    (one,) = compare(Guarded((group,), {}), None)
    assert render.named(one) == "'security_group=temporary, port 22 from 192.0.2.1/32'"


def test_without_an_agreement_the_refusal_shows_every_fact(bake_request: BakeRequest) -> None:
    text = render.refusal(bake_request, guarded(), compare(guarded(), None), new=True)
    assert text.startswith(
        f"profile x has no agreement yet; `bake approve` records it in {bake_request.lock}\n"
    )
    for name in (*FACTS, *PINNED):
        assert f"  {name} " in text
    assert re.search(r"^  root_volume\.iops +not set", text, re.M)


def test_a_plan_shows_every_fact_with_its_state(bake_request: BakeRequest) -> None:
    agreement = agreed(bake_request.lock)
    known = {name: value for name, value in agreement.agreed.items() if name != "vpc"}
    now = guarded(region="eu-west-1")
    lines = render.state_table(now, compare(now, Agreement(bake_request.lock, known))).splitlines()
    state = {line.split()[1]: line for line in lines}
    assert state["region"].split()[:4] == ["✗", "region", "eu-north-1", "eu-west-1"]
    assert state["vpc"].split()[:4] == ["?", "vpc", "not", "yet"]
    assert state["os"].split()[:4] == ["✓", "os", "agreed", "ubuntu"]


# --- the finished AMI -------------------------------------------------------------------------------


def disk(device: str = "/dev/sda1", **changes: Any) -> dict[str, Any]:
    ebs = {"VolumeSize": 80, "VolumeType": "gp3", "Iops": 3000, "Throughput": 125, "Encrypted": False}
    return {"DeviceName": device, "Ebs": {**ebs, **changes}}


@pytest.mark.parametrize(
    ("changes", "mappings"),
    [
        pytest.param({}, [disk()], id="as agreed"),
        pytest.param(
            {}, [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 80, "VolumeType": "gp3"}}], id="bare"
        ),
        pytest.param({}, [disk(Encrypted=True)], id="the account encrypts by default"),
        pytest.param({}, [disk(), {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"}], id="ephemeral"),
        pytest.param({"root_volume_iops": 6000}, [disk(Iops=6000)], id="iops"),
        pytest.param({"root_volume_kms_key": "alias/flux"}, [disk(Encrypted=True)], id="encrypted"),
        pytest.param(
            {"root_volume_type": "gp2"}, [disk(VolumeType="gp2", Iops=240)], id="gp2 has its own iops"
        ),
    ],
)
def test_an_ami_as_agreed_passes(changes: dict[str, Any], mappings: list[dict[str, Any]]) -> None:
    check_image(guarded(**changes).facts, mappings, "/dev/sda1")
    check_image(guarded(**changes).facts, mappings)


@pytest.mark.parametrize(
    ("changes", "mappings", "expected"),
    [
        ({}, [disk(VolumeSize=120)], "root_volume.size_gib  80      120"),
        ({}, [disk(VolumeType="gp2")], "root_volume.type  gp3     gp2"),
        ({}, [disk(Iops=4000)], "root_volume.iops  3000    4000"),
        ({"root_volume_throughput": 500}, [disk()], "root_volume.throughput  500     125"),
        ({"root_volume_kms_key": "alias/flux"}, [disk()], "encrypted  not encrypted"),
        ({}, [disk(), disk("/dev/sdf")], "another volume  none    80 GiB  the AMI's /dev/sdf"),
        ({}, [], "root_volume.size_gib  80      not set  the AMI's /dev/sda1"),
        ({}, [disk("/dev/xvda")], "root_volume.size_gib  80      not set"),
    ],
    ids=["size", "type", "iops", "throughput", "encryption", "second volume", "no volume", "another root"],
)
def test_an_ami_with_another_disk_is_refused(
    changes: dict[str, Any], mappings: list[dict[str, Any]], expected: str
) -> None:
    with pytest.raises(NotAgreed) as caught:
        check_image(guarded(**changes).facts, mappings, "/dev/sda1")
    assert expected in caught.value.message
