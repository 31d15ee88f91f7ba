#!/usr/bin/env bash
# What fills a Deep Learning AMI, at the sizes that are told of them: several CUDA toolkits, frameworks'
# environments, container images, package caches. Blocks are reserved, not written: the host's disk holds none.
set -euo pipefail

fill() { # PLACE GIB FILES: as much, in so many files
  mkdir -p "$1"
  local number
  for number in $(seq "$3"); do
    fallocate -l $(($2 * 1073741824 / $3)) "$1/part-$number.so"
  done
}

for version in 12.6 12.8 13.0; do
  fill "/usr/local/cuda-$version/lib64" 9 20
  fill "/usr/local/cuda-$version/extras" 1 4
done
ln -sfn cuda-13.0 /usr/local/cuda
fill /opt/pytorch/lib/python3.12/site-packages/torch/lib 6 12
fill /opt/conda/pkgs 3 30
fill /var/lib/docker/overlay2/0a1b2c/diff/usr/lib 4 8
case "$1" in
  ubuntu) fill /var/cache/apt/archives 2 8 && cd /var/cache/apt/archives && rename=deb ;;
  *) fill /var/cache/dnf/amazonlinux/packages 2 8 && cd /var/cache/dnf/amazonlinux/packages && rename=rpm ;;
esac
for file in part-*.so; do mv "$file" "${file%.so}.$rename"; done
fill /opt/nvidia 3 6
if [ "$2" = neuron-full ]; then
  fill /opt/aws_neuronx_venv_pytorch_2_9/lib/python3.12/site-packages 7 10
  fill /opt/aws_neuronx_venv_jax_0_7/lib/python3.12/site-packages 5 10
fi
