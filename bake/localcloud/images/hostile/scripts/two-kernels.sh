#!/usr/bin/env bash
# Two kernels with their modules; the newer one is the next boot's. Stand-ins: nothing boots them here.
set -euo pipefail
for release in 6.8.0-1021-aws 6.8.0-1031-aws; do
  mkdir -p "/lib/modules/$release/kernel/drivers/net" "/boot/grub"
  touch "/lib/modules/$release/kernel/drivers/net/dummy.ko" "/lib/modules/$release/modules.dep"
  echo "kernel $release" >"/boot/vmlinuz-$release"
  echo "initrd $release" >"/boot/initrd.img-$release"
  touch "/boot/config-$release" "/boot/System.map-$release"
done
ln -sf vmlinuz-6.8.0-1031-aws /boot/vmlinuz
ln -sf vmlinuz-6.8.0-1021-aws /boot/vmlinuz.old
