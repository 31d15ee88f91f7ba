"""Run all checks of `flux-worker check --aws`."""

from __future__ import annotations

from collections.abc import Mapping

from .. import redaction
from ..aws.clients import Clients
from ..secretsmanager import is_reference
from ..settings import AwsSettings
from .read_checks import read
from .report import Report
from .simulation import simulate
from .weights_check import look_at_weights
from .write_checks import write as write_probe


def check(settings: AwsSettings, environment: Mapping[str, str], *, write: bool) -> Report:
    """Make read-only calls, write a probe if `write`, and simulate the rest with IAM."""
    redaction.add_environment_secrets()
    clients = Clients.from_settings(settings)
    given = [environment.get(str(field.alias), "").strip() for field in AwsSettings.model_fields.values()]
    report = read(settings, clients, [value for value in given if is_reference(value)])
    look_at_weights(settings, clients, report)
    if write:
        write_probe(settings, clients, report)
    simulate(clients, report)
    return report
