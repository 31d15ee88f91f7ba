"""Ask grype (https://github.com/anchore/grype) for the vulnerabilities of an SBOM.

Its database is its own affair: it downloads it, and refuses one that is too old.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bake.errors import BakeError
from bake.report.model import Vulnerability
from bake.report.scan import ORDER, SYSTEM_PACKAGES, Answer, Bom
from bake.report.text import visible

KINDS = ("deb", "rpm", "python")
DISTRIBUTIONS = ("ubuntu", "debian", "amzn")
"""Of those that a profile may use, which its database has."""
TIMEOUT = 1800.0
"""Seconds; the first call downloads the database."""


def program() -> str | None:
    """Where grype is on PATH."""
    return shutil.which("grype")


def ask(grype: str, file: Path, bom: Bom) -> Answer:
    """What grype says of the SBOM in a file; BakeError if it does not answer."""
    told = _call(grype, file)
    descriptor = told.get("descriptor") or {}
    covered = bom.coverable(KINDS, DISTRIBUTIONS)
    if not (told.get("distro") or {}).get("name"):
        covered = tuple(kind for kind in covered if kind not in SYSTEM_PACKAGES)
    ignored = len(told.get("ignoredMatches") or ())
    return Answer(
        scanner="grype",
        version=str(descriptor.get("version") or "unknown"),
        database=_database(descriptor),
        vulnerabilities=tuple(_vulnerability(match) for match in told["matches"]),
        covered=covered,
        notes=(f"{ignored:,} matches that grype's own settings ignore",) if ignored else (),
    )


def _call(grype: str, file: Path) -> Mapping[str, Any]:
    # By CVE, since waivers name them: what GitHub and Amazon Linux publish has ids of their own.
    command = [grype, f"sbom:{file}", "-o", "json", "--by-cve", "--quiet"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BakeError(f"grype did not answer: {error}") from error
    try:
        # Its settings may let it exit with 2 for a severity: the answer is whole all the same.
        told = json.loads(done.stdout)
        if isinstance(told["matches"], list):
            return dict(told)
    except (ValueError, KeyError, TypeError):
        pass
    said = visible(done.stderr.decode(errors="replace").strip(), 2000, keep="end")
    raise BakeError(
        f"grype ended with exit code {done.returncode} and no answer:\n{said}",
        hint="grype db status says whether it has its database; grype db update downloads it",
    )


def _database(descriptor: Mapping[str, Any]) -> str:
    """When its database was made; since version 0.88 that is in `status`."""
    database = descriptor.get("db") or {}
    return str((database.get("status") or database).get("built") or "unknown")


def _vulnerability(match: Mapping[str, Any]) -> Vulnerability:
    found, package = match["vulnerability"], match["artifact"]
    severity = str(found.get("severity") or "").lower()
    return Vulnerability(
        id=found["id"],
        severity=severity if severity in ORDER else "unknown",
        package=package["name"],
        version=package["version"],
        fixed_in=", ".join((found.get("fix") or {}).get("versions") or ()),
        url=found.get("dataSource") or "",
    )
