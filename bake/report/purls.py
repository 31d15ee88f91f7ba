"""Package URLs (https://github.com/package-url/purl-spec), as grype reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bake.report.text import line

if TYPE_CHECKING:
    from packageurl import PackageURL

    from bake.report.model import Package
    from bake.report.system import System


def package_url(package: Package, found: System | None) -> PackageURL | None:
    """The URL of a package; None if it has none: it is no package, or of an unknown distribution."""
    from packageurl import PackageURL

    name, version = line(package.name), line(package.version)
    if not name or "/" in name:  # the name of no package; it would read as a namespace
        return None
    if package.kind == "python":
        return PackageURL("pypi", None, name, version)
    if found is None or package.kind != found.packages:
        return None
    qualifiers = {"arch": line(package.arch), "distro": f"{found.id}-{found.version}"}
    if upstream := _upstream(package):
        qualifiers["upstream"] = line(upstream)
    epoch, colon, rest = version.partition(":")
    if package.kind == "rpm" and colon and epoch.isdecimal():
        version, qualifiers["epoch"] = rest, epoch
    return PackageURL(package.kind, found.id, name, version, {k: v for k, v in qualifiers.items() if v})


def _upstream(package: Package) -> str:
    """The source package as syft writes it: where its name or version differ from the package's."""
    if package.kind == "rpm":
        return package.source
    name, _, version = package.source.partition(" ")
    if not version or version == package.version:
        return "" if name == package.name else name
    return f"{name}@{version}"
