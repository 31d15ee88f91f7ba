"""Turns what mmdebstrap installed into rpm packages: a Debian tree becomes a machine of dnf and rpm.

Every installed Debian package becomes an rpm with the same files, so that rpm's database knows each file of
the machine and `rpm --verify` means something. The work is done by the tree's own rpmbuild, rpmsign and
createrepo_c, in a chroot: nothing of it is needed on the host.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bake.localcloud import host

# What Amazon Linux calls them; several that become one are joined. Other names stay as Debian's are.
RENAMED = [
    (r"libc6|libc-bin", "glibc"),
    (r"python3\.\d+|python3|python3-minimal|python3\.\d+-minimal", "python3"),
    (
        r"libpython3-stdlib|libpython3\.\d+(-stdlib|-minimal)?|python3(\.\d+)?-venv|python3-distutils",
        "python3-libs",
    ),
    (r"python3-dnf", "python3-dnf"),
    (r"createrepo-c", "createrepo_c"),
    (r"iproute2", "iproute"),
    (r"procps", "procps-ng"),
    (r"libnss-(myhostname|systemd)|systemd-sysv", "systemd"),
    (r"udev", "systemd-udev"),
    (r"passwd", "shadow-utils"),
    (r"gpg|gpg-agent|gpgv", "gnupg2"),
    (r"bsdutils|mount", "util-linux"),
    (r"base-files", "system-release"),
]
# A machine of dnf has no other package manager; what only Debian's has a use for goes with it.
DEBIAN_ONLY = ("apt", "dpkg", "libapt-pkg6.0", "debconf", "debian-archive-keyring", "ucf", "ubuntu-keyring")
DEBIANS = ("/var/lib/dpkg", "/var/lib/apt", "/var/cache/apt", "/etc/apt", "/etc/debian_version")
# Files that a package's own script made at its installation, by the package they belong to.
MADE = {"ca-certificates": ("etc/ssl/certs",), "dnf": ("usr/bin/yum",)}
# Names that foreign packages ask for: scripts in an rpm need /bin/sh, whatever links there are.
PROVIDED = {"bash": ("/bin/bash", "/bin/sh"), "python3": ("/usr/bin/python3", "python(abi)")}
# What the tree calls itself; dnf fills it in for $releasever.
RELEASE = "2023-1"
# What the packages are signed with. The key that signs is thrown away with the build.
SIGNER = "Local cloud (stand-in for Amazon Linux)"
KEY = "etc/pki/rpm-gpg/RPM-GPG-KEY-amazon-linux-stand-in"

# /mnt is the tree itself: rpmbuild packs the files from where they are and refuses / as their root. It must
# not empty, strip or search them, hence the empty macros.
_BUILD = r"""
set -eu
mkdir -p /build/rpms /build/gnupg && chmod 700 /build/gnupg && export GNUPGHOME=/build/gnupg HOME=/build
gpg --batch --quiet --passphrase '' --quick-generate-key "$1" rsa3072 sign never 2>/build/gpg.log
mkdir -p "$(dirname "/$2")" && gpg --armor --export "$1" > "/$2"
rpmbuild --quiet -bb --noclean --buildroot /mnt --define '_rpmdir /build/rpms' \
  --define '_build_name_fmt %%{NAME}.rpm' \
  --define '__spec_install_pre %{nil}' --define '__spec_install_post %{nil}' --define '__check_files %{nil}' \
  --define '_binary_payload w.ufdio' --define 'debug_package %{nil}' --define '_build_id_links none' \
  /build/all.spec
