"""Answer strict machines' questions for names as the host's name servers do, and tell what was answered.

So the packet rules know a declared host's addresses before the machine does. https://www.rfc-editor.org/rfc/rfc1035
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer, ThreadingUDPServer
from typing import Any

Heard = Callable[[str, list[str]], None]
"""Called with a name and its IPv4 addresses, before the machine that asked has them."""
PATIENCE = 5.0  # seconds for a name server's answer
_LARGEST = 65535


def serve(address: str, port: int, upstream: Sequence[str], heard: Heard) -> Callable[[], None]:
    """Answer over UDP and TCP by asking the `upstream` servers in turn; return what ends it.

    A server is an address, with `:port` unless it is 53. Port 0 takes a free one.
    """
    servers: list[Any] = []
    for kind, handler in ((ThreadingUDPServer, _Datagram), (ThreadingTCPServer, _Stream)):
        kind.allow_reuse_address = True
        server: Any = kind((address, servers[0].server_address[1] if servers else port), handler)
        server.daemon_threads = True
        server.upstream, server.heard = tuple(map(_place, upstream)), heard
        threading.Thread(target=server.serve_forever, name="names", daemon=True).start()
        servers.append(server)

    def end() -> None:
        for one in servers:
            one.shutdown()
            one.server_close()

    return end


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.partition(":")
    return host, int(port or 53)


class _Datagram(BaseRequestHandler):
    server: Any

    def handle(self) -> None:
        question, answering = self.request
        for place in self.server.upstream:
            with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.settimeout(PATIENCE)
                asking.connect(place)
                asking.send(question)
                answer = asking.recv(_LARGEST)
                _tell(self.server.heard, answer)
                answering.sendto(answer, self.client_address)
                return


class _Stream(BaseRequestHandler):
    server: Any

    def handle(self) -> None:
        with suppress(OSError):
            question = _message(self.request)
            for place in self.server.upstream:
                with suppress(OSError), socket.create_connection(place, PATIENCE) as asking:
                    asking.sendall(struct.pack("!H", len(question)) + question)
                    answer = _message(asking)
                    _tell(self.server.heard, answer)
                    self.request.sendall(struct.pack("!H", len(answer)) + answer)
                    return


def _message(connection: socket.socket) -> bytes:
    [length] = struct.unpack("!H", _exactly(connection, 2))
    return _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        if not (more := connection.recv(count - len(content))):
            raise ConnectionError
        content += more
    return content


def _tell(heard: Heard, answer: bytes) -> None:
    with suppress(ValueError, IndexError, struct.error):  # not our answer to mend: it goes on as it is
        name, addresses = parse(answer)
        if addresses:
            heard(name, addresses)


def parse(message: bytes) -> tuple[str, list[str]]:
    """The name that a DNS message is about, and the IPv4 addresses in its answer.

    ValueError, IndexError or struct.error for what is no message about one name.
    """
    questions, answers = struct.unpack_from("!HH", message, 4)
    if questions != 1:
        raise ValueError("not one question")
    name, position = _name(message, 12)
    position += 4  # the question's type and class
    addresses = []
    for _ in range(answers):
        _, position = _name(message, position)
        kind, _, _, length = struct.unpack_from("!HHIH", message, position)
        position += 10
        if kind == 1 and length == 4:
            addresses.append(socket.inet_ntoa(message[position : position + 4]))
        position += length
    return name, addresses


def _name(message: bytes, position: int) -> tuple[str, int]:
    """Read a name, and the position after it; a compressed one goes on elsewhere."""
    labels: list[str] = []
    after: int | None = None
    for _ in range(128):
        length = message[position]
        if length & 0xC0 == 0xC0:
            after = position + 2 if after is None else after
            [pointer] = struct.unpack_from("!H", message, position)
            position = pointer & 0x3FFF
        elif length == 0:
            return ".".join(labels).lower(), position + 1 if after is None else after
        else:
            labels.append(message[position + 1 : position + 1 + length].decode("ascii", "replace"))
            position += 1 + length
    raise ValueError("a name without an end")
