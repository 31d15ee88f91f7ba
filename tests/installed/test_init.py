"""`bake init`: what it writes, that it overwrites nothing, and that what it writes is right."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from dotenv import dotenv_values

from bake import profile, resources
from bake.cli import main_group
from bake.errors import UsageError

Init = Callable[..., Result]


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Init:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main_group, ["init", *arguments], catch_exceptions=True)

    return run


def test_an_empty_folder_gets_profiles_variables_and_gitignore(init: Init) -> None:
    done = init()
    assert done.exit_code == 0, done.output
    assert profile.names(Path("profiles")) == profile.names(resources.EXAMPLES)
    assert Path("profiles/schema.json").is_file()
    assert Path(".gitignore").read_text().split("\n")[1:3] == [".bake/", ".env.local"]
    assert not Path(".github").exists()
    assert not Path(".env.local").exists()
    assert "--rehearse" in done.output
    assert "bake approve --profile g6e-ubuntu" in done.output


def test_with_json_the_files_are_named(init: Init) -> None:
    told = json.loads(init("--json").output)
    assert told["kept"] == []
    assert {".env.example", ".gitignore", "profiles/g6e-ubuntu.yaml"} <= set(told["written"])
    again = json.loads(init("--json").output)
    assert again == {"written": [], "kept": told["written"]}


@pytest.mark.parametrize("name", ["profiles/g6e-ubuntu.yaml", ".env.example"])
def test_what_is_there_is_never_overwritten(init: Init, name: str) -> None:
    Path("profiles").mkdir()
    Path(name).write_text("mine\n")
    error = init().exception
    assert isinstance(error, UsageError)
    assert f"{name} is there already, with other content" in error.message
    assert "nothing was written" in error.message
    assert error.hint == f"move {name} away, or start in an empty folder; then run bake init again"
    assert Path(name).read_text() == "mine\n"
    assert [file for file in Path().rglob("*") if file.is_file()] == [Path(name)]


def test_a_gitignore_may_say_more_and_must_not_say_less(init: Init) -> None:
    Path(".gitignore").write_text("build/\n")
    error = init().exception
    assert isinstance(error, UsageError)
    assert error.hint == "add to .gitignore: .bake/ .env.local; then run bake init again"
    Path(".gitignore").write_text("build/\n.env.local\n.bake/\n")
    assert init().exit_code == 0
    assert Path(".gitignore").read_text() == "build/\n.env.local\n.bake/\n"


def test_a_link_to_nowhere_is_not_followed(init: Init, tmp_path: Path) -> None:
    Path(".env.example").symlink_to(tmp_path / "elsewhere")
    assert isinstance(init().exception, UsageError)
    assert not (tmp_path / "elsewhere").exists()


def test_what_somebody_agreed_to_is_no_example(
    init: Init, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = tmp_path / "examples"
    examples.mkdir()
    (examples / "a.yaml").write_text("extends: b\n")
    (examples / "a.lock.yaml").write_text("agreed:\n  base.ami: ami-0\n")
    (examples / "b.lock.yaml").write_text("inputs:\n  weights.repo: x\n")
    monkeypatch.setattr(resources, "EXAMPLES", examples)
    assert init().exit_code == 0
    assert sorted(file.name for file in Path("profiles").iterdir()) == ["a.yaml", "b.lock.yaml"]


def test_the_workflow_rehearses_and_may_only_read(init: Init) -> None:
    assert init("--ci", "github").exit_code == 0
    workflow = yaml.safe_load(Path(".github/workflows/bake.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    steps = workflow["jobs"]["rehearse"]["steps"]
    commands = "\n".join(step.get("run", "") for step in steps)
    assert "--rehearse" in commands
    assert not re.search(r"secrets\.", Path(".github/workflows/bake.yml").read_text())


def test_where_there_are_no_profiles_bake_init_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError) as caught:
            profile.outline("x", folder)
        assert "bake init" in str(caught.value.hint)


def test_the_example_of_variables_has_what_the_profiles_ask_for() -> None:
    wanted = set()
    for file in resources.EXAMPLES.glob("*.yaml"):
        wanted |= set(re.findall(r"\$\{([A-Z][A-Z0-9_]*)", file.read_text(encoding="utf-8")))
    text = resources.ENV_EXAMPLE.read_text(encoding="utf-8")
    assert wanted <= set(re.findall(r"^#? ?([A-Z][A-Z0-9_]*)=", text, re.MULTILINE))
    assert set(dotenv_values(resources.ENV_EXAMPLE).values()) == {""}
