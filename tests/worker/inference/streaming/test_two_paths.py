"""Weights from the disk and from S3 at once: moto is S3, and a proxy before it does what goes wrong."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flux_worker.inference.streaming import ranges
from flux_worker.inference.streaming.disk import Disk
from flux_worker.inference.streaming.feed import FAILURES, Feed
from flux_worker.inference.streaming.host_memory import HostMemory
from flux_worker.inference.streaming.manifest import Manifest
from flux_worker.inference.streaming.ranges import Range
from flux_worker.inference.streaming.report import StreamReport
from flux_worker.inference.streaming.second_path import second_path
from flux_worker.settings import ModelSettings
from tests.worker.aws_proxy import Answer, AwsProxy, Call, error
from tests.worker.conftest import CREDENTIALS, REGION, REVISION

pytestmark = pytest.mark.integration
RANGE = 1 << 14
RANGES = 40  # of each of the two files


class S3Proxy(AwsProxy):
    """Counts what is read of objects, and answers as `fault` says instead of S3."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.fault: Callable[[Call], Answer | None] | None = None
        self.asked: list[str] = []
        self.over = threading.Event()

    def respond(self, call: Call) -> Answer | None:
        if call.command != "GET":
            return call.forward()
        self.asked.append(call.headers["Range"])
        return self.fault(call) if self.fault else call.forward()


class PatientDisk(Disk):
    """A disk that reads nothing before something has come true."""

    def __init__(self, files: list[Path], until: Callable[[], bool]) -> None:
        super().__init__(files, threads=2)
        self._until = until
        self.read_parts: list[tuple[str, int]] = []

    def read(self, part: Range, into: memoryview) -> None:
        deadline = time.monotonic() + 120
        while not self._until():
            assert time.monotonic() < deadline
            time.sleep(0.002)
        super().read(part, into)
        self.read_parts.append((part.file.name, part.offset))


@dataclass
class Model:
    """Two weights files, their manifest on the image, and the same in a bucket behind the proxy."""

    folder: Path
    files: list[Path]
    manifest: Path
    settings: ModelSettings
    proxy: S3Proxy
    bucket: str
    s3: Any
    log: pytest.LogCaptureFixture
    disk: PatientDisk | None = None

    def load(self, until: Callable[[Feed, S3Proxy], bool] = lambda _feed, _proxy: True) -> StreamReport:
        """Load all of it, the disk from when `until` is true on; every byte must be right."""
        path = second_path(self.settings, self.folder)
        plain = [Range(file, 0, file.stat().st_size) for file in self.files]
        self.disk = PatientDisk(self.files, lambda: until(feed, self.proxy))
        places = {file: bytearray(file.stat().st_size) for file in self.files}
        views = {file: memoryview(place) for file, place in places.items()}
        feed = Feed(path.hashed(plain), [self.disk, *path.sources], HostMemory(views))
        with feed:
            report = feed.wait()
        assert places == {file: file.read_bytes() for file in self.files}
        return report

    @property
    def said(self) -> str:
        """The warning about the second path."""
        (record,) = [one for one in self.log.records if one.levelno >= logging.WARNING]
        return record.getMessage()


@pytest.fixture
def proxy(endpoint: str) -> Iterator[S3Proxy]:
    proxy = S3Proxy(endpoint)
    with proxy.running():
        yield proxy
        proxy.over.set()


