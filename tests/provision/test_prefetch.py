"""The downloader as the builder runs it: what it leaves, what it refuses, and how it resumes."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download, try_to_load_from_cache

from bake.localcloud.hub.server import REPO, REVISION

from .downloads import FOLDER, LARGEST, SIZES, TOKEN, Downloads, HubProcess, lock_of, make_repository

pytestmark = pytest.mark.integration
RANGE_BYTES = 8 << 20


def assert_whole(downloads: Downloads, repository: Path) -> None:
    """The cache is huggingface_hub's, holds exactly what was wanted, and nothing is left beside it."""
    snapshot = Path(snapshot_download(REPO, cache_dir=downloads.cache, local_files_only=True))
    assert snapshot == downloads.snapshot
    files = {str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file()}
    assert files == set(downloads.files)
    for name in files:
        assert (snapshot / name).resolve() == downloads.blob(name)
        assert (snapshot / name).read_bytes() == (repository / name).read_bytes()
    [repo] = scan_cache_dir(downloads.cache).repos
    [revision] = repo.revisions
    assert (repo.repo_id, revision.commit_hash, revision.refs) == (REPO, REVISION, {"main"})
    assert sorted(path.name for path in downloads.cache.iterdir()) == [FOLDER]
    assert sorted(path.name for path in downloads.folder.iterdir()) == ["blobs", "refs", "snapshots"]
    assert {path.name for path in (downloads.folder / "blobs").iterdir()} == {
        downloads.blob(name).name for name in files
    }


def nothing_to_load(downloads: Downloads) -> bool:
    """Whether nobody finds a model in the cache."""
    found = try_to_load_from_cache(REPO, "model_index.json", cache_dir=downloads.cache, revision=REVISION)
    return found is None and not downloads.snapshot.exists()


def test_a_download_is_whole_and_a_second_one_fetches_nothing(
    downloads: Downloads, hub: HubProcess, repository: Path
) -> None:
    first = downloads.run()
    done = first.last("done")
    assert first.code == 0, first
    assert_whole(downloads, repository)
    assert done["files"] == {name: entry["bytes"] for name, entry in downloads.files.items()}
    assert (done["fetched"], done["reused"], done["from_mirror"]) == (downloads.bytes, 0, 0)
    assert done["folder"] == str(downloads.snapshot)
    assert hub.sent() == downloads.bytes  # of equal files only one was fetched
    last = first.last("progress")
    assert (last["done"], last["total"]) == (downloads.bytes, downloads.bytes)
    hub.forget()
    again = downloads.run().last("done")
    assert (again["fetched"], again["reused"], hub.sent()) == (0, downloads.bytes, 0)
    assert_whole(downloads, repository)


def test_the_ranges_of_weights_are_hashed_also_of_what_was_there(hub: HubProcess, tmp_path: Path) -> None:
    """Of a weights file with more than one range, and of no other file."""
    folder = tmp_path / "hub" / "repository"
    make_repository(folder, {**SIZES, LARGEST: 2 * RANGE_BYTES + 5})
    larger = HubProcess(folder)
    try:
        downloads = Downloads(larger.url, lock_of(folder), tmp_path / "cache")
        first, again = downloads.run().all("ranges"), downloads.run().all("ranges")
    finally:
        larger.stop()
    assert first == again
    assert {one["file"] for one in first} == {
        name for name in downloads.files if ".safetensors" in name[-12:]
    }
    (largest,) = [one for one in first if one["file"] == LARGEST]
    content = (folder / LARGEST).read_bytes()
    step = largest["range_bytes"]
    parts = [content[start : start + step] for start in range(0, len(content), step)]
    assert len(parts) == 3
    assert largest["sha256"] == [hashlib.sha256(part).hexdigest() for part in parts]


def test_what_is_there_is_enough_without_the_hub(repeated: Downloads, repository: Path) -> None:
    repeated.hub = "http://127.0.0.1:9"
    assert repeated.run().last("done")["reused"] == repeated.bytes
    assert_whole(repeated, repository)


def test_the_token_is_nowhere_while_it_runs_and_after(downloads: Downloads, hub: HubProcess) -> None:
    hub.fault("transformer/*", "slow", rate=2e3, times=None)
    process = downloads.start()
    try:
        while not hub.sent():
            assert process.poll() is None
            time.sleep(0.01)
        for name in ("cmdline", "environ"):
            assert TOKEN.encode() not in Path(f"/proc/{process.pid}/{name}").read_bytes()
    finally:
        process.kill()
    output, errors = process.communicate()
    assert TOKEN not in output + errors
    hub.forget()
    run = downloads.run()
    assert run.code == 0 and TOKEN not in f"{run.events}{run.errors}"
    assert subprocess.run(["grep", "-r", TOKEN, downloads.cache.parent], check=False).returncode == 1


