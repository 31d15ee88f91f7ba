"""The SBOM: valid CycloneDX, and what scanners find in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from bake.report.model import Inventory, Package, Report, WeightFile
from bake.report.purls import package_url
from bake.report.sbom import sbom
from bake.report.system import system
from bake.report.text import UNSAFE
from tests.report import samples

REPORTS = {
    "good": samples.GOOD,
    "failed": samples.FAILED,
    "hostile": samples.HOSTILE,
    "nothing known": samples.GOOD.model_copy(
        update={"image": None, "base": None, "inventories": (), "weights": None}
    ),
}
BAD = "\x00\x1b[2J\ud800\ufffe\u202e</script>\"'&?#@%2F:;\n"


def validate(text: str) -> None:
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, error


def read(report: Report) -> Any:
    return json.loads(sbom(report))


def with_packages(*packages: Package, os: str = "Ubuntu 22.04.5 LTS", **more: Any) -> Report:
    inventory = Inventory(moment="sealed", kernel="6.8", os=os, packages=packages, **more)
    return samples.GOOD.model_copy(update={"inventories": (inventory,)})


def properties(component: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["name"], one["value"]) for one in component.get("properties", [])]


def named(found: Any, name: str) -> dict[str, Any]:
    (component,) = (one for one in found["components"] if one["name"] == name)
    return dict(component)


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_it_is_valid(report: Report) -> None:
    text = sbom(report)
    validate(text)
    assert not UNSAFE.search(text)


@pytest.mark.parametrize("kind", ["deb", "rpm", "python", "program", BAD])
@pytest.mark.parametrize("os", ["Ubuntu 22.04.5 LTS", "Amazon Linux 2023", BAD])
def test_it_is_valid_whatever_a_machine_holds(kind: str, os: str) -> None:
    package = Package(kind=kind, name=BAD, version=BAD, arch=BAD, where=BAD, source=f"{BAD} {BAD}")
    unnamed = Package(kind=kind, name="", version="")
    weights = samples.GOOD.weights
    assert weights
    weights = weights.model_copy(
        update={
            "repo": BAD,
            "revision": BAD,
            "licence": BAD,
            "licence_url": BAD,
            "files": (WeightFile(path=BAD, bytes=1, hash="sha256:" + "0" * 64),),
        }
    )
    report = with_packages(package, package, unnamed, os=os, incomplete=(BAD,))
    text = sbom(report.model_copy(update={"weights": weights}))
    validate(text)
    assert not UNSAFE.search(text)
    assert len([one for one in json.loads(text)["components"] if one["bom-ref"].startswith("package:")]) == 2


def test_the_validator_would_find_a_fault() -> None:
    found = read(samples.GOOD)
    found["components"][0]["kind"] = "unknown key"
    with pytest.raises(AssertionError):
        validate(json.dumps(found))


def test_it_is_about_the_ami_and_names_its_base() -> None:
    image = read(samples.GOOD)["metadata"]["component"]
    assert image["type"] == "operating-system"
    assert image["name"] == "flux1-dev-g6e-ubuntu-20261129-030709-9572df"
    assert image["version"] == "ami-0c0ffee0c0ffee001"
    (base,) = image["pedigree"]["ancestors"]
    assert (base["name"], base["version"], base["publisher"]) == (
        "Deep Learning OSS (Ubuntu 22.04)",
        "ami-0ba5e0ba5e0ba5e01",
        "amazon",
    )
    assert {
        ("bake:venue", "REHEARSAL"),
        ("bake:verdict", "good"),
        ("bake:run", "20261129-030709-9572df"),
        ("bake:plan", "b251f123a8225c7e"),
        ("bake:account", "123456789012"),
        ("bake:inventory", "sealed"),
        ("bake:kernel", "6.8.0-1021-aws"),
    } <= set(properties(image))


def test_the_same_run_gives_the_same_text() -> None:
    assert sbom(samples.GOOD) == sbom(samples.GOOD.model_copy())
    found = read(samples.GOOD)
    assert found["metadata"]["timestamp"] == "2026-11-29T03:08:00+00:00"
    other = samples.GOOD.run.model_copy(update={"id": "another"})
    assert read(samples.GOOD.model_copy(update={"run": other}))["serialNumber"] != found["serialNumber"]


def test_the_distribution_comes_first_as_scanners_look_for_it() -> None:
    first, *others = read(samples.GOOD)["components"]
    assert (first["type"], first["name"], first["version"]) == ("operating-system", "ubuntu", "22.04")
    assert not [one for one in others if one["type"] == "operating-system"]


def deb(name: str, version: str, source: str) -> Package:
    return Package(kind="deb", name=name, version=version, arch="amd64", source=source)


RPM = Package(
    kind="rpm",
    name="openssl-libs",
    version="1:3.2.2-1.amzn2023",
    arch="x86_64",
    source="openssl-3.2.2-1.amzn2023.src.rpm",
)


@pytest.mark.parametrize(
    ("package", "os", "expected"),
    [
        pytest.param(
            deb("libssl3", "3.0.2-0ubuntu1.18", "openssl 3.0.2-0ubuntu1.18"),
            "Ubuntu 22.04.5 LTS",
            "pkg:deb/ubuntu/libssl3@3.0.2-0ubuntu1.18?arch=amd64&distro=ubuntu-22.04&upstream=openssl",
            id="deb of another source",
        ),
        pytest.param(
            deb("login", "1:4.13+dfsg1-1+b1", "shadow 1:4.13+dfsg1-1"),
            "Debian GNU/Linux 12 (bookworm)",
            "pkg:deb/debian/login@1:4.13%2Bdfsg1-1%2Bb1?arch=amd64&distro=debian-12"
            "&upstream=shadow%401:4.13%2Bdfsg1-1",
            id="deb of another version",
        ),
        pytest.param(
            deb("bash", "5.1", "bash 5.1"),
            "Ubuntu 22.04.5 LTS",
            "pkg:deb/ubuntu/bash@5.1?arch=amd64&distro=ubuntu-22.04",
            id="deb of its own source",
        ),
        pytest.param(
            RPM,
            "Amazon Linux 2023.6.20241010",
            "pkg:rpm/amzn/openssl-libs@3.2.2-1.amzn2023?arch=x86_64&distro=amzn-2023&epoch=1"
            "&upstream=openssl-3.2.2-1.amzn2023.src.rpm",
            id="rpm with an epoch",
        ),
        pytest.param(
            Package(kind="python", name="Torch_Geometric", version="2.13.0+cu130"),
            "",
            "pkg:pypi/torch-geometric@2.13.0%2Bcu130",
            id="Python",
        ),
        pytest.param(deb("bash", "5", ""), "Arch Linux", None, id="unknown distribution"),
        pytest.param(deb("a/../b", "5", ""), "Ubuntu 22.04", None, id="no name"),
        pytest.param(RPM, "Ubuntu 22.04", None, id="foreign package"),
        pytest.param(Package(kind="program", name="smi", version="580"), "Ubuntu 22.04", None, id="program"),
    ],
)
def test_package_urls_are_as_grype_reads_them(package: Package, os: str, expected: str | None) -> None:
    url = package_url(package, system(os))
    assert (url and url.to_string()) == expected


def test_packages_are_those_of_the_sealed_disk() -> None:
    found = read(samples.GOOD)
    assert named(found, "torch")["purl"] == "pkg:pypi/torch@2.13.0"
    assert ("bake:where", "/opt/flux-worker/venv") in properties(named(found, "torch"))
    assert "torch" not in [
        one["name"]
        for one in read(samples.GOOD.model_copy(update={"inventories": (samples.BASE,)}))["components"]
    ]


def test_one_package_in_two_environments_is_there_twice() -> None:
    packages = [Package(kind="python", name="numpy", version="2.0", where=where) for where in ("/a", "/b")]
    found = read(with_packages(*packages))
    assert len([one for one in found["components"] if one["name"] == "numpy"]) == 2


def test_the_weights_are_a_model_with_hashes_and_licence() -> None:
    model = named(read(samples.GOOD), "FLUX.1-dev")
    assert model["type"] == "machine-learning-model"
    assert model["group"] == "black-forest-labs"
    assert model["version"] == samples.REVISION
    assert model["licenses"] == [
        {
            "license": {
                "name": "FLUX.1 [dev] Non-Commercial License",
                "url": "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
            }
        }
    ]
    index, parameters = model["components"]
    assert parameters["type"] == "machine-learning-model"
    assert parameters["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert parameters["licenses"] == model["licenses"]
    assert index["type"] == "file"


def test_the_hash_of_a_git_blob_is_not_passed_off_as_sha_1() -> None:
    index, _ = named(read(samples.GOOD), "FLUX.1-dev")["components"]
    assert "hashes" not in index
    assert ("bake:git-sha1", "45a8b1c5ea9b0ab46ad2b93a2b9f41e1bc5c7d0b") in properties(index)


@pytest.mark.parametrize(
    ("report", "aggregate"),
    [
        pytest.param(samples.GOOD, "complete", id="complete"),
        pytest.param(with_packages(incomplete=("setuid",)), "incomplete", id="incomplete"),
        pytest.param(REPORTS["nothing known"], "unknown", id="no inventory"),
    ],
)
def test_it_says_whether_the_list_is_complete(report: Report, aggregate: str) -> None:
    found = read(report)
    assert found["compositions"] == [
        {"aggregate": aggregate, "assemblies": [found["metadata"]["component"]["bom-ref"]]}
    ]


def test_a_run_without_an_image_says_so() -> None:
    image = read(samples.FAILED)["metadata"]["component"]
    assert image["name"] == "g6e-ubuntu, of which no image was made"
    assert image["version"] == samples.FAILED.run.id
