"""Any profile in any environment loads, or fails with one message that names every problem and its place."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bake import profile
from bake.errors import BakeError, UsageError

from ..variables import VARIABLES as EXAMPLES

PROFILES = Path(__file__).parents[3] / "profiles"
TEXT = (PROFILES / "g6e-ubuntu.yaml").read_text()
GOOD: dict[str, Any] = yaml.safe_load(TEXT)
TOKEN = EXAMPLES["HF_TOKEN"]
SECRET = "canary-from-the-store"
VARIABLES = {
    **EXAMPLES,
    "OTHER_TOKEN": TOKEN,
}
PLACED = re.compile(r"[^\n]*\.yaml:[1-9]\d*:[1-9]\d*: \S|    \S")
# A busy host is no reason to fail.
CALM: Any = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
FUZZ = settings(max_examples=100, **CALM)


def secrets(name: str, key: str) -> str:
    """Secrets Manager with every secret but `none`."""
    if name == "none":
        raise BakeError("there is no such secret")
    return SECRET


def outcome(directory: Path, content: str | bytes, variables: dict[str, str]) -> str | None:
    """The message, or None for a profile; anything else that is raised fails the test."""
    (directory / "p.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        found = profile.load("p", directory, variables, secrets)
    except UsageError as error:
        assert error.message
        for line in error.message.splitlines():
            assert PLACED.match(line), line
        assert TOKEN not in f"{error.message}{error.hint}"
        assert SECRET not in f"{error.message}{error.hint}"
        return error.message
    assert isinstance(found, profile.Profile)
    assert found.weights.repo == profile.FLUX
    return None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of profiles."""
    return tmp_path_factory.mktemp("profiles")


def put(section: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document[section][key] = value

    return change


def drop(section: str, key: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        del document[section][key]

    return change


def waive(**changes: str) -> Callable[[dict[str, Any]], None]:
    waiver = {"check": "a.b", "reason": "r", "approved_by": "p", "risk": "n", "until": "2027-01-31"}

    def change(document: dict[str, Any]) -> None:
        document["waivers"] = [waiver, {**waiver, "check": "a.c", **changes}]

    return change


# Where a change is made -> what is wrong then -> what the message says. One change a place keeps them apart.
PLANTS: dict[str, list[tuple[Callable[[dict[str, Any]], None], str]]] = {
    "base.ami": [
        (put("base", "ami", "ami-0123456789abcdef0"), "base.ami: an AMI id must come from the environment"),
        (put("base", "ami", "${AWS_REGION}"), "base.ami: eu-west-1 does not look like an AMI id"),
        (put("base", "ami", "${UNSET}"), "base.ami: the variable UNSET is not set"),
        (drop("base", "ami"), "base: needs exactly one of ami"),
        (put("base", "ssm", "/aws/ami"), "base: needs exactly one of ami"),
    ],
    "base.os": [
        (put("base", "os", "debian"), "base.os: must be ubuntu or amazon-linux, not debian"),
        (drop("base", "os"), "base.os: is missing"),
        (put("base", "os", 22), "base.os: must be"),
        (put("base", "os", [TOKEN]), "base.os.0: a Hugging Face token"),
    ],
    "builder.key": [(put("builder", "regoin", "x"), "builder.regoin: unknown key\n    did you mean region?")],
    "builder.type": [
        (put("builder", "instance_type", "g6e"), "builder.instance_type: g6e does not look like"),
        (put("builder", "instance_types", ["g6e.xlarge"]), "builder: needs instance_type, or"),
        (drop("builder", "instance_type"), "builder: needs instance_type, or"),
    ],
    "builder.market": [(put("builder", "market", "spt"), "builder.market: must be spot or on-demand")],
    "builder.subnet": [
        (drop("builder", "subnet"), "builder.subnet: is missing"),
        (put("builder", "subnet", "secretsmanager:none#x"), "builder.subnet: secretsmanager:none#x cannot"),
        (put("builder", "subnet", "secretsmanager:any#x"), "builder.subnet: what is given does not look"),
        (put("builder", "subnet", "${OTHER_TOKEN}"), "builder.subnet: what is given does not look"),
    ],
    "root_volume.size_gib": [
        (put("root_volume", "size_gib", "80GB"), "root_volume.size_gib: must be a whole number, not 80GB"),
        (put("root_volume", "size_gib", 0), "root_volume.size_gib: must be at least 1"),
        (put("root_volume", "size_gib", None), "root_volume.size_gib: has no value"),
        (put("root_volume", "size_gib", {"gib": 80}), "root_volume.size_gib: must be a whole number"),
    ],
    "root_volume.type": [
        (put("root_volume", "type", "io2"), "root_volume: io2 needs iops"),
        (put("root_volume", "type", "ssd"), "root_volume.type: must be gp2"),
    ],
    "weights.repo": [(put("weights", "repo", "a/b"), "weights.repo: must be black-forest-labs/FLUX.1-dev")],
    "weights.revision": [(put("weights", "revision", "main"), "weights.revision: main does not look like")],
    "weights.cache": [(put("weights", "cache", "/mnt/hf"), "weights.cache: /mnt is where an instance store")],
    "worker": [(lambda document: document.pop("worker"), "worker: is missing")],
    "image.name": [(put("image", "name", "x{y}z"), "image.name: unknown placeholder {y}")],
    "image.share_with": [(put("image", "share_with", [123456789012]), "image.share_with.0: an account id")],
    "waivers": [
        (waive(until="soon"), "waivers.1.until: soon does not look like a day"),
        (waive(check="a.b"), "waivers.1.check: a.b has a waiver already"),
        (waive(reason=TOKEN), "waivers.1.reason: a Hugging Face token"),
        (waive(because="x"), "waivers.1.because: unknown key"),
        (lambda document: document.update(waivers=[{"check": "a.b"}]), "waivers.0.until: is missing"),
    ],
    "checks": [(lambda document: document.update(checks=["/x.py"]), "checks.0: /x.py does not look like")],
    "reports": [(lambda document: document.update(reports="s3:/x"), "reports: must be s3://bucket")],
    "notices": [(lambda document: document.update(notices="a bus"), "notices: a bus does not look like")],
    "fail_on": [(lambda document: document.update(fail_on="hihg"), "fail_on: must be critical")],
    "section": [(lambda document: document.update(volumes=1), "volumes: unknown key")],
    "extends": [
        (lambda document: document.update(extends="nothing"), "extends: there is no profile nothing")
    ],
}


@FUZZ
@given(
    plants=st.lists(st.sampled_from(sorted(PLANTS)), unique=True).flatmap(
        lambda places: st.tuples(*(st.sampled_from(PLANTS[place]) for place in places))
    ),
    unset=st.sets(st.sampled_from(["SPOT_AWS_REGION", "BAKE_SECURITY_GROUP_ID", "HF_TOKEN"])),
    flow=st.sampled_from([True, False, None]),
)
def test_every_planted_problem_is_reported(
    place: Path, plants: tuple[Any, ...], unset: set[str], flow: bool | None
) -> None:
    document = copy.deepcopy(GOOD)
    for change, _ in plants:
        change(document)
    # With a parent that can't be had nobody knows what is missing.
    unsure = r"^[^0]*is missing|^\w+: (needs|io2)"  # but for entries of a list, which is in one file
    expected = [text for _, text in plants if "extends" not in document or not re.search(unsure, text)]
    expected += [f"the variable {name} is not set" for name in unset]
    variables = {name: value for name, value in VARIABLES.items() if name not in unset}
    text = yaml.safe_dump(document, default_flow_style=flow, sort_keys=False)
    message = outcome(place, text, variables)
    if not expected:
        assert message is None
        return
    assert message is not None
    for one in expected:
        assert one in message


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.dates(),
    st.binary(max_size=8),
    st.text(max_size=12),
    st.sampled_from(
        [
            *VARIABLES.values(),
            *(f"${{{name}}}" for name in VARIABLES),
            "${UNSET}",
            "${UNSET:-}",
            "${UNSET:-x}",
            "${",
            "$",
            "temporary",
            "secretsmanager:none#x",
            "secretsmanager:any#x",
            "secretsmanager:",
        ]
    ),
)
REVIEW = ["checks", "waivers", "reports", "notices", "fail_on"]
OTHERS = ["extends", "name", "owner", "iops", "<<"]
WAIVER = ["check", "reason", "approved_by", "risk", "until"]
keys = st.sampled_from(
    [*GOOD, *(key for section in GOOD.values() for key in section), *WAIVER, *OTHERS]
) | st.text(max_size=6)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=8,
)


