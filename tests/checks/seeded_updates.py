"""A pocket of security updates on a provisioned builder, with a package in it that is not installed yet."""

from __future__ import annotations

from bake.layout import UPDATES
from bake.updates.held import HELD

from .faults import Batch, Fault

# apt reads this pocket alone: the base's own are the host's.
_PUBLISH = r"""
publish() { # VERSION
  cd /srv/pocket; arch=$(dpkg --print-architecture); place=dists/stable-security/main/binary-$arch
  mkdir -p $place __INDEX__/lists/partial
  printf 'Package: netbase\nVersion: %s\nArchitecture: all\nDescription: x\n' $1 >$place/Packages
  (cd dists/stable-security; printf 'Origin: x\nSuite: stable-security\nDate: %s\nSHA256:\n %s %s main/%s\n' \
    "$(date -Ru)" $(sha256sum main/binary-$arch/Packages | cut -d' ' -f1) \
    $(stat -c %s main/binary-$arch/Packages) binary-$arch/Packages >Release)
  apt-get -qq -o Dir::State::Lists=__INDEX__/lists -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::Etc::SourceList=/etc/apt/sources.list.d/pocket.list update
}
""".replace("__INDEX__", UPDATES)

UPDATES_PENDING = Batch(
    [
        Fault(
            "system.security_updates_installed",
            "netbase: ",
            f"{_PUBLISH}publish 9999",
            f"{_PUBLISH}publish \"$(dpkg-query -W -f '${{Version}}' netbase)\"",
        )
    ],
    select="security_updates",
    expect=lambda expect: {"updates": "security", "not_updated": HELD},
    seed=f"""{_PUBLISH}mkdir -p /srv/pocket
        echo 'deb [trusted=yes] file:/srv/pocket stable-security main' >/etc/apt/sources.list.d/pocket.list
        publish "$(dpkg-query -W -f '${{Version}}' netbase)" """,
    mend=f"rm -rf /srv/pocket /etc/apt/sources.list.d/pocket.list {UPDATES}",
)
