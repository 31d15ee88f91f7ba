"""Scans: what is covered, what is waived, what fails; and what Amazon Inspector is asked and answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bake.aws import Aws
from bake.report import inspector
from bake.report.model import Inventory, Package, Vulnerability
from bake.report.sbom import sbom
from bake.report.scan import Answer, Bom, concluded, failing
from bake.report.system import System
from tests.report import samples

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
UBUNTU = System("ubuntu", "22.04", "deb", "ubuntu")
AMAZON = System("amzn", "2023", "rpm", "amazon")


def bom(*packages: Package, os: str = "Ubuntu 22.04.5 LTS") -> Bom:
    inventory = Inventory(moment="sealed", kernel="6.8", os=os, packages=packages)
    return Bom(json.loads(sbom(samples.GOOD.model_copy(update={"inventories": (inventory,)}))))


def deb(name: str, version: str = "1", source: str = "openssl 1") -> Package:
    return Package(kind="deb", name=name, version=version, arch="amd64", source=source)


def python(name: str, version: str = "1") -> Package:
    return Package(kind="python", name=name, version=version)


def weakness(
    id_: str = "CVE-2026-0001", severity: str = "critical", package: str = "openssl"
) -> Vulnerability:
    return Vulnerability(id=id_, severity=severity, package=package, version="1")


def answer(*found: Vulnerability, covered: tuple[str, ...] = ("deb", "python")) -> Answer:
    return Answer("grype", "0.104.0", "2026-11-28T06:00:00Z", found, covered)


def waiver(check: str = "CVE-2026-0001", until: date = date(2026, 12, 31)) -> samples.Waiver:
    return samples.WAIVER.model_copy(update={"check": check, "until": until})


def test_kinds_that_a_scanner_does_not_know_are_not_covered() -> None:
    scan = concluded(
        bom(deb("libssl3"), python("torch"), Package(kind="program", name="nvidia-smi", version="580")),
        answer(),
        (),
        None,
        NOW,
    )
    assert scan.covered == ("deb", "python")
    assert scan.not_covered == ("machine-learning-model", "program")
    assert scan.at == "2026-11-29T12:00:00Z"


@pytest.mark.parametrize(
    ("os", "covered"),
    [
        ("Ubuntu 22.04.5 LTS", ("deb", "python")),
        ("Debian GNU/Linux 12 (bookworm)", ("deb", "python")),
        pytest.param("Arch Linux", ("python",), id="unknown distribution"),
    ],
)
def test_packages_of_a_distribution_need_its_name(os: str, covered: tuple[str, ...]) -> None:
    found = bom(deb("bash"), python("torch"), os=os)
    assert found.coverable(("deb", "rpm", "python"), ("ubuntu", "debian")) == covered


def test_packages_that_cannot_be_looked_up_are_counted() -> None:
    found = bom(deb("libssl3"), deb("bash", source=""), deb("a/b"), deb("c", source=""))
    scan = concluded(found, answer(covered=("deb",)), (), None, NOW)
    assert scan.not_covered == (
        "machine-learning-model",
        "1 of 4 deb packages, whose names or versions are none",
        "the sources of 2 of 4 deb packages, which are not recorded",
    )


@pytest.mark.parametrize(
    ("fail_on", "expected"),
    [
        (None, []),
        ("critical", ["critical"]),
        ("high", ["critical", "high"]),
        ("medium", ["critical", "high", "medium"]),
        ("low", ["critical", "high", "medium", "low"]),
    ],
)
def test_a_severity_fails_with_all_worse_ones(fail_on: str | None, expected: list[str]) -> None:
    severities = ("low", "unknown", "critical", "negligible", "medium", "high")
    found = [weakness(f"CVE-2026-{number:04}", severity) for number, severity in enumerate(severities)]
    scan = concluded(bom(), answer(*found), (), fail_on, NOW)
    assert [one.severity for one in failing(scan)] == expected


def test_a_waived_vulnerability_does_not_fail_and_keeps_its_waiver() -> None:
    scan = concluded(bom(), answer(weakness(), weakness("CVE-2026-0002")), [waiver()], "low", NOW)
    assert [one.id for one in failing(scan)] == ["CVE-2026-0002"]
    assert scan.vulnerabilities[0].waiver == waiver()


@pytest.mark.parametrize(("until", "fails"), [(date(2026, 11, 28), True), (date(2026, 11, 29), False)])
def test_a_waiver_counts_to_the_end_of_its_last_day(until: date, fails: bool) -> None:
    scan = concluded(bom(), answer(weakness()), [waiver(until=until)], "critical", NOW)
    assert bool(failing(scan)) == fails


def test_a_vulnerability_is_listed_once_and_the_worst_first() -> None:
    found = answer(weakness("CVE-2026-0009", "low"), weakness(), weakness(), weakness(package="another"))
    listed = concluded(bom(), found, (), None, NOW).vulnerabilities
    assert [(one.severity, one.package) for one in listed] == [
        ("critical", "another"),
        ("critical", "openssl"),
        ("low", "openssl"),
    ]


@pytest.mark.parametrize(
    ("purl", "system", "expected"),
    [
        pytest.param(
            "pkg:deb/ubuntu/login@1:4.8.1-2ubuntu2.1?arch=amd64&distro=ubuntu-22.04&upstream=shadow%401:4.8",
            UBUNTU,
            "pkg:deb/ubuntu/login@4.8.1-2ubuntu2.1?arch=amd64&distro=jammy&epoch=1&source=shadow",
            id="deb",
        ),
        pytest.param(
            "pkg:deb/ubuntu/bash@5.1-6ubuntu1?arch=amd64&distro=ubuntu-22.04",
            UBUNTU,
            "pkg:deb/ubuntu/bash@5.1-6ubuntu1?arch=amd64&distro=jammy&epoch=0",
            id="deb of its own source",
        ),
        pytest.param(
            "pkg:rpm/amzn/rpm@4.16.1.3-12.amzn2023.0.6?arch=x86_64&distro=amzn-2023&epoch=2&upstream=rpm-4.src.rpm",
            AMAZON,
            "pkg:rpm/amazon/rpm@4.16.1.3-12.amzn2023.0.6?arch=x86_64&distro=2023&epoch=2",
            id="rpm",
        ),
        pytest.param("pkg:pypi/torch@2.13.0", UBUNTU, "pkg:pypi/torch@2.13.0", id="Python"),
    ],
)  # fmt: skip
def test_inspector_is_asked_in_its_dialect(purl: str, system: System, expected: str) -> None:
    """Its generator's own SBOMs of public images have these forms."""
    assert inspector.dialect(purl, system) == expected


