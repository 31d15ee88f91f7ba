"""Wall time from launch to AMI on the local cloud: the bake against Packer with the same work.

    sudo .venv/bin/python tests/bench/bench_packer.py [--runs 3] [--busy]

Packer (Debian's, `apt-get install packer`) launches the same base AMI on the same network, waits for
cloud-init, sends the same files, runs the same scripts, seals, and creates the AMI. The bake does more: `all`
is its time with the survey and the checks, `equal` without these two; it downloads the tiny weights beside
the scripts, and Packer does not. Packer looks every 2 s (AWS_POLL_DELAY_SECONDS=2), or as it does itself with
--stock. --busy loads each processor with one more process meanwhile. Figures, not verdicts: machines are
noisy; runs alternate. The cloud is lenient: under strict delays Packer ends with "not found" of its own new
AMI now and then (https://github.com/hashicorp/packer/issues/3377).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from bake import localcloud, profile
from bake.aws import Aws
from bake.layout import BAKE, SEAL, SYSTEM_PYTHON
from bake.localcloud import Delays, LocalCloud, sources
from bake.planning.plan import Plan
from bake.request import ask_and_plan
from bake.resources import PROVISION
from bake.steps import provision
from bake.weights import lock as locks

ROOT = Path(__file__).parents[2]
PROFILE = "g6e-ubuntu"
ALONE = {"survey", "fit", "verify"}  # steps that Packer has nothing of
TO_IMAGE = {"launch", "connect", "tools", "provision", "prefetch", "quantize", "seal", "stop", "create image"}


def bake_seconds(folder: Path) -> tuple[float, float]:
    """Seconds from launch to AMI of a rehearsal: all, and without what Packer has nothing of."""
    command = [sys.executable, "-m", "bake.cli", "--profiles", str(ROOT / "profiles"), "--profile", PROFILE]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--rehearse", "--json"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    steps = {event["step"]: event["seconds"] for event in events if event["event"] == "step_ended"}
    equal = sum(seconds for step, seconds in steps.items() if step in TO_IMAGE)
    return equal + sum(seconds for step, seconds in steps.items() if step in ALONE), equal


def template(cloud: LocalCloud, plan: Plan, folder: Path, name: str) -> dict[str, Any]:
    """Packer's template for the same work."""
    scripts = [provision.PYTHON_SCRIPT, provision.TOOLS_SCRIPT]
    others = sorted(f"scripts/{one.name}" for one in (PROVISION / "scripts").glob("*.sh"))
    scripts += [one for one in others if one != provision.TOOLS_SCRIPT]
    run = "sudo bash -c 'set -a; . {0}/settings.env; set +a; cd {0}; exec {1}'"
    prepare = [
        "cloud-init status --wait >/dev/null",
        f"sudo mkdir -p {BAKE}",
        f"sudo tar --extract --gzip --directory {BAKE} --owner=root --file /tmp/bundle",
        "rm /tmp/bundle",
    ]
    seal = [
        f"sudo install -d -m 700 {SEAL} && sudo cp {BAKE}/seal.py {BAKE}/seal.json {SEAL}",
        f"sudo {SYSTEM_PYTHON} {SEAL}/seal.py both --keep {plan.weights.cache} >/dev/null",
    ]
    return {
        "builders": [
            {
                "type": "amazon-ebs",
                "region": plan.profile.builder.region,
                "custom_endpoint_ec2": cloud.endpoint,
                "access_key": cloud.keys.id,
                "secret_key": cloud.keys.secret,
                "skip_region_validation": True,
                "skip_metadata_api_check": True,
                "source_ami": plan.launch.base.id,
                "instance_type": plan.profile.builder.types[0],
                "subnet_id": plan.profile.builder.subnet,
                "security_group_id": plan.profile.builder.security_group,
                "iam_instance_profile": plan.profile.builder.instance_profile,
                "ssh_username": plan.system.user,
                "ami_name": name,
                "launch_block_device_mappings": [
                    {
                        "device_name": plan.launch.base.root_device,
                        "volume_size": plan.profile.root_volume.size_gib,
                        "volume_type": "gp3",
                        "iops": 3000,
                        "throughput": 125,
                        "delete_on_termination": True,
                    }
                ],
            }
        ],
        "provisioners": [
            {"type": "file", "source": str(folder / "bundle"), "destination": "/tmp/bundle"},
            {"type": "shell", "inline": prepare},
            *({"type": "shell", "inline": [run.format(BAKE, f"bash {BAKE}/{one}")]} for one in scripts),
            {"type": "shell", "inline": seal},
        ],
    }


def packer_seconds(cloud: LocalCloud, plan: Plan, *, stock: bool) -> float:
    """Seconds from RunInstances to the AMI, by Packer's own lines."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, name = Path(scratch), f"packer-{time.time_ns()}"
        wheel = provision.build_worker(plan).result()
        (folder / "bundle").write_bytes(provision.pack(plan, wheel))
        (folder / "template.json").write_text(json.dumps(template(cloud, plan, folder, name)))
        polls = {} if stock else {"AWS_POLL_DELAY_SECONDS": "2", "AWS_MAX_ATTEMPTS": "600"}
        process = subprocess.Popen(
            ["packer", "build", "-machine-readable", "template.json"],
            cwd=folder,
            env={**os.environ, **polls, "CHECKPOINT_DISABLE": "1", "PACKER_NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        began = ended = 0.0
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Launching a source AWS instance" in line:
                began = time.monotonic()
            if "Terminating the source AWS instance" in line and not ended:
                ended = time.monotonic()
        if process.wait():
            sys.exit(f"packer failed:\n{''.join(lines[-30:])}")
        return ended - began


@contextmanager
def busy() -> Iterator[None]:
    """Load each processor with one more process."""
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def main() -> None:
    """Run both in turn, and print the medians and their ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--stock", action="store_true")
    asked = parser.parse_args()
    if shutil.which("packer") is None:
        print("packer is not installed (apt-get install packer): nothing was measured")
        return
    at_once = localcloud.running(print, delays=Delays(lenient=True))
    with at_once as cloud, ExitStack() as stack, tempfile.TemporaryDirectory() as scratch:
        found = profile.load(PROFILE, ROOT / "profiles", cloud.environment)
        localcloud.provide(found.base.os, found.base.accelerator, print)
        plan = plan_of(cloud, found)
        if asked.busy:
            stack.enter_context(busy())
        rows = []
        for number in range(asked.runs):
            whole, equal = bake_seconds(Path(scratch))
            packer = packer_seconds(cloud, plan, stock=asked.stock)
            rows.append((whole, equal, packer))
            print(
                f"run {number + 1}: bake {equal:.1f} s equal work, {whole:.1f} s all; packer {packer:.1f} s"
            )
        whole, equal, packer = (statistics.median(column) for column in zip(*rows, strict=True))
        how = f"{'stock' if asked.stock else '2 s'} polls, {'busy' if asked.busy else 'quiet'}"
        print(
            f"{how}: bake / packer {equal / packer:.2f} for equal work, {whole / packer:.2f} with all checks"
        )


def plan_of(cloud: LocalCloud, found: profile.Profile) -> Plan:
    """The plan of the rehearsal."""
    aws = Aws(
        region=found.builder.region,
        worker_region=found.worker.region,
        endpoint=cloud.endpoint,
        endpoint_key=cloud.keys,
    )
    lock = locks.resolve(found.weights, cloud.hub)
    return ask_and_plan(found, aws, sources(cloud, found.base.os), lock=lock)


if __name__ == "__main__":
    main()
