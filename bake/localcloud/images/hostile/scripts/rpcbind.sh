#!/usr/bin/env bash
# nfs-common brings it; a stand-in that listens as rpcbind.socket does.
set -euo pipefail
cat >/etc/systemd/system/rpcbind.socket <<'END'
[Unit]
Description=RPCbind Server Activation Socket (stand-in)
[Socket]
ListenStream=/run/rpcbind.sock
ListenStream=0.0.0.0:111
ListenDatagram=0.0.0.0:111
[Install]
WantedBy=sockets.target
END
cat >/etc/systemd/system/rpcbind.service <<'END'
[Unit]
Description=RPC bind portmap service (stand-in)
Requires=rpcbind.socket
[Service]
ExecStart=/bin/sleep infinity
Restart=always
[Install]
WantedBy=multi-user.target
END
systemctl --root=/ --quiet enable rpcbind.socket rpcbind.service
