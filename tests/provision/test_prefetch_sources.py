"""Downloading by Xet and from the mirror, and falling back when they fail."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from .downloads import LARGEST, ROOT, SIZES, Downloads, HubProcess, Run, lock_of, make_repository
from .test_prefetch import assert_whole

pytestmark = pytest.mark.integration
BUCKET = "weights-mirror"
PREFIX = "blobs"
PART = 5 << 20  # the least that S3 takes as a part that is not the last
# The server takes a free port itself: one that was free a moment ago may be somebody else's by now.
SERVE_S3 = """
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def xet_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A Hub that offers its large files by Xet, too, from a content store that hf_xet itself made."""
    folder = tmp_path_factory.mktemp("xet") / "repository"
    make_repository(folder)
    process = HubProcess(folder, ("--xet",))
    yield process
    process.stop()


@pytest.fixture
def by_xet(xet_hub: HubProcess, tmp_path: Path) -> Downloads:
    xet_hub.forget()
    return Downloads(xet_hub.url, lock_of(xet_hub.folder), tmp_path / "cache")


def small(downloads: Downloads) -> int:
    """Bytes of the files that are never on Xet nor in a mirror of large files."""
    entries = {str(entry): entry for entry in downloads.files.values() if "git_oid" in entry}
    return sum(entry["bytes"] for entry in entries.values())


def test_large_files_come_by_xet(by_xet: Downloads, xet_hub: HubProcess) -> None:
    run = by_xet.run()
    assert run.last("done")["fetched"] == by_xet.bytes
    assert xet_hub.sent() == small(by_xet)
    assert_whole(by_xet, xet_hub.folder)
    assert not list((Path.home() / ".cache/huggingface/xet/logs").glob(f"*_{run.pid}.log"))


def test_xet_continues_a_partial_file(by_xet: Downloads, xet_hub: HubProcess) -> None:
    blob = by_xet.blob(LARGEST)
    blob.parent.mkdir(parents=True)
    content = (xet_hub.folder / LARGEST).read_bytes()
    blob.with_name(f"{blob.name}.incomplete").write_bytes(content[:900_000])
    done = by_xet.run().last("done")
    assert (done["reused"], done["fetched"]) == (900_000, by_xet.bytes - 900_000)
    assert_whole(by_xet, xet_hub.folder)


def test_without_xet_the_same_files_come_by_http(by_xet: Downloads, xet_hub: HubProcess) -> None:
    store = xet_hub.folder.parent / "xet"
    store.rename(store.with_name("gone"))
    try:
        run = by_xet.run()
    finally:
        shutil.rmtree(store, ignore_errors=True)
        store.with_name("gone").rename(store)
    assert run.last("done")["fetched"] == by_xet.bytes == xet_hub.sent()
    told = [entry for entry in run.all("retry") if "by HTTP from now on" in entry["why"]]
    assert len(told) == 1  # for all files: nothing more was asked of it
    assert_whole(by_xet, xet_hub.folder)


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """moto's S3, as a process of its own, with an empty bucket."""
    command = [sys.executable, "-c", SERVE_S3]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        assert port, "moto's server did not start"
        yield boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="eu-west-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(s3={"addressing_style": "path"}),
        )
    finally:
        server.kill()
        server.communicate()


@pytest.fixture
def mirror(s3: Any, downloads: Downloads, repository: Path) -> dict[str, Any]:
    """A mirror that has every large file; the downloads are to use it."""
    _empty(s3)
    get = {}
    for path, entry in downloads.files.items():
        if "sha256" in entry:
            key = f"{PREFIX}/{entry['sha256']}"
            s3.put_object(Bucket=BUCKET, Key=key, Body=(repository / path).read_bytes())
            get[entry["sha256"]] = _signed(s3, "get_object", Key=key)
    downloads.mirror = {"name": f"s3://{BUCKET}/{PREFIX}", "get": get, "put": {}}
    return downloads.mirror


def _empty(s3: Any) -> None:
    if BUCKET in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        for entry in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            s3.delete_object(Bucket=BUCKET, Key=entry["Key"])
    else:
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})


def _signed(s3: Any, call: str, **parameters: Any) -> str:
    return str(s3.generate_presigned_url(call, {"Bucket": BUCKET, **parameters}, 600))


def large(downloads: Downloads) -> int:
    return downloads.bytes - small(downloads)


def test_what_the_mirror_has_comes_from_it(
    downloads: Downloads, hub: HubProcess, repository: Path, mirror: dict[str, Any]
) -> None:
    done = downloads.run().last("done")
    assert (done["from_mirror"], hub.sent()) == (large(downloads), small(downloads))
    assert_whole(downloads, repository)


def test_the_mirror_continues_a_partial_file(
    downloads: Downloads, hub: HubProcess, repository: Path, mirror: dict[str, Any]
) -> None:
    blob = downloads.blob(LARGEST)
    blob.parent.mkdir(parents=True)
    partial = (repository / LARGEST).read_bytes()[:700_000]
    blob.with_name(f"{blob.name}.incomplete").write_bytes(partial)
    done = downloads.run().last("done")
    assert (done["reused"], done["from_mirror"]) == (700_000, large(downloads) - 700_000)
    assert_whole(downloads, repository)


def hub_served(run: Run, paths: set[str]) -> None:
    """The mirror was named for these files, and with its name."""
    told = run.all("mirror")
    assert paths <= {entry["file"] for entry in told}
    assert all(f"s3://{BUCKET}/{PREFIX}" in entry["why"] for entry in told)


