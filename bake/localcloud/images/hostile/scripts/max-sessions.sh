#!/usr/bin/env bash
# CIS 5.1.x: sessions of one connection are counted, and those that are too many are refused.
set -euo pipefail
mkdir -p /etc/ssh/sshd_config.d
echo "MaxSessions ${2##*-}" >/etc/ssh/sshd_config.d/10-sessions.conf
