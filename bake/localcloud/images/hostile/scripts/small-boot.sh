#!/usr/bin/env bash
# A /boot with 4 MiB left. A stand-in: it is a tmpfs that a unit fills, for no second disk can be mounted here.
set -euo pipefail
cat >/etc/systemd/system/small-boot.service <<'END'
[Unit]
Description=Mount a small /boot, nearly full (stand-in)
DefaultDependencies=no
Before=local-fs.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/mount -t tmpfs -o size=64m,mode=0755 tmpfs /boot
ExecStart=/usr/bin/fallocate -l 60M /boot/initrd.img-6.8.0-1021-aws
[Install]
WantedBy=local-fs.target
END
systemctl --root=/ --quiet enable small-boot.service
