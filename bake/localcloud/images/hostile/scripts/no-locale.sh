#!/usr/bin/env bash
# A locale is set that the image has not: perl, bash and apt warn of it, and Python falls back to ASCII.
set -euo pipefail
printf 'LANG=de_DE.UTF-8\nLC_ALL=de_DE.UTF-8\n' | tee /etc/default/locale /etc/locale.conf >>/etc/environment
printf 'export LANG=de_DE.UTF-8 LC_ALL=de_DE.UTF-8\n' >/etc/profile.d/locale.sh
sed -i '1i export LANG=de_DE.UTF-8 LC_ALL=de_DE.UTF-8' /etc/skel/.bashrc
