"""The report of one run, as `report.json` has it. All other formats are made from it.

Sizes are bytes unless the name says GiB; times are RFC 3339 in UTC; durations are seconds; money is dollars.
A field is null where nobody knows it: the run had not come that far, or nobody could be asked.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from bake.checks.cold_start import ColdStart as ColdStart
from bake.checks.inventory import Inventory as Inventory
from bake.checks.inventory import Package as Package
from bake.checks.result import Check, Record, Waiver
from bake.report.readied import CompiledBlocks, UnusedLibraries

SCHEMA: Final = "bake-report/1"
"""Goes up by one when a field changes its meaning or goes away; new fields do not change it."""


class Venue(Record):
    """Where it was baked. A rehearsal proves nothing about AWS, a GPU or the real weights."""

    name: Literal["REHEARSAL", "AWS"]
    differences: tuple[str, ...] = ()
    """How a rehearsal differs from a bake on AWS."""


class Verdict(Record):
    """What came of the run."""

    state: Literal["good", "bad", "unproven", "failed", "interrupted", "unfinished"]
    """`good`, `bad` and `unproven` are about an image; `failed` and `interrupted` ended without one;
    `unfinished` goes on, or was cut."""
    sentence: str
    error: str | None = None
    hint: str | None = None
    exit_code: int | None = None
    left_behind: tuple[str, ...] = ()
    """What could not be removed, each with the command that removes it."""


class RunFacts(Record):
    """Who ran what, when and where."""

    id: str
    command: str
    """`bake` or `boot-check`."""
    attempts: int
    bake_version: str
    profile: str
    plan: str
    """The plan's id, a hash of everything that goes into the image."""
    account: str | None
    region: str
    operator: str | None
    """The ARN that AWS names for whoever ran it."""
    started: str
    finished: str | None


class Volume(Record):
    """One disk of an AMI."""

    device: str
    snapshot: str
    size_gib: int
    type: str
    encrypted: bool | None
    kms_key: str | None
    """The key's ARN, as DescribeSnapshots names it."""
    delete_on_termination: bool | None = None


class ImageFacts(Record):
    """An AMI as DescribeImages answered at the end of the run."""

    id: str
    name: str
    created: str | None
    architecture: str | None
    boot_mode: str | None
    imds_support: str | None
    ena_support: bool | None
    virtualization: str | None
    root_device: str | None
    public: bool | None
    volumes: tuple[Volume, ...]
    launch_permissions: tuple[str, ...]
    """The accounts that may launch it, besides its owner; `all` would be everybody."""
    tags: dict[str, str]


class BaseFacts(Record):
    """The base AMI."""

    id: str
    name: str
    owner: str | None
    architecture: str | None
    created: str | None = None


class Agreed(Record):
    """One fact that needs the user's agreement."""

    fact: str
    value: str
    origin: str
    """Where the value comes from: a line of the profile, a variable."""
    state: Literal["agreed", "not agreed", "rehearsal"]


class AgreementEntry(Record):
    """One entry of the agreement's history: who agreed to what, when and why."""

    when: str
    who: str
    why: str
    commit: str | None
    """The Git commit that last changed the lock file, for the newest entry; `dirty` where it has changed
    since."""
    changed: tuple[str, ...]


class Agreement(Record):
    """What was agreed, and by whom."""

    file: str | None
    facts: tuple[Agreed, ...]
    history: tuple[AgreementEntry, ...]


class Span(Record):
    """One bar of the timeline: a step of the bake, or a unit on the builder that ran beside it."""

    name: str
    began: float
    """Seconds since the run's first event of its attempt."""
    seconds: float
    outcome: str
    """`done`, `failed` or `running`."""
    waited: float | None = None
    """Seconds that were waits for AWS and the machines."""
    attempt: int = 1
    lane: Literal["bake", "builder"] = "bake"


class Part(Record):
    """One part of the disk."""

    name: str
    bytes: int
    measured: bool
    """Whether it was measured on the machine, or estimated by the plan."""


class Picture(Record):
    """An image that the worker generated. The PNG is a file of the run directory."""

    title: str
    file: str
    sha256: str
    width: int
    height: int
    prompt: str
    seed: int
    steps: int
    precision: str
    device: str
    instance: str | None = None
    instance_type: str | None = None
    ready_seconds: float | None = None
    """From the start of systemd to the worker's READY."""
    seconds: float | None = None
    """How long generating it took, as the worker says."""
    memory_bytes: int | None = None
    """The largest resident memory of the worker's process."""
    note: str | None = None


class WeightFile(Record):
    """One file of the model in the cache."""

    path: str
    bytes: int
    hash: str
    """`sha256:…` or `git-sha1:…`, as the lock has it."""


class Weights(Record):
    """The model on the image."""

    repo: str
    revision: str
    precision: str
    licence: str
    licence_url: str
    files: tuple[WeightFile, ...]
    bytes: int
    """The files together, as they lie on the image."""
    planned_bytes: int
    """What the plan's sums were made with; a rehearsal's Hub serves smaller files."""
    fetched: bool | None
    """Whether the cache was filled in this run."""
    int8_psnr_db: float | None = None


