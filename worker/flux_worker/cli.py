"""The command `flux-worker`; imports torch and boto3 lazily so that `--help` stays fast."""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
from typing import Any

import click

from . import __version__
from .errors import WorkerError
from .host import logs

# By command, the module that is imported when it is called.
_LAZY_COMMANDS = {
    "check": "flux_worker.commands.check",
    "compile": "flux_worker.commands.model",
    "draw": "flux_worker.commands.draw",
    "quantize": "flux_worker.commands.model",
    "schema": "flux_worker.commands.schema",
    "send": "flux_worker.commands.send",
}
_NAMES = {"compile": "compile_model"}  # Python has a function of that name
DEFAULT_PORT = 9471  # the same as in settings.py, which is slow to import


class _Group(click.Group):
    """Loads commands lazily; shows a WorkerError as a message and exits with its code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_LAZY_COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _LAZY_COMMANDS:
            command: click.Command = getattr(
                importlib.import_module(_LAZY_COMMANDS[cmd_name]), _NAMES.get(cmd_name, cmd_name)
            )
            return command
        return super().get_command(ctx, cmd_name)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Replace characters that the terminal's encoding lacks, rather than fail with a traceback."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except WorkerError as error:
            logs.report_fatal(f"flux-worker: {error}")
            ctx.exit(error.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="flux-worker")
def main() -> None:
    """Generate images with FLUX.1-dev: from a queue (serve) or by hand (draw).

    Settings come from the environment; worker/README.md lists them.
    """


@main.command()
def serve() -> None:
    """Serve the queue until SIGTERM or an EC2 interruption.

    \b
    Example:
      AWS_REGION=eu-west-1 FLUX_BUCKET=pictures FLUX_EVENT_BUS=flux \\
      FLUX_QUEUE_URL=https://sqs.eu-west-1.amazonaws.com/123456789012/jobs \\
      FLUX_MODEL_REVISION=3de623fc3c33e44ffbe2bad470d0f45bccf2eb21 flux-worker serve
    """
    logs.to_stderr()
    from .settings import ServeSettings

    settings = ServeSettings.from_environment(os.environ)
    from .serve import serve as serve_queue

    serve_queue(settings)


@main.command()
@click.option(
    "--port",
    type=int,
    envvar="FLUX_METRICS_PORT",
    default=DEFAULT_PORT,
    show_default=True,
    help="The port on which the worker serves its status; FLUX_METRICS_PORT if that is set.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 99),
    envvar="FLUX_WORKERS",
    help="How many workers there are, on this port and the next ones.  [default: as they say]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the worker's answer as one JSON object.")
def status(port: int, workers: int | None, as_json: bool) -> None:
    """Show what the workers on this machine are doing.

    Exit code 1 if none answers, or if one of several does not. The JSON object of several has `ready`, true
    if all are, and `workers`: the answer of each, or its `error`.

    \b
    Example:
      flux-worker status
      flux-worker status --json | jq .jobs.drawn
      flux-worker status --json | jq '.workers[].jobs.drawn'
    """
    from .host.status import ask_all

    found = ask_all(port, workers)
    click.echo(json.dumps(found.facts()) if as_json else "\n".join(found.lines()))
    if found.missing:
        click.get_current_context().exit(1)


if __name__ == "__main__":
    main()
