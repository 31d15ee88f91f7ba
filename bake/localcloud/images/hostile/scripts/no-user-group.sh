#!/usr/bin/env bash
# The default user has no group of its own name: login.defs says so, and "users" is the primary one.
set -euo pipefail
sed -i '/^USERGROUPS_ENAB/d' /etc/login.defs
echo 'USERGROUPS_ENAB no' >>/etc/login.defs
sed -i -E 's|^( *)shell: /bin/bash|&\n\1no_user_group: true|' /etc/cloud/cloud.cfg.d/90_ec2.cfg
