#!/usr/bin/env bash
# CIS 1.1.2: nothing in the places that everybody can write to may be run, be setuid or be a device.
set -euo pipefail
cat >/etc/systemd/system/hardened-tmp.service <<'END'
[Unit]
Description=Mount what everybody can write to without exec, suid and dev
DefaultDependencies=no
After=systemd-remount-fs.service
Before=local-fs.target systemd-tmpfiles-setup.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/mount -t tmpfs -o noexec,nosuid,nodev,mode=1777 tmpfs /tmp
ExecStart=/bin/mount -t tmpfs -o noexec,nosuid,nodev,mode=1777 tmpfs /dev/shm
ExecStart=/bin/mount --bind /var/tmp /var/tmp
ExecStart=/bin/mount -o remount,bind,noexec,nosuid,nodev /var/tmp
[Install]
WantedBy=local-fs.target
END
systemctl --root=/ --quiet enable hardened-tmp.service
