#!/usr/bin/env bash
# What CIS 5.1 says of sshd, at its strictest.
set -euo pipefail
mkdir -p /etc/ssh/sshd_config.d
cat >/etc/ssh/sshd_config.d/10-cis.conf <<'END'
Banner /etc/issue.net
AllowTcpForwarding no
DisableForwarding yes
PermitUserEnvironment no
PermitTTY no
ClientAliveInterval 5
ClientAliveCountMax 2
LoginGraceTime 30
MaxStartups 3:50:5
MaxAuthTries 2
LogLevel VERBOSE
END
sed -i '/^Subsystem/d' /etc/ssh/sshd_config
printf '%s\n' 'AUTHORISED USE ONLY.' 'All actions are recorded.' >/etc/issue.net
