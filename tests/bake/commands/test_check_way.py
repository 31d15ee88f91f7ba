"""By which command `bake check` goes to a machine: the profile's, unless another way is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bake.checks.backend import _option
from bake.cli import main_group
from bake.commands.check import _planned, _way
from bake.errors import UsageError

BASTION = ("ssh", "-W", "{host}:{port}", "ada@bastion")
MANAGER = ("aws", "ssm", "start-session", "--target", "{instance}")


@pytest.mark.parametrize(
    ("words", "url", "found"),
    [
        (BASTION, "ssh://ubuntu@10.0.0.4", ("ssh", "-W", "10.0.0.4:22", "ada@bastion")),
        (BASTION, "safe-ssh://ubuntu@10.0.0.4:2222", ("ssh", "-W", "10.0.0.4:2222", "ada@bastion")),
        (BASTION, "docker://worker", ()),
        (BASTION, "local://", ()),
        ((), "ssh://ubuntu@10.0.0.4", ()),
        (MANAGER, "ssh://ubuntu@i-0123456789abcdef0", (*MANAGER[:-1], "i-0123456789abcdef0")),
    ],
    ids=["bastion", "port", "docker", "local", "none", "instance"],
)
def test_the_profiles_command_leads_there(words: tuple[str, ...], url: str, found: tuple[str, ...]) -> None:
    assert _way(words, url, None) == found


def test_a_machine_is_named_by_its_id_where_the_command_wants_it() -> None:
    with pytest.raises(UsageError, match=r"leads to \{instance\}, and ssh://ubuntu@10\.0\.0\.4 names none"):
        _way(MANAGER, "ssh://ubuntu@10.0.0.4", None)


@pytest.mark.parametrize("line", ["ProxyCommand nc %h %p", "  proxyjump ada@bastion"])
def test_a_config_with_a_proxy_of_its_own_wins(tmp_path: Path, line: str) -> None:
    config = tmp_path / "config"
    config.write_text(f"Host *\n{line}\n")
    assert _way(BASTION, "ssh://ubuntu@10.0.0.4", str(config)) == ()
    config.write_text("Host *\n  UserKnownHostsFile proxycommands\n")
    assert _way(BASTION, "ssh://ubuntu@10.0.0.4", str(config)) != ()


def test_a_run_remembers_its_way_and_older_ones_have_none(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"profile": {}, "reach": {"proxy": list(BASTION)}}))
    assert _planned(plan) == ([], BASTION)
    plan.write_text(json.dumps({"profile": {}}))
    assert _planned(plan) == ([], ())


def test_ssh_gets_the_words_as_they_are() -> None:
    assert _option(("nc", "a b", "%h")) == "ProxyCommand=nc 'a b' %%h"


def test_the_help_names_it() -> None:
    assert "builder.proxy_command" in CliRunner().invoke(main_group, ["check", "--help"]).output
