"""A stand-in for AWS's refusals in front of moto, and for IAM's simulation, which moto does not have.

moto lets everybody do everything. What is to be refused is named as policies name it, such as
`sqs:ReceiveMessage`; each service refuses in its own words.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.worker.stress.faults import _Call, _Server

ACCOUNT = "123456789012"
ROLE = f"arn:aws:sts::{ACCOUNT}:assumed-role/flux-worker/i-0123456789abcdef0"
_S3 = {"HEAD": "HeadBucket", "GET": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
_WORDS = (
    "User: {} is not authorized to perform: {} on resource: {} because no identity-based policy allows it"
)


@dataclass(frozen=True)
class Refusal:
    """How a call is answered; without `code`, the connection is closed instead."""

    code: str | None = "AccessDenied"
    status: int = 403
    message: str = ""
    body: str | None = None


class Refusing:
    """Passes calls on to `upstream`, but those that are refused."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.refused: dict[str, Refusal] = {}
        self.policies: dict[str, dict[str, Any]] | None = None
        """What IAM says of actions in a simulation; None: nobody may simulate. The rest is allowed."""
        self.calls: Counter[str] = Counter()
        self.requested: list[dict[str, list[str]]] = []
        self.conditional = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Refusable)
        self._server.proxy = self  # type: ignore[assignment]
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def refuse(self, action: str, code: str | None = "AccessDenied", **how: Any) -> None:
        self.refused[action] = Refusal(code, **how)

    @contextlib.contextmanager
    def running(self) -> Iterator[Refusing]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


class _Refusable(_Call):
    def _pass_on(self) -> None:
        proxy: Any = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        service = self._service()
        form = parse_qs(body.decode(errors="replace")) if service in ("sts", "iam") else {}
        action = f"{service}:{self._operation(service, form)}"
        proxy.calls[action] += 1
        if refusal := proxy.refused.get(action):
            if refusal.code is None:
                self.close_connection = True
            else:
                self._answer(*_words(service, action, refusal))
        elif action == "sts:GetCallerIdentity":
            self._answer(
                *_xml(
                    200,
                    f"<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>{ROLE}</Arn>"
                    f"<UserId>A:i</UserId><Account>{ACCOUNT}</Account></GetCallerIdentityResult>"
                    "</GetCallerIdentityResponse>",
                )
            )
        elif action == "iam:SimulatePrincipalPolicy":
            proxy.requested.append(form)
            self._answer(*_simulated(proxy.policies, form))
        elif service == "iam":
            self._answer(*_words(service, action, Refusal()))
        else:
            self._answer(*self._ask(proxy, body))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def _operation(self, service: str, form: dict[str, list[str]]) -> str:
        if service != "s3":
            target = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
            return target or form.get("Action", [""])[0]
        parts = urlsplit(self.path)
        if "list-type=2" in parts.query:
            return "ListBucket"
        return "GetEncryptionConfiguration" if parts.query.startswith("encryption") else _S3[self.command]


def _words(service: str, action: str, refusal: Refusal) -> tuple[int, list[tuple[str, str]], bytes]:
    message = refusal.message or _WORDS.format(ROLE, action.lower(), "*")
    if refusal.body is not None:
        return refusal.status, [("Content-Type", "text/html")], refusal.body.encode()
    if service == "s3":
        return _xml(refusal.status, f"<Error><Code>{refusal.code}</Code><Message>{message}</Message></Error>")
    if service in ("sts", "iam"):
        error = f"<Error><Type>Sender</Type><Code>{refusal.code}</Code><Message>{message}</Message></Error>"
        return _xml(refusal.status, f"<ErrorResponse>{error}</ErrorResponse>")
    code = refusal.code if refusal.code != "AccessDenied" else "AccessDeniedException"
    headers = [("Content-Type", "application/x-amz-json-1.1")]
    return refusal.status, headers, json.dumps({"__type": code, "message": message}).encode()


def _simulated(
    policies: dict[str, dict[str, Any]] | None, form: dict[str, list[str]]
) -> tuple[int, list[tuple[str, str]], bytes]:
    if policies is None:
        return _words("iam", "iam:SimulatePrincipalPolicy", Refusal())
    results = ""
    for action in (values[0] for name, values in form.items() if name.startswith("ActionNames.")):
        known = {"EvalDecision": "allowed", **policies.get(action, {})}
        fields = "".join(f"<{name}>{value}</{name}>" for name, value in known.items())
        results += f"<member><EvalActionName>{action}</EvalActionName>{fields}</member>"
    content = f"<EvaluationResults>{results}</EvaluationResults>"
    wrapped = f"<SimulatePrincipalPolicyResult>{content}</SimulatePrincipalPolicyResult>"
    return _xml(200, f"<SimulatePrincipalPolicyResponse>{wrapped}</SimulatePrincipalPolicyResponse>")


def _xml(status: int, text: str) -> tuple[int, list[tuple[str, str]], bytes]:
    return status, [("Content-Type", "text/xml")], text.encode()
