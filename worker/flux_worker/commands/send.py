"""The command `send`: send a job to the queue, wait, download its images."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import JobFailed, WorkerError
from . import options, output

if TYPE_CHECKING:
    from ..jobs.record import Record
    from ..jobspec.job import Job
    from ..sender import OnLook, Sender
    from .output import Output


@click.command()
@click.argument("prompt")
@click.option("--id", "job_id", help="The job's id; a job with the same id runs once.  [default: a new one]")
@options.job_options
@click.option("--s3-prefix", help="A prefix for the images' keys; must end in /.")
@click.option("--metadata", help="A JSON object, copied into the record and the event.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"{options.OUT}  [default: the id, here]",
)
@click.option("--timeout", type=click.FloatRange(min=0), default=600, show_default=True, help="Seconds.")
@click.option("--no-wait", is_flag=True, help="Print the job's id and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print the job's record as JSON.")
def send(
    prompt: str,
    job_id: str | None,
    metadata: str | None,
    out: Path | None,
    timeout: float,
    no_wait: bool,
    as_json: bool,
    **fields: Any,
) -> None:
    """Send a job to the queue, wait for its images and download them.

    Uses AWS_REGION, FLUX_QUEUE_URL, FLUX_BUCKET and FLUX_S3_PREFIX.

    \b
    Example:
      flux-worker send "a cat on a roof" --seed 7 --out cat.png
      flux-worker send "a cat on a roof" --images 4 --format webp --no-wait
      flux-worker send "a cat on a roof" --format jpg --out - | display -
    """
    fields |= {"id": job_id or uuid.uuid4().hex, "prompt": prompt, "metadata": _json_object(metadata)}
    job = options.job(fields, out=out)
    if no_wait and out:
        raise click.UsageError("--out needs the images: leave out --no-wait")
    if no_wait:
        sender = _sender()
        if sender.existing_record(job) is None:
            sender.send(job)
        click.echo(json.dumps({"id": job.id}) if as_json else job.id)
        return
    out = out or Path(f"{job.id}.{job.format}")
    options.reject_shared_stdout(out, as_json)
    with output.opened(options.files(out, job.images), options.max_image_bytes(job)) as outputs:
        sender = _sender()
        record = sender.existing_record(job) or _wait(sender, job, timeout, as_json)
        files, problems = _download(sender, record, outputs)
    text = _facts(record, files) if as_json else "\n".join(_lines(record, files))
    if text:
        click.echo(text, err=output.is_stdout(out))
    if problems:
        raise click.ClickException("\n".join(problems))


def _sender() -> Sender:
    """A sender for the environment's settings. Raises ConfigurationError."""
    from ..sender import connect
    from ..settings import QueueSettings

    return connect(QueueSettings.from_environment(os.environ))


def _json_object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"is not JSON: {error}", param_hint="--metadata") from None
    if not isinstance(found, dict):
        raise click.BadParameter('must be a JSON object, like {"order": 7}', param_hint="--metadata")
    return found


def _wait(sender: Sender, job: Job, timeout: float, as_json: bool) -> Record:
    """Send and wait; on a terminal, show the state on stderr."""
    old_failure = sender.failure(job)
    sender.send(job)
    try:
        with _one_line() as show:
            return sender.wait(job, timeout, old_failure, lambda state: show(f"{job.id}: {state}"))
    except KeyboardInterrupt:
        raise click.ClickException(f"the job {job.id} stays on the queue") from None
    except JobFailed as failed:
        if as_json:
            click.echo(json.dumps(failed.failure))
        raise


@contextmanager
def _one_line() -> Iterator[OnLook]:
    """Show a status line that replaces itself and disappears at the end; only on a terminal."""
    started = time.monotonic()

    def show(text: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r\033[K{text}, {time.monotonic() - started:.0f} s", nl=False, err=True)

    try:
        yield show
    finally:
        if sys.stderr.isatty():
            click.echo("\r\033[K", nl=False, err=True)


def _download(sender: Sender, record: Record, outputs: list[Output]) -> tuple[list[str], list[str]]:
    """The images' file names, empty for one that is only in S3, and what went wrong."""
    files, problems = [], []
    for place, key in zip(outputs, record.keys, strict=True):
        try:
            place.write(sender.image(key))
            files.append(place.name)
        except OSError as error:
            where = f"the image is s3://{record.bucket}/{key}"
            problems.append(f"cannot write {place.name}: {error.strerror}; {where}")
            files.append("")
        except WorkerError as error:
            problems.append(str(error))
            files.append("")
    return files, problems


def _lines(record: Record, files: list[str]) -> Iterator[str]:
    assert record.job.seed is not None  # always set in records
    for number, (file, key) in enumerate(zip(files, record.keys, strict=True)):
        if file:
            yield f"Wrote {file} (s3://{record.bucket}/{key}, seed {record.job.seed + number})"


def _facts(record: Record, files: list[str]) -> str:
    """The result as JSON."""
    return json.dumps(record.model_dump(mode="json") | {"files": [file for file in files if file]})
