"""What a plan says of publishing: what could not be done is a problem before the bake."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from bake import profile as profiles
from bake.account.answers import Unanswered
from bake.account.keys import Key
from bake.account.publishing import Held, PublishFacts, RegionFacts
from bake.agreement.facts import OFF
from bake.planning import publishing
from bake.planning.findings import Findings
from bake.planning.guarded import stated_facts
from bake.planning.parts import wanted_of
from bake.profile import Profile
from bake.profile.publishing import Publish
from bake.publish.launch_template import Version
from tests.bake.conftest import PROFILES

from ..iam.profiles import GIVEN, VARIABLES

KEY = "arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
TEMPLATE = "lt-0123456789abcdef0"
WORKER = {"IamInstanceProfile": {"Name": "flux"}, "InstanceType": "g6e.xlarge"}


def profile(share: tuple[str, ...] = (), **publish: Any) -> Profile:
    found = profiles.load("g6e-ubuntu", PROFILES, {**VARIABLES, **GIVEN})
    image = found.image.model_copy(update={"share_with": share})
    return found.model_copy(update={"publish": Publish(**publish), "image": image})


def check(asked: Profile, **facts: Any) -> Findings:
    findings = Findings()
    publishing.check(asked, PublishFacts(**facts), findings)
    return findings


def version(number: int = 1, image: str = "", **data: Any) -> Version:
    return Version(TEMPLATE, number, image, number == 1, data)


SHARED = ("210987654321",)
IRELAND: Any = {"regions": ("eu-west-1",)}
TO: Any = {"launch_template": TEMPLATE}
PROBLEMS = [
    pytest.param(
        profile(regions=("eu-north-1",)), {}, "publish.regions: eu-north-1 is the builder's region", id="own"
    ),
    pytest.param(
        profile(**IRELAND),
        {"regions": {"eu-west-1": RegionFacts(None)}},
        "publish.regions: there is no region eu-west-1",
        id="no-such-region",
    ),
    pytest.param(
        profile(**IRELAND),
        {"regions": {"eu-west-1": RegionFacts(False)}},
        "aws account enable-region --region-name eu-west-1",
        id="not-enabled",
    ),
    pytest.param(
        profile(**IRELAND, kms_keys=(KEY,)),
        {"regions": {"eu-west-1": RegionFacts(True)}},
        f"publish.kms_keys: there is no KMS key {KEY}",
        id="no-such-key",
    ),
    pytest.param(
        profile(**IRELAND, kms_keys=(KEY,)),
        {"regions": {"eu-west-1": RegionFacts(True, Key(enabled=False, of_aws=False))}},
        "the KMS key of eu-west-1 is disabled",
        id="disabled-key",
    ),
    pytest.param(
        profile(SHARED, **IRELAND, kms_keys=(KEY,)),
        {"regions": {"eu-west-1": RegionFacts(True, Key(enabled=True, of_aws=True))}},
        "is AWS's own: the copy could not be shared",
        id="awss-key",
    ),
    pytest.param(
        profile(SHARED, **IRELAND),
        {"regions": {"eu-west-1": RegionFacts(True, aws_key=True)}},
        "name a key of your own in eu-west-1",
        id="default-key",
    ),
    pytest.param(
        profile(parameter="/flux/ami"),
        {"parameter": Held("mine", ours=False, data_type="text")},
        "/flux/ami is of the data type text",
        id="data-type",
    ),
    pytest.param(profile(**TO), {}, f"there is no launch template {TEMPLATE}", id="no-template"),
    pytest.param(
        profile(**TO, source_version=4),
        {"template": (version(),)},
        f"{TEMPLATE} has no version 4",
        id="no-version",
    ),
    pytest.param(
        profile(**TO),
        {"template": (version(image="resolve:ssm:/flux/ami"),)},
        "takes its AMI from resolve:ssm:/flux/ami",
        id="by-parameter",
    ),
]


@pytest.mark.parametrize(("asked", "facts", "text"), PROBLEMS)
def test_what_could_not_be_published_is_a_problem(asked: Profile, facts: Any, text: str) -> None:
    [problem] = check(asked, **facts).problems
    assert text in problem


WARNINGS = [
    pytest.param(
        profile(parameter="/flux/ami"),
        {"parameter": Held("ami-0123456789abcdef0", ours=False, data_type="aws:ec2:image")},
        "holds ami-0123456789abcdef0, which no bake of this profile wrote: it stays",
        id="parameter",
    ),
    pytest.param(
        profile(**TO), {"template": (version(InstanceType="g6e.xlarge"),)}, "no instance profile", id="rights"
    ),
    pytest.param(
        profile(**TO),
        {"template": (version(**{**WORKER, "InstanceType": "t3.micro"}),)},
        "launches t3.micro, and the image is for g6e.xlarge",
        id="type",
    ),
]


@pytest.mark.parametrize(("asked", "facts", "text"), WARNINGS)
def test_what_differs_is_told(asked: Profile, facts: Any, text: str) -> None:
    found = check(asked, **facts)
    assert found.problems == []
    [warning] = found.warnings
    assert text in warning


def test_what_is_there_is_confirmed_and_what_nobody_answered_is_not_checked() -> None:
    asked = profile(SHARED, **IRELAND, kms_keys=(KEY,), parameter="/flux/ami", **TO)
    there = RegionFacts(True, Key(enabled=True, of_aws=False))
    held = Held("ami-0123456789abcdef0", ours=True, data_type="aws:ec2:image")
    found = check(asked, regions={"eu-west-1": there}, parameter=held, template=(version(**WORKER),))
    assert (found.problems, found.warnings, found.unchecked) == ([], [], [])
    assert len(found.checked) == 4
    nobody = Unanswered("AWS answers AccessDenied")
    found = check(asked, regions={"eu-west-1": RegionFacts(nobody)}, parameter=nobody, template=nobody)
    assert (found.problems, found.warnings) == ([], [])
    assert len(found.unchecked) == 3


def test_a_copy_costs_its_snapshots_and_what_crosses_to_its_region() -> None:
    asked = profile(regions=("eu-west-1", "eu-central-1"))
    there = {"eu-west-1": RegionFacts(True, price=0.05), "eu-central-1": RegionFacts(True)}
    first, second = publishing.copies(asked, PublishFacts(there), 40.0)
    assert (first.region, first.gb, first.month_dollars) == ("eu-west-1", 40.0, pytest.approx(2.0))
    assert second.month_dollars is None


def test_what_reaches_out_is_agreed_and_the_rest_is_not() -> None:
    asked = profile(
        regions=("eu-west-1",),
        kms_keys=(KEY,),
        parameter="/flux/ami",
        launch_template=TEMPLATE,
        source_version=3,
        deprecate_after=timedelta(days=30),
        protect=True,
        watermark="verified",
        enforce_instance_types=True,
    )
    stated = {one.name: one.value for one in stated_facts(asked) if one.name.startswith("publish.")}
    assert stated == {
        "publish.regions": ["eu-west-1"],
        "publish.kms_keys": [KEY],
        "publish.parameter": "/flux/ami",
        "publish.launch_template": f"{TEMPLATE}, from version 3",
        "publish.watermark": "verified",
    }
    unused = {one.name: one.value for one in stated_facts(profile()) if one.name.startswith("publish.")}
    assert unused == {name: OFF[name] for name in stated}


def test_the_types_that_are_enforced_are_those_that_the_image_is_for() -> None:
    assert wanted_of(profile(enforce_instance_types=True)).types == ("g6e.xlarge",)
    assert wanted_of(profile()).types == ()
