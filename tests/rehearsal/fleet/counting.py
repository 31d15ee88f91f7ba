"""The function of a fleet's template that counts the jobs, run here: its own code, with its role's rights."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any
from unittest import mock

import boto3

from bake import localcloud
from bake.localcloud import LocalCloud, Settings, over_socket

Count = Callable[[], int]


def counter(cloud: LocalCloud, function: Mapping[str, Any], role: Mapping[str, Any]) -> Count:
    """What runs the function once and gives the number that it told CloudWatch, which is not here.

    `function` and `role` are their properties in the template.
    """
    documents = [policy["PolicyDocument"] for policy in role["Policies"]]
    key = localcloud.take_role(over_socket(Settings.load()), "fleet-counts-jobs", documents)
    told: list[dict[str, Any]] = []

    def client(service: str, region_name: str = "") -> Any:
        if service == "cloudwatch":
            return SimpleNamespace(put_metric_data=lambda **asked: told.append(asked))
        return boto3.client(
            service,
            endpoint_url=cloud.endpoint,
            region_name=region_name,
            aws_access_key_id=key.id,
            aws_secret_access_key=key.secret,
            aws_session_token=key.token,
        )

    code: dict[str, Any] = {}
    exec(function["Code"]["ZipFile"], code)  # the template's own
    code["boto3"] = SimpleNamespace(client=client)

    def count() -> int:
        with mock.patch.dict(os.environ, function["Environment"]["Variables"]):
            code["handler"]({}, None)
        [metric] = told.pop()["MetricData"]
        assert metric["MetricName"] == "Backlog"
        return int(metric["Value"])

    return count
