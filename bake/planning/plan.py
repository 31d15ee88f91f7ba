"""Profile + what AWS says -> Plan: pure, printable, with an id that is a hash of all that goes in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bake import interpreter, worker_source
from bake.agreement.facts import Fact
from bake.aws import Aws
from bake.interpreter import Archive
from bake.layout import INT8_MODEL, SCRATCH
from bake.planning import (
    base_image,
    builder,
    egress,
    estimates,
    guarded,
    hardware,
    image,
    mirror,
    network,
    prices,
    quotas,
    wiring,
)
from bake.planning import disk as disk_of
from bake.planning import drivers as drivers_of
from bake.planning import memory as memory_of
from bake.planning import weights as weights_of
from bake.planning.base_image import BaseImage
from bake.planning.builder import BuilderMemory
from bake.planning.disk import Disk
from bake.planning.drivers import Drivers
from bake.planning.egress import Egress
from bake.planning.estimates import Estimates
from bake.planning.findings import Findings
from bake.planning.guarded import stated_facts
from bake.planning.hardware import InstanceType, Types
from bake.planning.memory import Memory
from bake.planning.network import Network
from bake.planning.render import as_dict, as_text
from bake.planning.weights import WeightFiles
from bake.profile import Profile
from bake.systems import SYSTEMS, System
from bake.trees import hash_file, hash_tree
from bake.weights.lock import Lock
from bake.worker_source import WorkerSource

__all__ = ["BaseImage", "InstanceType", "Plan", "Sources", "as_dict", "as_text", "make", "stated_facts"]

ROOT = Path(__file__).resolve().parents[2]
PROVISION = ROOT / "provision"
CHECKS = ROOT / "bake" / "checks"
PYTHON = "3.11"  # what the locks were made for


@dataclass(frozen=True)
class Sources:
    """Where the builder gets things from: the field's own places, or a local cloud's stand-ins.

    `builder` and `worker` are extra environment for provisioning and for a booted worker;
    `requirements`, `tools` and `neuron` (the worker's where it draws on Neuron; `make lock` writes it where
    AWS's index can be reached) are locked and hashed requirement files, `interpreter` the lock of the Python
    that is fetched where the base AMI has no `python`. `hub` is asked for the weights'
    sizes (None: the real Hub), unless `sizes` has them, as where the Hub serves smaller stand-ins.
    `disk` is the kind of device that stands for EBS on a local cloud (None: EBS itself). `devices` are the
    accelerators that instances have where their type does: on a local cloud not all of them. `scratch` is the
    kind of file system that stands for an instance store there (None: an instance store itself).
    """

    requirements: Path = PROVISION / "locks" / "worker.txt"
    tools: Path = PROVISION / "locks" / "tools.txt"
    neuron: Path = PROVISION / "locks" / "worker-neuron-sdk.txt"
    python: str = PYTHON
    interpreter: Path = PROVISION / "locks" / "python.json"
    builder: Mapping[str, str] = field(default_factory=dict)
    worker: Mapping[str, str] = field(default_factory=dict)
    differences: tuple[str, ...] = ()
    hub: str | None = None
    sizes: Mapping[str, int] | None = None
    disk: str | None = None
    scratch: str | None = None
    devices: frozenset[str] = frozenset({"cuda", "neuron"})


@dataclass(frozen=True)
class Plan:
    """Everything a bake needs, decided before anything is started.

    `lock` is what the bake downloads; None in a plan that is only looked at. `weights` is what the plan
    reckons with: the same, or the real model's sizes in a rehearsal. `instance_types` are the builder's,
    `worker_types` what the image is for, which `memory` is about; all in the order in which they are tried.
    `builder_memory` is empty where they are the same. `unbakeable` says why this version can plan the
    profile and not bake it. `unchecked` are questions nobody answered.
    """

    profile: Profile
    base: BaseImage
    instance_types: tuple[InstanceType, ...]
    worker_types: tuple[InstanceType, ...]
    network: Network
    system: System
    sources: Sources
    worker: WorkerSource
    drivers: Drivers
    inputs: Mapping[str, str]
    id: str
    weights: WeightFiles
    lock: Lock | None
    disk: Disk
    memory: tuple[Memory, ...]
    builder_memory: tuple[BuilderMemory, ...]
    estimates: Estimates
    facts: tuple[Fact, ...]
    origins: Mapping[str, str]
    warnings: tuple[str, ...]
    checked: tuple[str, ...]
    unchecked: tuple[str, ...]
    unbakeable: str | None

    @property
    def instance_type(self) -> InstanceType:
        """The first choice; the others are tried only where it has no capacity."""
        return self.instance_types[0]

    @property
    def cache(self) -> str:
        """The Hugging Face cache on the image, as an absolute path (R-CACHE)."""
        cache = self.profile.weights.cache
        return f"{self.system.home}/{cache[2:]}" if cache.startswith("~/") else cache

    @property
    def download_cache(self) -> str:
        """Where the download goes: the cache, or what stands in its place while int8 is made."""
        return f"{SCRATCH}/hub" if self.profile.weights.scratch else self.cache

    @property
    def model_dir(self) -> str | None:
        """The int8 checkpoint on the image, root's like the worker's code; None where bfloat16 is served."""
        return INT8_MODEL if self.profile.weights.precision == "int8" else None

    @property
    def interpreter(self) -> Archive:
        """The Python that the image gets where its base has none of the right version."""
        return interpreter.read(self.sources.interpreter)

    @property
    def egress(self) -> tuple[Egress, ...]:
        """What the builder asks of the world beyond its subnet."""
        return egress.find(self.profile, self.sources, self.interpreter)

    @property
    def launch_settings(self) -> dict[str, str]:
        """What a booted worker is told beside its queue, bucket and bus."""
        return {**self.sources.worker, **self.drivers.launched_with}

    @property
    def settings(self) -> dict[str, str]:
        """What provisioning gets as `settings.env`; nothing secret."""
        return {
            "BAKE_USER": self.system.user,
            "BAKE_HOME": self.system.home,
            "BAKE_PYTHON": self.sources.python,
            "PYTHON_NAME": self.interpreter.name,
            "PYTHON_SHA256": self.interpreter.sha256,
            "PACKAGES_LOCK_TIMEOUT": str(self.profile.builder.package_wait_minutes * 60),
            "HF_HUB_CACHE": self.cache,
            "MODEL_REPO": self.profile.weights.repo,
            "MODEL_REVISION": self.profile.weights.revision,
            **drivers_of.settings(self.profile, self.drivers),
            "MODEL_DIR": self.model_dir or "",
            **self.sources.builder,
        }


def make(
    profile: Profile,
    aws: Aws,
    sources: Sources,
    origins: Mapping[str, str] | None = None,
    lock: Lock | None = None,
) -> Plan:
    """Ask AWS for what the profile names and decide the bake; changes nothing.

    Raises UsageError with everything that does not fit, in one message.
    """
    findings = Findings(origins or {})
    base = base_image.find(profile, aws, findings)
    types = hardware.find(profile, aws, findings)
    where = network.find(profile, aws, findings)
    wiring.check(profile, aws, findings)
    image.check_name(profile, aws, findings)
    disk_of.check_key(profile, aws, findings)
    image.check_sharing(profile, aws, findings)
    files = weights_of.find(profile, sources.hub, sources.sizes, lock, findings)
    mirror.check(profile, aws, findings)
    memories, builder_memory = _check_types(profile, types, files, aws, findings)
    drivers = drivers_of.work_out(profile, sources.requirements, types, sources.devices)
    image.check_user_data(profile, {**sources.worker, **drivers.launched_with}, findings)
    code = worker_source.find(profile, sources.requirements, findings)
    drivers_of.check(profile, drivers, sources.neuron, findings)
    if base is not None:
        hardware.check(profile, base, types, where.zone, aws, findings)
        disk_of.check(profile, base, disk_of.work_out(profile, base, files), findings)
    disk_of.check_scratch(profile, types.builder, files, findings)
    findings.stop_if_any()
    assert base is not None and code is not None  # or it would be among the findings
    disk = disk_of.work_out(profile, base, files)
    inputs = _inputs(sources, code, drivers)
    found = prices.find(profile, types, where.zone, aws, findings)
    return Plan(
        profile=profile,
        base=base,
        instance_types=types.builder,
        worker_types=types.worker,
        network=where,
        system=SYSTEMS[profile.base.os],
        sources=sources,
        worker=code,
        drivers=drivers,
        inputs=inputs,
        id=_plan_id(profile, base, sources, inputs, lock),
        weights=files,
        lock=lock,
        disk=disk,
        memory=memories,
        builder_memory=builder_memory,
        estimates=estimates.work_out(profile, types, files, disk, found),
        facts=guarded.facts(profile, base, where, findings.origins),
        origins=findings.origins,
        warnings=tuple(findings.warnings),
        checked=tuple(findings.checked),
        unchecked=tuple(findings.unchecked),
        unbakeable=_unbakeable(profile),
    )


def _check_types(
    profile: Profile, types: Types, files: WeightFiles, aws: Aws, findings: Findings
) -> tuple[tuple[Memory, ...], tuple[BuilderMemory, ...]]:
    """Whether the model fits the workers' types and the bake the builder's; quotas, and what EBS gives."""
    memories = memory_of.check(profile, types.worker, files, aws, findings)
    builder_memory = builder.check(profile, types, files, findings)
    quotas.check(profile, types.all, aws, findings)
    estimates.check(profile, types.all, findings)
    return memories, builder_memory


def _unbakeable(profile: Profile) -> str | None:
    """What this version can't bake yet; it can plan it."""
    accelerator, precision = profile.base.accelerator, profile.weights.precision
    if accelerator == "cuda" or (accelerator, precision) == ("neuron", "bf16"):
        return None
    return f"this version bakes cuda, and neuron in bf16, not {accelerator} in {precision}"


def _inputs(sources: Sources, code: WorkerSource, drivers: Drivers) -> dict[str, str]:
    neuron = {"neuron": hash_file(sources.neuron)} if drivers.compiled else {}
    return {
        "provision": hash_tree(PROVISION),
        "worker": code.tree,
        "checks": hash_tree(CHECKS),
        "requirements": hash_file(sources.requirements),
        "tools": hash_file(sources.tools),
        "python": interpreter.read(sources.interpreter).sha256,
        **neuron,
    }


def _plan_id(
    profile: Profile, base: BaseImage, sources: Sources, inputs: Mapping[str, str], lock: Lock | None
) -> str:
    facts = {
        # Where the weights come from does not change what they are.
        "profile": profile.model_dump(mode="json", exclude={"weights": {"token", "mirror"}}),
        "lock": lock.as_dict() if lock else None,
        "base": asdict(base),
        "python": sources.python,
        "builder": sorted(sources.builder),
        "inputs": dict(inputs),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