@pytest.fixture
def model(
    new_aws: Callable[[], Any],
    proxy: S3Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Model:
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": proxy.url}.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "model"
    files = [folder / "text_encoder" / "model.safetensors", folder / "vae" / "vae.safetensors"]
    aws = new_aws()
    s3, digests = aws.client("s3"), {}
    for file in files:
        file.parent.mkdir(parents=True)
        content = os.urandom(RANGE * RANGES - 5)
        file.write_bytes(content)
        digest = digests[str(file.relative_to(folder))] = hashlib.sha256(content).hexdigest()
        s3.put_object(Bucket=aws.bucket, Key=f"flux/{digest}", Body=content)
    manifest = tmp_path / "ranges.json"
    Manifest.of(folder, digests, RANGE).write(manifest)
    settings = {
        "FLUX_MODEL_REVISION": REVISION,
        "FLUX_STREAM": f"s3://{aws.bucket}/flux",
        "FLUX_STREAM_RANGES": str(manifest),
        "SPOT_AWS_REGION": REGION,
    }
    return Model(
        folder, files, manifest, ModelSettings.from_environment(settings), proxy, aws.bucket, s3, caplog
    )


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes nothing over at the end, however slow a busy host is."""
    monkeypatch.setattr(ranges, "PATIENCE_SECONDS", 120.0)


def brought(report: StreamReport) -> dict[str, int]:
    return {source.name: source.bytes for source in report.sources}


def of_s3(number: int) -> Callable[[Feed, S3Proxy], bool]:
    """S3 has brought so many ranges."""
    return lambda feed, _: brought(feed.report())["s3"] >= number * (RANGE - 5)


def dropped(feed: Feed, _: S3Proxy) -> bool:
    """S3 was given up."""
    return "s3" in feed.report().dropped


def object_of(model: Model, file: Path) -> str:
    return f"flux/{hashlib.sha256(file.read_bytes()).hexdigest()}"


@pytest.mark.usefixtures("patient")
def test_both_paths_bring_the_weights_the_disk_from_the_front_and_s3_from_the_back(model: Model) -> None:
    report = model.load(of_s3(10))
    shares = brought(report)
    assert min(shares.values()) > 0 and sum(shares.values()) == 2 * (RANGE * RANGES - 5)
    assert not report.dropped and not model.log.records
    assert model.disk and model.disk.read_parts[0][0] == "model.safetensors"
    assert {("model.safetensors", 0), ("model.safetensors", RANGE)} & set(model.disk.read_parts[:2])
    first = max(int(text.removeprefix("bytes=").partition("-")[0]) for text in model.proxy.asked[:32])
    assert first == RANGE * (RANGES - 1)


def test_without_the_setting_nothing_is_asked(model: Model) -> None:
    model.settings = model.settings.model_copy(update={"stream": None})
    assert brought(model.load()) == {"disk": 2 * (RANGE * RANGES - 5)}
    assert not model.proxy.asked and not model.log.records


def test_a_corrupt_object_is_never_believed(model: Model) -> None:
    content = bytearray(model.files[1].read_bytes())
    content[-1] ^= 1  # in the range that S3 reads first
    model.s3.put_object(Bucket=model.bucket, Key=object_of(model, model.files[1]), Body=bytes(content))
    report = model.load(dropped)
    assert report.dropped["s3"].startswith("wrong content of vae.safetensors at ")


def test_a_truncated_object_is_dropped(model: Model) -> None:
    for file in model.files:
        short = file.read_bytes()[: RANGE // 2]
        model.s3.put_object(Bucket=model.bucket, Key=object_of(model, file), Body=short)
    report = model.load(dropped)
    assert brought(report)["s3"] == 0
    assert "short" in report.dropped["s3"]


def answers(status: int, code: str) -> Callable[[Call], Answer]:
    return lambda _: error("s3", status, code, "no")


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        pytest.param(answers(403, "AccessDenied"), "403", id="refused"),
        pytest.param(answers(404, "NoSuchKey"), "404", id="missing"),
        pytest.param(answers(500, "InternalError"), "500", id="broken"),
        pytest.param(answers(503, "SlowDown"), "503", id="throttled"),
        pytest.param(lambda _: (200, [], b"all of it"), "200", id="without ranges"),
        pytest.param(lambda _: None, "closed", id="closed"),
    ],
)
def test_an_s3_that_only_fails_is_dropped_after_a_few_tries(
    model: Model, fault: Callable[[Call], Answer | None], why: str
) -> None:
    model.proxy.fault = fault
    report = model.load(dropped)
    assert brought(report)["s3"] == 0
    assert why in report.dropped["s3"]
    assert model.bucket in report.dropped["s3"] and "X-Amz" not in report.dropped["s3"]
    assert len(model.proxy.asked) <= 2 * (32 + FAILURES)


def test_an_s3_that_goes_in_the_middle_leaves_the_rest_to_the_disk(model: Model) -> None:
    def gone_after_ten(call: Call) -> Answer | None:
        if next(numbers) < 10:
            return call.forward()
        call.reset()
        return None

    numbers = itertools.count()
    model.proxy.fault = gone_after_ten
    report = model.load(dropped)
    assert min(brought(report).values()) > 0


def test_connections_that_hang_are_taken_over_by_the_disk(model: Model) -> None:
    def hang(call: Call) -> Answer | None:
        model.proxy.over.wait(120)
        return None

    model.proxy.fault = hang
    report = model.load(lambda _feed, proxy: len(proxy.asked) > 4)
    assert brought(report)["s3"] == 0
    assert report.dropped["s3"].startswith(("too slow", f"s3://{model.bucket}/flux: timed out"))


def test_an_s3_that_nobody_answers_for_is_dropped(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    report = model.load(dropped)
    assert report.dropped["s3"].startswith(f"s3://{model.bucket}/flux: ")
    assert not model.proxy.asked


def test_a_bucket_that_is_not_there_is_named(model: Model) -> None:
    model.settings = model.settings.model_copy(update={"stream": "s3://flux-not-there-at-all/x"})
    assert "flux-not-there-at-all" in model.load(dropped).dropped["s3"]


def test_a_start_without_credentials_reads_the_disk(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(model.folder))
    assert "credentials" in model.load(dropped).dropped["s3"].lower()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(lambda model: model.manifest.unlink(), "the image has no ", id="none"),
        pytest.param(lambda model: model.manifest.write_text("{"), "is no manifest", id="half"),
        pytest.param(lambda model: edit(model, format=2), "is no manifest", id="newer"),
        pytest.param(lambda model: edit(model, files={}), "does not know text_encoder/", id="other files"),
        pytest.param(
            lambda model: edit_file(model, bytes=RANGE * (RANGES - 1) + 1),
            "bytes, in the manifest",
            id="other size",
        ),
        pytest.param(lambda model: edit_file(model, ranges=[]), "has 0 hashes for", id="too few hashes"),
    ],
)
def test_with_another_manifest_the_disk_alone_is_read(
    model: Model, change: Callable[[Model], Any], why: str
) -> None:
    change(model)
    assert brought(model.load()) == {"disk": 2 * (RANGE * RANGES - 5)}
    assert model.said.startswith("the weights come from the volume alone, not also from s3://")
    assert why in model.said
    assert not model.proxy.asked


def edit(model: Model, **changes: Any) -> None:
    model.manifest.write_text(json.dumps(json.loads(model.manifest.read_text()) | changes))


def edit_file(model: Model, **changes: Any) -> None:
    files = json.loads(model.manifest.read_text())["files"]
    first = min(files)
    edit(model, files=files | {first: files[first] | changes})


def test_a_cached_file_with_another_hash_in_its_name_is_another_file(model: Model) -> None:
    file = model.files[0]
    blob = file.with_name("0" * 64)
    file.rename(blob)
    file.symlink_to(blob)
    model.files[0] = blob
    assert brought(model.load()) == {"disk": 2 * (RANGE * RANGES - 5)}
    assert "text_encoder/model.safetensors is another file than in the manifest" in model.said


def test_several_workers_share_what_one_reads_from_the_disk(model: Model) -> None:
    model.settings = model.settings.model_copy(update={"workers": 4, "device": 0})
    assert brought(model.load()) == {"disk": 2 * (RANGE * RANGES - 5)}
    assert "the 4 workers of this instance share" in model.said


@pytest.mark.usefixtures("patient")
def test_a_model_from_both_paths_is_the_one_from_the_disk(
    model: Model, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny FLUX, as the worker loads it; the disk begins when S3 has brought something."""
    import torch

    from flux_worker.inference.backend_torch import TorchBackend
    from flux_worker.inference.checkpoint import Checkpoint

    folder = cache / "models--black-forest-labs--FLUX.1-dev" / "snapshots" / REVISION
    digests = {str(file.relative_to(folder)): file.resolve().name for file in folder.glob("*/*.safetensors")}
    for name, digest in digests.items():
        model.s3.put_object(Bucket=model.bucket, Key=f"flux/{digest}", Body=(folder / name).read_bytes())
    Manifest.of(folder, digests, 4096).write(model.manifest)
    asked = model.proxy.asked

    def after_s3(self: Disk, part: Range, into: memoryview) -> None:
        deadline = time.monotonic() + 120
        while not asked:  # what S3 has taken the disk does not read
            assert time.monotonic() < deadline
            time.sleep(0.002)
        read(self, part, into)

    read = Disk.read
    monkeypatch.setattr(Disk, "read", after_s3)
    checkpoint = Checkpoint(folder, REVISION, "bf16")
    backend = TorchBackend("cpu")
    both = backend.load(checkpoint, model.settings, compile_missing=False)
    alone = backend.load(
        checkpoint, model.settings.model_copy(update={"stream": None}), compile_missing=False
    )
    assert both.streamed and alone.streamed
    assert min(brought(both.streamed).values()) > 0 and not both.streamed.dropped
    assert brought(alone.streamed).keys() == {"disk"}
    for name in ("transformer", "text_encoder", "text_encoder_2", "vae"):
        first, second = (getattr(one.pipeline, name).state_dict() for one in (both, alone))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
