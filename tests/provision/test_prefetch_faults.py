"""Real faults during a download: in the end all files are there and verified, or the error says why not."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from .downloads import HASTY, LARGEST, Downloads, HubProcess, Run, lock_of
from .test_prefetch import assert_whole, nothing_to_load

pytestmark = pytest.mark.integration
SIZE = 1_300_000


def finished(downloads: Downloads, repository: Path, *, corrected: int = 0) -> Run:
    """Run it; all must be there, with so many files fetched anew because they were wrong."""
    run = downloads.run()
    assert run.code == 0, run
    assert len(run.all("corrected")) == corrected, run
    assert_whole(downloads, repository)
    return run


def refused(downloads: Downloads, kind: str) -> dict[str, str]:
    """Run it; it must be refused, at once, in words, and leave nothing that looks like a model."""
    run = downloads.run()
    entry: dict[str, str] = run.last("refused")
    assert (run.code, entry["kind"]) == (1, kind)
    assert len(run.all("refused")) == 1
    assert entry["reason"] and entry["hint"]
    assert nothing_to_load(downloads)
    return entry


def test_cut_at_every_tenth(downloads: Downloads, hub: HubProcess, repository: Path) -> None:
    for tenth in range(1, 10):
        hub.fault(LARGEST, "cut", at=tenth / 10)
    run = finished(downloads, repository)
    assert len(run.all("retry")) == 9
    assert all(entry["file"] == LARGEST and entry["why"] for entry in run.all("retry"))
    # What was there was continued each time, not begun anew.
    assert hub.sent() < downloads.bytes + 9 * 1000
    assert hub.ranges(LARGEST) == ["", *(f"bytes={SIZE * tenth // 10}-" for tenth in range(1, 10))]


def test_cut_before_the_first_byte(downloads: Downloads, hub: HubProcess, repository: Path) -> None:
    hub.fault("*", "cut", at=0.001, times=3)
    finished(downloads, repository)


def test_too_many_requests_waits_for_retry_after(
    downloads: Downloads, hub: HubProcess, repository: Path
) -> None:
    hub.fault(LARGEST, "status", status=429, retry_after=2)
    started = time.monotonic()
    run = finished(downloads, repository)
    assert time.monotonic() - started > 2
    assert (run.last("retry")["wait"], "429" in run.last("retry")["why"]) == (2, True)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param("7", 7, id="seconds"),
        pytest.param("86400", 900, id="never-a-day"),
        pytest.param("Wed, 21 Oct 2015 07:28:00 GMT", 0, id="date-in-the-past"),
        pytest.param("soon, GMT", None, id="nonsense"),
        pytest.param("", None, id="empty"),
    ],
)
def test_a_time_to_wait_is_understood_or_left(
    monkeypatch: pytest.MonkeyPatch, value: str, seconds: float | None
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "provision")
    http = importlib.import_module("prefetch.http")
    assert http.retry_after({"Retry-After": value}) == seconds


def test_server_errors_pass(downloads: Downloads, hub: HubProcess, repository: Path) -> None:
    for status in (500, 502, 503):
        hub.fault(LARGEST, "status", status=status)
    run = finished(downloads, repository)
    assert [entry["attempt"] for entry in run.all("retry")] == [1, 2, 3]


def test_errors_without_end_are_refused_and_the_rest_is_kept(
    downloads: Downloads, hub: HubProcess, repository: Path
) -> None:
    hub.fault(LARGEST, "status", status=503, times=None)
    entry = refused(downloads, "unreachable")
    assert LARGEST in entry["reason"] and "503" in entry["reason"]
    there = sum({downloads.blob(path): size for path, size in partials(downloads).items()}.values())
    assert there
    hub.forget()
    done = finished(downloads, repository).last("done")
    assert done["fetched"] == hub.sent() == downloads.bytes - there  # only what was missing


@pytest.mark.parametrize("at", [0.001, 0.7])
def test_a_stall_is_noticed(downloads: Downloads, hub: HubProcess, repository: Path, at: float) -> None:
    hub.fault(LARGEST, "stall", at=at, seconds=600)
    downloads.options = HASTY
    run = finished(downloads, repository)
    assert any("nothing came" in entry["why"] for entry in run.all("retry"))


def test_a_crawl_counts_as_a_stall(downloads: Downloads, hub: HubProcess, repository: Path) -> None:
    hub.fault(LARGEST, "slow", rate=50, times=None)  # until it is seen: a pause of the Hub's is a stall, too
    downloads.options = HASTY
    process = downloads.start()
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "retry" and "only" in event["why"]:
            break
    else:
        pytest.fail(f"no crawl was noticed: {process.communicate()[1]}")
    hub.remote.mend()
    process.communicate(timeout=600)
    assert process.returncode == 0
    assert_whole(downloads, repository)


def test_a_wrong_byte_is_found_named_and_fetched_again_once(
    downloads: Downloads, hub: HubProcess, repository: Path
) -> None:
    hub.fault(LARGEST, "flip", at=0.7)
    corrected = finished(downloads, repository, corrected=1).last("corrected")
    assert corrected["file"] == LARGEST
    assert downloads.blob(LARGEST).name in corrected["why"]
    assert hub.sent() == downloads.bytes + SIZE


def test_wrong_bytes_each_time_are_refused(downloads: Downloads, hub: HubProcess) -> None:
    hub.fault(LARGEST, "flip", times=None)
    entry = refused(downloads, "damaged")
    assert LARGEST in entry["reason"] and downloads.blob(LARGEST).name in entry["reason"]
    assert not downloads.blob(LARGEST).exists()
    assert hub.ranges(LARGEST) == ["", ""]


@pytest.mark.parametrize("by", [-1000, 1000], ids=["shorter", "longer"])
def test_a_wrong_length_passes_or_is_refused(
    downloads: Downloads, hub: HubProcess, repository: Path, by: int
) -> None:
    hub.fault(LARGEST, "length", by=by, times=None)
    entry = refused(downloads, "damaged")
    assert str(SIZE + by) in entry["reason"] and str(SIZE) in entry["reason"]
    hub.forget()
    hub.fault(LARGEST, "length", by=by)
    assert str(SIZE + by) in finished(downloads, repository).last("retry")["why"]


def test_a_file_that_changes_between_two_requests(
    downloads: Downloads, hub: HubProcess, repository: Path
) -> None:
    hub.fault(LARGEST, "cut", at=0.4)
    hub.fault(LARGEST, "changed", after=2)  # after the metadata and the first part of the file
    entry = refused(downloads, "changed")
    assert LARGEST in entry["reason"] and "bake lock --update" in entry["hint"]
    hub.forget()
    finished(downloads, repository)
    assert hub.sent() < downloads.bytes  # the part of the first version was continued


def test_a_server_without_ranges(downloads: Downloads, hub: HubProcess, repository: Path) -> None:
    hub.fault(LARGEST, "cut", at=0.6)
    hub.fault(LARGEST, "no-ranges")
    finished(downloads, repository)


def test_a_storage_host_of_the_hubs(downloads: Downloads, hub: HubProcess, repository: Path) -> None:
    """It gets no token, its etag is its own, and an address of its that has expired is asked for anew."""
    hub.fault(LARGEST, "elsewhere", status=403)
    hub.fault("*", "elsewhere", times=None)
    run = finished(downloads, repository)
    assert "HTTP 403 from localhost" in run.last("retry")["why"]


def test_a_partial_file_of_something_else_is_made_good(
    downloads: Downloads, hub: HubProcess, repository: Path
) -> None:
    partial = downloads.blob(LARGEST).with_name(f"{downloads.blob(LARGEST).name}.incomplete")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(os.urandom(1000))
    run = finished(downloads, repository, corrected=1)
    assert "the Hub and the disk" in run.last("corrected")["why"]


def partials(downloads: Downloads) -> dict[str, int]:
    """Bytes of each large file that are there, whole or not."""
    sizes = {}
    for path in downloads.files:
        blob = downloads.blob(path)
        for there in (blob, blob.with_name(f"{blob.name}.incomplete")):
            with contextlib.suppress(FileNotFoundError):
                sizes[path] = there.stat().st_size
    return sizes


@pytest.mark.parametrize("part", [0.02, 0.5, 0.95])
def test_killed_it_goes_on_where_it_was(
    downloads: Downloads, hub: HubProcess, repository: Path, part: float
) -> None:
    hub.fault("*", "slow", rate=2.5e6, times=None)
    while True:
        process = downloads.start()
        while sum(partials(downloads).values()) < downloads.bytes * part and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        process.communicate()
        there = partials(downloads)
        if sum(there.values()) < downloads.bytes:
            break
        shutil.rmtree(downloads.cache)  # on a busy host all was there before it was killed
    assert nothing_to_load(downloads)
    hub.forget()
    done = finished(downloads, repository).last("done")
    assert done["reused"] >= downloads.bytes * part
    assert done["fetched"] == downloads.bytes - done["reused"]
    begun = {path: size for path, size in there.items() if size}
    for path, size in begun.items():
        expected = [] if size == downloads.files[path]["bytes"] else [f"bytes={size}-"]
        assert hub.ranges(path) == expected, path


def test_killed_again_and_again(downloads: Downloads, hub: HubProcess, repository: Path) -> None:
    """Also while it hashes, links and cleans."""
    hub.fault("*", "slow", rate=2e6, times=None)
    for milliseconds in range(400, 1200, 200):
        process = downloads.start()
        time.sleep(milliseconds / 1000)
        process.kill()
        process.communicate()
    hub.remote.mend()
    finished(downloads, repository)


def test_killed_while_it_cleans_it_leaves_nothing_to_load(repeated: Downloads, repository: Path) -> None:
    """huggingface_hub takes a snapshot's folder for the whole of it: it goes before the blobs do."""
    blobs = repeated.folder / "blobs"
    leftovers = [blobs / f"{number:064x}" for number in range(20_000)]
    while not leftovers[-1].exists():  # else it was killed in the middle, if the host was not too busy
        for path in leftovers:
            path.touch()
        process = repeated.start()
        while leftovers[0].exists():
            time.sleep(0.0005)
        process.kill()
        process.communicate()
    assert nothing_to_load(repeated)
    finished(repeated, repository)


