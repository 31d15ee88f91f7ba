#!/usr/bin/env bash
# Why: a driver's module is built for one kernel and needs its headers. A later upgrade of the kernel would leave
# an image without its accelerator. Needs packages.sh.
#
#   kernel_is_ours      whether this machine has a kernel of its own; a container has its host's
#   kernel_release      print the release that an instance of the image boots; it need not be the running one
#   kernel_headers      install the headers of the running kernel and of that one, for DKMS
#   kernel_hold         keep the installed kernel through every later upgrade
set -euo pipefail

: "${packages_manager:?read packages.sh first}"

kernel_is_ours() {
  ! systemd-detect-virt --quiet --container
}

kernel_release() {
  local file files
  # The kernel that grub boots: its default if there is one, else the newest.
  file=$(grubby --default-kernel 2>/dev/null) || file=
  if [ -z "$file" ] && files=$(compgen -G '/boot/vmlinuz-*'); then
    file=$(sort --version-sort <<<"$files" | tail -n 1)
  fi
  if [ -n "$file" ]; then
    echo "${file##*/vmlinuz-}"
  else
    uname -r
  fi
}

kernel_headers() {
  local release
  if ! kernel_is_ours; then
    echo "note: this machine has its host's kernel: no module is built for it"
    return
  fi
  for release in "$(uname -r)" "$(kernel_release)"; do
    if [ -e "/lib/modules/$release/build" ]; then
      continue
    elif [ "$packages_manager" = apt ]; then
      packages_install "linux-headers-$release"
    else
      packages_install "kernel-devel-$release"
    fi
  done
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
