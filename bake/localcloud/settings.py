"""The settings of a local cloud: its directories, its network, and the names derived from the network."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bake.errors import UsageError

API_PORT = 4566
HUB_PORT = 4580
WHEELS_PORT = 4581
IMDS_PORT = 4582
PACKAGES_PORT = 4583
NEURON_PORT = 4584
DNS_PORT = 4585
# The ports that instances reach at the bridge's address; metadata has its own address.
SERVED = (API_PORT, HUB_PORT, WHEELS_PORT, PACKAGES_PORT, NEURON_PORT)
RUN = Path("/run/bake")  # shared by all local clouds of this machine
METADATA_ADDRESS = "169.254.169.254"
# The name of a machine's default gateway, the local cloud; nss-myhostname resolves it on any network.
GATEWAY = "_gateway"
FIRST_INSTANCE = 10
_TRUST = "BAKE_LOCAL_TRUST_GUESTS"  # set for the cloud's process; users pass --trust-guests
_SEED, _LENIENT = "BAKE_LOCAL_SEED", "BAKE_LOCAL_LENIENT"
_VCPUS = "BAKE_LOCAL_VCPUS"
VCPUS = 192  # of each quota: as many as the largest single instance of a profile needs
SEED = 1  # of the delays, unless another one is asked for: a run that fails is repeatable

ACCOUNT = "123456789012"
REGION = "eu-west-1"
SPOT_REGION = "eu-north-1"


@dataclass(frozen=True)
class Delays:
    """The delays of the API that are asked for: those of a seed (None: whichever), or none at all."""

    seed: int | None = None
    lenient: bool = False


@dataclass(frozen=True)
class Settings:
    """One local cloud: `cache` may be shared between clouds, `state` and `network` may not.

    `amazon_linux` is an image of Amazon Linux (a path or URL) to make its base of; empty for a stand-in.
    `owner` is the user id, beside root's, that may reach the cloud. With `trust_guests` a machine's root is
    this host's root. `seed` decides when the API shows what was created or changed; a `lenient` cloud shows
    it at once. `vcpus` is the account's quota of each family of instance types and market.
    """

    cache: Path
    state: Path
    network: ipaddress.IPv4Network
    amazon_linux: str = ""
    owner: int = 0
    trust_guests: bool = False
    seed: int = SEED
    lenient: bool = False
    vcpus: int = VCPUS

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read BAKE_CACHE, BAKE_AMAZON_LINUX_IMAGE and BAKE_LOCAL_STATE, _NETWORK, _SEED, _LENIENT, _VCPUS.

        The owner is the user who called sudo. UsageError for an unusable network or number.
        """
        env = os.environ if environment is None else environment
        cache = Path(env.get("BAKE_CACHE") or "~/.cache/bake").expanduser().absolute()
        state = Path(env.get("BAKE_LOCAL_STATE") or cache / "local").expanduser().absolute()
        network = _network(env.get("BAKE_LOCAL_NETWORK") or "10.214.0.0/24")
        user = env.get("SUDO_UID", "")
        return cls(
            cache,
            state,
            network,
            _image(env.get("BAKE_AMAZON_LINUX_IMAGE") or ""),
            int(user) if user.isascii() and user.isdigit() else 0,
            env.get(_TRUST) == "yes",
            _whole(_SEED, env.get(_SEED) or str(SEED)),
            env.get(_LENIENT) == "yes",
            _whole(_VCPUS, env.get(_VCPUS) or str(VCPUS)),
        )

    def with_delays(self, asked: Delays) -> Settings:
        """The same with the delays that are asked for."""
        seed = self.seed if asked.seed is None else asked.seed
        return replace(self, seed=seed, lenient=self.lenient or asked.lenient)

    def environment(self) -> dict[str, str]:
        """The variables that make `load` return an equal value, for a child process."""
        return {
            "BAKE_CACHE": str(self.cache),
            "BAKE_LOCAL_STATE": str(self.state),
            "BAKE_LOCAL_NETWORK": str(self.network),
            "BAKE_AMAZON_LINUX_IMAGE": self.amazon_linux,
            "SUDO_UID": str(self.owner),
            _TRUST: "yes" if self.trust_guests else "no",
            _SEED: str(self.seed),
            _LENIENT: "yes" if self.lenient else "no",
            _VCPUS: str(self.vcpus),
        }

    @property
    def address(self) -> str:
        """The bridge's address, the only one that the servers bind."""
        return str(self.network[1])

    @property
    def vpc(self) -> ipaddress.IPv4Network:
        """The addresses of the VPC: the lower half of the network."""
        return next(self.network.subnets())

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        """The subnet whose instances get a public address: the lower half of the VPC."""
        return next(self.vpc.subnets())

    @property
    def private_subnet(self) -> ipaddress.IPv4Network:
        """The subnet whose instances have none: the upper half of the VPC."""
        return list(self.vpc.subnets())[1]

    @property
    def public_addresses(self) -> ipaddress.IPv4Network:
        """What stands for public addresses: the upper half of the network."""
        return list(self.network.subnets())[1]

    @property
    def tag(self) -> str:
        """Eight hex digits that tell two clouds' interfaces apart (interface names have 15 characters)."""
        return f"{int(self.network.network_address):08x}"

    @property
    def bridge(self) -> str:
        return f"bk{self.tag}"

    @property
    def table(self) -> str:
        """The nftables table of this cloud."""
        return f"bake_{self.tag}"

    @property
    def control(self) -> Path:
        """The control socket; a short path, since a socket's may have 107 bytes at most."""
        return RUN / f"{self.tag}.sock"

    @property
    def instances(self) -> Path:
        """The folder with a directory for each instance: disk, mount point, console."""
        return self.state / "instances"

    @property
    def images(self) -> Path:
        """The folder of AMIs and snapshots, which outlive the cloud."""
        return self.state / "images"

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}:{API_PORT}"

    @property
    def hub(self) -> str:
        return f"http://{self.address}:{HUB_PORT}"

    @property
    def wheels(self) -> str:
        return f"http://{self.address}:{WHEELS_PORT}/simple"

    @property
    def neuron_wheels(self) -> str:
        """The index in place of AWS's index of the Neuron SDK's Python packages."""
        return f"http://{self.address}:{NEURON_PORT}/simple"


def _network(text: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise UsageError(f"BAKE_LOCAL_NETWORK: {text!r} is not a network: {error}", hint=_HINT) from error
    if not network.is_private or network.is_loopback or network.is_link_local:
        raise UsageError(f"BAKE_LOCAL_NETWORK: {network} is not a private network", hint=_HINT)
    if not 16 <= network.prefixlen <= 27:
        raise UsageError(f"BAKE_LOCAL_NETWORK: {network} must be between a /16 and a /27", hint=_HINT)
    return network


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(f"{name}: {text[:40]!r} is not a whole number from 0 on", hint=f"{name}=64")
    return int(text)


def _image(text: str) -> str:
    """Make a path absolute, since the cloud runs in another directory."""
    return str(Path(text).expanduser().absolute()) if text and "://" not in text else text


_HINT = "something like BAKE_LOCAL_NETWORK=10.214.0.0/24"
