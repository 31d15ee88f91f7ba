"""`--if-changed` against an account: few calls, the same told to people, machines and GitHub Actions."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from moto.ec2.models import ec2_backends

from bake import request as requests
from bake.aws import Aws
from bake.checks.inventory import Package, Source
from bake.cli import main_group
from bake.commands import if_changed
from bake.commands.bake import bake_profile
from bake.errors import NotAgreed
from bake.planning.identity import Identity
from bake.progress import PlainScreen, Progress, Tally
from bake.request import BakeRequest, ask_whether_changed
from tests.report.samples import GOOD, SEALED

if TYPE_CHECKING:
    from tests.bake.conftest import PlanCloud

PROFILES = Path(__file__).parents[3] / "profiles"
MOST = 10  # calls


@dataclass
class Desk:
    """A profile of this test's own in the account, and what is called for it."""

    cloud: PlanCloud
    folder: Path
    request: BakeRequest

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def ec2(self) -> Any:
        return self.cloud.aws().ec2

    def identity(self) -> Identity:
        found = ask_whether_changed(self.request, None, Tally()).identity
        assert found is not None
        return found

    def image(self, found: Identity | None = None, state: str = "good", **tags: str) -> str:
        """An AMI that a bake of the profile made, now."""
        found = found or self.identity()
        told = {"profile": self.request.profile, "plan": found.id, "state": state, "inputs": found.tag}
        each = {f"bake:{name.replace('_', '-')}": value for name, value in {**told, **tags}.items()}
        name = f"made-{uuid.uuid4().hex[:8]}"
        image = str(self.ec2.register_image(Name=name, RootDeviceName="/dev/sda1")["ImageId"])
        listed = [{"Key": key, "Value": value} for key, value in each.items()]
        self.ec2.create_tags(Resources=[image], Tags=listed)
        return image

    def called(self, *words: str) -> Any:
        """What `bake …` prints."""
        places = ("--profiles", str(self.request.directory), "--runs", str(self.runs))
        every = (*places, "--profile", self.request.profile, *words)
        return CliRunner().invoke(main_group, every, catch_exceptions=False)

    def events(self) -> list[dict[str, Any]]:
        """The events of `bake --if-changed --json`, which finds nothing changed."""
        done = self.called("--if-changed", "--json")
        assert done.exit_code == 0
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def desk(plan_cloud: PlanCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    folder, name = tmp_path / "profiles", f"p{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    for file in PROFILES.glob("*.yaml"):
        (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / f"{name}.yaml").write_text("extends: g6e-ubuntu\n", encoding="utf-8")
    for key, value in plan_cloud.variables.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(requests.rehearsal, "as_baker", lambda *_: {"endpoint": plan_cloud.endpoint})
    monkeypatch.delenv(if_changed.OUTPUT, raising=False)
    return Desk(plan_cloud, tmp_path, BakeRequest(name, folder, tmp_path / ".env.local"))


@pytest.fixture
def outputs(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], dict[str, str]]]:
    """What GitHub Actions would read as the step's outputs."""
    file = desk.folder / "outputs"
    monkeypatch.setenv(if_changed.OUTPUT, str(file))
    yield lambda: dict(line.split("=", 1) for line in file.read_text(encoding="utf-8").splitlines())


def test_nothing_is_baked_where_there_is_a_good_image_of_the_same_plan(
    desk: Desk, outputs: Callable[[], dict[str, str]]
) -> None:
    image, plan = desk.image(), desk.identity().id
    events = desk.events()
    [told] = [event for event in events if event["event"] == "unchanged"]
    assert (told["image"], told["plan"], told["changed"]) == (image, plan, False)
    [step] = [event for event in events if event["event"] == "step_ended"]
    assert (step["step"], step["outcome"]) == ("compare", "done")
    assert 0 < step["api_calls"] <= MOST
    assert not list(desk.runs.glob("*"))
    assert outputs() == {"changed": "false", "image": image, "plan": plan, "reason": told["reasons"][0]}


def test_people_are_told_the_same(desk: Desk) -> None:
    image = desk.image()
    done = desk.called("--if-changed")
    assert done.exit_code == 0
    assert f"nothing changed since {image}" in done.stderr
    assert "nothing to bake" in done.stderr


