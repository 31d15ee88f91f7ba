"""One Hub process for all tests of the downloader, and a cache of their own for each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .downloads import Downloads, HubProcess, lock_of, make_repository


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small repository with FLUX.1-dev's layout."""
    folder = tmp_path_factory.mktemp("hub") / "repository"
    make_repository(folder)
    return folder


@pytest.fixture(scope="session")
def hub_process(repository: Path) -> Iterator[HubProcess]:
    process = HubProcess(repository)
    yield process
    process.stop()


@pytest.fixture
def hub(hub_process: HubProcess) -> HubProcess:
    """The Hub, without faults and with nothing counted."""
    hub_process.forget()
    return hub_process


@pytest.fixture
def downloads(hub: HubProcess, repository: Path, tmp_path: Path) -> Downloads:
    """Downloads of the whole repository into an empty cache."""
    return Downloads(hub.url, lock_of(repository), tmp_path / "cache")


@pytest.fixture(scope="session")
def whole_cache(hub_process: HubProcess, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with everything in it, to be copied."""
    hub_process.forget()
    folder = tmp_path_factory.mktemp("whole") / "cache"
    Downloads(hub_process.url, lock_of(repository), folder).run().last("done")
    return folder


@pytest.fixture
def repeated(whole_cache: Path, downloads: Downloads) -> Downloads:
    """Downloads into a cache that has everything."""
    shutil.copytree(whole_cache, downloads.cache, symlinks=True)
    return downloads
