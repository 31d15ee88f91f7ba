"""A local cloud for its users: addresses, keys, and how it differs from AWS."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bake.aws import AccessKey
from bake.localcloud.api.access import keys
from bake.localcloud.lifecycle.prepared import Prepared
from bake.localcloud.machines import cgroups
from bake.localcloud.prices import SNAPSHOT_MONTH, SPOT_VCPU_HOUR, VCPU_HOUR, VOLUME_MONTH
from bake.localcloud.settings import ACCOUNT, Settings

_TRUSTED = "A machine's root is this host's root (--trust-guests): whoever has the one has the other."

_DELAYED = (
    "What AWS shows late, the API shows a few seconds late, where AWS may take minutes; which delays those "
    "are is drawn from a seed, and `--seed {seed}` repeats them."
)
_LENIENT = "The API shows at once what AWS shows late (--lenient)."


@dataclass(frozen=True)
class LocalCloud:
    """A local cloud that is up.

    `environment` holds the values of ${NAME} in a profile during a rehearsal. `python` is the minor version
    of the base image's python3, `interpreter` the lock of a Python for bases without it. `requirements` (the
    worker's) and `tools_requirements` are hashed locks of the wheels on the index at `wheels`;
    `neuron_requirements` adds the stand-ins on the index that NEURON_PYTHON_INDEX names. `differences` says
    how the cloud differs from AWS, and `bases`, by operating system, what its base AMI is. `keys` are the
    owner's, which sign calls of its administrator in `account`; of a `lenient` cloud all calls.
    """

    endpoint: str
    hub: str
    wheels: str
    environment: Mapping[str, str]
    python: str
    interpreter: Path
    requirements: Path
    tools_requirements: Path
    neuron_requirements: Path
    differences: tuple[str, ...]
    bases: Mapping[str, str]
    keys: AccessKey = field(repr=False)
    account: str = ACCOUNT
    lenient: bool = False


def describe(settings: Settings, running: dict[str, Any]) -> LocalCloud:
    """Describe a cloud that is up; `running` is its daemon's own description."""
    prepared = Prepared.load(settings.state / "prepared.json")
    return LocalCloud(
        endpoint=settings.endpoint,
        hub=settings.hub,
        wheels=settings.wheels,
        environment=running["environment"],
        python=prepared.base.python,
        interpreter=prepared.interpreter,
        requirements=prepared.requirements,
        tools_requirements=prepared.tools_requirements,
        neuron_requirements=prepared.neuron_requirements,
        differences=(
            f"Machines are systemd-nspawn containers on this host ({os.cpu_count()} CPUs, its kernel): there "
            "is no GPU, whatever the instance type says, so that an image for one is launched with "
            f"FLUX_BACKEND=cpu. {_memory()}",
            f"torch is {prepared.torch}, and Python packages come as wheels from this controller.",
            "Neuron has stand-ins throughout: a base AMI's packages of the stack have nothing in them, a "
            "machine's /dev/neuron* are /dev/null, as many as its type has devices, and optimum-neuron's "
            "compiler copies the model and fixes its shapes, which the CPU then draws.",
            "The model is a tiny FLUX with random weights: the same files and code, pictures of noise.",
            "Disks are sparse files: no EBS speeds, no lazy loading from S3 and no bandwidth to it unless it "
            "was asked for by `bake local up --lazy-disks`, for root volumes; these grow at launch, and by "
            "ModifyVolume when the machine next starts. Volumes beside the root volume are block devices, "
            "which a machine can read and write, but not mount. Encrypted ones are only called so. Memory "
            "(tmpfs) stands for an instance store where weights.scratch wants one.",
            "A bake, a sweep, machines and schedules may do what `bake iam` prints, by resource and by "
            "condition; who has the pair of `bake local env` may do everything.",
            "This host stands for a controller outside the VPC, with a VPN into it: rules of security groups "
            "for any network outside it, IPv6 ones too, admit it, and it reaches private addresses. Public "
            "addresses are a part of the cloud's own network, by which machines reach each other only where "
            "this host's bridges do not filter (br_netfilter), and machines have no IPv6.",
            f"Prices and quotas are this cloud's own: {VCPU_HOUR:.2f} dollars an hour for a vCPU, "
            f"{SPOT_VCPU_HOUR:.2f} on the spot market, {VOLUME_MONTH:.2f} a month for a GB of volume and "
            f"{SNAPSHOT_MONTH:.2f} of snapshot; {running['vcpus']} vCPUs for each quota (BAKE_LOCAL_VCPUS).",
            "Auto Scaling groups can be made and asked about, and have no instances. What other accounts "
            "have of an image is what the cloud is told.",
            "Signatures and roles' sessions are judged by this host's clock, also when `bake local clock` "
            "has moved the API's on; machines have this host's clock.",
            _LENIENT if running["lenient"] else _DELAYED.format(seed=running["seed"]),
            *([_TRUSTED] if running["trust_guests"] else []),
        ),
        bases={system: base.what for system, base in prepared.bases.items()},
        keys=keys.read(settings.state),
        lenient=bool(running.get("lenient")),
    )


def _memory() -> str:
    if cgroups.limits_memory():
        return (
            "A machine is given its type's memory at most, and this host's at most; it sees the host's, and "
            "learns its own by running out of it."
        )
    return "Each has all of this host's memory: no control group counts it here."
