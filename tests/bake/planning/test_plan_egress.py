"""What a plan says the builder must reach."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bake.planning.render import as_dict, as_text

from ..conftest import REAL
from .conftest import Account


def test_the_usual_profile_needs_the_hub_and_the_index(account: Account) -> None:
    plan = account.plan()
    assert {host for one in plan.provision.egress if one.always for host in one.hosts} == {
        "huggingface.co",
        "*.hf.co",
        "pypi.org",
        "files.pythonhosted.org",
    }
    maybe = {host for one in plan.provision.egress if not one.always for host in one.hosts}
    assert {"github.com", "release-assets.githubusercontent.com"} < maybe
    assert as_dict(plan)["egress"][0].keys() == {"hosts", "why", "always"}


def test_hosts_and_reasons_are_printed(account: Account) -> None:
    text = as_text(account.plan())
    section = text.split("What the builder must reach:\n")[1].split("\n\n")[0].splitlines()
    [python] = [line for line in section if line.lstrip().startswith("github.com ")]
    assert "maybe: cpython-3.11." in python
    assert "where the base has no whole Python 3.11" in python


def test_a_mirror_is_reached_first(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bake.planning.wiring.check_mirror", lambda *_: None)
    plan = account.plan(weights={"mirror": "s3://some-bucket/prefix"})
    assert plan.provision.egress[0].hosts == ("some-bucket.s3.*.amazonaws.com",)
    assert any(one.why == "the weights that the mirror does not have" for one in plan.provision.egress)


@pytest.mark.parametrize(
    ("section", "fields", "there"),
    [
        (
            "nvidia",
            {"driver": "580.95.05", "repository": "https://cuda.example/repos/x", "fingerprint": "A" * 40},
            True,
        ),
        ("nvidia", {"driver": None, "repository": "https://cuda.example/repos/x"}, False),
    ],
    ids=["pinned", "not pinned"],
)
def test_a_repository_is_reached_where_something_is_pinned(
    account: Account, section: str, fields: dict[str, object], there: bool
) -> None:
    hosts = {host for one in account.plan(**{section: fields}).provision.egress for host in one.hosts}
    assert ("cuda.example" in hosts) == there


def test_a_rehearsal_names_its_own_servers(account: Account) -> None:
    sources = replace(REAL, hub=None, builder={"UV_DEFAULT_INDEX": "http://10.0.0.1:4581/simple"})
    hosts = {host for one in account.plan(sources=sources).provision.egress for host in one.hosts}
    assert "10.0.0.1:4581" in hosts
    assert "pypi.org" not in hosts


def test_security_updates_come_from_the_bases_own_sources(account: Account) -> None:
    [one] = [
        one for one in account.plan(base={"updates": "security"}).provision.egress if "base" in one.hosts[0]
    ]
    assert (one.why, one.always) == ("the distribution's security updates", True)
