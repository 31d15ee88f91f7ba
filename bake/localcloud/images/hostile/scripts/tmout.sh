#!/usr/bin/env bash
# CIS 5.4.3: shells end after a minute without input. Read-only, so setting it again is an error.
set -euo pipefail
echo 'readonly TMOUT=60; export TMOUT' | tee /etc/profile.d/50-tmout.sh >>/etc/bash.bashrc
sed -i '1i readonly TMOUT=60; export TMOUT' /etc/skel/.bashrc
