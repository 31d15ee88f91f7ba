"""A distribution on the machine itself: packages, a plain repository, and its security updates."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from bake.checks.probes import probe
from bake.layout import BAKE, UPDATES
from bake.ssh import CommandResult, Session
from bake.ssh.program import facts
from bake.updates.held import HELD, SETTING


@dataclass(frozen=True)
class Offer:
    """A package in a repository. `breaks` makes an upgrade to it fail, `apart` is what it can't be with."""

    name: str
    version: str
    needs: str = ""
    apart: str = ""
    breaks: bool = False
    architecture: str = "all"


@dataclass
class Distribution(ABC):
    """What one machine's package manager is offered, and what it made of that."""

    session: Session
    packages: str
    offers: list[tuple[str, Offer]] = field(default_factory=list)

    def root(self, script: str, *, check: bool = True) -> CommandResult:
        """Run a bash script as root."""
        lines = f"umask 022\n{script}".encode()
        return self.session.run("bash", "-euo", "pipefail", "-s", stdin=lines, sudo=True, check=check)

    def update(self, umask: str = "077", **settings: str) -> CommandResult:
        """Install the security updates as the bake does, under a strict umask."""
        given = {"BAKE_UPDATES": "security", SETTING: " ".join(HELD), "PACKAGES_LOCK_TIMEOUT": "300"}
        pairs = [shlex.quote(f"{name}={value}") for name, value in {**given, **settings}.items()]
        line = f"umask {umask}; exec env {' '.join(pairs)} bash {BAKE}/updates.sh"
        return self.session.run("bash", "-c", line, sudo=True, check=False)

    def pending(self) -> dict[str, str]:
        """What the check finds."""
        given = {"packages": self.packages, "index": UPDATES, "held": list(HELD)}
        told = facts(probe("updates").run(self.session, given, 60).stdout)
        assert told["known"] > 0
        return dict(told["pending"])

    def installed(self, *names: str) -> dict[str, str]:
        """Versions, of those that are there."""
        lines = f"source {BAKE}/lib/packages.sh\n"
        lines += "".join(f'echo "{name} $(packages_version {name} || true)"\n' for name in names)
        rows = (line.split() for line in self.root(lines).stdout.splitlines())
        return {row[0]: row[1] for row in rows if len(row) == 2}

    def notes(self, done: CommandResult) -> list[str]:
        """What reaches the person who bakes."""
        return [line.removeprefix("note: ") for line in done.stdout.splitlines() if line.startswith("note: ")]

    @abstractmethod
    def offer(self, pocket: str, *offers: Offer) -> None:
        """Put packages into `release`, `updates` or `security`."""

    @abstractmethod
    def install(self, *offers: Offer) -> None:
        """Have packages installed, as the base does."""

    @abstractmethod
    def hold(self, name: str) -> None:
        """Hold a package, as the base's maker does."""

    @abstractmethod
    def sources(self, state: str) -> None:
        """Name the repositories: `good`, `none`, `down`, `unsigned` (of updates), `vendor down`."""

    @abstractmethod
    def clear(self) -> None:
        """Remove packages and repositories."""


SUITES = {"release": "stable", "updates": "stable-updates", "security": "stable-security"}
PUBLISH = """
cd /srv/archive/dists/$1; mkdir -p main/binary-$ARCH
(cd /srv/archive; for f in pool/$1/*.deb; do [ -e "$f" ] || continue
 dpkg-deb -f $f; echo Filename: $f; echo Size: $(stat -c %s $f)
 echo SHA256: $(sha256sum $f | cut -d' ' -f1); echo
done) > main/binary-$ARCH/Packages
printf 'Origin: Test\\nSuite: %s\\nCodename: stable\\nArchitectures: %s\\nComponents: main\\nDate: %s\\n' \
  $1 $ARCH "$(date -Ru)" > Release
printf 'SHA256:\\n %s %s main/binary-%s/Packages\\n' $(sha256sum main/binary-$ARCH/Packages | cut -d' ' -f1) \
  $(stat -c %s main/binary-$ARCH/Packages) $ARCH >> Release
"""


