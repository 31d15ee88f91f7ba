"""A proposal: where what a profile names is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from bake import request
from bake.errors import UsageError
from bake.progress import Tally
from bake.request import BakeRequest, propose

from .facts import facts
from .variables import VARIABLES

GOOD = (Path(__file__).parents[2] / "profiles/g6e-ubuntu.yaml").read_text(encoding="utf-8")


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BakeRequest:
    """A request for a profile with checks of its own, in an account that answers."""
    monkeypatch.setattr(request, "ask", lambda *_: facts())
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "profiles"
    folder.mkdir()
    (folder / "p.yaml").write_text(f"{GOOD}\nchecks: [checks/our_policy.py, ../shared]\n", encoding="utf-8")
    return BakeRequest("p", folder, None, False)


def test_the_checks_of_a_profile_are_looked_for_from_its_folder(
    asked: BakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    own, shared = asked.directory / "checks/our_policy.py", asked.directory / "../shared/test_more.py"
    for file in (own, shared):
        file.parent.mkdir()
        file.write_text("def test_motd(host): pass\n", encoding="utf-8")
    plan = propose(asked, None, Tally()).plan
    assert plan.verify.files == (own, shared)
    assert plan.inputs["own checks"]


def test_a_check_that_is_not_there_is_refused_with_its_line(asked: BakeRequest) -> None:
    line = len(GOOD.splitlines()) + 2
    file = asked.directory / "p.yaml"
    with pytest.raises(
        UsageError, match=rf"^{file}:{line}: checks\.0: {asked.directory}/checks/our_policy\.py is"
    ):
        propose(asked, None, Tally())
