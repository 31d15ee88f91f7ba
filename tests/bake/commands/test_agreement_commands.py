"""`bake`, `bake plan` and `bake approve` as processes, against moto's server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from ..networks import open_network
from . import terminal

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]
BAKE = [sys.executable, "-m", "bake.cli"]
REGION, OTHER_REGION = "eu-north-1", "eu-central-1"
UBUNTU, OTHER_UBUNTU = "ami-785db401", "ami-1e749f67"  # moto has them in every region
MINE: Any = [{"Name": "tag:bake:profile", "Values": ["mine"]}]


@dataclass(frozen=True)
class Account:
    """An AWS account: `variables` make a profile refer to what it has."""

    endpoint: str
    variables: dict[str, str]

    def client(self, service: str, region: str = REGION) -> Any:
        return boto3.client(
            service, region, endpoint_url=self.endpoint, aws_access_key_id="x", aws_secret_access_key="x"
        )

    def network(self, region: str) -> dict[str, str]:
        ec2 = self.client("ec2", region)
        subnet = ec2.describe_subnets()["Subnets"][0]
        group = open_network(ec2, subnet["VpcId"])
        return {"BAKE_SUBNET_ID": subnet["SubnetId"], "BAKE_SECURITY_GROUP_ID": group}

    def another_group(self) -> str:
        ec2 = self.client("ec2")
        vpc = ec2.describe_subnets(SubnetIds=[self.variables["BAKE_SUBNET_ID"]])["Subnets"][0]["VpcId"]
        name = f"other-{time.monotonic_ns()}"
        return str(ec2.create_security_group(GroupName=name, Description="x", VpcId=vpc)["GroupId"])


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_REGION": "eu-west-1",
        "SPOT_AWS_REGION": REGION,
        "BASE_AMI_ID": UBUNTU,
        "BAKE_INSTANCE_PROFILE": "flux-worker",
        "HF_TOKEN": "hf_canary_token",
    }
    found = Account(f"http://{host}:{port}", variables)
    variables.update(found.network(REGION))
    iam = found.client("iam")
    iam.create_instance_profile(InstanceProfileName="flux-worker")
    iam.create_role(RoleName="flux-worker", AssumeRolePolicyDocument="{}")
    iam.add_role_to_instance_profile(InstanceProfileName="flux-worker", RoleName="flux-worker")
    yield found
    server.stop()


class Checkout:
    """A checkout's profiles, with variables and a git identity, and the command."""

    def __init__(self, directory: Path, account: Account) -> None:
        self.directory = directory
        self.account = account
        self.variables = dict(account.variables)
        (directory / "profiles").mkdir()
        text = (ROOT / "profiles/g6e-ubuntu.yaml").read_text(encoding="utf-8")
        self.profile = directory / "profiles/mine.yaml"
        self.profile.write_text(text, encoding="utf-8")
        self.lock = directory / "profiles/mine.lock.yaml"
        (directory / "gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")

    def edit(self, old: str, new: str) -> None:
        text = self.profile.read_text(encoding="utf-8")
        assert old in text
        self.profile.write_text(text.replace(old, new), encoding="utf-8")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "PYTHONPATH": str(ROOT),
            "GIT_CONFIG_GLOBAL": str(self.directory / "gitconfig"),
            "AWS_ENDPOINT_URL": self.account.endpoint,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "HF_ENDPOINT": "http://127.0.0.1:9",  # nothing answers there
            **self.variables,
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Without a terminal."""
        done = subprocess.run(
            [*BAKE, *arguments],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "hf_canary" not in f"{done.stdout}{done.stderr}"
        return done

    def on_a_terminal(self, *arguments: str, answer: str) -> tuple[int, str]:
        """Exit code and all that the terminal showed; `answer` is typed once there is a question."""
        return terminal.run([*BAKE, *arguments], self.directory, self.environment, answer)

    def approve(self, *facts: str) -> subprocess.CompletedProcess[str]:
        named = [part for fact in facts for part in ("--fact", fact)]
        return self.run("approve", "--profile", "mine", "--because", "a test", *named)

    def agree(self) -> None:
        names = [one["fact"] for one in self.plan()["differences"]]
        done = self.approve(*names)
        assert done.returncode == 0, done.stderr

    def plan(self) -> dict[str, Any]:
        done = self.run("plan", "--profile", "mine", "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)["agreement"]
        return found


@pytest.fixture
def checkout(tmp_path: Path, account: Account) -> Checkout:
    return Checkout(tmp_path, account)


@pytest.fixture(scope="module")
def first_lock(account: Account, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The lock file of an agreement to all of it."""
    checkout = Checkout(tmp_path_factory.mktemp("first"), account)
    checkout.agree()
    return checkout.lock.read_text()


