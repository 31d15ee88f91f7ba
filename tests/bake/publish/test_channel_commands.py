"""`bake promote`, `rollback`, `channels`, `revoke` and `images` as processes, on the local cloud's API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bake import profile as profiles
from bake.agreement import approve, lockfile
from bake.agreement.facts import Guarded, compare
from bake.aws import Aws
from bake.planning.guarded import stated_facts
from tests.bake.variables import VARIABLES
from tests.localcloud.api.conftest import Account
from tests.localcloud.recorded_cloud import BASE

from .channel_account import Bench

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]


class Shell:
    """A folder with the bench's profile, agreed, and the environment of whoever promotes."""

    def __init__(self, folder: Path, served: Account, bench: Bench) -> None:
        self.folder, self.bench, self.profiles = folder, bench, folder / "profiles"
        self.name = bench.channel.profile
        self.profiles.mkdir()
        for file in (ROOT / "profiles").glob("*.yaml"):
            (self.profiles / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "AWS_ENDPOINT_URL": served.url,
            "AWS_ACCESS_KEY_ID": served.key,
            "AWS_SECRET_ACCESS_KEY": served.secret,
            "SPOT_AWS_REGION": bench.witness.region,
            "AWS_REGION": bench.witness.worker_region,
            "BAKE_LAUNCH_TEMPLATE": bench.channel.template or "lt-0123456789abcdef0",
        }
        self.write(
            "root_volume: {size_gib: 8}\nchannels: {stable: {launch_template: '${BAKE_LAUNCH_TEMPLATE}'}}\n"
        )
        self.agree()

    def write(self, text: str) -> None:
        (self.profiles / f"{self.name}.yaml").write_text(f"extends: g6e-ubuntu\n{text}", encoding="utf-8")

    def agree(self) -> None:
        """As `bake approve` records it, but for what it would ask AWS for."""
        found = profiles.load(self.name, self.profiles, {**VARIABLES, **self.environment})
        lock = lockfile.path_of(self.name, self.profiles, rehearsal=False)
        differences = compare(Guarded(stated_facts(found), {}), None)
        agreement = approve.agree(None, lock, differences, "a test", "Ada <ada@example.org>")
        lockfile.write(lockfile.LockFile(lock, agreement, None), lockfile.content(lock), "a test")

    def bake(self, *words: str, **variables: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "bake.cli", *words],
            cwd=self.folder,
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    def json(self, *words: str) -> Any:
        code, shown, said = self.bake(*words, "--json")
        assert code == 0, said
        return json.loads(shown)

    @property
    def images(self) -> Mapping[str, Any]:
        return {one["image"]: one for one in self.json("images", "--profile", self.name)}


@pytest.fixture
def shell(tmp_path: Path, served: Account, aws: Aws, witness: Aws) -> Shell:
    return Shell(tmp_path, served, Bench.new(aws, witness).with_template(BASE))


def image(shell: Shell) -> str:
    return shell.bench.image(venue="AWS")


def test_the_way_of_two_images(shell: Shell) -> None:
    first, second = image(shell), image(shell)
    chosen = ("--profile", shell.name)
    for one, why, named in ((first, "the first", chosen), (second, "the second", ())):
        code, shown, said = shell.bake("promote", one, *named, "--to", "stable", "--because", why)
        assert code == 0, said
    assert shown.splitlines() == [
        f"stable serves {second} in eu-north-1, instead of {first} (version 2)",
        f"version 3 of {shell.bench.channel.template} is its default",
    ]
    [told] = shell.json("channels", *chosen)
    assert (told["image"], told["why"], told["faults"]) == (second, "the second", [])
    assert [one["why"] for one in told["history"]] == ["the second", "the first"]
    code, shown, _ = shell.bake("channels", "--history")
    assert (code, shown.count(second), shown.count(first)) == (0, 2, 1)
    assert "stable " in shown
    assert shell.images[second]["channels"] == ["stable"]
    code, _, said = shell.bake("revoke", second, "--because", "CVE-1")
    assert (code, f"the channel stable of {shell.name}" in said) == (5, True)
    back = shell.json("rollback", "--channel", "stable", "--because", "black pictures")
    assert (back["served"][0]["image"], back["skipped"]) == (first, [])
    assert shell.json("channels", *chosen)[0]["why"] == "rollback: black pictures"
    code, shown, said = shell.bake("revoke", second, "--because", "CVE-1")
    assert (code, shown) == (0, f"{second} in eu-north-1 is revoked (marked and disabled now): CVE-1\n"), said
    code, _, said = shell.bake("promote", second, *chosen, "--to", "stable", "--because", "again")
    assert (code, f"error: {second} is not served: it is revoked: CVE-1" in said) == (2, True)
    row = shell.images[second]
    assert (row["state"], row["because"], row["channels"]) == ("revoked", "CVE-1", [])


