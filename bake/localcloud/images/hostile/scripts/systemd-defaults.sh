#!/usr/bin/env bash
# Defaults of systemd's that somebody tightened: what is inherited instead of set meets them.
set -euo pipefail
mkdir -p /etc/systemd/system.conf.d /etc/systemd/journald.conf.d /etc/systemd/logind.conf.d
cat >/etc/systemd/system.conf.d/tight.conf <<'END'
[Manager]
DefaultTimeoutStartSec=15s
DefaultTimeoutStopSec=15s
DefaultLimitNOFILE=512
DefaultTasksMax=128
DefaultStandardOutput=null
END
printf '[Journal]\nStorage=none\n' >/etc/systemd/journald.conf.d/none.conf
printf '[Login]\nKillUserProcesses=yes\nRemoveIPC=yes\n' >/etc/systemd/logind.conf.d/kill.conf
