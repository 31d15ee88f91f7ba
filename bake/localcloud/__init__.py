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
