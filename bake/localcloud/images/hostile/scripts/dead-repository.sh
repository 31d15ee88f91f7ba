#!/usr/bin/env bash
# A vendor's repository that refuses connections, beside the system's own.
set -euo pipefail
if [ "$1" = ubuntu ]; then
  echo 'deb [trusted=yes] http://127.0.0.1:9/vendor stable main' >/etc/apt/sources.list.d/vendor.list
else
  printf '[vendor]\nname=A vendor\nbaseurl=http://127.0.0.1:9/vendor\nenabled=1\ngpgcheck=0\n' \
    >/etc/yum.repos.d/vendor.repo
fi
