#!/usr/bin/env bash
# Why: the worker's torch needs a driver that is new enough for its CUDA, or it draws on the CPU. A Deep
# Learning AMI has one, which is left alone; another is installed only where the profile pins its version.
# Without a GPU on the builder everything is looked at that needs none.
# From settings.env: BAKE_ACCELERATOR, BAKE_DRIVER_MINIMUM (empty: no CUDA in the lock), BAKE_CUDA,
# NVIDIA_DRIVER, NVIDIA_REPOSITORY, NVIDIA_FINGERPRINT (the three of them empty: the base AMI's own).
set -euo pipefail

[ "$BAKE_ACCELERATOR" = cuda ] || exit 0

# shellcheck source=provision/lib/packages.sh
source /opt/bake/lib/packages.sh
# shellcheck source=provision/lib/signed_source.sh
source /opt/bake/lib/signed_source.sh
# shellcheck source=provision/lib/kernel.sh
source /opt/bake/lib/kernel.sh

# The module of the running kernel tells, loaded or not; a container has none and goes by the package.
driver() {
  modinfo --field=version nvidia 2>/dev/null && return
  packages_version nvidia-open | sed -E 's/^[0-9]+://; s/-.*//'
}

from_nvidia() { # SUITE PACKAGE…
  local key=${NVIDIA_FINGERPRINT: -8}
  # The file is named after the key's last digits: in small letters beside Debian's packages only.
  [ "$packages_manager" != apt ] || key=${key,,}
  signed_source_install bake-nvidia "$NVIDIA_REPOSITORY" "$NVIDIA_REPOSITORY/$key.pub" "$NVIDIA_FINGERPRINT" no "$@"
}

install_driver() {
  kernel_headers
  command -v gpg >/dev/null || packages_install gnupg
  if [ "$packages_manager" = apt ]; then
    # The driver's packages all follow the version that the pinning package names:
    # https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/version-locking.html
    from_nvidia / "nvidia-driver-pinning-$NVIDIA_DRIVER"
    from_nvidia / nvidia-open
  else
    from_nvidia / "nvidia-open=$NVIDIA_DRIVER"
  fi
}

have=$(driver || true)
if [ -n "$NVIDIA_DRIVER" ] && [ "$have" != "$NVIDIA_DRIVER" ]; then
  install_driver
  packages_hold nvidia-open
  have=$(driver || true)
  if [ "$have" != "$NVIDIA_DRIVER" ]; then
    echo "the driver is ${have:-not there} after $NVIDIA_DRIVER was installed" >&2
    echo "  what to do: a driver that came without packages must go first; see the lines above, and dkms status" >&2
    exit 1
  fi
fi

if [ -n "$BAKE_DRIVER_MINIMUM" ]; then
  if [ -z "$have" ]; then
    echo "there is no NVIDIA driver on this machine, and the worker's torch (CUDA $BAKE_CUDA) needs one" >&2
    echo "  what to do: choose a Deep Learning AMI as base, or pin nvidia.driver in the profile" >&2
    exit 1
  fi
  if [ "$(printf '%s\n' "$have" "$BAKE_DRIVER_MINIMUM" | sort -V | head -n 1)" != "$BAKE_DRIVER_MINIMUM" ]; then
    echo "the NVIDIA driver is $have; the worker's torch (CUDA $BAKE_CUDA) needs $BAKE_DRIVER_MINIMUM or newer" >&2
    echo "  what to do: choose a newer Deep Learning AMI, or pin nvidia.driver in the profile" >&2
    exit 1
  fi
fi

# Without it the driver is loaded anew by each process, and each start of the worker waits for that.
if systemctl cat nvidia-persistenced.service >/dev/null 2>&1; then
  systemctl enable --quiet nvidia-persistenced.service
fi
kernel_hold

if [ -n "$have" ]; then
  if found=$(nvidia-smi --list-gpus 2>/dev/null) && [ -n "$found" ]; then
    echo "note: NVIDIA driver $have, $(wc -l <<<"$found") GPU"
  else
    echo "note: NVIDIA driver $have; no GPU on this builder, so it is known by its files alone"
  fi
fi
