"""Where a machine's distribution publishes security updates, as its own files say."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from bake.checks.inventory import Source

PROBES = "bake.checks.probes"


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module, with the one that is sent with it."""
    installed = importlib.import_module(f"{PROBES}.installed")
    monkeypatch.setattr(installed, "output", lambda *_: "x86_64\n")
    monkeypatch.setitem(sys.modules, "installed", installed)
    yield importlib.import_module(f"{PROBES}.sources")
    sys.modules.pop(f"{PROBES}.sources")


TARGETS = """\
http://eu-north-1.ec2.archive.ubuntu.com/ubuntu/|jammy|main|amd64
http://eu-north-1.ec2.archive.ubuntu.com/ubuntu/|jammy-updates|main|amd64
http://security.ubuntu.com/ubuntu/|jammy-security|universe|amd64
http://security.ubuntu.com/ubuntu/|jammy-security|main|amd64
http://security.ubuntu.com/ubuntu/|jammy-security|main|i386
https://bearer:secret@esm.ubuntu.com/apps/ubuntu/|jammy-apps-security|main|amd64
https://example.org/security/|stable/updates|main|amd64
https://nvidia.example.org/|/||amd64
"""


def test_the_pockets_of_apt(sources: ModuleType) -> None:
    found = [Source.model_validate(one) for one in sources.pockets(TARGETS, "amd64")]
    assert [(one.url, one.suite, one.components) for one in found] == [
        ("http://security.ubuntu.com/ubuntu/", "jammy-security", ("main", "universe")),
        ("https://esm.ubuntu.com/apps/ubuntu/", "jammy-apps-security", ("main",)),
        ("https://example.org/security/", "stable/updates", ("main",)),
    ]
    assert {one.arch for one in found} == {"amd64"}


AL2023 = """\
[amazonlinux]
name=Amazon Linux 2023 repository
mirrorlist=https://al2023-repos-$awsregion-de612dc2.s3.dualstack.$awsregion.$awsdomain/core/mirrors/$releasever/$basearch/mirror.list
priority=10
enabled=1
repo_gpgcheck=0

[amazonlinux-source]
mirrorlist=https://example.org/source
enabled=1

[amazonlinux-debuginfo]
mirrorlist=https://example.org/debug
enabled=0
"""


def test_the_repositories_of_amazon_linux(sources: ModuleType, tmp_path: Path) -> None:
    for name, text in (
        ("etc/yum.repos.d/amazonlinux.repo", AL2023),
        ("etc/yum.repos.d/cuda.repo", "[cuda]\nbaseurl=https://me:secret@nvidia.example.org/\nenabled=1\n"),
        ("etc/yum.repos.d/own.repo", "[amazonlinux-own]\nbaseurl=https://me:secret@own/${basearch}/ x\n"),
        ("etc/dnf/vars/awsregion", "eu-north-1\n"),
        ("etc/dnf/vars/awsdomain", "amazonaws.com\n"),
        ("etc/dnf/vars/releasever", "2023.6.20241010\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = [Source.model_validate(one) for one in sources.of_updates(tmp_path, "rpm")]
    assert [(one.kind, one.url) for one in found] == [
        (
            "mirrorlist",
            "https://al2023-repos-eu-north-1-de612dc2.s3.dualstack.eu-north-1.amazonaws.com"
            "/core/mirrors/latest/x86_64/mirror.list",
        ),
        ("baseurl", "https://own/x86_64/"),
    ]
