"""Simulate the remaining permissions with IAM, if the role may (iam:SimulatePrincipalPolicy)."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from ..aws.clients import Clients
from ..aws.errors import describe, error_code
from ..jobs.queue import AWS_ERRORS
from .permissions import Permission
from .report import Report

_SECURE = {"ContextKeyName": "aws:SecureTransport", "ContextKeyValues": ["true"], "ContextKeyType": "boolean"}


def simulate(clients: Clients, report: Report) -> None:
    """Simulate every permission whose state no call has shown."""
    try:
        source = policy_source(clients, report.identity.arn)
        if source is None:
            _mark_unknown(report, "no user or role to simulate with")
            return
        # IAM answers once per action, whatever the number of resources, so use one resource per call.
        for resource, permissions in groupby(report.open(), key=lambda permission: permission.asked_on):
            _ask(clients, report, source, resource, list(permissions))
    except AWS_ERRORS as error:
        _mark_unknown(report, f"neither a call nor IAM can tell: {describe(error)}")


def policy_source(clients: Clients, arn: str | None) -> str | None:
    """The ARN of the user or role; for a session, of its role, whose path only IAM knows."""
    kind, _, name = (arn or "").split(":")[-1].partition("/")
    if arn is None or not name:
        return None  # the account's root user, who may do everything
    if kind != "assumed-role":
        return arn if kind in {"user", "role"} else None
    role = name.partition("/")[0]
    try:
        return str(clients.iam.get_role(RoleName=role)["Role"]["Arn"])
    except AWS_ERRORS as error:
        if not error_code(error):
            raise
    return f"{arn.split(':assumed-role/')[0].replace(':sts:', ':iam:')}:role/{role}"


def _ask(clients: Clients, report: Report, source: str, resource: str, permissions: list[Permission]) -> None:
    given = [pair for permission in permissions for pair in permission.context]
    answer = clients.iam.simulate_principal_policy(
        PolicySourceArn=source,
        ActionNames=[permission.action for permission in permissions],
        ResourceArns=[resource],
        ContextEntries=[_SECURE, *(_entry(*pair) for pair in given)],
    )
    for result in answer["EvaluationResults"]:
        _settle(report, result)


def _entry(key: str, value: str) -> dict[str, Any]:
    return {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}


def _settle(report: Report, result: dict[str, Any]) -> None:
    action = result["EvalActionName"]
    if result["EvalDecision"] == "allowed":
        report.settle(action, "holds", "by IAM's simulation of the role's policies")
    elif result.get("MissingContextValues"):
        conditions = ", ".join(result["MissingContextValues"])
        report.settle(action, "untold", f"it depends on {conditions}, unknown to the simulation")
    elif not result.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations", True):
        report.settle(action, "missing", "a policy of the organization (SCP) forbids it", grant=False)
    elif not result.get("PermissionsBoundaryDecisionDetail", {}).get("AllowedByPermissionsBoundary", True):
        report.settle(action, "missing", "the role's permissions boundary does not allow it", grant=False)
    elif result["EvalDecision"] == "explicitDeny":
        report.settle(action, "missing", "a Deny in the role's policies forbids it", grant=False)
    else:
        why = "no policy of the role allows it, by IAM's simulation; the resource's own policy may"
        report.settle(action, "missing", why)


def _mark_unknown(report: Report, why: str) -> None:
    for permission in report.open():
        report.settle(permission.action, "untold", why)
