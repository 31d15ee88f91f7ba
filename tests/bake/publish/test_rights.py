"""Publishing under just the policy that `bake iam` prints, each statement of which it needs."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from bake import iam, profile
from bake.aws import AccessKey, Aws
from bake.iam import Statement, Subject
from bake.image import describe_image, image_of
from bake.localcloud.api.access import callers
from bake.localcloud.settings import ACCOUNT, SPOT_REGION
from bake.planning.parts import wanted_of
from bake.profile.publishing import Publish
from bake.publish.publishing import Publishing
from bake.publish.wanted import Published
from tests.bake.iam import profiles
from tests.localcloud.ebs_account import ELSEWHERE, EbsAccount, ebs_account

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def ebs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EbsAccount]:
    with ebs_account(tmp_path_factory.mktemp("ebs")) as account:
        yield account


def tagged(subject: Subject) -> Any:
    tags = {"bake:profile": subject.profile.name, "bake:run": "a-run", "bake:state": "good"}
    return [{"Key": key, "Value": value} for key, value in tags.items()]


class Case:
    """A profile that publishes everything, an AMI of it, and whoever has some of its statements."""

    def __init__(self, account: EbsAccount) -> None:
        self.account = account
        template = account.call(
            "create_launch_template",
            LaunchTemplateName=f"workers-{secrets.token_hex(4)}",
            LaunchTemplateData={"InstanceType": "g6e.xlarge"},
        )["LaunchTemplate"]["LaunchTemplateId"]
        found = profile.load(
            "g6e-ubuntu", profiles.ROOT / "profiles", {**profiles.VARIABLES, **profiles.GIVEN}
        )
        publish = Publish(
            regions=(ELSEWHERE,),
            kms_keys=(account.key(ELSEWHERE),),
            parameter=f"/flux/{secrets.token_hex(4)}",
            launch_template=template,
            deprecate_after=timedelta(days=30),
            protect=True,
            watermark="verified",
            enforce_instance_types=True,
        )
        image = found.image.model_copy(update={"share_with": ("210987654321",)})
        self.profile = found.model_copy(update={"publish": publish, "image": image})
        self.subject = Subject.of(self.profile, ACCOUNT, role=profiles.ROLE)

    def image(self) -> str:
        volume = self.account.volume(Size=1)
        tags = tagged(self.subject)
        specification = [{"ResourceType": "snapshot", "Tags": tags}]
        snapshot = self.account.snapshot(volume, TagSpecifications=specification)
        return str(
            self.account.call(
                "register_image",
                Name=f"flux-{secrets.token_hex(4)}",
                RootDeviceName="/dev/sda1",
                BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}],
                TagSpecifications=[{"ResourceType": "image", "Tags": tags}],
            )["ImageId"]
        )

    def publish(self, statements: tuple[Statement, ...], image: str) -> list[Published]:
        name = f"caller-{secrets.token_hex(4)}"
        callers.put_role(name, [iam.document(statements)])
        key = self.account.keys.of_caller(name)
        aws = Aws(
            region=SPOT_REGION,
            worker_region=ELSEWHERE,
            endpoint=self.account.url,
            endpoint_key=AccessKey(key.id, key.secret, key.token),
        )
        facts = describe_image(aws, image)
        assert facts is not None
        accounts = self.profile.image.share_with
        made = Publishing(
            aws, image_of(facts), wanted_of(self.profile), self.profile.name, accounts, secrets.token_hex(4)
        )
        return list(made.all())


@pytest.fixture
def case(ebs: EbsAccount) -> Case:
    return Case(ebs)


def test_all_is_published_with_the_rights_of_the_policy(case: Case) -> None:
    rows = case.publish(iam.statements("caller", case.subject), case.image())
    assert [row for row in rows if row.state == "failed"] == []
    assert len(rows) == 12  # four marks and a parameter here and there, the copy, and the template


@pytest.mark.parametrize(
    ("sid", "missing"),
    [
        ("CopyWithTags", {"copy"}),
        ("TagCopies", {"copy"}),
        ("MarkCopies", {"copy"}),
        ("UseAndRemoveCopies", {"copy"}),
        ("UseTheCopiesKeys", {"copy"}),
        ("LendTheCopiesKeys", {"copy"}),
        ("MarkImages", {"deprecation", "deregistration protection", "watermark", "instance types"}),
        ("PublishTheParameter", {"SSM parameter"}),
        ("LookAtTheTemplate", {"launch template"}),
        ("MakeTheTemplatesVersion", {"launch template"}),
    ],
)
def test_without_a_statement_its_part_is_missing(case: Case, sid: str, missing: set[str]) -> None:
    found = iam.statements("caller", case.subject)
    less = tuple(one for one in found if one.sid != sid)
    assert len(less) == len(found) - 1
    rows = case.publish(less, case.image())
    assert {row.what for row in rows if row.state == "failed"} == missing


def test_another_profiles_ami_is_not_touched(case: Case) -> None:
    image = case.image()
    case.account.call(
        "create_tags", Resources=[image], Tags=[{"Key": "bake:profile", "Value": "somebody-elses"}]
    )
    rows = case.publish(iam.statements("caller", case.subject), image)
    refused = {row.what for row in rows if row.state == "failed"}
    assert refused >= {"copy", "deregistration protection", "watermark", "instance types"}
