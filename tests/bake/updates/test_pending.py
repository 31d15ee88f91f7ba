"""Security updates that came out for an image, read of real archives that a web server has here."""

from __future__ import annotations

import functools
import gzip
import hashlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bake.checks.inventory import Inventory, Package, Source
from bake.updates import web as web_of
from bake.updates.pending import Pending, Update, pending
from bake.updates.web import Unreachable, Web, opened


class Handler(SimpleHTTPRequestHandler):
    """Files, without a line for each; the paths that were asked for are kept."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/elsewhere/"):
            self.send_response(302)
            self.send_header("Location", self.path.replace("/elsewhere/", "/"))
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class Archive:
    """A folder behind a web server."""

    folder: Path
    url: str
    asked: list[str] = field(default_factory=list)

    def write(self, name: str, content: bytes | str) -> bytes:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        told = content.encode() if isinstance(content, str) else content
        file.write_bytes(told)
        return told


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    asked: list[str] = []
    handler = functools.partial(type("Here", (Handler,), {"asked": asked}), directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield Archive(tmp_path, f"http://127.0.0.1:{server.server_port}/", asked)
    server.shutdown()
    server.server_close()


PACKAGES = {
    "openssl": "3.0.2-0ubuntu1.16",
    "bash": "5.1-6ubuntu1",
    "linux-image-aws": "6.8.0.1",
    "vim": "2:9",
}
HAS = {"openssl": "3.0.2-0ubuntu1.15", "bash": "5.1-6ubuntu1.1", "linux-image-aws": "6.5.0.1", "curl": "7"}
PLAIN = "whether {} itself told them, which speaks no TLS"


def publish(
    archive: Archive, packages: Mapping[str, str] = PACKAGES, more: str = "", components: str = "main"
) -> Source:
    """A pocket of Ubuntu's form, compressed as it is there."""
    listing = "".join(
        f"Package: {name}\nArchitecture: amd64\nVersion: {version}\nDescription: x\n Version: 99\n\n"
        for name, version in packages.items()
    )
    lines = []
    for component in components.split():
        content = gzip.compress(listing.encode(), mtime=0)
        name = f"{component}/binary-amd64/Packages.gz"
        digest = hashlib.sha256(content).hexdigest()
        lines.append(f" {digest} {len(content):>16} {name}")
        archive.write(f"ubuntu/dists/jammy-security/{name}", content)
        folder = f"ubuntu/dists/jammy-security/{component}/binary-amd64/by-hash/SHA256"
        archive.write(f"{folder}/{digest}", content)
    release = f"-----BEGIN PGP SIGNED MESSAGE-----\n\nOrigin: Ubuntu\nSuite: jammy-security\n{more}MD5Sum:\n"
    release += f" {'0' * 32} 1 main/binary-amd64/Packages.gz\nSHA256:\n" + "\n".join(lines) + "\nX: y\n"
    archive.write("ubuntu/dists/jammy-security/InRelease", release)
    return Source(
        kind="apt",
        url=f"{archive.url}ubuntu/",
        suite="jammy-security",
        components=tuple(components.split()),
        arch="amd64",
    )


def inventory(
    *sources: Source, kind: str = "deb", has: Mapping[str, str] = HAS, arch: str = "amd64", **more: object
) -> Inventory:
    told = [Package(kind=kind, name=name, version=version, arch=arch) for name, version in has.items()]
    return Inventory(moment="sealed", kernel="", os="", packages=tuple(told), sources=sources, **more)


def host(archive: Archive) -> str:
    return archive.url.split("/")[2]


@pytest.mark.parametrize("by_hash", [False, True])
def test_what_is_newer_in_the_pocket_is_pending(archive: Archive, by_hash: bool) -> None:
    source = publish(archive, more="Acquire-By-Hash: yes\n" if by_hash else "")
    found = pending(inventory(source))
    assert found.updates == (Update("openssl", "3.0.2-0ubuntu1.15", "3.0.2-0ubuntu1.16"),)
    assert found.unknown == (PLAIN.format(host(archive)),)
    assert found.sentence == "1 security update: openssl 3.0.2-0ubuntu1.15 → 3.0.2-0ubuntu1.16"
    assert any("by-hash" in path for path in archive.asked) == by_hash


def test_what_the_image_holds_is_not_pending(archive: Archive) -> None:
    assert pending(inventory(publish(archive), held=("openssl",))).updates == ()


