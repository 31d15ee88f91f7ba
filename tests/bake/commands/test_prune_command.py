"""`bake prune` as a process: what it prints, its exit codes, and where it looks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bake.localcloud.settings import SPOT_REGION
from tests.bake.lifecycle.kept_images import Kept
from tests.localcloud.conftest import ebs, ebs_served
from tests.localcloud.ebs_account import ELSEWHERE, EbsAccount

__all__ = ["ebs", "ebs_served"]
pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]


@pytest.fixture
def kept(ebs: EbsAccount) -> Iterator[Kept]:
    made = Kept(ebs)
    yield made
    made.clean()


@pytest.fixture
def desk(kept: Kept, tmp_path: Path) -> Path:
    """A folder with the profile of these AMIs, which keeps two and copies them."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    for file in (ROOT / "profiles").glob("*.yaml"):
        if file.name in ("g6e-ubuntu.yaml",) or file.name.startswith("_"):
            (folder / file.name).write_text(file.read_text())
    (folder / f"{kept.profile}.yaml").write_text(
        f"extends: g6e-ubuntu\nimage: {{keep: 2}}\npublish: {{regions: [{ELSEWHERE}]}}\n"
    )
    return tmp_path


def bake(kept: Kept, desk: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    key = kept.ebs.keys.owner
    known = {"SPOT_AWS_REGION": SPOT_REGION, "AWS_REGION": ELSEWHERE, **variables}
    done = subprocess.run(
        [sys.executable, "-m", "bake.cli", "prune", *arguments],
        cwd=desk,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(desk),
            "PYTHONPATH": str(ROOT),
            "AWS_ENDPOINT_URL": kept.ebs.url,
            "AWS_ACCESS_KEY_ID": key.id,
            "AWS_SECRET_ACCESS_KEY": key.secret,
            **{name: value for name, value in known.items() if value},
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def told(shown: str) -> dict[str, Any]:
    return {one["id"]: one for one in json.loads(shown)["images"]}


def test_it_shows_with_reasons_then_removes_in_all_regions(kept: Kept, desk: Path) -> None:
    old, older, middle, newest = (kept.bake() for _ in range(4))
    there = kept.copy(old)
    template = kept.template(older)
    code, shown, errors = bake(kept, desk, "--profile", kept.profile)
    assert code == 0, errors
    lines = [line.rstrip() for line in shown.splitlines()]
    assert lines[0] == "to be pruned:"
    going, staying = "\n".join(lines).split("\n\nkept:\n")
    assert f"{old}  {SPOT_REGION}" in going
    assert f"{there}  {ELSEWHERE}" in going
    assert "good, a copy" in going
    assert "    good, and older than the newest 2" in going
    assert "2 in all: at most " in going
    assert f"    launch template {template} version 1 refers to it" in staying
    assert staying.count("    one of the newest 2 good") == 2
    assert lines[-1] == "nothing was changed: add --yes to remove them with their snapshots"
    code, shown, errors = bake(kept, desk, "--profile", kept.profile, "--yes")
    assert (code, shown.rstrip().endswith("2 removed")) == (0, True), errors
    assert f"removing AMI {there}" in errors
    assert [kept.there(one) for one in (old, older, middle, newest)] == [False, True, True, True]
    assert not kept.there(there, ELSEWHERE)
    code, shown, _ = bake(kept, desk, "--profile", kept.profile, "--yes")
    assert (code, shown.splitlines()[0]) == (0, "nothing is to be pruned")


def test_json_is_one_object(kept: Kept, desk: Path) -> None:
    old, young = kept.bake(), kept.bake(**{"bake:state": "$(reboot)"})
    kept.bake()
    (desk / "infra").mkdir()
    (desk / "infra" / "main.tf").write_text(f'ami = "{old}"\n')
    chosen = ("--profile", kept.profile, "--keep", "1", "--json")
    code, shown, _ = bake(kept, desk, *chosen)
    assert (code, told(shown)[old]["outcome"], told(shown)[young]["outcome"]) == (0, "prune", "keep")
    assert "pruned" not in json.loads(shown)
    assert told(shown)[old]["by_hand"].startswith(f"aws ec2 deregister-image --region {SPOT_REGION}")
    code, shown, _ = bake(kept, desk, *chosen, "--references", "infra", "--yes")
    assert told(shown)[old]["references"] == [{"kind": "file", "id": "infra/main.tf:1", "detail": ""}]
    assert (code, json.loads(shown)["pruned"]["removed"]) == (0, [])
    code, shown, _ = bake(kept, desk, *chosen, "--yes")
    assert (code, json.loads(shown)["pruned"]["removed"]) == (0, [old])


def test_without_a_rule_it_says_so_and_keep_is_one(kept: Kept, desk: Path) -> None:
    (desk / "profiles" / f"{kept.profile}.yaml").unlink()
    old = kept.bake()
    kept.bake()
    code, shown, _ = bake(kept, desk)
    assert (code, shown.splitlines()[0]) == (0, "nothing is to be pruned")
    assert "nothing says how many to keep: set image.keep in the profile, or give --keep N" in shown
    assert old in bake(kept, desk, "--keep", "1")[1].split("kept:")[0]


def test_what_it_could_not_ask_ends_with_5_and_keeps(kept: Kept, desk: Path) -> None:
    old = kept.bake()
    for _ in range(2):
        kept.bake()
    (desk / "loop").symlink_to("loop")
    where = ("--profile", kept.profile, "--references")
    code, _, errors = bake(kept, desk, *where, ".", "--yes")
    assert code == 5
    assert (
        "error: some of the files could not be asked, so what they may protect stays: loop: Too many"
        in errors
    )
    assert kept.there(old)


def test_what_is_left_behind_ends_with_6_and_the_command(kept: Kept, desk: Path) -> None:
    old = kept.bake()
    for _ in range(2):
        kept.bake()
    kept.aws.ec2.enable_image_deregistration_protection(ImageId=old, WithCooldown=True)
    kept.aws.ec2.disable_image_deregistration_protection(ImageId=old)  # protected for a day from now on
    code, _, errors = bake(kept, desk, "--profile", kept.profile, "--yes")
    kept.unprotect(old)
    assert code == 6
    assert errors.rstrip().splitlines()[-1].startswith(f"left behind: AMI {old} could not be removed (")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--keep", "0"], "is not in the range x>=1", id="none kept"),
        pytest.param(["--references", "nowhere"], "does not exist", id="no folder"),
        pytest.param(["--profile", "nobodys"], "no profile named 'nobodys'", id="no profile"),
    ],
)
def test_bad_input_is_refused(kept: Kept, desk: Path, arguments: list[str], message: str) -> None:
    code, _, errors = bake(kept, desk, *arguments)
    assert code == 2
    assert message in errors


def test_regions_can_be_added(kept: Kept, desk: Path) -> None:
    (desk / "profiles" / f"{kept.profile}.yaml").write_text("extends: g6e-ubuntu\n")
    old = kept.bake()
    there = kept.copy(old)
    only = bake(kept, desk, "--profile", kept.profile, "--json")[1]
    both = bake(kept, desk, "--profile", kept.profile, "--json", "--region", ELSEWHERE)[1]
    assert (set(told(only)), set(told(both))) == ({old}, {old, there})
    bare = {"SPOT_AWS_REGION": "", "AWS_REGION": ""}
    code, _, errors = bake(kept, desk, **bare)
    assert (code, "not set: SPOT_AWS_REGION, AWS_REGION" in errors) == (2, True)
    shown = bake(kept, desk, "--region", ELSEWHERE, "--json", "--keep", "1", **bare)[1]
    assert there in told(shown)
