#!/usr/bin/env bash
# As Ubuntu's driver packages have it: started by udev and never enabled, since the unit has no [Install].
set -euo pipefail
cat >/usr/lib/systemd/system/nvidia-persistenced.service <<'END'
[Unit]
Description=NVIDIA Persistence Daemon (stand-in)
[Service]
ExecStart=/bin/sleep infinity
END