def test_what_is_not_agreed_is_not_changed(shell: Shell) -> None:
    one = image(shell)
    shell.write("root_volume: {size_gib: 8}\nchannels: {stable: {parameter: /somebody/elses}}\n")
    words = ("promote", one, "--profile", shell.name, "--to", "stable", "--because", "x")
    code, _, said = shell.bake(*words)
    assert code == 3
    assert "channels" in said
    assert "stable: parameter /somebody/elses, no template" in said
    assert f'bake approve --profile {shell.name} --because "…"' in said
    lockfile.path_of(shell.name, shell.profiles, rehearsal=False).unlink()
    code, _, said = shell.bake(*words)
    assert (code, "has no agreement yet" in said) == (3, True)
    assert shell.bench.values() == []


def test_disks_that_are_not_agreed_are_not_served(shell: Shell) -> None:
    shell.write("root_volume: {size_gib: 80}\nchannels: {stable: {}}\n")
    shell.agree()
    words = ("promote", image(shell), "--profile", shell.name, "--to", "stable", "--because", "x")
    code, _, said = shell.bake(*words)
    assert (code, "root_volume.size_gib" in said) == (3, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("promote", "ami-1", "--to", "stable", "--because", "x"), "error: 'ami-1' is not an AMI id"),
        (("promote", "ami-12345678", "--to", "stable", "--because", " "), "error: --because is empty"),
        (
            ("promote", "ami-12345678", "--to", "beta", "--because", "x"),
            "has no channel 'beta'; it has stable",
        ),
        (
            ("promote", "ami-12345678", "--to", "stable", "--because", "x", "--region", "us-east-1"),
            "has no channel there",
        ),
        (("rollback", "--channel", "stable", "--because", "x"), "stable has never served an AMI"),
        (("rollback", "--channel", "stable", "--because", "x", "--to", "x"), "'x' is not an AMI id"),
        (("revoke", "ami-12345678", "--because", "…"), "error: --because is empty"),
    ],
)
def test_what_is_asked_wrongly_is_told(shell: Shell, words: tuple[str, ...], says: str) -> None:
    code, shown, said = shell.bake(*words, "--profile", shell.name)
    assert (code, shown) == (2, "")
    assert says in said


def test_an_ami_that_is_not_there_is_told(shell: Shell) -> None:
    chosen = ("--profile", shell.name, "--because", "x")
    code, _, said = shell.bake("promote", "ami-12345678", "--to", "stable", *chosen)
    assert (code, "there is no ami-12345678 in eu-north-1" in said) == (2, True), said
    for words in (chosen, ("--because", "x"), ("--because", "x", "--region", "eu-north-1")):
        code, _, said = shell.bake("revoke", "ami-12345678", *words)
        assert (code, "there is no ami-12345678 in eu-north-1" in said) == (2, True), said


def test_without_a_profile_it_is_the_only_one_with_such_a_channel(shell: Shell) -> None:
    words = ("rollback", "--because", "x", "--channel")
    code, _, said = shell.bake(*words, "beta")
    assert (code, "no profile here has a channel 'beta'" in said) == (2, True)
    (shell.profiles / "other.yaml").write_text("extends: g6e-ubuntu\nchannels: {stable: {}}\n")
    code, _, said = shell.bake(*words, "stable")
    names = ", ".join(sorted(("other", shell.name)))
    assert (code, f"{names} have a channel 'stable'" in said) == (2, True)
    code, _, said = shell.bake("promote", BASE, "--to", "stable", "--because", "x")
    assert (code, f"{BASE} was not made by bake" in said) == (2, True)


def test_without_the_templates_variable_it_says_which(shell: Shell) -> None:
    words = ("promote", "ami-12345678", "--to", "stable", "--because", "x", "--profile", shell.name)
    code, _, said = shell.bake(*words, BAKE_LAUNCH_TEMPLATE="")
    assert (code, "BAKE_LAUNCH_TEMPLATE" in said) == (2, True), said
    code, shown, said = shell.bake("channels", BAKE_LAUNCH_TEMPLATE="")
    assert (code, shown) == (0, "no profile here has channels\n")
    assert f"the channels of the profile {shell.name} are not looked at" in said


def test_a_secret_in_the_reason_is_in_no_history(shell: Shell) -> None:
    one = image(shell)
    words = ("promote", one, "--profile", shell.name, "--to", "stable", "--because")
    assert shell.bake(*words, f"see hf_{'a' * 30}\nand {'b' * 1200}")[0] == 0
    [told] = shell.json("channels", "--profile", shell.name)
    assert told["why"].startswith("see [redacted] and bbb")
    assert len(told["why"]) == 1024
