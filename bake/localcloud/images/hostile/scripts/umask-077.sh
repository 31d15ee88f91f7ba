#!/usr/bin/env bash
# CIS 5.4.5 and its like: everywhere that a umask can be set, it is 077; for services and for sudo, too.
set -euo pipefail
if grep -q '^UMASK' /etc/login.defs 2>/dev/null; then
  sed -i 's/^UMASK.*/UMASK 077/' /etc/login.defs
else
  echo 'UMASK 077' >>/etc/login.defs
fi
for file in /etc/pam.d/sshd /etc/pam.d/sudo; do
  echo 'session optional pam_umask.so umask=077' >>"$file"
done
echo 'umask 077' | tee -a /etc/profile /etc/bash.bashrc /etc/bashrc /etc/skel/.bashrc >/etc/profile.d/umask.sh
sed -i '1i umask 077' /etc/skel/.bashrc # before it returns from shells without a terminal
printf 'Defaults umask=0077\nDefaults umask_override\n' >/etc/sudoers.d/05-umask
chmod 0440 /etc/sudoers.d/05-umask
mkdir -p /etc/systemd/system/service.d
printf '[Service]\nUMask=0077\n' >/etc/systemd/system/service.d/umask.conf
