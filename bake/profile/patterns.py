"""What the texts of a profile look like, as expressions that the JSON Schema has as well; and places."""

from __future__ import annotations

import re

# Partitions of their own have longer names, like eusc-de-east-1.
REGION = r"^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$"
INSTANCE_TYPE = r"^[a-z][a-z0-9-]*\.[a-z0-9-]+$"
CACHE = r"^~?(/[A-Za-z0-9._+@-]+)+$"
ACCOUNT = r"^[0-9]{12}$"
MIRROR = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/(?!\.\.?(/|$))[A-Za-z0-9._-]+)*"
COMMIT = r"^[0-9a-f]{40}$"
# Without user name and password: what is in a URL is in argument lists and logs.
GIT_URL = (
    r"^(https?://[A-Za-z0-9][^\s@]*|(ssh|git|file)://([A-Za-z0-9._-]+@)?[A-Za-z0-9/][^\s@]*"
    r"|[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:[^\s@]+)$"
)
QUEUE = r"^https?://[^\s/@][^\s@]*$"
REPOSITORY = r"^https?://[^\s@]+$"
# `gpg --fingerprint` prints it in groups; write it without blanks.
FINGERPRINT = r"^[0-9A-F]{40}$"
# Pixels, each 256 to 1440 and a multiple of 16; `flux-worker compile` holds it to that.
SIZE = r"^[1-9][0-9]{2,3}x[1-9][0-9]{2,3}$"
# What a base AMI has too much of, by name and never by path: what there is is known when the machine answers.
REMOVABLE = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$"
PACKAGE_VERSION = r"^[0-9][A-Za-z0-9.+~-]{0,63}$"

# Where nothing lasts: instance stores are lost with their instance and no snapshot holds them (R-EBS).
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

# What is in a safe store because it differs between accounts (R-CONFIG) is not secret by that; taken out of
# all text, an AMI id or a region would be missing from plan and manifest.
PUBLIC = re.compile(
    r"(ami|subnet|sg|vpc)-[0-9a-f]{8,17}"  # ids of EC2
    r"|arn:aws[\w-]*:\S+|alias/\S+"
    r"|[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}"  # regions
    r"|[0-9]{12}"  # accounts
    r"|[a-z][a-z0-9-]*\.([0-9]*x?large|nano|micro|small|medium|metal[0-9a-z-]*)"  # instance types
    r"|[0-9.]+/[0-9]{1,2}"
    r"|s3://[A-Za-z0-9./_-]+|https?://[^\s@?]+"
)
