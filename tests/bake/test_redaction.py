"""Redaction removes every form of a secret from text, and nothing else."""

from __future__ import annotations

import base64
import html
import io
import json
import logging
import shlex
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import boto3
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bake import redaction, ssh
from bake.aws import Aws
from bake.errors import UsageError
from bake.localcloud.lifecycle.daemon import Redacted
from bake.progress import JsonScreen, PlainScreen, Progress
from bake.redaction import MARK, SHORTEST, Registry, redact, redact_all
from bake.run import Run
from bake.ssh import CommandResult
from bake.steps.launch import KeyPair
from bake.units import Unit

TOKEN = "hf_" + "canary" * 4

ESCAPES: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": json.dumps,
    "JSON with its letters": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON in JSON": lambda text: json.dumps(json.dumps({"line": text})),
    "repr": repr,
    "repr beside quotes": lambda text: repr(f'it\'s "{text}"'),
    "repr of bytes": lambda text: repr(text.encode()),
    "ascii": ascii,
    "a header in an error": lambda text: f"Illegal header value {b'Bearer ' + text.encode()!r}",
    "a URL's path": quote,
    "a URL's query": lambda text: quote(text, safe=""),
    "a form": quote_plus,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of a line": lambda text: base64.b64encode(f"{text}\n".encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "HTML": html.escape,
    "a shell's word": shlex.quote,
    "without what is around it": str.strip,
}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(
    secret=st.text(st.characters(exclude_categories=["Cs"]), min_size=SHORTEST).filter(
        lambda text: len(text.strip()) >= SHORTEST and text.strip() not in MARK
    ),
    before=st.text("ab'\"{}\n /", max_size=5),
)
@example(secret="hf_canary\n", before="")
@example(secret='it\'s "quoted" \\n', before="'")
@example(secret="пароль на русском", before="")
@example(secret="a+b/c=d e&f<g>", before="")
def test_no_registered_secret_survives_in_any_form(secret: str, before: str) -> None:
    registry = Registry()
    registry.register(secret)
    for name, escaped in ESCAPES.items():
        form = escaped(secret)
        left = registry.redact(f"{before}{form} after")
        assert form not in left, name
        assert secret not in left, name
        assert MARK in left, name
        assert left.endswith("after"), name


def test_every_line_of_a_private_key_is_a_secret() -> None:
    private = KeyPair.generate().private  # registers it
    lines = [line for line in private.splitlines() if not line.startswith("-----")]
    assert len(lines) >= 5
    for line in lines:
        if len(line) >= 20:
            assert redact(f"scratch: {line}") == f"scratch: {MARK}"
    shown = redact(json.dumps({"cloud-config": private}))
    assert not any(line in shown for line in lines)
    assert "ssh-ed25519 AAAA" in redact("the public half is ssh-ed25519 AAAA")


@pytest.mark.parametrize("value", ["", "80", "ubuntu", "short\n\n\n\n\n"], ids=repr)
def test_a_word_is_no_secret(value: str) -> None:
    redaction.register(value)
    assert (
        redact("ubuntu with 80 GiB, short\n\n\n\n\nand more") == "ubuntu with 80 GiB, short\n\n\n\n\nand more"
    )


def test_the_longer_of_two_secrets_is_taken_out_whole() -> None:
    for secret in ("canary-one", "canary-one-and-more"):
        redaction.register(secret)
    assert redact("canary-one-and-more, canary-one") == f"{MARK}, {MARK}"


PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAK\n-----END RSA PRIVATE KEY-----"
SIGNED = "https://b.s3.amazonaws.com/k?X-Amz-Credential=AKIA%2F2024&X-Amz-Expires=9&X-Amz-Signature=0a1b2c"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(f"a {TOKEN} b", f"a {MARK} b", id="token"),
        pytest.param(f"b'Bearer {TOKEN}\\n'", f"b'Bearer {MARK}\\n'", id="token-in-bytes"),
        pytest.param(
            SIGNED,
            f"https://b.s3.amazonaws.com/k?X-Amz-Credential={MARK}&X-Amz-Expires=9&X-Amz-Signature={MARK}",
            id="presigned",
        ),
        pytest.param("x-amz-security-token: FwoGZX+/=", f"x-amz-security-token: {MARK}", id="session-header"),
        pytest.param(f"key:\n{PEM}\nafter", f"key:\n{MARK}\nafter", id="private-key"),
        pytest.param(json.dumps(PEM), f'"{MARK}"', id="private-key-in-JSON"),
        pytest.param(PEM[:45], MARK, id="private-key-cut-off"),
        pytest.param("Authorization: Bearer abc", f"Authorization: {MARK}", id="header"),
        pytest.param(
            "{'authorization': 'Basic abc'}", "{'authorization': " + MARK + "}", id="header-in-a-mapping"
        ),
        pytest.param(
            "Authorization: AWS4-HMAC-SHA256 Credential=A/b, Signature=0a1b",
            f"Authorization: {MARK}",
            id="header-of-AWS",
        ),
        pytest.param("is Bearer abcdefghijk ok", f"is Bearer {MARK} ok", id="bearer"),
        pytest.param("https://me:pass@host/x", f"https://{MARK}@host/x", id="password"),
        pytest.param("'ssh://me:p@ss/w@host/x'", f"'ssh://{MARK}@host/x'", id="password-with-signs"),
        pytest.param("https://ghp_abc@host/x", f"https://{MARK}@host/x", id="token-as-user"),
        pytest.param("http://h/x?a=1&token=abc", f"http://h/x?a=1&token={MARK}", id="token-in-a-query"),
    ],
)
def test_known_shapes_need_no_registration(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(redact(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "hf_hub_download of hf_cache",
        "https://huggingface.co/black-forest-labs/FLUX.1-dev/commits/main",
        "http://127.0.0.1:4566/a/b@c",
        "ssh://git@example.org:22/flux.git",
        "git@example.org:flux.git",
        "s3://bucket/prefix and ami-0123456789abcdef0 in eu-north-1",
        "UnauthorizedOperation: You are not authorized to perform this operation.",
        "the basic functionality of a bearer",
        "without authorization, nothing is done",
    ],
)
def test_text_without_secrets_is_unchanged(text: str) -> None:
    assert redact(text) == text


def test_nested_values_are_redacted_with_their_keys() -> None:
    value = {"a": [TOKEN, 1, None, True, ("x", TOKEN)], TOKEN: {"b": 1.5}}
    assert redact_all(value) == {"a": [MARK, 1, None, True, ("x", MARK)], MARK: {"b": 1.5}}


def test_many_threads_register_and_redact_at_once() -> None:
    secrets = [f"canary-number-{number:04}" for number in range(60)]
    failed: list[str] = []

    def work(own: list[str]) -> None:
        for secret in own:
            redaction.register(secret)
            if secret in redact(f"x {secret} y"):
                failed.append(secret)

    threads = [threading.Thread(target=work, args=(secrets[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert not any(secret in redact(" ".join(secrets)) for secret in secrets)


def test_events_and_screens_hold_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    redaction.register("canary-of-a-store\n")
    plain = io.StringIO()
    for screen in (PlainScreen(plain), JsonScreen()):
        progress = Progress(screen)
        progress.record_to(tmp_path / "events.jsonl")
        progress.note("the header was b'canary-of-a-store\\n'")
        progress.emit("failed", message="canary-of-a-store", facts={"deep": ["canary-of-a-store"]})
        progress.close()
    shown = plain.getvalue() + capsys.readouterr().out + (tmp_path / "events.jsonl").read_text()
    assert MARK in shown
    assert "canary" not in shown


def test_logs_of_units_hold_no_secret(tmp_path: Path) -> None:
    session: Any = None
    unit = Unit(session, "bake-x", ("x",), 0.0)
    run = Run("1", tmp_path, Progress(PlainScreen(io.StringIO())))
    unit.save_logs(run, CommandResult(("x",), 1, f"out {TOKEN}", f"err {SIGNED}", 0.0))
    assert (run.logs / "bake-x.out.log").read_text() == f"out {MARK}"
    assert "0a1b2c" not in (run.logs / "bake-x.err.log").read_text()


def test_the_local_clouds_log_holds_no_secret_in_a_traceback() -> None:
    try:
        raise RuntimeError(f"no header {TOKEN}")
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "failed: %s", (TOKEN,), sys.exc_info())
    text = Redacted("%(message)s").format(record)
    assert "Traceback" in text
    assert TOKEN not in text


def test_credentials_of_aws_are_registered_when_something_is_signed() -> None:
    session = boto3.Session(
        aws_access_key_id="AKIAEXAMPLE",
        aws_secret_access_key="canary/secret/key",
        aws_session_token="canary/session/token",
        region_name="eu-west-1",
    )
    session.events.register("before-sign", redaction.register_credentials)
    s3: Any = session.client("s3")
    assert redact("canary/secret/key") == "canary/secret/key"
    s3.generate_presigned_url("get_object", {"Bucket": "b", "Key": "k"})
    assert redact("canary/secret/key canary%2Fsession%2Ftoken") == f"{MARK} {MARK}"


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN"])
def test_credentials_that_no_header_takes_are_named_before_a_request(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "canary")
    monkeypatch.setenv(name, "canary-of-aws\n")
    with pytest.raises(UsageError) as caught:
        Aws(region="eu-north-1", worker_region="eu-west-1").sts.get_caller_identity()
    assert caught.value.message == f"{name} (environment) has a line break at its end"


def test_a_secret_is_known_before_a_command_is_cut_short() -> None:
    redaction.register("a-secret-of-some-length")
    shown = ssh._short(("echo", "x" * (ssh.SHORT - 15), "a-secret-of-some-length"))
    assert "a-sec" not in shown
