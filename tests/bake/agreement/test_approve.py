"""`bake approve`: asks on a terminal, and wants every fact named without one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bake.agreement import approve
from bake.agreement.approve import Approval
from bake.agreement.facts import NAMES, Agreement, Difference, Fact, Guarded, compare
from bake.errors import NotAgreed, UsageError
from bake.request import BakeRequest

AGREED = Agreement(Path("x.lock.yaml"), {"region": "eu-north-1", "os": "ubuntu", "root_volume.size_gib": 80})
NOW = Guarded(
    (
        Fact("region", "eu-west-1", "AWS_REGION (environment)"),
        Fact("os", "ubuntu", "profiles/x.yaml:7"),
        Fact("root_volume.size_gib", 120, "profiles/x.yaml:18"),
    ),
    {},
)

REQUEST = BakeRequest("x", Path("profiles"), Path(".env.local"))


def choose(facts: Sequence[str], answer: bool | None) -> list[str]:
    """The names that are agreed to; `answer` None is a command without a terminal."""
    approval = Approval.of(facts, "because")
    ask = None if answer is None else lambda question: answer
    return [one.name for one in approve.choose(REQUEST, approval, NOW, compare(NOW, AGREED), ask)]


def test_on_a_terminal_yes_agrees_to_all_that_is_shown() -> None:
    assert choose([], True) == ["region", "root_volume.size_gib"]


def test_on_a_terminal_named_facts_are_agreed_to_alone() -> None:
    assert choose(["region"], True) == ["region"]


def test_no_agrees_to_nothing() -> None:
    with pytest.raises(NotAgreed, match="nothing was recorded"):
        choose([], False)


def test_without_a_terminal_every_fact_must_be_named() -> None:
    assert choose(["region", "root_volume.size_gib=120"], None) == ["region", "root_volume.size_gib"]
    with pytest.raises(NotAgreed, match=r"these were not named: root_volume\.size_gib") as caught:
        choose(["region"], None)
    assert caught.value.hint == (
        "to agree to all that is shown:\n"
        "  bake approve --profile x --because because \\\n"
        "    --fact region=eu-west-1 \\\n"
        "    --fact root_volume.size_gib=120"
    )
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("answer", [True, None], ids=["terminal", "no terminal"])
def test_a_value_that_moved_is_not_agreed_to(answer: bool | None) -> None:
    with pytest.raises(NotAgreed, match=r"root_volume\.size_gib=100: it is 120 now"):
        choose(["region", "root_volume.size_gib=100"], answer)


def test_what_is_agreed_already_may_be_named_again_with_its_value_only() -> None:
    names = ["region", "root_volume.size_gib"]
    assert choose([*names, "os"], None) == names
    with pytest.raises(NotAgreed, match="os=amazon-linux: it is ubuntu now"):
        choose([*names, "os=amazon-linux"], None)
    with pytest.raises(NotAgreed, match="none of the named facts differs"):
        choose(["os"], True)


def test_each_fact_can_be_named_also_one_of_the_weights() -> None:
    assert "weights.stream" in NAMES  # what `bake lock` pins has other names
    assert set(Approval.of(NAMES, "x").facts) == set(NAMES)


@pytest.mark.parametrize(
    ("facts", "because", "expected"),
    [
        (["all"], "x", "name each fact that you agree to"),
        (["root_volume.size"], "x", "--fact root_volume.size: there is no such fact; did you mean root_vol"),
        (["weights.files"], "x", "--fact weights.files: the weights are pinned by `bake lock`"),
        (["zzz"], "x", "there are: region, instance_types"),
        (["region"], " \n", "--because is empty"),
        (["region"], "…", "--because is empty"),
    ],
)
def test_words_that_mean_nothing_are_refused(facts: list[str], because: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        Approval.of(facts, because)
    assert expected in caught.value.message


def test_the_history_says_what_a_fact_was_and_became() -> None:
    chosen = [
        Difference("root_volume.size_gib", 80, 120, "x"),
        Difference("vpc", None, "vpc-1", "x", new=True),
        Difference("root_volume.iops", None, 6000, "x"),
    ]
    found = approve.agree(AGREED, AGREED.file, chosen, "why not", "Ada")
    assert found.agreed == {
        "region": "eu-north-1",
        "os": "ubuntu",
        "root_volume.size_gib": 120,
        "vpc": "vpc-1",
        "root_volume.iops": 6000,
    }
    (entry,) = found.history
    assert (entry.who, entry.why) == ("Ada", "why not")
    assert entry.changed == {
        "root_volume.size_gib": {"from": 80, "to": 120},
        "vpc": {"to": "vpc-1"},
        "root_volume.iops": {"from": None, "to": 6000},
    }
