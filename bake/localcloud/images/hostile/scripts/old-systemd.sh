#!/usr/bin/env bash
# Amazon Linux 2, as far as it can be told apart from outside: the release file, and systemctl and systemd-run of
# systemd 219. A stand-in: what runs is the newer systemd.
set -euo pipefail
cat >/usr/lib/os-release <<'END'
NAME="Amazon Linux"
VERSION="2"
ID="amzn"
ID_LIKE="centos rhel fedora"
VERSION_ID="2"
PRETTY_NAME="Amazon Linux 2"
END
for name in systemctl systemd-run; do
  mv "/usr/bin/$name" "/usr/lib/systemd/$name"
  cat >"/usr/bin/$name" <<'END'
#!/bin/sh
for word in "$@"; do
  case "$word" in
    --version) echo 'systemd 219'; exit ;;
    --value | --wait | --pipe | -P | --collect)
      echo "${0##*/}: unrecognized option '$word'" >&2
      exit 1 ;;
    --property=Type=exec | Type=exec) echo 'Failed to start transient service unit: Invalid argument' >&2; exit 1 ;;
  esac
done
exec "/usr/lib/systemd/${0##*/}" "$@"
END
  chmod 0755 "/usr/bin/$name"
done
