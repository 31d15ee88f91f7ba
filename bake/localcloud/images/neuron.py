"""The base AMIs for Neuron: copies of the others with stubs of the Neuron stack installed.

A Deep Learning AMI Neuron has the stack installed. Stubs are empty packages of the same names, which dpkg or
rpm lists like the real ones. The base's own tools build and install them in a chroot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from bake.localcloud import host
from bake.localcloud.images import base

STUBS = {
    "aws-neuronx-runtime-lib": "2.28.23.0",
    "aws-neuronx-dkms": "2.24.7.0",
    "aws-neuronx-collectives": "2.28.27.0",
    "aws-neuronx-tools": "2.26.14.0",
}
_INSTALL = r"""
set -eu
work=$(mktemp -d)
cd "$work"
for package in "$@"; do
  name=${package%%=*} version=${package#*=}
  if command -v dpkg-deb >/dev/null; then
    mkdir -p "$name/DEBIAN"
    printf '%s\n' "Package: $name" "Version: $version" 'Architecture: all' 'Description: stub' \
      'Maintainer: local cloud <root@localhost>' >"$name/DEBIAN/control"
    dpkg-deb --root-owner-group --build "$name" >/dev/null
    dpkg --install "$name.deb" >/dev/null
  else
    printf '%s\n' "Name: $name" "Version: $version" 'Release: 1' 'Summary: stub' 'License: none' \
      'BuildArch: noarch' '%description' 'A stub.' '%files' >stub.spec
    rpmbuild -bb --quiet --define "_topdir $work" stub.spec
    rpm --install "RPMS/noarch/$name"-*.rpm
  fi
done
rm -rf "$work"
"""


def disk(other: Path) -> Path:
    """The path of the disk for Neuron that is made from another base's disk."""
    recipe = f"{other.parent.name} {STUBS} {_INSTALL}"
    return other.parent.with_name(f"neuron-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}") / other.name


def build(other: Path, say: Callable[[str], None]) -> None:
    """Build the disk for Neuron from the disk `other`, unless it exists."""
    wanted = disk(other)
    if wanted.exists():
        return
    say("installing stubs of the Neuron stack on a copy of the base AMI (once) …")
    with base.building(wanted.parent) as work:
        copy, root = work / other.name, work / "root"
        root.mkdir()
        host.run("cp", "--sparse=always", other, copy, timeout=600)
        # In a mount namespace of its own: nothing stays mounted, whatever happens.
        install = (
            'mount -o loop "$1" "$2"; top=$2; shift 2; unset TMPDIR; exec chroot "$top" sh -c "$0" sh "$@"'
        )
        packages = [f"{name}={version}" for name, version in STUBS.items()]
        host.run("unshare", "--mount", "sh", "-ec", install, _INSTALL, copy, root, *packages, timeout=300)
        root.rmdir()
