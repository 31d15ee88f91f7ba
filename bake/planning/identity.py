"""What an image is made of, by name; the plan's id is a hash over it, and over nothing else.

A plan and `bake --if-changed` both use it, so it needs few answers: the base AMI's id and the worker's code.
Every key of a profile is in one of `INPUTS`, `BY_ANOTHER_NAME` and `NO_INPUTS`, and every module of
`bake/steps` in one of `SHAPING` and `NOT_SHAPING`; a test fails for one that is in none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bake import interpreter
from bake.planning import drivers as drivers_of
from bake.planning.hardware import Types
from bake.planning.parts import settings_of
from bake.planning.sources import Sources
from bake.profile import Profile
from bake.resources import CHECKS, PACKAGE, PROVISION
from bake.trees import hash_file, hash_files
from bake.weights.lock import Lock
from bake.worker_source import WorkerSource

Parts = Mapping[str, Mapping[str, str]]

TAG = "bake:inputs"
"""Tag of an AMI: a short hash of each group of its inputs, so that a later bake can say what changed."""

# Keys of a profile that count by their value. Those of an accelerator that the profile does not have don't.
INPUTS = (
    *("base.os", "base.accelerator", "base.remove"),
    "base.updates",
    "builder.region",  # an AMI belongs to one
    *(f"root_volume.{key}" for key in ("size_gib", "type", "iops", "throughput", "kms_key")),
    *(f"weights.{key}" for key in ("repo", "revision", "cache", "precision", "keep_source")),
    "weights.scratch",  # the snapshot holds blocks that were ever written, also of files that are gone
    *("worker.compile_sizes", "worker.remove_unused_libraries"),
    *("nvidia.driver", "nvidia.repository", "nvidia.fingerprint"),
    *("neuron.repository", "neuron.fingerprint", "neuron.nogpgcheck", "neuron.runtime_lib", "neuron.dkms"),
    *("neuron.collectives", "neuron.tools", "neuron.python_index", "neuron.sizes"),
)
# Lists whose order says nothing.
_SETS = ("base.remove", "worker.compile_sizes")
# Those that count where they are set: without them nothing is done.
_WHERE_SET = {"base.updates": "none", "worker.compile_sizes": (), "worker.remove_unused_libraries": False}
# Keys that count by what they lead to: the group of inputs that has it.
BY_ANOTHER_NAME = {
    **dict.fromkeys(("base.ami", "base.ssm", "base.name", "base.owner", "base.follow"), "base"),
    **dict.fromkeys(("worker.source", "worker.commit"), "worker"),
    "checks": "own checks",
}
_HOW, _WHEN, _AFTER = (
    "how the builder is paid and reached",
    "how long something may take",
    "is done with the AMI",
)
# Keys that no byte of the image depends on, and why.
NO_INPUTS = {
    "name": "what the profile is called",
    # The types decide what is checked on the builder, and where the boot check runs. What is installed
    # follows from base.accelerator, and is the same for all types that have it; where something is compiled
    # or removed on the builder they count (_values).
    **dict.fromkeys(("builder.instance_type", "builder.instance_types"), "what bakes"),
    **dict.fromkeys(("worker.instance_type", "worker.instance_types"), "what boots from the image"),
    **dict.fromkeys(("builder.market", "builder.subnet", "builder.security_group"), _HOW),
    **dict.fromkeys(("builder.ssh_from", "builder.address", "builder.proxy_command"), _HOW),
    "builder.instance_profile": "whose rights the machines have",
    **dict.fromkeys(("builder.cloud_init_wait_minutes", "builder.package_wait_minutes"), _WHEN),
    **dict.fromkeys(("builder.lease_hours", "builder.reaper", "builder.reaper_role"), _WHEN),
    **dict.fromkeys(
        ("weights.mirror", "weights.token"), "where the weights come from; the lock says what they are"
    ),
    **dict.fromkeys(("worker.region", "worker.queue", "worker.bucket", "worker.bus"), "comes with user data"),
    "worker.cloudwatch_namespace": "comes with user data",
    "worker.start_hours": _WHEN,
    "weights.stream": "comes with user data",
    "cold_start": "what a start may take and cost",
    **dict.fromkeys(("image.name", "image.share_with", "image.keep", "image.keep_unproven"), _AFTER),
    **dict.fromkeys(("waivers", "fail_on"), "what is made of the checks' results"),
    "reports": "where reports are kept",
    **dict.fromkeys(("rebuild.max_age", "rebuild.when_updates"), "when to bake again"),
    **dict.fromkeys(("publish", "channels", "attest", "signing_key", "notices", "fleet"), _AFTER),
}

# Modules of bake that say what is done to the builder's disk. What the others decide is in the settings.
SHAPING = (
    "layout.py",
    "steps/check_capacity.py",
    "steps/compile_model.py",
    "steps/create_image.py",
    "steps/mount_scratch.py",
    "steps/prefetch.py",
    "steps/provision.py",
    "steps/quantize.py",
    "steps/record_ranges.py",
    "steps/record_trace.py",
    "steps/remove_libraries.py",
    "steps/seal.py",
    "steps/speed_up_starts.py",
    "steps/stop_upgrades.py",
)
# Those that launch, connect, look, wait, check, judge or clean up.
NOT_SHAPING = (
    *(
        "__init__",
        "ask_disks",
        "attempt",
        "attest",
        "boot_check",
        "check_power",
        "check_script",
        "check_worker_rights",
    ),
    "fill_stream",
    *("clean_up", "connect", "exclusive", "first_boot", "judge", "keep_interrupted", "launch", "locate"),
    *(
        "locate_python",
        "measure_cold_start",
        "publish",
        "record_baseline",
        "record_image",
        "record_inventory",
        "retire",
        "survey",
        "tag_hydration",
        "tags",
    ),
    *("take_over", "verify", "volume_initialization", "wait_for_worker", "wire_boot_check"),
)
# Of `provision/`: user data is no part of the image, and of the locks only those that are used count.
_NOT_PROVISIONED = ("launch/", "locks/")
# Settings that say what the builder has and how long to wait.
_NOT_INSTALLED = {"BAKE_DEVICE", "COMPILED_SIZES", "NOT_COMPILED", "PACKAGES_LOCK_TIMEOUT"}
_DIGITS = 8  # of a hash, in a tag and for people


@dataclass(frozen=True)
class Identity:
    """What an image is made of: group -> name -> value or hash."""

    parts: Parts

    @property
    def id(self) -> str:
        """A hash over all of it."""
        return _digest(self.parts, 16)

    @property
    def inputs(self) -> dict[str, str]:
        """A hash for each input that is a file or a folder."""
        folders = ("provision", "bake", "checks", "own checks")
        found = {name: _digest(self.parts[name], 64) for name in folders if self.parts[name]}
        return {"worker": self.parts["worker"]["code"], **self.parts["locks"], **found}

    @property
    def tag(self) -> str:
        """The value of `bake:inputs`: within 256 of the characters that tags have."""
        return " ".join(f"{group.replace(' ', '-')}={told}" for group, told in self.short.items())

    @property
    def short(self) -> dict[str, str]:
        """Group -> what a tag says of it: the base AMI's id, for the others a short hash."""
        return {group: short(group, found) for group, found in self.parts.items()}


