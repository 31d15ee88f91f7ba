"""`bake attest verify`: whether an AMI still holds what was attested, to the last byte."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bake.commands.options import profile_and_rehearse
from bake.errors import BakeError, NotVerified, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bake.attest.verify import Attestation, Compared, Result
    from bake.aws import Aws

SHOWN = 10  # ranges of blocks that a person is told
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def attest() -> None:
    """Check what images hold against what was attested of them.

    \b
    Example:
      bake attest verify ami-0123456789abcdef0 --key signing.pub
    """


@attest.command()
@click.argument("ami")
@click.option("--region", metavar="REGION", help="Where the AMI is; else SPOT_AWS_REGION, or the profile's.")
@click.option("--key", type=_FILE, metavar="FILE", help="The public key, in PEM, that must have signed it.")
@click.option(
    "--attestation", type=_FILE, metavar="FILE", help="The attestation.intoto.jsonl; else the one of its run."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@profile_and_rehearse
@click.pass_obj
def verify(
    obj: dict[str, Any],
    ami: str,
    region: str | None,
    key: Path | None,
    attestation: Path | None,
    as_json: bool,
    profile: str | None,
    rehearse: bool,
) -> None:
    """Read an AMI's snapshots again, and say whether they hold what was attested.

    The attestation is that of a run on this machine, or the one beside the report that the AMI's tags name.
    A copy in another region is held against its source's. With --key the attestation must be signed by that
    key; without it, the key that lies beside it shows only that nothing was damaged.

    Exit code 0 for yes, 4 for no: then it says which blocks differ.

    \b
    Examples:
      bake attest verify ami-0123456789abcdef0 --key signing.pub
      bake attest verify ami-0123456789abcdef0 --region eu-west-1
      bake attest verify ami-0123456789abcdef0 --rehearse --json
    """
    from bake.attest.verify import as_dict
    from bake.attest.verify import verify as held_against

    if not re.fullmatch(r"ami-[0-9a-f]{8,17}", ami):
        raise UsageError(f"{ami!r} is not an AMI id", hint="it looks like ami-0123456789abcdef0")
    trusted = None if key is None else _read(key)
    with ExitStack() as stack:
        aws, facts = _found(obj, stack, profile or obj["profile"], rehearse or obj["rehearse"], ami, region)
        found = _attestation(aws, obj["runs"], facts, attestation)
        result = held_against(aws, facts, found, trusted, str(key or "the key beside it"))
    if as_json or obj["as_json"]:
        click.echo(json.dumps(as_dict(result), indent=2))
    else:
        click.echo("\n".join(lines(result)))
    if not result.same:
        raise NotVerified(
            f"{ami} does not hold what was attested", hint="do not use it: bake again, or copy a verified one"
        )


def _found(
    obj: dict[str, Any], stack: ExitStack, profile: str | None, rehearsal: bool, ami: str, region: str | None
) -> tuple[Aws, Mapping[str, Any]]:
    """The clients of the AMI's region, and the AMI."""
    from bake.attest.verify import described
    from bake.aws import Aws
    from bake.commands import account
    from bake.rehearsal import as_verifier

    cloud = account.local_cloud(stack) if rehearsal else None
    local = cloud.environment if cloud else {}
    home, worker = account.regions(obj, profile, local) if profile or not region else (region, region)
    where = region or home
    aws = Aws(region=where, worker_region=worker, **as_verifier(cloud, where, worker)).patiently()
    return aws, described(aws, ami)


def _attestation(aws: Aws, runs: Path, facts: Mapping[str, Any], file: Path | None) -> Attestation:
    """The attestation that was named, or one of a run on this machine, or of the AMI's report."""
    from bake.attest.verify import sources

    if file is not None:
        return _of_folder(file)
    for image in sources(facts):
        for folder in _folders(runs, image):
            return _of_folder(folder)
    return _of_report(aws, facts, runs)


