"""Broken profiles get an exact message each: file, line, column, what is wrong, and what to do."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from bake import profile
from bake.errors import BakeError, UsageError

from ..variables import VARIABLES as EXAMPLES
from . import broken_profiles
from .broken_profiles import GOOD

BROKEN = broken_profiles.load()
TOKEN = EXAMPLES["HF_TOKEN"]
VARIABLES = {
    **EXAMPLES,
    "EVERYBODY": "0.0.0.0/0",
    "REFERS": "${BASE_AMI_ID}",
    "GIT_URL": "https://git.example.com/flux.git",
    "GIT_URL_OF_MINE": "https://me:neverShown@git.example.com/flux.git",
    "NEURON_REPOSITORY": "https://neuron.example.com",
}


def secrets(name: str, key: str) -> str:
    """Secrets Manager with one secret, `flux`."""
    if name != "flux":
        raise BakeError(f"there is no secret {name}")
    return {"token": TOKEN, "empty": ""}[key]


def message(name: str, directory: Path) -> str:
    """What is printed for a broken profile, with paths as seen from its directory."""
    with pytest.raises(UsageError) as caught:
        profile.load(name, directory, VARIABLES, secrets)
    hint = f"\nhint: {caught.value.hint}" if caught.value.hint else ""
    return f"{caught.value.message}{hint}\n".replace(f"{directory}/", "")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_profile_gets_exactly_its_message(name: str, tmp_path: Path) -> None:
    BROKEN[name].write(tmp_path)
    found = message(name, tmp_path)
    assert found == BROKEN[name].message
    assert TOKEN not in found
    assert "neverShown" not in found
    assert "Traceback" not in found
    for line in found.splitlines():
        assert re.match(r"[\w.-]+\.yaml:\d+:\d+: \S|    \S|hint: ", line), line


def test_no_broken_profile_was_lost() -> None:
    assert len(BROKEN) >= 215


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(GOOD.decode().encode("utf-16"), "p.yaml:1:1: not UTF-8\n", id="UTF-16"),
        pytest.param(
            b"# " * 5_000_000,
            "p.yaml:1:1: 10,000,000 bytes; a profile has at most 65,536\n",
            id="10 MB",
        ),
        pytest.param(
            b"\xef\xbb\xbf" + GOOD.replace(b"80", b"80GB").replace(b"\n", b"\r\n"),
            "p.yaml:16:13: root_volume.size_gib: must be a whole number, not 80GB\n"
            "    write the number alone: size_gib counts GiB\n",
            id="BOM and CRLF",
        ),
        pytest.param(
            GOOD.replace(b"size_gib: 80", b"size_gib: " + b"8" * 5_000),
            f"p.yaml:16:13: root_volume.size_gib: YAML reads {'8' * 39}… as a number too large\n"
            "    write a plain decimal number\n",
            id="5,000 digits",
        ),
        pytest.param(b"[" * 60_000, "p.yaml:1:13: nested more than 12 deep\n", id="60,000 brackets"),
    ],
)
def test_large_and_binary_files_get_their_message_soon(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "p.yaml").write_bytes(content)
    started = time.monotonic()
    assert message("p", tmp_path) == expected
    assert time.monotonic() - started < 60


def test_an_unreadable_file_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("extends: _loop\n")
    (tmp_path / "_loop.yaml").symlink_to("_loop.yaml")
    assert message("p", tmp_path).startswith("p.yaml:1:10: extends: there is no profile _loop")
