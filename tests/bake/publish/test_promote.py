"""Promotions: the parameter first, then the template; races, dead runs, and what others left there."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bake.aws import Aws, ClientError
from bake.errors import BakeError, NotAgreed, UsageError
from bake.publish import places
from bake.publish import promote as promoting
from bake.publish.channel_lock import Locked, holder
from bake.publish.channels import history
from bake.publish.promote import Changed, check_agreed
from tests.localcloud.api.conftest import Account
from tests.localcloud.recorded_cloud import BASE

from .channel_account import VENUE, Bench
from .conftest import clients

pytestmark = pytest.mark.integration


@pytest.fixture
def bench(aws: Aws, witness: Aws) -> Bench:
    return Bench.new(aws, witness)


def test_the_parameter_holds_the_ami_and_the_template_follows(bench: Bench) -> None:
    bench.with_template(BASE, UserData="aGVsbG8=")
    first, second = bench.image(), bench.image()
    served = bench.promote(first, "the first")
    assert (served.version, served.before, served.wrote, served.template) == (1, "", True, 2)
    served = bench.promote(second, "the second")
    assert (served.version, served.before, served.wrote) == (2, first, True)
    assert bench.default() == (3, second)
    told = history(bench.witness, bench.channel.parameter)
    assert [(one.value, one.why) for one in told] == [(first, "the first"), (second, "the second")]
    assert all(one.who.endswith(":root") and one.is_image for one in told)
    [raw] = bench.witness.ssm.get_parameters(Names=[bench.channel.parameter])["Parameters"]
    assert (raw["DataType"], raw["Type"]) == ("aws:ec2:image", "String")
    assert bench.locks() == []


def test_a_second_promotion_of_the_same_ami_changes_nothing(bench: Bench) -> None:
    bench.with_template(BASE)
    image = bench.image()
    first, second = bench.promote(image), bench.promote(image)
    assert (second.version, second.wrote, second.template) == (first.version, False, first.template)
    assert bench.values() == [image]
    assert bench.default() == (2, image)


def test_an_ami_that_returns_keeps_what_was_changed_in_the_template_since(bench: Bench) -> None:
    """A version with the AMI is there already, but of settings that are not the present ones."""
    bench.with_template(BASE)
    first, second = bench.image(), bench.image()
    for image in (first, second):
        bench.promote(image)
    changed: Any = {"InstanceType": "g6e.2xlarge"}
    template: Any = bench.channel.template
    made = bench.witness.ec2.create_launch_template_version(
        LaunchTemplateId=template, SourceVersion="3", LaunchTemplateData=changed
    )["LaunchTemplateVersion"]["VersionNumber"]
    bench.witness.ec2.modify_launch_template(LaunchTemplateId=template, DefaultVersion=str(made))
    served = bench.promote(first)
    known = bench.witness.ec2.describe_launch_template_versions(
        LaunchTemplateId=template, Versions=[str(served.template)]
    )["LaunchTemplateVersions"]
    assert served.template == made + 1
    data = known[0]["LaunchTemplateData"]
    assert (data["ImageId"], data["InstanceType"]) == (first, "g6e.2xlarge")
    assert bench.promote(second).template == made  # whose settings are the present ones: no new version


def test_a_template_that_goes_by_the_parameter_is_left_alone(bench: Bench) -> None:
    bench.with_template(f"resolve:ssm:{bench.channel.parameter}")
    served = bench.promote(bench.image())
    assert (served.template, bench.default()[0]) == (1, 1)


def test_a_template_that_goes_by_another_parameter_stops_it_before_anything_is_written(bench: Bench) -> None:
    bench.with_template("resolve:ssm:/somebody/else")
    with pytest.raises(BakeError, match="takes its AMI from resolve:ssm:/somebody/else"):
        bench.promote(bench.image())
    assert (bench.values(), bench.locks()) == ([], [])


def test_a_template_that_is_not_there_stops_it_before_anything_is_written(bench: Bench) -> None:
    bench.with_template(BASE)
    template: Any = bench.channel.template
    bench.witness.ec2.delete_launch_template(LaunchTemplateId=template)
    with pytest.raises(BakeError, match=f"there is no launch template {template}") as error:
        bench.promote(bench.image())
    assert "channels.stable.launch_template" in str(error.value.hint)
    assert (bench.values(), bench.locks()) == ([], [])


def test_a_default_with_an_ami_that_was_deregistered_is_gone_on_from(bench: Bench) -> None:
    gone = bench.image()
    bench.with_template(gone)
    bench.witness.ec2.deregister_image(ImageId=gone)
    image = bench.image()
    bench.promote(image)
    assert bench.default() == (2, image)


def test_what_died_between_parameter_and_template_is_completed_by_the_same_command(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.with_template(BASE)
    image = bench.image()
    with monkeypatch.context() as patch:
        patch.setattr(promoting.following, "follow", _die)
        with pytest.raises(KeyboardInterrupt):
            bench.promote(image)
    assert (bench.values(), bench.default(), bench.locks()) == ([image], (1, BASE), [])
    served = bench.promote(image)
    assert (served.wrote, bench.default(), bench.values()) == (False, (2, image), [image])


def _die(*_: Any) -> None:
    raise KeyboardInterrupt


UNFIT = {
    "a draft": ({"state": "draft"}, "it is draft, not good"),
    "unproven": ({"state": "unproven"}, "it is unproven, not good"),
    "revoked": ({"state": "revoked", "because": "CVE"}, "it is revoked: CVE"),
    "another profile's": ({"profile": "other"}, "it was baked from the profile other"),
    "of AWS": ({"venue": "AWS"}, "it was baked in AWS: it is not for REHEARSAL"),
    "of another tool": ({"run": None, "profile": None}, "bake did not make it"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_what_is_not_fit_is_not_served(bench: Bench, what: str) -> None:
    changed, why = UNFIT[what]
    image = bench.image(**changed)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=f"{image} is not served: {why}"):
        bench.promote(image)
    assert (bench.values(), bench.locks()) == ([], [])


def test_a_rehearsals_image_is_never_served_on_aws(bench: Bench) -> None:
    image = bench.image()
    with pytest.raises(UsageError, match="it was baked in REHEARSAL: it is not for AWS"):
        promoting.promote(bench.channel, bench.places(image), "why", "AWS", "run", bench.said.append)


def test_what_is_disabled_or_gone_is_not_served(bench: Bench) -> None:
    disabled, gone = bench.image(), bench.image()
    bench.witness.ec2.disable_image(ImageId=disabled)
    bench.witness.ec2.deregister_image(ImageId=gone)
    with pytest.raises(UsageError, match="EC2 says that it is disabled"):
        bench.promote(disabled)
    with pytest.raises(BakeError, match=f"there is no {gone} in eu-north-1"):
        bench.promote(gone)


@pytest.mark.parametrize(
    ("value", "more", "says"),
    [
        (BASE, {"DataType": "text"}, f"holds {BASE} as plain text"),
        ("hello", {"DataType": "text"}, "holds 'hello', no AMI's id: it is left alone"),
        ("secret", {"DataType": "text", "Type": "SecureString"}, "holds a SecureString: it is left alone"),
    ],
)
def test_a_parameter_that_is_no_channel_is_left_alone(
    bench: Bench, value: str, more: dict[str, str], says: str
) -> None:
    bench.put(value, Overwrite=False, **more)
    with pytest.raises(UsageError, match=says) as error:
        bench.promote(bench.image())
    assert f"aws ssm delete-parameter --region eu-north-1 --endpoint-url {bench.aws.endpoint}" in str(
        error.value.hint
    )
    assert (len(bench.values()), bench.locks()) == (1, [])


def test_a_parameter_of_another_profile_is_left_alone(bench: Bench) -> None:
    bench.put(bench.image(profile="other"), Overwrite=False)
    with pytest.raises(UsageError, match="an AMI of the profile other: it is left alone"):
        bench.promote(bench.image())


def test_a_parameter_with_an_ami_of_another_tool_is_taken_on(bench: Bench) -> None:
    bench.put(BASE, Overwrite=False)
    image = bench.image()
    assert bench.promote(image).before == BASE
    assert bench.values() == [BASE, image]


def test_what_somebody_writes_meanwhile_is_reported_and_not_resolved(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.with_template(BASE)
    ours, theirs = bench.image(), bench.image()
    put = promoting._put

    def late(*arguments: Any) -> int:
        bench.put(theirs, Description="by hand", Overwrite=bool(bench.values()))
        return put(*arguments)

    bench.promote(bench.image())
    monkeypatch.setattr(promoting, "_put", late)
    with pytest.raises(Changed) as error:
        bench.promote(ours, "on purpose")
    said = error.value.message
    assert f"{theirs} by arn:aws:iam::123456789012:root: by hand" in said
    assert f"{ours} by arn:aws:iam::123456789012:root: on purpose" in said
    assert said.endswith(f"it holds {ours} now; the launch template was not changed")
    assert (error.value.exit_code, bench.locks()) == (5, [])
    assert bench.default()[1] not in (ours, theirs)
    monkeypatch.undo()
    assert (bench.promote(theirs).wrote, bench.default()[1]) == (True, theirs)


def test_what_somebody_writes_after_us_is_reported_as_well(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = bench.image(), bench.image()
    put = promoting._put

    def overtaken(*arguments: Any) -> int:
        number = put(*arguments)
        bench.put(theirs)
        return number

    monkeypatch.setattr(promoting, "_put", overtaken)
    with pytest.raises(Changed, match=f"it holds {theirs} now"):
        bench.promote(ours)


def test_one_who_creates_the_parameter_first_is_reported(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = bench.image(), bench.image()
    put = promoting._put

    def late(*arguments: Any) -> int:
        bench.put(theirs, Overwrite=False)
        return put(*arguments)

    monkeypatch.setattr(promoting, "_put", late)
    with pytest.raises(Changed, match=f"it holds {theirs} now"):
        bench.promote(ours)
    assert bench.values() == [theirs]


def test_one_who_wants_the_same_is_no_race(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a call that was sent twice, since its first answer was lost."""
    image = bench.image()
    put = promoting._put

    def twice(*arguments: Any) -> int:
        put(*arguments)
        return put(*arguments)

    bench.promote(bench.image())
    monkeypatch.setattr(promoting, "_put", twice)
    assert bench.promote(image).version == 3