@pytest.fixture
def agreed(checkout: Checkout, first_lock: str) -> Checkout:
    checkout.lock.write_text(first_lock)
    return checkout


def test_a_first_bake_is_refused_with_every_fact(checkout: Checkout, account: Account) -> None:
    done = checkout.run("--profile", "mine")
    assert done.returncode == 3
    for part in (
        "profile mine has no agreement yet; `bake approve` records it in profiles/mine.lock.yaml",
        "the weights are not locked yet (profiles/mine.lock.yaml)",
        "bake lock --profile mine",
        f"region {REGION} ",
        "SPOT_AWS_REGION (environment)",
        "root_volume.size_gib 80 ",
        'bake approve --profile mine --because "…"',
        f"--fact base_ami={UBUNTU}",
        "nothing was started",
    ):
        assert part in done.stderr or part in " ".join(done.stderr.split())
    assert account.client("ec2").describe_key_pairs(Filters=MINE)["KeyPairs"] == []
    assert not (checkout.directory / ".bake").exists()


def test_events_of_a_refused_bake_report_the_refusal(checkout: Checkout) -> None:
    done = checkout.run("--profile", "mine", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 3
    assert events[-1]["event"] == "failed"
    assert "has no agreement yet" in events[-1]["message"]


def test_a_plan_says_what_is_not_agreed_and_changes_nothing(checkout: Checkout) -> None:
    done = checkout.run("plan", "--profile", "mine")
    assert done.returncode == 0
    assert re.search(r"\? root_volume\.size_gib +not yet +80 +profiles/mine\.yaml:\d+", done.stdout)
    assert "facts are not agreed: a bake would stop here with exit code 3" in done.stdout
    found = checkout.plan()
    assert (found["exists"], found["agreed"], found["file"]) == (False, False, "profiles/mine.lock.yaml")
    assert not checkout.lock.exists()


def test_the_profile_may_stand_before_the_command(checkout: Checkout) -> None:
    done = checkout.run("--profile", "mine", "--json", "plan")
    assert json.loads(done.stdout)["agreement"]["agreed"] is False
    missing = checkout.run("plan")
    assert missing.returncode == 2
    assert "--profile NAME is missing" in missing.stderr


def test_without_a_terminal_nothing_is_agreed_that_is_not_named(checkout: Checkout) -> None:
    done = checkout.approve("region", f"base_ami={UBUNTU}")
    assert done.returncode == 3
    assert "without a terminal, name each fact; these were not named: instance_types, worker_" in done.stderr
    assert not checkout.lock.exists()


def test_named_facts_are_agreed_to_and_recorded(agreed: Checkout) -> None:
    content = yaml.safe_load(agreed.lock.read_text())
    assert content["agreed"]["root_volume.size_gib"] == 80
    assert content["agreed"]["instance_types"] == ["g6e.xlarge"]
    assert content["agreed"]["vpc"].startswith("vpc-")
    assert list(content["inputs"]) == ["worker.lock"]
    (entry,) = content["history"]
    assert (entry["who"], entry["why"]) == ("Ada <ada@example.org>", "a test")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["when"])
    assert entry["changed"]["root_volume.size_gib"] == {"to": 80}
    assert agreed.plan()["agreed"] is True
    assert "Everything is agreed." in agreed.run("plan", "--profile", "mine").stdout


