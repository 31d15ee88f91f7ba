"""The pinned Python is downloaded by the controller."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from bake import interpreter
from bake.errors import BakeError


def archive(folder: Path, content: bytes, sha256: str = "") -> interpreter.Archive:
    file = folder / "python.tar.gz"
    file.write_bytes(content)
    lock = folder / "python.json"
    entry = {"url": file.as_uri(), "sha256": sha256 or hashlib.sha256(content).hexdigest(), "patch": 1}
    lock.write_text(json.dumps({"cpython-3.11.1-linux-x86_64-gnu": entry}))
    return interpreter.read(lock)


def test_the_locked_archive_is_fetched(tmp_path: Path) -> None:
    assert archive(tmp_path, b"python").fetch() == b"python"


def test_another_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        BakeError, match=r"cpython-3\.11\.1-linux-x86_64-gnu has another sha256: [0-9a-f]{64}"
    ):
        archive(tmp_path, b"python", sha256="0" * 64).fetch()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "http://nowhere.invalid/x"])
def test_a_server_that_does_not_answer_is_named(url: str) -> None:
    wanted = interpreter.Archive("cpython", url, "0" * 64)
    with pytest.raises(BakeError, match=r"cpython can't be fetched from (127|nowhere)"):
        wanted.fetch()
