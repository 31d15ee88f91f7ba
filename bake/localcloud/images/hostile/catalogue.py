"""The list of hostile bases: where each occurs, and how a bake of it must end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bake.localcloud.images.base import SIZE_GIB

NAMED = {"ubuntu": "Ubuntu", "amazon-linux": "Amazon Linux 2023"}
BOTH = ("ubuntu", "amazon-linux")
UBUNTU, AMAZON = ("ubuntu",), ("amazon-linux",)
ROOT_DEVICE = "/dev/sda1"


@dataclass(frozen=True)
class Hostile:
    """A base, named like its script (or like `script`, which gets the name as its second argument).

    `why` says where it occurs. A bake of it works; if `stops` is set, it ends before anything is downloaded,
    with a message that this pattern matches (case ignored). `called` replaces the system in the AMI's name.
    The AMI has the other fields: its root volume's size and device, more block device mappings, encryption,
    and `hidden` if it is Amazon's, so that the account can't see its snapshot. `profile` is added to a
    rehearsal's profile: shorter limits, so that the bake soon notices what never ends.
    """

    name: str
    why: str
    stops: str = ""
    systems: tuple[str, ...] = BOTH
    script: str = ""
    called: str = ""
    gib: int = SIZE_GIB
    root_device: str = ROOT_DEVICE
    mappings: tuple[dict[str, Any], ...] = ()
    encrypted: bool = False
    hidden: bool = False
    profile: dict[str, Any] = field(default_factory=dict)


EPHEMERAL: tuple[dict[str, Any], ...] = (
    {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
    {"DeviceName": "/dev/sdc", "VirtualName": "ephemeral1"},
    {"DeviceName": "/dev/sdd", "NoDevice": ""},
)
DATA: tuple[dict[str, Any], ...] = ({"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 200}},)

_SOON = {"builder": {"cloud_init_wait_minutes": 0}}

_SHELL = (
    Hostile("umask-077", "CIS: files that are made are their maker's alone, services' too"),
    Hostile("chatty-shell", "shells print on logins without a terminal, on both streams"),
    Hostile("exec-shell", ".bashrc starts another shell, which never sees the command", "shell"),
    Hostile("exec-sh", ".bashrc hands the command on to another shell", script="exec-shell"),
    Hostile("no-user-group", "the user has no group of its own name"),
    Hostile("shell-is-sh", "the user's shell is sh, not bash"),
    Hostile("slow-shell", "each command begins two seconds later"),
    Hostile("tmout", "CIS: idle shells end after a minute, by a variable that can't be unset"),
    Hostile("ld-preload", "an agent that was removed is still preloaded: all programs complain on stderr"),
    Hostile("proxy-environment", "PAM gives everybody, root too, a proxy that is gone", script="proxy"),
    Hostile("conda-first", "a conda environment's python3, pip and curl come before the system's"),
    Hostile("no-locale", "the locale that is set was never generated"),
)
_SUDO = (
    Hostile("use-pty", "CIS: sudo runs commands in a terminal of its own, and logs them"),
    Hostile("requiretty", "sudo refuses who has no terminal", "tty|terminal", script="use-pty"),
    Hostile("sudo-password", "CIS: nobody has rights without a password", "sudo"),
    Hostile("no-secure-path", "sudo keeps the user's PATH, in which there is no sbin"),
    Hostile("unresolvable-host", "sudo complains on stderr each time that its host has no address"),
)
_SSH = (
    Hostile("max-sessions-1", "CIS: one session a connection", script="max-sessions"),
    Hostile("max-sessions-2", "CIS: two sessions a connection", script="max-sessions"),
    Hostile("no-ed25519", "FIPS: no ed25519, neither for hosts nor for users"),
    Hostile(
        "no-common-host-key",
        "the host offers RSA alone, by a key of its own",
        "host key",
        script="no-ed25519",
    ),
    Hostile("two-factor", "sshd wants a password beside the key", "authenti|password|factor"),
    Hostile("cis-sshd", "banner, no SFTP, no forwarding, few starts, clients counted dead in seconds"),
)
_BOOT = (
    Hostile(
        "cloud-init-endless",
        "a script of the base's never ends",
        "cloud-init",
        script="cloud-init",
        profile=_SOON,
    ),
    Hostile(
        "cloud-init-blocked",
        "a unit that cloud-init waits for never ends",
        "wait-for-storage",
        script="cloud-init",
        profile=_SOON,
    ),
    Hostile("cloud-init-slow", "a script of the base's takes 20 s", script="cloud-init"),
    Hostile("cloud-init-failed", "a script of the base's fails", "cloud-init", script="cloud-init"),
    Hostile("cloud-init-degraded", "cloud-init warns of a module that is gone", script="cloud-init"),
    Hostile("failed-unit", "a unit of the base's fails at each boot"),
    Hostile("systemd-defaults", "all units have 15 s to start, few tasks, and no journal on the disk"),
)
_PACKAGES = (
    Hostile("dpkg-held", "unattended upgrades hold the package database for 90 s"),
    Hostile(
        "dpkg-held-forever",
        "an upgrade that hangs holds it for good",
        "lock",
        script="dpkg-held",
        profile={"builder": {"package_wait_minutes": 0}},
    ),
    Hostile("dpkg-broken", "a package is half installed, for want of another", systems=UBUNTU),
    Hostile("dead-repository", "a repository of a vendor's does not answer any more"),
    Hostile("verify-noise", "files of packages were changed after their installation"),
    Hostile("old-systemd", "systemd 219", "Amazon Linux 2", systems=AMAZON, called="Amazon Linux 2"),
    Hostile("python-3.10-only", "no Python that the worker runs on", script="python-only"),
    Hostile("python-3.12-only", "another Python than the locked one", script="python-only"),
)
_BROUGHT = (
    Hostile("noexec-tmp", "CIS: nothing in /tmp, /var/tmp and /dev/shm can be run"),
    Hostile("tiny-tmp", "what can be written to without a disk holds 8 MiB"),
    Hostile("opt-elsewhere", "/opt and /usr/local are links to another place"),
    Hostile("auditd", "each sudo is written to audit.log, by a daemon that systemd may not stop"),
    Hostile("fabricmanager-failed", "made for NVSwitch, enabled, and failed on a type with one GPU"),
    Hostile("persistenced-static", "a persistence daemon that can't be enabled"),
    Hostile("rpcbind", "port 111 is open, TCP and UDP"),
    Hostile("keys-in-opt", "private keys of examples and tests lie below /opt and /usr/local"),
    Hostile("vendor-user", "a user of a vendor's who may do all, and a setuid program"),
    Hostile("two-kernels", "a second kernel, with its modules"),
    Hostile("small-boot", "/boot is a file system of its own, and nearly full"),
)
_IMAGES = (
    Hostile("xvda-root", "the root device is called /dev/xvda", root_device="/dev/xvda"),
    Hostile("encrypted-root", "its snapshot is encrypted with the account's default key", encrypted=True),
    Hostile("ephemeral", "it maps instance stores, and one device away", mappings=EPHEMERAL),
    Hostile("data-volume", "it brings a second volume, of 200 GiB", "volumes that nobody", mappings=DATA),
    Hostile("full", "75 GiB with 50 used, as a Deep Learning AMI's", "GiB", gib=75, hidden=True),
    Hostile("neuron-full", "100 GiB with 60 used, as for Neuron", "GiB", gib=100, hidden=True, script="full"),
)
HOSTILE = (*_SHELL, *_SUDO, *_SSH, *_BOOT, *_PACKAGES, *_BROUGHT, *_IMAGES)