def test_an_agreed_profile_is_not_baked_before_it_is_locked(agreed: Checkout, account: Account) -> None:
    done = agreed.run("--profile", "mine")
    assert done.returncode == 3
    assert "the weights are not locked yet (profiles/mine.lock.yaml)" in done.stderr
    assert "not what was agreed" not in done.stderr
    sizes = (ROOT / "profiles/g6e-ubuntu.lock.yaml").read_text().split("inputs:\n")[1]
    agreed.lock.write_text(agreed.lock.read_text().replace("inputs:\n", f"inputs:\n{sizes}"))
    done = agreed.run("--profile", "mine")
    assert done.returncode == 3
    assert "the weights' lock is not complete: it has sizes without hashes" in done.stderr
    assert "bake lock --profile mine" in done.stderr
    assert account.client("ec2").describe_key_pairs(Filters=MINE)["KeyPairs"] == []


def test_agreeing_again_records_nothing(agreed: Checkout) -> None:
    before = agreed.lock.read_bytes()
    done = agreed.approve("region")
    assert (done.returncode, agreed.lock.read_bytes()) == (0, before)
    assert "everything is as agreed" in done.stderr


def test_a_terminal_is_asked_and_shown_the_difference(agreed: Checkout) -> None:
    agreed.edit("size_gib: 80", "size_gib: 120")
    before = agreed.lock.read_bytes()
    arguments = ["approve", "--profile", "mine", "--because", "room  for more"]
    code, text = agreed.on_a_terminal(*arguments, answer="n\n")
    assert (code, agreed.lock.read_bytes()) == (3, before)
    assert re.search(r"root_volume\.size_gib +80 +120 +profiles/mine\.yaml:\d+", text)
    assert "nothing was recorded" in text
    code, text = agreed.on_a_terminal(*arguments, answer="y\n")
    assert code == 0, text
    assert "recorded in profiles/mine.lock.yaml: root_volume.size_gib" in text
    last = yaml.safe_load(agreed.lock.read_text())["history"][-1]
    assert last["changed"] == {"root_volume.size_gib": {"from": 80, "to": 120}}
    assert last["why"] == "room for more"
    assert agreed.plan()["agreed"] is True


def test_a_terminal_may_agree_to_a_part(agreed: Checkout) -> None:
    agreed.edit("size_gib: 80", "size_gib: 120")
    agreed.variables["BASE_AMI_ID"] = OTHER_UBUNTU
    code, text = agreed.on_a_terminal(
        "approve", "--profile", "mine", "--because", "x", "--fact", "base_ami", answer="y\n"
    )
    assert code == 0, text
    assert "still not as agreed" in text
    assert [one["fact"] for one in agreed.plan()["differences"]] == ["root_volume.size_gib"]
    assert agreed.run("--profile", "mine").returncode == 3


def test_an_interrupt_at_the_question_records_nothing(agreed: Checkout) -> None:
    agreed.edit("size_gib: 80", "size_gib: 120")
    before = agreed.lock.read_bytes()
    code, text = agreed.on_a_terminal("approve", "--profile", "mine", "--because", "x", answer="\x04")
    assert code != 0, text
    assert "Traceback" not in text
    assert agreed.lock.read_bytes() == before


def edited(checkout: Checkout) -> None:
    checkout.edit("size_gib: 80", "size_gib: 120")


def another_ami(checkout: Checkout) -> None:
    checkout.variables["BASE_AMI_ID"] = OTHER_UBUNTU


def another_group(checkout: Checkout) -> None:
    checkout.variables["BAKE_SECURITY_GROUP_ID"] = checkout.account.another_group()


def another_region(checkout: Checkout) -> None:
    checkout.variables.update({"SPOT_AWS_REGION": OTHER_REGION, **checkout.account.network(OTHER_REGION)})


def another_type(checkout: Checkout) -> None:
    checkout.edit("instance_type: g6e.xlarge", "instance_types: [g6e.xlarge, g6e.2xlarge]")


def without_gpu(checkout: Checkout) -> None:
    checkout.edit("instance_type: g6e.xlarge", "instance_type: m7i.xlarge")
    checkout.edit("\nworker:\n", "\nworker:\n  instance_type: g6e.xlarge\n")


