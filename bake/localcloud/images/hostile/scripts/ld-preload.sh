#!/usr/bin/env bash
# A monitoring agent put its library into ld.so.preload, and its removal left the line.
set -euo pipefail
echo /opt/agent/lib/libagent.so >/etc/ld.so.preload
