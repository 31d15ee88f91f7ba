#!/usr/bin/env bash
# Why: most base AMIs have a suitable Python, and then nothing is downloaded. Without an argument this prints
# "fetch" if the pinned one is needed; with `fetch` it downloads it from the URLs on stdin. Runs before all other
# scripts, which find the same Python by provision/lib/python.sh.
set -euo pipefail
# shellcheck source=provision/lib/environment.sh
source /opt/bake/lib/environment.sh
# shellcheck source=provision/lib/packages.sh
source /opt/bake/lib/packages.sh
# shellcheck source=provision/lib/python.sh
source /opt/bake/lib/python.sh

if [ "${1:-}" = fetch ]; then
  python_fetch
  python_tools
  exit
fi
# Amazon Linux packages others beside its own 3.9, and keeps them up to date; Ubuntu has one a release.
if [ "$packages_manager" != apt ] && ! python_system >/dev/null; then
  (packages_install "python$BAKE_PYTHON") || echo "note: python$BAKE_PYTHON is not to be had as a package"
fi
if ! python_tools || ! python_system >/dev/null; then
  echo fetch
fi
