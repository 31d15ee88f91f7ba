"""The Hugging Face cache holds exactly the pinned model, complete, and belongs to the worker."""

from __future__ import annotations

from typing import Any

from testinfra.host import Host

from bake import layout
from bake.checks.expectations import Expectations


def test_files_are_there(cache: dict[str, Any]) -> None:
    """Every file of the model that the cache shall hold is there: what diffusers loads (R-CACHE, R-MODEL)."""
    assert cache["missing"] == []


def test_files_have_their_size(cache: dict[str, Any]) -> None:
    """Every file of the model has the size the Hub states, to the byte (R-CACHE)."""
    assert cache["wrong_size"] == {}


def test_files_are_the_locked_ones(cache: dict[str, Any], expect: Expectations) -> None:
    """Every file of the model is the verified blob of the hash that the lock gives it (R-MODEL)."""
    blobs: dict[str, str] = cache["blobs"]
    assert {name: blob for name, blob in blobs.items() if blob != expect.digests[name]} == {}


def test_links_resolve(cache: dict[str, Any]) -> None:
    """Every link of the snapshot leads to a file inside the repository's folder (R-CACHE)."""
    assert cache["dangling"] == []
    assert cache["outside"] == []


def test_nothing_partly_downloaded(cache: dict[str, Any]) -> None:
    """Nothing partly downloaded takes up space (R-CACHE)."""
    assert cache["partial"] == []


def test_no_locks(cache: dict[str, Any]) -> None:
    """No lock files of the download are left (R-CACHE)."""
    assert cache["locks"] == []


def test_nothing_unneeded(cache: dict[str, Any]) -> None:
    """The snapshot holds nothing that diffusers does not load, no single-file checkpoint (R-DISK)."""
    assert cache["extra"] == []


def test_no_unused_blobs(cache: dict[str, Any]) -> None:
    """Every blob belongs to a file of the snapshot: none only takes up space (R-CACHE)."""
    assert cache["unused_blobs"] == []


def test_only_this_model(cache: dict[str, Any]) -> None:
    """No other model is on the image (R-MODEL)."""
    assert cache["other_repos"] == []


def test_only_this_revision(cache: dict[str, Any]) -> None:
    """No other revision of the model is on the image."""
    assert cache["other_revisions"] == []
    assert cache["other_refs"] == []


def test_cache_belongs_to_worker(host: Host, cache: dict[str, Any], expect: Expectations) -> None:
    """The whole cache belongs to the worker's user, who can read it (R-SYSTEMD)."""
    assert cache["owners"] == [host.user(expect.user).uid]
    assert cache["unreadable"] == []


def test_licence_notice(host: Host, expect: Expectations) -> None:
    """The notice that the model's licence asks for is on the image (R-MODEL)."""
    notice = host.file(layout.NOTICE)
    assert notice.exists
    assert "FLUX.1 [dev] Non-Commercial License" in notice.content_string
    assert expect.repo in notice.content_string
