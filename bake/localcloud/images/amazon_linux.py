"""The base AMI for Amazon Linux: the user's own image, or a stand-in with a real dnf and rpm."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bake.errors import UsageError
from bake.localcloud import host
from bake.localcloud.images import base, rpms, user_image
from bake.localcloud.settings import GATEWAY, PACKAGES_PORT
from bake.systems import SYSTEMS

SYSTEM = SYSTEMS["amazon-linux"]
PACKAGES = [*base.PACKAGES, "dnf", "rpm", "createrepo-c", "gpg", "gpg-agent"]
# Provisioning finds these missing and installs them with dnf, from the local cloud's repository.
APART = ("ca-certificates",)
# Left out: nobody reads these on a rehearsal's machine, and each file would have to be packed.
UNREAD = [
    f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man", "info", "i18n/locales")
]

# Files for the stand-in and for an image of the user's alike.
EC2 = {
    **base.FILES,
    "etc/cloud/cloud.cfg.d/90_ec2.cfg": base.CLOUD.substitute(
        distro=f"  distro: amazon\n  ssh_svcname: {SYSTEM.ssh}\n",
        user=SYSTEM.user,
        gecos="EC2 Default User",
        groups=f"{SYSTEM.admins}, adm, systemd-journal",
    ),
    "etc/motd": "A rehearsal machine without a GPU.\n",
}
STAND_IN = {
    "usr/lib/os-release": """\
NAME="Amazon Linux"
VERSION="2023"
ID="amzn"
ID_LIKE="fedora"
VERSION_ID="2023"
PLATFORM_ID="platform:al2023"
PRETTY_NAME="Amazon Linux 2023 (stand-in)"
""",
    "etc/yum.repos.d/amazonlinux.repo": f"""\
[amazonlinux]
name=Amazon Linux 2023 repository (stand-in)
baseurl=http://{GATEWAY}:{PACKAGES_PORT}/
enabled=1
gpgcheck=1
gpgkey=file:///{rpms.KEY}
metadata_expire=300
""",
    # On this system cloud-init asks hostnamectl, which needs a bus: as Debian orders units, there is none.
    "etc/cloud/cloud.cfg.d/91_stand_in.cfg": "preserve_hostname: true\n",
    "etc/sudoers.d/10-wheel": f"%{SYSTEM.admins} ALL=(ALL) ALL\n",
}


@dataclass(frozen=True)
class AmazonLinux:
    """The base, at `place` once built. `image` is the user's own image (a path or URL), or empty."""

    place: Path
    image: str

    @property
    def disk(self) -> Path:
        return self.place / "disk.img"

    @property
    def packages(self) -> Path:
        """The rpm repository that the local cloud serves."""
        return self.place / "packages"

    @property
    def what(self) -> str:
        """A sentence for the plan."""
        if self.image:
            return f"The base AMI is made of {self.image}, with user {SYSTEM.user}."
        return (
            f"The base AMI is a stand-in for Amazon Linux: user {SYSTEM.user}, dnf, yum and an rpm database, "
            "with the host distribution's programs as its packages, without drivers or CUDA; "
            "BAKE_AMAZON_LINUX_IMAGE names an image to use instead."
        )


def find(cache: Path, image: str) -> AmazonLinux:
    """Return where the base is or will be; builds nothing."""
    files = {**EC2, **({} if image else STAND_IN)}
    made_of = user_image.identity(image) if image else [PACKAGES, base.own_sources(), rpms.identity()]
    recipe = json.dumps([made_of, files, base.MASKED, base.SIZE_GIB, APART, UNREAD, 1], sort_keys=True)
    return AmazonLinux(cache / "base" / hashlib.sha256(recipe.encode()).hexdigest()[:16], image)


def build(wanted: AmazonLinux, say: Callable[[str], None]) -> None:
    """Build the base unless it is there."""
    if wanted.disk.exists():
        return
    started = time.monotonic()
    made_of = wanted.image or "mmdebstrap and rpmbuild"
    say(f"building the base AMI for Amazon Linux with {made_of} (once; a few minutes) …")
    with base.building(wanted.place) as work:
        root = work / "root"
        if wanted.image:
            _from_image(wanted.image, root)
            (work / "packages").mkdir()
        else:
            _stand_in(root, work / "packages")
        base.write_disk(root, work / "disk.img")
    say(f"built the base AMI for Amazon Linux in {time.monotonic() - started:.0f} s")


def _from_image(image: str, root: Path) -> None:
    user_image.unpack(image, root)
    release = base.os_release(root)
    if release.get("ID") not in SYSTEM.os_ids:
        raise UsageError(
            f"BAKE_AMAZON_LINUX_IMAGE: {image} is {release.get('PRETTY_NAME', 'another system')}, "
            "not Amazon Linux"
        )
    base.configure(root, EC2)


def _stand_in(root: Path, packages: Path) -> None:
    base.install(root, base.own_sources(), PACKAGES, *UNREAD)
    (root / "usr/bin/yum").symlink_to("dnf-3")
    base.configure(root, {**EC2, **STAND_IN})
    (root / "etc/sudoers.d/10-wheel").chmod(0o440)
    host.run("groupadd", "--root", root, "--system", SYSTEM.admins)
    rpms.convert(root, packages, APART)
