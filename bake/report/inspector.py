"""Ask Amazon Inspector for the vulnerabilities of an SBOM, without an instance (ScanSbom).

It takes CycloneDX 1.5 of at most 2,000 components, and package URLs of its own dialect, as its generator
writes them: `pkg:deb/ubuntu/libssl3@3.0.2?arch=amd64&distro=jammy&epoch=0&source=openssl`. Its answer numbers
the components anew, and may put what was built from one source within that source.
https://docs.aws.amazon.com/inspector/v2/APIReference/API_scan_ScanSbom.html
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from bake.report.model import Vulnerability
from bake.report.scan import ORDER, Answer, Bom, kind_of, property_of
from bake.report.system import System, named

if TYPE_CHECKING:
    from packageurl import PackageURL

    from bake.aws import Aws

PURL_KINDS = {"pkg:deb": "deb", "pkg:rpm": "rpm", "pkg:pypi": "python"}
KINDS = tuple(PURL_KINDS.values())
DISTRIBUTIONS = ("ubuntu", "debian", "amzn", "fedora")
BATCH = 1999
"""Packages of one call, beside the distribution; the API takes 5,000 by its reference, 2,000 by boto3's."""
SCANNER = "amazon:inspector:sbom_scanner"


def ask(aws: Aws, bom: Bom) -> Answer:
    """What Inspector says of an SBOM; kinds for whose packages it has no rules are not covered."""
    kinds = bom.coverable(KINDS, DISTRIBUTIONS)
    packages = [one for one in bom.components if kind_of(one) in kinds and "purl" in one]
    told = [
        aws.inspector_scan.scan_sbom(sbom=_document(bom, part), outputFormat="CYCLONE_DX_1_5")["sbom"]
        for part in _batches(packages)
    ]
    skipped, looked_at = _coverage(told)
    return Answer(
        scanner="Amazon Inspector",
        version=_version(told),
        database=_made(told),
        vulnerabilities=tuple(found for answer in told for found in _vulnerabilities(answer)),
        covered=tuple(kind for kind in kinds if looked_at[kind]),
        notes=tuple(
            f"{count:,} of {count + looked_at[kind]:,} {kind} packages, for which Inspector has no rules"
            for kind, count in sorted(skipped.items())
            if looked_at[kind]
        ),
    )


def _batches(packages: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    for start in range(0, len(packages), BATCH):
        yield packages[start : start + BATCH]


def _document(bom: Bom, packages: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    system = _system(bom)
    components = [_component(one, system) for one in packages]
    if system:
        about = {"bom-ref": "os", "type": "operating-system", "name": system.id, "version": system.version}
        components.insert(0, about)
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components}


def _system(bom: Bom) -> System | None:
    for component in bom.components:
        if component["type"] == "operating-system":
            return named(component["name"], component["version"])
    return None


def _component(package: Mapping[str, Any], system: System | None) -> dict[str, Any]:
    return {
        "bom-ref": package["bom-ref"],
        "type": "application",
        "name": package["name"],
        "version": package.get("version", ""),
        "purl": dialect(package["purl"], system),
    }


def dialect(purl: str, system: System | None) -> str:
    """A package URL as Inspector's own generator writes it."""
    from packageurl import PackageURL

    url = PackageURL.from_string(purl)
    if system is None or url.type != system.packages:
        return purl
    version, epoch = _epoch(url)
    qualifiers = {"arch": url.qualifiers.get("arch", ""), "distro": system.codename, "epoch": epoch}
    if url.type == "deb" and (upstream := url.qualifiers.get("upstream", "")):
        qualifiers["source"] = upstream.partition("@")[0]
    return PackageURL(url.type, system.vendor, url.name, version, qualifiers).to_string()


def _epoch(url: PackageURL) -> tuple[str, str]:
    """The version without its epoch, and the epoch."""
    epoch, colon, rest = (url.version or "").partition(":")
    return (rest, epoch) if colon else (url.version or "", url.qualifiers.get("epoch", "0"))


def _version(told: Sequence[Mapping[str, Any]]) -> str:
    for answer in told:
        tools = (answer.get("metadata") or {}).get("tools") or {}
        for service in tools.get("services", ()) if isinstance(tools, dict) else ():
            return str(service.get("version") or "unknown")
    return "unknown"


def _made(told: Sequence[Mapping[str, Any]]) -> str:
    """When it answered: its database has no date, and is the one of that moment."""
    stamps = [(answer.get("metadata") or {}).get("timestamp") for answer in told]
    return str(min((stamp for stamp in stamps if stamp), default="unknown"))


def _all(components: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Components and those within them: packages of one source may come within it."""
    for component in components:
        yield component
        yield from _all(component.get("components", ()))


def _coverage(told: Iterable[Mapping[str, Any]]) -> tuple[Counter[str], Counter[str]]:
    """How many packages of each kind it skipped, and how many it looked at."""
    skipped, looked_at = Counter[str](), Counter[str]()
    for answer in told:
        for component in _all(answer.get("components", ())):
            kind = PURL_KINDS.get(str(component.get("purl", "")).partition("/")[0])
            if kind is not None:
                said = (property_of(component, f"{SCANNER}:{name}") or "" for name in ("warning", "info"))
                (skipped if any("skipped" in one for one in said) else looked_at)[kind] += 1
    return skipped, looked_at


def _vulnerabilities(answer: Mapping[str, Any]) -> Iterator[Vulnerability]:
    packages = {one.get("bom-ref"): one for one in _all(answer.get("components", ()))}
    for found in answer.get("vulnerabilities", ()):
        for affected in found.get("affects", ()):
            ref = affected["ref"]
            package = packages.get(ref, {})
            yield Vulnerability(
                id=found["id"],
                severity=_severity(found),
                package=package.get("name", ref),
                version=unquote(package.get("version", "")),
                fixed_in=property_of(found, f"{SCANNER}:fixed_version:{ref}") or "",
                url=(found.get("source") or {}).get("url", ""),
            )


def _severity(found: Mapping[str, Any]) -> str:
    """The worst that anybody says. EPSS tells how likely it is to be used, not how severe it is."""
    said = [
        "negligible" if rating.get("severity") in ("info", "none") else rating.get("severity")
        for rating in found.get("ratings", ())
        if (rating.get("source") or {}).get("name") != "EPSS"
    ]
    return min((one for one in said if one in ORDER), key=ORDER.index, default="unknown")
