"""`extends`, variables and secrets: which value wins, and where it came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from bake import profile
from bake.errors import UsageError
from bake.profile.variables import Variables

from ..variables import VARIABLES

GOOD = (Path(__file__).parents[3] / "profiles" / "g6e-ubuntu.yaml").read_text()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with one profile, `good`."""
    (tmp_path / "good.yaml").write_text(GOOD)
    return tmp_path


def load(place: Path, text: str, variables: dict[str, str] | None = None, **more: str) -> profile.Profile:
    """A profile of `text` that extends `good`."""
    return loaded(place, text, {**VARIABLES, **(variables or {}), **more})[0]


def loaded(
    place: Path, text: str, variables: dict[str, str] | Variables
) -> tuple[profile.Profile, dict[str, str]]:
    """The same with the origins, paths as seen from the directory."""
    (place / "p.yaml").write_text(f"extends: good\n{text}")
    found, origins = profile.load_with_origins("p", place, variables, lambda name, key: f"{name}/{key}")
    return found, {path: origin.replace(f"{place}/", "") for path, origin in origins.items()}


def test_the_childs_values_lie_over_the_parents(place: Path) -> None:
    found = load(place, "builder:\n  instance_type: g6e.2xlarge\n")
    assert found.builder.types == ("g6e.2xlarge",)
    assert found.builder.region == "eu-north-1"
    assert found.name == "p"


def test_null_drops_what_the_parent_says(place: Path) -> None:
    found = load(place, "builder:\n  instance_type: ~\n  instance_types: [g6e.xlarge, g6e.2xlarge]\n")
    assert found.builder.types == ("g6e.xlarge", "g6e.2xlarge")


def test_parents_have_parents_and_may_be_abstract(place: Path) -> None:
    (place / "_large.yaml").write_text("extends: good\nroot_volume:\n  size_gib: 120\n")
    (place / "p.yaml").write_text("extends: _large\nroot_volume:\n  throughput: 250\n")
    found = profile.load("p", place, VARIABLES)
    assert (found.root_volume.size_gib, found.root_volume.throughput) == (120, 250)
    assert profile.names(place) == ["good", "p"]
    with pytest.raises(UsageError, match="no profile named '_large'"):
        profile.load("_large", place, VARIABLES)


def test_a_variable_that_only_an_overridden_value_needs_may_be_missing(place: Path) -> None:
    variables = {name: value for name, value in VARIABLES.items() if name != "BASE_AMI_ID"}
    found, _ = loaded(place, "base:\n  ami: ${OTHER}\n", {**variables, "OTHER": "ami-11111111"})
    assert found.base.ami == "ami-11111111"


def test_every_value_says_where_it_came_from(place: Path) -> None:
    text = (
        "root_volume:\n  throughput: ${THROUGHPUT}\n  iops: ${IOPS:-4000}\n"
        "weights:\n  token: secretsmanager:flux#hf_token\n"
        "image:\n  name: ${A}-${B}-{run}\n  share_with: ['${FRIEND}']\n"
    )
    variables = Variables(VARIABLES).overlaid(
        {"THROUGHPUT": "250", "A": "flux", "B": "dev", "FRIEND": "123456789012"}, ".env.local"
    )
    found, origins = loaded(place, text, variables)
    assert found.root_volume.throughput == 250
    assert found.root_volume.iops == 4000
    assert found.weights.token.get_secret_value() == "flux/hf_token"
    assert origins["base.ami"] == "BASE_AMI_ID (environment)"
    assert origins["base.ssm"] == "default"
    assert origins["builder.market"] == "default"
    assert origins["root_volume.size_gib"] == "good.yaml:18"
    assert origins["root_volume.throughput"] == "THROUGHPUT (.env.local)"
    assert origins["root_volume.iops"] == "p.yaml:4 (IOPS is not set)"
    assert origins["weights.token"] == "secretsmanager:flux#hf_token"
    assert origins["worker.queue"] == "default"
    assert origins["image.name"] == "A (.env.local), B (.env.local)"
    assert origins["image.share_with"] == "p.yaml:9"
    assert origins["image.share_with.0"] == "FRIEND (.env.local)"


def test_every_field_has_an_origin_and_no_origin_has_a_secret(place: Path) -> None:
    found, origins = loaded(place, "", VARIABLES)
    for section, content in found.model_dump(exclude={"name"}).items():
        for path in [f"{section}.{key}" for key in content] if isinstance(content, dict) else [section]:
            assert origins[path]
    assert "hf_canary" not in str(origins)


def test_an_optional_variable_that_is_not_set_leaves_its_field_out(place: Path) -> None:
    assert load(place, "").worker.queue is None
    url = "https://sqs.eu-west-1.amazonaws.com/1/flux"
    assert load(place, "", FLUX_QUEUE_URL=url).worker.queue == url
    assert load(place, "image:\n  share_with: ['${A:-}', '${B:-}']\n", B="123456789012").image.share_with == (
        "123456789012",
    )


def test_a_variable_may_name_a_secret(place: Path) -> None:
    found = load(place, "", HF_TOKEN="secretsmanager:flux#hf_token")
    assert found.weights.token.get_secret_value() == "flux/hf_token"


