"""iam:SimulatePrincipalPolicy and iam:SimulateCustomPolicy, which moto lacks, answered by the evaluator.

https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Final
from xml.sax.saxutils import escape

from werkzeug.wrappers import Response

from bake.localcloud.api.access.evaluation import Decision, evaluate
from bake.localcloud.api.access.needs import Need
from bake.localcloud.api.access.policies import role_documents
from bake.localcloud.api.faults import errors
from bake.localcloud.api.faults.calls import Call
from bake.localcloud.api.faults.errors import AwsError
from bake.localcloud.settings import ACCOUNT

OPERATIONS: Final = {"SimulatePrincipalPolicy", "SimulateCustomPolicy"}
_ENTITY: Final = re.compile(rf"arn:aws:iam::{ACCOUNT}:(role|user|group)/(?:[^/]+/)*([^/]+)")
_ACTION: Final = re.compile(r"[a-z0-9-]+:[A-Za-z0-9*?]+", re.IGNORECASE)


def answer(operation: str, parameters: Mapping[str, str]) -> Response:
    """Simulate, or refuse as IAM does."""
    try:
        documents = _members(parameters, "PolicyInputList")
        if operation == "SimulatePrincipalPolicy":
            documents += _documents(parameters.get("PolicySourceArn", ""))
        results = [
            _result(Need(action, resource, _context(parameters)), documents)
            for action in _actions(parameters)
            for resource in _members(parameters, "ResourceArns") or ["*"]
        ]
    except _Refused as refused:
        return errors.answer(Call("iam", operation, "query", {}), refused.error)
    return Response(
        f'<{operation}Response xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><{operation}Result>'
        f"<IsTruncated>false</IsTruncated><EvaluationResults>{''.join(results)}</EvaluationResults>"
        f"</{operation}Result><ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata>"
        f"</{operation}Response>",
        content_type="text/xml",
    )


class _Refused(Exception):
    def __init__(self, code: str, text: str, status: int = 400) -> None:
        super().__init__(code)
        self.error = AwsError(code, text, status)


def _members(parameters: Mapping[str, str], name: str) -> list[str]:
    """A list of IAM's query protocol: `name.member.1` and the next ones."""
    pattern = re.compile(rf"{re.escape(name)}\.member\.(\d+)")
    found = {int(match[1]): value for key, value in parameters.items() if (match := pattern.fullmatch(key))}
    return [found[number] for number in sorted(found)]


def _documents(arn: str) -> list[str]:
    """The policies of the role of this ARN; the local cloud has no users and groups."""
    from moto.iam.models import iam_backends

    entity = _ENTITY.fullmatch(arn)
    if entity is None:
        raise _Refused(
            "InvalidInput", f"Invalid Entity Arn: {arn} does not clearly define entity type and name."
        )
    kind, name = entity[1], entity[2]
    roles = iam_backends[ACCOUNT]["aws"].get_roles() if kind == "role" else []
    if not any(role.arn == arn for role in roles):
        raise _Refused("NoSuchEntity", f"The {kind} with name {name} cannot be found.", 404)
    return role_documents(name)


def _actions(parameters: Mapping[str, str]) -> list[str]:
    actions = _members(parameters, "ActionNames")
    for action in actions:
        if not _ACTION.fullmatch(action):
            raise _Refused("InvalidInput", f"Invalid ActionName: {action}")
    return actions


def _context(parameters: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    found = {}
    for key, name in parameters.items():
        if match := re.fullmatch(r"(ContextEntries\.member\.\d+)\.ContextKeyName", key):
            found[name] = tuple(_members(parameters, f"{match[1]}.ContextKeyValues"))
    return found


def _result(need: Need, documents: list[str]) -> str:
    decision = evaluate(documents, need)
    return (
        f"<member><EvalActionName>{escape(need.action)}</EvalActionName>"
        f"<EvalResourceName>{escape(need.resource)}</EvalResourceName>"
        f"<EvalDecision>{decision.effect}</EvalDecision>"
        f"<MatchedStatements>{_statement(decision)}</MatchedStatements><MissingContextValues/></member>"
    )


def _statement(decision: Decision) -> str:
    if decision.source is None:
        return ""
    policy = f"PolicyInputList.{decision.source.document + 1}"
    kind = "<SourcePolicyType>IAM Policy</SourcePolicyType>"
    return f"<member><SourcePolicyId>{policy}</SourcePolicyId>{kind}</member>"
