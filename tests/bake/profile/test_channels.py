"""The profile's channels: names that the user chooses, each with a parameter and a launch template."""

from __future__ import annotations

from pathlib import Path

import pytest

from bake import profile
from bake.errors import UsageError
from bake.planning.guarded import stated_facts
from bake.profile import Profile
from bake.profile.channels import parameter_of
from tests.bake.variables import VARIABLES

ROOT = Path(__file__).parents[3]
TEMPLATE = "lt-0123456789abcdef0"


def loaded(folder: Path, text: str, name: str = "x") -> Profile:
    for file in (ROOT / "profiles").glob("*.yaml"):
        (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / f"{name}.yaml").write_text(f"extends: g6e-ubuntu\n{text}", encoding="utf-8")
    return profile.load(name, folder, {**VARIABLES, "BAKE_LAUNCH_TEMPLATE": TEMPLATE})


def test_a_channel_has_a_parameter_by_its_name_and_may_have_a_template(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        "channels:\n  stable: {launch_template: '${BAKE_LAUNCH_TEMPLATE}'}\n"
        "  next: {parameter: /flux/next}\n",
    )
    assert [parameter_of("x", name, one) for name, one in found.channels.items()] == [
        "/bake/x/stable",
        "/flux/next",
    ]
    (fact,) = [
        one for one in stated_facts(found, {"channels": "profiles/x.yaml:2"}) if one.name == "channels"
    ]
    assert fact.value == [
        f"stable: parameter /bake/x/stable, template {TEMPLATE}",
        "next: parameter /flux/next, no template",
    ]
    assert fact.origin == "profiles/x.yaml:2"


def test_a_profile_drops_a_channel_of_the_one_that_it_extends(tmp_path: Path) -> None:
    loaded(tmp_path, "channels: {stable: {}, next: {}}\n")
    (tmp_path / "y.yaml").write_text("extends: x\nchannels: {next: null, beta: {}}\n", encoding="utf-8")
    assert list(profile.load("y", tmp_path, VARIABLES).channels) == ["stable", "beta"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("channels: {Stable: {}}", "channels.Stable: Stable does not look like a channel's name"),
        ("channels: {stable: {paramter: /x}}", "channels.stable.paramter: unknown key"),
        ("channels: {stable: {parameter: /aws/x}}", "/aws/x does not look like an SSM parameter of your own"),
        ("channels: {stable: {parameter: /SSM}}", "does not look like an SSM parameter of your own"),
        ("channels: {stable: {parameter: stable}}", "does not look like an SSM parameter of your own"),
        ("channels: {stable: {parameter: /a//b}}", "does not look like an SSM parameter of your own"),
        (
            f"channels: {{stable: {{launch_template: {TEMPLATE}}}}}",
            "channels.stable.launch_template: must come from the environment",
        ),
        ("channels: [stable]", "channels: must be a mapping"),
        ("channels: {stable: text}", "channels.stable: must be a mapping"),
        ("channels: {a: {parameter: /x}, b: {parameter: /x}}", "channels: a and b both change /x"),
        ("channels: {a: {}, b: {parameter: /bake/x/a}}", "channels: a and b both change /bake/x/a"),
        ("channels: {a: {}, b: {parameter: /bake/x/a.lock}}", "a and b both change /bake/x/a.lock"),
        (
            "channels:\n  a: {launch_template: '${BAKE_LAUNCH_TEMPLATE}'}\n"
            "  b: {launch_template: '${BAKE_LAUNCH_TEMPLATE}'}",
            f"a and b both change {TEMPLATE}",
        ),
    ],
)
def test_what_a_channel_can_not_be_is_told_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        loaded(tmp_path, f"{text}\n")
    assert says in error.value.message
    assert f"{tmp_path}/x.yaml:" in error.value.message