class Apt(Distribution):
    """A Debian or Ubuntu."""

    def offer(self, pocket: str, *offers: Offer) -> None:
        suite = SUITES[pocket]
        script = f"ARCH=$(dpkg --print-architecture)\nmkdir -p /srv/archive/pool/{suite} "
        script += f"/srv/archive/dists/{suite}\n"
        for one in offers:
            script += self._build(one, f"/srv/archive/pool/{suite}")
        self.root(f"{script}\nset -- {suite}\n{PUBLISH}")

    def _build(self, one: Offer, folder: str) -> str:
        fields = {"Package": one.name, "Version": one.version, "Architecture": one.architecture}
        fields |= {"Depends": one.needs} if one.needs else {}
        fields |= {"Conflicts": one.apart} if one.apart else {}
        control = "".join(f"{name}: {value}\n" for name, value in fields.items())
        control += "Maintainer: x\nDescription: x\n"
        fails = "#!/bin/sh\necho it will not >&2\nexit 1\n" if one.breaks else "#!/bin/sh\n"
        return (
            f"rm -rf /srv/tree; mkdir -p /srv/tree/DEBIAN /srv/tree/etc /srv/tree/usr/share/{one.name}\n"
            f"cd /srv/tree; printf %s {shlex.quote(control)} > DEBIAN/control\n"
            f"printf %s {shlex.quote(fails)} > DEBIAN/preinst; chmod 755 DEBIAN/preinst\n"
            f"echo {one.version} > usr/share/{one.name}/version; echo {one.version} > etc/{one.name}.conf\n"
            f"echo /etc/{one.name}.conf > DEBIAN/conffiles\n"
            f"dpkg-deb --root-owner-group --build . {folder}/{one.name}_{one.version}.deb >/dev/null\n"
        )

    def install(self, *offers: Offer) -> None:
        script = "".join(self._build(one, "/root") for one in offers)
        names = " ".join(f"/root/{one.name}_{one.version}.deb" for one in offers)
        self.root(f"{script}dpkg -i {names} >/dev/null; rm {names}")

    def hold(self, name: str) -> None:
        self.root(f"apt-mark hold {name}")

    def sources(self, state: str) -> None:
        known = {
            "good": "trusted=yes] file:/srv/archive",
            "down": "trusted=yes] http://127.0.0.1:9",
            "unsigned": "trusted=no] file:/srv/archive",
            "vendor down": "trusted=yes] file:/srv/archive",
        }
        plain = ["stable", "stable-updates"]
        lines = [f"deb [trusted=yes] file:/srv/archive {suite} main" for suite in plain]
        lines += [f"deb [{known[state]} stable-security main"] if state in known else []
        lines += ["deb [trusted=yes] http://127.0.0.1:9/vendor ./"] if state == "vendor down" else []
        text = "".join(f"{line}\n" for line in lines)
        self.root(
            "rm -rf /etc/apt/sources.list*; mkdir /etc/apt/sources.list.d\n"
            f"printf %s {shlex.quote(text)} > /etc/apt/sources.list.d/test.list"
        )

    def clear(self) -> None:
        self.root(
            "names=$(dpkg-query -W -f '${Maintainer}|${Package}\\n' | sed -n 's/^x|//p')\n"
            '[ -z "$names" ] || { apt-mark unhold $names; dpkg --purge --force-all $names; } >/dev/null\n'
            f"rm -rf /srv/archive {UPDATES}"
        )


ADVISORY = """<update from="x" status="final" type="security" version="2.0"><id>{id}</id><title>{id}</title>
<issued date="2026-01-01"/><severity>important</severity><description>x</description>
<pkglist><collection short="x"><name>x</name><package arch="noarch" name="{name}" epoch="0"
version="{version}" release="1" src="x"><filename>x</filename></package></collection></pkglist></update>"""


