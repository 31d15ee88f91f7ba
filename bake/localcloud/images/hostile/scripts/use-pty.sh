#!/usr/bin/env bash
# CIS 5.2.2 and 5.2.3, with a lecture each time. As requiretty, who has no terminal is refused besides.
set -euo pipefail
{
  echo 'Defaults use_pty'
  echo 'Defaults logfile="/var/log/sudo.log"'
  echo 'Defaults lecture=always'
  [ "$2" != requiretty ] || echo 'Defaults requiretty'
} >/etc/sudoers.d/05-cis
chmod 0440 /etc/sudoers.d/05-cis
