"""Profile + what AWS says -> Plan: pure, printable, with an id that is a hash of all that goes in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bake.aws import Aws, error_code
from bake.errors import UsageError
from bake.profile import Profile
from bake.systems import SYSTEMS, System

ROOT = Path(__file__).resolve().parents[1]
PROVISION = ROOT / "provision"
WORKER = ROOT / "worker"
CHECKS = ROOT / "bake" / "checks"
PYTHON = "3.11"  # what the locks were made for


@dataclass(frozen=True)
class Sources:
    """Where the builder gets things from: the field's own places, or a local cloud's stand-ins.

    `builder` and `worker` are extra environment for provisioning and for a booted worker;
    `requirements` and `tools` are locked and hashed requirement files.
    """

    requirements: Path = PROVISION / "locks" / "worker.txt"
    tools: Path = PROVISION / "locks" / "tools.txt"
    python: str = PYTHON
    builder: Mapping[str, str] = field(default_factory=dict)
    worker: Mapping[str, str] = field(default_factory=dict)
    differences: tuple[str, ...] = ()


@dataclass(frozen=True)
class BaseImage:
    """The AMI to start from, as DescribeImages tells it."""

    id: str
    name: str
    architecture: str
    root_device: str
    root_gib: int


@dataclass(frozen=True)
class InstanceType:
    """What DescribeInstanceTypes says; hardware is asked for, never looked up in a table here (R-HW)."""

    name: str
    architectures: tuple[str, ...]
    vcpus: int
    memory_mib: int
    gpu: str
    gpu_memory_mib: int


@dataclass(frozen=True)
class Plan:
    """Everything a bake needs, decided before anything is started."""

    profile: Profile
    base: BaseImage
    instance_type: InstanceType
    system: System
    sources: Sources
    inputs: Mapping[str, str]
    id: str

    @property
    def cache(self) -> str:
        """The Hugging Face cache on the image, as an absolute path (R-CACHE)."""
        cache = self.profile.weights.cache
        return f"{self.system.home}/{cache[2:]}" if cache.startswith("~/") else cache

    @property
    def settings(self) -> dict[str, str]:
        """What provisioning gets as `settings.env`; nothing secret."""
        return {
            "BAKE_USER": self.system.user,
            "BAKE_HOME": self.system.home,
            "BAKE_PYTHON": self.sources.python,
            "HF_HUB_CACHE": self.cache,
            "MODEL_REPO": self.profile.weights.repo,
            "MODEL_REVISION": self.profile.weights.revision,
            **self.sources.builder,
        }


def make(profile: Profile, aws: Aws, sources: Sources) -> Plan:
    """Ask AWS for what the profile names and decide the bake; changes nothing.

    Raises UsageError with everything that does not fit, in one message.
    """
    problems: list[str] = []
    base = _base_image(profile, aws, problems)
    instance_type = _instance_type(profile, aws, problems)
    _check_network(profile, aws, problems)
    _check_fit(profile, base, instance_type, problems)
    if problems or base is None or instance_type is None:
        raise UsageError("\n".join(problems), hint="nothing was started")
    inputs = {
        "provision": _hash_tree(PROVISION),
        "worker": _hash_tree(WORKER),
        "checks": _hash_tree(CHECKS),
        "requirements": _hash_file(sources.requirements),
        "tools": _hash_file(sources.tools),
    }
    plan_id = _plan_id(profile, base, sources, inputs)
    return Plan(profile, base, instance_type, SYSTEMS[profile.base.os], sources, inputs, plan_id)


def _base_image(profile: Profile, aws: Aws, problems: list[str]) -> BaseImage | None:
    ami = profile.base.ami
    try:
        images = aws.ec2.describe_images(ImageIds=[ami])["Images"]
    except Exception as error:
        if not error_code(error).startswith("InvalidAMI"):
            raise
        images = []
    if not images:
        problems.append(f"base.ami: {ami} does not exist in {aws.region}, or is not shared with this account")
        return None
    image = images[0]
    if image.get("State") != "available":
        problems.append(f"base.ami: {ami} is {image.get('State')}, not available")
    root = image.get("RootDeviceName", "")
    sizes = {
        mapping.get("DeviceName"): mapping["Ebs"].get("VolumeSize", 0)
        for mapping in image.get("BlockDeviceMappings", [])
        if "Ebs" in mapping
    }
    if root not in sizes:
        problems.append(f"base.ami: {ami} has no EBS root volume; only EBS can be snapshotted")
    return BaseImage(ami, image.get("Name", ""), image.get("Architecture", ""), root, sizes.get(root, 0))


def _instance_type(profile: Profile, aws: Aws, problems: list[str]) -> InstanceType | None:
    name = profile.builder.instance_type
    try:
        found = aws.ec2.describe_instance_types(InstanceTypes=[name])["InstanceTypes"]  # type: ignore[list-item]
    except Exception as error:
        if not error_code(error).startswith("InvalidInstanceType"):
            raise
        found = []
    if not found:
        problems.append(f"builder.instance_type: {name} is not offered in {aws.region}")
        return None
    facts = found[0]
    gpus = facts.get("GpuInfo", {})
    gpu = (gpus.get("Gpus") or [{}])[0]
    return InstanceType(
        name,
        tuple(facts.get("ProcessorInfo", {}).get("SupportedArchitectures", [])),
        facts.get("VCpuInfo", {}).get("DefaultVCpus", 0),
        facts.get("MemoryInfo", {}).get("SizeInMiB", 0),
        str(gpu.get("Name", "")),
        gpus.get("TotalGpuMemoryInMiB", 0),
    )


def _check_network(profile: Profile, aws: Aws, problems: list[str]) -> None:
    builder = profile.builder
    for what, wanted, look in (
        ("subnet", builder.subnet, lambda: aws.ec2.describe_subnets(SubnetIds=[builder.subnet])),
        (
            "security_group",
            builder.security_group,
            lambda: aws.ec2.describe_security_groups(GroupIds=[builder.security_group]),
        ),
    ):
        try:
            look()
        except Exception as error:
            if "NotFound" not in error_code(error):
                raise
            problems.append(f"builder.{what}: {wanted} does not exist in {aws.region}")


def _check_fit(
    profile: Profile, base: BaseImage | None, instance_type: InstanceType | None, problems: list[str]
) -> None:
    if base is not None and profile.root_volume.size_gib < base.root_gib:
        problems.append(
            f"root_volume.size_gib: {profile.root_volume.size_gib} GiB is less than the base AMI's own "
            f"{base.root_gib} GiB. A volume can't be smaller than its snapshot; nothing is resized for you"
        )
    if base is None or instance_type is None:
        return
    if base.architecture not in instance_type.architectures:
        problems.append(
            f"base.ami: {base.id} is {base.architecture}, but {instance_type.name} runs "
            f"{', '.join(instance_type.architectures)}"
        )
    if profile.base.accelerator == "cuda" and not instance_type.gpu:
        problems.append(f"builder.instance_type: {instance_type.name} has no NVIDIA GPU")


def _plan_id(profile: Profile, base: BaseImage, sources: Sources, inputs: Mapping[str, str]) -> str:
    facts = {
        "profile": profile.model_dump(mode="json", exclude={"weights": {"token"}}),
        "base": asdict(base),
        "python": sources.python,
        "builder": sorted(sources.builder),
        "inputs": dict(inputs),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _hash_file(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def source_files(directory: Path) -> list[Path]:
    """The files below `directory` that matter, sorted: no byte code, no build leftovers."""
    dead = {"__pycache__", "build"}
    return sorted(
        file
        for file in directory.rglob("*")
        if file.is_file()
        and not any(part in dead or part.endswith(".egg-info") for part in file.relative_to(directory).parts)
    )


def _hash_tree(directory: Path) -> str:
    whole = hashlib.sha256()
    for file in source_files(directory):
        mode = "x" if file.stat().st_mode & 0o100 else "-"
        whole.update(f"{file.relative_to(directory)} {mode} {_hash_file(file)}\n".encode())
    return whole.hexdigest()


def as_dict(plan: Plan) -> dict[str, Any]:
    """The plan for machines; the token is left out."""
    return {
        "id": plan.id,
        "profile": plan.profile.model_dump(mode="json", exclude={"weights": {"token"}}),
        "base": asdict(plan.base),
        "instance_type": asdict(plan.instance_type),
        "cache": plan.cache,
        "inputs": dict(plan.inputs),
        "differences": list(plan.sources.differences),
    }


def as_text(plan: Plan) -> str:
    """The plan for people."""
    profile, kind = plan.profile, plan.instance_type
    gpu = f", {kind.gpu} with {kind.gpu_memory_mib:,} MiB" if kind.gpu else ""
    rows = [
        (
            "base AMI",
            f"{plan.base.id}  {plan.base.name} ({plan.base.architecture}, {plan.base.root_gib} GiB)",
        ),
        (
            "builder",
            f"{kind.name} in {profile.builder.region}: {kind.vcpus} vCPU, {kind.memory_mib:,} MiB{gpu}",
        ),
        ("network", f"{profile.builder.subnet}, {profile.builder.security_group}"),
        ("root volume", f"{profile.root_volume.size_gib} GiB {profile.root_volume.type}"),
        ("weights", f"{profile.weights.repo} at {profile.weights.revision[:12]}"),
        ("cache", f"{plan.cache} (on the root volume)"),
        ("worker", f"runs as {plan.system.user}; queue and event bus in {profile.worker.region}"),
    ]
    lines = [f"Plan {plan.id}: profile {profile.name}", *(f"  {name:<12} {text}" for name, text in rows)]
    lines += [
        "",
        "What will be created and removed again: a key pair, a builder, one instance of the new image,",
        "  and for its first job two queues, a bucket, an event bus and a rule.",
        "What stays: one AMI and its snapshot.",
    ]
    if plan.sources.differences:
        lines += ["", "How this rehearsal differs from the real bake:"]
        lines += [f"  - {difference}" for difference in plan.sources.differences]
    return "\n".join(lines)
