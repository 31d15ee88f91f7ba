"""Check what a profile says for reviewers: test files of its own, and waivers."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from bake.account.facts import AccountFacts
from bake.checks.result import GROUPS, Waiver
from bake.planning.findings import Findings
from bake.planning.sources import Sources
from bake.profile import Profile
from bake.trees import hash_file, source_files

# Of the month that renewing a waiver may take in a company, the half that is left to act in.
ENDS_SOON = timedelta(days=14)
MAX_BYTES = 1 << 20
# What a check's id is made of, and no character that a terminal or a report would have to be spared.
_FILE_NAME = r"[A-Za-z0-9_][A-Za-z0-9_-]*\.py"


@dataclass(frozen=True)
class Review:
    """What a plan has for reviewers: waivers as reports hold them, and test files beside bake's own checks.

    `digests` are the hashes of the files by their names from the profile's folder.
    """

    waivers: tuple[Waiver, ...]
    files: tuple[Path, ...]
    digests: Mapping[str, str]


@dataclass(frozen=True)
class _OwnFile:
    """A test file of the profile: the setting that names it, and its path from the profile's folder."""

    setting: str
    name: str
    file: Path

    @property
    def module(self) -> str:
        """The part of a check's id that stands for the file."""
        return self.file.stem.removeprefix("test_")


def check(profile: Profile, sources: Sources, facts: AccountFacts, findings: Findings) -> Review:
    """Check the test files and the waivers, these as of the day on which the account was asked."""
    own = list(_own_files(profile, sources, findings))
    for one in own:
        _check_content(one, findings)
    _check_modules(own, findings)
    _check_ids(profile, {one.module for one in own}, findings)
    _check_days(profile, facts, findings)
    waivers = tuple(Waiver(**waiver.model_dump()) for waiver in profile.waivers)
    files = tuple(one.file for one in own if one.file.is_file())
    return Review(waivers, files, _digests(own))


def digests(profile: Profile, sources: Sources) -> dict[str, str]:
    """The hashes of the test files, before anybody has looked at what is in them."""
    return _digests(list(_own_files(profile, sources, Findings({}))))


def _own_files(profile: Profile, sources: Sources, findings: Findings) -> Iterator[_OwnFile]:
    """Each file once: of a folder its `test_*.py`, sorted, also those in folders below it."""
    seen: set[Path] = set()
    for index, (said, place) in enumerate(zip(profile.checks, sources.checks, strict=True)):
        setting = f"checks.{index}"
        files = _files(place)
        if not files:
            missing = "has no test_*.py" if place.is_dir() else "is not there, or is no file"
            findings.problem(setting, f"{place} {missing}")
        for file in files:
            if file.resolve() not in seen:
                seen.add(file.resolve())
                below = file.relative_to(place).as_posix() if file != place else ""
                yield _OwnFile(setting, "/".join(filter(None, [said.rstrip("/"), below])), file)


def _files(place: Path) -> list[Path]:
    if place.is_dir():
        return [file for file in source_files(place) if re.fullmatch(r"test_.*\.py", file.name, re.DOTALL)]
    return [place] if place.is_file() else []


def _check_content(one: _OwnFile, findings: Findings) -> None:
    """Check that pytest will find tests in a file. Nothing of it is run here."""
    if not re.fullmatch(_FILE_NAME, one.file.name):
        what = "ends in .py, and has letters, digits, _ and - alone"
        findings.problem(one.setting, f"the name of a test file {what}, unlike {one.name!a}")
        return
    try:
        if (size := one.file.stat().st_size) > MAX_BYTES:
            findings.problem(
                one.setting, f"{one.file} has {size:,} bytes; a test file has {MAX_BYTES:,} at most"
            )
            return
        tree = ast.parse(one.file.read_bytes())
    except OSError as error:
        findings.problem(one.setting, f"{one.file} cannot be read: {error.strerror}")
    except SyntaxError as error:
        findings.problem(one.setting, f"{one.file}:{error.lineno or 1}: {error.msg}")
    except (ValueError, RecursionError, MemoryError):  # NUL, and nesting without end
        findings.problem(one.setting, f"{one.file} is not Python")
    else:
        if not any(_is_test(node) for node in ast.walk(tree)):
            findings.problem(one.setting, f"{one.file} has no function test_…, so nothing in it is a check")


def _is_test(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")


def _check_modules(own: list[_OwnFile], findings: Findings) -> None:
    """Two files of a name would give two checks one id."""
    first: dict[str, _OwnFile] = {}
    for one in own:
        if (other := first.setdefault(one.module, one)) is not one:
            text = f"{one.file} and {other.file} have one name, and so would their checks"
            findings.problem(one.setting, text)


def _check_ids(profile: Profile, modules: set[str], findings: Findings) -> None:
    """Report waivers of checks that there are not, which would waive nothing."""
    named = {index: waiver.check.partition("[")[0] for index, waiver in enumerate(profile.waivers)}
    bakes = {index: name for index, name in named.items() if "." in name and not _is_own(name, modules)}
    known = _known_ids() if bakes else frozenset()
    for index, name in bakes.items():
        if name not in known:
            likely = sorted({*known, *_like(name, modules)})
            close = difflib.get_close_matches(name, likely, 1)
            details = [f"did you mean {close[0]}?"] if close else []
            findings.problem(f"waivers.{index}.check", f"there is no check {name}", *details)


def _is_own(name: str, modules: set[str]) -> bool:
    """Whether an id, GROUP.MODULE.NAME, is of a check in one of the profile's own files."""
    group, _, rest = name.partition(".")
    return group in GROUPS and rest.rpartition(".")[0] in modules


def _like(name: str, modules: set[str]) -> Iterator[str]:
    """The ids that GROUP.MODULE.NAME may stand for in the profile's own files."""
    if name.count(".") == 2:
        last = name.rpartition(".")[2]
        yield from (f"{group}.{module}.{last}" for group in GROUPS for module in modules)


def _known_ids() -> frozenset[str]:
    """The ids of all checks that a bake makes."""
    from bake.checks import catalogue

    return catalogue.known()


def _check_days(profile: Profile, facts: AccountFacts, findings: Findings) -> None:
    """Warn of waivers that have ended or soon will."""
    today = facts.asked.date()
    for waiver in profile.waivers:
        who = f"the waiver of {waiver.check} by {waiver.approved_by}"
        days = (waiver.until - today).days
        if days < 0:
            what = "a failure of the check" if "." in waiver.check else "the vulnerability"
            findings.warn(f"{who} ended on {waiver.until}: {what} counts again")
        elif waiver.until - today <= ENDS_SOON:
            left = f"in {days} day{'s' if days > 1 else ''}" if days else "today"
            findings.warn(f"{who} ends {left}, on {waiver.until}")


def _digests(own: list[_OwnFile]) -> dict[str, str]:
    """Names and hashes of the contents, the same wherever the profile's folder is."""
    return {one.name: hash_file(one.file) for one in own if one.file.is_file()}
