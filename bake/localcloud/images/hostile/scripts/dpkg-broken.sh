#!/usr/bin/env bash
# An installation that was interrupted: dpkg refuses the next one until it is repaired.
set -euo pipefail
work=$(mktemp -d)
mkdir -p "$work/vendor-tool/DEBIAN"
printf '%s\n' 'Package: vendor-tool' 'Version: 1.0' 'Architecture: all' 'Description: half installed' \
  'Maintainer: nobody <nobody@localhost>' 'Depends: vendor-library (>= 2)' >"$work/vendor-tool/DEBIAN/control"
dpkg-deb --root-owner-group --build "$work/vendor-tool" >/dev/null
dpkg --force-depends --unpack "$work/vendor-tool.deb" >/dev/null 2>&1
rm -r "$work"