def shared(checkout: Checkout) -> None:
    checkout.edit("image:\n", 'image:\n  share_with: ["${PARTNER}"]\n')
    checkout.variables["PARTNER"] = "210987654321"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        pytest.param(edited, ["root_volume.size_gib"], id="80 to 120 GiB"),
        pytest.param(another_ami, ["base_ami"], id="another AMI"),
        pytest.param(another_group, ["security_group"], id="another security group"),
        pytest.param(another_region, ["region", "vpc", "subnet", "security_group"], id="another region"),
        pytest.param(another_type, ["instance_types"], id="another type"),
        pytest.param(without_gpu, ["instance_types", "worker_instance_types"], id="no GPU bakes"),
        pytest.param(shared, ["sharing"], id="shared"),
    ],
)
def test_a_change_is_refused_until_it_is_agreed(agreed: Checkout, change: Any, names: list[str]) -> None:
    change(agreed)
    done = agreed.run("--profile", "mine")
    assert done.returncode == 3, done.stderr
    assert "profile mine is not what was agreed in profiles/mine.lock.yaml" in done.stderr
    table = [line.split()[0] for line in done.stderr.splitlines() if re.match(r"  [a-z_.]+  ", line)]
    assert table == ["fact", *names]
    assert agreed.approve(*names).returncode == 0
    assert agreed.plan()["agreed"] is True


def test_another_region_without_its_ami_is_named_before_what_follows_from_it(agreed: Checkout) -> None:
    agreed.variables["SPOT_AWS_REGION"] = OTHER_REGION  # and the subnet is still the old region's
    done = agreed.run("--profile", "mine")
    assert done.returncode == 3
    assert re.search(rf"region +{REGION} +{OTHER_REGION} +SPOT_AWS_REGION \(environment\)", done.stderr)
    assert "and the plan has problems:" in done.stderr
    assert "builder.subnet" in done.stderr
    planned = agreed.run("plan", "--profile", "mine")
    assert planned.returncode == 2
    assert "builder.subnet" in planned.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--because", ""], "--because is empty"),
        (["--because", "x", "--fact", "all"], "name each fact"),
        (["--because", "x", "--fact", "base_amy"], "did you mean base_ami?"),
        ([], "Missing option '--because'"),
    ],
    ids=["no reason", "all", "unknown", "no because"],
)
def test_wrong_arguments_end_with_code_2(checkout: Checkout, arguments: list[str], expected: str) -> None:
    checkout.variables.clear()
    done = checkout.run("approve", "--profile", "mine", *arguments)
    assert done.returncode == 2
    assert expected in done.stderr


def test_a_broken_lock_file_stops_everything_with_its_place(agreed: Checkout) -> None:
    text = agreed.lock.read_text().replace("root_volume.size_gib: 80", "root_volume.size_gib: 80GB")
    agreed.lock.write_text(text)
    line = next(n for n, line in enumerate(text.splitlines(), 1) if "80GB" in line)
    for arguments in (["--profile", "mine"], ["plan", "--profile", "mine"]):
        done = agreed.run(*arguments)
        assert done.returncode == 2
        assert f"profiles/mine.lock.yaml:{line}:25: " in done.stderr
        assert "'80GB' is not a whole number" in done.stderr


def test_a_profile_that_this_version_cannot_bake_can_be_agreed_but_not_baked(checkout: Checkout) -> None:
    checkout.edit("  accelerator: cuda", "  accelerator: cpu")
    checkout.edit("instance_type: g6e.xlarge", "instance_type: m5.4xlarge")
    checkout.agree()
    done = checkout.run("--profile", "mine")
    assert done.returncode == 2
    assert "this version bakes cuda, and neuron in bf16, not cpu in bf16" in done.stderr


def test_without_git_the_caller_is_recorded(checkout: Checkout) -> None:
    (checkout.directory / "gitconfig").write_text("")
    checkout.agree()
    (entry,) = yaml.safe_load(checkout.lock.read_text())["history"]
    assert entry["who"].startswith("arn:aws:sts::123456789012:")