def test_wrong_bytes_in_the_mirror_are_told_and_the_hub_serves(
    downloads: Downloads, hub: HubProcess, repository: Path, mirror: dict[str, Any], s3: Any
) -> None:
    size, sha256 = downloads.files[LARGEST]["bytes"], downloads.files[LARGEST]["sha256"]
    s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{sha256}", Body=os.urandom(size))
    run = downloads.run()
    assert "the mirror" in run.last("corrected")["why"]
    hub_served(run, {LARGEST})
    assert hub.sent() == size + small(downloads)
    assert_whole(downloads, repository)


def test_a_file_that_the_mirror_lost_comes_from_the_hub(
    downloads: Downloads, hub: HubProcess, repository: Path, mirror: dict[str, Any], s3: Any
) -> None:
    s3.delete_object(Bucket=BUCKET, Key=f"{PREFIX}/{downloads.files[LARGEST]['sha256']}")
    run = downloads.run()
    hub_served(run, {LARGEST})
    assert_whole(downloads, repository)


@pytest.mark.parametrize(
    "address",
    [pytest.param("http://127.0.0.1:9", id="closed"), pytest.param("http://no.invalid", id="no-such-name")],
)
def test_a_mirror_that_is_down_is_reported_and_the_hub_serves(
    downloads: Downloads, hub: HubProcess, repository: Path, mirror: dict[str, Any], address: str
) -> None:
    for sha256, url in mirror["get"].items():
        parts = urllib.parse.urlsplit(url)
        mirror["get"][sha256] = f"{address}{parts.path}?{parts.query}"
    run = downloads.run()
    assert len(run.all("mirror")) == 1  # for all files: nothing more was asked of it
    assert hub.sent() == downloads.bytes
    assert_whole(downloads, repository)


def test_the_whole_model_from_the_mirror_alone(
    downloads: Downloads, repository: Path, mirror: dict[str, Any], s3: Any
) -> None:
    for path, entry in downloads.files.items():
        if "git_oid" in entry:
            key = f"{PREFIX}/{entry['git_oid']}"
            s3.put_object(Bucket=BUCKET, Key=key, Body=(repository / path).read_bytes())
            mirror["get"][entry["git_oid"]] = _signed(s3, "get_object", Key=key)
    downloads.hub = "http://127.0.0.1:9"
    assert downloads.run().last("done")["from_mirror"] == downloads.bytes
    assert_whole(downloads, repository)


def test_files_that_are_there_are_uploaded_where_they_are_lacking(s3: Any, tmp_path: Path) -> None:
    """`prefetch.upload`, by which a bake fills the bucket that workers read from."""
    _empty(s3)
    contents = {"vae/model.safetensors": b"v" * 1000, "unet/model.safetensors": b"u" * 10}
    files = {}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
        files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    key = f"{PREFIX}/{files['vae/model.safetensors']['sha256']}"
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    url = _signed(s3, "upload_part", Key=key, UploadId=upload, PartNumber=1)
    put = {files["vae/model.safetensors"]["sha256"]: {"part_bytes": PART, "parts": [url]}}
    done = subprocess.run(
        [sys.executable, "-m", "prefetch.upload", str(tmp_path)],
        input=json.dumps({"files": files, "mirror": {"name": "s3://x", "get": {}, "put": put}}),
        cwd=ROOT / "provision",
        capture_output=True,
        text=True,
        check=True,
    )
    uploaded, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert (uploaded["event"], uploaded["file"], last["event"]) == (
        "uploaded",
        "vae/model.safetensors",
        "done",
    )
    assert url not in done.stdout + done.stderr
    parts = [{"PartNumber": 1, "ETag": uploaded["etags"][0]}]
    s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == contents["vae/model.safetensors"]


def test_what_the_mirror_lacks_is_brought_to_it_in_parts(hub: HubProcess, tmp_path: Path, s3: Any) -> None:
    _empty(s3)
    folder = tmp_path / "hub" / "repository"
    make_repository(folder, {**SIZES, LARGEST: PART + 1_000_000})
    larger = HubProcess(folder)
    try:
        downloads = Downloads(larger.url, lock_of(folder), tmp_path / "cache")
        sha256 = downloads.files[LARGEST]["sha256"]
        key = f"{PREFIX}/{sha256}"
        upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        urls = [_signed(s3, "upload_part", Key=key, UploadId=upload, PartNumber=number) for number in (1, 2)]
        broken = downloads.files["vae/diffusion_pytorch_model.safetensors"]["sha256"]
        downloads.mirror = {
            "name": f"s3://{BUCKET}/{PREFIX}",
            "get": {},
            "put": {
                sha256: {"part_bytes": PART, "parts": urls},
                broken: {"part_bytes": PART, "parts": [urls[0].replace(upload, "gone")]},
            },
        }
        run = downloads.run()
        done = run.last("done")
        assert run.events[-1] == done
        [uploaded] = run.all("uploaded")
        assert (uploaded["file"], uploaded["sha256"], uploaded["bytes"]) == (
            LARGEST,
            sha256,
            PART + 1_000_000,
        )
        assert "did not take it" in run.last("mirror")["why"]
    finally:
        larger.stop()
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(uploaded["etags"], 1)]
    s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    assert body == (folder / LARGEST).read_bytes()
    assert_whole(downloads, folder)
