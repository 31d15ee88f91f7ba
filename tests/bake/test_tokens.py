"""A malformed token ends the command with 2; the error names the mistake, never the token."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bake import profile, tokens
from bake.errors import UsageError
from bake.profile.weights import Weights
from bake.request import BakeRequest, weights_of

from .variables import VARIABLES

ROOT = Path(__file__).parents[2]
PROFILES = ROOT / "profiles"
GOOD = (PROFILES / "g6e-ubuntu.yaml").read_text(encoding="utf-8")
CANARY = "hf_canaryNeverShown"

FAULTS = [
    pytest.param(f"{CANARY}\n", "a line break at its end", id="line-break"),
    pytest.param(f"{CANARY}\r\n", "a line break at its end", id="line-break-of-windows"),
    pytest.param(f"\n{CANARY}", "a line break at its start", id="line-break-first"),
    pytest.param(f"{CANARY} ", "a blank at its end", id="blank-at-the-end"),
    pytest.param(f" {CANARY}\n", "a blank at its start and a line break at its end", id="both-ends"),
    pytest.param("hf_canary NeverShown", "a blank inside", id="blank-inside"),
    pytest.param("hf_canary\tNeverShown", "a tab inside", id="tab"),
    pytest.param("hf_canary\nNeverShown", "a line break inside", id="two-lines"),
    pytest.param("hf_canary\r\nX-Other: 1", "a line break inside and a blank inside", id="a-header-more"),
    pytest.param(f"{CANARY}\x07", "a control character inside (U+0007)", id="bell"),
    pytest.param(f"{CANARY}\x7f", "a control character inside (U+007F)", id="delete"),
    pytest.param(f"{CANARY}\x85", "a control character inside (U+0085)", id="next-line"),
    pytest.param(f"{CANARY}\u200b", "a character outside ASCII inside (U+200B)", id="zero-width"),
    pytest.param(f"{CANARY}\u00a0", "a character outside ASCII inside (U+00A0)", id="no-break-space"),
    pytest.param("hf_сanary", "a character outside ASCII inside", id="cyrillic-letter"),
    pytest.param(f"{CANARY}\udcff", "a byte that is not UTF-8 inside", id="latin-1"),
    pytest.param(f"\ufeff{CANARY}", "a byte order mark at its start (U+FEFF)", id="byte-order-mark"),
    pytest.param(f'"{CANARY}"', "quotes around it", id="quotes"),
    pytest.param(f"“{CANARY}”", "quotes around it", id="curly-quotes"),
    pytest.param(f"'{CANARY}\n'", "quotes around it and a line break at its end", id="quotes-and-a-line"),
    pytest.param(f"Bearer {CANARY}", "the word Bearer before it", id="bearer"),
    pytest.param(f"export HF_TOKEN={CANARY}", "a name and = before it", id="a-line-of-a-shell"),
    pytest.param(f"{CANARY}{CANARY}", "the same token twice", id="twice"),
    pytest.param(f"{CANARY}\n{CANARY}", "the same token twice", id="twice-on-two-lines"),
    pytest.param(" \n", "nothing but blanks", id="blanks"),
    pytest.param("\ufeff", "nothing but blanks", id="nothing"),
]


def variables(**more: str) -> dict[str, str]:
    return {**VARIABLES, **more}


def refused(tmp_path: Path, text: str, given: dict[str, str], secrets: Any = None) -> str:
    """What is said of a profile."""
    (tmp_path / "p.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        profile.load("p", tmp_path, given, secrets)
    said = "".join(traceback.format_exception(caught.value))
    assert "canary" not in said and "NeverShown" not in said
    return f"{caught.value.message}\n".replace(f"{tmp_path}/", "")


@pytest.mark.parametrize(("token", "kind"), FAULTS)
def test_a_mistake_in_the_variable_is_named_by_its_kind(tmp_path: Path, token: str, kind: str) -> None:
    said = refused(tmp_path, GOOD, variables(HF_TOKEN=token))
    first, *more = said.splitlines()
    assert first == f"p.yaml:25:10: weights.token: HF_TOKEN (environment) has {kind}"
    assert more == ['    export HF_TOKEN="$(cat FILE)" keeps no line break at the end']


@pytest.mark.parametrize(("token", "kind"), FAULTS)
def test_a_mistake_in_a_stored_secret_is_named_by_its_place(tmp_path: Path, token: str, kind: str) -> None:
    text = GOOD.replace("${HF_TOKEN}", "secretsmanager:flux#token")
    said = refused(tmp_path, text, variables(), lambda name, key: token)
    assert said.startswith(f"p.yaml:25:10: weights.token: secretsmanager:flux#token has {kind}\n")


def test_a_mistake_in_a_default_is_named(tmp_path: Path) -> None:
    text = GOOD.replace("${HF_TOKEN}", '"${HF_TOKEN:-two words}"')
    said = refused(tmp_path, text, variables(HF_TOKEN=""))
    assert said == "p.yaml:25:10: weights.token: the default of HF_TOKEN has a blank inside\n"


def test_a_mistake_in_the_env_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    env_file = tmp_path / ".env.local"
    env_file.write_text("HF_TOKEN=\"'" + CANARY + "\\n'\"\n")
    given = profile.environment(env_file).overlaid(
        {key: value for key, value in VARIABLES.items() if key != "HF_TOKEN"}, "environment"
    )
    (tmp_path / "p.yaml").write_text(GOOD)
    with pytest.raises(UsageError) as caught:
        profile.load("p", tmp_path, given)
    assert "HF_TOKEN (.env.local) has quotes around it and a line break at its end" in caught.value.message
    assert "write HF_TOKEN=VALUE in .env.local" in caught.value.message


def test_every_problem_comes_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("size_gib: 80", "size_gib: x")
    given = variables(HF_TOKEN=f"{CANARY}\n", BAKE_SUBNET_ID="subnet-0123456789abcdef0\n", AWS_REGION="")
    said = refused(tmp_path, text, given)
    assert "BAKE_SUBNET_ID (environment) has a line break at its end" in said
    assert "HF_TOKEN (environment) has a line break at its end" in said
    assert "AWS_REGION is not set" in said
    assert "size_gib: must be a whole number" in said


def test_a_queue_with_a_line_break_or_a_password_is_refused(tmp_path: Path) -> None:
    queue = "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs"
    said = refused(tmp_path, GOOD, variables(FLUX_QUEUE_URL=f"{queue}\n"))
    assert "worker.queue: FLUX_QUEUE_URL (environment) has a line break at its end" in said
    said = refused(tmp_path, GOOD, variables(FLUX_QUEUE_URL=queue.replace("//", "//me:NeverShown@")))
    assert "worker.queue: what is given does not look like a queue's URL" in said


@pytest.mark.parametrize(
    ("variable", "value", "path"),
    [
        ("FLUX_GIT_URL", "https://canaryNeverShown@example.org/flux.git", "worker.source"),
        ("FLUX_GIT_URL", "https://me:NeverShown@example.org/flux.git", "worker.source"),
        ("FLUX_MIRROR", "s3://me:NeverShown@bucket/x", "weights.mirror"),
        ("BASE_AMI_ID", "https://me:Never Shown@example.org", "base.ami"),
    ],
)
def test_a_password_in_a_url_is_refused_and_not_shown(
    tmp_path: Path, variable: str, value: str, path: str
) -> None:
    text = GOOD.replace("${FLUX_GIT_COMMIT:-}", "a" * 40)
    said = refused(tmp_path, text, variables(**{variable: value}))
    assert path in said


def test_the_schema_itself_takes_no_such_token_and_does_not_show_it() -> None:
    with pytest.raises(ValidationError) as caught:
        Weights.model_validate({"revision": "a" * 40, "token": f"{CANARY}\n"})
    assert "has a line break at its end" in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "token", ["hf_AbC123", "api_org_x", "eyJh.eyJz.s-_g", "abcd==", "hf_canary_token", "a!#$%&'*+-.^_`|~"]
)
def test_a_token_without_a_mistake_is_taken(token: str) -> None:
    assert tokens.fault(token) is None


@settings(deadline=None)
@given(st.text(min_size=12))
def test_messages_never_contain_the_value(value: str) -> None:
    try:
        value.encode("ascii")
        sendable = all(" " < letter < "\x7f" for letter in value)
    except UnicodeEncodeError:
        sendable = False
    said = tokens.fault(value)
    if said is None:
        assert sendable
    else:
        assert value.strip() not in said or not value.strip()
        assert said.isascii()


def test_a_rehearsal_does_not_look_at_the_users_token(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The local cloud's stands for it; a plan on AWS with the same variable is refused."""
    monkeypatch.setenv("HF_TOKEN", f"{CANARY}\n")

    class Cloud:
        environment = VARIABLES

    cloud: Any = Cloud()
    request = BakeRequest("g6e-ubuntu", PROFILES, tmp_path / "none", rehearsal=True)
    assert weights_of(request, cloud).token.get_secret_value() == VARIABLES["HF_TOKEN"]
    with pytest.raises(UsageError, match=r"HF_TOKEN .environment. has a line break at its end"):
        weights_of(BakeRequest("g6e-ubuntu", PROFILES, tmp_path / "none"), None)


