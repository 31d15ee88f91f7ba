"""The kernel's settings are raised while a local cloud is up, and put back by the last to leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from bake.localcloud.images import base
from bake.localcloud.network import kernel


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host of another kind than this one, whose settings lie in a folder."""
    for name, value in (("net/ipv4/ip_forward", "0\n"), ("fs/inotify/max_user_instances", "128\n")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(value)
    monkeypatch.setattr(kernel, "_SETTINGS", tmp_path)
    monkeypatch.setattr(kernel, "RUN", tmp_path / "run")
    monkeypatch.setattr(kernel, "_USERS", tmp_path / "run/kernel")
    monkeypatch.setattr(kernel, "_BEFORE", tmp_path / "run/before.json")
    return tmp_path


def values(settings: Path) -> list[int]:
    return [int((settings / name).read_text()) for name in kernel.NEEDED]


def test_the_last_cloud_puts_them_back(settings: Path) -> None:
    before = values(settings)
    kernel.prepare("one")
    kernel.prepare("two")
    assert values(settings) == list(kernel.NEEDED.values())
    kernel.restore("one")
    assert values(settings) == list(kernel.NEEDED.values())
    kernel.restore("two")
    assert values(settings) == before


def test_what_is_high_enough_stays(settings: Path) -> None:
    (settings / "fs/inotify/max_user_instances").write_text("8192\n")
    kernel.prepare("one")
    assert values(settings) == [1, 8192]
    kernel.restore("one")
    assert values(settings) == [0, 8192]


def test_a_cloud_that_never_was_up_changes_nothing(settings: Path) -> None:
    kernel.prepare("one")
    kernel.restore("other")
    assert values(settings) == list(kernel.NEEDED.values())


def test_package_servers_are_known_by_their_addresses() -> None:
    lines = [
        "deb [signed-by=/k.gpg] http://127.0.0.9:3142/debian bookworm main",
        'Acquire::http::Proxy "http://localhost:8000"',
        "deb https://192.0.2.7/debian bookworm main",
        "deb http://a-name-that-only-the-network-knows.example/debian bookworm main",
    ]
    assert base.package_servers(lines) == {("127.0.0.9", 3142), ("127.0.0.1", 8000), ("192.0.2.7", 443)}
