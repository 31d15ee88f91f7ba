"""Real package repositories for tests: stub packages with valid, wrong and expired signatures."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

STACK = {
    "aws-neuronx-runtime-lib": "2.28.23.0-dd5879008",
    "aws-neuronx-dkms": "2.24.7.0",
    "aws-neuronx-collectives": "2.28.27.0-bc30ece58",
    "aws-neuronx-tools": "2.26.14.0",
}
KEY_FILE = "GPG-PUB-KEY-AMAZON-AWS-NEURON.PUB"
LONG_AGO = "20200101T000000"


def run(*command: str | Path, cwd: Path | None = None, text: str | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Key:
    """A signing key in a GnuPG home; an expired one was made, and signs, in the past."""

    home: Path
    fingerprint: str
    expired: bool

    @classmethod
    def make(cls, home: Path, *, expired: bool = False) -> Key:
        home.mkdir(mode=0o700)
        key = cls(home, "", expired)
        # gpg starts its agent itself, but waits for it no longer than 5 s. It keeps what it gets as output.
        subprocess.run(
            ["gpg-agent", "--homedir", str(home), "--daemon"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        key.gpg(
            "--passphrase=",
            "--quick-gen-key",
            f"{home.name} <{home.name}@example.com>",
            "ed25519",
            "sign",
            "1y",
        )
        listed = key.gpg("--with-colons", "--list-keys")
        fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
        return cls(home, fingerprint, expired)

    def gpg(self, *arguments: str, text: str | None = None) -> str:
        past = ["--faked-system-time", LONG_AGO] if self.expired else []
        command = [
            "gpg",
            "--homedir",
            str(self.home),
            "--batch",
            "--quiet",
            "--pinentry-mode=loopback",
            *past,
        ]
        return run(*command, *arguments, text=text)

    @property
    def public(self) -> str:
        return self.gpg("--armor", "--export")

    def stop(self) -> None:
        """End the agent that GnuPG started for this home."""
        run("gpgconf", "--homedir", self.home, "--kill", "all")


def deb(directory: Path, name: str, version: str) -> Path:
    """A stub package with a file that says which it is."""
    tree = directory / f"{name}.tree"
    place = tree / "usr/share/doc" / name
    place.mkdir(parents=True)
    (place / "stub").write_text(f"{name} {version}\n")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Test <test@example.com>\n"
        f"Description: stub of {name}\n"
    )
    file = directory / f"{name}_{version}_all.deb"
    run("dpkg-deb", "--root-owner-group", "--build", tree, file)
    shutil.rmtree(tree)
    return file


def stanza(file: Path, place: str) -> str:
    """What an index says of a package that lies at `place`."""
    content = file.read_bytes()
    control = run("dpkg-deb", "--field", file).strip()
    digest = hashlib.sha256(content).hexdigest()
    return f"{control}\nFilename: {place}{file.name}\nSize: {len(content)}\nSHA256: {digest}\n"


def release(suite: str, indexes: dict[str, bytes], signer: Key) -> str:
    """An InRelease over the indexes."""
    sums = [f" {hashlib.sha256(text).hexdigest()} {len(text)} {name}" for name, text in indexes.items()]
    text = (
        f"Origin: test\nSuite: {suite}\nCodename: {suite}\nArchitectures: amd64 arm64\nComponents: main\n"
        f"Date: {formatdate(usegmt=True)}\nSHA256:\n" + "\n".join(sums) + "\n"
    )
    return signer.gpg("--clear-sign", "--digest-algo=SHA512", text=text)


def apt(directory: Path, packages: dict[str, str], signer: Key, shown: Key, suite: str) -> None:
    """An apt repository signed by one key and showing one, usually the same."""
    pool, top = directory / "pool", directory / "dists" / suite
    pool.mkdir(parents=True)
    files = [deb(pool, name, version) for name, version in packages.items()]
    listing = "\n".join(stanza(file, "pool/") for file in files).encode()
    indexes = {}
    for architecture in ("amd64", "arm64"):
        (top / f"main/binary-{architecture}").mkdir(parents=True)
        for ending, content in (("", listing), (".gz", gzip.compress(listing, mtime=0))):
            indexes[f"main/binary-{architecture}/Packages{ending}"] = content
    for name, content in indexes.items():
        (top / name).write_bytes(content)
    (top / "InRelease").write_text(release(suite, indexes, signer))
    (directory / KEY_FILE).write_text(shown.public)


def flat(directory: Path, packages: dict[str, str], signer: Key) -> None:
    """An apt repository in one folder, as NVIDIA's is; its key's file is named after the key."""
    directory.mkdir(parents=True)
    files = [deb(directory, name, version) for name, version in packages.items()]
    listing = "\n".join(stanza(file, "./") for file in files).encode()
    (directory / "Packages").write_bytes(listing)
    (directory / "InRelease").write_text(release("flat", {"Packages": listing}, signer))
    (directory / f"{signer.fingerprint[-8:].lower()}.pub").write_text(signer.public)