@dataclass
class Inspector:
    """A server that answers ScanSbom as Amazon Inspector does: `openssl` and `torch` have a vulnerability."""

    port: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    skips: tuple[str, ...] = ()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(request)
        components, found = [], []
        for number, one in enumerate(request["sbom"]["components"], 1):
            ref = f"comp-{number}"
            known = any(word in one.get("purl", "") for word in ("source=openssl", "pypi/torch@"))
            said = "warning", "Component skipped: no rules found."
            if one["name"] not in self.skips:
                said = "info", "Component scanned: no vulnerabilities found."
            notes = [] if known else [{"name": f"{inspector.SCANNER}:{said[0]}", "value": said[1]}]
            components.append({**one, "bom-ref": ref, "properties": notes})
            if known:
                found.append(self.vulnerability(ref))
        metadata = {
            "timestamp": "2026-11-29T11:59:00.000Z",
            "tools": {
                "services": [{"name": "Amazon Inspector Scan SBOM API", "version": "98c43ef0+9b268ee8"}]
            },
        }
        bom = {"specVersion": "1.5", "metadata": metadata, "components": components, "vulnerabilities": found}
        return {"sbom": bom}

    @staticmethod
    def vulnerability(ref: str) -> dict[str, Any]:
        ratings = [
            {"method": "other", "severity": "none", "source": {"name": "EPSS"}},
            {"method": "other", "severity": "medium", "source": {"name": "UBUNTU_CVE"}},
            {"method": "CVSSv31", "severity": "high", "source": {"name": "NVD"}},
        ]
        return {
            "id": "CVE-2026-0001",
            "source": {"name": "NVD", "url": "https://nvd.nist.gov/vuln/detail/CVE-2026-0001"},
            "ratings": ratings,
            "affects": [{"ref": ref}],
            "properties": [{"name": f"{inspector.SCANNER}:fixed_version:{ref}", "value": "0:2"}],
        }


