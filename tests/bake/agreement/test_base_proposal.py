"""A newer base AMI is proposed: a patch that git takes, and a pull request's body."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bake import request as requests
from bake.account.facts import AccountFacts
from bake.account.images import BaseFacts
from bake.agreement import base_proposal, lockfile
from bake.agreement.approve import Approval, agree
from bake.agreement.base_proposal import BaseAmi
from bake.agreement.facts import compare
from bake.agreement.render import ProfileRequest, title
from bake.commands import approving
from bake.errors import BakeError, NotAgreed
from bake.progress import Tally
from bake.request import BakeRequest, propose

from ..facts import AMI, facts
from ..variables import VARIABLES

PROFILES = Path(__file__).parents[3] / "profiles"
GOOD = (PROFILES / "g6e-ubuntu.yaml").read_text(encoding="utf-8")
OLD, NEW = AMI, replace(AMI, id="ami-0fedcba9876543210", name="Deep Learning Base AMI (Ubuntu 22.04) 2")
FAMILY = "ssm:/bases/ubuntu"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with a profile that names its base by an SSM parameter."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    written(tmp_path, None)
    return tmp_path


def written(desk: Path, follow: str | None) -> None:
    (desk / "profiles").mkdir(exist_ok=True)
    text = GOOD.replace("ami: ${BASE_AMI_ID}", "ssm: /bases/ubuntu")
    assert text != GOOD
    text = text.replace("ssm: ", f"follow: {follow}\n  ssm: ") if follow else text
    (desk / "profiles/p.yaml").write_text(text, encoding="utf-8")


def asked(desk: Path) -> BakeRequest:
    return BakeRequest("p", Path("profiles"), Path(".env.local"))


def answers(**base: Any) -> AccountFacts:
    return facts(base=BaseFacts(**{"ami": NEW, "newest": NEW, "agreed": OLD, "agreed_id": OLD.id, **base}))


def agreed(desk: Path, monkeypatch: pytest.MonkeyPatch, **base: Any) -> lockfile.LockFile:
    """Agree to all facts of a plan from this base."""
    monkeypatch.setattr(requests, "ask", lambda *_: answers(ami=OLD, newest=OLD, **base))
    found = propose(asked(desk), None, Tally())
    agreement = agree(None, asked(desk).lock, found.differences, "first agreement", "Somebody")
    held = lockfile.LockFile(asked(desk).lock, agreement)
    lockfile.write(held, None, title(asked(desk)))
    return held


def refused(desk: Path, monkeypatch: pytest.MonkeyPatch, **base: Any) -> NotAgreed:
    monkeypatch.setattr(requests, "ask", lambda *_: answers(**base))
    with pytest.raises(NotAgreed) as caught:
        propose(asked(desk), None, Tally(), baking=True)
    return caught.value


def test_a_newer_base_stops_the_bake_and_is_proposed(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agreed(desk, monkeypatch)
    error = refused(desk, monkeypatch)
    assert error.exit_code == 3
    assert "proposed: .bake/proposals/p.patch agrees to ami-0fedcba9876543210" in error.message
    assert error.proposal == {
        "fact": "base_ami",
        "agreed": OLD.id,
        "newest": NEW.id,
        "patch": ".bake/proposals/p.patch",
        "body": ".bake/proposals/p.md",
    }


def test_git_takes_the_patch_and_it_agrees_to_the_base(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = agreed(desk, monkeypatch)
    refused(desk, monkeypatch)
    subprocess.run(["git", "apply", ".bake/proposals/p.patch"], cwd=desk, check=True)
    held = lockfile.read(asked(desk).lock)
    assert held.agreement is not None and before.agreement is not None
    assert held.agreement.agreed == {**before.agreement.agreed, "base_ami": NEW.id}
    first, second = held.agreement.history
    assert (first.who, second.who) == ("Somebody", "")
    assert second.why == f"{NEW.id} is the newest of {FAMILY}"
    assert second.changed == {"base_ami": {"from": OLD.id, "to": NEW.id}}
    assert "who: ''" not in held.file.read_text(encoding="utf-8")
    monkeypatch.setattr(requests, "ask", lambda *_: answers(agreed=NEW, agreed_id=NEW.id))
    assert propose(asked(desk), None, Tally()).differences == []


@pytest.mark.parametrize("content", ["", "\n# somebody's note", "\n# note\n", "\r\n"])
def test_git_takes_the_patch_whatever_else_the_file_has(
    desk: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    held = agreed(desk, monkeypatch)
    with held.file.open("ab") as end:
        end.write(content.encode())
    refused(desk, monkeypatch)
    done = subprocess.run(["git", "apply", "--verbose", ".bake/proposals/p.patch"], cwd=desk, check=False)
    assert done.returncode == 0
    found = lockfile.read(held.file).agreement
    assert found is not None
    assert found.agreed["base_ami"] == NEW.id


def test_the_patch_names_the_file_from_the_top_of_its_repository(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = desk / "some where"
    folder.mkdir()
    monkeypatch.chdir(folder)
    written(folder, None)
    agreed(folder, monkeypatch)
    refused(folder, monkeypatch)
    text = (folder / ".bake/proposals/p.patch").read_text(encoding="utf-8")
    assert text.startswith(
        "--- a/some where/profiles/p.lock.yaml\t\n+++ b/some where/profiles/p.lock.yaml\t\n"
    )
    subprocess.run(["git", "apply", str(folder / ".bake/proposals/p.patch")], cwd=desk, check=True)
    found = lockfile.read(folder / "profiles/p.lock.yaml").agreement
    assert found is not None and found.agreed["base_ami"] == NEW.id


def test_the_body_shows_both_amis_and_the_ways_to_agree(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agreed(desk, monkeypatch)
    old = replace(OLD, deprecated="2026-05-01T00:00:00.000Z")
    refused(desk, monkeypatch, agreed=old)
    text = (desk / ".bake/proposals/p.md").read_text(encoding="utf-8")
    assert text.startswith(f"# Base AMI of p: {OLD.id} → {NEW.id}\n")
    for line in (
        f"| id | `{OLD.id}` | `{NEW.id}` |",
        f"| name | `{OLD.name}` | `{NEW.name}` |",
        "| deprecated | `2026-05-01T00:00:00.000Z` | - |",
        "git apply .bake/proposals/p.patch",
        f"--fact base_ami={NEW.id}",
    ):
        assert line in text


def test_an_agreed_base_that_is_gone_is_proposed_to_be_replaced(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agreed(desk, monkeypatch)
    error = refused(desk, monkeypatch, agreed=None)
    assert error.proposal is not None
    assert "not to be had any more" in (desk / ".bake/proposals/p.md").read_text(encoding="utf-8")


def test_nothing_is_markup_that_somebody_else_wrote() -> None:
    text = base_proposal.body(
        ProfileRequest("p", Path("profiles"), Path(".env.local")),
        "name a|b* of self",
        BaseAmi("ami-1", "`rm`|x\n# y"),
        BaseAmi("ami-2"),
        base_proposal.Difference("base_ami", "ami-1", "ami-2", "the profile"),
        Path("p.patch"),
    )
    assert "| name | `'rm'\\|x # y` | - |" in text


@pytest.mark.parametrize("follow", ["pinned", "newest"])
def test_nothing_is_proposed_to_who_asked_for_something_else(
    desk: Path, monkeypatch: pytest.MonkeyPatch, follow: str
) -> None:
    agreed(desk, monkeypatch)
    written(desk, follow)
    if follow == "newest":
        assert refused(desk, monkeypatch).proposal is None
    else:
        monkeypatch.setattr(requests, "ask", lambda *_: answers(ami=OLD))
        found = propose(asked(desk), None, Tally())
        assert found.differences == []
        assert any(
            f"{OLD.id} is used, and the newest of {FAMILY} is {NEW.id}" in one for one in found.plan.warnings
        )
    assert not (desk / ".bake").exists()


def test_the_newest_is_followed_once_that_is_agreed(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = agreed(desk, monkeypatch)
    written(desk, "newest")
    error = refused(desk, monkeypatch)
    assert "base_follow" in error.message
    found = propose(asked(desk), None, Tally())
    assert [one.name for one in found.differences] == ["base_ami", "base_follow"]
    agreement = agree(held.agreement, held.file, found.differences, "follow it", "Somebody")
    newer = replace(NEW, id="ami-0aaaaaaaaaaaaaaaa")
    monkeypatch.setattr(requests, "ask", lambda *_: answers(ami=newer, newest=newer, agreed=NEW))
    plan = propose(asked(desk), None, Tally()).plan
    assert compare(plan.guarded, agreement) == []
    assert plan.launch.base.id == newer.id


@pytest.mark.parametrize(
    ("key", "value"), [("base_follow", "newest of ssm:/bases/other"), ("base_follow", None)]
)
def test_another_family_is_not_what_was_agreed(
    desk: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str | None
) -> None:
    written(desk, "newest")
    held = agreed(desk, monkeypatch)
    assert held.agreement is not None
    assert held.agreement.agreed["base_follow"] == f"newest of {FAMILY}"
    monkeypatch.setattr(requests, "ask", lambda *_: answers())
    plan = propose(asked(desk), None, Tally()).plan
    assert compare(plan.guarded, held.agreement) == []
    other = replace(held.agreement, agreed={**held.agreement.agreed, key: value})
    assert [one.name for one in compare(plan.guarded, other)] == ["base_ami", "base_follow"]


def test_an_agreement_to_follow_does_not_cover_a_profile_that_no_longer_does(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(desk, "newest")
    held = agreed(desk, monkeypatch)
    written(desk, "propose")
    monkeypatch.setattr(requests, "ask", lambda *_: answers())
    plan = propose(asked(desk), None, Tally()).plan
    assert [one.name for one in compare(plan.guarded, held.agreement)] == ["base_ami", "base_follow"]


def test_a_proposal_that_cannot_be_written_is_said_and_changes_nothing(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agreed(desk, monkeypatch)
    (desk / ".bake").write_text("in the way")
    error = refused(desk, monkeypatch)
    assert "the proposal could not be written to .bake/proposals: " in error.message
    assert error.proposal is None


def test_writing_says_what_is_wrong(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = agreed(desk, monkeypatch)
    (desk / ".bake").write_text("in the way")
    with pytest.raises(BakeError, match="could not be written"):
        base_proposal.write(asked(desk), held, FAMILY, BaseAmi(OLD.id), BaseAmi(NEW.id), "the profile")


@pytest.mark.parametrize(("facts", "known"), [((), OLD.id), (("base_ami",), None), (("market",), OLD.id)])
def test_who_names_a_pinned_base_when_approving_is_shown_the_newest(
    desk: Path, monkeypatch: pytest.MonkeyPatch, facts: tuple[str, ...], known: str | None
) -> None:
    agreed(desk, monkeypatch)
    written(desk, "pinned")
    given: list[Any] = []

    def ask(*words: Any) -> AccountFacts:
        """Answer as an account does that is asked for the agreed AMI, or else for the newest."""
        given.append(words[-1])
        return answers(ami=OLD) if words[-1] else answers(agreed=None, agreed_id=None)

    monkeypatch.setattr(requests, "ask", ask)
    monkeypatch.setattr(approving, "author", lambda *_: "Somebody")
    with suppress(NotAgreed):
        approving.record(asked(desk), Approval.of(facts, "a newer one"), lambda _: None, lambda _: True)
    assert given == [known]
    held = lockfile.read(asked(desk).lock).agreement
    assert held is not None
    assert held.agreed["base_ami"] == (NEW.id if known is None else OLD.id)
