"""Two workers on one instance, as with two GPUs: a port and a folder each, and weights read once for both."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.worker.conftest import COMMAND, Aws, Served, free_ports, serve_environment, serving, until

pytestmark = pytest.mark.integration
MakeCache = Callable[[], tuple[Path, Path]]
# Weights of some 40 MB, since what a start reads otherwise must not matter.
LAYERS, WIDTH = 16, 20_000


def enlarge(snapshot: Path, scratch: Path) -> list[Path]:
    """Give the model a T5 that is worth reading, laid out like the rest; all files of weights."""
    import torch
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=1000, d_model=32, d_ff=WIDTH, d_kv=8, num_heads=4, num_layers=LAYERS)
    T5EncoderModel(config).to(torch.bfloat16).save_pretrained(scratch)
    folder = snapshot / "text_encoder_2"
    shutil.rmtree(folder)
    folder.mkdir()
    for file in scratch.iterdir():
        blob = snapshot.parents[1] / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.move(file, blob)
        (folder / file.name).symlink_to(os.path.relpath(blob, folder))
    return [file.resolve() for file in snapshot.glob("*/*.safetensors")]


def evict(files: list[Path]) -> None:
    """Have these files on the disk alone, as after a boot."""
    for file in files:
        with file.open("rb") as content:
            os.fsync(content.fileno())
            os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_bytes(worker: Served) -> int:
    """What the kernel fetched from disks for a process."""
    text = Path(f"/proc/{worker.process.pid}/io").read_text()
    return int(dict(line.split(": ") for line in text.splitlines())["read_bytes"])


@dataclass
class Pair:
    """Both workers, when they were ready; `read` is what each had read from the disk by then."""

    workers: tuple[Served, Served]
    port: int
    state: Path
    weights: int
    read: tuple[int, int]


@pytest.fixture(scope="module")
def pair(aws: Aws, lay_out: MakeCache, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    cache, snapshot = lay_out()
    weights = enlarge(snapshot, tmp_path_factory.mktemp("t5"))
    state, port = tmp_path_factory.mktemp("state"), free_ports(2)
    environment = serve_environment(aws, cache, state) | {"FLUX_WORKERS": "2", "FLUX_METRICS_PORT": str(port)}
    evict(weights)
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                serving(environment | {"FLUX_DEVICE": device}, tmp_path_factory.mktemp("worker"), "STATUS=")
            )
            for device in ("0", "1")
        ]
        for worker in workers:
            worker.wait_told("READY=1", 120)
        first, second = workers
        read = read_bytes(first), read_bytes(second)
        yield Pair((first, second), port, state, sum(file.stat().st_size for file in weights), read)


def status(pair: Pair, *words: str) -> subprocess.CompletedProcess[str]:
    """What the command says to somebody who knows the first worker's port and nothing else."""
    environment = {"PATH": os.environ["PATH"], "FLUX_METRICS_PORT": str(pair.port)}
    return subprocess.run(
        [COMMAND, "status", *words], env=environment, capture_output=True, text=True, check=False
    )


def test_the_weights_are_read_from_the_disk_once(pair: Pair) -> None:
    """Both map the same files: what one has read is there for the other, whoever comes first."""
    if sum(pair.read) == 0:
        pytest.skip("this host's temporary files lie in memory")
    assert 0.9 * pair.weights < sum(pair.read) < 1.5 * pair.weights, f"{pair.read} of {pair.weights}"


def test_both_serve_one_queue(pair: Pair, aws: Aws) -> None:
    for number in range(6):
        job = {"id": f"pair-{number}", "prompt": "a cat", "width": 256, "height": 256, "steps": 1}
        aws.send(job)
    drawn = [aws.event()["detail"]["id"] for _ in range(6)]
    assert sorted(drawn) == [f"pair-{number}" for number in range(6)]
    aws.wait_until_empty()


def test_each_has_its_own_outbox(pair: Pair) -> None:
    """A second worker with the same one would be refused."""
    assert sorted(file.name for file in pair.state.iterdir()) == ["0", "1"]
    assert all((pair.state / number / "outbox" / "lock").exists() for number in "01")


def test_status_shows_both(pair: Pair) -> None:
    shown = status(pair)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("worker")] == ["worker 0", "worker 1"]
    found = json.loads(status(pair, "--json").stdout)
    assert found["ready"] is True
    numbers = [(one["worker"], one["workers"], one["pid"]) for one in found["workers"]]
    assert numbers == [(number, 2, worker.process.pid) for number, worker in enumerate(pair.workers)]


def test_one_that_is_gone_is_named_whichever_it_is(pair: Pair) -> None:
    """The last test: the first worker ends here, and the second still tells that there are two."""
    first, _ = pair.workers
    assert first.stop() == 0
    until(lambda: status(pair).returncode == 1, 10, "the first to be missed")
    shown = status(pair)
    assert shown.stdout.startswith(f"worker 0: no worker answers on 127.0.0.1:{pair.port} (")
    assert "\nworker 1: flux-worker " in shown.stdout
    found = json.loads(status(pair, "--json").stdout)
    assert (found["ready"], "no worker answers" in found["workers"][0]["error"]) == (False, True)
    assert status(pair, "--port", str(pair.port + 1)).returncode == 0, "it can be asked alone"
