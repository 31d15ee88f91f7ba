"""Keep reports in S3, and fetch them back by what an AMI's tags say.

The tags name the folder of a report and the SHA-256 of its report.json. Whoever may write to the bucket can
change what lies there, but not what the AMI says: only what has that hash is taken for the report, and only
pictures with the hashes that it names.
"""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bake.aws import ClientError, error_code
from bake.errors import BakeError, UsageError
from bake.report.kept import REPORT, parse

if TYPE_CHECKING:
    from bake.aws import Aws
    from bake.report.model import Report

REPORT_TAG = "bake:report"
"""Tag of an AMI: `s3://BUCKET/PREFIX/PROFILE/RUN`."""
SHA256_TAG = "bake:report-sha256"
"""Tag of an AMI: the SHA-256 of that report.json."""
SUMS = "SHA256SUMS"
# What says nothing about the image: what was sent to the builder, and what a resumed run reads.
LEFT_OUT = re.compile(r"wheels/.*|resume\.jsonl|lock")
ABSENT = ("NoSuchKey", "404", "NoSuchBucket")


@dataclass(frozen=True)
class Place:
    """A bucket and a folder in it."""

    bucket: str
    prefix: str

    @classmethod
    def of(cls, url: str) -> Place:
        """Read `s3://BUCKET/PREFIX`; raises UsageError for anything else."""
        found = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*?))?/*", url)
        if not found:
            raise UsageError(f"{url!r} is no place in S3", hint="it looks like s3://BUCKET/PREFIX")
        return cls(found[1], found[2] or "")

    def __truediv__(self, name: str) -> Place:
        return Place(self.bucket, f"{self.prefix}/{name}".lstrip("/"))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


def upload(aws: Aws, directory: Path, place: str) -> tuple[str, str]:
    """Copy a run's report to `place`/PROFILE/RUN; return that folder's URL and the hash of report.json.

    What SHA256SUMS lists goes there without the wheels; report.json last, so that a folder which has it is
    whole. S3 encrypts every object, by the key that the bucket's owner chose: a key named here would overrule
    that. Raises BakeError where a file is not what SHA256SUMS says, and what S3 answers.
    """
    report = parse((directory / REPORT).read_bytes(), directory / REPORT)
    folder = Place.of(place) / report.run.profile / report.run.id
    digests = dict(_listed(directory))
    for name in sorted(digests, key=lambda name: (name == REPORT, name)):
        content = (directory / name).read_bytes()
        if digests[name] not in ("", hashlib.sha256(content).hexdigest()):
            raise BakeError(f"{directory / name} is not what {SUMS} says", hint="bake report makes it anew")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        where = folder / name
        aws.s3.put_object(Bucket=where.bucket, Key=where.prefix, Body=content, ContentType=kind)
    return str(folder), digests[REPORT]


def _listed(directory: Path) -> Iterator[tuple[str, str]]:
    """Name and hash of each file of a report; of the list itself no hash."""
    yield SUMS, ""
    for line in (directory / SUMS).read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        digest, _, name = line.partition("  ")
        # A backslash before the hash says that the name is escaped: no file of a report has such a name.
        if name and not digest.startswith("\\") and not LEFT_OUT.fullmatch(name):
            yield name, digest


def download(aws: Aws, url: str, sha256: str, directory: Path) -> Report:
    """Fetch a report and its pictures into `directory`, unless they are there.

    Raises BakeError where there is none, or not the one with this hash: nothing of another one is kept.
    """
    folder, file = Place.of(url), directory / REPORT
    if file.is_file() and _digest(content := file.read_bytes()) == sha256:
        return parse(content, file)
    content = _get(aws, folder / REPORT)
    if _digest(content) != sha256:
        raise BakeError(
            f"{folder / REPORT} is not the report that the AMI's tags name: its hash is {_digest(content)}",
            hint="somebody has changed one of the two",
        )
    report = parse(content, folder / REPORT)
    directory.mkdir(parents=True, exist_ok=True)
    for picture in report.pictures:
        name = PurePosixPath(picture.file)
        if name.is_absolute() or ".." in name.parts:
            raise BakeError(f"{folder / REPORT} names a picture outside of its folder: {picture.file!r}")
        _fetch_picture(aws, folder / picture.file, picture.sha256, directory / name)
    file.write_bytes(content)
    return report


def optional(aws: Aws, url: str, name: str) -> bytes | None:
    """A file in the folder of a report, as it lies there: nobody vouches for it. None if there is none."""
    try:
        return _get(aws, Place.of(url) / name)
    except BakeError:
        return None


def _fetch_picture(aws: Aws, place: Place, sha256: str, file: Path) -> None:
    """A picture that is not there is missing on the page, too; another one would be a lie."""
    try:
        content = _get(aws, place)
    except BakeError:
        return
    if _digest(content) != sha256:
        raise BakeError(f"{place} is not the picture of the report: its SHA-256 is {_digest(content)}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def _get(aws: Aws, place: Place) -> bytes:
    try:
        return aws.s3.get_object(Bucket=place.bucket, Key=place.prefix)["Body"].read()
    except ClientError as error:
        if error_code(error) in ABSENT:
            raise BakeError(
                f"there is no {place}", hint="it was removed, or lies in another account"
            ) from error
        raise


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
