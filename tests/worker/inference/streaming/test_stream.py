"""The streamed model against the mapped one, for the tiny FLUX in bfloat16 and int8."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flux_worker.errors import ConfigurationError
from flux_worker.inference.checkpoint import Checkpoint
from flux_worker.jobspec.job import Job
from flux_worker.settings import ModelSettings
from tests.worker.conftest import REVISION

pytestmark = pytest.mark.integration
NETWORKS = ("transformer", "text_encoder", "text_encoder_2", "vae")
MakeCache = Callable[[], tuple[Path, Path]]


@pytest.fixture(scope="module", params=["bf16", "int8"])
def checkpoint(request: pytest.FixtureRequest, cache: Path) -> Checkpoint:
    if request.param == "int8":
        return Checkpoint(request.getfixturevalue("int8"), REVISION, "int8")
    return Checkpoint(cache / "models--black-forest-labs--FLUX.1-dev/snapshots" / REVISION, REVISION, "bf16")


def load(checkpoint: Checkpoint, workers: int = 1) -> Any:
    """As the worker on the CPU loads it."""
    from flux_worker.inference.backend_torch import TorchBackend

    settings = ModelSettings.from_environment({"FLUX_MODEL_REVISION": REVISION})
    return TorchBackend("cpu", workers).load(checkpoint, settings, compile_missing=False)


@pytest.fixture(scope="module")
def streamed(checkpoint: Checkpoint) -> Any:
    return load(checkpoint)


@pytest.fixture(scope="module")
def mapped(checkpoint: Checkpoint) -> Any:
    """As the libraries alone load it."""
    from flux_worker.inference.backend_torch import _from_files

    pipeline = _from_files(checkpoint.folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tensors(network: Any) -> dict[str, Any]:
    """Parameters and buffers by name, tied ones by each of their names."""
    held = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    return dict(held)


def parts(tensor: Any) -> Iterator[Any]:
    """The tensors that hold a tensor's bytes."""
    if hasattr(tensor, "__tensor_flatten__"):
        yield from (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
    else:
        yield tensor


def kind(tensor: Any) -> tuple[Any, ...]:
    return type(tensor), tensor.dtype, tensor.shape, tensor.stride(), tensor.requires_grad


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_is_the_mapped_ones_in_name_kind_and_bytes(
    streamed: Any, mapped: Any, name: str
) -> None:
    ours, theirs = tensors(getattr(streamed.pipeline, name)), tensors(getattr(mapped, name))
    assert list(ours) == list(theirs)
    for key, weight in theirs.items():
        assert kind(ours[key]) == kind(weight), key
        for our, their in zip(parts(ours[key]), parts(weight), strict=True):
            assert kind(our) == kind(their) and our.equal(their), key
    state = getattr(streamed.pipeline, name).state_dict()
    assert list(state) == list(getattr(mapped, name).state_dict())
    assert not getattr(streamed.pipeline, name).training


def test_tied_weights_stay_tied(streamed: Any) -> None:
    encoder = streamed.pipeline.text_encoder_2
    assert encoder.shared.weight is encoder.encoder.embed_tokens.weight


def test_no_weight_is_read_through_a_mapping(streamed: Any, checkpoint: Checkpoint) -> None:
    lines = re.findall(r"^(\w+)-(\w+) .*/\S*(?:blobs/\w+|\.safetensors)$", maps(), re.M)
    mapped = [(int(start, 16), int(end, 16)) for start, end in lines]
    for name in NETWORKS:
        for key, weight in tensors(getattr(streamed.pipeline, name)).items():
            for part in parts(weight):
                assert not any(start <= part.data_ptr() < end for start, end in mapped), key


def maps() -> str:
    return Path("/proc/self/maps").read_text()


def test_weights_are_aligned_for_kernels(streamed: Any) -> None:
    for name in NETWORKS:
        for key, weight in tensors(getattr(streamed.pipeline, name)).items():
            assert all(part.data_ptr() % 16 == 0 for part in parts(weight)), key


def test_a_seed_draws_the_same_picture(streamed: Any, mapped: Any, model: Any) -> None:
    from flux_worker.inference.backend_torch import TorchBackend, TorchModel
    from flux_worker.inference.model import FluxModel

    job = Job(id="a", prompt="a cat", width=256, height=256, steps=2, seed=7)
    backend = TorchBackend("cpu")
    pictures = [
        FluxModel(loaded, backend, model.origin).generate(job).images[0].tobytes()
        for loaded in (streamed, TorchModel(mapped, "cpu"))
    ]
    assert pictures[0] == pictures[1]


def test_the_report_counts_every_files_bytes_once(streamed: Any, checkpoint: Checkpoint) -> None:
    whole = sum(checkpoint.weights().values())
    report = streamed.streamed
    assert report.bytes == whole
    assert [(source.name, source.bytes) for source in report.sources] == [("disk", whole)]
    assert report.as_json()["sources"][0]["dropped"] is None


def test_what_was_read_is_told(model: Any, cache: Path) -> None:
    from flux_worker.inference.model import load as load_model

    found: list[int] = []
    read: list[int] = []
    environment = {"FLUX_MODEL_REVISION": REVISION, "HF_HUB_CACHE": str(cache), "FLUX_BACKEND": "cpu"}
    again: Any = load_model(
        ModelSettings.from_environment(environment), on_found=found.append, on_read=read.append
    )
    assert found == [max(read)] == [again.streamed.bytes] == [model.streamed.bytes]


def test_without_memory_for_all_workers_weights_stay_mapped_and_it_says_why(
    checkpoint: Checkpoint, mapped: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "flux_worker"):
        model = load(checkpoint, workers=100_000_000)
    assert model.streamed is None
    assert "the weights are mapped and not read into memory, which is slower: RAM 100000000 workers x (" in (
        caplog.text
    )
    for name in NETWORKS:
        theirs = tensors(getattr(mapped, name))
        for key, weight in tensors(getattr(model.pipeline, name)).items():
            assert all(a.equal(b) for a, b in zip(parts(weight), parts(theirs[key]), strict=True)), key


def test_weights_stay_mapped_if_that_is_asked_for(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    from flux_worker.inference.model import load as load_model

    environment = {"FLUX_MODEL_REVISION": REVISION, "HF_HUB_CACHE": str(cache), "FLUX_BACKEND": "cpu"}
    model = load_model(ModelSettings.from_environment(environment | {"FLUX_LOAD": "mapped"}))
    assert model.streamed is None
    assert re.search(r"^\w+-\w+ .*/blobs/\w+$", maps(), re.M)
    assert not caplog.records


def test_a_file_that_is_cut_after_its_header_was_read_is_damaged(lay_out: MakeCache) -> None:
    from flux_worker.inference.backend_torch import _from_files
    from flux_worker.inference.streaming.stream import Stream

    folder = lay_out()[1]
    pipeline = _from_files(folder)
    stream = Stream(folder, "cpu")
    file = next((folder / "vae").glob("*.safetensors")).resolve()
    os.truncate(file, file.stat().st_size - 1)
    with (
        stream,
        pytest.raises(ConfigurationError, match=rf"damaged: {file} ends at .* before its weights do"),
    ):
        stream.fill(pipeline)


def test_a_file_that_vanishes_is_named(lay_out: MakeCache) -> None:
    from flux_worker.inference.streaming.stream import Stream

    folder = lay_out()[1]
    (file := next((folder / "vae").glob("*.safetensors"))).resolve().unlink()
    with pytest.raises(ConfigurationError, match=f"cannot be read: .*{file.resolve().name}"):
        Stream(folder, "cpu")


class Bucket:
    """Stands for a source beside the disk: it has the same files, and is asked for what it can tell."""

    name, threads = "bucket", 2

    def read(self, part: Any, into: memoryview) -> None:
        with part.file.open("rb") as content:
            content.seek(part.offset)
            assert content.readinto(into) == part.size

    def close(self) -> None:
        pass


def test_two_sources_fill_one_model(lay_out: MakeCache, mapped: Any, checkpoint: Checkpoint) -> None:
    from flux_worker.inference.backend_torch import _from_files
    from flux_worker.inference.streaming.ranges import Range
    from flux_worker.inference.streaming.stream import Stream

    def with_hashes(ranges: list[Range]) -> list[Range]:
        return [replace(part, sha256=hashlib.sha256(content_of(part)).hexdigest()) for part in ranges]

    def content_of(part: Range) -> bytes:
        return part.file.read_bytes()[part.offset : part.offset + part.size]

    pipeline = _from_files(checkpoint.folder)
    with Stream(checkpoint.folder, "cpu", others=[Bucket()], hashed=with_hashes) as stream:
        report = stream.fill(pipeline)
    assert sum(source.bytes for source in report.sources) == report.bytes
    for name in NETWORKS:
        theirs = tensors(getattr(mapped, name))
        for key, weight in tensors(getattr(pipeline, name)).items():
            assert all(a.equal(b) for a, b in zip(parts(weight), parts(theirs[key]), strict=True)), key