def test_bake_plan_tells_the_same_and_bakes_nothing(desk: Desk) -> None:
    image = desk.image()
    assert desk.called("plan", "--if-changed").stdout.startswith(f"nothing changed since {image}, of ")
    told = json.loads(desk.called("plan", "--if-changed", "--json").stdout)
    assert (told["changed"], told["image"]) == (False, image)
    desk.ec2.deregister_image(ImageId=image)
    assert desk.called("plan", "--if-changed").stdout == (
        "would rebuild: there is no good image of the profile yet\n"
    )


def test_what_changed_is_told_before_the_bake(desk: Desk, outputs: Callable[[], dict[str, str]]) -> None:
    was = desk.identity()
    image = desk.image(Identity({**was.parts, "worker": {"code": "1a2b" * 16}}))
    screen = io.StringIO()
    assert not if_changed.needs_no_bake(desk.request, None, desk.runs, Progress(PlainScreen(screen)))
    reason = f"worker 1a2b1a2b → {was.parts['worker']['code'][:8]}"
    assert f"changed: {reason}\n" in screen.getvalue()
    assert outputs() == {"changed": "true", "image": "", "plan": was.id, "reason": reason}
    told = json.loads(desk.called("plan", "--if-changed", "--json").stdout)
    assert (told["image"], told["reasons"]) == (image, [reason])


def test_then_it_is_planned_whole_and_held_to_the_agreement(desk: Desk) -> None:
    with pytest.raises(NotAgreed, match="has no agreement yet"):
        bake_profile(desk.request, desk.runs, as_json=False, exclusive=False, if_changed=True)


@pytest.mark.parametrize("state", ["draft", "unproven", "revoked"])
def test_an_image_that_is_not_good_does_not_count(desk: Desk, state: str) -> None:
    desk.image(state=state)
    assert "no good image" in desk.called("plan", "--if-changed").stdout


def test_a_copy_from_another_region_does_not_count(desk: Desk) -> None:
    desk.image(copy_of="ami-0123456789abcdef0 eu-west-3")
    assert "no good image" in desk.called("plan", "--if-changed").stdout


def test_an_image_that_is_disabled_does_not_count(desk: Desk) -> None:
    image = desk.image()
    ec2_backends["123456789012"][desk.ec2.meta.region_name].amis[image].state = "disabled"
    assert "no good image" in desk.called("plan", "--if-changed").stdout


def test_another_profiles_image_does_not_count(desk: Desk) -> None:
    desk.image(profile="another")
    assert "no good image" in desk.called("plan", "--if-changed").stdout


def aged(desk: Desk, days: float) -> str:
    """A good image that is some days old, and a profile that allows 30."""
    image = desk.image()
    backend = ec2_backends["123456789012"][desk.ec2.meta.region_name]
    backend.amis[image].creation_date = datetime.now(UTC) - timedelta(days=days)
    file = desk.request.directory / f"{desk.request.profile}.yaml"
    file.write_text("extends: g6e-ubuntu\nrebuild: {max_age: 30d}\n", encoding="utf-8")
    return image


def test_an_image_that_is_too_old_is_made_anew(desk: Desk) -> None:
    image = aged(desk, 31.5)
    said = desk.called("plan", "--if-changed").stdout
    assert said == f"would rebuild: {image} is 31 days old, and rebuild.max_age is 30d\n"


@pytest.mark.parametrize(("ahead", "changed"), [(timedelta(days=5), True), (timedelta(days=-5), False)])
def test_the_age_is_by_awss_clock(desk: Desk, ahead: timedelta, changed: bool) -> None:
    aged(desk, 28 if changed else 32)
    desk.cloud.front.ahead = ahead
    assert json.loads(desk.called("plan", "--if-changed", "--json").stdout)["changed"] is changed