def test_a_hub_that_dies_and_comes_back(repository: Path, tmp_path: Path) -> None:
    hub = HubProcess(repository)
    hub.fault("*", "slow", rate=20e3, times=None)
    downloads = Downloads(hub.url, lock_of(repository), tmp_path / "cache")
    process = downloads.start()
    while not sum(partials(downloads).values()):
        assert process.poll() is None
        time.sleep(0.005)
    hub.stop()
    [entry] = downloads.finish(process).all("refused")
    assert entry["kind"] == "unreachable"
    assert nothing_to_load(downloads)
    hub = HubProcess(repository)
    try:
        downloads.hub = hub.url
        assert finished(downloads, repository).last("done")["reused"] > 0
    finally:
        hub.stop()


@pytest.fixture
def page() -> Iterator[str]:
    """The address of a server that answers everything with a page, which says to be packed and is not."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip" if "/resolve/" in self.path else "identity")
            self.end_headers()
            self.wfile.write(b"<html>Please log in</html>")

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_that_is_no_hub_is_reported(downloads: Downloads, page: str) -> None:
    downloads.hub = page
    assert "answers with something else than JSON" in refused(downloads, "unreachable")["reason"]


def test_a_mirror_whose_answer_cannot_be_unpacked_leaves_the_hub(
    downloads: Downloads, hub: HubProcess, repository: Path, page: str
) -> None:
    large = [entry["sha256"] for entry in downloads.files.values() if "sha256" in entry]
    addresses = {sha256: f"{page}/resolve/{sha256}" for sha256 in large}
    downloads.mirror = {"name": "s3://mirror", "get": addresses, "put": {}}
    run = finished(downloads, repository)
    assert "DecodingError" in str(run.all("mirror"))
