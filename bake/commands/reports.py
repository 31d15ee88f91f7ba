"""Find the report that a person means: of a run, of an AMI, or in a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bake.errors import BakeError, UsageError

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

    from bake.aws import Aws
    from bake.report.model import Report

AMI = re.compile(r"ami-[0-9a-f]{8,17}")
KNOWN, COMPLETED = 5, 50  # newest runs that a message names, and that a shell completes


@dataclass(frozen=True)
class Found:
    """A report, and the directory with its pictures."""

    report: Report
    directory: Path


@dataclass
class Reports:
    """The reports of `--runs`, and those of AMIs that are elsewhere; AWS is asked for these alone."""

    obj: dict[str, Any]
    stack: ExitStack
    profile: str | None = None
    rehearsal: bool = False

    @property
    def runs(self) -> Path:
        found: Path = self.obj["runs"]
        return found

    @property
    def fetched(self) -> Path:
        """Where reports of other machines are kept, beside the runs of this one."""
        return self.runs.parent / "reports"

    @cached_property
    def aws(self) -> Aws:
        """The account; a rehearsal's is the local cloud."""
        from bake.commands import account

        cloud = account.local_cloud(self.stack) if self.rehearsal else None
        local = cloud.environment if cloud else {}
        if self.profile:
            return account.clients_of(cloud, account.profile_of(self.obj, self.profile, local))
        return account.clients(cloud, *account.regions(self.obj, None, local))

    def find(self, name: str | None) -> Found:
        """The report of a run, an AMI, a directory or a file; without a name, of the newest run."""
        from bake.report.kept import directories, read

        if name is None:
            newest = next(iter(directories(self.runs)), None)
            if newest is None:
                raise UsageError(
                    f"there is no run in {self.runs}", hint="--runs DIRECTORY names another place"
                )
            return self._of_run(newest)
        if AMI.fullmatch(name):
            return self.of_image(name)
        if name and "/" not in name and (self.runs / name).is_dir():
            return self._of_run(self.runs / name)
        path = Path(name)
        if path.is_file():
            return Found(read(path), path.parent)
        if name and path.is_dir():
            return self._of_run(path)
        known = ", ".join(one.name for one in directories(self.runs)[:KNOWN]) or "none"
        raise UsageError(
            f"there is no run, AMI or report {name!r}", hint=f"the newest runs in {self.runs} are: {known}"
        )

    def _of_run(self, directory: Path) -> Found:
        """Of a run that goes on or was cut, a report as far as it came is made now."""
        from bake.journal import Record
        from bake.report.kept import REPORT, read

        record = Record.read(directory)
        if (record is not None and not record.ended) or not (directory / REPORT).is_file():
            write(directory)
        return Found(read(directory), directory)

    def of_image(self, image: str) -> Found:
        """The newest report of an AMI that says what is on it; raises BakeError where there is none."""
        found = self.local(image)
        if found is None:
            found = self._of_tags(image)
        if found is None:
            raise BakeError(
                f"there is no report of {image}: no run in {self.runs} made it, and its tags name none",
                hint="--runs DIRECTORY, or the profile's reports: s3://… for the bakes to come",
            )
        return found

    def local(self, image: str) -> Found | None:
        """The report of an AMI that a run on this machine made."""
        from bake.report.kept import read

        known = []
        for directory in self._by_image.get(image, ()):
            with suppress(UsageError):  # of another version
                known.append(Found(read(directory), directory))
        telling = (one for one in known if one.report.inventories)
        return next(telling, next(iter(known), None))

    @cached_property
    def _by_image(self) -> dict[str, list[Path]]:
        from bake.report.kept import by_image

        return by_image(self.runs)

    def _of_tags(self, image: str) -> Found | None:
        from bake.image import describe_image

        facts = describe_image(self.aws, image, disabled=True)
        if facts is None:
            raise BakeError(
                f"there is no {image} in {self.aws.region}, and no run in {self.runs} made it",
                hint="--profile NAME looks in the region of that profile",
            )
        return self.of_tags(facts.get("Tags"))

    def of_tags(self, tags: Any) -> Found | None:
        """The report that an AMI's tags name, fetched and held against the hash in them; None if none."""
        from bake.creation import tag_of
        from bake.report.places import REPORT_TAG, SHA256_TAG, download

        url, sha256 = tag_of(tags, REPORT_TAG), tag_of(tags, SHA256_TAG)
        if not url or not re.fullmatch(r"[0-9a-f]{64}", sha256):
            return None
        directory = self.fetched / sha256[:16]
        return Found(download(self.aws, url, sha256, directory), directory)


def write(directory: Path) -> None:
    """Make the report of a run directory, as far as the run has come."""
    from importlib import import_module

    writing: Any = import_module("bake.report.writing")
    writing.write(directory)


def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Runs, and the AMIs that they made, newest first."""
    from click.shell_completion import CompletionItem

    runs = (context.find_root().params.get("runs")) or Path(".bake/runs")
    return [
        CompletionItem(name, help=about) for name, about in _names(Path(runs)) if name.startswith(incomplete)
    ]


def _names(runs: Path) -> Iterator[tuple[str, str]]:
    """What a report may be called, by files that are quick to read."""
    import json

    from bake.report.kept import REPORT, directories

    for directory in directories(runs)[:COMPLETED]:
        yield directory.name, "run"
        try:
            image = json.loads((directory / REPORT).read_bytes())["image"]
            if image:
                yield str(image["id"]), f"AMI of run {directory.name}"
        except (OSError, ValueError, KeyError, TypeError):
            continue