def test_a_base_ami_that_cannot_be_had_is_told_by_the_plan(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BASE_AMI_ID", "ami-00000000000000000")
    assert "can't be had: the plan says why" in desk.called("plan", "--if-changed").stdout


def test_outputs_that_cannot_be_written_are_noted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(if_changed.OUTPUT, str(desk.folder))
    desk.image()
    done = desk.called("--if-changed")
    assert done.exit_code == 0
    assert f"{if_changed.OUTPUT}={desk.folder} could not be written: Is a directory" in done.stderr


def test_an_output_is_one_line_whatever_is_in_it(desk: Desk, outputs: Callable[[], dict[str, str]]) -> None:
    if_changed.output(Progress(PlainScreen(io.StringIO())), reason="one\nimage=ami-1\n")
    assert outputs() == {"reason": "one image=ami-1"}


def test_the_report_of_a_run_here_tells_what_changed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    was = Identity({**desk.identity().parts, "checks": {"gone.py": "1"}})
    desk.image(was)
    monkeypatch.setattr(if_changed, "recorded", lambda *_: was.parts)
    number = len(desk.identity().parts["checks"]) + 1
    assert desk.called("plan", "--if-changed").stdout == f"would rebuild: {number} checks\n"


def test_calls_are_counted_in_all(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call that is sent is one that the tally has."""
    sent = []
    monkeypatch.setattr(Aws, "_count", lambda self, **facts: sent.append(facts["model"].name))
    desk.image()
    sent.clear()
    assert desk.called("plan", "--if-changed").exit_code == 0
    assert 0 < len(sent) <= MOST
    assert set(sent) <= {"DescribeImages", "DescribeSnapshots", "GetParameter", "GetCallerIdentity"}


# Security updates


class Quiet(SimpleHTTPRequestHandler):
    """Files over HTTP, without a line for each."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def pocket(tmp_path: Path) -> Iterator[Source]:
    """A pocket of security updates on a web server of this host, with a newer openssl."""
    folder = tmp_path / "archive/dists/jammy-security"
    (folder / "main/binary-amd64").mkdir(parents=True)
    text = "Package: openssl\nVersion: 2\nArchitecture: amd64\n\n"
    (folder / "main/binary-amd64/Packages").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (folder / "Release").write_text(f"SHA256:\n {digest} {len(text)} main/binary-amd64/Packages\n")
    handler = functools.partial(Quiet, directory=str(tmp_path / "archive"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    yield Source(kind="apt", url=url, suite="jammy-security", components=("main",), arch="amd64")
    server.shutdown()
    server.server_close()


def report_of(desk: Desk, image: str, version: str, *sources: Source) -> None:
    """A run on this machine whose report says what is on an image."""
    openssl = Package(kind="deb", name="openssl", version=version, arch="amd64")
    sealed = SEALED.model_copy(update={"packages": (openssl,), "sources": sources})
    assert GOOD.image is not None
    made = GOOD.image.model_copy(update={"id": image})
    report = GOOD.model_copy(update={"image": made, "inventories": (sealed,)})
    folder = desk.runs / f"20260101-000000-{image[-6:]}"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(report.model_dump_json())


@pytest.fixture
def updated(desk: Desk) -> Desk:
    """The same, with a profile that asks for security updates."""
    file = desk.request.directory / f"{desk.request.profile}.yaml"
    asks = "base: {updates: security}\nrebuild: {when_updates: security}\n"
    file.write_text(f"extends: g6e-ubuntu\n{asks}", encoding="utf-8")
    return desk


def told(desk: Desk) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(desk.called("plan", "--if-changed", "--json").stdout)
    return found


def test_an_image_without_the_newest_security_updates_is_baked_anew(updated: Desk, pocket: Source) -> None:
    report_of(updated, updated.image(), "1", pocket)
    found = told(updated)
    assert (found["changed"], found["reasons"]) == (True, ["1 security update: openssl 1 → 2"])


def test_an_image_with_them_is_not(updated: Desk, pocket: Source) -> None:
    report_of(updated, image := updated.image(), "2", pocket)
    found = told(updated)
    assert (found["changed"], found["image"]) == (False, image)
    [step] = [event for event in updated.events() if event["event"] == "step_ended"]
    assert 0 < step["api_calls"] <= MOST


def test_without_report_or_index_it_says_so_and_bakes_nothing(updated: Desk) -> None:
    image = updated.image()
    found = told(updated)
    assert (found["changed"], found["unknown"]) == (
        False,
        [f"security updates, as the report of {image} is not here"],
    )
    report_of(updated, image, "1")
    assert told(updated)["unknown"] == ["security updates, as no index of them was recorded with the image"]


def test_updates_count_only_where_the_profile_says_so(desk: Desk, pocket: Source) -> None:
    report_of(desk, desk.image(), "1", pocket)
    assert not told(desk)["changed"]