def test_an_ami_that_goes_while_it_is_validated_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.with_template(BASE)
    before, image = bench.image(), bench.image()
    bench.promote(before)
    places = bench.places(image)
    bench.witness.ec2.deregister_image(ImageId=image)
    monkeypatch.setattr(promoting, "VALIDATED", 1.0)
    with pytest.raises(BakeError, match=r"version 2 of .* is not there after 1 s"):
        promoting.promote(bench.channel, places, "why", VENUE, "run", bench.said.append)
    assert (bench.values(), bench.default()[1], bench.locks()) == ([before], before, [])


def test_a_label_on_the_oldest_version_is_told_with_the_command(bench: Bench) -> None:
    first, second = bench.image(), bench.image()
    for number in range(100):
        bench.put((first, second)[number % 2], Overwrite=number > 0)
    bench.witness.ssm.label_parameter_version(
        Name=bench.channel.parameter, ParameterVersion=1, Labels=["keep"]
    )
    with pytest.raises(BakeError, match="the oldest has a label") as error:
        bench.promote(first)
    assert "unlabel-parameter-version" in str(error.value.hint)
    assert (len(bench.values()), bench.locks()) == (100, [])


def test_of_many_at_once_one_holds_the_lock_and_all_others_are_refused(served: Account, bench: Bench) -> None:
    """Whatever the order: the history has the versions of those who did not fail, and none is lost."""
    bench.with_template(BASE)
    images = [bench.image() for _ in range(5)]
    start = threading.Barrier(len(images))

    def promote(image: str) -> str:
        own = Bench(clients(served), bench.witness, bench.channel)
        found = own.places(image)
        start.wait()
        try:
            promoting.promote(own.channel, found, image, VENUE, image, own.said.append)
        except Locked as error:
            assert "nothing was changed here" in error.message
            return ""
        return image

    with ThreadPoolExecutor(len(images)) as pool:
        done = [image for image in pool.map(promote, images) if image]
    assert done
    assert sorted(bench.values()) == sorted(done)
    assert (bench.default()[1], bench.locks()) == (bench.values()[-1], [])


