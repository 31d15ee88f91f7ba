"""What a machine holds, recorded at one moment: packages, users, units, ports, settings, and bytes by place.

The machine answers by itself in one round trip (bake/checks/probes/inventory.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from bake import layout
from bake.checks.probes import probe
from bake.checks.result import Moment, Record
from bake.ssh.program import facts

if TYPE_CHECKING:
    from bake.ssh import Session

SECONDS = 45
"""For all of it; on a disk that fills from S3 most of them go into the search for programs with rights."""


class Package(Record):
    """An installed package: `kind` is `deb`, `rpm`, `python`, or `program` elsewhere."""

    kind: str
    name: str
    version: str
    arch: str = ""
    where: str = ""
    """The virtual environment or folder of a Python package, the folder of a program."""
    source: str = ""
    """What it was built from, by which scanners look it up: `name version` of a deb's source package, as
    dpkg-query's `${source:Package} ${source:Version}`; the file name of an rpm's (`%{SOURCERPM}`)."""


class Source(Record):
    """Where a machine's distribution publishes security updates, without what opens it."""

    kind: Literal["apt", "baseurl", "mirrorlist"]
    url: str
    suite: str = ""
    """Of apt's: the pocket, such as jammy-security."""
    components: tuple[str, ...] = ()
    arch: str = ""


class Inventory(Record):
    """What a machine holds, at one moment. Names map to what identifies them."""

    moment: Moment
    kernel: str
    """The release of the kernel that the image boots, which need not be the one that runs."""
    os: str
    """PRETTY_NAME of /etc/os-release."""
    packages: tuple[Package, ...] = ()
    held: tuple[str, ...] = ()
    """Packages that an upgrade leaves as they are."""
    dependencies: dict[str, str] = Field(default_factory=dict)
    """Package -> a package that the bake asks for and that needs it, by the package manager's own words."""
    users: dict[str, str] = Field(default_factory=dict)
    """Name -> uid, gid, home and shell."""
    groups: dict[str, str] = Field(default_factory=dict)
    """Name -> gid and members."""
    units: dict[str, str] = Field(default_factory=dict)
    """Unit file -> state: enabled, disabled, masked, static. Without the transient and the lease's."""
    ports: dict[str, str] = Field(default_factory=dict)
    """Protocol, address and port that listens -> program. The loopback's, too."""
    setuid: dict[str, str] = Field(default_factory=dict)
    """Path -> mode, owner and capabilities of a program that runs with more rights than its caller's."""
    owners: dict[str, str] = Field(default_factory=dict)
    """Unit file or path in `setuid` -> the package that delivered it."""
    sysctl: dict[str, str] = Field(default_factory=dict)
    """Kernel parameter -> value, of those that configuration files set."""
    kernel_parameters: str = ""
    """The kernel's command line that the image boots with."""
    repositories: dict[str, str] = Field(default_factory=dict)
    """Package source file, or key that signs packages -> hash of its content, which may hold a password."""
    sources: tuple[Source, ...] = ()
    """Where the distribution publishes security updates. Not compared."""
    versions: dict[str, str] = Field(default_factory=dict)
    """What people ask for: kernel, driver, cuda, torch, diffusers, transformers, neuron, python."""
    incomplete: tuple[str, ...] = ()
    """The fields that could not be recorded."""


class Disk(Record):
    """Bytes of the root file system; null where they could not be counted."""

    total: int | None = None
    used: int | None = None
    free: int | None = None
    """What is left for a plain user."""
    weights: int | None = None
    """The model's cache."""
    int8: int | None = None
    """The worker's int8 checkpoint."""
    environment: int | None = None
    """The worker: its Python, its virtual environments, its own files."""


ANSWERS = frozenset(Inventory.model_fields) - {"moment", "incomplete"}


def take(
    session: Session, moment: Moment, *, cache: str, asked: Iterable[str] = (), seconds: int = SECONDS
) -> tuple[Inventory, Disk]:
    """Record what the machine holds, in one round trip, and how many bytes lie where.

    `cache` is the model's; `asked` are the packages that the bake installs, as patterns: what they need is
    named in `dependencies`. What can't be recorded is in `incomplete`. Raises ConnectionLost alone.
    """
    given = {
        "venvs": [layout.VENV, layout.NEURON_VENV],
        "asked": sorted(asked),
        "lease": layout.LEASE_UNIT,
        "places": {
            "weights": [cache],
            "int8": [layout.INT8_MODEL],
            "environment": [layout.WORKER, layout.LIBRARY],
        },
    }
    done = probe("inventory").run(session, given, seconds)
    try:
        return read(facts(done.stdout) if done.exit_code == 0 else {}, moment)
    except (ValueError, ValidationError):
        return read({}, moment)


def read(answer: Mapping[str, Any], moment: Moment) -> tuple[Inventory, Disk]:
    """What the probe answered; a field that it did not answer is incomplete."""
    told = {name: answer[name] for name in ANSWERS if name in answer}
    missing = {*answer.get("incomplete", ()), *(ANSWERS - set(told))}
    told = {"kernel": "", "os": "", **told, "moment": moment, "incomplete": sorted(missing)}
    return Inventory.model_validate(told), Disk.model_validate(answer.get("disk") or {})
