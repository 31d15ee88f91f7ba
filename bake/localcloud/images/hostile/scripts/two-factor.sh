#!/usr/bin/env bash
# A key alone does not open it: sshd wants a password as well.
set -euo pipefail
mkdir -p /etc/ssh/sshd_config.d
printf 'AuthenticationMethods publickey,password\nPasswordAuthentication yes\n' >/etc/ssh/sshd_config.d/10-factors.conf
