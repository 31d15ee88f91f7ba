#!/usr/bin/env bash
# /opt and /usr/local are links to where somebody had more room.
set -euo pipefail
mkdir -p /srv/room
for place in /opt /usr/local; do
  cp -a "$place" "/srv/room/${place##*/}"
  rm -r "$place"
  ln -s "/srv/room/${place##*/}" "$place"
done
