"""A process plugged into a local cloud's network as a machine is, with all rights over its own end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from bake.localcloud.network import bridge
from bake.localcloud.settings import Settings

CONNECT = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family) as client:
    client.settimeout(float(sys.argv[3]))
    if len(sys.argv) > 4:
        client.bind((sys.argv[4], 0))
    try:
        client.connect(socket.getaddrinfo(sys.argv[1], int(sys.argv[2]))[0][4])
        print("open")
    except OSError as error:
        print(type(error).__name__)
"""
# A listener answers at once, on a busy machine too within this; what is dropped never does.
SECONDS = 4.0


@contextmanager
def plugged_in(settings: Settings, address: str, mac: str = "02:00:00:00:00:fa") -> Iterator[int]:
    """The id of the process, whose network namespace has nothing but its end of the cable."""
    command = ["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.read(1)  # it is in its namespace
        bridge.attach(settings, address, mac, process.pid)
        yield process.pid
    finally:
        bridge.detach(settings, address)
        process.kill()
        process.wait()


def let_out(settings: Settings, address: str) -> None:
    """Let it out to the cloud's servers, which a security group would do, until some group changes."""
    rule = ["ip", settings.table, "to_servers", "ip", "saddr", address, "return"]
    subprocess.run(["nft", "insert", "rule", *rule], check=True)


def connected(before: list[str], address: str, port: int, *, source: str = "") -> str:
    """Try a connection with /usr/bin/python3, by a command that is put before: "open", or why not."""
    words = [address, str(port), str(SECONDS), *([source] if source else [])]
    command = [*before, "/usr/bin/python3", "-c", CONNECT, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def inside(process: int) -> list[str]:
    """What runs a command in the network namespace of a process."""
    return ["nsenter", f"--net=/proc/{process}/ns/net"]


def user(number: int) -> list[str]:
    """What runs a command as another user of this host."""
    return ["setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups"]
