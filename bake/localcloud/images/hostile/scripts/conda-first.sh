#!/usr/bin/env bash
# conda's programs shadow the system's for all users. A stand-in: its python3 is 3.10 to who asks, and fails at
# all else as an interpreter without its library does.
set -euo pipefail
mkdir -p /opt/conda/bin
cat >/opt/conda/bin/python3 <<'END'
#!/bin/sh
case "$*" in
  --version | -V) echo 'Python 3.10.14' ;;
  *) echo "Fatal Python error: init_fs_encoding: No module named 'encodings'" >&2; exit 1 ;;
esac
END
cat >/opt/conda/bin/curl <<'END'
#!/bin/sh
echo 'curl: (77) error setting certificate verify locations' >&2
exit 77
END
chmod 0755 /opt/conda/bin/*
for name in python pip pip3; do ln -s python3 "/opt/conda/bin/$name"; done
echo 'PATH=/opt/conda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' >>/etc/environment
# shellcheck disable=SC2016 # the shells that read it expand it
echo 'export PATH=/opt/conda/bin:$PATH' | tee -a /etc/bash.bashrc >/etc/profile.d/conda.sh
# shellcheck disable=SC2016
sed -i '1i export PATH=/opt/conda/bin:$PATH PYTHONPATH=/opt/conda/lib' /etc/skel/.bashrc
