#!/usr/bin/env bash
# Why: rootfs/ mirrors /, so every file that the image gets beside packages can be read there. All of them belong
# to root and are readable by everybody; none is secret.
set -euo pipefail
# shellcheck source=provision/lib/environment.sh
source /opt/bake/lib/environment.sh

cd /opt/bake/rootfs
find . -type f -print0 | while IFS= read -r -d '' file; do
  mode=0644
  [ -x "$file" ] && mode=0755
  # A missing folder is created with mode 0755; an existing one is left as it is.
  install -D --owner=root --group=root --mode="$mode" "$file" "/${file#./}"
done

# The read-ahead rule applies from each boot on. Apply it here too, if udev runs, since a check reads the kernel's
# value.
if [ -S /run/udev/control ]; then
  udevadm control --reload
  udevadm trigger --action=change --subsystem-match=block
  udevadm settle --timeout=60
fi
