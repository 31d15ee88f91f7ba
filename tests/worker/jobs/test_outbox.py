"""Results survive the process, and no state of the disk stops the worker."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flux_worker.encode import encode
from flux_worker.errors import ConfigurationError
from flux_worker.inference.images import GeneratedImages, Origin
from flux_worker.jobs.outbox import Outbox, PendingResult
from flux_worker.jobs.record import Record
from flux_worker.jobspec.job import Job

ORIGIN = Origin("black-forest-labs/FLUX.1-dev", "0" * 40, "int8", "cpu", {"torch": "2"})


def pending(job_id: str = "cat", **fields: Any) -> PendingResult:
    job = Job(id=job_id, prompt="a cat — 猫", width=256, height=256, metadata={"a": [1.5]}, **fields).seeded()
    images = tuple(Image.new("RGB", (256, 256), (number, 0, 0)) for number in range(job.images))
    drawing = GeneratedImages(job, images, ORIGIN, 1.5, 0.3)
    files = encode(drawing)
    record = Record.of(drawing, files, bucket="pictures", prefix="images/", queue_seconds=None)
    return PendingResult(record, tuple(file.data for file in files), f"receipt of {job_id}", "token")


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "state" / "outbox")


@pytest.mark.parametrize("job_id", ["cat", ".", "..", "-x", "lock", ".draft-x", "x" * 128, "a.entry"])
def test_a_parcel_is_found_again_after_a_restart(outbox: Outbox, tmp_path: Path, job_id: str) -> None:
    sent = pending(job_id, images=3, format="jpg")
    outbox.add(sent)
    outbox.close()
    again = Outbox(tmp_path / "state" / "outbox")
    assert again.job_ids() == [job_id]
    assert again.is_on_disk(job_id)
    assert again.get(job_id) == sent
    again.remove(job_id)
    assert again.job_ids() == []
    assert again.get(job_id) is None
    assert not again.is_on_disk(job_id)
    assert names(tmp_path) == ["state"]


def test_the_oldest_comes_first_and_the_newest_of_a_job_stays(outbox: Outbox, tmp_path: Path) -> None:
    for age, job_id in enumerate(["b", "a", "c"]):
        outbox.add(pending(job_id))
        os.utime(tmp_path / "state" / "outbox" / f"{job_id}.entry", (age, age))
    assert outbox.job_ids() == ["b", "a", "c"]
    outbox.add(pending("a", seed=5))
    found = outbox.get("a")
    assert found
    assert found.record.job.seed == 5


def test_two_workers_do_not_share_a_folder(outbox: Outbox, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="give each worker its own FLUX_STATE_DIR"):
        Outbox(tmp_path / "state" / "outbox")
    outbox.close()
    Outbox(tmp_path / "state" / "outbox")


HOLDING = """
import pathlib, sys
from flux_worker.jobs.outbox import Outbox
outbox = Outbox(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_worker_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ConfigurationError):
            Outbox(tmp_path)
        process.kill()
        process.wait()
    Outbox(tmp_path)


def test_a_folder_that_cannot_be_made_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="Not a directory; set FLUX_STATE_DIR"):
        Outbox(tmp_path / "file" / "outbox")


@pytest.mark.parametrize("broken", ["record.json", "delivery.json", "1", "2"])
@pytest.mark.parametrize("how", ["missing", "cut", "other"])
def test_a_broken_parcel_is_said_and_removed(
    outbox: Outbox, tmp_path: Path, broken: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    outbox.add(pending(images=2))
    file = tmp_path / "state" / "outbox" / "cat.entry" / broken
    if how == "missing":
        file.unlink()
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:-3])
    else:
        file.write_bytes(b'[{"prompt": "my diary"}]')
    assert outbox.get("cat") is None
    assert "my diary" not in caplog.text, "prompts are the users' own"
    assert "removed, the job will run again" in caplog.text
    assert outbox.job_ids() == []


def test_a_parcel_that_was_half_written_is_cleared_away(tmp_path: Path) -> None:
    draft = tmp_path / "=draft-abc"
    draft.mkdir()
    (draft / "1").write_bytes(b"half an ima")
    Outbox(tmp_path)
    assert names(tmp_path) == ["lock"]


def test_a_disk_that_takes_no_more_costs_nothing_but_the_copy(
    outbox: Outbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        outbox.add(pending())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "the images are in memory only, they could not be written to disk: [Errno 27]" in caplog.text
    assert names(tmp_path / "state" / "outbox") == ["lock"]
    outbox.add(pending())
    assert outbox.get("cat")


def test_what_cannot_be_removed_is_not_delivered_for_ever(
    outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outbox.add(pending())

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    outbox.remove("cat")
    assert "cannot remove" in caplog.text
    assert outbox.job_ids() == []
    assert outbox.is_on_disk("cat")