for name in $3; do mv /build/rpms/"$name.rpm" /repository/; done
rpmsign --define "_gpg_name $1" --addsign /repository/*.rpm >/build/sign.log 2>&1
rpm --install --justdb --nodeps --noscripts --notriggers --ignoresize /build/rpms/*.rpm
createrepo_c --quiet /repository
gpgconf --kill all
"""

# dpkg-query's fields, apart by characters that stand in no field.
_FIELDS = (
    "Package",
    "Architecture",
    "Version",
    "binary:Summary",
    "Depends",
    "Pre-Depends",
    "Provides",
    "Conffiles",
)
_FORMAT = "\x1f".join(f"${{{name}}}" for name in _FIELDS) + "\x1e"


@dataclass
class Package:
    """An rpm to be: its name, Debian's version, the paths it owns, and how it hangs together with others."""

    name: str
    version: str
    summary: str
    folders: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    settings: set[str] = field(default_factory=set)
    requires: set[str] = field(default_factory=set)
    provides: set[str] = field(default_factory=set)

    def spec(self) -> str:
        """Its part of a spec file in which it is one package of many."""
        epoch, version, release = rpm_version(self.version)
        summary = self.summary.replace("%", "%%")
        lines = [
            f"%package -n {self.name}",
            f"Summary: {summary}",
            f"Epoch: {epoch}" if epoch else "",
            f"Version: {version}",
            f"Release: {release}",
            "AutoReqProv: no",
            *(f"Requires: {name}" for name in sorted(self.requires - {self.name})),
            *(f"Provides: {name}" for name in sorted(self.provides - {self.name})),
            f"%description -n {self.name}",
            summary,
            f"%files -n {self.name}",
            *(f"%dir {_pattern(path)}" for path in sorted(self.folders)),
            *(f"%config(noreplace) {_pattern(path)}" for path in sorted(self.settings)),
            *(_pattern(path) for path in sorted(self.files - self.settings)),
        ]
        return "\n".join(line for line in lines if line) + "\n\n"


def identity() -> str:
    """Another text wherever the packages would come out otherwise."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def rpm_version(debian: str) -> tuple[str, str, str]:
    """Epoch (or ""), version and release; "1:2.36-9+deb12u4" is ("1", "2.36", "9+deb12u4")."""
    epoch, _, rest = debian.rpartition(":")
    version, _, release = rest.rpartition("-") if "-" in rest else (rest, "", "1")
    return epoch, re.sub(r"[^\w.+~^]", "_", version), re.sub(r"[^\w.+~^]", "_", release)


def rpm_name(debian: str) -> str:
    """What a Debian package is called as an rpm."""
    return next((new for old, new in RENAMED if re.fullmatch(old, debian)), debian)


def convert(root: Path, repository: Path, apart: Iterable[str] = ()) -> None:
    """Make `root` a machine of rpm, and `repository` a signed repository of the packages named in `apart`.

    Those are taken off the machine: they are what a provisioning finds missing, and installs.
    """
    packages = _read(root)
    for package in packages.values():
        package.requires -= set(apart)
    build = root / "build"
    build.mkdir()
    (root / "repository").mkdir()
    head = "Name: all\nVersion: 1\nRelease: 1\nSummary: all\nLicense: various\n%description\n\n"
    (build / "all.spec").write_text(head + "".join(package.spec() for package in packages.values()))
    (root / "etc/rpm").mkdir(exist_ok=True)
    # Debian keeps rpm's database in a home, where it harms no machine of dpkg; this is none.
    (root / "etc/rpm/macros.stand-in").write_text("%_dbpath /var/lib/rpm\n%__gpg /usr/bin/gpg\n")
    host.run(
        "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
        "sh", "-c", f'mount --bind {root} {root}/mnt && exec chroot {root} sh -c "$0" sh "$@"',
        _BUILD, SIGNER, KEY, " ".join(apart), timeout=900,
    )  # fmt: skip
    for name in apart:
        for path in packages[name].files:
            (root / path[1:]).unlink()
    _forget_debian(root)
    shutil.move(root / "repository", repository)
    shutil.rmtree(build)


def _read(root: Path) -> dict[str, Package]:
    """The tree's Debian packages as rpms to be, by their new names; what is Debian's alone is left out."""
    database = root / "var/lib/dpkg"
    listed = host.run("dpkg-query", f"--admindir={database}", "--show", f"--showformat={_FORMAT}")
    rows = [dict(zip(_FIELDS, row.split("\x1f"), strict=True)) for row in listed.split("\x1e")[:-1]]
    there = {row["Package"] for row in rows} - set(DEBIAN_ONLY)
    packages: dict[str, Package] = {}
    for row in rows:
        if row["Package"] not in there:
            continue
        name = rpm_name(row["Package"])
        package = packages.setdefault(name, Package(name, row["Version"], row["binary:Summary"]))
        _add_paths(package, root, _owned(database, row))
        package.settings |= {
            _merged(root, line.split()[0]) for line in row["Conffiles"].splitlines() if line.strip()
        }
        package.settings &= package.files
        package.provides |= {row["Package"], *re.findall(r"(?:^|, )([\w.+-]+)", row["Provides"])}
        package.provides |= set(PROVIDED.get(name, ()))
        package.requires |= {rpm_name(other) for other in _needed(row) if other in there}
    packages["system-release"].version = RELEASE
    packages["system-release"].provides.add(f"system-release(releasever) = {RELEASE.partition('-')[0]}")
    return packages


def _owned(database: Path, row: dict[str, str]) -> list[str]:
    info = database / "info"
    listing = info / f"{row['Package']}.list"
    if not listing.exists():
        listing = info / f"{row['Package']}:{row['Architecture']}.list"
    root = database.parents[2]
    made = [
        found
        for place in MADE.get(row["Package"], ())
        for found in [root / place, *(root / place).rglob("*")]
    ]
    return [
        *listing.read_text(encoding="utf-8").splitlines(),
        *(f"/{path.relative_to(root)}" for path in made),
    ]


def _needed(row: dict[str, str]) -> list[str]:
    """The packages of Depends and Pre-Depends, each the first of its alternatives, without versions."""
    return re.findall(r"(?:^|, )([\w.+-]+)", f"{row['Depends']}, {row['Pre-Depends']}")


def _add_paths(package: Package, root: Path, paths: Iterable[str]) -> None:
    for path in (_merged(root, path) for path in paths):
        here = root / path[1:]
        if path.startswith(DEBIANS) or (path.count("/") == 1 and (here.is_symlink() or path == "/.")):
            continue  # gone soon; or the tree's own top, with its links to /usr
        if here.is_symlink() or here.is_file():
            package.files.add(path)
        elif here.is_dir():
            package.folders.add(path)


def _merged(root: Path, path: str) -> str:
    """The path below /usr where its top folder is a link to there, as of /lib and /bin."""
    top = path.split("/")[1]
    return f"/usr{path}" if (root / top).is_symlink() and path != f"/{top}" else path


def _pattern(path: str) -> str:
    """A path as a spec file takes it: patterns, so what means something in one stands as any character."""
    return re.sub(r"[^\w/.,+:@~=^-]", "?", path)


def _forget_debian(root: Path) -> None:
    """Take away the other package manager: a script that calls it fails, as on Amazon Linux."""
    for name in DEBIAN_ONLY:
        listing = root / f"var/lib/dpkg/info/{name}.list"
        package = Package(name, "", "")
        if listing.exists():
            _add_paths(package, root, listing.read_text().splitlines())
        for path in package.files:
            (root / path[1:]).unlink()
    host.run("rm", "-rf", *(root / path[1:] for path in DEBIANS))
