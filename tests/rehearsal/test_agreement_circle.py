"""Refuse, show, approve, bake: the whole cycle on the local cloud."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from bake.aws import Aws
from bake.localcloud import LocalCloud

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
BAKE = [sys.executable, "-m", "bake.cli"]


class Checkout:
    """A checkout with one profile, and the command without a terminal."""

    def __init__(self, directory: Path, cloud: LocalCloud) -> None:
        self.directory = directory
        self.variables: dict[str, str] = {}
        self.aws = Aws(
            region=cloud.environment["SPOT_AWS_REGION"],
            worker_region=cloud.environment["AWS_REGION"],
            endpoint=cloud.endpoint,
            endpoint_key=cloud.keys,
        )
        (directory / "profiles").mkdir()
        self.profile = directory / "profiles/mine.yaml"
        text = (ROOT / "profiles/g6e-ubuntu.yaml").read_text(encoding="utf-8")
        self.profile.write_text(f"{text}\nattest: false\n", encoding="utf-8")
        self.lock = directory / ".bake/rehearsal/mine.lock.yaml"

    def edit(self, old: str, new: str) -> None:
        text = self.profile.read_text(encoding="utf-8")
        assert old in text
        self.profile.write_text(text.replace(old, new), encoding="utf-8")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*BAKE, *arguments, "--profile", "mine", "--rehearse"],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, errors = process.communicate(timeout=900)
        assert "Traceback" not in errors, errors
        return process.returncode, out, errors

    def plan(self) -> dict[str, Any]:
        code, out, errors = self.run("plan", "--json")
        assert code == 0, errors
        found: dict[str, Any] = json.loads(out)["agreement"]
        return found

    def approve(self, *names: str) -> tuple[int, str, str]:
        named = [part for name in names for part in ("--fact", name)]
        return self.run("approve", "--because", "a test", *named)

    def agree(self) -> None:
        code, _, errors = self.approve(*(one["fact"] for one in self.plan()["differences"]))
        assert code == 0, errors

    def starts_baking(self) -> list[dict[str, Any]]:
        """Start a bake, see that it gets as far as the launch, and stop it there."""
        process = self.start("--json")
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(json.loads(line))
            if seen[-1].get("step") == "launch":
                process.send_signal(signal.SIGINT)
                break
        _, errors = process.communicate(timeout=900)
        assert seen[-1].get("step") == "launch", errors
        assert process.returncode == 130, errors
        return seen

    def started(self) -> int:
        """How many instances there ever were."""
        return sum(len(group["Instances"]) for group in self.aws.ec2.describe_instances()["Reservations"])


@pytest.fixture(scope="module")
def first_lock(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> str:
    checkout = Checkout(tmp_path_factory.mktemp("first"), cloud)
    checkout.agree()
    return checkout.lock.read_text()


@pytest.fixture
def checkout(cloud: LocalCloud, tmp_path: Path) -> Checkout:
    return Checkout(tmp_path, cloud)


@pytest.fixture
def agreed(checkout: Checkout, first_lock: str) -> Checkout:
    checkout.lock.parent.mkdir(parents=True)
    checkout.lock.write_text(first_lock)
    return checkout


def test_a_rehearsal_without_an_agreement_goes_on_and_says_so(checkout: Checkout) -> None:
    code, out, _ = checkout.run("plan")
    assert code == 0
    assert "A rehearsal needs no agreement" in out
    events = checkout.starts_baking()
    assert any("needs no agreement" in event.get("text", "") for event in events)
    assert list(yaml.safe_load(checkout.lock.read_text())) == ["inputs"]  # what it locked by itself
    assert any("locked the local Hub's weights" in event.get("text", "") for event in events)


def test_what_is_agreed_in_a_rehearsal_stays_apart_from_the_users(
    agreed: Checkout, cloud: LocalCloud
) -> None:
    content = yaml.safe_load(agreed.lock.read_text())
    assert content["agreed"]["base_ami"] == cloud.environment["BASE_AMI_ID"]
    assert content["agreed"]["root_volume.size_gib"] == 80
    assert agreed.plan()["agreed"] is True
    assert [file.name for file in agreed.profile.parent.iterdir()] == ["mine.yaml"]


def test_a_rehearsal_never_looks_for_the_users_queue(agreed: Checkout) -> None:
    agreed.variables["FLUX_QUEUE_URL"] = "https://sqs.eu-west-1.amazonaws.com/1/mine"
    assert agreed.plan()["agreed"] is True


def larger(checkout: Checkout) -> None:
    checkout.edit("size_gib: 80", "size_gib: 120")


def another_ami(checkout: Checkout) -> None:
    checkout.edit("${BASE_AMI_ID}", "${BASE_AMI_ID_NEURON}")


def another_group(checkout: Checkout) -> None:
    vpc = checkout.aws.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["false"]}])["Vpcs"][0][
        "VpcId"
    ]
    name = f"other-{time.monotonic_ns()}"
    group = checkout.aws.ec2.create_security_group(GroupName=name, Description="x", VpcId=vpc)["GroupId"]
    checkout.variables["OTHER_GROUP"] = group
    checkout.edit("${BAKE_SECURITY_GROUP_ID}", "${OTHER_GROUP}")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        pytest.param(larger, "root_volume.size_gib", id="80 to 120 GiB"),
        pytest.param(another_ami, "base_ami", id="another AMI", marks=pytest.mark.long),
        pytest.param(another_group, "security_group", id="another security group", marks=pytest.mark.long),
    ],
)
def test_the_circle(agreed: Checkout, change: Any, name: str) -> None:
    before = agreed.started()
    change(agreed)
    code, _, errors = agreed.run()  # refuse
    assert code == 3, errors
    table = [line.split()[0] for line in errors.splitlines() if re.match(r"  [a-z_.]+  ", line)]
    assert table == ["fact", name]
    assert "bake approve --profile mine --rehearse --because" in errors
    assert agreed.started() == before
    shown = agreed.run("plan")[1]  # show
    assert f"✗ {name}" in shown
    assert agreed.approve()[0] == 3  # approve: not without the name
    assert agreed.approve(name)[0] == 0
    history = yaml.safe_load(agreed.lock.read_text())["history"]
    assert [list(entry["changed"]) for entry in history][1:] == [[name]]
    agreed.starts_baking()  # bake


def test_the_weights_circle(agreed: Checkout) -> None:
    assert agreed.run("lock")[0] == 0
    locked = agreed.lock.read_text()
    content = yaml.safe_load(locked)
    assert content["agreed"]["root_volume.size_gib"] == 80  # what was agreed stays
    files = content["inputs"]["weights.files"]
    assert "model_index.json" in files
    assert not [path for path in files if path.startswith(("flux1-dev", "ae.", "README"))]
    assert agreed.run("lock")[0] == 0
    assert agreed.lock.read_text() == locked

    before, sha256 = agreed.started(), files["vae/diffusion_pytorch_model.safetensors"]["sha256"]
    agreed.lock.write_text(locked.replace(sha256, "a" * 64))
    code, _, errors = agreed.run()  # refuse: the Hub serves something else
    assert code == 2, errors
    assert "the Hub's files are not the locked ones" in errors
    assert "bake lock --update" in errors
    assert agreed.started() == before
    code, _, errors = agreed.run("lock")  # show
    assert code == 3
    assert re.search(rf"vae/diffusion_pytorch_model.safetensors .* a{{12}} .* {sha256[:12]}", errors)
    code, _, errors = agreed.run("lock", "--update")
    assert code == 3
    commit = content["inputs"]["weights.revision"]
    assert f"--commit {commit}" in errors
    assert agreed.run("lock", "--update", "--commit", "0" * 40)[0] == 3
    assert agreed.run("lock", "--update", "--commit", commit)[0] == 0  # replace
    assert agreed.lock.read_text() == locked
    agreed.starts_baking()  # bake


def test_another_revision_needs_another_lock(agreed: Checkout) -> None:
    assert agreed.run("lock")[0] == 0
    revision = yaml.safe_load(agreed.lock.read_text())["inputs"]["weights.revision"]
    agreed.lock.write_text(agreed.lock.read_text().replace(revision, "a" * 40))
    code, _, errors = agreed.run()
    assert code == 3, errors
    assert f"the weights are locked at {'a' * 40}, the profile asks for {revision}" in errors
    assert "bake lock --profile mine --rehearse" in errors


def test_another_region_is_refused_and_its_missing_ami_is_no_excuse(agreed: Checkout) -> None:
    agreed.variables["OTHER_REGION"] = "eu-central-1"
    agreed.edit("${SPOT_AWS_REGION}", "${OTHER_REGION}")
    code, _, errors = agreed.run()
    assert code == 3, errors
    assert re.search(r"region +eu-north-1 +eu-central-1 +OTHER_REGION \(environment\)", errors)
    assert "and the plan has problems:" in errors
    assert agreed.approve("region")[0] == 2  # what can't be planned can't be agreed to
    assert agreed.run("plan")[0] == 2
