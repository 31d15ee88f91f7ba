"""Channels under just the policy that `bake iam --for promoter` prints, each statement of which they need."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from bake import iam, profile
from bake.aws import AccessKey, Aws, ClientError
from bake.iam import Statement, Subject
from bake.localcloud.api.access import callers
from bake.localcloud.settings import ACCOUNT, SPOT_REGION
from bake.profile.channels import Channel as ChannelSection
from bake.publish import places, rollback
from bake.publish.channels import channel_of
from bake.publish.promote import promote
from bake.publish.revoke import revoke
from bake.publish.standing import look
from tests.bake.iam import profiles
from tests.localcloud.ebs_account import ELSEWHERE, EbsAccount, ebs_account

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def ebs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EbsAccount]:
    with ebs_account(tmp_path_factory.mktemp("ebs")) as account:
        yield account


class Case:
    """A profile with a channel, AMIs of it, and whoever has some of the policy's statements."""

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
        section = ChannelSection(parameter=f"/flux/{secrets.token_hex(4)}", launch_template=template)
        self.profile = found.model_copy(update={"channels": {"stable": section}})
        self.channel = channel_of(self.profile, "stable")
        self.said: list[str] = []

    def image(self) -> str:
        tags = {"bake:profile": self.profile.name, "bake:run": "r", "bake:state": "good"}
        listed = [{"Key": key, "Value": value} for key, value in {**tags, "bake:venue": "REHEARSAL"}.items()]
        volume = self.account.volume(Size=1)
        given = [{"ResourceType": "snapshot", "Tags": listed}]
        snapshot = self.account.snapshot(volume, TagSpecifications=given)
        return str(
            self.account.call(
                "register_image",
                Name=f"flux-{secrets.token_hex(4)}",
                RootDeviceName="/dev/sda1",
                BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}],
                TagSpecifications=[{"ResourceType": "image", "Tags": listed}],
            )["ImageId"]
        )

    def statements(self) -> tuple[Statement, ...]:
        return iam.statements("promoter", Subject.of(self.profile, ACCOUNT))

    def clients(self, statements: tuple[Statement, ...]) -> Aws:
        name = f"promoter-{secrets.token_hex(4)}"
        callers.put_role(name, [iam.document(statements)])
        key = self.account.keys.of_caller(name)
        return Aws(
            region=SPOT_REGION,
            worker_region=ELSEWHERE,
            endpoint=self.account.url,
            endpoint_key=AccessKey(key.id, key.secret, key.token),
        )

    def serve(self, aws: Aws, image: str) -> None:
        found = places.find(aws, image)
        promote(self.channel, found, "a test", "REHEARSAL", secrets.token_hex(4), self.said.append)

    def walk(self, aws: Aws) -> None:
        """Promote two, go back to the first, and revoke the second."""
        first, second = self.image(), self.image()
        for image in (first, second):
            self.serve(aws, image)
        assert rollback.choose(aws, self.channel, "REHEARSAL").image == first
        self.serve(aws, first)
        assert look(aws, self.channel, "REHEARSAL").faults == ()
        [done] = revoke(places.find(aws, second), "a test", [self.channel], self.said.append)
        assert done.did == ("marked", "disabled")


@pytest.fixture
def case(ebs: EbsAccount) -> Case:
    return Case(ebs)


def test_all_of_it_goes_with_the_rights_of_the_policy(case: Case) -> None:
    case.walk(case.clients(case.statements()))


SIDS = ("Look", "Serve", "Lock", "FollowWithTheTemplate", "FindParameters", "MarkRevoked", "Disable")


@pytest.mark.parametrize("sid", SIDS)
def test_without_any_of_its_statements_it_does_not(case: Case, sid: str) -> None:
    statements = case.statements()
    assert {one.sid for one in statements} == set(SIDS)
    with pytest.raises(ClientError) as error:
        case.walk(case.clients(tuple(one for one in statements if one.sid != sid)))
    code: Any = error.value.response["Error"]["Code"]
    assert code in ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException"), code
