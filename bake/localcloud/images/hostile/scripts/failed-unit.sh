#!/usr/bin/env bash
# A unit that has failed since somebody's last change, so that the system is "degraded".
set -euo pipefail
cat >/etc/systemd/system/vendor-agent.service <<'END'
[Unit]
Description=An agent that has no licence
[Service]
Type=oneshot
ExecStart=/bin/false
[Install]
WantedBy=multi-user.target
END
systemctl --root=/ --quiet enable vendor-agent.service