def test_the_agreed_disks_and_system_are_the_images(bench: Bench) -> None:
    [place] = bench.places(bench.image())
    assert place.image is not None
    size = place.image["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"]
    agreed: Any = {"root_volume.size_gib": size, "root_volume.type": "gp3", "os": "ubuntu"}
    check_agreed(place.image, agreed, "cuda")
    with pytest.raises(NotAgreed, match=r"root_volume\.size_gib"):
        check_agreed(place.image, {**agreed, "root_volume.size_gib": 9}, "cuda")
    with pytest.raises(UsageError, match="baked with os ubuntu"):
        check_agreed(place.image, {**agreed, "os": "amazon-linux"}, "cuda")
    with pytest.raises(UsageError, match="baked with accelerator cuda"):
        check_agreed(place.image, agreed, "neuron")


def test_who_may_not_write_leaves_no_lock(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    image = bench.image()
    monkeypatch.setattr(promoting, "write", _refused)
    with pytest.raises(ClientError):
        bench.promote(image)
    assert holder(bench.witness, bench.channel) is None


def _refused(*_: Any) -> int:
    raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "PutParameter")


ELSEWHERE = "eu-west-1"


def test_each_region_serves_its_own_copy(bench: Bench) -> None:
    bench.with_template(BASE)
    image, lonely = bench.image(), bench.image()
    copy = bench.copy(image, ELSEWHERE)
    found = places.find(bench.aws, image, ("eu-north-1", ELSEWHERE))
    served = promoting.promote(bench.channel, found, "why", VENUE, "run", bench.said.append)
    assert [(one.region, one.image, one.template) for one in served] == [
        ("eu-north-1", image, 2),
        (ELSEWHERE, copy, None),
    ]
    there = bench.witness.elsewhere(ELSEWHERE)
    assert [one.value for one in history(there, bench.channel.parameter)] == [copy]
    with pytest.raises(UsageError, match=f"there is no {lonely} in {ELSEWHERE}, nor a copy of it"):
        promoting.promote(
            bench.channel,
            places.find(bench.aws, lonely, (ELSEWHERE,)),
            "why",
            VENUE,
            "run",
            bench.said.append,
        )
    assert bench.values() == [image]


def test_a_region_that_failed_is_completed_by_the_same_command(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = bench.image()
    copy = bench.copy(image, ELSEWHERE)
    write = promoting.write

    def failing(aws: Aws, *rest: Any) -> int:
        return _refused() if aws.region == ELSEWHERE else write(aws, *rest)

    def promote() -> list[Any]:
        found = places.find(bench.aws, image, (ELSEWHERE,))
        return promoting.promote(bench.channel, found, "why", VENUE, "run", bench.said.append)

    with monkeypatch.context() as patch:
        patch.setattr(promoting, "write", failing)
        with pytest.raises(ClientError):
            promote()
    assert (bench.values(), bench.locks()) == ([image], [])
    assert [(one.image, one.wrote) for one in promote()] == [(image, False), (copy, True)]
