"""The SBOM of an image: CycloneDX 1.6, made of the inventory of the sealed disk and the lock of the weights.

The AMI is the component that it is about, of type `operating-system`: that is the specification's type for
"software operating systems without regard to deployment model (i.e. installed on physical hardware, virtual
machine, image, etc)"; `platform` is a runtime, `container` a format that isolates. The base AMI is its
ancestor (`pedigree.ancestors`). The distribution is a component of its own, first in the list: grype and
Amazon Inspector look there for what the packages belong to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType, Pedigree
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from bake.report.purls import package_url
from bake.report.system import System, system
from bake.report.text import line

if TYPE_CHECKING:
    from bake.report.model import BaseFacts, Inventory, Package, Report, WeightFile, Weights

ALGORITHMS = {"sha256": HashAlgorithm.SHA_256}
PLAIN_URL = re.compile(r"https://[\w.-]+(/[\w./~-]*)?", re.ASCII)
"""What CycloneDX takes for an IRI reference beyond doubt."""
LIMIT = 500
"""Characters of a name or value."""


def sbom(report: Report) -> str:
    """The SBOM as JSON. The same report gives the same text."""
    inventory = inventory_of(report)
    components = [*_packages(inventory), *_weights(report.weights)]
    image = _image(report, inventory)
    bom = Bom(
        serial_number=uuid5(NAMESPACE_URL, f"urn:ami-bake:run:{report.run.id}"),
        components=components,
        metadata=BomMetaData(
            component=image,
            timestamp=datetime.fromisoformat(report.run.finished or report.run.started),
            lifecycles=[PredefinedLifecycle(phase=LifecyclePhase.POST_BUILD)],
        ),
    )
    bom.metadata.tools.components.add(
        Component(name="ami-bake", version=report.run.bake_version, type=ComponentType.APPLICATION)
    )
    bom.register_dependency(image, components)
    return _finish(JsonV1Dot6(bom).output_as_string(), inventory)


def inventory_of(report: Report) -> Inventory | None:
    """The inventory that tells best what is on the image: that of the sealed disk, else the last one."""
    for inventory in report.inventories:
        if inventory.moment == "sealed":
            return inventory
    return report.inventories[-1] if report.inventories else None


def _finish(text: str, inventory: Inventory | None) -> str:
    """Put the distribution first, and say whether the list is complete: the library has no compositions."""
    found: dict[str, Any] = json.loads(text)
    found.setdefault("components", []).sort(key=lambda component: component["type"] != "operating-system")
    aggregate = "unknown"
    if inventory is not None:
        aggregate = "incomplete" if inventory.incomplete else "complete"
    ref = found["metadata"]["component"]["bom-ref"]
    found["compositions"] = [{"aggregate": aggregate, "assemblies": [ref]}]
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _image(report: Report, inventory: Inventory | None) -> Component:
    image, run = report.image, report.run
    return Component(
        name=_text(image.name if image else f"{run.profile}, of which no image was made"),
        version=image.id if image else run.id,
        type=ComponentType.OPERATING_SYSTEM,
        bom_ref=f"image:{image.id if image else run.id}",
        pedigree=Pedigree(ancestors=[_base(report.base)]) if report.base else None,
        properties=[
            Property(name=f"bake:{key}", value=_text(value)) for key, value in _facts(report, inventory)
        ],
    )


def _base(base: BaseFacts) -> Component:
    return Component(
        name=_text(base.name),
        version=_text(base.id),
        type=ComponentType.OPERATING_SYSTEM,
        bom_ref=f"base:{_text(base.id)}",
        publisher=_text(base.owner) if base.owner else None,
    )


def _facts(report: Report, inventory: Inventory | None) -> Iterator[tuple[str, str]]:
    run = report.run
    yield "venue", report.venue.name
    yield "verdict", report.verdict.state
    yield "run", run.id
    yield "plan", run.plan
    yield "profile", run.profile
    yield "region", run.region
    yield "account", run.account or "unknown"
    if inventory is None:
        return
    yield "inventory", inventory.moment
    yield "os", inventory.os
    yield "kernel", inventory.kernel
    yield from (("incomplete", field) for field in inventory.incomplete)


def _packages(inventory: Inventory | None) -> Iterator[Component]:
    if inventory is None:
        return
    found = system(inventory.os)
    if found is not None:
        yield Component(
            name=found.id,
            version=found.version,
            type=ComponentType.OPERATING_SYSTEM,
            bom_ref=f"os:{found.id}-{found.version}",
            description=_text(inventory.os),
        )
    for number, package in enumerate(dict.fromkeys(inventory.packages), 1):
        yield _package(package, found, f"package:{number}")


def _package(package: Package, found: System | None, ref: str) -> Component:
    """A package; one without a package URL is none that a scanner could know."""
    values = {"kind": package.kind, "arch": package.arch, "where": package.where, "source": package.source}
    return Component(
        name=_text(package.name) or "unnamed",
        version=_text(package.version),
        type=ComponentType.APPLICATION if package.kind == "program" else ComponentType.LIBRARY,
        bom_ref=ref,
        purl=package_url(package, found),
        properties=[
            Property(name=f"bake:{key}", value=_text(value)) for key, value in values.items() if value
        ],
    )


def _weights(weights: Weights | None) -> Iterator[Component]:
    """The model, with its files as components of it."""
    if weights is None:
        return
    owner, _, name = weights.repo.rpartition("/")
    url = XsUri(weights.licence_url) if PLAIN_URL.fullmatch(weights.licence_url) else None
    licence = DisjunctiveLicense(name=_text(weights.licence), url=url)
    yield Component(
        group=_text(owner) or None,
        name=_text(name),
        version=_text(weights.revision),
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="weights",
        licenses=[licence],
        purl=PackageURL("huggingface", _text(owner), _text(name), _text(weights.revision)),
        properties=[Property(name="bake:precision", value=weights.precision)],
        components=[_weight_file(file, weights, licence) for file in weights.files],
    )


def _weight_file(file: WeightFile, weights: Weights, licence: DisjunctiveLicense) -> Component:
    """A file of the model; the ones that hold parameters are models, too.

    `git-sha1` hashes the file as a blob of Git, with a header: a SHA-1 of the file it is not.
    """
    algorithm, _, digest = file.hash.partition(":")
    known = ALGORITHMS.get(algorithm)
    values = {"bytes": str(file.bytes)} | ({} if known else {algorithm: digest})
    parameters = file.path.endswith(".safetensors")
    return Component(
        name=_text(file.path),
        version=_text(weights.revision),
        type=ComponentType.MACHINE_LEARNING_MODEL if parameters else ComponentType.FILE,
        bom_ref=f"weights:{_text(file.path)}",
        licenses=[licence],
        hashes=[HashType(alg=known, content=digest)] if known else None,
        properties=[Property(name=f"bake:{key}", value=_text(value)) for key, value in values.items()],
    )


def _text(text: str) -> str:
    return line(text, LIMIT)
