"""A rollout under just the policy that `bake iam --for rollout` prints, each statement of which it needs."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from bake import iam, profile
from bake.aws import AccessKey, Aws, ClientError
from bake.iam import Statement, Subject
from bake.localcloud.api.access import callers
from bake.localcloud.settings import ACCOUNT, SPOT_REGION
from bake.profile.channels import Channel as ChannelSection
from bake.rollout import refreshes
from bake.rollout.plan import plan
from bake.rollout.preferences import ROLLING, Preferences
from tests.bake.iam import profiles
from tests.localcloud.ebs_account import ELSEWHERE, EbsAccount

from .fleet import Fleet

pytestmark = pytest.mark.integration
SIDS = (
    *("LookAtTheFleet", "ReadTheChannels", "Refresh"),
    *("LaunchByTheTemplates", "TagWhatIsLaunched", "HandOverTheWorkersRole"),
)


class Case:
    """A fleet whose template hands a role over and gives tags, and whoever has some of the statements."""

    def __init__(self, account: EbsAccount) -> None:
        self.fleet = Fleet(account)
        self.role = self._role(account)
        tags = [{"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "ours"}]}]
        profile_of_it = {"IamInstanceProfile": {"Name": self.fleet.name}}
        self.fleet.version(default=True, TagSpecifications=tags, **profile_of_it)
        self.fleet.group().served()

    def _role(self, account: EbsAccount) -> str:
        of_iam, name = account.of("iam"), self.fleet.name
        trust = '{"Version": "2012-10-17", "Statement": []}'
        made = of_iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        of_iam.create_instance_profile(InstanceProfileName=name)
        of_iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        return str(made)

    def statements(self, group: str = "") -> tuple[Statement, ...]:
        found = profile.load(
            "g6e-ubuntu", profiles.ROOT / "profiles", {**profiles.VARIABLES, **profiles.GIVEN}
        )
        channel = self.fleet.channel
        section = ChannelSection(parameter=channel.parameter, launch_template=channel.template)
        changed = found.model_copy(update={"channels": {"stable": section}})
        subject = Subject.of(changed, ACCOUNT, role=self.role, groups=(group or self.fleet.name,))
        return iam.statements("rollout", subject)

    def clients(self, statements: tuple[Statement, ...]) -> Aws:
        name = f"roller-{secrets.token_hex(4)}"
        callers.put_role(name, [iam.document(statements)])
        key = self.fleet.account.keys.of_caller(name)
        return Aws(
            region=SPOT_REGION,
            worker_region=ELSEWHERE,
            endpoint=self.fleet.account.url,
            endpoint_key=AccessKey(key.id, key.secret, key.token),
        )

    def walk(self, aws: Aws) -> None:
        """Plan a refresh, start it, roll it back, and cancel another one."""
        fleet = self.fleet
        asked = Preferences(bake_time=3600)
        for end in (refreshes.roll_back, refreshes.cancel):
            found = plan(aws, fleet.channel, fleet.name, fleet.venue, asked, ROLLING)
            refreshes.start(aws, found.request)
            refreshes.follow(aws, fleet.name, end(aws, fleet.name), lambda _: None)
        assert fleet.status() == "Cancelled"


@pytest.fixture
def case(account: EbsAccount) -> Case:
    return Case(account)


def test_all_of_it_goes_with_the_rights_of_the_policy(case: Case) -> None:
    case.walk(case.clients(case.statements()))


def test_another_group_is_denied(case: Case) -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        case.walk(case.clients(case.statements("somebody-elses")))


@pytest.mark.parametrize("sid", SIDS)
def test_without_any_of_its_statements_it_does_not(case: Case, sid: str) -> None:
    statements = case.statements()
    assert {one.sid for one in statements} == set(SIDS)
    with pytest.raises(ClientError) as error:
        case.walk(case.clients(tuple(one for one in statements if one.sid != sid)))
    code: Any = error.value.response["Error"]["Code"]
    assert code in ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException"), code
    assert case.fleet.refreshes() == []
