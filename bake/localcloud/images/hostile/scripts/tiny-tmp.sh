#!/usr/bin/env bash
# /tmp and /dev/shm are small file systems of their own: 8 MiB each.
set -euo pipefail
cat >/etc/systemd/system/tiny-tmp.service <<'END'
[Unit]
Description=Mount a small /tmp
DefaultDependencies=no
After=systemd-remount-fs.service
Before=local-fs.target systemd-tmpfiles-setup.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/mount -t tmpfs -o size=8m,nr_inodes=2k,mode=1777 tmpfs /tmp
ExecStart=/bin/mount -t tmpfs -o size=8m,mode=1777 tmpfs /dev/shm
[Install]
WantedBy=local-fs.target
END
systemctl --root=/ --quiet enable tiny-tmp.service