def _folders(runs: Path, image: str) -> Iterator[Path]:
    from bake.report.kept import by_image
    from bake.steps.attest import STATEMENTS

    for folder in by_image(runs).get(image, ()):
        if (folder / STATEMENTS).is_file():
            yield folder / STATEMENTS


def _of_folder(file: Path) -> Attestation:
    """An attestation with what lies beside it."""
    from bake.attest.verify import Attestation
    from bake.steps.attest import PUBLIC_KEY

    beside = file.parent / PUBLIC_KEY
    blocks = {
        one.name.removeprefix("attestation-").removesuffix(".blocks"): one.read_bytes()
        for one in file.parent.glob("attestation-snap-*.blocks")
    }
    text = _read(file).decode(errors="replace")
    return Attestation.read(text, str(file), beside.read_bytes() if beside.is_file() else None, blocks)


def _of_report(aws: Aws, facts: Mapping[str, Any], runs: Path) -> Attestation:
    """The attestation beside the report in S3 that the AMI's tags name."""
    from bake.attest import leaves
    from bake.attest.verify import Attestation
    from bake.creation import tag_of
    from bake.report.places import REPORT_TAG, optional
    from bake.steps.attest import PUBLIC_KEY, STATEMENTS

    url = tag_of(facts.get("Tags"), REPORT_TAG)
    content = optional(aws.at_home(), url, STATEMENTS) if url else None
    if content is None:
        raise BakeError(
            f"there is no attestation of {facts['ImageId']}: no run in {runs} has it, and its tags name none",
            hint="--attestation FILE names it; the profile's attest: true makes one with each bake",
        )
    found = Attestation.read(content.decode(errors="replace"), f"{url}/{STATEMENTS}")
    kept = {
        one.snapshot: data
        for one in found.subject.snapshots
        if (data := optional(aws.at_home(), url, leaves.name(one.snapshot))) is not None
    }
    key = optional(aws.at_home(), url, PUBLIC_KEY)
    return Attestation.read(content.decode(errors="replace"), found.where, key, kept)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}") from error


def lines(result: Result) -> Iterator[str]:
    """The result for a person."""
    attestation, subject = result.attestation, result.attestation.subject
    copy = f", a copy of {result.copy_of} in {subject.region}" if result.copy_of else ""
    yield f"{'YES' if result.same else 'NO'}: {result.image} in {result.region}{copy}"
    yield f"  attested    sha256:{subject.digest} ({subject.venue}, {attestation.verdict or 'no verdict'})"
    yield f"  found       sha256:{result.digest}"
    yield f"  signature   {_SIGNED[result.signature].format(result.key[:16])}"
    yield f"  attestation {attestation.where}"
    if result.tag not in ("", f"sha256:{subject.digest}"):
        yield f"  the AMI's tag bake:digest says otherwise: {result.tag}"
    for one in result.snapshots:
        yield f"  {one.snapshot} ({one.attested.device}): {'the same' if one.same else 'DIFFERENT'}"
        yield from (f"    {line}" for line in _differing(one))


_SIGNED = {
    "trusted": "by the key {}, which --key names",
    "beside": "by the key {} that lies beside it: name the one that you trust with --key",
    "unsigned": "NOT SIGNED: whoever may write to that file may have written it",
}


def _differing(one: Compared) -> Iterator[str]:
    from bake.attest.verify import bytes_of

    if one.same:
        return
    if one.gib != one.attested.gib:
        yield f"its volume is of {one.gib} GiB, and not of {one.attested.gib} GiB"
    if one.differing is None:
        yield "which blocks differ is not known: the run's file of blocks is not beside the attestation"
        return
    for first, last in one.differing[:SHOWN]:
        start, end = bytes_of(first, last)
        blocks = f"block {first:,} differs" if first == last else f"blocks {first:,} to {last:,} differ"
        yield f"{blocks}: bytes {start:,} to {end - 1:,}"
    if len(one.differing) > SHOWN:
        yield f"and {len(one.differing) - SHOWN:,} more ranges: --json has all"
