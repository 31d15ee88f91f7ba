"""A small EC2-compatible cloud on the user's own machine, for rehearsals and tests.

The API is moto's; the instances, disks, metadata and network behind it are real.

What it protects, and from whom:

- The host, from its machines. Images, user data and packages run code as root in a machine. That root is
  an unprivileged user of the host: a machine has its own users, network, mounts and processes, and shares
  only the kernel. The host reads and writes a machine's disk below its root only
  (machines/rooted_files.py), makes no system call for a machine except to trim its disk
  (machines/calls.py), and starts no program for it. With --trust-guests, on a host that can't map ids, a
  machine's root is the host's.
- The cloud, from everybody but its owner. Packets of other users of the host and of its neighbours are
  dropped (network/firewall.py). Calls are signed with a secret that each cloud makes anew (api/access/).
  The cloud is steered over a socket that only root can open (network/control.py). The state directory,
  with disks, keys and log, belongs to root alone.
- Machines, from each other. A machine sends from its own address only, reaches another where a security
  group allows it, and calls of AWS what its role's policies allow (api/access/policies.py).
- AWS, from the cloud. The cloud has none of the user's credentials, and a rehearsal's clients refuse every
  other address.

What it does not protect: the host from root or the owner; one program of the owner from another; secrets
from a process that reads the host's memory; anything from a bug in the kernel; and the host's disk and
processors from a machine that fills them or keeps them busy (only its memory is limited).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bake.localcloud.api.access.callers import needs as needs
    from bake.localcloud.api.access.callers import take_role as take_role
    from bake.localcloud.api.faults.remote import RemoteFaults as RemoteFaults
    from bake.localcloud.api.image_usage import tell_usage as tell_usage
    from bake.localcloud.cli import local as local
    from bake.localcloud.hub.control import RemoteHub as RemoteHub
    from bake.localcloud.hub.server import Hub as Hub
    from bake.localcloud.images.store import ImageStore as ImageStore
    from bake.localcloud.lifecycle.cloud import declare_egress as declare_egress
    from bake.localcloud.lifecycle.cloud import down as down
    from bake.localcloud.lifecycle.cloud import provide as provide
    from bake.localcloud.lifecycle.cloud import running as running
    from bake.localcloud.lifecycle.cloud import save as save
    from bake.localcloud.lifecycle.cloud import up as up
    from bake.localcloud.lifecycle.cloud import users as users
    from bake.localcloud.lifecycle.environment import EXAMPLES as EXAMPLES
    from bake.localcloud.lifecycle.environment import NOT_REHEARSED as NOT_REHEARSED
    from bake.localcloud.lifecycle.environment import sources as sources
    from bake.localcloud.lifecycle.local_cloud import LocalCloud as LocalCloud
    from bake.localcloud.network.control import over_socket as over_socket
    from bake.localcloud.options import asked_delays as asked_delays
    from bake.localcloud.options import delays as delays
    from bake.localcloud.options import trust_guests as trust_guests
    from bake.localcloud.options import trusted as trusted
    from bake.localcloud.settings import Delays as Delays
    from bake.localcloud.settings import Settings as Settings

# The facade: each public name of the local cloud, and the module that defines it. A module is imported when
# one of its names is first used, since moto takes a second to import.
_ROOMS = {
    "Delays": "settings",
    "EXAMPLES": "lifecycle.environment",
    "Hub": "hub.server",
    "ImageStore": "images.store",
    "LocalCloud": "lifecycle.local_cloud",
    "NOT_REHEARSED": "lifecycle.environment",
    "RemoteFaults": "api.faults.remote",
    "RemoteHub": "hub.control",
    "Settings": "settings",
    "asked_delays": "options",
    "delays": "options",
    "declare_egress": "lifecycle.cloud",
    "down": "lifecycle.cloud",
    "local": "cli",
    "needs": "api.access.callers",
    "over_socket": "network.control",
    "provide": "lifecycle.cloud",
    "running": "lifecycle.cloud",
    "save": "lifecycle.cloud",
    "sources": "lifecycle.environment",
    "take_role": "api.access.callers",
    "tell_usage": "api.image_usage",
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
