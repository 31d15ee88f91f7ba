#!/usr/bin/env bash
# What a base's makers changed after they installed it: dpkg --verify and rpm --verify list it.
set -euo pipefail
echo '# changed by the base' | tee -a /usr/bin/ldd /etc/ssh/sshd_config >/dev/null
chmod 0700 /usr/bin/ldd
touch -d 2020-01-01 /usr/bin/gpgv
rm -f /usr/share/bash-completion/completions/mount
