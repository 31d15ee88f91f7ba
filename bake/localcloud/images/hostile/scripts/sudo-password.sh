#!/usr/bin/env bash
# CIS 5.2.4: a rule of the base's takes back, after cloud-init's own, that the default user needs no password; it has
# none that it could give.
set -euo pipefail
echo 'ALL ALL=(ALL) PASSWD: ALL' >/etc/sudoers.d/99-zz-password
chmod 0440 /etc/sudoers.d/99-zz-password
