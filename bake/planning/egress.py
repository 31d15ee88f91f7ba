"""List what the builder must reach beyond its subnet, for bakes behind a firewall or without internet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from bake.interpreter import Archive
from bake.planning.sources import Sources
from bake.profile import Profile
from bake.weights.mirror import Place

HUB = ("huggingface.co", "*.hf.co")  # the Hub, and where it sends for the files themselves
PYPI = ("pypi.org", "files.pythonhosted.org")
RELEASES = "release-assets.githubusercontent.com"  # where github.com sends for a release's files


@dataclass(frozen=True)
class Egress:
    """Hosts that the builder asks (`*.` for all below one), what for, and whether each bake does."""

    hosts: tuple[str, ...]
    why: str
    always: bool = True


def find(profile: Profile, sources: Sources, archive: Archive) -> tuple[Egress, ...]:
    """List the hosts in the order of a bake. What a base AMI has already is not fetched."""
    return (
        *_mirror(profile),
        *_stream(profile),
        _python(profile, sources, archive),
        _index(sources),
        _weights(profile, sources),
        _packages(profile),
        *_repositories(profile),
    )


def hosts(profile: Profile, found: Iterable[Egress]) -> list[str]:
    """All hosts of a plan, and the Git host of the worker's code, from which an image may fetch it."""
    source = [profile.worker.source] if profile.worker.source else []
    return [host for one in found for host in one.hosts] + source


def _mirror(profile: Profile) -> Iterator[Egress]:
    if profile.weights.mirror is not None:
        bucket = Place.of(profile.weights.mirror).bucket
        why = "the mirror of the weights and of Python; an endpoint of S3 in the VPC will do"
        yield Egress((f"{bucket}.s3.*.amazonaws.com",), why)  # of the bucket's own region


def _stream(profile: Profile) -> Iterator[Egress]:
    stream, mirror = profile.weights.stream, profile.weights.mirror
    if stream is None or (mirror and Place.of(mirror).bucket == Place.of(stream).bucket):
        return
    why = "to put there what workers read beside their volume; an endpoint of S3 in the VPC will do"
    yield Egress((f"{Place.of(stream).bucket}.s3.*.amazonaws.com",), why)


def _python(profile: Profile, sources: Sources, archive: Archive) -> Egress:
    hosts = (archive.host, RELEASES) if archive.host == "github.com" else (archive.host,)
    unless = " nor the mirror this one" if profile.weights.mirror else ""
    why = f"{archive.name}, where the base has no whole Python {sources.python}{unless}"
    return Egress(hosts, why, always=False)


def _index(sources: Sources) -> Egress:
    index = sources.builder.get("UV_DEFAULT_INDEX")
    return Egress((_host(index),) if index else PYPI, "Python packages, by hash")


def _weights(profile: Profile, sources: Sources) -> Egress:
    hosts = (_host(sources.hub),) if sources.hub else HUB
    return Egress(hosts, "the weights" + (" that the mirror does not have" if profile.weights.mirror else ""))


def _packages(profile: Profile) -> Egress:
    if profile.base.updates == "security":
        return Egress(("the base AMI's package sources",), "the distribution's security updates")
    why = "packages that the base AMI lacks; a Deep Learning AMI lacks none"
    if profile.nvidia.driver or "dkms" in profile.neuron.model_fields_set:
        why = "packages that the base AMI lacks, such as its kernel's headers"
    return Egress(("the base AMI's package sources",), why, always=False)


def _repositories(profile: Profile) -> Iterator[Egress]:
    if profile.base.accelerator == "cuda" and profile.nvidia.driver and profile.nvidia.repository:
        why = f"the driver {profile.nvidia.driver}, where the base AMI has another"
        yield Egress((_host(profile.nvidia.repository),), why, always=False)
    if profile.base.accelerator == "neuron":
        if profile.neuron.pinned and profile.neuron.repository:
            why = "the Neuron stack, where the base AMI has other versions"
            yield Egress((_host(profile.neuron.repository),), why, always=False)
        if profile.neuron.python_index:
            yield Egress((_host(profile.neuron.python_index),), "the Neuron SDK's Python packages, by hash")


def _host(url: str) -> str:
    return urlsplit(url).netloc
