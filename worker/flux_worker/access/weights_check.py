"""Check that the weights in the bucket of FLUX_STREAM may be read, and that all of them are there."""

from __future__ import annotations

from ..aws.clients import Clients
from ..aws.errors import DENIED, describe, error_code
from ..inference.streaming.bucket import Place
from ..inference.streaming.manifest import Manifest, ManifestUnusable
from ..jobs.queue import AWS_ERRORS
from ..jobs.results import ABSENT
from ..settings import AwsSettings
from .report import Finding, Report


def look_at_weights(settings: AwsSettings, clients: Clients, report: Report) -> None:
    """Ask for each file of the image's manifest. Whatever is wrong only makes starts slower."""
    if settings.stream is None:
        return
    place = Place.of(settings.stream)
    try:
        manifest = Manifest.read(settings.stream_ranges)
    except ManifestUnusable as error:
        why = f"not looked at, and the volume alone is read: {error}"
        report.say(f"the weights in {place}", "note", why)
        return
    lacking = []
    for name, file in manifest.files.items():
        try:
            clients.s3.head_object(Bucket=place.bucket, Key=place.key(file.sha256))
        except AWS_ERRORS as error:
            if error_code(error) not in ABSENT:
                report.findings.append(_unreadable(error, place, report))
                return
            lacking.append(name)
    _tell(place, len(manifest.files), lacking, report)


def _unreadable(error: Exception, place: Place, report: Report) -> Finding:
    arn = f"arn:{report.identity.partition}:s3:::{place.bucket}/{place.key('*')}"
    if error_code(error) in DENIED:
        why = f"weights in {place} are missing or may not be read, and the volume alone is read"
        return Finding("s3:GetObject", arn, "missing", why, optional=True)
    return Finding(f"the weights in {place}", "", "untold", describe(error), optional=True, grant=False)


def _tell(place: Place, files: int, lacking: list[str], report: Report) -> None:
    if lacking:
        why = f"{', '.join(lacking)} are not there, and come from the volume alone"
        report.say(f"the weights in {place}", "note", why)
    else:
        report.say(f"the weights in {place}", "holds", f"all {files} files are there")
