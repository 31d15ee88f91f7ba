"""Two rehearsals side by side, on one local cloud that the first process brings up for both."""

from __future__ import annotations

from pathlib import Path

import pytest

from bake.localcloud import LocalCloud

from .bakes import called, finish

pytestmark = [pytest.mark.root, pytest.mark.long]


def test_two_profiles_are_baked_side_by_side(cloud: LocalCloud, tmp_path: Path) -> None:
    words = ("--profile", "g6e-ubuntu", "--profile", "g6e-amazon-linux", "--rehearse", "--max-parallel", "2")
    outcome = finish(called(tmp_path, *words), tmp_path)
    assert outcome.code == 0, outcome.errors
    (summary,) = outcome.of("summary")
    assert summary == outcome.events[-1]
    assert [one["verdict"] for one in summary["bakes"]] == ["good", "good"]
    assert len({one["image"] for one in summary["bakes"]}) == 2
    began = [event["event"] for event in outcome.events if event["event"] in ("started", "ended")]
    assert began == ["started", "started", "ended", "ended"]
    for one in summary["bakes"]:
        assert (tmp_path / one["directory"] / "report.html").exists()
