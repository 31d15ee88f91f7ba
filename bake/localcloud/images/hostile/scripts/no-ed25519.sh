#!/usr/bin/env bash
# As FIPS has it: ECDSA and RSA alone, for the host's keys and the users'. As no-common-host-key the host has but
# an RSA key, made by itself, whatever user data gives it.
set -euo pipefail
mkdir -p /etc/ssh/sshd_config.d
ecdsa='ecdsa-sha2-nistp256,ecdsa-sha2-nistp384'
rsa='rsa-sha2-256,rsa-sha2-512'
{
  echo "PubkeyAcceptedAlgorithms $ecdsa,$rsa"
  echo 'KexAlgorithms ecdh-sha2-nistp256,ecdh-sha2-nistp384,diffie-hellman-group14-sha256'
  echo 'Ciphers aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes128-ctr'
  echo 'MACs hmac-sha2-256,hmac-sha2-512'
  if [ "$2" = no-ed25519 ]; then
    echo "HostKeyAlgorithms $ecdsa,$rsa"
    echo 'HostKey /etc/ssh/ssh_host_ecdsa_key'
    echo 'HostKey /etc/ssh/ssh_host_rsa_key'
  else
    echo "HostKeyAlgorithms $rsa"
    echo 'HostKey /etc/ssh/of_the_base_rsa_key'
  fi
} >/etc/ssh/sshd_config.d/10-fips.conf
echo 'ssh_genkeytypes: [ecdsa, rsa]' >/etc/cloud/cloud.cfg.d/95_fips.cfg
if [ "$2" = no-common-host-key ]; then
  ssh-keygen -q -t rsa -b 2048 -N '' -C base -f /etc/ssh/of_the_base_rsa_key
fi
