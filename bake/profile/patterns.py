"""Patterns that the schema and the checks share, and directories whose content is lost."""

from __future__ import annotations

import re

CACHE = r"^~?(/[A-Za-z0-9._+@-]+)+$"
MIRROR = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/(?!\.\.?(/|$))[A-Za-z0-9._-]+)*"
# Things on a base AMI, by name and never by path: the machine knows where they are.
REMOVABLE = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$"

# Directories whose content is lost: no snapshot holds an instance store (R-EBS).
FLEETING = {
    "/opt/dlami/nvme": "is the instance store of a Deep Learning AMI",
    "/mnt": "is where an instance store is mounted",
    "/media": "is where an instance store is mounted",
    "/tmp": "is emptied at boot",  # noqa: S108
    "/var/tmp": "is emptied by the system",  # noqa: S108
    "/run": "lies in memory",
    "/dev": "lies in memory",
    "/proc": "lies in memory",
    "/sys": "lies in memory",
}

# Values that a secret store may hold because they differ between accounts (R-CONFIG), and that are public:
# redacted, an AMI id or a region would be missing from plan and report.
PUBLIC = re.compile(
    r"(ami|subnet|sg|vpc)-[0-9a-f]{8,17}"  # ids of EC2
    r"|arn:aws[\w-]*:\S+|alias/\S+"
    r"|[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}"  # regions
    r"|[0-9]{12}"  # accounts
    r"|[a-z][a-z0-9-]*\.([0-9]*x?large|nano|micro|small|medium|metal[0-9a-z-]*)"  # instance types
    r"|[0-9.]+/[0-9]{1,2}"
    r"|s3://[A-Za-z0-9./_-]+|https?://[^\s@?]+"
)
