"""A builder without a GPU bakes for a type with one, once both types are agreed to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bake.localcloud import LocalCloud

from .test_agreement_circle import Checkout

pytestmark = [pytest.mark.root, pytest.mark.long]


def kinds(checkout: Checkout, run: str) -> dict[str, str]:
    """The name of each instance of a run, less the run's own, and its type as EC2 has it."""
    ours: Any = [{"Name": "tag:bake:run", "Values": [run]}]
    found = {}
    for reservation in checkout.aws.ec2.describe_instances(Filters=ours)["Reservations"]:
        for instance in reservation["Instances"]:
            names = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
            found[names["Name"].removeprefix(f"bake-{run}-")] = str(instance["InstanceType"])
    return found


def test_builder_and_boot_check_have_the_types_that_were_agreed_to(cloud: LocalCloud, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, cloud)
    checkout.agree()
    checkout.edit("instance_type: g6e.xlarge", "instance_type: m7i.xlarge")
    code, _, errors = checkout.run()
    assert code == 3
    assert "and the plan has problems:" in errors
    assert "m7i.xlarge has no NVIDIA GPU" in errors
    assert "worker.instance_type" in errors
    more = "  instance_type: g6e.xlarge\n  compile_sizes: [1024x1024]\n  remove_unused_libraries: true\n"
    checkout.edit("\nworker:\n", f"\nworker:\n{more}")
    code, _, errors = checkout.run()
    assert code == 3
    assert re.search(r"worker_instance_types +the builder's +g6e\.xlarge +profiles/mine\.yaml:", errors)
    agreed = (
        "instance_types",
        "worker_instance_types",
        "worker.compile_sizes",
        "worker.remove_unused_libraries",
    )
    assert checkout.approve(*agreed)[0] == 0
    process = checkout.start("--json")
    out, errors = process.communicate(timeout=3600)
    assert process.returncode == 0, errors
    events = [json.loads(line) for line in out.splitlines()]
    run = next(event for event in events if event["event"] == "run")
    assert kinds(checkout, run["id"]) == {"builder": "m7i.xlarge", "boot-check": "g6e.xlarge"}
    report = json.loads((tmp_path / run["directory"] / "report.json").read_text())
    outcomes = {check["about"]["id"]: check["outcome"] for check in report["checks"]}
    assert outcomes["drivers.kernel_is_held"] == "not applicable"  # a container has no kernel of its own
    assert outcomes["drivers.gpus_answer"] == "not applicable"
    assert report["pictures"][0]["device"] == "cpu"  # no stand-in has a GPU
    why = "the builder m7i.xlarge has no L40S"
    assert report["compiled"] == {"asked": ["1024x1024"], "compiled": [], "why_not": why}
    assert (report["unused_libraries"]["removed"], report["unused_libraries"]["why_not"]) == (False, why)
    warnings = [text for text in report["warnings"] if why in text]
    assert [text.partition(":")[0] for text in warnings] == [
        "worker.compile_sizes",
        "worker.remove_unused_libraries",
    ]
