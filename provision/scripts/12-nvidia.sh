#!/usr/bin/env bash
# Why: the worker's torch needs a driver that is new enough for its CUDA. A Deep Learning AMI has a driver, which
# is left alone; another one is installed only if the profile pins its version. If the builder has a GPU, it must
# answer; otherwise only the files are checked.
# From settings.env: BAKE_ACCELERATOR, BAKE_DEVICE (yes: the plan's builder has a GPU), BAKE_DRIVER_MINIMUM
# (empty: no CUDA in the lock), BAKE_CUDA, NVIDIA_DRIVER, NVIDIA_REPOSITORY, NVIDIA_FINGERPRINT (the three of
# them empty: the base AMI's own).
set -euo pipefail
# shellcheck source=provision/lib/environment.sh
source /opt/bake/lib/environment.sh

[ "$BAKE_ACCELERATOR" = cuda ] || exit 0

# shellcheck source=provision/lib/packages.sh
source /opt/bake/lib/packages.sh
# shellcheck source=provision/lib/signed_source.sh
source /opt/bake/lib/signed_source.sh
# shellcheck source=provision/lib/kernel.sh
source /opt/bake/lib/kernel.sh

# The driver's version, by the module for the kernel that the image boots, which DKMS built or not. A container
# has no kernel of its own, so there the package counts.
driver() {
  if kernel_is_ours; then
    modinfo --set-version="$(kernel_release)" --field=version nvidia 2>/dev/null
  else
    packages_version nvidia-open | sed -E 's/^[0-9]+://; s/-.*//'
  fi
}

# Says what else is installed of a driver without a module for that kernel.
without_module() {
  local package
  if kernel_is_ours && package=$(packages_version nvidia-open); then
    echo "nvidia-open $package is installed, but there is no module for the kernel $(kernel_release)"
    command -v dkms >/dev/null && dkms status
  fi
}

from_nvidia() { # SUITE PACKAGE…
  local key=${NVIDIA_FINGERPRINT: -8}
  # The file is named after the key's last digits, in lower case in Debian's repositories.
  [ "$packages_manager" != apt ] || key=${key,,}
  signed_source_install bake-nvidia "$NVIDIA_REPOSITORY" "$NVIDIA_REPOSITORY/$key.pub" "$NVIDIA_FINGERPRINT" no "$@"
}

install_driver() {
  kernel_headers
  command -v gpg >/dev/null || packages_install gnupg
  if [ "$packages_manager" = apt ]; then
    # The pinning package sets the version of all the driver's packages:
    # https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/version-locking.html
    from_nvidia / "nvidia-driver-pinning-$NVIDIA_DRIVER"
  fi
  from_nvidia / "nvidia-open=$NVIDIA_DRIVER"
}

# The old driver's module may still be loaded, and does not work with the new libraries.
load_driver() {
  local module
  systemctl stop nvidia-persistenced.service nvidia-fabricmanager.service 2>/dev/null || true
  for module in nvidia_uvm nvidia_drm nvidia_modeset nvidia; do
    modprobe --remove "$module" 2>/dev/null || true
  done
  modprobe nvidia
}

have=$(driver || true)
if [ -n "$NVIDIA_DRIVER" ] && [ "$have" != "$NVIDIA_DRIVER" ]; then
  install_driver
  packages_hold nvidia-open
  have=$(driver || true)
  if [ "$have" != "$NVIDIA_DRIVER" ]; then
    echo "the driver is ${have:-not there} after $NVIDIA_DRIVER was installed" >&2
    without_module >&2 || true
    echo "  what to do: a driver that came without packages must go first; see the lines above, and dkms status" >&2
    exit 1
  fi
  if [ "$BAKE_DEVICE" = yes ] && kernel_is_ours; then
    load_driver
  fi
fi

if [ -n "$BAKE_DRIVER_MINIMUM" ]; then
  if [ -z "$have" ]; then
    echo "there is no NVIDIA driver on this machine, and the worker's torch (CUDA $BAKE_CUDA) needs one" >&2
    without_module >&2 || true
    echo "  what to do: choose a Deep Learning AMI as base, or pin nvidia.driver in the profile" >&2
    exit 1
  fi
  if [ "$(printf '%s\n' "$have" "$BAKE_DRIVER_MINIMUM" | sort -V | head -n 1)" != "$BAKE_DRIVER_MINIMUM" ]; then
    echo "the NVIDIA driver is $have; the worker's torch (CUDA $BAKE_CUDA) needs $BAKE_DRIVER_MINIMUM or newer" >&2
    echo "  what to do: choose a newer Deep Learning AMI, or pin nvidia.driver in the profile" >&2
    exit 1
  fi
fi

# Without the daemon each process loads the driver again, and each start of the worker waits for that.
persist() {
  local unit
  unit=$(systemctl show --property=Id --value nvidia-persistenced.service) # the real name, behind an alias
  systemctl enable --quiet "$unit" || true # a generated one cannot be; a static one is left as it is
  case $(systemctl is-enabled "$unit" 2>/dev/null || true) in
    static | indirect | disabled) systemctl add-wants --quiet multi-user.target "$unit" ;; # no [Install]
    masked*) echo "note: $unit is masked on the base AMI, and stays so" ;;
  esac
}
if systemctl cat nvidia-persistenced.service >/dev/null 2>&1; then
  persist
fi
kernel_hold

if [ "$BAKE_DEVICE" = yes ]; then
  # One line a GPU, such as "NVIDIA L40S, 580.95.05"; an error where module and libraries are of two versions.
  # What a broken ld.so.preload makes each program say on stderr is no line of a GPU.
  if ! found=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>"$TMPDIR/nvidia-smi") ||
    grep -qv ", $have\$" <<<"$found"; then
    echo "the GPU of this builder does not answer by the driver ${have:-that is not there}: $found $(<"$TMPDIR/nvidia-smi")" >&2
    echo "  what to do: see the kernel's lines about NVRM with: journalctl -k -g NVRM" >&2
    exit 1
  fi
  echo "note: NVIDIA driver $have, $(wc -l <<<"$found") GPU: ${found%%, *}"
elif [ -n "$have" ]; then
  echo "note: NVIDIA driver $have; no GPU on this builder, so it is known by its files alone"
fi
