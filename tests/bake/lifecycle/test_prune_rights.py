"""The policy of whoever prunes is enough for all that prune does, and for nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bake import iam
from bake.aws import AccessKey, Aws
from bake.lifecycle.prune import preview, prune
from bake.lifecycle.retention import Rule
from bake.localcloud.api.access import callers
from bake.localcloud.api.access.policies import Authoriser, NeedLog
from bake.localcloud.api.endpoint import Api
from bake.localcloud.api.faults.faults import AwsFaults
from bake.localcloud.api.security_groups import Groups
from bake.localcloud.network.server import serve
from bake.localcloud.settings import ACCOUNT, SPOT_REGION
from tests.bake.lifecycle.kept_images import OTHERS, Kept, new
from tests.localcloud.conftest import ebs, ebs_served
from tests.localcloud.ebs_account import ELSEWHERE, EbsAccount

__all__ = ["ebs", "ebs_served"]
pytestmark = pytest.mark.integration
REGIONS = SPOT_REGION, ELSEWHERE
STATEMENTS = iam.of_prune(iam.Account(ACCOUNT, SPOT_REGION, SPOT_REGION, copied=REGIONS))


@dataclass
class Pruner:
    """A caller with this policy alone: its clients, and what it needed."""

    clouds: dict[str, Aws]
    log: NeedLog

    @property
    def needed(self) -> set[str]:
        return {one["action"] for one in self.log.listed()}

    @property
    def denied(self) -> list[object]:
        return [one for one in self.log.listed() if not one["allowed"]]


@pytest.fixture
def kept(ebs: EbsAccount) -> Iterator[Kept]:
    made = Kept(ebs)
    yield made
    made.clean()


@pytest.fixture
def pruner(ebs: EbsAccount) -> Iterator[Pruner]:
    log, name = NeedLog(), new("pruner")
    groups = Groups(ebs.instances, apply=lambda openings: None)
    api = Api(ebs.instances, groups, AwsFaults(), ebs.keys, Authoriser(record=log.add))
    server = serve("127.0.0.1", 0, api, "AWS")
    callers.put_role(name, [iam.document(STATEMENTS)])
    session = ebs.keys.of_caller(name)
    key, url = AccessKey(session.id, session.secret, session.token), f"http://127.0.0.1:{server.server_port}"
    yield Pruner(
        {one: Aws(region=one, worker_region=one, endpoint=url, endpoint_key=key) for one in REGIONS}, log
    )
    server.shutdown()


def test_everything_that_prune_does_is_allowed_and_everything_allowed_is_done(
    kept: Kept, pruner: Pruner
) -> None:
    old = kept.bake()
    there = kept.copy(old)
    kept.bake()
    kept.parameter("some text")
    kept.template(f"resolve:ssm:{kept.parameter('more text')}")
    kept.share(old, OTHERS)
    kept.aws.ec2.enable_image_deregistration_protection(ImageId=old, WithCooldown=False)
    scope = kept.scope(Rule(1, 1, frozenset({OTHERS}), protect=True), clouds=pruner.clouds)
    seen = preview(scope, prices=False)
    assert (seen.unanswered, {one.held.id for one in seen.going}) == ({}, {old, there})
    done = prune(scope, seen)
    assert (done.leaks, done.unanswered) == ([], {})
    assert {one.id for one in done.removed} == {old, there}
    assert pruner.denied == []
    granted = {action for one in STATEMENTS for action in one.actions}
    assert granted - pruner.needed == {"pricing:GetProducts"}  # prices were not asked for


def test_what_has_no_runs_tag_is_denied_to_it(kept: Kept, pruner: Pruner) -> None:
    others = kept.bake(**{"bake:run": None})
    with pytest.raises(Exception, match="UnauthorizedOperation"):
        pruner.clouds[SPOT_REGION].ec2.deregister_image(ImageId=others)
    assert [one["action"] for one in pruner.log.listed() if not one["allowed"]] == ["ec2:DeregisterImage"]
    assert kept.aws.ec2.describe_images(ImageIds=[others])["Images"]
