"""How `builder.proxy_command` is written: a list of words or a text, with variables, and no shell."""

from __future__ import annotations

from pathlib import Path

import pytest

from bake import profile as profiles
from bake.errors import UsageError
from bake.localcloud import NOT_REHEARSED
from bake.profile import Variables
from bake.profile.proxy import filled, placeholders

from ..variables import VARIABLES

PROFILES = Path(__file__).parents[3] / "profiles"


def command(tmp_path: Path, written: str, **variables: str) -> tuple[str, ...] | None:
    """What a profile that says so has."""
    for file in PROFILES.glob("*.yaml"):
        (tmp_path / file.name).write_text(file.read_text())
    text = f"extends: g6e-ubuntu\nbuilder:\n  proxy_command: {written}\n"
    (tmp_path / "led.yaml").write_text(text)
    known = Variables({**VARIABLES, **variables})
    return profiles.load("led", tmp_path, known).builder.proxy_command


@pytest.mark.parametrize(
    ("written", "words"),
    [
        pytest.param("[nc, '{host}', '{port}']", ("nc", "{host}", "{port}"), id="list"),
        pytest.param("nc {host} {port}", ("nc", "{host}", "{port}"), id="text"),
        pytest.param("nc '{host}'\"x y\" a\\ b", ("nc", "{host}x y", "a b"), id="quotes"),
        pytest.param("nc {host} a;b | c #d", ("nc", "{host}", "a;b", "|", "c"), id="no-shell"),
        pytest.param("[nc, '{instance}', '${BASTION}']", ("nc", "{instance}", "ada@x y"), id="variable"),
        pytest.param("nc {host} ${BASTION}", ("nc", "{host}", "ada@x", "y"), id="variable-in-a-text"),
        pytest.param("nc {host} '${BASTION}'", ("nc", "{host}", "ada@x y"), id="quoted-variable"),
        pytest.param("${WHOLE}", ("ssh", "-W", "{host}:{port}", "a b"), id="whole"),
        pytest.param("${ABSENT:-}", None, id="empty-default"),
        pytest.param("~", None, id="null"),
        pytest.param("[x, '{{{host}}}', '{instance}{{']", ("x", "{{{host}}}", "{instance}{{"), id="braces"),
    ],
)
def test_it_is_written_as_words_or_as_a_text(
    tmp_path: Path, written: str, words: tuple[str, ...] | None
) -> None:
    variables = {"BASTION": "ada@x y", "WHOLE": "ssh -W {host}:{port} 'a b'"}
    assert command(tmp_path, written, **variables) == words


def test_each_word_is_filled_in_once() -> None:
    words = ("{{{host}}}", "{instance}{{", "{port}", "}}{host}")
    assert filled(words, instance="{port}", host="h", port=22) == ("{h}", "{port}{", "22", "}h")
    assert [*placeholders("{{{host}}}{port}")] == ["{host}", "{port}"]


def test_a_key_files_path_from_a_variable_that_sounds_secret_is_refused_with_the_way_out(
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError, match="give a key file's path another one") as caught:
        command(tmp_path, "[ssh, -i, '${BASTION_KEY}', '{host}']", BASTION_KEY="/home/ada/.ssh/id")
    assert "led.yaml:3:28: builder.proxy_command.2: must not come from a secret" in caught.value.message
    assert "/home/ada" not in caught.value.message


def test_a_secret_that_another_variable_holds_is_refused(tmp_path: Path) -> None:
    """Its name says nothing, and it is known: it is the token, too."""
    token = "hf_" + "x" * 30
    with pytest.raises(UsageError, match=r"builder\.proxy_command\.2: must not hold a secret") as caught:
        command(tmp_path, "[nc, '{host}', '${INNOCENT}']", INNOCENT=token)
    assert token not in caught.value.message


def test_the_users_own_way_is_not_rehearsed(tmp_path: Path) -> None:
    assert command(tmp_path, "${BAKE_PROXY_COMMAND:-}", BAKE_PROXY_COMMAND="nc {host} 22")
    assert command(tmp_path, "${BAKE_PROXY_COMMAND:-}", **NOT_REHEARSED) is None
