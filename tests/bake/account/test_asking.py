"""Asking: questions are asked side by side, and Ctrl-C ends them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest

from ..variables import VARIABLES

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud

ROOT = Path(__file__).parents[3]
PATIENCE = 60  # seconds; a busy host is no reason to fail


def test_questions_are_asked_side_by_side(plan_cloud: PlanCloud) -> None:
    """Each of two questions is answered only while the other one is asked."""
    both = Barrier(2)

    def answering(content: dict[str, Any]) -> Any:
        def answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            both.wait(PATIENCE)
            return 200, content

        return answer

    bus = {"Name": "together", "Arn": "arn:aws:events:eu-west-1:123456789012:event-bus/together"}
    quota = {"QuotaCode": "L-DB2E81BA", "QuotaName": "G and VT", "Value": 8.0}
    plan_cloud.front.answers |= {
        "DescribeEventBus": answering(bus),
        "GetServiceQuota": answering({"Quota": quota}),
    }
    plan = plan_cloud.plan(worker={"bus": "together"})
    assert "g6e.xlarge fits the quota: 4 vCPUs of 8, 0 in use" in plan.checked
    assert "the event bus together is in eu-west-1" in plan.checked
    assert not both.broken


@pytest.mark.integration
def test_ctrl_c_ends_a_plan_that_waits_for_an_answer() -> None:
    """The server takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            **VARIABLES,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-uses",
            "HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        command = [sys.executable, "-m", "bake.cli", "plan", "--profile", "g6e-ubuntu"]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(1)  # a question has been sent
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=15)  # less than the 20 s that an answer may take
    assert (process.returncode, out) == (130, ""), err
    assert err.startswith("interrupted")
