"""A small EC2-compatible cloud on the user's own machine, for rehearsals and tests.

The API is moto's; the instances, disks, metadata and network behind it are real.

What it protects, and from whom:

- The host, from its machines. Images, user data and packages are code that runs as root in a machine, so a
  machine's root is a user of the host without rights: it has users, network, mounts and processes of its
  own, and the kernel that all share. The host reads and writes a machine's disk beneath its root only
  (machines/beneath.py), makes no call for a machine but the trimming of its own disk (machines/calls.py),
  and starts nothing for it. With --trust-guests, where a host can't map ids, a machine's root is the
  host's.
- The cloud, from everybody but its owner. Packets of other users of the host and of its neighbours are
  dropped (firewall.py), calls are signed with a secret that is made anew for each cloud (access/), and what
  steers it goes over a socket that root alone can open (control.py). The state directory, with disks, keys
  and log, is root's alone.
- Machines, from each other: one sends from its own address only, reaches another where a security group
  says so, and may call of AWS what its role's policies say (access/policies.py).
- AWS, from the cloud: it knows no credentials of the user's, and a rehearsal's clients refuse every other
  address.

What it does not protect: the host from root or the owner; one program of the owner's from another; secrets
from whoever reads the memory of the host; anything from a bug in the kernel; and the host's disk and
processors from a machine that fills or keeps them busy (its memory alone is limited).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bake.localcloud.api.faults.remote import RemoteFaults as RemoteFaults
    from bake.localcloud.cli import local as local
    from bake.localcloud.hub.control import RemoteHub as RemoteHub
    from bake.localcloud.hub.server import Hub as Hub
    from bake.localcloud.images.store import ImageStore as ImageStore
    from bake.localcloud.lifecycle.cloud import down as down
    from bake.localcloud.lifecycle.cloud import provide as provide
    from bake.localcloud.lifecycle.cloud import running as running
    from bake.localcloud.lifecycle.cloud import up as up
    from bake.localcloud.lifecycle.cloud import users as users
    from bake.localcloud.lifecycle.environment import EXAMPLES as EXAMPLES
    from bake.localcloud.lifecycle.environment import NOT_REHEARSED as NOT_REHEARSED
    from bake.localcloud.lifecycle.environment import sources as sources
    from bake.localcloud.lifecycle.local_cloud import LocalCloud as LocalCloud
    from bake.localcloud.network.control import over_socket as over_socket
    from bake.localcloud.options import trust_guests as trust_guests
    from bake.localcloud.options import trusted as trusted
    from bake.localcloud.settings import Settings as Settings

# The facade: everything that others may use of the local cloud, and the room that it is in. Rooms are
# imported when a name is first used, since moto takes a second.
_ROOMS = {
    "EXAMPLES": "lifecycle.environment",
    "Hub": "hub.server",
    "ImageStore": "images.store",
    "LocalCloud": "lifecycle.local_cloud",
    "NOT_REHEARSED": "lifecycle.environment",
    "RemoteFaults": "api.faults.remote",
    "RemoteHub": "hub.control",
    "Settings": "settings",
    "down": "lifecycle.cloud",
    "local": "cli",
    "over_socket": "network.control",
    "provide": "lifecycle.cloud",
    "running": "lifecycle.cloud",
    "sources": "lifecycle.environment",
    "trust_guests": "options",
    "trusted": "options",
    "up": "lifecycle.cloud",
    "users": "lifecycle.cloud",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)
    except ModuleNotFoundError:
        from bake.localcloud.packages.needed import require_packages

        require_packages()  # names all that are missing, and the extra that has them
        raise
