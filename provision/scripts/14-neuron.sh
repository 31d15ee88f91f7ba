#!/usr/bin/env bash
# Why: torch-neuronx needs aws-neuronx-runtime-lib, and the devices need their driver (R-NEURON). Packages of the
# base AMI are left alone; one is installed only if the profile pins a version that is missing. The repository's
# key is verified by its fingerprint first.
# From settings.env: BAKE_ACCELERATOR, NEURON_PACKAGES (NAME=VERSION, those that are pinned),
# NEURON_REPOSITORY, NEURON_FINGERPRINT, NEURON_NOGPGCHECK (yes or no).
set -euo pipefail
# shellcheck source=provision/lib/environment.sh
source /opt/bake/lib/environment.sh

[ "$BAKE_ACCELERATOR" = neuron ] || exit 0

# shellcheck source=provision/lib/packages.sh
source /opt/bake/lib/packages.sh
# shellcheck source=provision/lib/signed_source.sh
source /opt/bake/lib/signed_source.sh
# shellcheck source=provision/lib/kernel.sh
source /opt/bake/lib/kernel.sh

stack=(aws-neuronx-runtime-lib aws-neuronx-dkms aws-neuronx-collectives aws-neuronx-tools)
read -ra pinned <<<"$NEURON_PACKAGES"

mapfile -t missing < <(packages_missing "${pinned[@]}")
mapfile -t absent < <(packages_missing "${stack[@]}")
for name in "${absent[@]}"; do
  case " ${pinned[*]}" in
    *" $name="*) ;;
    *)
      echo "the base AMI has no $name, and the profile pins no version of it" >&2
      echo "  what to do: choose a Deep Learning AMI Neuron as base, or pin all four versions below neuron:" >&2
      exit 1
      ;;
  esac
done

if [ "${#missing[@]}" -gt 0 ]; then
  case " ${missing[*]}" in *" aws-neuronx-dkms="*) kernel_headers ;; esac
  command -v gpg >/dev/null || packages_install gnupg
  # shellcheck source=/dev/null
  codename=$(source /etc/os-release && echo "${VERSION_CODENAME:-}")
  signed_source_install bake-neuron "$NEURON_REPOSITORY" \
    "${NEURON_REPOSITORY%/}/GPG-PUB-KEY-AMAZON-AWS-NEURON.PUB" "$NEURON_FINGERPRINT" "$NEURON_NOGPGCHECK" \
    "$codename main" "${missing[@]}"
else
  echo "note: the Neuron stack is there already and left alone"
fi

if kernel_is_ours && ! modinfo --set-version="$(kernel_release)" neuron >/dev/null 2>&1; then
  echo "aws-neuronx-dkms is installed, but there is no module for the kernel $(kernel_release)" >&2
  echo "  what to do: see dkms status and /var/lib/dkms/aws-neuronx/*/build/make.log on the builder" >&2
  exit 1
fi

for name in "${stack[@]}"; do
  echo "note: $name $(packages_version "$name")"
done
packages_hold "${stack[@]}"
kernel_hold
