#!/usr/bin/env bash
# Why: rootfs/ mirrors /, so what the image gets beyond packages can be read there file by file. Everything
# belongs to root and may be read by all; it holds no secret.
set -euo pipefail

cd /opt/bake/rootfs
find . -type f -print0 | while IFS= read -r -d '' file; do
  mode=0644
  [ -x "$file" ] && mode=0755
  # A missing folder is made with root's usual 0755; one that exists is left as it is.
  install -D --owner=root --group=root --mode="$mode" "$file" "/${file#./}"
done