def short(group: str, found: Mapping[str, str]) -> str:
    """What a tag says of a group."""
    if group == "base":
        return found["ami"]
    return found["code"][:_DIGITS] if group == "worker" else _digest(found, _DIGITS)


def of(
    profile: Profile,
    base: str,
    sources: Sources,
    code: WorkerSource,
    own_checks: Mapping[str, str],
    lock: Lock | None,
) -> Identity:
    """What an image of the profile is made of, with `base` as its base AMI's id.

    `own_checks` are the hashes of the profile's own test files. Without a `lock` nothing can be baked yet.
    """
    drivers = drivers_of.decide(profile, sources.requirements, Types((), ()), sources.devices)
    archive = interpreter.read(sources.interpreter)
    settings = settings_of(profile, sources, drivers, archive)
    left_out = _NOT_INSTALLED | set(sources.builder)
    neuron = {"neuron": hash_file(sources.neuron)} if drivers.compiled and sources.neuron.exists() else {}
    return Identity(
        {
            "base": {"ami": base},
            "worker": {"code": code.tree},
            "profile": dict(_values(profile)),
            "settings": {name: value for name, value in settings.items() if name not in left_out},
            "weights": _weights(lock),
            "locks": {
                "requirements": hash_file(sources.requirements),
                "tools": hash_file(sources.tools),
                "python": archive.sha256,
                **neuron,
            },
            "provision": {
                name: told
                for name, told in hash_files(PROVISION).items()
                if not name.startswith(_NOT_PROVISIONED)
            },
            "bake": {name: hash_file(PACKAGE / name) for name in SHAPING},
            "checks": hash_files(CHECKS),
            "own checks": dict(own_checks),
            # What a local cloud sets beside that differs from host to host; that it does so counts.
            "rehearsal": dict.fromkeys(sorted(sources.builder), "set"),
        }
    )


def _values(profile: Profile) -> Iterator[tuple[str, str]]:
    """The inputs of the profile, each as JSON."""
    other = {"cuda": ("neuron",), "neuron": ("nvidia",), "cpu": ("nvidia", "neuron")}
    for path in INPUTS:
        section, key = path.split(".")
        if section in other[profile.base.accelerator]:
            continue
        value = getattr(getattr(profile, section), key)
        if path in _WHERE_SET and value == _WHERE_SET[path]:
            continue
        yield path, json.dumps(sorted(value) if path in _SETS else value)
    if profile.worker.compile_sizes or profile.worker.remove_unused_libraries:
        # Whether that can be done follows from the builder's GPU and the workers'.
        yield "builder and worker types", json.dumps([profile.builder.types, profile.worker_types])


def _weights(lock: Lock | None) -> dict[str, str]:
    if lock is None:
        return {}
    files = {path: json.dumps(file.as_dict(), sort_keys=True) for path, file in lock.files.items()}
    return {"repo": lock.repo, "revision": lock.revision, **files}


def _digest(found: object, digits: int) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:digits]
