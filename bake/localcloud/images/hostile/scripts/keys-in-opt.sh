#!/usr/bin/env bash
# Private keys of test suites and examples, published with their packages: nobody's secrets.
set -euo pipefail
for place in /opt/conda/lib/python3.12/test /opt/vendor/examples/tls /usr/local/share/vendor /usr/local/cuda/samples; do
  mkdir -p "$place"
  ssh-keygen -q -t rsa -b 2048 -m PEM -N '' -C test -f "$place/server.pem"
done
cp /opt/vendor/examples/tls/server.pem /opt/vendor/examples/tls/id_rsa
chmod 0644 /opt/conda/lib/python3.12/test/server.pem
