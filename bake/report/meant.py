"""Which changes of a machine the bake is known to make. Every other one is a finding.

What a bake means to do is read from where it is written down: the scripts and files of provision/, the locks,
the settings of the plan, and what `base.remove` took. The rules know no exception for what usually happens:

- A package of the system is meant if it is new and a script asks for it, or a package that a script asks for
  needs it, by the package manager's own words. One that was there before is meant to change only to the
  version that the profile pins, its own or that of the driver which needs it: any other change looks like an
  upgrade that ran on its own.
- One that base.updates upgraded, or that an upgrade newly needs, is meant at the version that the upgrade
  installed (facts/updates.json).
- A Python package is meant where its version is that of its environment's lock.
- A user, unit or program with rights is meant if it came with a package that is itself new and meant, or went
  with one that base.remove took.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache

from bake import layout
from bake.checks.inventory import Inventory, Package
from bake.report.changes import changes, name_of, spelling
from bake.report.model import Change, Changes
from bake.resources import PROVISION

# What keeps a driver and the kernel that its module was built for (provision/lib/kernel.sh).
KERNEL = ("kernel*", "linux-image-*", "linux-headers-*", "linux-modules-*", "linux-aws*")
# A driver's daemon that 12-nvidia.sh starts at each boot; the name behind an alias is the base AMI's.
PERSISTENCE = "nvidia-persistenced*"
DRIVER_PACKAGE = "nvidia-open"
SYSTEM_PYTHON = "system python"  # how an inventory calls the version of the system's own
SECURITY_UPDATE = "a security update of the distribution"
RPM_KEY = "gpg-pubkey"  # how rpm lists a key that it trusts
WORKER_PACKAGE = "flux-worker"
OF_THE_WORKER = ("torch", "diffusers", "transformers", "flux-worker", "python", "cuda")


@dataclass(frozen=True)
class Intended:
    """What a bake means to change. `asked` and `held` are patterns of package names."""

    asked: tuple[str, ...]
    held: tuple[str, ...]
    units: Mapping[str, str]
    """Unit, as a pattern -> why."""
    locks: Mapping[str, Mapping[str, str]]
    """Virtual environment -> Python package -> version."""
    removed: frozenset[str] = frozenset()
    """Packages that went with what `base.remove` names."""
    pinned: Mapping[str, str] = field(default_factory=dict)
    """Package -> the version that the profile pins; a base AMI's own of another version is replaced."""
    updated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Package -> the versions that security updates installed."""


def intended(settings: Mapping[str, str], locks: Mapping[str, str], removed: Iterable[str] = ()) -> Intended:
    """What a bake with these settings (`settings.env`) means to do.

    `locks` are the texts of the locked requirements, by virtual environment; `removed` the packages that
    `base.remove` took along.
    """
    accelerator, names = settings.get("BAKE_ACCELERATOR", ""), asked(settings)
    units = dict.fromkeys(_units(), "the worker")
    if accelerator == "cuda":
        units[PERSISTENCE] = "keeps the driver loaded"
    return Intended(
        asked=names,
        held=(*KERNEL, *names),
        units=units,
        locks={venv: locked(text) for venv, text in locks.items()},
        removed=frozenset(removed),
        pinned=_pinned(settings),
    )


def _pinned(settings: Mapping[str, str]) -> dict[str, str]:
    neuron = dict(word.split("=", 1) for word in settings.get("NEURON_PACKAGES", "").split())
    driver = settings.get("NVIDIA_DRIVER", "")
    return {**neuron, **({DRIVER_PACKAGE: driver} if driver else {})}


def asked(settings: Mapping[str, str]) -> tuple[str, ...]:
    """The packages that the scripts install with these settings, as patterns: for the inventory, too."""
    found: list[str] = []
    for text in _scripts():
        only_for = re.search(r'^\[ "\$BAKE_ACCELERATOR" = (\w+) \] \|\| exit 0$', text, re.MULTILINE)
        if only_for is None:
            found += _installs(text)
        elif only_for[1] == settings.get("BAKE_ACCELERATOR"):
            pinned = settings.get("NVIDIA_DRIVER" if only_for[1] == "cuda" else "NEURON_PACKAGES")
            found += [*_installs(text), *_installs(_kernel())] if pinned else []
    return tuple(sorted(set(found)))


def _installs(script: str) -> list[str]:
    """Names that a script hands to `packages_install`, or to what installs from a vendor's repository.

    `packages=( … )` and `stack=( … )` list them; `"name-$VARIABLE"` becomes the pattern `name-*`.
    """
    lists = re.findall(r"^(?:packages|stack)=\((.*?)\)$", script, re.MULTILINE | re.DOTALL)
    words = [word for text in lists for word in re.sub(r"#.*", "", text).split()]
    words += re.findall(r'\b(?:packages_install|from_nvidia /) "?([a-z][^"\s]*)', script)
    return [re.sub(r"\$\w+", "*", word.partition("=")[0]) for word in words]


@cache
def _scripts() -> tuple[str, ...]:
    return tuple(file.read_text(encoding="utf-8") for file in sorted((PROVISION / "scripts").glob("*.sh")))


@cache
def _kernel() -> str:
    return (PROVISION / "lib" / "kernel.sh").read_text(encoding="utf-8")


@cache
def _units() -> tuple[str, ...]:
    """The units that provision/rootfs puts on the image."""
    folder = PROVISION / "rootfs" / layout.UNITS.lstrip("/")
    return tuple(sorted(file.name.removesuffix(".j2") for file in folder.iterdir() if file.is_file()))


def locked(requirements: str) -> dict[str, str]:
    """Python package -> version, of locked requirements."""
    return {
        spelling(name): version
        for name, version in re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", requirements, re.MULTILINE)
    }


def on_machine(before: Inventory, after: Inventory, wanted: Intended) -> Changes:
    """What the bake changed on a machine, each change judged."""
    judge = Judge(before, after, wanted)
    return Changes(
        before=before.moment,
        after=after.moment,
        changes=tuple(judge.judge(change) for change in changes(before, after)),
    )


@dataclass(frozen=True)
class Judge:
    """Says of each change whether it was meant, and why; packages first, since other changes follow them."""

    before: Inventory
    after: Inventory
    wanted: Intended
    packages: dict[str, str] = field(init=False, default_factory=dict)
    """Package of the system that is new or gone, as meant -> why."""

    def __post_init__(self) -> None:
        had, has = ({one.name for one in system(inventory)} for inventory in (self.before, self.after))
        for name in sorted(had ^ has):
            if why := self._of_system(name, is_new=name in has):
                self.packages[name] = why
        # A unit or a user may come with an upgrade, too.
        for name in self.wanted.updated:
            if name in had & has and not (self._versions(name) - set(self.wanted.updated[name])):
                self.packages[name] = SECURITY_UPDATE

    def _versions(self, name: str) -> set[str]:
        """The versions of a package that are new on the machine."""
        before, after = (
            {one.version for one in system(inventory) if one.name == name}
            for inventory in (self.before, self.after)
        )
        return after - before

    def judge(self, change: Change) -> Change:
        """The change with its judgement."""
        why = self._why(change)
        return change.model_copy(update={"meant": bool(why), "why": why or _finding(change)})

    def _why(self, change: Change) -> str:
        name = change.name
        match change.kind:
            case "package":
                return self._of_package(change)
            case "hold":
                kept = change.after and _matches(name, self.wanted.held)
                return "an upgrade would leave the driver without its module" if kept else ""
            case "unit":
                return self._of_unit(change)
            case "user" | "group":  # as packages call their own
                return self._came_with(name) if name in self.packages else ""
            case "setuid":
                inventory = self.after if change.after else self.before
                return self._came_with(inventory.owners.get(name, ""))
            case "version":
                return self._of_version(change)
            case _:
                return ""

    def _of_package(self, change: Change) -> str:
        found = {name_of(one): one for one in (*self.before.packages, *self.after.packages)}
        package = found.get(change.name)
        if package is None:
            return ""
        if package.kind == "python":
            return self._of_python(package, change)
        if package.kind == "program":
            ours = package.where.startswith(f"{layout.WORKER}/")
            return "the worker's Python" if ours else ""
        if package.name == RPM_KEY:
            return self._of_key(change)
        if package.name in self.packages:
            return self.packages[package.name]
        return self._of_pinned(package.name, change.after)

    def _of_key(self, change: Change) -> str:
        """Of the keys that rpm trusts: it keeps a repository's from the first install from there on.

        Where a script installs from a vendor's repository, nobody can tell whose key is new.
        """
        before, after = (set((keys or "").split(", ")) - {""} for keys in (change.before, change.after))
        ours = self.packages and not self.wanted.pinned and before <= after
        same = self.before.repositories == self.after.repositories
        return "the key of a repository of the base AMI" if ours and same else ""

    def _of_pinned(self, name: str, after: str | None) -> str:
        """Of a package that was there before."""
        needed_by = self.after.dependencies.get(name, "")
        version = self.wanted.pinned.get(name) or self.wanted.pinned.get(needed_by)
        # With an epoch before and a release behind, which a pin may leave out.
        same = version and after and re.fullmatch(rf"(\d+:)?{re.escape(version)}(-.*)?", after)
        return "the version that the profile pins" if same else ""

    def _of_system(self, name: str, *, is_new: bool) -> str:
        if not is_new:
            return "went with what base.remove names" if name in self.wanted.removed else ""
        needed_by = self.after.dependencies.get(name)
        if name in self.wanted.updated and not (self._versions(name) - set(self.wanted.updated[name])):
            return SECURITY_UPDATE
        return self._asked(name) or (f"{needed_by} needs it" if needed_by else "")

    def _asked(self, name: str) -> str:
        return "a script of provision/ asks for it" if _matches(name, self.wanted.asked) else ""

    def _of_python(self, package: Package, change: Change) -> str:
        lock = self.wanted.locks.get(package.where)
        if lock is None:  # the system's own
            return self._came_with(f"python3-{spelling(package.name)}")
        if spelling(package.name) == WORKER_PACKAGE and change.after:
            return "the worker itself"
        return "the worker's lock" if change.after == lock.get(spelling(package.name), "") else ""

    def _of_unit(self, change: Change) -> str:
        for pattern, why in self.wanted.units.items():
            if fnmatch(change.name, pattern) and change.after:
                return why
        inventory = self.after if change.after else self.before
        return self._came_with(inventory.owners.get(change.name, ""))

    def _came_with(self, package: str) -> str:
        return f"of the package {package}" if package in self.packages else ""

    def _of_version(self, change: Change) -> str:
        if change.name in OF_THE_WORKER:
            return "the worker's environment" if change.after else ""
        if change.name == SYSTEM_PYTHON:
            return self._came_with(next((one for one in self.packages if re.match("python3", one)), ""))
        name = DRIVER_PACKAGE if change.name == "driver" else change.name
        return self.packages.get(name, "") or self._of_pinned(name, change.after)


def system(inventory: Inventory) -> list[Package]:
    """The packages of the operating system's package manager."""
    return [one for one in inventory.packages if one.kind in ("deb", "rpm")]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _finding(change: Change) -> str:
    if change.before is None:
        return "nothing in the bake asks for it"
    return "nothing in the bake removes it" if change.after is None else "nothing in the bake changes it"
