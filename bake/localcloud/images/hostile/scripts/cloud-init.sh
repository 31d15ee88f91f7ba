#!/usr/bin/env bash
# What a base's own first boot does to cloud-init, by the name of the base.
set -euo pipefail
scripts=/var/lib/cloud/scripts/per-boot
mkdir -p "$scripts"

each_boot() {
  printf '#!/bin/sh\n%s\n' "$1" >"$scripts/50-base"
  chmod 0755 "$scripts/50-base"
}

case "$2" in
  cloud-init-endless) each_boot 'exec sleep infinity' ;;
  cloud-init-slow) each_boot 'exec sleep 20' ;;
  cloud-init-failed) each_boot 'echo "the licence server does not answer" >&2; exit 1' ;;
  cloud-init-degraded) # before 23.4 cloud-init has no word for it, and says "done"
    printf 'cloud_final_modules: [vendor_licence, scripts-per-boot, scripts-user, final-message]\n' \
      >/etc/cloud/cloud.cfg.d/95_final.cfg
    ;;
  cloud-init-blocked)
    cat >/etc/systemd/system/wait-for-storage.service <<'END'
[Unit]
Description=Wait for storage that is not there
DefaultDependencies=no
After=ssh.service sshd.service network.target
Before=cloud-final.service
[Service]
Type=oneshot
ExecStart=/bin/sleep infinity
TimeoutStartSec=infinity
[Install]
WantedBy=cloud-final.service
END
    systemctl --root=/ --quiet enable wait-for-storage.service
    ;;
esac
