#!/usr/bin/env bash
# Why: rootfs/ mirrors /, so what the image gets beyond packages can be read there file by file. Everything
# belongs to root and may be read by all; it holds no secret.
set -euo pipefail
# shellcheck source=provision/lib/environment.sh
source /opt/bake/lib/environment.sh

cd /opt/bake/rootfs
find . -type f -print0 | while IFS= read -r -d '' file; do
  mode=0644
  [ -x "$file" ] && mode=0755
  # A missing folder is made with root's usual 0755; one that exists is left as it is.
  install -D --owner=root --group=root --mode="$mode" "$file" "/${file#./}"
done

# The rule for the disks' read-ahead holds from each boot on. Here, too, where udev runs: the checks look at what the
# kernel made of it.
if [ -S /run/udev/control ]; then
  udevadm control --reload
  udevadm trigger --action=change --subsystem-match=block
  udevadm settle --timeout=60
fi
