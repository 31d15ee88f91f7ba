"""moto's IAM, with what it lets pass of malformed policies."""

from __future__ import annotations

import json
from typing import Any

from moto.iam.exceptions import MalformedPolicyDocument
from moto.iam.policy_validation import IAMPolicyDocumentValidator


def install() -> None:
    """Refuse policies of callers that name a principal; to be called before the first request."""
    of_moto = IAMPolicyDocumentValidator.validate

    def validate(self: Any) -> None:
        of_moto(self)
        statements = json.loads(self._policy_document)["Statement"]
        for statement in statements if isinstance(statements, list) else [statements]:
            if {"Principal", "NotPrincipal"} & statement.keys():
                raise MalformedPolicyDocument("Policy document should not specify a principal.")

    IAMPolicyDocumentValidator.validate = validate