def flip(blob: Path) -> None:
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)


def truncate(blob: Path) -> None:
    os.truncate(blob, blob.stat().st_size - 1)


def swap(blob: Path) -> None:
    blob.write_bytes(os.urandom(blob.stat().st_size))


def linked(blob: Path) -> None:
    """huggingface_hub's shared store: a link where a file is wanted."""
    elsewhere = blob.with_name("elsewhere")
    blob.rename(elsewhere)
    blob.symlink_to(elsewhere.name)


@pytest.mark.parametrize(
    ("damage", "path"),
    [
        (flip, LARGEST),
        (swap, LARGEST),
        (truncate, LARGEST),
        (linked, LARGEST),
        pytest.param(flip, "model_index.json", id="flip-with-a-git-hash"),
    ],
)
def test_damage_in_the_cache_is_found_named_and_made_good(
    repeated: Downloads, hub: HubProcess, repository: Path, damage: Callable[[Path], None], path: str
) -> None:
    damage(repeated.blob(path))
    run = repeated.run()
    assert run.last("done")["fetched"] == repeated.files[path]["bytes"] == hub.sent()
    if damage in (flip, swap):
        assert run.last("corrected")["file"] == path
        assert "from the disk" in run.last("corrected")["why"]
    else:
        assert repeated.blob(path).name in str(run.last("leftovers"))
    assert_whole(repeated, repository)


def test_leftovers_are_told_and_cleaned_where_they_are_ours(downloads: Downloads, repository: Path) -> None:
    etag = downloads.blob(LARGEST).name
    ours = {
        f"{FOLDER}/blobs/{etag}.1a2b3c4d.incomplete": 5000,  # huggingface_hub's, which it never continues
        f"{FOLDER}/blobs/{'0' * 64}.incomplete": 6000,
        f"{FOLDER}/blobs/{'1' * 64}": 7000,
        f"{FOLDER}/snapshots/{'2' * 40}/model_index.json": 800,
        f"{FOLDER}/refs/pr/1": 40,
        f"{FOLDER}/trees/{'2' * 40}.json": 900,
        f"{FOLDER}/.no_exist/{'2' * 40}/x": 0,
        f".locks/{FOLDER}/{etag}.lock": 0,
    }
    others = {"models--some--other/blobs/x": 9000, ".locks/models--some--other/x.lock": 0}
    for name, size in (ours | others).items():
        path = downloads.cache / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    told = downloads.run().last("leftovers")
    removed = [entry["path"] for entry in told["files"] if entry["removed"]]
    assert len(removed) == len(ours)
    assert told["bytes"] >= sum(ours.values())
    assert [entry["path"] for entry in told["files"] if not entry["removed"]] == ["models--some--other"]
    assert not any((downloads.cache / name).exists() for name in ours)
    assert all((downloads.cache / name).exists() for name in others)
    for name in ("models--some--other", ".locks"):
        shutil.rmtree(downloads.cache / name)
    assert_whole(downloads, repository)


def test_two_at_once_do_not_meet(downloads: Downloads, hub: HubProcess, repository: Path) -> None:
    hub.fault("transformer/*", "slow", rate=2e3, times=3)
    first = downloads.start()
    while not hub.sent():
        assert first.poll() is None
        time.sleep(0.01)
    second = downloads.run().last("refused")
    assert (second["kind"], FOLDER in second["reason"]) == ("busy", True)
    first.kill()
    first.communicate()
    hub.forget()
    assert downloads.run().code == 0  # the lock went with the process
    assert_whole(downloads, repository)


def test_the_token_decides_and_its_lack_costs_nothing_that_is_there(
    downloads: Downloads, hub: HubProcess
) -> None:
    other_revision = downloads.folder / "blobs" / ("1" * 64)
    other_revision.parent.mkdir(parents=True)
    other_revision.write_bytes(b"")
    missing = dataclasses.replace(downloads, token="").run()
    other = dataclasses.replace(downloads, token="hf_" + "other" * 6).run()
    assert (missing.code, other.code) == (1, 1)
    assert (missing.last("refused")["kind"], missing.last("refused")["status"]) == ("token-missing", 401)
    assert (other.last("refused")["kind"], other.last("refused")["status"]) == ("not-accepted", 403)
    assert f"https://huggingface.co/{REPO}" in other.last("refused")["hint"]
    assert hub.sent() == 0
    assert other_revision.exists()


