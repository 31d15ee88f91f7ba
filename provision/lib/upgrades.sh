#!/usr/bin/env bash
# Why: a fresh machine upgrades itself. apt's and dnf's timers, PackageKit and snapd hold the package manager's
# locks for minutes, and change the machine while it is baked. Sent over SSH once the machine answers, after
# packages.sh:
#
#   upgrades_stop_timers    stop what would start, and what can be interrupted; print the units
#   upgrades_running        print what still upgrades; fail if nothing does
#   upgrades_stop_daemons   then stop what else could start; print the units
#
# Everything is stopped until the next boot and nothing is disabled: the image upgrades itself as its base does.
# A running installation is never killed, which would leave packages half-installed, but waited for.
# unattended-upgrades.service is left alone: it only waits for the end of an upgrade at shutdown, and stopping it
# may start one (Unattended-Upgrade::InstallOnShutdown).
set -euo pipefail

upgrades_stop_timers() {
  _upgrades_stop_units 'apt-*.timer' 'apticron.timer' 'update-notifier-*.timer' 'ua-timer.timer' 'dnf-*.timer' \
    'dnf5-*.timer' 'yum-*.timer' yum-cron.service 'packagekit-*.timer' 'snapd.*.timer' snapd.socket snapd.service \
    apt-daily.service apt-news.service esm-cache.service dnf-makecache.service
  # On SIGTERM it finishes its current step, on which its own shutdown script relies too.
  local process
  for process in /proc/[0-9]*; do
    if grep -qsx 'unattended-upgr' "$process/comm" && ! tr '\0' ' ' <"$process/cmdline" | grep -q shutdown; then
      kill -TERM "${process#/proc/}" 2>/dev/null || true
    fi
  done
}

upgrades_running() {
  local unit
  packages_holder && return
  # Between their steps they hold no lock. dkms.service builds modules for a new kernel.
  unit=$(_upgrades_units activating 'apt-daily*.service' 'dnf-automatic*.service' 'dnf5-automatic*.service' dkms.service)
  [ -n "$unit" ] && echo "${unit%%$'\n'*}"
}

upgrades_stop_daemons() {
  _upgrades_stop_units packagekit.service
}

_upgrades_stop_units() {
  local units
  mapfile -t units < <(_upgrades_units active,activating "$@")
  [ "${#units[@]}" -gt 0 ] || return 0
  timeout 60 systemctl stop "${units[@]}" >/dev/null 2>&1 || true
  printf '%s\n' "${units[@]}"
}

_upgrades_units() { # STATES PATTERN…
  systemctl list-units --all --plain --no-legend --full --state="$1" "${@:2}" 2>/dev/null | awk '{ print $1 }'
}
