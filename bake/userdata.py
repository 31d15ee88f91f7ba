"""The user data of a worker (R-USERDATA): its environment file, and its launch script from Git."""

from __future__ import annotations

import gzip
import hashlib
import re
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from bake import git
from bake.errors import BakeError, UsageError
from bake.instance import USER_DATA_LIMIT
from bake.layout import INSTANCE_ENV
from bake.profile import Profile
from bake.profile.literals import LITERALS, SECRET
from bake.profile.schema import sections
from bake.profile.variables import SECRET_NAME, STORED
from bake.profile.yaml_source import printable
from bake.redaction import redact
from bake.wiring import environment_text, stream_settings, worker_settings

FOLDER = "provision/launch"
# The script for each kind of instance type, by a pattern of the shell's `case`; the last matches all others.
SCRIPTS = {"inf*|trn*": "neuron.sh", "*": "gpu.sh"}
NEEDED = ("queue", "bucket", "bus")
TEMPLATE = Path(__file__).with_name("userdata.sh.j2")


@dataclass(frozen=True)
class Script:
    """A script of the repository: its pattern of instance types, its name and its expected hash."""

    types: str
    name: str
    sha256: str


@dataclass(frozen=True)
class UserData:
    """User data for EC2: `content` is a script, gzipped only if it would be too large otherwise."""

    content: bytes
    gzipped: bool


def make(profile: Profile, more: Mapping[str, str], origins: Mapping[str, str]) -> UserData:
    """The user data of a worker launched from the profile's image; `more` are settings beside the profile's.

    Raises UsageError with everything that is missing, secret, or too large.
    """
    settings = _settings(profile, more, origins)
    source = profile.worker.source
    text = _render(
        profile=profile.name,
        environment=INSTANCE_ENV,
        source=source,
        commit=profile.worker.commit,
        folder=FOLDER,
        scripts=_scripts(source, str(profile.worker.commit)) if source else [],
        settings=environment_text(settings),
    )
    return fitting(text)


def fitting(text: str) -> UserData:
    """`text` within EC2's limit, gzipped if necessary; cloud-init unpacks it.

    EC2 counts before base64 (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html); what is
    within that limit has at most 21,848 letters after it.
    """
    plain = text.encode()
    if len(plain) <= USER_DATA_LIMIT:
        return UserData(plain, gzipped=False)
    # No time stamp: the same text gives the same bytes, so launch templates need no new version.
    packed = gzip.compress(plain, mtime=0)
    if len(packed) > USER_DATA_LIMIT:
        raise UsageError(
            f"the user data has {len(plain):,} bytes, gzipped {len(packed):,}; EC2 takes {USER_DATA_LIMIT:,}",
            hint="give fewer or shorter settings with --set",
        )
    return UserData(packed, gzipped=True)


def _settings(profile: Profile, more: Mapping[str, str], origins: Mapping[str, str]) -> dict[str, str]:
    """The settings for the environment file; UsageError with all problems."""
    worker = profile.worker
    problems = (
        _missing(profile) + _stored(origins) + [line for item in more.items() for line in _wrong(*item)]
    )
    found = {"AWS_REGION": worker.region, "SPOT_AWS_REGION": profile.builder.region}
    found |= worker_settings(worker.region, worker.queue or "", worker.bucket or "", worker.bus or "")
    if worker.cloudwatch_namespace:
        found["FLUX_CLOUDWATCH_NAMESPACE"] = worker.cloudwatch_namespace
    found |= stream_settings(profile.weights.stream)
    problems += [f"--set {name}: the profile says what it is" for name in more if name in found]
    found |= more
    problems += [
        f"{name}: has a line break" for name, value in found.items() if re.search(r"[\x00-\x1f]", value)
    ]
    if problems:
        raise UsageError(
            "\n".join(problems),
            hint="nothing was printed; user data holds queue, bucket, bus, regions, and nothing secret",
        )
    return found


def _missing(profile: Profile) -> list[str]:
    found = []
    for key in NEEDED:
        if getattr(profile.worker, key) is None:
            extra = sections()["worker"].model_fields[key].json_schema_extra
            variable = extra["variable"] if isinstance(extra, dict) else key
            found.append(f"worker.{key}: is missing, and a worker can't start without it: set {variable}")
    return found


def _stored(origins: Mapping[str, str]) -> list[str]:
    return [
        f"{path}: comes from Secrets Manager, and user data holds nothing secret"
        for path, origin in origins.items()
        if path.startswith(("worker.", "weights.stream")) and origin.startswith(STORED)
    ]


def _wrong(name: str, value: str) -> list[str]:
    """Why one `--set NAME=VALUE` is refused. The place of a secret is allowed: the worker reads it."""
    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
        return [f"--set {printable(name, 40)}: a setting's name has capitals, digits and underscores"]
    if SECRET_NAME.search(name) and not value.startswith(STORED):
        return [f"--set {name}: that is a secret; name its place, {STORED}NAME#KEY, and the worker reads it"]
    kinds = [what for what, pattern, _ in LITERALS if what in SECRET and re.search(pattern, value)]
    if not kinds and redact(value) != value:
        kinds = ["a password, a key or another secret"]
    return [f"--set {name}: holds {what}, and user data holds nothing secret" for what in kinds]


def _scripts(url: str, commit: str) -> list[Script]:
    """The scripts of the commit and their hashes."""
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch) / "source"
        try:
            git.fetch(url, commit, files)
        except BakeError as error:
            raise UsageError(f"worker.source: {error.message}", hint=error.hint) from error
        return [_script(files / FOLDER / name, types, commit) for types, name in SCRIPTS.items()]


def _script(file: Path, types: str, commit: str) -> Script:
    if file.is_symlink() or not file.is_file():
        raise UsageError(
            f"worker.commit: {commit} has no {FOLDER}/{file.name}, which user data runs",
            hint="worker.source must be a repository like this one",
        )
    return Script(types, file.name, hashlib.sha256(file.read_bytes()).hexdigest())


def _render(**values: object) -> str:
    # A script is plain text: HTML escaping would corrupt it; what goes in is quoted for the shell.
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701
    environment.filters["quoted"] = shlex.quote
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(values)
