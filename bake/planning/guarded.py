"""The guarded facts of a plan: what the user must have agreed to before a bake (R-AGREE)."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path

from bake.account.network import TEMPORARY
from bake.agreement.facts import GUARDED, Fact, FactValue, Guarded
from bake.planning.base_image import BaseImage
from bake.planning.hardware import builder_setting
from bake.planning.network import Network
from bake.planning.sources import Sources
from bake.profile import Profile, fleet
from bake.profile.channels import facts_of
from bake.profile.publishing import Publish


def facts(
    profile: Profile, base: BaseImage, network: Network, origins: Mapping[str, str]
) -> tuple[Fact, ...]:
    """All guarded facts, resolved: the AMI by its id, the VPC by its subnet."""
    resolved = {
        "base_ami": Fact("base_ami", base.id, _base_origin(profile, origins)),
        "vpc": Fact("vpc", network.vpc, f"the VPC of {network.subnet}"),
    }
    stated = {fact.name: fact for fact in stated_facts(profile, origins)}
    everything = {**stated, **resolved}
    return tuple(everything[name] for name in GUARDED if name in everything)


def stated_facts(profile: Profile, origins: Mapping[str, str] | None = None) -> tuple[Fact, ...]:
    """The facts that the profile states by itself, without asking AWS: no VPC, an AMI only by its id."""
    builder, volume = profile.builder, profile.root_volume
    group = builder.security_group
    if group == TEMPORARY:
        group = f"{TEMPORARY}, port 22 from {builder.ssh_from}"
    workers = "worker.instance_types" if profile.worker.instance_types else "worker.instance_type"
    stated: list[tuple[str, FactValue, str]] = [
        ("region", builder.region, "builder.region"),
        ("instance_types", list(builder.types), builder_setting(profile)),
        ("worker_instance_types", list(profile.worker.types) or None, workers),
        ("market", builder.market, "builder.market"),
        ("os", profile.base.os, "base.os"),
        ("root_volume.size_gib", volume.size_gib, "root_volume.size_gib"),
        ("root_volume.type", volume.type, "root_volume.type"),
        ("root_volume.iops", volume.iops, "root_volume.iops"),
        ("root_volume.throughput", volume.throughput, "root_volume.throughput"),
        ("root_volume.kms_key", volume.kms_key, "root_volume.kms_key"),
        ("subnet", builder.subnet, "builder.subnet"),
        ("security_group", group, "builder.security_group"),
        ("sharing", list(profile.image.share_with), "image.share_with"),
        ("base_follow", _followed(profile), "base.follow"),
        ("base.remove", list(profile.base.remove), "base.remove"),
        ("base_updates", profile.base.updates, "base.updates"),
        ("reaper_role", builder.reaper_role, "builder.reaper_role"),
        ("address", builder.address, "builder.address"),
        ("proxy_command", shlex.join(builder.proxy_command or ()) or None, "builder.proxy_command"),
        *_published(profile.publish),
        ("channels", facts_of(profile.name, profile.channels), "channels"),
        *_of_starts(profile),
        *_of_fleet(profile),
    ]
    if profile.base.ami is not None:
        stated.insert(5, ("base_ami", profile.base.ami, "base.ami"))
    where = origins or {}
    return tuple(Fact(name, value, where.get(path, "the profile")) for name, value, path in stated)


def _followed(profile: Profile) -> str | None:
    """The family whose newest AMI is the base, whichever that is; None where one id is agreed to."""
    base = profile.base
    return f"newest of {base.family}" if base.follow == "newest" else None


def _published(publish: Publish) -> list[tuple[str, FactValue, str]]:
    """What reaches beyond the new AMI: its place in other regions, and what others go by."""
    template = publish.launch_template
    if template is not None and publish.source_version is not None:
        template = f"{template}, from version {publish.source_version}"
    return [
        ("publish.regions", list(publish.regions), "publish.regions"),
        ("publish.kms_keys", list(publish.kms_keys), "publish.kms_keys"),
        ("publish.parameter", publish.parameter, "publish.parameter"),
        ("publish.launch_template", template, "publish.launch_template"),
        ("publish.watermark", publish.watermark, "publish.watermark"),
    ]


def _of_starts(profile: Profile) -> list[tuple[str, FactValue, str]]:
    """What makes starts faster: read, paid for, put onto the image or taken from it."""
    worker, rate = profile.worker, profile.cold_start.volume_initialization_rate
    removes = "yes" if worker.remove_unused_libraries else "no"
    return [
        ("weights.stream", profile.weights.stream, "weights.stream"),
        ("volume_initialization_rate", rate, "cold_start.volume_initialization_rate"),
        ("worker.compile_sizes", list(worker.compile_sizes), "worker.compile_sizes"),
        ("worker.remove_unused_libraries", removes, "worker.remove_unused_libraries"),
    ]


def _of_fleet(profile: Profile) -> list[tuple[str, FactValue, str]]:
    """What the fleet's stack creates or changes, and what it uses of the user's own."""
    worker = profile.worker
    places = {"queue": worker.queue, "bucket": worker.bucket, "bus": worker.bus}
    used = fleet.used_places(profile.name, list(profile.channels), worker.region, places)
    found = fleet.facts_of(profile.fleet, profile.worker_types, worker.region, used)
    elsewhere = {"fleet.jobs_region": "worker.region", "fleet.uses": "worker"}
    return [(name, value, elsewhere.get(name, name)) for name, value in found.items()]


def _base_origin(profile: Profile, origins: Mapping[str, str]) -> str:
    base = profile.base
    if base.ami is not None:
        return origins.get("base.ami", "the profile")
    if base.ssm is not None:
        return f"{origins.get('base.ssm', 'the profile')}: SSM parameter {base.ssm}"
    return f"{origins.get('base.name', 'the profile')}: newest {base.name} of {base.owner}"


def guarded(facts: tuple[Fact, ...], sources: Sources, inputs: Mapping[str, str]) -> Guarded:
    """What the user has to agree to. A worker that draws on Neuron has two locks, and one hash over both."""
    locks = {"requirements": sources.requirements, "neuron": sources.neuron}
    used = {name: file for name, file in locks.items() if name in inputs}
    lock = _over(*(inputs[name] for name in used))
    return Guarded(facts, {"worker.lock": (lock, " and ".join(map(_near, used.values())))})


def _over(*hashes: str) -> str:
    """Combine hashes into one; a single hash stays as it is."""
    whole = hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()
    return f"sha256:{whole}"


def _near(file: Path) -> str:
    """Shorten a path, relative to the current directory if it lies there."""
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)
