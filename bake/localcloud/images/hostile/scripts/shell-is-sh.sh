#!/usr/bin/env bash
# The default user of the base logs in with sh, which reads no .bashrc and knows no bashism.
set -euo pipefail
sed -i 's|shell: /bin/bash|shell: /bin/sh|' /etc/cloud/cloud.cfg.d/90_ec2.cfg
