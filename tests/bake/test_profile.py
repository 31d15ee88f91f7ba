"""Profiles: every problem in one message, each with its place and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from bake import profile
from bake.errors import UsageError

PROFILES = Path(__file__).parents[2] / "profiles"
VARIABLES = {
    "AWS_REGION": "eu-west-1",
    "SPOT_AWS_REGION": "eu-north-1",
    "BASE_AMI_ID": "ami-0123456789abcdef0",
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
        assert f"{name} (line " in message
    assert ".env.local" in message


def test_an_empty_variable_counts_as_missing(tmp_path: Path) -> None:
    assert "HF_TOKEN (line" in problems(tmp_path, GOOD, {**VARIABLES, "HF_TOKEN": ""})


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            "instance_type:",
            "instanse_type:",
            "broken.yaml:11:3: builder.instanse_type: unknown key\n    did you mean instance_type?",
            id="mistyped key",
        ),
        pytest.param(
            "root_volume:",
            "rootvolume:",
            "rootvolume: unknown key\n    did you mean root_volume?",
            id="section",
        ),
        pytest.param("instance_type: g6e.xlarge", "", "builder.instance_type: is missing", id="missing key"),
        pytest.param("size_gib: 80", "size_gib: 80GB", "17:13: root_volume.size_gib:", id="unit in a number"),
        pytest.param("size_gib: 80", "size_gib: 0", "greater than or equal to 1, not 0", id="zero"),
        pytest.param(
            "type: gp3", "type: gp3\n  type: gp3", "type: given twice, first in line 18", id="twice"
        ),
        pytest.param(
            "${BASE_AMI_ID}",
            "ami-0123456789abcdef0",
            "5:8: base.ami: must come from the environment",
            id="AMI in the file",
        ),
        pytest.param("${HF_TOKEN}", "hf_secret", "weights.token: must come from the environment", id="token"),
        pytest.param(
            "weights:",
            "weights:\n  repo: stabilityai/sdxl",
            "weights.repo: must be black-forest-labs/FLUX.1-dev",
            id="another model",
        ),
        pytest.param("revision: 3de6", "revision: main # 3de6", "does not look like a commit", id="branch"),
        pytest.param(
            "~/.cache/huggingface/hub", "cache/hub", "must be an absolute path", id="relative cache"
        ),
        pytest.param("os: ubuntu", "os: windows", "base.os:", id="unknown OS"),
        pytest.param("{run}", "{rum}", "image.name: unknown placeholder {rum}", id="placeholder"),
        pytest.param("base:", "base: [", "expected", id="broken syntax"),
        pytest.param("  os: ubuntu", "\tos: ubuntu", "spaces, never with tabs", id="tab"),
    ],
)
def test_a_problem_names_its_place(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    assert expected in problems(tmp_path, GOOD.replace(old, new, 1))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"", "a profile is a mapping", id="empty"),
        pytest.param(b"- a\n- b\n", "a profile is a mapping", id="list"),
        pytest.param(b"base: \xff\xfe\n", "not UTF-8 at byte 6", id="binary"),
        pytest.param(b"#" * 300_000, "at most 262,144", id="huge"),
    ],
)
def test_what_is_no_profile_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    assert expected in problems(tmp_path, content)


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
