"""What an image comes from, what points at it here, and who else uses it; without machines."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from moto.core import utils

from bake.errors import UsageError
from bake.localcloud.api import image_usage
from bake.localcloud.api.consistency.schedule import Schedule
from bake.localcloud.api.consistency.settling import Settling
from bake.localcloud.api.ec2 import LocalEc2
from bake.localcloud.settings import ACCOUNT, SPOT_REGION

from .ebs_account import BASE, ELSEWHERE, EbsAccount, copied

pytestmark = pytest.mark.integration

OTHERS = "210987654321"
EC2 = f"arn:aws:ec2:{SPOT_REGION}:{ACCOUNT}:"


@pytest.fixture
def image(ebs: EbsAccount) -> str:
    made = copied(ebs)
    ebs.available(made)
    return made


def test_the_ancestry_goes_back_over_regions_and_images_that_are_gone(ebs: EbsAccount, image: str) -> None:
    there = copied(ebs, ELSEWHERE, SourceImageId=image, Name="there")
    ebs.available(there, ELSEWHERE)
    back = copied(ebs, SourceImageId=there, SourceRegion=ELSEWHERE, Name="back")
    ebs.available(back)
    ebs.call("deregister_image", ELSEWHERE, ImageId=there)
    found = ebs.call("get_image_ancestry", ImageId=back)["ImageAncestryEntries"]
    assert [one["ImageId"] for one in found] == [back, there, image, BASE]
    assert [one.get("SourceImageId") for one in found] == [there, image, BASE, None]
    assert found[0]["SourceImageRegion"] == ELSEWHERE
    assert ebs.refused("get_image_ancestry", ImageId="ami-0123456789abcdef0")[0] == "InvalidAMIID.NotFound"


# --- references --------------------------------------------------------------------------------------


def references(ebs: EbsAccount, *images: str, **asked: Any) -> list[tuple[str, str]]:
    asked = asked or {"IncludeAllResourceTypes": True}
    told = ebs.call("describe_image_references", ImageIds=list(images), **asked)["ImageReferences"]
    return [(one["ResourceType"], one["Arn"].removeprefix(EC2)) for one in told]


def kind(name: str, **options: list[str]) -> dict[str, Any]:
    given = [
        {"OptionName": option.replace("_", "-"), "OptionValues": values} for option, values in options.items()
    ]
    return {"ResourceTypes": [{"ResourceType": name, **({"ResourceTypeOptions": given} if given else {})}]}


def test_instances_templates_and_parameters_are_references(ebs: EbsAccount, image: str) -> None:
    instance, name = ebs.launch(image), f"/{uuid.uuid4().hex}"
    template = template_of(ebs, image)
    ssm = ebs.of("ssm")
    for suffix, more in (("", {"DataType": "aws:ec2:image"}), ("-text", {})):
        ssm.put_parameter(Name=name + suffix, Value=image, Type="String", **more)
    parameter = f"arn:aws:ssm:{SPOT_REGION}:{ACCOUNT}:parameter{name}"
    assert sorted(references(ebs, image)) == [
        ("ec2:Instance", f"instance/{instance}"),
        ("ec2:LaunchTemplate", f"launch-template/{template}"),
        ("ssm:Parameter", parameter),  # of the type of AMIs alone
    ]
    assert references(ebs, image, **kind("ssm:Parameter")) == [("ssm:Parameter", parameter)]
    stopped = kind("ec2:Instance", state_name=["stopped"])
    assert references(ebs, image, **stopped) == []
    assert references(ebs, image, **kind("imagebuilder:ImageRecipe")) == []
    ssm.put_parameter(
        Name=name, Value=BASE, Type="String", DataType="aws:ec2:image", Overwrite=True
    )  # the newest version counts
    assert references(ebs, image, **kind("ssm:Parameter")) == []


def template_of(ebs: EbsAccount, image: str) -> str:
    made = ebs.call(
        "create_launch_template",
        LaunchTemplateName=f"t-{uuid.uuid4().hex}",
        LaunchTemplateData={"ImageId": image},
    )
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def test_ten_versions_of_a_template_are_looked_at_unless_more_are_asked_for(
    ebs: EbsAccount, image: str
) -> None:
    template = template_of(ebs, image)
    for _ in range(10):
        ebs.call(
            "create_launch_template_version", LaunchTemplateId=template, LaunchTemplateData={"ImageId": BASE}
        )
    assert references(ebs, image) == []
    deep = kind("ec2:LaunchTemplate", version_depth=["11"])
    assert references(ebs, image, **deep) == [("ec2:LaunchTemplate", f"launch-template/{template}")]


def test_references_come_in_pages(ebs: EbsAccount, image: str) -> None:
    made = {template_of(ebs, image) for _ in range(7)}
    asked = {"ImageIds": [image], "IncludeAllResourceTypes": True, "MaxResults": 5}
    first = ebs.call("describe_image_references", **asked)
    rest = ebs.call("describe_image_references", **asked, NextToken=first["NextToken"])
    told = [*first["ImageReferences"], *rest["ImageReferences"]]
    assert {one["Arn"].rpartition("/")[2] for one in told} == made


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({}, "MissingParameter"),
        (kind("ec2:Volume"), "InvalidParameterValue"),
        (kind("ec2:Instance", version_depth=["3"]), "InvalidParameterCombination"),
        (kind("ec2:Instance", state_name=["asleep"]), "InvalidParameterValue"),
        (kind("ec2:LaunchTemplate", version_depth=["0"]), "InvalidParameterValue"),
        (kind("ec2:LaunchTemplate", version_depth=["1", "2"]), "InvalidParameterValue"),
        ({"ImageIds": ["ami-0123456789abcdef0"], "IncludeAllResourceTypes": True}, "InvalidAMIID.NotFound"),
    ],
)
def test_references_that_ec2_refuses(ebs: EbsAccount, asked: Any, code: str) -> None:
    assert ebs.refused("describe_image_references", **{"ImageIds": [BASE], **asked})[0] == code


# --- usage by other accounts -------------------------------------------------------------------------

BOTH = [{"ResourceType": "ec2:Instance"}, {"ResourceType": "ec2:LaunchTemplate"}]


def told(image: str, kind: str, count: int) -> None:
    """Tell the cloud of another account's use, as over its control socket."""

    def ask(method: str, path: str, body: bytes | None) -> Any:
        return image_usage.routes()[method, path](SimpleNamespace(get_data=lambda: body))

    image_usage.tell_usage(ask, SPOT_REGION, image, OTHERS, kind, count)


