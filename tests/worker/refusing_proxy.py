"""Refuses calls in AWS's own words, and answers IAM's simulation, which moto does not have.

moto allows everything. Refused actions are named as policies name them, such as `sqs:ReceiveMessage`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.worker.aws_proxy import Answer, AwsProxy, Call, error, xml

ACCOUNT = "123456789012"
ROLE = f"arn:aws:sts::{ACCOUNT}:assumed-role/flux-worker/i-0123456789abcdef0"
_S3 = {"HEAD": "HeadBucket", "GET": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
_WORDS = (
    "User: {} is not authorized to perform: {} on resource: {} because no identity-based policy allows it"
)

_CALLER = xml(
    200,
    f"<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>{ROLE}</Arn>"
    f"<UserId>A:i</UserId><Account>{ACCOUNT}</Account></GetCallerIdentityResult>"
    "</GetCallerIdentityResponse>",
)


@dataclass(frozen=True)
class Refusal:
    """How a call is answered; without `code`, the connection is closed instead."""

    code: str | None = "AccessDenied"
    status: int = 403
    message: str = ""
    body: str | None = None


class RefusingProxy(AwsProxy):
    """Passes calls on to `upstream`, except those that are refused."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.refused: dict[str, Refusal] = {}
        self.policies: dict[str, dict[str, Any]] | None = None
        """What IAM says of actions in a simulation; None: nobody may simulate. The rest is allowed."""
        self.simulated: list[dict[str, list[str]]] = []

    def refuse(self, action: str, code: str | None = "AccessDenied", **how: Any) -> None:
        """Refuse this action from now on."""
        self.refused[action] = Refusal(code, **how)

    def respond(self, call: Call) -> Answer | None:
        """Refuse, or answer for STS and IAM, or ask the upstream."""
        form = parse_qs(call.body.decode(errors="replace")) if call.service in ("sts", "iam") else {}
        action = f"{call.service}:{_operation(call, form)}"
        self.calls[action] += 1
        if refusal := self.refused.get(action):
            return _refused(call.service, action, refusal) if refusal.code else None
        if action == "sts:GetCallerIdentity":
            return _CALLER
        if action == "iam:SimulatePrincipalPolicy":
            self.simulated.append(form)
            return _simulated(self.policies, form)
        return _refused("iam", action, Refusal()) if call.service == "iam" else call.forward()


def _operation(call: Call, form: dict[str, list[str]]) -> str:
    if call.service != "s3":
        return call.target.rpartition(".")[2] or form.get("Action", [""])[0]
    query = urlsplit(call.path).query
    if "list-type=2" in query:
        return "ListBucket"
    return "GetEncryptionConfiguration" if query.startswith("encryption") else _S3[call.command]


def _refused(service: str, action: str, refusal: Refusal) -> Answer:
    if refusal.body is not None:
        return refusal.status, [("Content-Type", "text/html")], refusal.body.encode()
    message = refusal.message or _WORDS.format(ROLE, action.lower(), "*")
    code = str(refusal.code)
    if code == "AccessDenied" and service not in ("s3", "sts", "iam"):
        code = "AccessDeniedException"
    return error(service, refusal.status, code, message)


def _simulated(policies: dict[str, dict[str, Any]] | None, form: dict[str, list[str]]) -> Answer:
    if policies is None:
        return _refused("iam", "iam:SimulatePrincipalPolicy", Refusal())
    results = ""
    for action in (values[0] for name, values in form.items() if name.startswith("ActionNames.")):
        known = {"EvalDecision": "allowed", **policies.get(action, {})}
        fields = "".join(f"<{name}>{value}</{name}>" for name, value in known.items())
        results += f"<member><EvalActionName>{action}</EvalActionName>{fields}</member>"
    content = f"<EvaluationResults>{results}</EvaluationResults>"
    wrapped = f"<SimulatePrincipalPolicyResult>{content}</SimulatePrincipalPolicyResult>"
    return xml(200, f"<SimulatePrincipalPolicyResponse>{wrapped}</SimulatePrincipalPolicyResponse>")
