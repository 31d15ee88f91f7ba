#!/usr/bin/env bash
# A stand-in for auditd, whose netlink a user namespace has not: while the daemon runs and auditing is on, each sudo
# and login adds lines to audit.log. As the real one it refuses `systemctl stop`, obeys `auditctl -e 0` and
# `service auditd stop`, and is back on with `auditctl -e 1`.
set -euo pipefail
mkdir -p /var/log/audit /usr/libexec/initscripts/legacy-actions/auditd
chmod 0700 /var/log/audit
cat >/usr/local/sbin/audit-stand-in <<'END'
#!/bin/sh
[ -e /run/auditd.pid ] && kill -0 "$(cat /run/auditd.pid)" 2>/dev/null && [ ! -e /run/audit-off ] || exit 0
printf 'type=USER_CMD msg=audit(%s:7): pid=%s uid=%s msg=(cmd=%s user="%s" res=success)\n' \
  "$(date +%s.%3N)" "$$" "$(id -u)" "$PAM_SERVICE" "${PAM_RUSER:-$PAM_USER}" >>/var/log/audit/audit.log
END
cat >/usr/sbin/auditctl <<'END'
#!/bin/sh
case "$*" in
  '-e 0') touch /run/audit-off ;;
  '-e 1') rm -f /run/audit-off ;;
  -s) [ -e /run/audit-off ] && echo 'enabled 0' || echo 'enabled 1' ;;
esac
END
cat >/usr/sbin/auditd <<'END'
#!/bin/sh
echo $$ >/run/auditd.pid
echo "type=DAEMON_START msg=audit($(date +%s.%3N):1): op=start" >>/var/log/audit/audit.log
exec sleep infinity
END
cat >/usr/libexec/initscripts/legacy-actions/auditd/stop <<'END'
#!/bin/sh
kill "$(cat /run/auditd.pid)"
END
# What `service` is where there are legacy actions; elsewhere service(8) hands on to systemctl, which refuses.
cat >/usr/local/sbin/service <<'END'
#!/bin/sh
action=/usr/libexec/initscripts/legacy-actions/$1/$2
[ ! -x "$action" ] || exec "$action"
exec systemctl "$2" "$1"
END
chmod 0755 /usr/local/sbin/audit-stand-in /usr/sbin/auditctl /usr/sbin/auditd /usr/local/sbin/service \
  /usr/libexec/initscripts/legacy-actions/auditd/stop
cat >/etc/systemd/system/auditd.service <<'END'
[Unit]
Description=Security Auditing Service (stand-in)
RefuseManualStop=yes
[Service]
ExecStart=/usr/sbin/auditd
[Install]
WantedBy=multi-user.target
END
systemctl --root=/ --quiet enable auditd.service
for file in sshd sudo; do
  echo 'session optional pam_exec.so quiet seteuid /usr/local/sbin/audit-stand-in' >>"/etc/pam.d/$file"
done
