"""Serve a folder as the local Hub does, in a process of its own: python serve_hub.py FOLDER TOKEN [--xet]

Prints its address, and that of its controls. With `--xet` the large files lie in a content store of Xet's as
well, beside FOLDER.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from bake.localcloud import Hub
from bake.localcloud.hub import control as hub_control
from bake.localcloud.hub.server import Xet, repository
from bake.localcloud.network.control import Control
from bake.localcloud.network.server import serve


def on_xet(folder: Path) -> Xet:
    """Bring the large files into a store that hf_xet makes and reads by itself."""
    import hf_xet

    store = f"local://{folder.parent / 'xet'}"
    with hf_xet.XetSession().new_upload_commit(endpoint=store) as commit:
        large = [file for file in repository(folder).values() if file.sha256]
        uploads = {file.path: commit.start_upload_file(str(file.file)) for file in large}
    return Xet({path: upload.result().xet_info.hash for path, upload in uploads.items()}, store)


def main() -> None:
    """Serve until killed."""
    folder, token = Path(sys.argv[1]), sys.argv[2]
    xet = on_xet(folder) if "--xet" in sys.argv else None
    hub = Hub(folder, token, xet)
    control = Control(hub_control.routes(hub))
    servers = [serve("127.0.0.1", 0, app, "the Hub") for app in (hub, control)]
    print(*(f"http://127.0.0.1:{server.server_port}" for server in servers), flush=True)
    threading.Event().wait()


main()
