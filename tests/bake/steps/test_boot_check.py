"""The boot check understands the events that the worker sends."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bake.errors import BakeError
from bake.progress import PlainScreen, Progress
from bake.run import Run
from bake.steps.boot_check import SIZE, STEPS, check_device, check_precision, fetch, size_of

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud


def announced(aws: Any, bucket: str, **fields: Any) -> dict[str, Any]:
    """Stores an image as the worker does; gives back the detail of its event."""
    from flux_worker.encode import encode
    from flux_worker.jobs.record import Record
    from flux_worker.jobs.results import Results
    from flux_worker.jobspec.job import Job
    from tests.worker.worker_harness import FakeModel

    job = Job(
        **{"id": "boot-check-1", "prompt": "a lighthouse at dawn", "width": SIZE[0], "height": SIZE[1]}
        | fields
    )
    drawing = FakeModel().generate(job.model_copy(update={"steps": STEPS}).seeded(), lambda _: None)
    files = encode(drawing)
    record = Record.of(drawing, files, bucket=bucket, prefix="images/", queue_seconds=0.1)
    Results(aws.s3, aws.events, bucket, "images/", "bus").store(record, [file.data for file in files])
    return record.detail("images/boot-check-1.json", {})


def run(folder: Path) -> Run:
    return Run("1", folder, Progress(PlainScreen(io.StringIO())))


@pytest.fixture
def bucket(plan_cloud: PlanCloud) -> str:
    name = "boot-check-pictures"
    aws = plan_cloud.aws()
    where: Any = {"LocationConstraint": aws.worker_region}
    if name not in [known["Name"] for known in aws.s3.list_buckets()["Buckets"]]:
        aws.s3.create_bucket(Bucket=name, CreateBucketConfiguration=where)
    return name


def test_the_image_that_the_worker_announced_is_fetched(
    plan_cloud: PlanCloud, bucket: str, tmp_path: Path
) -> None:
    aws = plan_cloud.aws()
    drawing = fetch(aws, run(tmp_path), announced(aws, bucket), 4.5)
    assert (drawing.width, drawing.height, drawing.ready_seconds) == (*SIZE, 4.5)
    assert drawing.s3 == f"s3://{bucket}/images/boot-check-1.png"
    assert drawing.file.read_bytes().startswith(b"\x89PNG")


def test_an_image_of_another_size_is_an_error(plan_cloud: PlanCloud, bucket: str, tmp_path: Path) -> None:
    aws = plan_cloud.aws()
    detail = announced(aws, bucket, id="boot-check-2", width=512)
    with pytest.raises(BakeError, match="has 512 x 256 pixels, 256 x 256 were asked for"):
        fetch(aws, run(tmp_path), detail, 4.5)


def test_an_image_in_another_precision_is_an_error(plan_cloud: PlanCloud, bucket: str) -> None:
    detail = announced(plan_cloud.aws(), bucket, id="boot-check-3")
    check_precision(detail, "bf16")
    with pytest.raises(BakeError, match=r"was drawn in bf16, and weights\.precision is int8"):
        check_precision(detail, "int8")


def test_an_image_that_was_drawn_beside_the_accelerator_is_an_error(
    plan_cloud: PlanCloud, bucket: str, tmp_path: Path
) -> None:
    """As a worker does that is told to choose: without a usable driver, on the CPU, slowly, and right."""
    aws = plan_cloud.aws()
    drawing = fetch(aws, run(tmp_path), announced(aws, bucket, id="boot-check-5"), 4.5)
    assert drawing.device == "cpu"
    check_device(drawing, "cpu")
    with pytest.raises(BakeError, match="was drawn on cpu, and the plan says cuda"):
        check_device(drawing, "cuda")


@pytest.mark.parametrize(
    ("compiled", "asked"),
    [
        pytest.param((), (256, 256), id="every-size"),
        pytest.param(("1024x1024",), (1024, 1024), id="one"),
        pytest.param(("1024x1024", "512x768", "768x1440"), (512, 768), id="the-smallest"),
    ],
)
def test_only_a_compiled_size_is_asked_for(compiled: tuple[str, ...], asked: tuple[int, int]) -> None:
    assert size_of(compiled) == asked


def test_the_image_of_a_compiled_size_is_fetched(plan_cloud: PlanCloud, bucket: str, tmp_path: Path) -> None:
    aws = plan_cloud.aws()
    detail = announced(aws, bucket, id="boot-check-4", width=512, height=512)
    drawing = fetch(aws, run(tmp_path), detail, 4.5, size_of(("512x512",)))
    assert (drawing.width, drawing.height) == (512, 512)
