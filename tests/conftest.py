"""One local cloud for all tests that need real machines; it lives in a directory and network of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bake.localcloud import cloud as localcloud
from bake.localcloud import network
from bake.localcloud.cloud import LocalCloud
from bake.localcloud.settings import Settings


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without root the machines' tests are skipped, and say so."""
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs root: real machines"))


@pytest.fixture(scope="session")
def cloud_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The test cloud's place: beside a cloud of the user's, with the same caches (BAKE_CACHE)."""
    monkeypatch = pytest.MonkeyPatch()
    state: Path = tmp_path_factory.mktemp("local-cloud")
    monkeypatch.setenv("BAKE_LOCAL_STATE", str(state))
    for number in range(1, 9):  # another test run of the same machine may have the first
        monkeypatch.setenv("BAKE_LOCAL_NETWORK", f"10.214.{number}.0/24")
        if not network.claimed(Settings.load()):
            break
    yield Settings.load()
    monkeypatch.undo()


@pytest.fixture(scope="session")
def cloud(cloud_settings: Settings) -> Iterator[LocalCloud]:
    """A local cloud that is up; it goes with the test session, also when that is killed."""
    with localcloud.running(print) as up:
        yield up