@FUZZ
@given(
    changes=st.lists(st.tuples(st.sampled_from(sorted(GOOD)), keys, values), max_size=5),
    whole=st.dictionaries(keys | st.sampled_from(REVIEW), values, max_size=2),
)
def test_any_values_give_a_profile_or_a_message(
    place: Path, changes: list[tuple[str, str, Any]], whole: dict[str, Any]
) -> None:
    document = {**copy.deepcopy(GOOD), **whole}
    for section, key, value in changes:
        if isinstance(document[section], dict):
            document[section][key] = value
    outcome(place, yaml.safe_dump(document, allow_unicode=True), VARIABLES)


@FUZZ
@given(
    place_in_file=st.integers(0, len(TEXT)),
    cut=st.integers(0, 40),
    paste=st.text(max_size=6) | st.text("{}[]&*!|>'\"%@`#-?:, \n\t<", max_size=6),
)
@example(place_in_file=0, cut=len(TEXT), paste="")
def test_any_slip_of_the_hand_gives_a_profile_or_a_message(
    place: Path, place_in_file: int, cut: int, paste: str
) -> None:
    text = TEXT[:place_in_file] + paste + TEXT[place_in_file + cut :]
    outcome(place, text.encode("utf-8", "surrogatepass"), VARIABLES)


@FUZZ
@given(content=st.binary(max_size=60))
def test_any_bytes_give_a_message(place: Path, content: bytes) -> None:
    assert outcome(place, content, VARIABLES) is not None


@FUZZ
@given(variables=st.dictionaries(st.sampled_from(sorted(VARIABLES)), scalars.map(str)))
def test_any_environment_gives_a_profile_or_a_message(place: Path, variables: dict[str, str]) -> None:
    outcome(place, TEXT, {**VARIABLES, **variables})


@settings(max_examples=40, **CALM)
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: f"A={text}\nB\n".encode()))
def test_any_env_file_gives_variables_or_a_message(place: Path, content: bytes) -> None:
    (place / ".env.local").write_bytes(content)
    try:
        profile.environment(place / ".env.local")
    except UsageError as error:
        for line in error.message.splitlines():
            assert re.match(r".*\.env\.local:[1-9]\d*:1: \S", line), line
