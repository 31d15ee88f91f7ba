#!/usr/bin/env bash
# Upgrades that a timer starts right after the boot, as unattended-upgrades and dnf-automatic do; they hold the
# package manager's locks for 90 s. As dpkg-held-forever they hang, and can't be stopped either.
set -euo pipefail
seconds=90
[ "$2" = dpkg-held ] || seconds=86400
if [ "$1" = ubuntu ]; then
  unit=apt-daily-upgrade
  locks='/var/lib/dpkg/lock-frontend /var/lib/dpkg/lock'
else
  unit=dnf-automatic-install
  locks=/var/lib/rpm/.rpm.lock
fi
cat >/usr/local/sbin/upgrade-stand-in <<'END'
#!/usr/bin/python3
"""Hold the files' locks as dpkg and rpm do, for some seconds; SIGTERM is ignored, as in the midst of a package."""
import fcntl, signal, sys, time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
held = [open(name, "a+") for name in sys.argv[2:]]
for file in held:
    fcntl.lockf(file, fcntl.LOCK_EX)
time.sleep(float(sys.argv[1]))
END
chmod 0755 /usr/local/sbin/upgrade-stand-in
rm -f "/etc/systemd/system/$unit.timer" "/etc/systemd/system/$unit.service"
cat >"/etc/systemd/system/$unit.service" <<END
[Unit]
Description=Upgrade packages (stand-in)
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/upgrade-stand-in $seconds $locks
KillMode=process
TimeoutStopSec=900
TimeoutStartSec=infinity
END
cat >"/etc/systemd/system/$unit.timer" <<END
[Unit]
Description=Upgrade packages (stand-in)
[Timer]
OnBootSec=1s
OnUnitActiveSec=10min
AccuracySec=1s
[Install]
WantedBy=timers.target
END
systemctl --root=/ --quiet enable "$unit.timer"