class Dnf(Distribution):
    """An Amazon Linux: updates of all kinds lie in one repository; advisories say which are for security."""

    def offer(self, pocket: str, *offers: Offer) -> None:
        self.offers += [(pocket, one) for one in offers]
        told = "".join(
            ADVISORY.format(id=f"ALAS2023-2026-{number}", name=one.name, version=one.version)
            for number, (kind, one) in enumerate(self.offers)
            if kind == "security"
        )
        script = "mkdir -p /srv/archive\n" + "".join(self._build(one, "/srv/archive") for one in offers)
        self.root(
            f"{script}\ncd /srv/archive; createrepo_c --quiet .\n"
            f"printf %s {shlex.quote(f'<updates>{told}</updates>')} > /root/updateinfo.xml\n"
            "modifyrepo_c --mdtype=updateinfo /root/updateinfo.xml repodata >/dev/null"
        )

    def _build(self, one: Offer, folder: str) -> str:
        spec = f"Name: {one.name}\nVersion: {one.version}\nRelease: 1\nSummary: x\nLicense: x\nVendor: Test\n"
        spec += f"BuildArch: noarch\n%description\nx\n{f'Requires: {one.needs}' if one.needs else ''}\n"
        spec = spec.replace("%description", "__").replace("__\nx\n", "") + "%description\nx\n"
        spec += f"%pre\n{'echo it will not >&2; exit 1' if one.breaks else 'true'}\n%install\n"
        spec += f"mkdir -p %{{buildroot}}/etc %{{buildroot}}/usr/share/{one.name}\n"
        spec += f"echo {one.version} > %{{buildroot}}/etc/{one.name}.conf\n"
        spec += f"echo {one.version} > %{{buildroot}}/usr/share/{one.name}/version\n"
        spec += f"%files\n%config(noreplace) /etc/{one.name}.conf\n/usr/share/{one.name}\n"
        return (
            f"printf %s {shlex.quote(spec)} > /root/{one.name}.spec\n"
            f"rpmbuild --quiet -bb --define '_rpmdir {folder}' --define '_topdir /root/build' "
            f"--define '__spec_install_post %{{nil}}' /root/{one.name}.spec >/dev/null 2>&1\n"
        )

    def install(self, *offers: Offer) -> None:
        script = "".join(self._build(one, "/root/rpms") for one in offers)
        self.root(f"{script}rpm --install --nodeps /root/rpms/noarch/*.rpm; rm -r /root/rpms")

    def hold(self, name: str) -> None:
        self.root(f"sed -i 's/^\\[main\\]/&\\nexclude={name}/' /etc/dnf/dnf.conf")

    def sources(self, state: str) -> None:
        url = "http://127.0.0.1:9" if state == "down" else "file:///srv/archive"
        text = "" if state == "none" else _repository("amazonlinux", url)
        text += _repository("vendor", "http://127.0.0.1:9") if state == "vendor down" else ""
        self.root(f"rm -f /etc/yum.repos.d/*\nprintf %s {shlex.quote(text)} > /etc/yum.repos.d/test.repo")

    def clear(self) -> None:
        self.offers.clear()
        self.root(
            "rpm -qa --queryformat '%{VENDOR}|%{NAME}\\n' | sed -n 's/^Test|//p' |"
            " xargs -r rpm --erase --nodeps\n"
            f"sed -i '/^exclude=/d' /etc/dnf/dnf.conf; rm -rf /srv/archive {UPDATES}"
        )


def _repository(name: str, url: str) -> str:
    return f"[{name}]\nname={name}\nbaseurl={url}\nenabled=1\ngpgcheck=0\n"


def distribution(session: Session, packages: str) -> Distribution:
    """The machine's."""
    return Apt(session, packages) if packages == "apt" else Dnf(session, packages)
