"""Packages that no security update of a bake touches: the kernel, and what its driver hangs on.

An image boots the kernel that its driver's module was built for (provision/lib/kernel.sh); another one would
leave it without its accelerator.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

SETTING = "BAKE_HELD_PACKAGES"
"""The name by which provisioning gets the patterns (provision/updates.sh)."""
HELD = (
    # Kernels: Amazon Linux's, then Ubuntu's with their metapackages.
    "kernel*",
    *("linux-image*", "linux-headers*", "linux-modules*", "linux-aws*", "linux-generic*", "linux-virtual*"),
    *("linux-tools*", "linux-cloud-tools*", "linux-objects*", "linux-signatures*", "linux-nvidia*"),
    *("linux-lowlatency*", "linux-realtime*", "linux-fips*"),
    # NVIDIA's driver: its module and its libraries are of one version.
    *("nvidia*", "libnvidia*", "kmod-nvidia*", "xserver-xorg-video-nvidia*", "cuda-drivers*"),
    "aws-neuronx*",
)
"""Patterns of names, as a shell, apt's preferences and dnf's `exclude` read them."""


def is_held(name: str) -> bool:
    """Whether a bake leaves the package as its base has it."""
    return any(fnmatchcase(name, pattern) for pattern in HELD)