def test_packages_of_another_architecture_are_not_compared(archive: Archive) -> None:
    assert pending(inventory(publish(archive), arch="i386")).updates == ()


def test_all_components_of_the_machine_are_read_and_no_others(archive: Archive) -> None:
    source = publish(archive, components="main universe")
    assert len(pending(inventory(source)).updates) == 1
    assert {path.split("/")[4] for path in archive.asked if "binary" in path} == {"main", "universe"}
    missing = source.model_copy(update={"components": ("multiverse",)})
    [why, _] = pending(inventory(missing)).unknown
    assert "jammy-security has no multiverse/binary-amd64/Packages" in why


def test_many_updates_are_counted(archive: Archive) -> None:
    many = {f"p{number}": "2" for number in range(7)}
    found = pending(inventory(publish(archive, many), has=dict.fromkeys(many, "1")))
    assert len(found.updates) == 7
    assert found.sentence.startswith("7 security updates: p0 1 → 2, p1 1 → 2")
    assert found.sentence.endswith("p4 1 → 2 and 2 more")


def tampered(archive: Archive) -> None:
    archive.write("ubuntu/dists/jammy-security/main/binary-amd64/Packages.gz", b"x" * 10)


def torn(archive: Archive) -> None:
    publish(archive)
    file = archive.folder / "ubuntu/dists/jammy-security/main/binary-amd64/Packages.gz"
    half = file.read_bytes()[:40]
    release = archive.folder / "ubuntu/dists/jammy-security/InRelease"
    text = release.read_text().splitlines()
    line = next(number for number, one in enumerate(text) if len(one) > 70)
    text[line] = f" {hashlib.sha256(half).hexdigest()} {len(half)} main/binary-amd64/Packages.gz"
    release.write_text("\n".join(text))
    file.write_bytes(half)


def gone(archive: Archive) -> None:
    for file in archive.folder.rglob("*Release"):
        file.unlink()


def page(archive: Archive) -> None:
    archive.write("ubuntu/dists/jammy-security/InRelease", "<html>sign in</html>")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (tampered, "has another sha256"),
        (torn, "can't be unpacked"),
        (gone, "HTTP 404"),
        (page, "has no main/binary-amd64/Packages"),
    ],
)
def test_an_index_that_is_not_to_be_had_is_told(archive: Archive, spoil: object, why: str) -> None:
    source = publish(archive)
    assert callable(spoil)
    spoil(archive)
    found = pending(inventory(source))
    assert found.updates == ()
    assert found.unknown[0].startswith("security updates of jammy-security: ")
    assert why in found.unknown[0]


def test_of_two_pockets_the_one_that_answers_counts(archive: Archive) -> None:
    source = publish(archive)
    other = source.model_copy(update={"suite": "jammy-apps-security"})
    found = pending(inventory(other, source))
    assert [one.package for one in found.updates] == ["openssl"]
    assert "security updates of jammy-apps-security: " in found.unknown[0]


@pytest.mark.parametrize(
    "url", ["file:/srv/archive", "http://127.0.0.1:9/ubuntu", "https://127.0.0.1:9/", "ftp://a/b", "http://"]
)
def test_a_place_that_can_not_be_asked_is_told(url: str) -> None:
    source = Source(kind="apt", url=url, suite="jammy-security", components=("main",), arch="amd64")
    assert len(pending(inventory(source)).unknown) == 1


def test_an_image_without_sources_or_packages_is_told(archive: Archive) -> None:
    assert pending(inventory()).unknown == (
        "security updates, as no index of them was recorded with the image",
    )
    lacking = inventory(publish(archive), incomplete=("packages",))
    assert pending(lacking) == Pending(
        unknown=("security updates, as the packages of the image were not recorded",)
    )


