#!/usr/bin/env bash
# The host's name is in no file and no name service: "sudo: unable to resolve host" on each call.
set -euo pipefail
echo golden-image-7 >/etc/hostname
printf '127.0.0.1 localhost\n' >/etc/hosts
sed -i -E 's/^hosts:.*/hosts: files dns/' /etc/nsswitch.conf
printf 'preserve_hostname: true\nmanage_etc_hosts: false\n' >/etc/cloud/cloud.cfg.d/95_hostname.cfg
