"""`bake profiles`, `bake new-profile`, and the JSON Schema for editors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner, Result

from bake import profile
from bake.commands.profiles import new_profile, profiles
from bake.errors import UsageError
from bake.profile import json_schema
from tests.bake.profile import broken_profiles

PROFILES = Path(__file__).parents[3] / "profiles"
BROKEN = broken_profiles.load()
SCHEMA = json_schema.build()


def call(command: Any, *arguments: str, directory: Path = PROFILES) -> Result:
    """What a command prints; its errors are raised."""
    found = CliRunner().invoke(command, arguments, obj={"directory": directory})
    if found.exception and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def valid(content: Any) -> bool:
    """Whether the JSON Schema accepts a profile as it is written."""
    return jsonschema.Draft7Validator(SCHEMA).is_valid(content)


def test_profiles_are_listed_with_what_they_say_and_without_variables() -> None:
    lines = call(profiles).output.splitlines()
    assert len(lines) == 7
    assert lines[4].split() == ["g6e-ubuntu", "ubuntu", "cuda", "g6e.xlarge", "80", "GiB", "gp3", "bf16"]
    assert len({line.index("GiB") for line in lines}) == 1


def test_profiles_are_listed_as_json_by_name() -> None:
    found = json.loads(call(profiles, "--json").output)
    assert found["inf2-ubuntu"]["accelerator"] == "neuron"
    assert list(found) == profile.names(PROFILES)


def test_a_broken_profile_is_listed_with_its_problem(tmp_path: Path) -> None:
    shutil.copy(PROFILES / "g6e-ubuntu.yaml", tmp_path)
    (tmp_path / "broken.yaml").write_text("base: [\n")
    (tmp_path / "odd.yaml").write_text("base: 3\nbuilder: {instance_types: [a, b]}\n")
    lines = call(profiles, directory=tmp_path).output.splitlines()
    assert "broken.yaml:2:1: while parsing a flow node" in lines[0]
    assert lines[1].split()[0] == "g6e-ubuntu"
    assert "a, b" in lines[2]


def test_no_profiles_are_an_empty_list(tmp_path: Path) -> None:
    assert call(profiles, directory=tmp_path).output == ""
    assert json.loads(call(profiles, "--json", directory=tmp_path).output) == {}


def test_the_checked_in_schema_is_current() -> None:
    kept = (PROFILES / "schema.json").read_text(encoding="utf-8")
    assert call(profiles, "--schema").output == kept, "bake profiles --schema > profiles/schema.json"


def test_the_schema_is_a_schema_and_explains_every_field() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    for section in SCHEMA["$defs"].values():
        assert section["description"]
        for field in section["properties"].values():
            assert field["description"]


@pytest.mark.parametrize("name", profile.names(PROFILES))
def test_the_schema_accepts_the_shipped_profiles(name: str) -> None:
    assert valid(yaml.safe_load((PROFILES / f"{name}.yaml").read_text()))


def test_the_schema_accepts_references_wherever_values_are() -> None:
    content = yaml.safe_load((PROFILES / "g6e-ubuntu.yaml").read_text())
    for section in content.values():
        for key in section:
            section[key] = "${NAME:-default}"
    content["weights"]["token"] = "secretsmanager:flux#hf"
    content["builder"]["security_group"] = "temporary"
    content["builder"]["instance_types"] = ["${A}", "g6e.xlarge"]
    content["image"]["share_with"] = ["${FRIEND}"]
    assert valid(content)


SEEN_BY_EDITORS = [
    *("unknown-key", "unknown-section", "name-in-file", "section-is-text", "section-is-list"),
    *("size-with-unit", "size-is-zero", "size-too-large", "size-list", "os-wrong", "volume-type-wrong"),
    *("precision-wrong", "instance-type-wrong", "instance-types-empty", "revision-branch", "model-other"),
    *(
        "literal-ami",
        "literal-region",
        "literal-subnet",
        "literal-account",
        "literal-queue",
        "cache-relative",
    ),
    *("waivers-mistyped", "waivers-mapping", "waiver-text", "waiver-key-mistyped", "waiver-keys-missing"),
    *("waiver-check-all", "waiver-until-a-number", "checks-text", "checks-absolute", "fail-on-mistyped"),
    *("literal-token", "share-with-all", "variable-malformed", "extends-list", "extends-path", "empty"),
]


@pytest.mark.parametrize("name", SEEN_BY_EDITORS)
def test_the_schema_refuses_what_bake_refuses(name: str) -> None:
    assert not valid(yaml.safe_load(BROKEN[name].content))


def test_the_schema_knows_what_stands_in_no_section() -> None:
    content = yaml.safe_load((PROFILES / "g6e-ubuntu.yaml").read_text())
    waiver = dict.fromkeys(("reason", "approved_by", "risk"), "${WHY}")
    content |= {
        "checks": ["checks/our_policy.py", "${MORE}"],
        "waivers": [{**waiver, "check": "security.private_keys", "until": "2027-01-31"}],
        "reports": "s3://bucket/prefix",
        "fail_on": "high",
    }
    assert valid(content)
    assert not valid({**content, "waivers": [waiver]})
    assert not valid({**content, "waivers": {}})


@pytest.mark.parametrize("section", ["base", "builder", "root_volume", "weights", "worker", "image"])
def test_only_a_profile_that_extends_another_may_leave_things_out(section: str) -> None:
    content = yaml.safe_load((PROFILES / "g6e-ubuntu.yaml").read_text())
    del content[section]
    assert not valid(content)
    assert valid({**content, "extends": "g6e-ubuntu"})


def test_a_new_profile_loads_as_the_one_it_starts_from(tmp_path: Path) -> None:
    for file in PROFILES.glob("*.yaml"):
        shutil.copy(file, tmp_path)
    printed = call(new_profile, "g6e-large", "--from", "g6e-amazon-linux", directory=tmp_path).output
    assert "g6e-large.yaml" in printed
    assert "bake plan --profile g6e-large" in printed
    assert profile.outline("g6e-large", tmp_path) == profile.outline("g6e-amazon-linux", tmp_path)
    text = (tmp_path / "g6e-large.yaml").read_text()
    assert text.splitlines()[0] == "# yaml-language-server: $schema=schema.json"
    assert valid(yaml.safe_load(text))
    # Uncommented whole, it says the same itself.
    said = text[text.index("# base:") :].replace("\n# ", "\n").removeprefix("# ")
    (tmp_path / "whole.yaml").write_text(said)
    assert profile.outline("whole", tmp_path) == profile.outline("g6e-amazon-linux", tmp_path)


def test_the_profile_in_the_docs_is_a_good_one(tmp_path: Path) -> None:
    page = (PROFILES.parent / "docs/profiles.md").read_text(encoding="utf-8")
    text = next(block for block in page.split("```yaml\n") if "extends:" in block).split("```")[0]
    shutil.copy(PROFILES / "g6e-ubuntu.yaml", tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    assert valid(yaml.safe_load(text))
    assert profile.outline("mine", tmp_path)["builder"]["instance_types"] == ["g6e.xlarge", "g6e.2xlarge"]


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        pytest.param("g6e-ubuntu", "g6e-ubuntu", "is there already", id="there already"),
        pytest.param("../evil", "g6e-ubuntu", "is not a valid profile name", id="path"),
        pytest.param("x.lock", "g6e-ubuntu", "is not a valid profile name", id="lock"),
        pytest.param("_x", "g6e-ubuntu", "is not a valid profile name", id="abstract"),
        pytest.param("x", "g6e-ubunto", "no profile named 'g6e-ubunto'", id="unknown source"),
    ],
)
def test_a_new_profile_that_can_not_be_is_refused(
    tmp_path: Path, name: str, source: str, expected: str
) -> None:
    shutil.copy(PROFILES / "g6e-ubuntu.yaml", tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=expected):
        call(new_profile, name, "--from", source, directory=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