@pytest.mark.integration
@pytest.mark.parametrize("token", [f"{CANARY}\n", "hf_canary NeverShown", f"{CANARY}\u200b"], ids=ascii)
@pytest.mark.parametrize(
    "command",
    [["--profile", "mine"], ["plan", "--profile", "mine"], ["lock", "--profile", "mine"]],
    ids=["bake", "plan", "lock"],
)
def test_the_command_ends_with_2_and_tells_nothing(tmp_path: Path, command: list[str], token: str) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/mine.yaml").write_text(GOOD, encoding="utf-8")
    nothing = "http://127.0.0.1:9"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "1",
        "HF_ENDPOINT": nothing,
        "AWS_ENDPOINT_URL": nothing,
        **variables(HF_TOKEN=token),
    }
    for arguments in (command, [*command, "--json"] if command[0] != "--profile" else ["--json", *command]):
        done = subprocess.run(
            [sys.executable, "-m", "bake.cli", *arguments],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert "weights.token: HF_TOKEN (environment) has " in done.stderr
        assert "canary" not in done.stdout + done.stderr
        assert "NeverShown" not in done.stdout + done.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine.yaml", "profiles"]


def test_user_data_does_not_show_what_set_was_given(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from bake.cli import main_group

    given = {
        "AWS_REGION": "eu-west-1",
        "SPOT_AWS_REGION": "eu-north-1",
        "FLUX_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs",
        "FLUX_BUCKET": "pictures",
        "FLUX_EVENT_BUS": "flux",
        "HF_TOKEN": "canary-of-another-shape\n",  # not needed here: no mistake in it does any harm
    }

    def run(*arguments: str) -> Any:
        command = ["--profiles", str(PROFILES), "--env-file", str(tmp_path / "none"), "userdata"]
        more = [part for argument in arguments for part in ("--set", argument)]
        return CliRunner().invoke(main_group, [*command, "--profile", "g6e-ubuntu", *more], env=given)

    assert run().exit_code == 0
    for argument in (
        "canary-of-another-shape",
        "FLUX_X=canary-of-another-shape",
        "FLUX_X=https://me:canary@example.org",
        "FLUX_X=Authorization: canary",
    ):
        found = run(argument)
        assert isinstance(found.exception, UsageError), argument
        assert "canary" not in f"{found.exception.message}{found.exception.hint}{found.output}"
        assert "--set" in found.exception.message


def test_git_does_not_show_the_password_of_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`insteadOf` puts one into a URL that has none, and git prints the URL that it could not reach."""
    from bake import git
    from bake.errors import BakeError

    config = tmp_path / "gitconfig"
    config.write_text('[url "http://me:NeverShown@127.0.0.1:9/"]\n\tinsteadOf = https://example.org/\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    with pytest.raises(BakeError, match="git fetch failed") as caught:
        git.fetch("https://example.org/flux.git", "a" * 40, tmp_path / "files")
    assert "NeverShown" not in caught.value.message