def test_a_file_that_is_larger_than_told_is_refused(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.write("large", b"x" * 1000)
    with pytest.raises(Unreachable, match="more than 999 bytes"):
        Web().get(f"{archive.url}large", 999)
    monkeypatch.setattr(web_of, "OPENED", 999)
    with pytest.raises(Unreachable, match="more than 999 bytes"):
        opened("Packages.gz", gzip.compress(b"x" * 1000))
    with pytest.raises(Unreachable, match="larger than it should be: 10 bytes"):
        Web().verified(f"{archive.url}large", "0" * 64, 10, 9)


def test_a_server_that_never_ends_is_left(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.write("slow", b"x" * 1000)
    monkeypatch.setattr(web_of, "DEADLINE", -1.0)
    with pytest.raises(Unreachable, match="takes more than"):
        Web().get(f"{archive.url}slow", 1000)


def test_a_redirect_within_the_same_kind_is_followed(archive: Archive) -> None:
    archive.write("file", b"x")
    assert Web().get(f"{archive.url}elsewhere/file", 10) == b"x"


def test_a_kind_of_compression_that_is_unknown_is_told() -> None:
    with pytest.raises(Unreachable, match="compressed in a way that is not read here"):
        opened("repodata/primary.xml.zst", b"")


# Amazon Linux

EPOCH = {"openssl": "1"}


def rpm_files(archive: Archive, fixes: Mapping[str, str], there: Mapping[str, str], head: str = "") -> Source:
    """A repository as createrepo_c writes it."""
    listed = "".join(
        f'<update type="{kind}"><id>ALAS2023-2026-{name}</id><pkglist><collection><name>x</name>'
        f'<package name="{name}" arch="x86_64" epoch="{EPOCH.get(name, 0)}" '
        f'version="{version.split("-")[0]}" release="{version.split("-")[1]}"/>'
        "</collection></pkglist></update>"
        for name, version in fixes.items()
        for kind in ("bugfix" if name == "tzdata" else "security",)
    )
    known = "".join(
        f'<package type="rpm"><name>{name}</name><arch>x86_64</arch><version epoch="{EPOCH.get(name, 0)}" '
        f'ver="{version.split("-")[0]}" rel="{version.split("-")[1]}"/></package>'
        for name, version in there.items()
    )
    texts = {
        "updateinfo": f"{head}<updates>{listed}</updates>",
        "primary": f'<metadata xmlns="http://linux.duke.edu/metadata/common">{known}</metadata>',
    }
    data = ""
    for kind, text in texts.items():
        content = archive.write(f"al2023/repodata/{kind}.xml.gz", gzip.compress(text.encode(), mtime=0))
        data += (
            f'<data type="{kind}"><checksum type="sha256">{hashlib.sha256(content).hexdigest()}</checksum>'
        )
        data += f'<location href="repodata/{kind}.xml.gz"/><size>{len(content)}</size></data>'
    archive.write(
        "al2023/repodata/repomd.xml", f'<repomd xmlns="http://linux.duke.edu/metadata/repo">{data}</repomd>'
    )
    archive.write("mirror.list", f"http://127.0.0.1:9/\n{archive.url}al2023/\n")
    return Source(kind="mirrorlist", url=f"{archive.url}mirror.list", arch="x86_64")


FIXES = {"openssl": "3.0.8-2", "kernel": "6.1-2", "gone": "2-1", "tzdata": "2-1", "bash": "5.2-1"}
THERE = {name: version for name, version in FIXES.items() if name != "gone"}
RPMS = {"openssl": "1:3.0.8-1", "kernel": "6.1-1", "gone": "1-1", "tzdata": "1-1", "bash": "5.2-1"}


def test_advisories_are_named_and_only_what_the_repository_has_counts(archive: Archive) -> None:
    source = rpm_files(archive, FIXES, THERE)
    found = pending(inventory(source, kind="rpm", has=RPMS, arch="x86_64"))
    assert found.updates == (Update("openssl", "1:3.0.8-1", "1:3.0.8-2", "ALAS2023-2026-openssl"),)
    assert found.sentence == ("1 security update: openssl 1:3.0.8-1 → 1:3.0.8-2 (ALAS2023-2026-openssl)")


@pytest.mark.parametrize(
    ("head", "why"),
    [
        ('<!DOCTYPE x [<!ENTITY a "aaaa">]>', "has a DOCTYPE"),
        ("<nothing", "is no XML"),
    ],
)
def test_xml_that_is_none_of_a_repository_is_told(archive: Archive, head: str, why: str) -> None:
    source = rpm_files(archive, FIXES, THERE, head)
    [told, _] = pending(inventory(source, kind="rpm", has=RPMS, arch="x86_64")).unknown
    assert why in told


def test_a_repository_without_advisories_is_told(archive: Archive) -> None:
    archive.write("bare/repodata/repomd.xml", '<repomd xmlns="http://linux.duke.edu/metadata/repo"/>')
    source = Source(kind="baseurl", url=f"{archive.url}bare")
    [told, _] = pending(inventory(source, kind="rpm", has=RPMS, arch="x86_64")).unknown
    assert "has no advisories (updateinfo)" in told