@pytest.mark.parametrize(
    ("status", "message", "kind", "hint"),
    [
        pytest.param(401, "Invalid credentials", "token-wrong", "settings/tokens", id="unknown-token"),
        pytest.param(
            403,
            "Please enable access to public gated repositories in your fine-grained token settings",
            "token-wrong",
            "Read access to contents of all public gated repos",
            id="token-without-gated-access",
        ),
        pytest.param(403, "You are not in the authorized list", "not-accepted", "accept", id="licence"),
        pytest.param(
            403,
            "Your request to access this repo is awaiting a review from the repo authors",
            "not-accepted",
            "not granted yet",
            id="licence-not-granted-yet",
        ),
        pytest.param(404, "Entry not found", "not-found", "weights.revision", id="not-found"),
        pytest.param(418, "I'm a teapot", "unreachable", "status.huggingface.co", id="never-heard-of"),
    ],
)
def test_a_refusal_says_why_and_what_to_do(
    downloads: Downloads, hub: HubProcess, status: int, message: str, kind: str, hint: str
) -> None:
    hub.fault(LARGEST, "status", status=status, message=message)
    refused = downloads.run().last("refused")
    assert (refused["kind"], refused["status"], message in refused["reason"]) == (kind, status, True)
    assert hint in refused["hint"]
    assert nothing_to_load(downloads)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"bytes": 1_300_001}, "1300001", id="size"),
        pytest.param({"sha256": "0" * 64}, "0" * 64, id="hash"),
    ],
)
def test_another_file_than_locked_is_refused_before_a_byte(
    downloads: Downloads, hub: HubProcess, change: dict[str, int | str], said: str
) -> None:
    downloads.files[LARGEST] |= change
    refused = downloads.run().last("refused")
    assert refused["kind"] == "changed"
    assert LARGEST in refused["reason"] and said in refused["reason"]
    assert "bake lock --update" in refused["hint"]
    assert hub.sent() == 0


def test_a_locked_file_that_is_gone_is_refused(downloads: Downloads, hub: HubProcess) -> None:
    downloads.files["vae/more.safetensors"] = {"bytes": 1, "sha256": "0" * 64}
    refused = downloads.run().last("refused")
    assert (refused["kind"], "vae/more.safetensors is not there" in refused["reason"]) == ("changed", True)


def test_a_path_never_leaves_the_snapshot(downloads: Downloads, hub: HubProcess) -> None:
    downloads.files["../../../x.safetensors"] = {"bytes": 1, "sha256": "0" * 64}
    run = downloads.run()
    assert run.code == 2
    assert "can't be a file of a repository" in run.errors
    assert hub.sent() == 0


def test_too_little_space_is_reported_before_the_download(downloads: Downloads, hub: HubProcess) -> None:
    refused = dataclasses.replace(downloads, reserve=1 << 50).run().last("refused")
    assert (refused["kind"], "GB" in refused["reason"]) == ("space", True)
    assert hub.sent() == 0


def test_space_for_others_is_asked_for_when_a_download_begins_only(
    repeated: Downloads, repository: Path
) -> None:
    """They have taken it when it goes on after a restart."""
    repeated.blob(LARGEST).unlink()
    repeated.reserve = 1 << 50
    assert repeated.run().last("done")["fetched"] == repeated.files[LARGEST]["bytes"]
    assert_whole(repeated, repository)


def test_a_cache_in_memory_is_refused_before_a_byte(
    hub: HubProcess, repository: Path, tmp_path: Path
) -> None:
    memory = Path("/dev/shm") / f"bake-{tmp_path.name}-{os.getpid()}"
    memory.mkdir()
    try:
        refused = Downloads(hub.url, lock_of(repository), memory / "cache", "loop").run().last("refused")
        assert not (memory / "cache").exists()
    finally:
        shutil.rmtree(memory)
    assert refused["kind"] == "not-ebs"
    assert "tmpfs" in refused["reason"] and "weights.cache" in refused["hint"]
    assert hub.sent() == 0


def test_python_of_the_oldest_base_image_can_read_it() -> None:
    """Ubuntu 22.04's own Python is 3.10: newer syntax would fail on the builder only."""
    package = Path(__file__).parents[2] / "provision" / "prefetch"
    for module in package.glob("*.py"):
        ast.parse(module.read_text(encoding="utf-8"), feature_version=(3, 10))
