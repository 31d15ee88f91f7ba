"""The parts of a plan, one for each stage of a bake. A step takes the part that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bake import interpreter
from bake.account.images import name_of
from bake.account.instance_types import InstanceType
from bake.checks.result import Waiver
from bake.interpreter import Archive
from bake.layout import INT8_MODEL, SCRATCH
from bake.planning import drivers as drivers_of
from bake.planning import egress
from bake.planning.base_image import BaseImage
from bake.planning.builder import BuilderMemory
from bake.planning.disk import Disk
from bake.planning.drivers import Drivers
from bake.planning.egress import Egress
from bake.planning.memory import Memory
from bake.planning.network import Network
from bake.planning.reaching import Reach
from bake.planning.sources import Sources
from bake.planning.weights import WeightFiles
from bake.profile import Profile
from bake.publish.wanted import Wanted
from bake.systems import SYSTEMS
from bake.updates.held import HELD, SETTING
from bake.weights.lock import Lock
from bake.worker_source import WorkerSource


@dataclass(frozen=True)
class LaunchPlan:
    """What instances are launched from, as which types and where.

    `types` are the builder's, `worker_types` those that the image is for; each in the order in which they are
    tried. `settings` is what a booted worker gets beside its queue, bucket and bus; `reach` how the bake gets
    to its instances.
    """

    base: BaseImage
    types: tuple[InstanceType, ...]
    worker_types: tuple[InstanceType, ...]
    network: Network
    settings: Mapping[str, str]
    reach: Reach


@dataclass(frozen=True)
class WeightsPlan:
    """The model's files and where they go.

    `files` is what the plan's sums are made with; `lock` what the bake downloads (None in a plan that nobody
    can bake yet). They differ in a rehearsal, whose Hub serves smaller files. `cache` is the Hugging Face
    cache on the image, as an absolute path (R-CACHE); `download_cache` where the download goes: the cache, or
    what stands in its place while int8 is made. `model_dir` is the int8 checkpoint on the image, owned by
    root; None where bfloat16 is served.
    """

    files: WeightFiles
    lock: Lock | None
    cache: str
    download_cache: str
    model_dir: str | None

    @classmethod
    def of(cls, profile: Profile, files: WeightFiles, lock: Lock | None) -> WeightsPlan:
        """Resolve the paths that the profile asks for."""
        cache = cache_of(profile)
        return cls(
            files=files,
            lock=lock,
            cache=cache,
            download_cache=f"{SCRATCH}/hub" if profile.weights.scratch else cache,
            model_dir=model_dir_of(profile),
        )


def cache_of(profile: Profile) -> str:
    """The Hugging Face cache on the image, as an absolute path."""
    cache = profile.weights.cache
    return f"{SYSTEMS[profile.base.os].home}/{cache[2:]}" if cache.startswith("~/") else cache


def model_dir_of(profile: Profile) -> str | None:
    """The int8 checkpoint on the image; None where bfloat16 is served."""
    return INT8_MODEL if profile.weights.precision == "int8" else None


@dataclass(frozen=True)
class ProvisionPlan:
    """What is installed on the builder.

    `interpreter` is the Python that the image gets where its base has none of the right version; `egress` the
    hosts that the builder must reach; `settings` is `settings.env`, which holds nothing secret.
    """

    worker: WorkerSource
    drivers: Drivers
    interpreter: Archive
    egress: tuple[Egress, ...]
    settings: Mapping[str, str]

    @classmethod
    def of(cls, profile: Profile, sources: Sources, worker: WorkerSource, drivers: Drivers) -> ProvisionPlan:
        """Read the Python's lock and write down the settings."""
        archive = interpreter.read(sources.interpreter)
        return cls(
            worker=worker,
            drivers=drivers,
            interpreter=archive,
            egress=egress.find(profile, sources, archive),
            settings=settings_of(profile, sources, drivers, archive),
        )


def settings_of(profile: Profile, sources: Sources, drivers: Drivers, archive: Archive) -> dict[str, str]:
    """`settings.env`, by which the scripts of `provision/` install what the profile asks for."""
    system = SYSTEMS[profile.base.os]
    return {
        "BAKE_USER": system.user,
        "BAKE_HOME": system.home,
        "BAKE_PYTHON": sources.python,
        "PYTHON_NAME": archive.name,
        "PYTHON_SHA256": archive.sha256,
        "PACKAGES_LOCK_TIMEOUT": str(profile.builder.package_wait_minutes * 60),
        "HF_HUB_CACHE": cache_of(profile),
        "MODEL_REPO": profile.weights.repo,
        "MODEL_REVISION": profile.weights.revision,
        **drivers_of.settings(profile, drivers),
        "MODEL_DIR": model_dir_of(profile) or "",
        **_updates(profile),
        **sources.builder,
    }


def _updates(profile: Profile) -> dict[str, str]:
    """What provision/updates.sh needs; nothing where the base stays as it is."""
    if profile.base.updates == "none":
        return {}
    return {"BAKE_UPDATES": profile.base.updates, SETTING: " ".join(HELD)}


@dataclass(frozen=True)
class VerifyPlan:
    """What is checked, and on what: `drivers` says whether the builder and the booted worker have the
    accelerator. `memory` is about the types that the image is for, `builder_memory` (empty where they are the
    same) about the builder's. `files` are the profile's own test files, which run beside bake's checks;
    `waivers` the failures that somebody accepted.
    """

    drivers: Drivers
    memory: tuple[Memory, ...]
    builder_memory: tuple[BuilderMemory, ...]
    waivers: tuple[Waiver, ...] = ()
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ImagePlan:
    """The AMI: its root volume and what is on it, its name, and the accounts that it is shared with.

    `keep` good images of the profile stay, its newest ones (None: all), and `keep_unproven` unproven ones.
    `reports` is where a run's reports go beside its directory: s3://bucket/prefix. `wanted` is how a good one
    is published beyond that.
    """

    profile: str
    name: str
    share_with: tuple[str, ...]
    keep: int | None
    keep_unproven: int
    disk: Disk
    reports: str | None = None
    wanted: Wanted = field(default_factory=Wanted)

    @classmethod
    def of(cls, profile: Profile, disk: Disk) -> ImagePlan:
        """Take from the profile what concerns the image."""
        image = profile.image
        accounts = tuple(image.share_with)
        name, reports = profile.name, profile.reports
        keep = image.keep, image.keep_unproven
        return cls(name, image.name, accounts, *keep, disk, reports, wanted_of(profile))

    def name_for(self, run: str) -> str:
        """The AMI's name in a run."""
        return name_of(self.profile, self.name, run)


def wanted_of(profile: Profile) -> Wanted:
    """What a profile publishes of a good image."""
    asked = profile.publish
    return Wanted(
        regions=asked.regions,
        keys=asked.keys,
        parameter=asked.parameter,
        template=asked.launch_template,
        source=asked.source_version,
        initialization_rate=profile.cold_start.volume_initialization_rate,
        deprecate_after=asked.deprecate_after,
        protect=asked.protect,
        watermark=asked.watermark,
        types=profile.worker_types if asked.enforce_instance_types else (),
    )
