"""No secret is on the machine. The messages name places, never what lies there."""

from __future__ import annotations

from typing import Any

import pytest
from testinfra.host import Host

from bake.checks.caused import Caused
from bake.checks.expectations import Expectations

HF_TOKEN_FILES = ("huggingface/token", "huggingface/stored_tokens", ".huggingface/token")


@pytest.fixture
def token(expect: Expectations) -> None:
    """A run without a token (a cache that was warm) has none to look for."""
    if not expect.token:
        pytest.fail("the bake knew no token to look for", pytrace=False)


@pytest.mark.usefixtures("token")
def test_token_not_on_disk(secrets: dict[str, Any]) -> None:
    """The Hugging Face token of this run is in no file of the machine (R-CONFIG)."""
    assert secrets["searched"] > 0
    assert secrets["token_files"] == []


@pytest.mark.usefixtures("token")
def test_token_not_in_processes(secrets: dict[str, Any]) -> None:
    """The token is in no process's arguments or environment (R-CONFIG)."""
    assert secrets["token_processes"] == []


@pytest.mark.usefixtures("token")
def test_token_not_in_journal(secrets: dict[str, Any]) -> None:
    """The token is not in the journal (R-CONFIG)."""
    assert not secrets["token_in_journal"]


def test_no_other_hf_token(secrets: dict[str, Any], caused: Caused) -> None:
    """No file holds anything that looks like a Hugging Face token (R-CONFIG)."""
    assert caused("hf_tokens", secrets["hf_tokens"], secrets["changed"]) == []


def test_no_hf_token_file(host: Host, secrets: dict[str, Any], caused: Caused) -> None:
    """huggingface_hub has stored no token (R-CONFIG)."""
    names = " -o ".join(f"-path '*/{name}'" for name in HF_TOKEN_FILES)
    found = host.check_output(f"find /root /home /opt \\( {names} \\) -print").splitlines()
    known = {path: secrets["hf_token_files"].get(path, "no file") for path in found}
    assert caused("hf_token_files", known, secrets["changed"]) == []


def test_no_aws_keys(secrets: dict[str, Any], caused: Caused) -> None:
    """No AWS access key is on the machine: the role speaks for the worker (R-CONFIG)."""
    assert caused("aws_keys", secrets["aws_keys"], secrets["changed"]) == []


def test_no_private_keys(secrets: dict[str, Any], caused: Caused) -> None:
    """No private key is on the machine but its own host keys, which the seal destroys (R-CONFIG)."""
    assert caused("private_keys", secrets["private_keys"], secrets["changed"]) == []
