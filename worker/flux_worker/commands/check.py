"""The command `check`: this machine and the model, or the AWS resources."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..errors import EXIT_CONFIG
from . import options

if TYPE_CHECKING:
    from ..inference.backend import Report
    from ..settings import ModelSettings

_PERMILLE = 1000


@click.command()
@click.option("--verify", is_flag=True, help="Read every file of the model and compare its hash.")
@click.option(
    "--aws", is_flag=True, help="Check queue, bucket, event bus and the permissions on them instead."
)
@click.option("--write", is_flag=True, help="With --aws: write a probe object and send a FluxProbe event.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(verify: bool, aws: bool, write: bool, as_json: bool) -> None:
    """Show this machine's memory, and which precisions of the model fit it.

    On Neuron: the compiled sizes, and whether they fit.

    It does not load the model. Exit code 78 if the configured precision does not fit, if there is no device,
    or if a file is not as it was downloaded or made.

    With --aws: check the resources of the settings and the permissions on them, by read-only calls and by
    IAM's simulation if that is allowed. --write also writes, reads and removes one object (FLUX_S3_PREFIX
    and =probe-…) and sends one event (FluxProbe); it touches no job. Exit code 78 if something is missing,
    with the statements to add to the role's policy; 1 if AWS is not reachable.

    \b
    Example:
      FLUX_MODEL_REVISION=3de623fc3c33e44ffbe2bad470d0f45bccf2eb21 flux-worker check
      flux-worker check --json | jq .int8.fits
      flux-worker check --verify
      flux-worker check --aws --write
    """
    if write and not aws:
        raise click.UsageError("--write needs --aws")
    if verify and aws:
        raise click.UsageError("--verify checks the model and --aws checks AWS: choose one")
    if aws:
        _check_aws(write, as_json)
        return
    settings = options.model_settings()
    options.log_errors_only()
    from ..inference.backend import Report

    verified = _files(settings) if verify else Report(True, [], {})
    report = _machine(settings) if verified.fits else Report(False, [], {})
    facts = report.facts | verified.facts
    click.echo(json.dumps(facts) if as_json else "\n".join([*report.lines, *verified.lines]))
    if not (report.fits and verified.fits):
        click.get_current_context().exit(EXIT_CONFIG)


def _machine(settings: ModelSettings) -> Report:
    """Whether the model fits, and the selected backend; the CPU's arithmetic if there is none."""
    from ..inference import select_backend
    from ..inference.backend import Report
    from ..inference.checkpoint import find
    from ..inference.devices import CPU_HINT

    select_backend.select_device(settings)
    nothing = settings.backend == "auto" and select_backend.detect() is None
    backend = select_backend.select_backend(
        settings.model_copy(update={"backend": "cpu"}) if nothing else settings
    )
    report = backend.report(find(settings))
    facts: dict[str, Any] = {"setting": settings.backend, "draws_on": None if nothing else backend.name}
    lines = [f"backend     {backend.name}, by FLUX_BACKEND={settings.backend}"]
    if nothing:
        facts["why"] = select_backend.explain_no_device()
        lines = [f"backend     none: {facts['why']}", f"            {CPU_HINT}"]
    return Report(report.fits and not nothing, [*report.lines, *lines], report.facts | {"backend": facts})


def _files(settings: ModelSettings) -> Report:
    """Whether every file of the model has its hash."""
    from ..inference.backend import Report
    from ..inference.checkpoint import REMEDIES, verify

    with options.bar("Verifying", _PERMILLE) as show:
        found = verify(settings, lambda done, whole: show(_PERMILLE * done // whole))
    if found.faults:
        lines = [f"files       {len(found.faults)} of {found.files} have changed:"]
        lines += [f"            {name} {fault}" for name, fault in found.faults.items()]
        lines += [f"            {REMEDIES['int8' if settings.model_dir else 'bf16']}"]
    else:
        took = f"{found.seconds:.1f} s, {found.bytes / 1e6 / max(found.seconds, 0.001):,.0f} MB/s"
        lines = [f"files       all {found.files} are intact: {found.bytes / 1e9:.2f} GB hashed in {took}"]
    return Report(not found.faults, lines, {"files": asdict(found)})


def _check_aws(write: bool, as_json: bool) -> None:
    from ..access import check as access
    from ..settings import AwsSettings

    report = access.check(AwsSettings.from_environment(os.environ), os.environ, write=write)
    click.echo(json.dumps(report.facts) if as_json else "\n".join(report.lines()))
    click.get_current_context().exit(report.exit_code)