def entries(ebs: EbsAccount, **asked: Any) -> list[tuple[str, str, int]]:
    found = ebs.call("describe_image_usage_report_entries", **asked)["ImageUsageReportEntries"]
    return [(one["AccountId"], one["ResourceType"], one["UsageCount"]) for one in found]


def test_a_report_tells_how_many_resources_of_others_use_an_image(ebs: EbsAccount, image: str) -> None:
    told(image, "ec2:Instance", 2)
    told(image, "ec2:LaunchTemplate", 1)
    tags: Any = [{"ResourceType": "image-usage-report", "Tags": [{"Key": "bake:run", "Value": "r"}]}]
    made = ebs.call("create_image_usage_report", ImageId=image, ResourceTypes=BOTH, TagSpecifications=tags)
    report = made["ReportId"]
    told(image, "ec2:Instance", 9)  # too late for it
    assert entries(ebs, ReportIds=[report]) == [
        (OTHERS, "ec2:Instance", 2),
        (OTHERS, "ec2:LaunchTemplate", 1),
    ]
    filters: Any = [{"Name": "resource-type", "Values": ["ec2:L*"]}]
    assert entries(ebs, ImageIds=[image], Filters=filters) == [(OTHERS, "ec2:LaunchTemplate", 1)]
    [found] = ebs.call("describe_image_usage_reports", ReportIds=[report])["ImageUsageReports"]
    assert (found["State"], found["ImageId"], found["Tags"]) == ("available", image, tags[0]["Tags"])
    assert found["ExpirationTime"] - found["CreationTime"] == timedelta(days=30)
    ebs.call("delete_image_usage_report", ReportId=report)
    refused = ebs.refused("describe_image_usage_reports", ReportIds=[report])
    assert refused[0] == "InvalidImageUsageReportId.NotFound"


def test_a_report_is_of_the_accounts_and_types_that_were_asked_for(ebs: EbsAccount, image: str) -> None:
    told(image, "ec2:Instance", 2)
    for asked, count in (
        ({"AccountIds": [OTHERS], "ResourceTypes": BOTH[:1]}, 1),
        ({"AccountIds": ["111122223333"], "ResourceTypes": BOTH}, 0),
        ({"ResourceTypes": BOTH[1:]}, 0),
    ):
        report = ebs.call("create_image_usage_report", ImageId=image, **asked)["ReportId"]
        assert len(entries(ebs, ReportIds=[report])) == count


def test_a_report_is_pending_at_first_and_gone_after_a_month(ebs: EbsAccount, image: str) -> None:
    told(image, "ec2:Instance", 2)
    late = Settling(Schedule(1), clock=lambda: 0.0)  # whose time stands still
    with mock.patch.object(LocalEc2, "settling", late), mock.patch("random.Random.random", lambda dice: 0.9):
        report = ebs.call("create_image_usage_report", ImageId=image, ResourceTypes=BOTH)["ReportId"]
        [found] = ebs.call("describe_image_usage_reports", ReportIds=[report])["ImageUsageReports"]
        assert (found["State"], entries(ebs, ReportIds=[report])) == ("pending", [])
    month = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=30, minutes=1)
    with mock.patch.object(utils, "utcnow", lambda: month):
        assert ebs.call("describe_image_usage_reports", ImageIds=[image])["ImageUsageReports"] == []


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"ResourceTypes": [{"ResourceType": "ec2:Volume"}]}, id="type"),
        pytest.param({"ResourceTypes": BOTH, "AccountIds": ["me"]}, id="account"),
        pytest.param(
            {
                "ResourceTypes": BOTH,
                "TagSpecifications": [{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "b"}]}],
            },
            id="tags",
        ),
    ],
)
def test_a_report_that_ec2_refuses(ebs: EbsAccount, image: str, asked: Any) -> None:
    assert ebs.refused("create_image_usage_report", ImageId=image, **asked)[0] == "InvalidParameterValue"


@pytest.mark.parametrize(
    "changes",
    [
        {"count": "x"},
        {"account": ACCOUNT},
        {"resource_type": "ec2:Volume"},
    ],
)
def test_the_cloud_is_told_of_others_alone(changes: Any) -> None:
    said = {"region": SPOT_REGION, "image": BASE, "account": OTHERS, "resource_type": "ec2:Instance"}
    body = json.dumps({**said, "count": 1, **changes}).encode()
    route: Any = image_usage.routes()["POST", image_usage.ROUTE]
    with pytest.raises(UsageError, match="usage is"):
        route(SimpleNamespace(get_data=lambda: body))
