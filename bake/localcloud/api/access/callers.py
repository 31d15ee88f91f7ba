"""Callers other than the administrator and the instances: roles that the control interface makes.

A rehearsal under a policy calls as such a role, with the credentials of a session of it, as a person or a
CI job on AWS would.
"""

from __future__ import annotations

import json
from typing import Any

from bake.aws import AccessKey
from bake.errors import UsageError
from bake.localcloud.api.access.keys import Key, Keys
from bake.localcloud.api.access.policies import NeedLog
from bake.localcloud.network.control import Ask, Routes
from bake.localcloud.settings import ACCOUNT


def routes(keys: Keys, log: NeedLog) -> Routes:
    """The routes that make callers, and that tell what all callers needed."""

    def caller(request: Any) -> dict[str, str]:
        name, policies = _asked(request.get_data())
        put_role(name, policies)
        return _told(keys.of_caller(name))

    def needed(request: Any) -> list[dict[str, Any]]:
        return log.listed()

    return {("POST", "/-/caller"): caller, ("GET", "/-/needs"): needed}


def take_role(ask: Ask, name: str, policies: list[dict[str, Any]]) -> AccessKey:
    """Give a role exactly these inline policies, and return credentials of a session of it."""
    told = ask("POST", "/-/caller", json.dumps({"name": name, "policies": policies}).encode())
    return AccessKey(told["id"], told["secret"], told["token"])


def needs(ask: Ask) -> list[dict[str, Any]]:
    """What callers needed so far: principal, action, resource, context, and whether it was allowed."""
    found: list[dict[str, Any]] = ask("GET", "/-/needs", None)
    return found


def put_role(name: str, policies: list[dict[str, Any]]) -> None:
    """Create a role of this name, or replace its policies; UsageError for a policy that IAM would refuse."""
    from moto.core.exceptions import ServiceException
    from moto.iam.exceptions import NotFoundException
    from moto.iam.models import iam_backends

    iam = iam_backends[ACCOUNT]["aws"]
    try:
        role = iam.get_role(name)
    except NotFoundException:
        trust = {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
            "Action": "sts:AssumeRole",
        }
        role = iam.create_role(
            role_name=name,
            assume_role_policy_document=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
            path="/",
            permissions_boundary=None,
            description="A caller of the local cloud",
            tags=[],
            max_session_duration=3600,
        )
    before, number = dict(role.policies), 0
    try:
        # Over the old ones: another rehearsal of the same profile may call meanwhile.
        for number, policy in enumerate(policies, 1):
            iam.put_role_policy(name, f"policy-{number}", json.dumps(policy))
    except ServiceException as error:
        role.policies = before
        raise UsageError(f"policy {number} of {name}: {error.message}") from error
    kept = {f"policy-{one}" for one in range(1, number + 1)}
    role.policies = {one: document for one, document in role.policies.items() if one in kept}


def _asked(body: bytes) -> tuple[str, list[dict[str, Any]]]:
    try:
        content = json.loads(body)
        name, policies = content["name"], content["policies"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError('a caller is {"name": …, "policies": […]}') from error
    if not isinstance(name, str) or not name or not isinstance(policies, list):
        raise UsageError('a caller is {"name": …, "policies": […]}')
    return name, policies


def _told(key: Key) -> dict[str, str]:
    return {"id": key.id, "secret": key.secret, "token": key.token}
