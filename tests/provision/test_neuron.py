"""The Neuron stack on real machines, from repositories with valid, wrong and expired signatures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from bake.steps import provision
from bake.steps.check_script import NOTE

from .neuron_machines import Tried, tried

if TYPE_CHECKING:
    from tests.conftest import NewMachine
    from tests.outside import Outside

pytestmark = pytest.mark.root


@pytest.fixture(
    scope="module", params=["g6e-ubuntu", pytest.param("g6e-amazon-linux", marks=pytest.mark.long)]
)
def on(
    request: pytest.FixtureRequest,
    new_machine: NewMachine,
    outside: Outside,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Tried]:
    with new_machine(request.param) as machine:
        provision.upload(machine.session, machine.plan, machine.run)
        with tried(machine, tmp_path_factory.mktemp("neuron"), outside) as found:
            yield found


@pytest.fixture(autouse=True)
def _as_before(on: Tried) -> Iterator[None]:
    """Each case starts without the stack, and leaves the machine's sources as they were."""
    before = on.sources()
    yield
    assert on.sources() == before
    on.clear()


def test_a_signed_repository_is_verified_by_the_pinned_fingerprint(on: Tried) -> None:
    done = on.run(NEURON_REPOSITORY=f"{on.url}/signed", NEURON_FINGERPRINT=on.good.fingerprint)
    assert done.exit_code == 0, done.stderr
    assert f"signed by the key {on.good.fingerprint}" in done.stdout
    assert "WITHOUT" not in done.stdout
    assert on.installed() == on.stack
    assert set(on.stack) <= on.held()


BAD = [
    pytest.param("wrongly-signed", "good", "not signed by the key", id="wrongly signed"),
    pytest.param("another-key", "good", "not the pinned", id="another key"),
    pytest.param("expired", "expired", "expired on 2020-12-31", id="expired key"),
    pytest.param("no-key", "good", "holds no OpenPGP key", id="no key"),
    pytest.param("signed", None, "pins no fingerprint", id="no fingerprint"),
]


def pin(on: Tried, key: str | None) -> str:
    return getattr(on, key).fingerprint if key else ""


@pytest.mark.parametrize(("repository", "key", "why"), BAD)
def test_unverified_packages_are_not_installed(on: Tried, repository: str, key: str | None, why: str) -> None:
    done = on.run(NEURON_REPOSITORY=f"{on.url}/{repository}", NEURON_FINGERPRINT=pin(on, key))
    assert done.exit_code == 1
    assert why in done.stderr
    assert "what to do: pin the fingerprint of its present key" in done.stderr
    assert on.installed() == {}


@pytest.mark.parametrize(("repository", "key", "why"), BAD)
def test_nogpgcheck_installs_it_all_the_same_and_says_so(
    on: Tried, repository: str, key: str | None, why: str
) -> None:
    done = on.run(
        NEURON_REPOSITORY=f"{on.url}/{repository}",
        NEURON_FINGERPRINT=pin(on, key),
        NEURON_NOGPGCHECK="yes",
    )
    assert done.exit_code == 0, done.stderr
    notes = [line for line in done.stdout.splitlines() if line.startswith(NOTE)]
    assert any("WITHOUT a verified signature" in line and why in line for line in notes)
    assert on.installed() == on.stack


def test_nogpgcheck_verifies_what_can_be_verified(on: Tried) -> None:
    done = on.run(
        NEURON_REPOSITORY=f"{on.url}/signed",
        NEURON_FINGERPRINT=on.good.fingerprint,
        NEURON_NOGPGCHECK="yes",
    )
    assert done.exit_code == 0, done.stderr
    assert f"signed by the key {on.good.fingerprint}" in done.stdout
    assert "WITHOUT" not in done.stdout


def test_what_is_there_is_left_alone_and_another_version_comes_only_where_it_is_pinned(on: Tried) -> None:
    good = {"NEURON_FINGERPRINT": on.good.fingerprint}
    assert on.run(NEURON_REPOSITORY=f"{on.url}/signed", **good).exit_code == 0
    nowhere = on.run(NEURON_REPOSITORY="http://127.0.0.1:9")
    unpinned = on.run(NEURON_PACKAGES="")
    for done in (nowhere, unpinned):
        assert done.exit_code == 0, done.stderr
        assert "there already and left alone" in done.stdout
        assert "note: aws-neuronx-tools 2.26.14.0" in done.stdout
    older = on.run(
        NEURON_REPOSITORY=f"{on.url}/older",
        NEURON_PACKAGES="aws-neuronx-tools=2.20.0.0-1"
        if on.stack["aws-neuronx-tools"].endswith("-1")
        else "aws-neuronx-tools=2.20.0.0",
        **good,
    )
    assert older.exit_code == 0, older.stderr
    assert on.installed()["aws-neuronx-tools"].startswith("2.20.0.0")
    assert on.installed()["aws-neuronx-dkms"] == on.stack["aws-neuronx-dkms"]


def test_a_stack_that_is_neither_installed_nor_pinned_is_reported(on: Tried) -> None:
    done = on.run(NEURON_PACKAGES="")
    assert done.exit_code == 1
    assert "the base AMI has no aws-neuronx-runtime-lib, and the profile pins no version" in done.stderr


def test_a_missing_version_is_reported_and_nothing_unsigned_installed(on: Tried) -> None:
    done = on.run(
        NEURON_REPOSITORY=f"{on.url}/signed",
        NEURON_FINGERPRINT=on.good.fingerprint,
        NEURON_PACKAGES=on.pins.replace("2.24.7.0", "9.9"),
        NEURON_NOGPGCHECK="yes",
    )
    assert done.exit_code == 1
    assert "aws-neuronx-dkms=9.9" in done.stderr
    assert "WITHOUT" not in done.stdout
    assert on.installed() == {}


@pytest.mark.parametrize("unsigned", ["no", "yes"])
def test_a_repository_that_is_down_is_reported(on: Tried, unsigned: str) -> None:
    done = on.run(
        NEURON_REPOSITORY="http://127.0.0.1:9/none",
        NEURON_FINGERPRINT=on.good.fingerprint,
        NEURON_NOGPGCHECK=unsigned,
    )
    assert done.exit_code == 1
    assert "key can't be fetched" in done.stderr
    assert "curl:" in done.stderr
    assert on.installed() == {}


def test_the_base_amis_own_source_of_the_same_repository_does_not_disturb(on: Tried) -> None:
    """A Deep Learning AMI names Neuron's repository itself, often with a key that has expired."""
    file, content = on.own_source(f"{on.url}/signed")
    on.session.run("tee", file, stdin=content.encode(), sudo=True)
    try:
        done = on.run(NEURON_REPOSITORY=f"{on.url}/signed", NEURON_FINGERPRINT=on.good.fingerprint)
        assert done.exit_code == 0, done.stderr
        assert on.session.run("cat", file).stdout == content
    finally:
        on.session.run("rm", file, sudo=True)


def test_other_accelerators_need_none_of_it(on: Tried) -> None:
    done = on.run(BAKE_ACCELERATOR="cuda")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
