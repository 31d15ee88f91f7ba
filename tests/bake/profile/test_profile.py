"""Loading a profile reports all problems at once, each with its place and a fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from bake import profile
from bake.errors import UsageError
from bake.systems import SYSTEMS

PROFILES = Path(__file__).parents[3] / "profiles"
VARIABLES = {
    "AWS_REGION": "eu-west-1",
    "SPOT_AWS_REGION": "eu-north-1",
    "BASE_AMI_ID": "ami-0123456789abcdef0",
    "BASE_AMI_ID_AMAZON_LINUX": "ami-0123456789abcdef1",
    "BASE_AMI_ID_NEURON": "ami-0123456789abcdef2",
    "BASE_AMI_ID_NEURON_AMAZON_LINUX": "ami-0123456789abcdef3",
    "BAKE_SUBNET_ID": "subnet-0123456789abcdef0",
    "BAKE_SECURITY_GROUP_ID": "sg-0123456789abcdef0",
    "BAKE_INSTANCE_PROFILE": "flux-worker",
    "HF_TOKEN": "hf_canary_never_shown",
}
GOOD = (PROFILES / "g6e-ubuntu.yaml").read_text()


def problems(tmp_path: Path, text: str | bytes, variables: dict[str, str] = VARIABLES) -> str:
    """The message that a broken profile gets."""
    file = tmp_path / "broken.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UsageError) as caught:
        profile.load("broken", tmp_path, variables)
    message = f"{caught.value.message}\n{caught.value.hint or ''}"
    return message.replace(f"{tmp_path}/", "")


def test_every_shipped_profile_loads() -> None:
    for name in profile.names(PROFILES):
        assert profile.load(name, PROFILES, VARIABLES).name == name


def test_the_values_arrive_typed() -> None:
    found = profile.load("g6e-ubuntu", PROFILES, VARIABLES)
    assert found.root_volume.size_gib == 80
    assert found.builder.region == "eu-north-1"
    assert found.worker.region == "eu-west-1"
    assert found.weights.repo == "black-forest-labs/FLUX.1-dev"
    assert "hf_canary" not in repr(found)


FAMILY = {
    "g6e-ubuntu": ("ubuntu", "cuda", "g6e.xlarge", "bf16", "ami-0123456789abcdef0"),
    "g5-ubuntu": ("ubuntu", "cuda", "g5.xlarge", "int8", "ami-0123456789abcdef0"),
    "g6-ubuntu": ("ubuntu", "cuda", "g6.xlarge", "int8", "ami-0123456789abcdef0"),
    "g6e-amazon-linux": ("amazon-linux", "cuda", "g6e.xlarge", "bf16", "ami-0123456789abcdef1"),
    "g5-amazon-linux": ("amazon-linux", "cuda", "g5.xlarge", "int8", "ami-0123456789abcdef1"),
    "inf2-ubuntu": ("ubuntu", "neuron", "inf2.xlarge", "bf16", "ami-0123456789abcdef2"),
    "inf2-amazon-linux": ("amazon-linux", "neuron", "inf2.xlarge", "bf16", "ami-0123456789abcdef3"),
}


def test_the_family_is_complete() -> None:
    assert profile.names(PROFILES) == sorted(FAMILY)


@pytest.mark.parametrize("name", sorted(FAMILY))
def test_the_family_differs_in_what_its_names_say(name: str) -> None:
    found = profile.load(name, PROFILES, VARIABLES)
    base = found.base
    says = (base.os, base.accelerator, *found.builder.types, found.weights.precision, base.ami)
    assert says == FAMILY[name]
    common = profile.load("g6e-ubuntu", PROFILES, VARIABLES)
    assert found.root_volume == common.root_volume
    assert found.image == common.image
    assert found.worker == common.worker
    assert base.os in SYSTEMS


def test_the_profiles_are_short_commented_and_known_to_editors() -> None:
    for name in profile.names(PROFILES):
        lines = (PROFILES / f"{name}.yaml").read_text().splitlines()
        assert lines[0] == "# yaml-language-server: $schema=schema.json"
        assert lines[1].startswith("# ")
        assert len(lines) <= 36


def test_an_unknown_profile_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        profile.load("g6e-ubunto", PROFILES, VARIABLES)
    assert "g6e-ubuntu" in caught.value.message
    assert caught.value.hint == "did you mean --profile g6e-ubuntu?"


def test_a_path_is_no_profile_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        profile.load("../profiles/g6e-ubuntu", PROFILES, VARIABLES)


def test_all_missing_variables_come_in_one_message(tmp_path: Path) -> None:
    message = problems(tmp_path, GOOD, {})
    for name in VARIABLES:
        assert (f"the variable {name} is not set" in message) == (f"${{{name}}}" in GOOD)
    assert ".env.local" in message


def test_an_empty_variable_counts_as_missing(tmp_path: Path) -> None:
    message = problems(tmp_path, GOOD, {**VARIABLES, "HF_TOKEN": ""})
    assert message.startswith("broken.yaml:25:10: weights.token: the variable HF_TOKEN is not set\n")


def test_several_problems_come_in_one_message_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = GOOD.replace("instance_type", "instanse_type").replace("size_gib: 80", "size_gib: x")
    message = problems(tmp_path, text, {**VARIABLES, "HF_TOKEN": ""})
    places = [message.index(part) for part in ("instanse_type", "size_gib", "HF_TOKEN")]
    assert places == sorted(places)


def test_a_broken_token_is_never_shown(tmp_path: Path) -> None:
    text = GOOD.replace("token: ${HF_TOKEN}", "token: [hf_canary]")
    assert "hf_canary" not in problems(tmp_path, text)


def test_a_default_stands_in_for_a_missing_variable(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(GOOD.replace("${AWS_REGION}", "${AWS_REGION:-eu-west-3}"))
    variables = {name: value for name, value in VARIABLES.items() if name != "AWS_REGION"}
    assert profile.load("p", tmp_path, variables).worker.region == "eu-west-3"


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env.local").write_text("HF_TOKEN=from-file\nBASE_AMI_ID=ami-11111111\n")
    monkeypatch.setenv("HF_TOKEN", "from-environment")
    found = profile.environment(tmp_path / ".env.local")
    assert found["HF_TOKEN"] == "from-environment"
    assert found["BASE_AMI_ID"] == "ami-11111111"


def test_crlf_bom_and_cyrillic_comments_are_fine(tmp_path: Path) -> None:
    text = "\ufeff# базовый образ\r\n" + GOOD.replace("\n", "\r\n")
    (tmp_path / "p.yaml").write_bytes(text.encode())
    assert profile.load("p", tmp_path, VARIABLES).root_volume.size_gib == 80