class TraceStage(Record):
    """What a part of a start reads, of how many files."""

    name: str
    bytes: int
    files: int


class StartTrace(Record):
    """The trace of a start on the image: how it was recorded, and what it names."""

    recorded: str
    """`start on cuda`, `start on cpu`, or `static`, from a list; `none` if there is no trace."""
    why: str = ""
    """Why no start was recorded."""
    sha256: str | None = None
    stages: tuple[TraceStage, ...] = ()


class Change(Record):
    """One difference between two inventories or reports."""

    kind: str
    """What differs: package, user, group, unit, port, setuid, sysctl, repository, version, weight, check,
    waiver, image, time or cost."""
    name: str
    before: str | None
    after: str | None
    meant: bool = True
    """Whether the bake is known to make this change; one that it is not is a finding."""
    why: str = ""


class Changes(Record):
    """How one thing differs from another."""

    before: str
    """What is compared: an AMI, a run, a moment."""
    after: str
    changes: tuple[Change, ...]


class Vulnerability(Record):
    """One known vulnerability of an installed package."""

    id: str
    severity: str
    """critical, high, medium, low, negligible or unknown."""
    package: str
    version: str
    fixed_in: str = ""
    url: str = ""
    waiver: Waiver | None = None


class Scan(Record):
    """The answer of a vulnerability scanner."""

    scanner: str
    version: str
    database: str
    """The date of the database that it used."""
    at: str
    covered: tuple[str, ...]
    """Kinds of packages that it looked at."""
    not_covered: tuple[str, ...]
    """Kinds of packages on the image about which it says nothing."""
    fail_on: str | None
    vulnerabilities: tuple[Vulnerability, ...]


class AttestedSnapshot(Record):
    """One snapshot of an AMI, and the digest of what it holds."""

    device: str
    snapshot: str
    gib: int
    digest: str
    """SHA-256, as docs/attestation.md defines it."""


class Attestation(Record):
    """What the AMI's snapshots hold, as it was read when the image was good."""

    digest: str
    """The AMI's: of one snapshot, that one's."""
    snapshots: tuple[AttestedSnapshot, ...]
    key: str | None
    """The id of the key that signed it; null where nobody did."""
    signed: str
    """Who signed it, in words."""
    file: str
    """The statements, a file of the run directory."""
    blocks: int
    """Blocks of 512 KiB that were read; all others hold nothing."""
    seconds: float


class Publication(Record):
    """One part of what was published of the AMI, or was to be."""

    what: str
    """copy, SSM parameter, launch template, or what the AMI itself says and enforces."""
    region: str
    id: str
    state: Literal["published", "failed"]
    why: str = ""
    """Why it failed."""
    by_hand: str = ""
    """The command that does it."""


class Cost(Record):
    """What the run cost; null where a price is not known."""

    hours: float
    dollars: float | None
    kept_month: float | None
    """What the AMI's snapshots cost a month, at most."""


class Log(Record):
    """A log of the run directory."""

    file: str
    bytes: int
    tail: str
    """Its last lines."""


class Note(Record):
    """Something that the bake told."""

    text: str
    warning: bool


class Report(Record):
    """Everything about one run."""

    report: Literal["bake-report/1"] = SCHEMA
    venue: Venue
    verdict: Verdict
    run: RunFacts
    image: ImageFacts | None = None
    base: BaseFacts | None = None
    agreement: Agreement | None = None
    publication: tuple[Publication, ...] = ()
    """What was published of the AMI, beside sharing it."""
    checks: tuple[Check, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    """All waivers of the profile, whether a check needed them or not."""
    changed_on_machine: Changes | None = None
    """What the bake changed: the sealed disk compared with the base AMI."""
    since_last_good: Changes | None = None
    """What changed since the last good image of this profile; null if there is none to compare with."""
    last_good: str | None = None
    """Why there is nothing to compare with, or the image that was compared."""
    inventories: tuple[Inventory, ...] = ()
    pictures: tuple[Picture, ...] = ()
    weights: Weights | None = None
    trace: StartTrace | None = None
    compiled: CompiledBlocks | None = None
    """What the worker's blocks are compiled for; null where the profile does not ask for it."""
    unused_libraries: UnusedLibraries | None = None
    disk: tuple[Part, ...] = ()
    timeline: tuple[Span, ...] = ()
    cold_start: ColdStart | None = None
    """What the start of the booted image took; null where no boot check came so far."""
    cost: Cost | None = None
    attestation: Attestation | None = None
    scan: Scan | None = None
    warnings: tuple[str, ...] = ()
    """The plan's warnings."""
    notes: tuple[Note, ...] = ()
    logs: tuple[Log, ...] = ()
    plan: dict[str, Any] = Field(default_factory=dict)
    """The whole plan, as `plan.json` has it."""
