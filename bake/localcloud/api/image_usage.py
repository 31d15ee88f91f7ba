"""Reports of who else uses an image: other accounts' instances and launch templates, by their number.

The local cloud has one account. What others have is told to it: by `ImageUsage.used_elsewhere`, or by
`tell_usage`, over the control socket. https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/your-ec2-ami-usage.html
"""

from __future__ import annotations

import fnmatch
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar

from moto.core import utils
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend, ec2_backends

from bake.errors import UsageError
from bake.localcloud.api import response_layer
from bake.localcloud.api.consistency.settling import REPORT, Settling
from bake.localcloud.api.image_relations import options_of
from bake.localcloud.api.parameters import invalid
from bake.localcloud.network.control import Ask, Routes
from bake.localcloud.settings import ACCOUNT

ROUTE = "/-/image-usage"
_KINDS = ("ec2:Instance", "ec2:LaunchTemplate")
_KNOWN = (*_KINDS, "imagebuilder:ImageRecipe", "imagebuilder:ContainerRecipe")
_TAGGED = "image-usage-report"
_LASTS = timedelta(days=30)


@dataclass
class Report:
    """A report, which stays as it was when it was made."""

    id: str
    image: str
    kinds: list[Any]
    accounts: list[str]
    entries: list[dict[str, Any]]
    made: datetime = field(default_factory=utils.utcnow)


class ImageUsage(EC2Backend):  # type: ignore[misc]
    """The usage of a region's images by other accounts, for its backend."""

    settling: ClassVar[Settling]
    usage_reports: dict[str, Report]
    used_elsewhere: dict[tuple[str, str, str], int]
    """How many resources use an image: by the image, the other account, and the resource type."""

    def report_usage(self, ami_id: str, kinds: list[Any], accounts: list[str]) -> Report:
        """Make a report of an image of the account's own, which is `pending` for a while."""
        self.own_image(ami_id)
        for one in kinds:
            kind = str(one.get("ResourceType"))
            if kind not in _KNOWN:
                raise invalid(kind, "resourceType")
            options_of(kind, one.get("ResourceTypeOptions") or [])
        for account in accounts:
            if not re.fullmatch(r"[0-9]{12}", account):
                raise invalid(account, "accountId", "Expecting an account's 12 digits.")
        asked = {one.get("ResourceType") for one in kinds}
        entries = [
            {"AccountId": account, "ResourceType": kind, "UsageCount": count}
            for (image, account, kind), count in sorted(self.used_elsewhere.items())
            if image == ami_id and kind in asked and count and account in (accounts or [account])
        ]
        report = Report(f"amiur-{secrets.token_hex(9)[:17]}", ami_id, kinds, accounts, entries)
        self.usage_reports[report.id] = report
        self.settling.begin(REPORT, report.id)
        self.settling.left(REPORT, report.id)
        return report

    def reports(self, ids: list[str], images: list[str]) -> Iterator[Report]:
        """The reports that are not too old, of these ids and images; EC2ClientError for an unknown id."""
        now = utils.utcnow()
        living = {one.id: one for one in list(self.usage_reports.values()) if now < one.made + _LASTS}
        for identity in ids:
            if identity not in living:
                raise _unknown(identity)
        for report in living.values():
            if (not ids or report.id in ids) and (not images or report.image in images):
                yield report

    def delete_report(self, identity: str) -> None:
        """Delete a report; EC2ClientError where there is none."""
        list(self.reports([identity], []))
        del self.usage_reports[identity]

    def state_of(self, report: Report) -> str:
        """`pending`, or `available`."""
        return "pending" if self.settling.left(REPORT, report.id) else "available"


def _unknown(identity: str) -> EC2ClientError:
    return EC2ClientError(
        "InvalidImageUsageReportId.NotFound", f"The image usage report '{identity[:60]}' does not exist"
    )


def _matches(get: Any, told: Mapping[str, str]) -> bool:
    """Whether what is told fits the filters of a call."""
    return all(
        any(fnmatch.fnmatchcase(told.get(one.get("Name"), ""), value) for value in one.get("Values", []))
        for one in get("Filters", [])
    )


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def _create(backend: Any, get: Any) -> dict[str, Any]:
    tags: dict[str, str] = {}
    for one in get("TagSpecifications", []):
        if one.get("ResourceType") != _TAGGED:
            raise invalid(str(one.get("ResourceType")), "tagSpecification.resourceType")
        tags |= {tag["Key"]: tag.get("Value", "") for tag in one.get("Tags", [])}
    report = backend.report_usage(get("ImageId"), get("ResourceTypes", []), get("AccountIds", []))
    backend.tags[report.id].update(tags)
    return {"ReportId": report.id}


def _describe(backend: Any, get: Any) -> dict[str, Any]:
    found = []
    for report in backend.reports(get("ReportIds", []), get("ImageIds", [])):
        state = backend.state_of(report)
        if _matches(get, {"creation-time": _stamp(report.made), "state": state}):
            found.append(
                {
                    "ImageId": report.image,
                    "ReportId": report.id,
                    "ResourceTypes": report.kinds,
                    "AccountIds": report.accounts,
                    "State": state,
                    "CreationTime": report.made,
                    "ExpirationTime": report.made + _LASTS,
                    "Tags": [{"Key": key, "Value": value} for key, value in backend.tags[report.id].items()],
                }
            )
    return {"ImageUsageReports": found}


def _entries(backend: Any, get: Any) -> dict[str, Any]:
    """What is in the reports that are there to be viewed."""
    found = []
    for report in backend.reports(get("ReportIds", []), get("ImageIds", [])):
        for one in report.entries if backend.state_of(report) == "available" else ():
            told = {
                "account-id": one["AccountId"],
                "creation-time": _stamp(report.made),
                "resource-type": one["ResourceType"],
            }
            if _matches(get, told):
                found.append(
                    {
                        **one,
                        "ReportId": report.id,
                        "ImageId": report.image,
                        "ReportCreationTime": report.made,
                    }
                )
    return {"ImageUsageReportEntries": found}


def install() -> None:
    """Give moto's response layer the calls; to be called before the first request."""
    response_layer.install(
        {
            "create_image_usage_report": _create,
            "describe_image_usage_reports": _describe,
            "describe_image_usage_report_entries": _entries,
            "delete_image_usage_report": lambda backend, get: response_layer.done(
                backend.delete_report(get("ReportId"))
            ),
        }
    )


def routes() -> Routes:
    """The route that tells the cloud what other accounts have of an image."""

    def told(request: Any) -> dict[str, int]:
        region, image, account, kind, count = _read(request.get_data())
        used = ec2_backends[ACCOUNT][region].used_elsewhere
        used[image, account, kind] = count
        return {"count": count}

    return {("POST", ROUTE): told}


def tell_usage(ask: Ask, region: str, image: str, account: str, kind: str, count: int) -> None:
    """Say that another account has so many `ec2:Instance`s or `ec2:LaunchTemplate`s of an image."""
    said = {"region": region, "image": image, "account": account, "resource_type": kind, "count": count}
    ask("POST", ROUTE, json.dumps(said).encode())


def _read(body: bytes) -> tuple[str, str, str, str, int]:
    try:
        said = json.loads(body)
        read = (said["region"], said["image"], said["account"], said["resource_type"], int(said["count"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError("usage is region, image, account, resource_type and count") from error
    if read[3] not in _KINDS or read[2] == ACCOUNT:
        raise UsageError(f"usage is by another account than {ACCOUNT}, of {' or '.join(_KINDS)}")
    return read
