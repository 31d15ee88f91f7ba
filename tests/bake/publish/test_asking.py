"""What a plan asks of the account about publishing."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from bake import profile as profiles
from bake.account.answers import Unanswered
from bake.account.publishing import PublishFacts, ask_publishing
from bake.aws import Aws
from bake.profile import Profile
from bake.profile.publishing import Publish
from bake.publish import parameter
from tests.bake.iam.profiles import GIVEN, ROOT, VARIABLES

from .failing import refused
from .images import COPIED, Good

pytestmark = pytest.mark.integration


def asked(share: tuple[str, ...] = (), **publish: Any) -> Profile:
    found = profiles.load("g6e-ubuntu", ROOT / "profiles", {**VARIABLES, **GIVEN})
    image = found.image.model_copy(update={"share_with": share})
    return found.model_copy(update={"publish": Publish(**publish), "image": image})


def test_a_profile_that_publishes_nothing_asks_nothing(aws: Aws) -> None:
    before = aws.tally.api_calls
    assert ask_publishing(asked(), aws) == PublishFacts()
    assert aws.tally.api_calls == before


def test_regions_and_their_keys_are_asked_for(aws: Aws) -> None:
    key = aws.within(COPIED).kms.create_key()["KeyMetadata"]["Arn"]
    gone = f"arn:aws:kms:eu-central-1:123456789012:key/{secrets.token_hex(4)}"
    found = ask_publishing(
        asked(regions=(COPIED, "eu-central-1", "xx-nowhere-1"), kms_keys=(key, gone)), aws
    ).regions
    assert found[COPIED].enabled is True
    there: Any = found[COPIED].key
    assert (there.enabled, there.of_aws) == (True, False)
    assert found["eu-central-1"].key is None
    assert found["xx-nowhere-1"].enabled is None


def test_a_shared_copy_asks_for_the_regions_default_key(aws: Aws, witness: Aws) -> None:
    there = witness.within("eu-west-3").ec2
    shared = asked(("210987654321",), regions=("eu-west-3",))
    assert ask_publishing(shared, aws).regions["eu-west-3"].aws_key is False
    there.enable_ebs_encryption_by_default()
    assert ask_publishing(shared, aws).regions["eu-west-3"].aws_key is False  # a key that is no alias
    asking = aws.elsewhere("eu-west-3")
    asking.ec2.meta.events.register(
        "after-call.ec2.GetEbsDefaultKmsKeyId", lambda parsed, **_: parsed.update(KmsKeyId="alias/aws/ebs")
    )
    aws.elsewhere = lambda region: asking  # type: ignore[method-assign]
    assert ask_publishing(shared, aws).regions["eu-west-3"].aws_key is True
    assert ask_publishing(asked(regions=("eu-west-3",)), aws).regions["eu-west-3"].aws_key is None


def test_the_parameter_tells_who_wrote_it_and_the_template_its_versions(aws: Aws, good: Good) -> None:
    name = f"/flux/{secrets.token_hex(4)}"
    template = aws.ec2.create_launch_template(
        LaunchTemplateName=f"workers-{secrets.token_hex(4)}",
        LaunchTemplateData={"InstanceType": "g6e.xlarge"},
    )["LaunchTemplate"]["LaunchTemplateId"]
    wanted = asked(parameter=name, launch_template=template)
    found = ask_publishing(wanted, aws)
    assert found.parameter is None
    assert isinstance(found.template, tuple)
    assert [(one.number, one.default) for one in found.template] == [(1, True)]
    parameter.ensure(aws, name, good.image.id, wanted.name)
    held: Any = ask_publishing(wanted, aws).parameter
    assert (held.value, held.ours, held.data_type) == (good.image.id, True, "aws:ec2:image")


def test_what_is_refused_is_no_answer(aws: Aws) -> None:
    with refused(aws.ec2, "DescribeRegions", "UnauthorizedOperation"):
        found = ask_publishing(asked(regions=(COPIED,)), aws).regions[COPIED]
    assert isinstance(found.enabled, Unanswered)