def test_the_same_secret_is_read_once(place: Path) -> None:
    asked = []

    def secrets(name: str, key: str) -> str:
        asked.append((name, key))
        return "value"

    text = "extends: good\nbuilder:\n  instance_profile: secretsmanager:flux#a\n"
    (place / "p.yaml").write_text(f"{text}weights:\n  token: secretsmanager:flux#a\n")
    found = profile.load("p", place, VARIABLES, secrets)
    assert found.builder.instance_profile == found.weights.token.get_secret_value() == "value"
    assert asked == [("flux", "a")]


def test_without_a_reader_a_secret_is_a_problem_at_its_place(place: Path) -> None:
    (place / "p.yaml").write_text("extends: good\nweights:\n  token: secretsmanager:flux#hf_token\n")
    with pytest.raises(
        UsageError, match=r"p\.yaml:3:10: weights\.token: secretsmanager:flux#hf_token cannot be"
    ):
        profile.load("p", place, VARIABLES)


def test_a_temporary_security_group_needs_no_id(place: Path) -> None:
    text = "builder:\n  security_group: temporary\n  ssh_from: ${BAKE_SSH_FROM}\n"
    found = load(place, text, BAKE_SSH_FROM="203.0.113.7/32")
    assert found.builder.security_group == "temporary"


def test_the_base_may_be_an_ssm_parameter_or_a_name(place: Path) -> None:
    ssm = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
    assert load(place, f"base:\n  ami: ~\n  ssm: {ssm}\n").base.ssm == ssm
    found = load(place, "base:\n  ami: ~\n  name: Deep Learning*\n  owner: amazon\n")
    assert (found.base.name, found.base.owner) == ("Deep Learning*", "amazon")


@pytest.mark.parametrize(
    "cache", ["/data/hf", "/home/ubuntu/hf", "/var/lib/hf", "~/hf", "/mnt2/hf", "/data/hf_cache"]
)
def test_a_cache_on_the_root_volume_is_fine(place: Path, cache: str) -> None:
    assert load(place, f"weights:\n  cache: {cache}\n").weights.cache == cache


def test_an_exported_but_empty_variable_does_not_hide_the_files(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / ".env.local").write_text("HF_TOKEN=from-file\nEMPTY=\n")
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    found = profile.environment(place / ".env.local")
    assert found["HF_TOKEN"] == "from-file"
    assert found.source("HF_TOKEN") == ".env.local"
    assert found.source("AWS_REGION") == "environment"
    assert "from-file" not in repr(found)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"A=1\nnot a variable\nHF_TOKEN='x\n", ":2:1: not of the form", id="words"),
        pytest.param(b"A=\xff\n", ":1:1: cannot be read: not UTF-8", id="binary"),
    ],
)
def test_a_broken_env_file_names_its_lines_and_not_their_content(
    place: Path, content: bytes, expected: str
) -> None:
    (place / ".env.local").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        profile.environment(place / ".env.local")
    assert f".env.local{expected}" in caught.value.message
    assert "words" not in caught.value.message


def test_a_directory_is_no_env_file(place: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        profile.environment(place)


def test_no_env_file_is_fine(place: Path) -> None:
    assert "PATH" in profile.environment(place / "none")
    assert "PATH" in profile.environment(None)


def test_quoted_text_and_aliases_are_read_as_yaml_says(place: Path) -> None:
    text = 'image:\n  name: &n "flux-{run}"\nroot_volume: {size_gib: 100, type: gp3}\n'
    assert load(place, text).image.name == "flux-{run}"
    found = load(place, "builder:\n  instance_type: &t g6e.4xlarge\n  instance_profile: ${P:-flux}\n")
    assert found.builder.types == ("g6e.4xlarge",)


@pytest.mark.parametrize(
    ("exported", "stored", "cache", "origin"),
    [
        ({}, "", "~/.cache/huggingface/hub", "good.yaml:23 (HF_HUB_CACHE is not set)"),
        ({"HF_HUB_CACHE": "/data/hub"}, "", "/data/hub", "HF_HUB_CACHE (environment)"),
        (
            {"HUGGINGFACE_HUB_CACHE": "/data/old"},
            "",
            "/data/old",
            "HF_HUB_CACHE (HUGGINGFACE_HUB_CACHE, its old name, environment)",
        ),
        (
            {},
            "HUGGINGFACE_HUB_CACHE=/data/old\n",
            "/data/old",
            "HF_HUB_CACHE (HUGGINGFACE_HUB_CACHE, its old name, .env.local)",
        ),
        (
            {"HUGGINGFACE_HUB_CACHE": "/data/old"},
            "HF_HUB_CACHE=/data/hub\n",
            "/data/hub",
            "HF_HUB_CACHE (.env.local)",
        ),
    ],
    ids=["default", "environment", "old name", "old name in the file", "both"],
)
def test_the_cache_moves_by_its_variable_and_its_old_name_is_reported(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    exported: dict[str, str],
    stored: str,
    cache: str,
    origin: str,
) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**VARIABLES, **exported}.items():
        monkeypatch.setenv(name, value)
    (place / ".env.local").write_text(stored)
    found, origins = loaded(place, "", profile.environment(place / ".env.local"))
    assert (found.weights.cache, origins["weights.cache"]) == (cache, origin)
