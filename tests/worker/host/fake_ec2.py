"""Stands for EC2 beside a real instance: its metadata service, and the part of Auto Scaling that moto lacks.

    python fake_ec2.py FOLDER MOTO

What lies in FOLDER/meta-data is what the metadata service (version 2 alone) tells; `refuse` in FOLDER makes
it answer 503, `forget` makes it forget its tokens once. Auto Scaling's calls go on to MOTO, but for two: an
instance is in the state that FOLDER/state holds, or not known yet where that is empty, and a completed
lifecycle action is written to FOLDER/completed, since moto knows neither; with `deny` in FOLDER all are
denied. The port is printed. The end of stdin is its end, so that it never outlives a test.
"""

from __future__ import annotations

import re
import secrets
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

FOLDER, MOTO = Path(sys.argv[1]), sys.argv[2]
TOKENS: set[str] = set()
COMPLETED = (
    '<CompleteLifecycleActionResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/">'
    "<CompleteLifecycleActionResult/><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>"
    "</CompleteLifecycleActionResponse>"
)
REFUSED = (
    '<ErrorResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/"><Error><Type>Sender</Type>'
    "<Code>{}</Code><Message>{}</Message></Error></ErrorResponse>"
)


class Ec2(BaseHTTPRequestHandler):
    """Both services on one port: their paths and methods differ."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self, status: int, text: str = "", kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self) -> None:
        if self.path != "/latest/api/token" or not self.headers["X-aws-ec2-metadata-token-ttl-seconds"]:
            return self.answer(400)
        token = secrets.token_urlsafe()
        TOKENS.add(token)
        return self.answer(200, token)

    def do_GET(self) -> None:
        if (FOLDER / "forget").exists():
            (FOLDER / "forget").unlink()
            TOKENS.clear()
        if (FOLDER / "refuse").exists():
            return self.answer(503)
        if self.headers["X-aws-ec2-metadata-token"] not in TOKENS:
            return self.answer(401)
        file = FOLDER / self.path.removeprefix("/latest/").strip("/")
        return self.answer(200, file.read_text()) if file.is_file() else self.answer(404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        requested = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if (FOLDER / "deny").exists():
            return self.answer(403, REFUSED.format("AccessDenied", "not authorized"), "text/xml")
        if requested["Action"] == "CompleteLifecycleAction":
            if requested["LifecycleHookName"] == "over":
                reason = REFUSED.format("ValidationError", "No active Lifecycle Action found")
                return self.answer(400, reason, "text/xml")
            with (FOLDER / "completed").open("a") as completed:
                completed.write(f"{requested['LifecycleHookName']} {requested['LifecycleActionResult']}\n")
            return self.answer(200, COMPLETED, "text/xml")
        request = urllib.request.Request(f"{MOTO}/", body, dict(self.headers))
        with urllib.request.urlopen(request, timeout=60) as forwarded:
            text = forwarded.read().decode()
        if requested["Action"] == "DescribeAutoScalingInstances":
            state = (FOLDER / "state").read_text()
            told = text.replace(">InService<", f">{state}<")
            text = told if state else re.sub("<member>.*</member>", "", text, flags=re.DOTALL)
        return self.answer(200, text, "text/xml")


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ec2)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