@pytest.fixture
def service() -> Iterator[Inspector]:
    inspected = Inspector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/scan/sbom"
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(inspected.answer(request)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    inspected.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield inspected
    server.shutdown()
    server.server_close()
    thread.join()


def aws(service: Inspector) -> Aws:
    region = "eu-north-1"
    return Aws(region=region, worker_region=region, endpoint=f"http://127.0.0.1:{service.port}")


@pytest.mark.integration
def test_inspector_is_asked_for_an_sbom_and_its_answer_is_understood(service: Inspector) -> None:
    found = bom(deb("libssl3", "1:3.0.2"), deb("bash", source="bash 1"), python("torch", "2.13.0+cu130"))
    told = inspector.ask(aws(service), found)
    assert (told.scanner, told.version) == ("Amazon Inspector", "98c43ef0+9b268ee8")
    assert told.database == "2026-11-29T11:59:00.000Z"
    assert told.covered == ("deb", "python")
    assert told.notes == ()
    assert [(one.package, one.version, one.severity, one.fixed_in) for one in told.vulnerabilities] == [
        ("libssl3", "1:3.0.2", "high", "0:2"),
        ("torch", "2.13.0+cu130", "high", "0:2"),
    ]
    (asked,) = service.asked
    assert asked["outputFormat"] == "CYCLONE_DX_1_5"
    assert asked["sbom"]["specVersion"] == "1.5"
    first, *packages = asked["sbom"]["components"]
    assert (first["type"], first["name"], first["version"]) == ("operating-system", "ubuntu", "22.04")
    assert {one["purl"] for one in packages} == {
        "pkg:deb/ubuntu/libssl3@3.0.2?arch=amd64&distro=jammy&epoch=1&source=openssl",
        "pkg:deb/ubuntu/bash@1?arch=amd64&distro=jammy&epoch=0",
        "pkg:pypi/torch@2.13.0%2Bcu130",
    }


@pytest.mark.integration
def test_packages_for_which_inspector_has_no_rules_are_not_covered(service: Inspector) -> None:
    service.skips = ("bash", "torch-geometric")
    found = bom(deb("libssl3"), deb("bash", source="bash 1"), python("torch-geometric"))
    told = inspector.ask(aws(service), found)
    assert told.covered == ("deb",)
    assert told.notes == ("1 of 2 deb packages, for which Inspector has no rules",)
    assert "python" in concluded(found, told, (), None, NOW).not_covered


@pytest.mark.integration
def test_more_packages_than_inspector_takes_are_asked_in_parts(
    service: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspector, "BATCH", 2)
    told = inspector.ask(aws(service), bom(*(deb(f"package-{number}") for number in range(5))))
    assert [len(one["sbom"]["components"]) for one in service.asked] == [3, 3, 2]
    assert {one["sbom"]["components"][0]["type"] for one in service.asked} == {"operating-system"}
    assert len(told.vulnerabilities) == 5


@pytest.mark.parametrize(
    ("severities", "expected"),
    [
        ([("NVD", "high"), ("AMAZON", "critical")], "critical"),
        ([("EPSS", "none")], "unknown"),
        ([("NVD", "untriaged")], "unknown"),
        ([("NVD", "info")], "negligible"),
        ([], "unknown"),
    ],
)
def test_inspectors_severity_is_the_worst_that_anybody_says(
    severities: list[tuple[str, str]], expected: str
) -> None:
    ratings = [{"severity": severity, "source": {"name": name}} for name, severity in severities]
    assert inspector._severity({"ratings": ratings}) == expected


def test_packages_within_a_source_are_found() -> None:
    """As Inspector answers: what was built from glibc is within it."""
    inner = {
        "bom-ref": "comp-4",
        "name": "libc6",
        "version": "2.24-11%2Bdeb9u4",
        "purl": "pkg:deb/debian/libc6@2",
    }
    outer = {"bom-ref": "comp-3", "name": "glibc", "purl": "pkg:deb/debian/glibc@2", "components": [inner]}
    told = {"components": [outer], "vulnerabilities": [Inspector.vulnerability("comp-4")]}
    (found,) = inspector._vulnerabilities(told)
    assert (found.package, found.version) == ("libc6", "2.24-11+deb9u4")
    assert inspector._coverage([told])[1] == {"deb": 2}
