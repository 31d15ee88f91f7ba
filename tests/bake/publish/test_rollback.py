"""Which AMI a channel goes back to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bake.aws import Aws
from bake.errors import BakeError, UsageError
from bake.publish import rollback
from bake.publish.channels import ROLLBACK, Version
from bake.publish.promote import Served, promote

from .channel_account import VENUE, Bench


def versions(*steps: str) -> list[Version]:
    """Versions of a parameter: `a` is promoted, `<a` rolled back to."""
    return [
        Version(number, step.removeprefix("<"), why=f"{ROLLBACK}bad" if step.startswith("<") else "good")
        for number, step in enumerate(steps, 1)
    ]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("", ""),
        ("a", ""),
        ("a b c", "b a"),
        ("a b c <b", "a"),
        ("a b c <b <a", ""),
        ("a b c a", "c b"),
        ("a b a", "b"),
        ("a b c <b d", "b a"),
        ("a b c <a d", "a"),
        ("a a b b", "a"),
        ("a b <a b", "a"),
        ("c <x d", "x c"),
    ],
)
def test_a_rollback_goes_back_in_the_line_of_what_was_served(steps: str, expected: str) -> None:
    assert rollback.before(versions(*steps.split())) == expected.split()


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12))
def test_rolling_back_again_and_again_ends_and_never_repeats(promoted: list[str]) -> None:
    steps, seen = list(promoted), [promoted[-1]]
    while found := rollback.before(versions(*steps)):
        assert found[0] != steps[-1].removeprefix("<")
        seen.append(found[0])
        steps.append(f"<{found[0]}")
        assert len(steps) <= 2 * len(promoted)
    assert seen[-1] == promoted[0]


integration = pytest.mark.integration


@pytest.fixture
def bench(aws: Aws, witness: Aws) -> Bench:
    return Bench.new(aws, witness)


def back(bench: Bench, to: str | None = None) -> Served:
    chosen = rollback.choose(bench.aws, bench.channel, VENUE, to)
    bench.said += [f"{image}: {why}" for image, why in chosen.skipped]
    [served] = promote(
        bench.channel, bench.places(chosen.image), f"{ROLLBACK}bad", VENUE, "run", bench.said.append
    )
    return served


@integration
def test_it_goes_back_and_further_back_and_passes_over_what_can_not_be_served(bench: Bench) -> None:
    images = [bench.image() for _ in range(5)]
    for image in images:
        bench.promote(image)
    ec2 = bench.witness.ec2
    ec2.deregister_image(ImageId=images[3])
    ec2.disable_image(ImageId=images[2])
    assert back(bench).image == images[1]
    assert bench.said == [
        f"{images[3]}: it does not exist any more",
        f"{images[2]}: EC2 says that it is disabled",
    ]
    assert back(bench).image == images[0]
    with pytest.raises(BakeError, match="there is no AMI that stable can go back to"):
        back(bench)
    assert bench.values() == [*images, images[1], images[0]]


@integration
def test_revoked_ones_and_those_of_others_are_passed_over(bench: Bench) -> None:
    others, revoked, now = bench.image(profile="other"), bench.image(), bench.image()
    bench.put(others, Overwrite=False)
    for image in (revoked, now):
        bench.put(image)
    bench.witness.ec2.create_tags(Resources=[revoked], Tags=[{"Key": "bake:state", "Value": "revoked"}])
    with pytest.raises(BakeError) as error:
        back(bench)
    assert f"{revoked}: it is revoked" in error.value.message
    assert f"{others}: it was baked from the profile other" in error.value.message


@integration
def test_it_goes_to_the_one_that_is_named_if_that_was_served_once(bench: Bench) -> None:
    first, second, third, never = (bench.image() for _ in range(4))
    for image in (first, second, third):
        bench.promote(image)
    with pytest.raises(UsageError, match=f"stable has never served {never}"):
        back(bench, never)
    assert back(bench, first).before == third
    bench.witness.ec2.disable_image(ImageId=second)
    with pytest.raises(UsageError, match=f"stable can't go back to {second}: EC2 says that it is disabled"):
        back(bench, second)


@integration
def test_a_channel_that_has_served_nothing_says_how_to_begin(bench: Bench) -> None:
    with pytest.raises(UsageError, match="stable has never served an AMI") as error:
        back(bench)
    assert str(error.value.hint).endswith("--to stable")
