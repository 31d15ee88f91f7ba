"""`flux-worker schema`: the JSON Schemas of what callers send and read, one file each in worker/."""

from __future__ import annotations

from collections.abc import Callable

import click


def _job() -> str:
    from ..jobspec.job import schema

    return schema()


def _record() -> str:
    """The record's; the job in it always has a seed."""
    from ..jobs.record import Record
    from ..jobspec.reader_schema import as_text, of_written

    schema = of_written(Record)
    seed = schema["$defs"]["Job"]["properties"]["seed"]
    seed |= next(one for one in seed.pop("anyOf") if one["type"] != "null")
    return as_text(schema)


def _said(model: str) -> Callable[[], str]:
    def text() -> str:
        from ..jobspec import events
        from ..jobspec.reader_schema import as_text, of_written

        return as_text(of_written(getattr(events, model)))

    return text


SCHEMAS: dict[str, Callable[[], str]] = {
    "job": _job,
    "record": _record,
    "stored-failure": _said("StoredFailure"),
    "image-ready": _said("ImageReadyEvent"),
    "image-failed": _said("ImageFailedEvent"),
}
"""By name: what makes the text of worker/NAME.schema.json."""


@click.command()
@click.argument("name", type=click.Choice(list(SCHEMAS)), default="job")
def schema(name: str) -> None:
    """Print a JSON Schema: of a job, of what is stored, or of an event.

    \b
    job             what callers send (the default)
    record          <id>.json in S3: the images of a finished job
    stored-failure  <id>=failed.json in S3: why a job failed
    image-ready     the event FluxImageReady, as EventBridge delivers it
    image-failed    the event FluxImageFailed, as EventBridge delivers it

    \b
    Example:
      flux-worker schema > job.schema.json
      flux-worker schema image-ready > image-ready.schema.json
    """
    click.echo(SCHEMAS[name](), nl=False)
