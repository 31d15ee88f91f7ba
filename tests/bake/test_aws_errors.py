"""What the user reads about errors from AWS and from the network; real clients raise each of them."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from bake import aws_errors
from bake.errors import BakeError

SECRET = "neverShown"
VARIABLES = (*aws_errors.PROXIES, *aws_errors.CERTIFICATES, "AWS_PROFILE", "AWS_CONFIG_FILE", "NO_PROXY")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a user with credentials and nothing else."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")


def raised(endpoint: str | None = None, patience: float = 60) -> Exception:
    """What a client raises when it asks EC2."""
    config = Config(connect_timeout=patience, read_timeout=patience, retries={"total_max_attempts": 1})  # type: ignore[call-arg]
    try:
        ec2 = boto3.Session().client("ec2", region_name="eu-north-1", endpoint_url=endpoint, config=config)
        ec2.describe_regions()
    except Exception as error:
        return error
    raise AssertionError("AWS answered")


def hint(error: Exception) -> str:
    found = aws_errors.explain(error)
    assert found is not None
    assert found[0].startswith("AWS: ")
    assert SECRET not in f"{found}"
    return found[1]


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A port where each connection gets `answer`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def hang_up(connection: socket.socket) -> None:
    connection.recv(65536)


def speak_plain(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 no\r\n\r\n")


def say_nothing(connection: socket.socket) -> None:
    connection.settimeout(60)
    while connection.recv(65536):
        pass


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://nowhere.invalid"], ids=["port", "name"])
def test_an_unreachable_endpoint_is_about_the_network(endpoint: str) -> None:
    found = hint(raised(endpoint))
    assert "network" in found
    assert "proxy" in found
    assert "get-caller-identity" not in found
    assert "credential" not in found


@pytest.mark.parametrize(
    ("answer", "patience"), [(hang_up, 60), (say_nothing, 0.5)], ids=["closed", "silent"]
)
def test_a_connection_that_breaks_is_about_the_network(answer: Any, patience: float) -> None:
    with serving(answer) as place:
        assert "network" in hint(raised(f"http://{place}", patience))


def test_the_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for password in (SECRET, f"{SECRET}@more", f"{SECRET}/more"):
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:{password}@127.0.0.1:9")
        found = hint(raised())
        assert "HTTPS_PROXY=" in found
        assert "NO_PROXY" in found
    monkeypatch.setenv("HTTPS_PROXY", f"me:{SECRET}@127.0.0.1:9")
    assert "HTTPS_PROXY=***@127.0.0.1:9" in hint(raised())
    assert "HTTPS_PROXY=***@127.0.0.1:9" in hint(raised("http://127.0.0.1:9"))


def test_a_certificate_that_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(speak_plain) as place:
        error = raised(f"https://{place}")
    assert "AWS_CA_BUNDLE names a file" in hint(error)
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere")
    assert "AWS_CA_BUNDLE=/nowhere names no file" in hint(raised())
    monkeypatch.setenv("AWS_CA_BUNDLE", str(ssl.get_default_verify_paths().cafile))


def test_a_profile_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    found = hint(raised())
    assert "aws configure list-profiles" in found
    assert "AWS_PROFILE=nobody" in found


def test_a_broken_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("[default\nbroken")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "broken"))
    assert f"AWS_CONFIG_FILE={tmp_path / 'broken'}" in hint(raised())


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_no_credentials(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name)
    assert "aws configure or aws sso login" in hint(raised())


def test_a_session_that_has_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "[profile mine]\nsso_start_url = https://example.awsapps.com/start\nsso_region = eu-west-1\n"
        "sso_account_id = 123456789012\nsso_role_name = baker\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert hint(raised()) == "sign in again: aws sso login --profile mine"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("ExpiredToken", "have ended"),
        ("ExpiredTokenException", "have ended"),
        ("RequestExpired", "have ended"),
        ("AuthFailure", "does not know these credentials"),
        ("InvalidClientTokenId", "does not know these credentials"),
        ("UnrecognizedClientException", "does not know these credentials"),
        ("SignatureDoesNotMatch", "clock"),
        ("InvalidSignatureException", "clock"),
        ("RequestTimeTooSkewed", "clock"),
        ("UnauthorizedOperation", "permission"),
        ("AccessDeniedException", "permission"),
        ("OptInRequired", "has not enabled"),
        ("ThrottlingException", "fewer calls"),
        ("InvalidSubnetID.NotFound", "get-caller-identity"),
    ],
)
def test_what_the_apis_refuse(code: str, expected: str) -> None:
    error = ClientError({"Error": {"Code": code, "Message": "no"}}, "DescribeRegions")
    assert expected in hint(error)


@pytest.mark.parametrize("error", [ValueError("x"), BakeError("x"), OSError("x"), ConnectionError("x")])
def test_other_errors_are_not_awss(error: Exception) -> None:
    assert aws_errors.explain(error) is None


ENCODED = "Encoded authorization failure message: g4oZPBqZ4Bni8dE5d_GjxYTnOZ-x"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (f"User: a is not authorized to perform: b. {ENCODED}", "User: a is not authorized to perform: b"),
        # All that such an answer tells is in the encoded part.
        (f"You are not authorized. {ENCODED}", f"You are not authorized. {ENCODED}"),
    ],
)
def test_what_ec2_says_in_words_is_not_shown_encoded(message: str, shown: str) -> None:
    error = ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": message}}, "RunInstances")
    explained = aws_errors.explain(error)
    assert explained is not None
    assert explained[0].endswith(f": {shown}")
