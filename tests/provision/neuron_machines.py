"""The two systems that the Neuron stack is tested on: how each builds repositories and lists packages."""

from __future__ import annotations

import functools
import io
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from bake.layout import BAKE
from bake.ssh import CommandResult, Session

from . import repositories
from .repositories import KEY_FILE, LONG_AGO, Key

if TYPE_CHECKING:
    from tests.conftest import Machine
    from tests.outside import Outside

STACK = repositories.STACK
SCRIPT = f"{BAKE}/scripts/14-neuron.sh"


class Quiet(SimpleHTTPRequestHandler):
    """Files over HTTP, without a line for each."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path, outside: Outside) -> Iterator[str]:
    """A web server with the files of a folder, beyond the host; its URL."""
    handler = functools.partial(Quiet, directory=str(folder))
    server = outside.make(lambda: ThreadingHTTPServer((outside.address, 0), handler))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{outside.address}:{server.server_port}"
    server.shutdown()


@dataclass
class Tried(ABC):
    """One machine, its repositories' place, and the keys."""

    machine: Machine
    url: str
    good: Key
    other: Key
    expired: Key

    stack: Mapping[str, str]

    @property
    def session(self) -> Session:
        return self.machine.session

    @property
    def pins(self) -> str:
        return " ".join(f"{name}={version}" for name, version in self.stack.items())

    def run(self, **settings: str) -> CommandResult:
        """Run the script as the bake does, with these settings."""
        given = {
            "BAKE_ACCELERATOR": "neuron",
            "NEURON_PACKAGES": self.pins,
            "NEURON_REPOSITORY": "",
            "NEURON_FINGERPRINT": "",
            "NEURON_NOGPGCHECK": "no",
            **settings,
        }
        pairs = [f"{name}={value}" for name, value in given.items()]
        return self.session.run("env", *pairs, "bash", SCRIPT, sudo=True, check=False)

    @abstractmethod
    def installed(self) -> dict[str, str]:
        """The stack's packages that are installed, with their versions."""

    @abstractmethod
    def held(self) -> set[str]:
        """What no upgrade touches."""

    @abstractmethod
    def sources(self) -> str:
        """The files that say where packages come from."""

    @abstractmethod
    def clear(self) -> None:
        """Remove the stack."""

    @abstractmethod
    def own_source(self, url: str) -> tuple[str, str]:
        """A file, and its content, by which a base AMI names a repository itself."""


class Apt(Tried):
    """A Debian or Ubuntu."""

    def installed(self) -> dict[str, str]:
        shown = "--showformat=${Package} ${db:Status-Status} ${Version}\n"
        done = self.session.run("dpkg-query", "--show", shown, "aws-neuronx-*", check=False)
        lines = [line.split() for line in done.stdout.splitlines()]
        return {name: version for name, state, version in lines if state == "installed"}

    def held(self) -> set[str]:
        return set(self.session.run("apt-mark", "showhold").stdout.split())

    def sources(self) -> str:
        return self.session.run("ls", "/etc/apt/sources.list.d", "/etc/apt/keyrings").stdout

    def clear(self) -> None:
        names = list(self.installed())
        if names:
            self.session.run("apt-mark", "unhold", *names, sudo=True)
            self.session.run("dpkg", "--purge", *names, sudo=True)

    def own_source(self, url: str) -> tuple[str, str]:
        return "/etc/apt/sources.list.d/neuron.list", f"deb {url} {codename(self.session)} main\n"


class Rpm(Tried):
    """An Amazon Linux."""

    def installed(self) -> dict[str, str]:
        shown = "%{NAME} %{VERSION}-%{RELEASE}\n"
        done = self.session.run("rpm", "--query", "--all", f"--queryformat={shown}", "aws-neuronx-*")
        return dict(line.split() for line in done.stdout.splitlines())

    def held(self) -> set[str]:
        lines = self.session.run("cat", "/etc/dnf/dnf.conf").stdout.splitlines()
        return {name for line in lines if line.startswith("exclude=") for name in line[8:].split()}

    def sources(self) -> str:
        return self.session.run("ls", "/etc/yum.repos.d").stdout

    def clear(self) -> None:
        if names := list(self.installed()):
            self.session.run("rpm", "--erase", *names, sudo=True)
        self.session.run("sed", "-i", "/^exclude=/d", "/etc/dnf/dnf.conf", sudo=True)

    def own_source(self, url: str) -> tuple[str, str]:
        return "/etc/yum.repos.d/neuron.repo", f"[neuron]\nname=Neuron\nbaseurl={url}\ngpgcheck=1\n"


def codename(session: Session) -> str:
    return session.run("sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME").stdout.strip()


@contextmanager
def tried(machine: Machine, folder: Path, outside: Outside) -> Iterator[Tried]:
    """The machine with repositories of each kind, for as long as the tests take."""
    made = [Key.make(folder / name, expired=name == "expired") for name in ("good", "other", "expired")]
    good, other, expired = made
    older = {"aws-neuronx-tools": "2.20.0.0"}
    try:
        kinds = {
            "signed": (good, good, {}),
            "wrongly-signed": (other, good, {}),
            "another-key": (other, other, {}),
            "expired": (expired, expired, {}),
            "older": (good, good, older),
            "no-key": (good, good, {}),
        }
        if machine.plan.system.packages == "apt":
            place = folder / "repositories"
            for name, (signer, shown, change) in kinds.items():
                repositories.apt(place / name, {**STACK, **change}, signer, shown, codename(machine.session))
            (place / "no-key" / KEY_FILE).write_text("<html>not found</html>")
            without_network(machine.session)
            with serving(place, outside) as url:
                yield Apt(machine, url, good, other, expired, STACK)
        else:
            stack = {name: _rpm_version(version) for name, version in STACK.items()}
            change = {name: _rpm_version(version) for name, version in older.items()}
            send(machine.session, {"keys": folder, "build": Path(__file__).with_name("rpm_repository.sh")})
            for name, (signer, shown, changed) in kinds.items():
                packages = {**stack, **(change if changed else {})}
                homes = [f"/root/keys/{key.home.name}" for key in (signer, shown)]
                past = LONG_AGO if signer.expired else ""
                pins = [f"{package}={version}" for package, version in packages.items()]
                machine.session.run(
                    "bash", "/root/build", f"/srv/{name}", *homes, KEY_FILE, past, *pins, sudo=True
                )
            machine.session.run("tee", f"/srv/no-key/{KEY_FILE}", stdin=b"<html>not found</html>", sudo=True)
            yield Rpm(machine, "file:///srv", good, other, expired, stack)
    finally:
        for key in made:
            key.stop()


def _rpm_version(version: str) -> str:
    """As the rpm packages of Neuron write it: no hyphen, and a release."""
    return f"{version.replace('-', '_')}-1"


def without_network(session: Session) -> None:
    """The host's own sources take part in every update, and no test here needs them."""
    session.run("sh", "-ec", "mkdir /root/sources; mv /etc/apt/sources.list* /root/sources", sudo=True)
    session.run("mkdir", "/etc/apt/sources.list.d", sudo=True)


def send(session: Session, files: Mapping[str, Path]) -> None:
    """Put files and folders into the machine's /root, each by another name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, path in files.items():
            tar.add(path, name, filter=lambda entry: None if entry.isfifo() else entry)
    session.run(
        "tar", "--extract", "--gzip", "--directory=/root", "--no-same-owner",
        stdin=buffer.getvalue(), sudo=True,
    )  # fmt: skip
