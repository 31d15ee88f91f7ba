"""The controller's lock pins and hashes all that `bake`, the local cloud and the tests install."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements" / "controller.txt").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
# Debian 12, Ubuntu 24.04, Debian 13.
PYTHONS = ["3.11.2", "3.12.3", "3.13.5"]


def entries() -> list[tuple[Requirement, list[str]]]:
    """Each pin with its hashes."""
    lines = [line for line in LOCK.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    split = [line.split("--hash=") for line in lines]
    return [(Requirement(pin.strip()), [digest.strip() for digest in hashes]) for pin, *hashes in split]


def pinned(python: str) -> dict[str, str]:
    """Name -> version of what a Linux machine with this Python installs."""
    where = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    where |= {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "extra": ""}
    here = [pin for pin, _ in entries() if pin.marker is None or pin.marker.evaluate(where)]
    found = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in here}
    assert len(found) == len(here), "one version of each"
    return found


def wanted() -> list[Requirement]:
    """What pyproject.toml names: what runs, what builds, and the extras that the Makefile installs."""
    named = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    return [Requirement(one) for one in [*named, *EXTRAS["moto"], *EXTRAS["dev"]]]


def test_everything_is_pinned_and_hashed() -> None:
    assert len(entries()) > 50
    for pin, hashes in entries():
        assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), pin
        assert hashes, f"{pin} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes), pin


def test_nothing_of_the_machine_that_made_it_is_in_it() -> None:
    assert not re.search(r"://|file:|--index|--extra|--find-links|--trusted|/home/|/root/|/tmp/", LOCK)


@pytest.mark.parametrize("python", PYTHONS)
def test_it_answers_pyproject(python: str) -> None:
    """Where this fails, something was added without `make lock`."""
    locked = pinned(python)
    assert set(EXTRAS) == {"local", "moto", "dev"}, "another extra: does the Makefile install it?"
    for requirement in wanted():
        version = locked.get(canonicalize_name(requirement.name))
        assert version, f"{requirement} is not in the lock"
        assert requirement.specifier.contains(version, prereleases=True), (
            f"{requirement}: locked is {version}"
        )


def needs(requirement: Requirement) -> Iterator[Requirement]:
    """What an installed distribution needs for itself and for the extras that are asked of it."""
    for text in importlib.metadata.requires(requirement.name) or []:
        one = Requirement(text)
        asked = ["", *requirement.extras]
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in asked):
            yield one


def test_what_comes_along_is_in_it_too() -> None:
    """The tree of what is installed, from pyproject.toml down: nothing of it comes without a hash."""
    locked = {canonicalize_name(pin.name): pin.specifier for pin, _ in entries()}
    missing, seen, todo = set(), set(), wanted()
    while todo:
        requirement = todo.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        if canonicalize_name(requirement.name) not in locked:
            missing.add(str(requirement))
            continue
        todo += needs(requirement)
    assert missing == set()
    assert len(seen) > len(wanted())


def test_torch_is_the_workers_and_not_in_it() -> None:
    names = {canonicalize_name(pin.name) for pin, _ in entries()}
    assert not names & {"torch", "diffusers", "transformers"}
    assert not [name for name in names if name.startswith(("nvidia", "triton"))]


def test_controller_and_worker_have_one_version_of_what_both_need() -> None:
    """Both stand in one environment in rehearsals and tests; images get the worker's versions."""
    worker = (ROOT / "provision" / "locks" / "worker.txt").read_text(encoding="utf-8")
    theirs = dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", worker, re.MULTILINE))
    ours = pinned(PYTHONS[0])
    shared = ours.keys() & theirs.keys()
    assert {"boto3", "pydantic", "click", "huggingface-hub"} <= shared
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}


def test_make_installs_by_hash_and_nothing_before_it() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    first, own, *_ = re.findall(r"^\t.*pip install (.*)$", makefile, re.MULTILINE)
    assert {"--require-hashes", "$(WHEELS)", "$(LOCK)"} <= set(first.split())
    assert "WHEELS := --only-binary :all:" in makefile
    assert {"--no-deps", "--no-build-isolation"} <= set(own.split())
