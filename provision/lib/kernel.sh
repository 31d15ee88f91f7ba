#!/usr/bin/env bash
# Why: a driver's module is built for one kernel. Its headers must be there when it is, and a later upgrade of
# the kernel would leave an image whose accelerator is gone. Needs packages.sh.
#
#   kernel_is_ours      whether this machine has a kernel of its own; a container has its host's
#   kernel_headers      install the headers of the running kernel, for DKMS
#   kernel_hold         keep the installed kernel through every later upgrade
set -euo pipefail

: "${packages_manager:?read packages.sh first}"

kernel_is_ours() {
  ! systemd-detect-virt --quiet --container
}

kernel_headers() {
  local release
  release=$(uname -r)
  if ! kernel_is_ours; then
    echo "note: this machine has its host's kernel: no module is built for it"
  elif [ ! -e "/lib/modules/$release/build" ]; then
    if [ "$packages_manager" = apt ]; then
      packages_install "linux-headers-$release"
    else
      packages_install "kernel-devel-${release}"
    fi
  fi
}

kernel_hold() {
  local names
  if [ "$packages_manager" = apt ]; then
    mapfile -t names < <(dpkg-query --show --showformat='${Package} ${db:Status-Status}\n' \
      'linux-image-*' 'linux-headers-*' 'linux-modules-*' 'linux-aws*' 2>/dev/null |
      sed -n 's/ installed$//p')
  else
    mapfile -t names < <(rpm --query --all --queryformat '%{NAME}\n' 'kernel*' | sort -u)
  fi
  [ "${#names[@]}" -gt 0 ] || return 0
  packages_hold "${names[@]}"
  echo "held: ${names[*]}"
}
