#!/usr/bin/env bash
# The image was built behind a proxy, which sudo's and PAM's environment still name. The package manager's own
# settings are right.
set -euo pipefail
for name in http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY; do
  echo "$name=http://127.0.0.1:9"
done >>/etc/environment
sed 's/^/export /' /etc/environment >/etc/profile.d/proxy.sh
